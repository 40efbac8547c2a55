package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
)

var (
	sum256 = strings.Repeat("aB", 32)
	sum512 = strings.Repeat("Cd", 64)
)

func TestUsable(t *testing.T) {
	check := func(want bool, record string) {
		t.Helper()
		rr, err := dns.NewRR("_25._tcp.mail.example.net. TLSA " + record)
		if err != nil {
			t.Fatal(err)
		}
		if got := isUsable(rr.(*dns.TLSA)); got != want {
			t.Errorf("%.60s: usable %t, want %t", record, got, want)
		}
	}
	good := func(record string) { t.Helper(); check(true, record) }
	bad := func(record string) { t.Helper(); check(false, record) }

	good("3 1 1 " + sum256)
	good("3 0 1 " + sum256)
	good("2 0 1 " + sum256)
	good("2 1 2 " + sum512)
	good("3 0 0 3003020101")      // a whole certificate, as far as can be seen
	bad("0 0 1 " + sum256)        // PKIX-TA
	bad("1 1 1 " + sum256)        // PKIX-EE
	bad("4 1 1 " + sum256)        // unassigned
	bad("255 1 1 " + sum256)      // private
	bad("3 2 1 " + sum256)        // selector
	bad("3 1 3 " + sum256)        // matching type
	bad("3 1 99 " + sum256)       // matching type
	bad("3 1 1 " + sum256[2:])    // too short
	bad("3 1 1 " + sum256 + "00") // too long
	bad("3 1 1 " + sum512)        // SHA2-512, says SHA2-256
	bad("3 1 2 " + sum256)        // SHA2-256, says SHA2-512
	bad("3 0 0 " + sum256)        // no DER
	bad("3 0 0 300302010100")     // more than one value
	bad("3 0 0 3003020")          // half a byte
}

// daneWorld has secure and insecure names: all of example.net is signed, nothing
// of example.com is.
func daneWorld(t *testing.T) *nameServer {
	t.Helper()
	tlsa := " TLSA 3 1 1 " + sum256
	return serveDNS(t,
		`_smtp._tls.example.net. TXT "v=TLSRPTv1; rua=mailto:tls@example.net"`,
		`_smtp._tls.example.com. TXT "v=TLSRPTv1; rua=mailto:tls@example.com"`,
		`_smtp._tls.bare.example.net. TXT "v=TLSRPTv1; rua=mailto:tls@example.net"`,
		`_smtp._tls.null.example.net. TXT "v=TLSRPTv1; rua=mailto:tls@example.net"`,
		`example.net. MX 10 mail.example.net.`, `example.net. MX 20 plain.example.net.`,
		`example.net. MX 30 alias.example.net.`, `example.net. MX 40 away.example.net.`,
		`example.net. MX 50 six.example.net.`, `example.net. MX 60 mx.example.com.`,
		`example.net. MX 70 dangling.example.net.`, `example.net. MX 80 alias2.example.net.`,
		`example.com. MX 10 mail.example.net.`,
		`null.example.net. MX 0 .`,
		`bare.example.net. A 192.0.2.1`, `_25._tcp.bare.example.net.`+tlsa,
		`mail.example.net. A 192.0.2.1`, `_25._tcp.mail.example.net.`+tlsa,
		`plain.example.net. A 192.0.2.1`,
		`alias.example.net. CNAME mail.example.net.`, `_25._tcp.alias.example.net. TLSA 3 1 2 `+sum512,
		`alias2.example.net. CNAME plain.example.net.`, `_25._tcp.alias2.example.net. TLSA 3 1 2 `+sum512,
		`away.example.net. CNAME mx.example.com.`, `_25._tcp.away.example.net.`+tlsa,
		`six.example.net. AAAA 2001:db8::1`, `_25._tcp.six.example.net. CNAME tlsa.example.net.`,
		`tlsa.example.net. TLSA 2 0 1 `+sum256, `tlsa.example.net. TLSA 1 1 1 `+sum256,
		`mx.example.com. A 192.0.2.2`, `_25._tcp.mx.example.com.`+tlsa,
	)
}

func TestLookupTLSA(t *testing.T) {
	r := daneWorld(t).resolver()
	good := func(host, base string, records ...string) {
		t.Helper()
		got, _, err := lookupTLSA(t.Context(), r, host)
		if err != nil || got == nil || !got.Usable {
			t.Errorf("%s: %+v, %v", host, got, err)
			return
		}
		if got.Policy.Domain != base || !slices.Equal(got.Policy.Strings, records) {
			t.Errorf("%s: %s, want base domain %s, %q", host, got.Policy.Text(), base, records)
		}
		checkCanonical(t, got.Policy)
	}
	bad := func(host string) {
		t.Helper()
		if got, _, err := lookupTLSA(t.Context(), r, host); err != nil || got != nil {
			t.Errorf("%s: %+v, %v; want none", host, got, err)
		}
	}
	upper := strings.ToUpper(sum256)
	good("mail.example.net", "mail.example.net", "3 1 1 "+upper)
	good("alias.example.net", "mail.example.net", "3 1 1 "+upper)                           // the end of the alias first
	good("alias2.example.net", "alias2.example.net", "3 1 2 "+strings.ToUpper(sum512))      // then its beginning
	good("six.example.net", "six.example.net", "2 0 1 "+upper)                              // usage 1 is not Postfix's to report
	bad("plain.example.net")                                                                // none
	bad("mx.example.com")                                                                   // the address is not secure
	bad("away.example.net")                                                                 // the alias ends where it is not
	bad("dangling.example.net")                                                             // no address
	bad("mx.example.org")                                                                   // no name
	if _, ttl, _ := lookupTLSA(t.Context(), r, "mail.example.net"); ttl.Seconds() != 3600 { // what dns.NewRR sets
		t.Errorf("TTL %s", ttl)
	}
}

