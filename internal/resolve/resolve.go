// Package resolve is a stub resolver: it asks recursive name servers over UDP
// with EDNS0, and over TCP what does not fit. Unlike package net it tells a name
// that does not exist apart from a server that does not answer, bounds how many
// look-ups run at once, and keeps the AD bit.
//
// /etc/hosts and search lists play no part: the names are those of strangers.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ErrNotFound means that the name does not exist or has no record of the type
// (NXDOMAIN, NODATA). To ask again does not help.
var ErrNotFound = errors.New("resolve: no such record")

// IsTemporary reports whether a look-up that ended in err may end otherwise
// later: a server failed, refused or did not answer.
func IsTemporary(err error) bool { return err != nil && !errors.Is(err, ErrNotFound) }

const (
	defaultParallel = 32
	defaultTimeout  = 3 * time.Second
	maxLinks        = 8 // CNAMEs from one name
	rounds          = 2 // how often each server is asked
	resolvConf      = "/etc/resolv.conf"
)

// Resolver asks recursive name servers. The zero value and nil are ready; nil
// is one resolver for the whole process. It is safe for concurrent use and must
// not be copied after its first use.
type Resolver struct {
	// Servers are "192.0.2.1", "192.0.2.1:53", "2001:db8::1" or "[2001:db8::1]:53".
	// None means those of /etc/resolv.conf, which is read anew at each look-up.
	Servers []string

	// Parallel is how many queries run at once; 0 means 32.
	Parallel int

	// Timeout is how long one server has for one answer; 0 means 3 s.
	Timeout time.Duration

	file    string // in place of /etc/resolv.conf, for tests
	once    sync.Once
	slots   chan struct{}
	current atomic.Uint32 // the server that answered last, modulo their number
}

var process Resolver

// orProcess is r, or the resolver of the process if r is nil.
func (r *Resolver) orProcess() *Resolver {
	if r == nil {
		return &process
	}
	return r
}

// Answer is what is known of a name and type.
type Answer struct {
	// Name is the end of the CNAME chain, lower case, with final dot.
	Name string

	// Records are the records of the type at Name, at least one; none if there
	// are no such records.
	Records []dns.RR

	// Authentic says that the server set the AD bit in every reply of the chain:
	// it vouches for the data, or for their absence, by DNSSEC (RFC 4035, section
	// 3.2.3).
	Authentic bool

	// TTL is how long the answer holds: the lowest TTL of the chain, or what the
	// SOA record says of an absence (RFC 2308, section 5). 0 if nothing says it.
	TTL time.Duration
}

// Lookup asks for the records of one type and follows CNAMEs. A name that DNS
// cannot hold does not exist. The error is [ErrNotFound], and the answer then
// says how sure that is, or temporary.
func (r *Resolver) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	r = r.orProcess()
	fault := func(err error) (Answer, error) {
		return Answer{}, fmt.Errorf("%w (%s %q)", err, dns.Type(qtype), name)
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return fault(ErrNotFound)
	}
	a := Answer{Name: dns.CanonicalName(name), Authentic: true, TTL: maxTTL}
	for links := 0; ; {
		reply, err := r.ask(ctx, a.Name, qtype)
		if err != nil {
			return fault(err)
		}
		a.Authentic = a.Authentic && reply.AuthenticatedData
		asked := links
		if links = a.follow(reply.Answer, qtype, links); links > maxLinks {
			return fault(fmt.Errorf("resolve: more than %d CNAMEs", maxLinks))
		}
		switch {
		case len(a.Records) > 0:
			return a, nil
		case reply.Rcode == dns.RcodeNameError || links == asked:
			a.holdAbsence(reply.Ns)
			_, err := fault(ErrNotFound)
			return a, err
		}
		// The chain leaves what the server knew: its end is asked for itself.
	}
}

// follow walks the CNAMEs that rrs has from a.Name on, and takes the records at
// the end. It returns links and what it walked, at most maxLinks+1.
func (a *Answer) follow(rrs []dns.RR, qtype uint16, links int) int {
	for links <= maxLinks {
		next := ""
		for _, rr := range rrs {
			h := rr.Header()
			if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != a.Name {
				continue
			}
			if h.Rrtype == qtype {
				a.Records = append(a.Records, rr)
				a.hold(h.Ttl)
			} else if c, ok := rr.(*dns.CNAME); ok {
				next = dns.CanonicalName(c.Target)
				a.hold(h.Ttl)
			}
		}
		if len(a.Records) > 0 || next == "" {
			return links
		}
		a.Name, links = next, links+1
	}
	return links
}

