package resolve

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve starts a name server on loopback, over UDP and TCP on one port.
func serve(t *testing.T, handler dns.HandlerFunc) (addr string) {
	t.Helper()
	pc, l := listenBoth(t)
	addr = pc.LocalAddr().String()
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		var wg sync.WaitGroup
		wg.Go(func() { s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { s.Shutdown(); wg.Wait() })
	}
	return addr
}

// listenBoth opens one port for UDP and TCP. A port that is free for the one may
// be taken for the other: then the next is tried.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var err error
	for range 16 {
		var pc net.PacketConn
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			break
		}
		var l net.Listener
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal(err)
	return nil, nil
}

// zone answers from records in the form of a zone file. A name without records
// does not exist; one with records of other types has no data.
func zone(t *testing.T, records ...string) dns.HandlerFunc {
	t.Helper()
	var rrs []dns.RR
	for _, s := range records {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		for _, rr := range rrs {
			if rr.Header().Name == q.Question[0].Name {
				m.Rcode = dns.RcodeSuccess
				if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		w.WriteMsg(m)
	}
}

// says answers everything with one RCODE.
func says(rcode int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(q, rcode)) }
}

func silent(dns.ResponseWriter, *dns.Msg) {}

const name = "_smtp._tls.example.com"

func wantTXT(t *testing.T, r *Resolver, name string, want ...string) {
	t.Helper()
	got, err := r.LookupTXT(t.Context(), name)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %q, %v; want %q", name, got, err, want)
	}
}

func wantTemporary(t *testing.T, r *Resolver) {
	t.Helper()
	got, err := r.LookupTXT(t.Context(), name)
	if !IsTemporary(err) {
		t.Errorf("%q, %v; want a temporary error", got, err)
	}
}

func wantNotFound(t *testing.T, r *Resolver, name string) {
	t.Helper()
	got, err := r.LookupTXT(t.Context(), name)
	if !errors.Is(err, ErrNotFound) || IsTemporary(err) {
		t.Errorf("%s: %q, %v; want ErrNotFound", name, got, err)
	}
}

func TestLookupTXT(t *testing.T) {
	long := strings.Repeat("x", 255)
	addr := serve(t, zone(t,
		name+`. TXT "v=TLSRPTv1; " "rua=mailto:a@example.com"`,
		`many.example.com. TXT "one"`, `many.example.com. TXT "two"`, `many.example.com. TXT ""`,
		`pieces.example.com. TXT "`+long+`" "`+long+`" "`+long+`"`,
		`odd.example.com. TXT "a\\;b\"c\009d\200"`,
		`other.example.com. A 192.0.2.1`,
	))
	r := &Resolver{Servers: []string{addr}}
	wantTXT(t, r, name, "v=TLSRPTv1; rua=mailto:a@example.com")
	wantTXT(t, r, "many.example.com", "one", "two", "")
	wantTXT(t, r, "pieces.example.com", long+long+long)
	wantTXT(t, r, "odd.example.com", "a\\;b\"c\td\xc8")
	wantNotFound(t, r, "none.example.com")                      // NXDOMAIN
	wantNotFound(t, r, "other.example.com")                     // no data
	wantNotFound(t, r, "")                                      // no name
	wantNotFound(t, r, strings.Repeat("x.", 120)+"example.com") // fits
	wantNotFound(t, r, strings.Repeat("x.", 130)+"example.com") // longer than DNS can hold
	wantNotFound(t, r, strings.Repeat("x", 64)+".example.com")  // a label, too
	wantNotFound(t, r, "a..example.com")                        // an empty label
}

// The bytes of a TXT record as they are on the wire, not as the library that
// also reads them would write them.
func TestTXTWire(t *testing.T) {
	raw := "a\\;\"\x00\xff z"
	rdata := append([]byte{byte(len(raw))}, raw...)
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.RFC3597{
			Hdr:   dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Rdata: hex.EncodeToString(rdata),
		}}
		w.WriteMsg(m)
	})
	wantTXT(t, &Resolver{Servers: []string{addr}}, name, raw)
}

