package postfixlog

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// DropRelay means that the host is one of Options.Relays.
const DropRelay Drop = "relay"

// Relays is hosts that Postfix hands mail to and that are no MX of its domain.
type Relays struct {
	hosts map[string]bool // A-labels, lower case
	nets  []netip.Prefix
}

// ParseRelays reads host names, addresses and networks such as "192.0.2.0/24".
func ParseRelays(list []string) (*Relays, error) {
	r := &Relays{hosts: make(map[string]bool)}
	for _, s := range list {
		if n, err := netip.ParsePrefix(s); err == nil {
			r.nets = append(r.nets, n.Masked())
		} else if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			r.nets = append(r.nets, netip.PrefixFrom(a, a.BitLen()))
		} else if host, err := schema.ParseDomain(s); err == nil {
			r.hosts[host] = true
		} else {
			return nil, fmt.Errorf("postfixlog: relay %q is no host name, address or network", s)
		}
	}
	return r, nil
}

// has reports whether the attempt t was with one of them. nil has none.
func (r *Relays) has(t *try) bool {
	if r == nil {
		return false
	}
	if r.hosts[strings.ToLower(t.host)] {
		return true
	}
	for _, n := range r.nets {
		if t.peer != nil && n.Contains(t.peer.ip) {
			return true
		}
	}
	return false
}
