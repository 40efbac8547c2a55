// Package guard keeps strangers from choosing whom this host talks to. A TLSRPT
// record, an MX and an MTA-STS host are names that others publish, and a name
// may lead to 127.0.0.1, to a router or to the metadata service of a cloud.
//
// [Public] says which addresses may be contacted. [Dialer] asks it at dial time
// about the address that it then dials, so that no second look-up can give
// another answer.
package guard

import "net/netip"

// refused4 is what IANA's registry of special-purpose IPv4 addresses (RFC 6890)
// calls not globally reachable, and multicast.
var refused4 = prefixes(
	"0.0.0.0/8",      // this network; 0.0.0.0 dials the host itself
	"10.0.0.0/8",     // RFC 1918
	"100.64.0.0/10",  // CGNAT, RFC 6598
	"127.0.0.0/8",    // loopback
	"169.254.0.0/16", // link-local, and the metadata services of clouds
	"172.16.0.0/12",  // RFC 1918
	"192.0.0.0/24",   // protocol assignments
	"192.88.99.0/24", // 6to4 relays, RFC 7526
	"192.168.0.0/16", // RFC 1918
	"198.18.0.0/15",  // benchmarks
	"224.0.0.0/4",    // multicast
	"240.0.0.0/4",    // reserved, and broadcast
)

// refused6 lies within 2000::/3; all outside of it is refused anyway.
var refused6 = prefixes(
	"2001::/23", // protocol assignments; Teredo is judged before
	"2002::/16", // 6to4, judged before
	"3ffe::/16", // 6bone, RFC 3701
)

var (
	global6 = netip.MustParsePrefix("2000::/3")     // all that is assigned for global unicast
	nat64   = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	teredo  = netip.MustParsePrefix("2001::/32")    // RFC 4380
	sixTo4  = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

func prefixes(s ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(s))
	for i := range s {
		p[i] = netip.MustParsePrefix(s[i])
	}
	return p
}

// Public reports whether a is a unicast address of the public Internet. It is
// not if a is private, shared, loopback, link-local, multicast, reserved or
// invalid, nor if it is an IPv6 address that a gateway would turn into such an
// IPv4 address: IPv4-mapped, NAT64, 6to4, Teredo. A zone does not count.
//
// The local-use NAT64 prefix 64:ff9b:1::/48 (RFC 8215) is refused as a whole:
// where it holds the IPv4 address only the local network knows.
//
// Documentation addresses (RFC 5737, RFC 3849, RFC 9637) count as public:
// nobody answers there, and tests need addresses that are.
func Public(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	switch {
	case !a.IsValid():
		return false
	case a.Is4():
		return !within(refused4, a)
	case nat64.Contains(a):
		return Public(embedded(a, 12))
	case !global6.Contains(a):
		return false
	case sixTo4.Contains(a):
		return Public(embedded(a, 2))
	case teredo.Contains(a):
		return Public(embedded(a, 4)) && Public(teredoClient(a))
	}
	return !within(refused6, a)
}

func within(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// embedded is the IPv4 address in the four bytes of a from i.
func embedded(a netip.Addr, i int) netip.Addr {
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[i : i+4]))
}

// teredoClient is the client's address, which Teredo sends with all bits
// flipped (RFC 4380, section 4).
func teredoClient(a netip.Addr) netip.Addr {
	b := embedded(a, 12).As4()
	for i := range b {
		b[i] = ^b[i]
	}
	return netip.AddrFrom4(b)
}
