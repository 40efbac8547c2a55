//go:build linux

package lab

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestDNS(t *testing.T) {
	if !InNamespace(t) {
		return
	}
	d := startDNS(t)
	d.Add("example.com MX 10 mx.example.com", "mx.example.com. 300 IN A 192.0.2.9", "_25._tcp.mx.example.com TLSA 3 1 1 "+strings.Repeat("ab", 32))
	d.Secure("mx.example.com")
	d.SetTXT("_smtp._tls.example.com", TXT{"old"})
	d.SetTXT("_smtp._tls.example.com", TXT{`v=TLSRPTv1; "`, `\rua=x`}, TXT{strings.Repeat("x", 255), strings.Repeat("y", 255), strings.Repeat("z", 255)})
	d.SetTXT("gone.example.com", TXT{"text"})
	d.SetTXT("gone.example.com")
	d.Fail("broken.example.com", dns.RcodeServerFailure)

	for _, c := range []struct {
		name    string
		qtype   uint16
		rcode   int
		answers int
		secure  bool
	}{
		{".", dns.TypeNS, dns.RcodeSuccess, 1, true},
		{"EXAMPLE.com.", dns.TypeMX, dns.RcodeSuccess, 1, false},
		{"example.com.", dns.TypeA, dns.RcodeSuccess, 0, false},
		{"mx.example.com.", dns.TypeA, dns.RcodeSuccess, 1, true},
		{"_tcp.mx.example.com.", dns.TypeA, dns.RcodeSuccess, 0, true}, // only names below it have records
		{"_25._tcp.mx.example.com.", dns.TypeTLSA, dns.RcodeSuccess, 1, true},
		{"xmx.example.com.", dns.TypeA, dns.RcodeNameError, 0, false},
		{"gone.example.com.", dns.TypeTXT, dns.RcodeNameError, 0, false},
		{"broken.example.com.", dns.TypeA, dns.RcodeServerFailure, 0, false},
	} {
		reply, err := dns.Exchange(new(dns.Msg).SetQuestion(c.name, c.qtype), dnsAddr)
		if err != nil {
			t.Fatal(err)
		}
		if reply.Rcode != c.rcode || len(reply.Answer) != c.answers || reply.AuthenticatedData != c.secure {
			t.Errorf("%+v: got\n%s", c, reply)
		}
	}
	checkTXT(t)
	d.Fail("broken.example.com", dns.RcodeSuccess)
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion("broken.example.com.", dns.TypeA), dnsAddr)
	if err != nil || reply.Rcode != dns.RcodeNameError {
		t.Errorf("a mended name: %v, %v", reply, err)
	}
}

// checkTXT asks for an answer that is too long for UDP.
func checkTXT(t *testing.T) {
	t.Helper()
	question := new(dns.Msg).SetQuestion("_smtp._tls.example.com.", dns.TypeTXT)
	reply, err := dns.Exchange(question, dnsAddr)
	if err != nil || !reply.Truncated {
		t.Errorf("by UDP: %v, %v, want it truncated", reply, err)
	}
	reply, _, err = (&dns.Client{Net: "tcp"}).Exchange(question, dnsAddr)
	if err != nil || len(reply.Answer) != 2 {
		t.Fatalf("by TCP: %v, %v, want two records", reply, err)
	}
	// The library's strings are in presentation format.
	if got := reply.Answer[0].(*dns.TXT).Txt; len(got) != 2 || got[0] != `v=TLSRPTv1; \"` || got[1] != `\\rua=x` {
		t.Errorf("got %q", got)
	}
}