// maxTTL is the highest TTL there is (RFC 2181, section 8).
const maxTTL = (1<<31 - 1) * time.Second

// hold bounds the TTL of a by that of a record, in seconds.
func (a *Answer) hold(ttl uint32) {
	// RFC 2181, section 8: the highest bit stands for a TTL of 0.
	if ttl > 1<<31-1 {
		ttl = 0
	}
	a.TTL = min(a.TTL, time.Duration(ttl)*time.Second)
}

// holdAbsence bounds the TTL of a by the SOA record of a reply that denies.
// Without one nobody should keep the answer (RFC 2308, section 5).
func (a *Answer) holdAbsence(authority []dns.RR) {
	for _, rr := range authority {
		if soa, ok := rr.(*dns.SOA); ok {
			a.hold(min(soa.Hdr.Ttl, soa.Minttl))
			return
		}
	}
	a.TTL = 0
}

// Texts is the TXT records of a, each with its character-strings joined without
// spaces (RFC 7208, section 3.3).
func (a Answer) Texts() []string {
	var txts []string
	for _, rr := range a.Records {
		if txt, ok := rr.(*dns.TXT); ok {
			txts = append(txts, unescape(strings.Join(txt.Txt, "")))
		}
	}
	return txts
}

// LookupTXT is the TXT records of name, each with its character-strings joined
// without spaces (RFC 7208, section 3.3). The error is [ErrNotFound], or
// temporary.
func (r *Resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a, err := r.Lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	return a.Texts(), nil
}

// LookupMX is the MX records of domain, in the order of the answer. The host of a
// null MX (RFC 7505) is ".". The error is [ErrNotFound], or temporary.
func (r *Resolver) LookupMX(ctx context.Context, domain string) ([]*net.MX, error) {
	a, err := r.Lookup(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	var mxs []*net.MX
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			mxs = append(mxs, &net.MX{Host: mx.Mx, Pref: mx.Preference})
		}
	}
	return mxs, nil
}

// unescape is the bytes of a TXT record, which the dns package holds in the
// form of a zone file: `\"`, `\\`, `\127`.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
				c = (s[i+1]-'0')*100 + (s[i+2]-'0')*10 + (s[i+3] - '0')
				i += 3
			} else {
				i++
				c = s[i]
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// LookupNetIP is the addresses of host: IPv4 ones, then IPv6 ones. network is
// "ip", "ip4" or "ip6". An address literal is its own answer. The error is
// [ErrNotFound] if host has no address, or temporary. What one type yields is
// returned even if the other failed.
func (r *Resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	types, ok := map[string][]uint16{
		"ip": {dns.TypeA, dns.TypeAAAA}, "ip4": {dns.TypeA}, "ip6": {dns.TypeAAAA},
	}[network]
	if !ok {
		return nil, fmt.Errorf("resolve: %w", net.UnknownNetworkError(network))
	}
	found, faults := make([][]netip.Addr, len(types)), make([]error, len(types))
	var wg sync.WaitGroup
	for i, t := range types {
		wg.Go(func() { found[i], faults[i] = r.lookupAddrs(ctx, host, t) })
	}
	wg.Wait()
	var addrs []netip.Addr
	for _, f := range found {
		addrs = append(addrs, f...)
	}
	if len(addrs) > 0 {
		return addrs, nil
	}
	for _, err := range faults {
		if IsTemporary(err) {
			return nil, err
		}
	}
	return nil, faults[0]
}

func (r *Resolver) lookupAddrs(ctx context.Context, host string, qtype uint16) ([]netip.Addr, error) {
	answer, err := r.Lookup(ctx, host, qtype)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, rr := range answer.Records {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A.To4()
		case *dns.AAAA:
			ip = rr.AAAA.To16()
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// servers is whom to ask, as "address:port".
func (r *Resolver) servers() ([]string, error) {
	list := r.Servers
	if len(list) == 0 {
		conf, err := dns.ClientConfigFromFile(cmp.Or(r.file, resolvConf))
		if err != nil || len(conf.Servers) == 0 {
			return []string{"127.0.0.1:53"}, nil // resolv.conf(5)
		}
		list = conf.Servers
	}
	addrs := make([]string, len(list))
	for i, s := range list {
		if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			addrs[i] = netip.AddrPortFrom(a, 53).String()
		} else if _, err := netip.ParseAddrPort(s); err == nil {
			addrs[i] = s
		} else {
			return nil, fmt.Errorf("resolve: malformed server %q: want an address, with or without port", s)
		}
	}
	return addrs, nil
}
