package resolve

import (
	"context"

	"github.com/miekg/dns"
)

// Bogus reports whether the records of one type at name, or the proof that there
// are none, fail validation by DNSSEC: a server that answers a query with the CD
// bit (RFC 4035, section 3.2.2) fails without it, before and after, and no server
// has an answer that it vouches for. It is false where that cannot be told from
// name servers that do not answer. CNAMEs are the server's to follow.
func (r *Resolver) Bogus(ctx context.Context, name string, qtype uint16) bool {
	r = r.orProcess()
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return false
	}
	servers, err := r.servers()
	if err != nil {
		return false
	}
	name = dns.CanonicalName(name)
	found := false
	for _, server := range servers {
		switch bogus, valid := r.bogusAt(ctx, server, name, qtype); {
		case valid:
			return false
		case bogus:
			found = true
		}
	}
	return found
}

// bogusAt is what one server says: that the records are bogus, or that it has a
// valid answer, or neither.
func (r *Resolver) bogusAt(ctx context.Context, server, name string, qtype uint16) (bogus, valid bool) {
	for _, checked := range []bool{true, false, true} {
		q := query(name, qtype, true)
		q.CheckingDisabled = !checked
		reply, err := r.exchange(ctx, server, q)
		if err != nil {
			return false, false
		}
		answered := reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError
		switch {
		case checked && answered:
			return false, true
		case checked != (reply.Rcode == dns.RcodeServerFailure), !checked && !answered:
			return false, false
		}
	}
	return true, false
}
