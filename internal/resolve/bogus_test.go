package resolve

import (
	"testing"

	"github.com/miekg/dns"
)

// TestBogus tells an answer that fails validation from servers that fail.
func TestBogus(t *testing.T) {
	const name = "_25._tcp.mail.example.net"
	answer := zone(t, name+". TLSA 3 1 1 AB")
	validates := func(w dns.ResponseWriter, q *dns.Msg) {
		if q.CheckingDisabled {
			answer(w, q)
			return
		}
		says(dns.RcodeServerFailure)(w, q)
	}
	recovers := func() dns.HandlerFunc {
		calls := 0
		return func(w dns.ResponseWriter, q *dns.Msg) {
			if calls++; calls == 1 {
				says(dns.RcodeServerFailure)(w, q)
				return
			}
			answer(w, q)
		}
	}
	for what, c := range map[string]struct {
		servers []dns.HandlerFunc
		want    bool
	}{
		"bogus":                          {[]dns.HandlerFunc{validates}, true},
		"valid":                          {[]dns.HandlerFunc{answer}, false},
		"no answer with the CD bit":      {[]dns.HandlerFunc{says(dns.RcodeServerFailure)}, false},
		"refused":                        {[]dns.HandlerFunc{says(dns.RcodeRefused)}, false},
		"it recovers":                    {[]dns.HandlerFunc{recovers()}, false},
		"another server does not answer": {[]dns.HandlerFunc{says(dns.RcodeServerFailure), validates}, true},
		"another server vouches for it":  {[]dns.HandlerFunc{validates, answer}, false},
	} {
		r := &Resolver{}
		for _, h := range c.servers {
			r.Servers = append(r.Servers, serve(t, h))
		}
		if got := r.Bogus(t.Context(), name, dns.TypeTLSA); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
	if new(Resolver).Bogus(t.Context(), "", dns.TypeTLSA) {
		t.Error("no name at all is bogus")
	}
	if (&Resolver{Servers: []string{serve(t, validates)}}).Bogus(t.Context(), "mail.example.net", dns.TypeTLSA) != true {
		t.Error("a denial of existence that fails validation is not bogus")
	}
}
