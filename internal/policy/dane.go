package policy

import (
	"context"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ErrNoDNSSEC means that the resolver does not set the AD bit for a name that is
// signed. It does not validate, or is not trusted to by the way it is asked, so
// that DANE cannot be told from its absence.
var ErrNoDNSSEC = errors.New("policy: the resolver does not validate DNSSEC")

// Resolver asks a recursive name server. A [resolve.Resolver] is one.
type Resolver interface {
	// Lookup follows CNAMEs. Its error is [resolve.ErrNotFound], with an answer
	// that says how sure that is, or temporary.
	Lookup(ctx context.Context, name string, qtype uint16) (resolve.Answer, error)

	// Bogus reports whether the answer fails validation by DNSSEC, and no more than
	// that is wrong.
	Bogus(ctx context.Context, name string, qtype uint16) bool

	// LookupNetIP takes "ip", "ip4" or "ip6" and a host name.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// TLSA is what an MX host published for DANE, RFC 7672.
type TLSA struct {
	// Policy is of type tlsa. Its domain is the TLSA base domain (RFC 7672,
	// section 2.2.3), its strings are the records of usage 2 and 3, which are what
	// Postfix reports, or all of them if there is none.
	Policy schema.Policy

	// Usable says that at least one record can authenticate a host. Without one
	// DANE asks for TLS and no more (RFC 7672, section 2.2).
	Usable bool

	// Half says that the MX record is not secured by DNSSEC although the host's
	// records are. Postfix calls it half-dane: it authenticates a host that an
	// attacker may have chosen.
	Half bool
}

// mxSet is the MX hosts of a domain.
type mxSet struct {
	hosts  []string // A-labels, lower case, no final dot
	secure bool     // by DNSSEC
	ttl    time.Duration
}

// lookupMX is the MX hosts of domain: itself where it has no MX record (RFC
// 5321, section 5.1), none where it takes no mail (RFC 7505). The error is
// temporary.
func lookupMX(ctx context.Context, r Resolver, domain string) (mxSet, error) {
	a, err := r.Lookup(ctx, domain, dns.TypeMX)
	if resolve.IsTemporary(err) {
		return mxSet{}, err
	}
	set := mxSet{secure: a.Authentic, ttl: a.TTL}
	if err != nil {
		set.hosts = []string{domain}
		return set, nil
	}
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			if host, err := schema.ParseDomain(mx.Mx); err == nil {
				set.hosts = append(set.hosts, host)
			}
		}
	}
	return set, nil
}

// errBogus means that what a host published for DANE fails validation.
var errBogus = errors.New("policy: TLSA records that fail validation by DNSSEC")

// lookupTLSA is what host published for DANE on port 25, or nil. Half is left to
// who knows the MX record. The error is temporary, and may be errBogus.
func lookupTLSA(ctx context.Context, r Resolver, host string) (*TLSA, time.Duration, error) {
	addr, err := lookupAddress(ctx, r, host)
	ttl := addr.TTL
	if err != nil || !addr.Authentic {
		// RFC 7672, section 2.2.2: where the addresses are not secure, TLSA records
		// are not worth asking for, and name servers that do not know the type
		// would fail. A secure alias to an insecure address may have some; Postfix
		// does not ask for them.
		return nil, ttl, ignoreNotFound(err)
	}
	bases := []string{host}
	if end, err := schema.ParseDomain(addr.Name); err == nil && end != host {
		bases = []string{end, host} // RFC 7672, section 2.2.3
	}
	for _, base := range bases {
		name := "_25._tcp." + base
		a, err := r.Lookup(ctx, name, dns.TypeTLSA)
		if resolve.IsTemporary(err) {
			if r.Bogus(ctx, name, dns.TypeTLSA) {
				err = fmt.Errorf("%w: %w", errBogus, err)
			}
			return nil, 0, err
		}
		ttl = min(ttl, a.TTL)
		if err == nil && a.Authentic {
			tlsa, err := newTLSA(base, a.Records)
			return tlsa, ttl, err
		}
	}
	return nil, ttl, nil
}

// lookupAddress is the answer for the first type of address that host has.
func lookupAddress(ctx context.Context, r Resolver, host string) (a resolve.Answer, err error) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if a, err = r.Lookup(ctx, host, qtype); !errors.Is(err, resolve.ErrNotFound) {
			break
		}
	}
	return a, err
}

func ignoreNotFound(err error) error {
	if errors.Is(err, resolve.ErrNotFound) {
		return nil
	}
	return err
}

// newTLSA is the policy that rrs make, the secure TLSA records of base.
func newTLSA(base string, rrs []dns.RR) (*TLSA, error) {
	var t TLSA
	var all, dane []string
	for _, rr := range rrs {
		tlsa, ok := rr.(*dns.TLSA)
		if !ok {
			continue
		}
		text := fmt.Sprintf("%d %d %d %s", tlsa.Usage, tlsa.Selector, tlsa.MatchingType, strings.ToUpper(tlsa.Certificate))
		all = append(all, text)
		if tlsa.Usage == 2 || tlsa.Usage == 3 {
			dane = append(dane, text)
		}
		t.Usable = t.Usable || isUsable(tlsa)
	}
	if len(dane) == 0 {
		dane = all
	}
	var err error
	t.Policy, err = canonical(base, schema.Policy{Type: schema.TLSA, Strings: dane, Domain: base})
	return &t, err
}

// isUsable reports whether rr can authenticate an SMTP server: usage DANE-TA or
// DANE-EE (RFC 7672, section 3.1), a known selector and matching type, and data
// that the type can have (RFC 6698, section 2.1).
func isUsable(rr *dns.TLSA) bool {
	if rr.Usage != 2 && rr.Usage != 3 || rr.Selector > 1 {
		return false
	}
	data, err := hex.DecodeString(rr.Certificate)
	if err != nil {
		return false
	}
	switch rr.MatchingType {
	case 0: // a certificate or a key, whole
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(data, &v)
		return err == nil && len(rest) == 0 && v.Tag == asn1.TagSequence && v.IsCompound
	case 1:
		return len(data) == 32
	case 2:
		return len(data) == 64
	}
	return false
}

// Probe asks r for the NS records of name, which is signed, and reports whether
// the resolver says so. "" means the root. The error is [ErrNoDNSSEC], or says
// that there was no answer.
func Probe(ctx context.Context, r Resolver, name string) error {
	if name == "" {
		name = "."
	}
	if r == nil {
		r = (*resolve.Resolver)(nil)
	}
	a, err := r.Lookup(ctx, name, dns.TypeNS)
	if err != nil {
		return fmt.Errorf("policy: asking for a name that is signed: %w", err)
	}
	if !a.Authentic {
		return fmt.Errorf("%w: no AD bit for %q", ErrNoDNSSEC, name)
	}
	return nil
}
