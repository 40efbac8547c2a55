package receiver

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func startZone(t *testing.T) *Zone {
	t.Helper()
	z, err := StartZone()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := z.Close(); err != nil {
			t.Error(err)
		}
	})
	return z
}

// ask sends one query. The time-out is short enough for a drop and long enough
// for a loaded machine.
func ask(z *Zone, network, name string, rrtype uint16) (*dns.Msg, error) {
	c := &dns.Client{Net: network, Timeout: 250 * time.Millisecond}
	if network == "tcp" {
		c.Timeout = 10 * time.Second
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), rrtype)
	r, _, err := c.Exchange(m, z.Addr())
	return r, err
}

// answers is the data of an answer's records, one string each.
func answers(t *testing.T, z *Zone, network, name string, rrtype uint16) (list []string) {
	t.Helper()
	r, err := ask(z, network, name, rrtype)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, rr := range r.Answer {
		list = append(list, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	if r.Rcode != dns.RcodeSuccess {
		list = append(list, dns.RcodeToString[r.Rcode])
	}
	return list
}

func TestZoneRecords(t *testing.T) {
	z := startZone(t)
	z.SetTXT("_smtp._tls.Example.ORG.", "v=TLSRPTv1; rua=mailto:a@example.org", "second")
	z.SetTXT("long.example.org", strings.Repeat("x", 300))
	z.AddTXT("strings.example.org", "one ", "two", `\;`)
	z.SetAddr("mx.example.org", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.2"))
	z.SetMX("example.org", "mx.example.org", "mx2.example.org")
	z.SetCNAME("alias.example.org", "MX.example.org")
	z.SetCNAME("loop.example.org", "loop.example.org")
	z.SetAddr("gone.example.org", netip.MustParseAddr("192.0.2.9"))
	z.Remove("GONE.example.org")
	long := `"` + strings.Repeat("x", 255) + `" "` + strings.Repeat("x", 45) + `"`
	for _, c := range []struct {
		name   string
		rrtype uint16
		want   []string
	}{
		{"_SMTP._tls.example.org", dns.TypeTXT, []string{`"v=TLSRPTv1; rua=mailto:a@example.org"`, `"second"`}},
		{"long.example.org", dns.TypeTXT, []string{long}},
		{"strings.example.org", dns.TypeTXT, []string{`"one " "two" "\\;"`}},
		{"mx.example.org", dns.TypeA, []string{"192.0.2.1", "192.0.2.2"}},
		{"mx.example.org", dns.TypeAAAA, []string{"2001:db8::1"}},
		{"mx.example.org", dns.TypeTXT, nil},
		{"example.org", dns.TypeMX, []string{"10 mx.example.org.", "20 mx2.example.org."}},
		{"alias.example.org", dns.TypeAAAA, []string{"MX.example.org.", "2001:db8::1"}},
		{"alias.example.org", dns.TypeCNAME, []string{"MX.example.org."}},
		{"loop.example.org", dns.TypeA, slices.Repeat([]string{"loop.example.org."}, maxAliases)},
		{"_tls.example.org", dns.TypeTXT, nil}, // a name below has records
		{"gone.example.org", dns.TypeA, []string{"NXDOMAIN"}},
		{"example.net", dns.TypeTXT, []string{"NXDOMAIN"}},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := answers(t, z, network, c.name, c.rrtype); !slices.Equal(got, c.want) {
				t.Errorf("%s %s %s: %q, want %q", network, c.name, dns.TypeToString[c.rrtype], got, c.want)
			}
		}
	}
}

func TestZoneChanges(t *testing.T) {
	z := startZone(t)
	for _, want := range [][]string{{`"one"`}, {`"two"`, `"three"`}, {"NXDOMAIN"}, {`"four"`}} {
		var texts []string
		for _, text := range want {
			if text != "NXDOMAIN" {
				texts = append(texts, strings.Trim(text, `"`))
			}
		}
		z.SetTXT("example.org", texts...)
		if got := answers(t, z, "udp", "example.org", dns.TypeTXT); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if n := z.Queries("EXAMPLE.org."); n != 4 {
		t.Errorf("%d queries, want 4", n)
	}
	if n := z.Queries("example.net"); n != 0 {
		t.Errorf("%d queries for a name that nobody asked for", n)
	}
}

func TestZoneLookupTXT(t *testing.T) {
	z := startZone(t)
	z.SetTXT("a.example.org", strings.Repeat("x", 600), `\;`)
	z.SetCNAME("b.example.org", "a.example.org")
	z.Fault("a.example.org", DNSFault{Rcode: dns.RcodeServerFailure})
	for _, name := range []string{"A.example.org", "b.example.org."} {
		got, err := z.LookupTXT(name)
		if err != nil || !slices.Equal(got, []string{strings.Repeat("x", 600), `\;`}) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := z.LookupTXT("c.example.org"); err == nil {
		t.Errorf("a name without records has %q", got)
	}
	if n := z.Queries("a.example.org"); n != 0 {
		t.Errorf("a look-up counted as %d queries", n)
	}
}

func TestZoneFaults(t *testing.T) {
	z := startZone(t)
	const name = "example.org"
	z.SetTXT(name, "text")
	z.Fault("Example.Org.",
		DNSFault{Rcode: dns.RcodeServerFailure, Times: 2},
		DNSFault{Drop: true, Times: 1},
		DNSFault{Truncate: true},
	)
	for range 2 {
		if got := answers(t, z, "udp", name, dns.TypeTXT); !slices.Equal(got, []string{"SERVFAIL"}) {
			t.Errorf("got %q, want SERVFAIL", got)
		}
	}
	r, err := ask(z, "udp", name, dns.TypeTXT)
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("got %v, %v; want a time-out", r, err)
	}
	for range 2 { // without Times it goes on
		r, err := ask(z, "udp", name, dns.TypeTXT)
		if err != nil || !r.Truncated || len(r.Answer) > 0 {
			t.Errorf("got %v, %v; want a truncated answer", r, err)
		}
	}
	if got := answers(t, z, "tcp", name, dns.TypeTXT); !slices.Equal(got, []string{`"text"`}) {
		t.Errorf("over TCP %q, want the text", got)
	}
	z.Fault(name)
	if got := answers(t, z, "udp", name, dns.TypeTXT); !slices.Equal(got, []string{`"text"`}) {
		t.Errorf("after the faults %q, want the text", got)
	}
	if n := z.Queries(name); n != 7 {
		t.Errorf("%d queries, want 7: those without an answer count", n)
	}
}

func TestZoneDelay(t *testing.T) {
	z := startZone(t)
	z.SetTXT("example.org", "text")
	z.Fault("example.org", DNSFault{Delay: 100 * time.Millisecond, Times: 1})
	begin := time.Now()
	if got := answers(t, z, "tcp", "example.org", dns.TypeTXT); !slices.Equal(got, []string{`"text"`}) {
		t.Errorf("got %q, want the text", got)
	}
	if d := time.Since(begin); d < 100*time.Millisecond {
		t.Errorf("answered after %s", d)
	}
}

func TestZoneTruncatesWhatDoesNotFit(t *testing.T) {
	z := startZone(t)
	z.SetTXT("example.org", strings.Repeat("x", 1000))
	r, err := ask(z, "udp", "example.org", dns.TypeTXT)
	if err != nil || !r.Truncated {
		t.Fatalf("got %v, %v; want a truncated answer", r, err)
	}
	q := new(dns.Msg).SetQuestion("example.org.", dns.TypeTXT)
	q.SetEdns0(4096, false)
	r, _, err = (&dns.Client{Timeout: 10 * time.Second, UDPSize: 4096}).Exchange(q, z.Addr())
	if err != nil || r.Truncated || len(r.Answer) != 1 {
		t.Errorf("with room for 4096 bytes: %v, %v; want the whole answer", r, err)
	}
}

func TestZoneRefusesTwoQuestions(t *testing.T) {
	z := startZone(t)
	q := new(dns.Msg).SetQuestion("example.org.", dns.TypeTXT)
	q.Question = nil
	r, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(q, z.Addr())
	if err != nil || r.Rcode != dns.RcodeFormatError {
		t.Errorf("got %v, %v; want FORMERR", r, err)
	}
}

func TestZoneCloseEndsDelays(t *testing.T) {
	z := startZone(t)
	z.Fault("example.org", DNSFault{Delay: time.Hour})
	var asking sync.WaitGroup
	asking.Go(func() {
		c := &dns.Client{Net: "tcp", Timeout: 10 * time.Second}
		if r, _, err := c.Exchange(new(dns.Msg).SetQuestion("example.org.", dns.TypeTXT), z.Addr()); err == nil {
			t.Errorf("got the answer %v", r)
		}
	})
	for z.Queries("example.org") == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	asking.Wait()
	if err := z.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

func TestZoneThatCannotServe(t *testing.T) {
	z := startZone(t)
	if err := z.serve(&dns.Server{}); err == nil { // nothing to listen on
		t.Error("a server without a socket runs")
	}
}

func TestZoneIsSafeForConcurrentUse(t *testing.T) {
	z := startZone(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				z.SetTXT("example.org", "text")
				if _, err := ask(z, "tcp", "example.org", dns.TypeTXT); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := z.Queries("example.org"); n != 80 {
		t.Errorf("%d queries, want 80", n)
	}
}

func TestZoneSecure(t *testing.T) {
	z := startZone(t)
	z.SetTLSA("mx.example.org", "3 1 1 AB12", "no TLSA record")
	for _, secure := range []bool{false, true, false} {
		z.SetSecure(secure)
		r, err := ask(z, "tcp", "_25._tcp.mx.example.org", dns.TypeTLSA)
		if err != nil || len(r.Answer) != 1 || r.AuthenticatedData != secure {
			t.Errorf("secure %t: %v, %v", secure, r, err)
		}
	}
	z.SetTLSA("mx.example.org")
	if r, err := ask(z, "tcp", "_25._tcp.mx.example.org", dns.TypeTLSA); err != nil || r.Rcode != dns.RcodeNameError {
		t.Errorf("%v, %v", r, err)
	}
}