func TestTruncation(t *testing.T) {
	var overUDP, overTCP atomic.Int64
	all := zone(t, name+`. TXT "`+strings.Repeat("x", 200)+`"`, name+`. TXT "v=TLSRPTv1;"`)
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if w.RemoteAddr().Network() == "tcp" {
			overTCP.Add(1)
			all(w, q)
			return
		}
		overUDP.Add(1)
		if opt := q.IsEdns0(); opt == nil || opt.UDPSize() != udpSize {
			t.Errorf("EDNS0 is %v, want size %d", opt, udpSize)
		}
		m := new(dns.Msg).SetReply(q)
		m.Truncated = true
		w.WriteMsg(m)
	})
	wantTXT(t, &Resolver{Servers: []string{addr}}, name, strings.Repeat("x", 200), "v=TLSRPTv1;")
	if overUDP.Load() != 1 || overTCP.Load() != 1 {
		t.Errorf("%d queries over UDP and %d over TCP, want one each", overUDP.Load(), overTCP.Load())
	}
}

func TestLameServerFirst(t *testing.T) {
	good := serve(t, zone(t, name+`. TXT "v=TLSRPTv1;"`))
	var asked atomic.Int64
	for what, handler := range map[string]dns.HandlerFunc{
		"SERVFAIL": says(dns.RcodeServerFailure),
		"REFUSED":  says(dns.RcodeRefused),
		"silent":   silent,
	} {
		lame := serve(t, func(w dns.ResponseWriter, q *dns.Msg) { asked.Add(1); handler(w, q) })
		asked.Store(0)
		r := &Resolver{Servers: []string{lame, good}, Timeout: 200 * time.Millisecond}
		for range 5 {
			wantTXT(t, r, name, "v=TLSRPTv1;")
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%s: the lame server was asked %d times, want once", what, n)
		}
	}
}

func TestNoServerAnswers(t *testing.T) {
	servfail, refused := serve(t, says(dns.RcodeServerFailure)), serve(t, says(dns.RcodeRefused))
	wantTemporary(t, &Resolver{Servers: []string{servfail, refused}})
	wantTemporary(t, &Resolver{Servers: []string{serve(t, silent)}, Timeout: 50 * time.Millisecond})
	wantTemporary(t, &Resolver{Servers: []string{"127.0.0.1:1"}})    // nobody listens
	wantTemporary(t, &Resolver{Servers: []string{"ns.example.com"}}) // not an address
}

// A server that knows no EDNS0 and cannot even repeat the question.
func TestNoEDNS(t *testing.T) {
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			m := new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
			m.Question = nil
			w.WriteMsg(m)
			return
		}
		zone(t, name+`. TXT "v=TLSRPTv1;"`)(w, q)
	})
	wantTXT(t, &Resolver{Servers: []string{addr}}, name, "v=TLSRPTv1;")
}

// What is no reply to the query is not taken for one, and does not keep the
// real one away.
func TestForeignReplies(t *testing.T) {
	forge := func(change func(m *dns.Msg)) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			rr, _ := dns.NewRR(q.Question[0].Name + ` TXT "forged"`)
			m.Answer = []dns.RR{rr}
			change(m)
			w.WriteMsg(m)
		}
	}
	forgeries := map[string]func(m *dns.Msg){
		"id":        func(m *dns.Msg) { m.Id++ },
		"name":      func(m *dns.Msg) { m.Question[0].Name = "example.net." },
		"type":      func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA },
		"class":     func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"query":     func(m *dns.Msg) { m.Response = false },
		"none":      func(m *dns.Msg) { m.Question = nil },
		"questions": func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
	}
	for what, change := range forgeries {
		t.Run(what, func(t *testing.T) {
			only := serve(t, forge(change))
			wantTemporary(t, &Resolver{Servers: []string{only}, Timeout: 50 * time.Millisecond})

			first := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
				forge(change)(w, q.Copy())
				w.Write([]byte("short"))
				zone(t, name+`. TXT "true"`)(w, q)
			})
			wantTXT(t, &Resolver{Servers: []string{first}}, name, "true")
		})
	}
}

func TestMalformedReply(t *testing.T) {
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + ` TXT "v=TLSRPTv1;"`)
		m.Answer = []dns.RR{rr}
		wire, _ := m.Pack()
		w.Write(wire[:len(wire)-4])
	})
	began := time.Now()
	wantTemporary(t, &Resolver{Servers: []string{addr}, Timeout: time.Minute})
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("it took %s", d)
	}
}