// Insecure TLSA records of a secure host are none.
func TestLookupTLSAInsecure(t *testing.T) {
	z := daneWorld(t)
	z.sign("mail.example.net.") // a suffix of _25._tcp.mail.example.net., too
	if got, _, err := lookupTLSA(t.Context(), z.resolver(), "mail.example.net"); err != nil || got == nil {
		t.Fatalf("%+v, %v: the test proves nothing", got, err)
	}
	z.sign("mail.example.net.", "!_25._tcp.mail.example.net.")
	if got, _, err := lookupTLSA(t.Context(), z.resolver(), "mail.example.net"); err != nil || got != nil {
		t.Errorf("%+v, %v; want none", got, err)
	}
}

// Without an answer nobody knows: Postfix defers mail, RFC 7672, section 2.1.1.
func TestLookupTLSABroken(t *testing.T) {
	for _, name := range []string{"alias.example.net.", "_25._tcp.mail.example.net.", "mail.example.net."} {
		z := daneWorld(t)
		z.fail(name, true)
		if got, _, err := lookupTLSA(t.Context(), z.resolver(), "alias.example.net"); !resolve.IsTemporary(err) {
			t.Errorf("%s: %+v, %v; want a temporary error", name, got, err)
		}
	}
}

// TLSA records that fail validation are told from a name server that fails.
func TestBogus(t *testing.T) {
	z := daneWorld(t)
	z.forge("_25._tcp.mail.example.net.")
	z.fail("_25._tcp.plain.example.net.", true)
	f := start(t, Options{Resolver: z.resolver(), DANE: true})
	for mx, want := range map[string]bool{"mail.example.net": true, "plain.example.net": false, "six.example.net": false} {
		f.Find("example.net", mx)
		if err := f.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		a, err := f.Find("example.net", mx)
		if a.Bogus != want || errors.Is(err, ErrUnknown) != (mx != "six.example.net") {
			t.Errorf("%s: bogus %t, %v", mx, a.Bogus, err)
		}
	}
}

func TestUnusableRecords(t *testing.T) {
	for _, c := range []struct {
		records, strings []string
		usable           bool
	}{
		{[]string{"3 1 99 " + sum256}, []string{"3 1 99 " + strings.ToUpper(sum256)}, false},
		{[]string{"3 1 99 00", "0 0 1 00"}, []string{"3 1 99 00"}, false},
		{[]string{"1 1 1 AB", "0 0 1 00"}, []string{"0 0 1 00", "1 1 1 AB"}, false},
		{[]string{"3 1 1 " + sum256, "3 1 99 00", "0 0 1 00"}, []string{"3 1 1 " + strings.ToUpper(sum256), "3 1 99 00"}, true},
	} {
		var rrs []dns.RR
		for _, s := range c.records {
			rr, err := dns.NewRR("_25._tcp.mail.example.net. TLSA " + s)
			if err != nil {
				t.Fatal(err)
			}
			rrs = append(rrs, rr)
		}
		for range 2 { // DNS rotates them
			slices.Reverse(rrs)
			got, err := newTLSA("mail.example.net", rrs)
			if err != nil || got.Usable != c.usable || !slices.Equal(got.Policy.Strings, c.strings) {
				t.Errorf("%q: %+v, %v", c.records, got, err)
			}
		}
	}
}

func TestLookupMX(t *testing.T) {
	z := daneWorld(t)
	check := func(domain string, secure bool, hosts ...string) {
		t.Helper()
		got, err := lookupMX(t.Context(), z.resolver(), domain)
		if err != nil || got.secure != secure || !slices.Equal(got.hosts, hosts) {
			t.Errorf("%s: %+v, %v; want %q, secure %t", domain, got, err, hosts, secure)
		}
	}
	check("example.com", false, "mail.example.net")
	check("bare.example.net", true, "bare.example.net")
	check("null.example.net", true)
	check("mx.example.com", false, "mx.example.com")
	z.fail("example.com.", true)
	if got, err := lookupMX(t.Context(), z.resolver(), "example.com"); !resolve.IsTemporary(err) {
		t.Errorf("%+v, %v; want a temporary error", got, err)
	}
}

func TestProbe(t *testing.T) {
	z := serveDNS(t, `. NS ns.example.net.`, `example.net. NS ns.example.net.`, `example.com. NS ns.example.net.`)
	if err := Probe(t.Context(), z.resolver(), "example.net"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "example.com"} {
		if err := Probe(t.Context(), z.resolver(), name); !errors.Is(err, ErrNoDNSSEC) {
			t.Errorf("%q: %v, want ErrNoDNSSEC", name, err)
		}
	}
	z.fail("example.net.", true)
	if err := Probe(t.Context(), z.resolver(), "example.net"); err == nil || errors.Is(err, ErrNoDNSSEC) {
		t.Errorf("%v, want that there is no answer", err)
	}
	z.sign(".")
	if err := Probe(t.Context(), z.resolver(), ""); err != nil {
		t.Error(err)
	}
	if z.asked(". NS") != 2 {
		t.Errorf("the root was asked for %d times, want 2", z.asked(". NS"))
	}
}