func TestCNAME(t *testing.T) {
	addr := serve(t, zone(t,
		"a.example.com. CNAME b.example.com.", "b.example.com. CNAME C.EXAMPLE.com.", `c.example.com. TXT "end"`,
		"loop1.example.com. CNAME loop2.example.com.", "loop2.example.com. CNAME loop1.example.com.",
		"self.example.com. CNAME self.example.com.",
		"dangling.example.com. CNAME none.example.com.",
		"nodata.example.com. CNAME address.example.com.", "address.example.com. A 192.0.2.1",
	))
	r := &Resolver{Servers: []string{addr}}
	wantTXT(t, r, "a.example.com", "end") // each link has to be asked for
	wantNotFound(t, r, "dangling.example.com")
	wantNotFound(t, r, "nodata.example.com")
	for _, loop := range []string{"loop1.example.com", "self.example.com"} {
		if _, err := r.LookupTXT(t.Context(), loop); !IsTemporary(err) {
			t.Errorf("%s: %v, want a temporary error", loop, err)
		}
	}
}

// As recursive servers answer: the chain at once, in any order, here with a
// record that belongs to nobody.
func TestCNAMEInOneAnswer(t *testing.T) {
	chain := func(links int) *Resolver {
		return &Resolver{Servers: []string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			add := func(s string) {
				rr, err := dns.NewRR(s)
				if err != nil {
					t.Error(err)
				}
				m.Answer = append(m.Answer, rr)
			}
			add(`stranger.example.net. TXT "forged"`)
			from := q.Question[0].Name
			for range links {
				add(from + " CNAME x" + from)
				from = "x" + from
			}
			add(from + ` TXT "end"`)
			slices.Reverse(m.Answer)
			w.WriteMsg(m)
		})}}
	}
	wantTXT(t, chain(0), name, "end")
	wantTXT(t, chain(3), name, "end")
	wantTXT(t, chain(maxLinks), name, "end")
	wantTemporary(t, chain(maxLinks+1))
}

func TestLookupNetIP(t *testing.T) {
	addr := serve(t, zone(t,
		"both.example.com. A 192.0.2.1", "both.example.com. A 192.0.2.2", "both.example.com. AAAA 2001:db8::1",
		"four.example.com. A 192.0.2.1",
		"alias.example.com. CNAME both.example.com.",
		`text.example.com. TXT "x"`,
	))
	r := &Resolver{Servers: []string{addr}}
	good := func(network, host string, want ...string) {
		t.Helper()
		got, err := r.LookupNetIP(t.Context(), network, host)
		var texts []string
		for _, a := range got {
			texts = append(texts, a.String())
		}
		if err != nil || !slices.Equal(texts, want) {
			t.Errorf("%s %s: %v, %v; want %v", network, host, texts, err, want)
		}
	}
	good("ip", "both.example.com", "192.0.2.1", "192.0.2.2", "2001:db8::1")
	good("ip4", "both.example.com", "192.0.2.1", "192.0.2.2")
	good("ip6", "both.example.com", "2001:db8::1")
	good("ip", "four.example.com", "192.0.2.1")
	good("ip", "alias.example.com", "192.0.2.1", "192.0.2.2", "2001:db8::1")
	good("ip", "2001:db8::7", "2001:db8::7")
	for _, host := range []string{"none.example.com", "text.example.com"} {
		if got, err := r.LookupNetIP(t.Context(), "ip", host); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, %v; want ErrNotFound", host, got, err)
		}
	}
	if _, err := r.LookupNetIP(t.Context(), "tcp", "both.example.com"); err == nil {
		t.Error("network tcp is accepted")
	}
}

// One type fails: what the other has is enough, and nothing is not "no address".
func TestLookupNetIPHalf(t *testing.T) {
	half := func(records ...string) *Resolver {
		return &Resolver{Servers: []string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
			if q.Question[0].Qtype == dns.TypeAAAA {
				says(dns.RcodeServerFailure)(w, q)
				return
			}
			zone(t, records...)(w, q)
		})}}
	}
	got, err := half("mx.example.com. A 192.0.2.1").LookupNetIP(t.Context(), "ip", "mx.example.com")
	if err != nil || len(got) != 1 || got[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("%v, %v; want 192.0.2.1", got, err)
	}
	if _, err := half().LookupNetIP(t.Context(), "ip", "mx.example.com"); !IsTemporary(err) {
		t.Errorf("%v, want a temporary error", err)
	}
}

func TestAuthentic(t *testing.T) {
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.AuthenticatedData = q.AuthenticatedData && q.Question[0].Name != "end.example.com."
		record := " TXT x"
		if q.Question[0].Name == "alias.example.com." {
			record = " CNAME end.example.com."
		}
		rr, _ := dns.NewRR(q.Question[0].Name + record)
		m.Answer = []dns.RR{rr}
		w.WriteMsg(m)
	})
	r := &Resolver{Servers: []string{addr}}
	for host, want := range map[string]bool{
		"signed.example.com": true,
		"end.example.com":    false,
		"alias.example.com":  false, // its end is not
	} {
		if a, err := r.Lookup(t.Context(), host, dns.TypeTXT); err != nil || a.Authentic != want {
			t.Errorf("%s: %t, %v; want %t", host, a.Authentic, err, want)
		}
	}
}

func TestLookupMX(t *testing.T) {
	answers := map[string][]string{
		"example.com.":   {"example.com. 60 MX 20 b.example.org.", "example.com. 60 MX 10 a.example.org."},
		"null.example.":  {"null.example. 60 MX 0 ."},
		"alias.example.": {"alias.example. 60 CNAME example.com.", "example.com. 60 MX 10 a.example.org."},
	}
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, s := range answers[q.Question[0].Name] {
			rr, err := dns.NewRR(s)
			if err != nil {
				t.Error(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		if q.Question[0].Name == "broken.example." {
			m.Rcode = dns.RcodeServerFailure
		}
		w.WriteMsg(m)
	})
	r := &Resolver{Servers: []string{addr}}
	for domain, want := range map[string][]net.MX{
		"example.com":   {{Host: "b.example.org.", Pref: 20}, {Host: "a.example.org.", Pref: 10}},
		"null.example":  {{Host: ".", Pref: 0}},
		"alias.example": {{Host: "a.example.org.", Pref: 10}},
	} {
		got, err := r.LookupMX(t.Context(), domain)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %v, %v", domain, got, err)
		}
		for i := range got {
			if *got[i] != want[i] {
				t.Errorf("%s: %v, want %v", domain, *got[i], want[i])
			}
		}
	}
	if _, err := r.LookupMX(t.Context(), "none.example"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no MX: %v, want ErrNotFound", err)
	}
	if _, err := r.LookupMX(t.Context(), "broken.example"); !IsTemporary(err) {
		t.Errorf("SERVFAIL: %v, want a temporary error", err)
	}
}

// An absence that is vouched for is worth as much as a record: RFC 7672, section
// 2.2.1, needs to know that there is no MX.
func TestAuthenticAbsence(t *testing.T) {
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		m.AuthenticatedData = q.Question[0].Name == "signed.example.com."
		w.WriteMsg(m)
	})
	r := &Resolver{Servers: []string{addr}}
	for host, want := range map[string]bool{"signed.example.com": true, "plain.example.com": false} {
		a, err := r.Lookup(t.Context(), host, dns.TypeMX)
		if !errors.Is(err, ErrNotFound) || a.Authentic != want || a.Name != host+"." {
			t.Errorf("%s: %+v, %v; want ErrNotFound, authentic %t", host, a, err, want)
		}
	}
}

func TestTTL(t *testing.T) {
	soa := func(ttl, minimum string) string {
		return "example.com. " + ttl + " SOA ns.example.com. root.example.com. 1 2 3 4 " + minimum
	}
	answers := map[string][2][]string{ // answer, authority
		"plain.example.com.":    {{"plain.example.com. 300 TXT x", "plain.example.com. 200 TXT y"}},
		"alias.example.com.":    {{"alias.example.com. 100 CNAME plain.example.com.", "plain.example.com. 300 TXT x"}},
		"slow.example.com.":     {{"slow.example.com. 900 CNAME plain.example.com."}},
		"zero.example.com.":     {{"zero.example.com. 0 TXT x"}},
		"negative.example.com.": {{"negative.example.com. 4294967295 TXT x"}},
		"none.example.com.":     {nil, {soa("600", "50")}},
		"none2.example.com.":    {nil, {soa("40", "600")}},
		"silent.example.com.":   {},
		"gone.example.com.":     {{"gone.example.com. 20 CNAME none.example.com."}, {soa("600", "50")}},
	}
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for i, section := range []*[]dns.RR{&m.Answer, &m.Ns} {
			for _, s := range answers[q.Question[0].Name][i] {
				rr, err := dns.NewRR(s)
				if err != nil {
					t.Error(err)
				}
				*section = append(*section, rr)
			}
		}
		w.WriteMsg(m)
	})
	r := &Resolver{Servers: []string{addr}}
	for host, want := range map[string]time.Duration{
		"plain": 200, "alias": 100, "slow": 200, "zero": 0, "negative": 0, "none": 50, "none2": 40, "silent": 0, "gone": 20,
	} {
		a, err := r.Lookup(t.Context(), host+".example.com", dns.TypeTXT)
		if a.TTL != want*time.Second || err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %s, %v; want %ds", host, a.TTL, err, want)
		}
	}
}

func TestParallel(t *testing.T) {
	const parallel, lookups = 3, 20
	var running, most atomic.Int64
	full, release := make(chan struct{}, 1), make(chan struct{})
	addr := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == parallel {
			select {
			case full <- struct{}{}:
			default:
			}
		}
		<-release
		running.Add(-1)
		zone(t, name+`. TXT "v=TLSRPTv1;"`)(w, q)
	})
	r := &Resolver{Servers: []string{addr}, Parallel: parallel, Timeout: time.Minute}
	var wg sync.WaitGroup
	for range lookups {
		wg.Go(func() { wantTXT(t, r, name, "v=TLSRPTv1;") })
	}
	<-full

	// All slots are taken: a look-up with a deadline does not outlive it.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.LookupTXT(ctx, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
	close(release)
	wg.Wait()
	if m := most.Load(); m != parallel {
		t.Errorf("%d queries at once, want %d", m, parallel)
	}
}

func TestDeadline(t *testing.T) {
	r := &Resolver{Servers: []string{serve(t, silent)}, Timeout: time.Minute}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.LookupTXT(ctx, name); !errors.Is(err, context.DeadlineExceeded) || !IsTemporary(err) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
}

func TestServers(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search example.com\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := func(r *Resolver, want ...string) {
		t.Helper()
		if got, err := r.servers(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", r.Servers, got, err, want)
		}
	}
	bad := func(server string) {
		t.Helper()
		if got, err := (&Resolver{Servers: []string{server}}).servers(); err == nil {
			t.Errorf("%q: %q", server, got)
		}
	}
	good(&Resolver{Servers: []string{"192.0.2.1", "192.0.2.1:5353"}}, "192.0.2.1:53", "192.0.2.1:5353")
	good(&Resolver{Servers: []string{"2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5353"}}, "[2001:db8::1]:53", "[2001:db8::1]:53", "[2001:db8::1]:5353")
	good(&Resolver{file: conf}, "192.0.2.53:53", "[2001:db8::53]:53")
	good(&Resolver{file: conf + ".none"}, "127.0.0.1:53")
	bad("ns.example.com") // a name
	bad("ns.example.com:53")
	bad("192.0.2.1:99999") // no such port
	bad("")
}

func TestNilResolver(t *testing.T) {
	var r *Resolver
	if got, err := r.LookupNetIP(t.Context(), "ip", "192.0.2.1"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	wantNotFound(t, r, "a..b")
}

// Whatever bytes a TXT record has, they are what a caller gets.
func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"a", `"`, `\`, `\;`, `\009`, "\x00\x7f\xff", "v=TLSRPTv1; rua=mailto:a@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if len(raw) > 255 {
			return
		}
		wire := make([]byte, 512)
		n, err := dns.PackRR(&dns.RFC3597{
			Hdr:   dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Rdata: hex.EncodeToString(append([]byte{byte(len(raw))}, raw...)),
		}, wire, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		rr, _, err := dns.UnpackRR(wire[:n], 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := unescape(rr.(*dns.TXT).Txt[0]); got != raw {
			t.Errorf("%q is read as %q", raw, got)
		}
	})
}
