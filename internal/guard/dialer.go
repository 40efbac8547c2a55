package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ErrPrivate means that a host has addresses, and none that may be contacted.
// To try again does not help.
var ErrPrivate = errors.New("guard: private address")

// Resolver looks up the addresses of a host, as [net.Resolver] does.
type Resolver interface {
	// LookupNetIP takes "ip", "ip4" or "ip6" and a host name.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	defaultTimeout = 30 * time.Second
	minAttempt     = 2 * time.Second // what an address gets even if others wait
	maxAddresses   = 16              // of one host that are tried
)

// Dialer dials hosts that strangers chose, and only at public addresses. The
// zero value is ready. It is safe for concurrent use.
type Dialer struct {
	// Resolver looks up host names; nil means the system's resolver.
	Resolver Resolver

	// AllowPrivate dials every address. For tests.
	AllowPrivate bool

	// Timeout bounds a dial with its look-up and all its attempts; 0 means 30 s.
	Timeout time.Duration
}

// DialContext connects to addr, "host:port", over "tcp", "tcp4" or "tcp6". It
// looks up the host itself and tries the addresses that may be contacted in
// the order of the answer. If only others are left, the error is [ErrPrivate].
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	family, ok := map[string]string{"tcp": "ip", "tcp4": "ip4", "tcp6": "ip6"}[network]
	if !ok {
		return nil, fmt.Errorf("guard: %w", net.UnknownNetworkError(network))
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.Timeout, defaultTimeout))
	defer cancel()
	addrs, err := d.lookup(ctx, family, host)
	if err != nil {
		return nil, err
	}
	if addrs, err = d.allowed(host, addrs); err != nil {
		return nil, err
	}
	return dialAny(ctx, network, port, addrs)
}

func (d *Dialer) lookup(ctx context.Context, family, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	r := d.Resolver
	if r == nil {
		r = net.DefaultResolver
	}
	addrs, err := r.LookupNetIP(ctx, family, host)
	if err != nil {
		return nil, fmt.Errorf("guard: looking up %q: %w", host, err)
	}
	return addrs, nil
}

// allowed is those of addrs that may be contacted.
func (d *Dialer) allowed(host string, addrs []netip.Addr) ([]netip.Addr, error) {
	if len(addrs) == 0 {
		return nil, fmt.Errorf("guard: %q has no address", host)
	}
	var ok []netip.Addr
	for _, a := range addrs {
		if (d.AllowPrivate || Public(a)) && len(ok) < maxAddresses {
			ok = append(ok, a.Unmap())
		}
	}
	if len(ok) == 0 {
		return nil, fmt.Errorf("%w: %q is at %s", ErrPrivate, host, addrs[0])
	}
	return ok, nil
}

// dialAny dials by address, never by name: what was checked is what is dialled.
func dialAny(ctx context.Context, network, port string, addrs []netip.Addr) (net.Conn, error) {
	var faults []error
	for i, a := range addrs {
		var nd net.Dialer
		if end, ok := ctx.Deadline(); ok {
			nd.Timeout = max(time.Until(end)/time.Duration(len(addrs)-i), minAttempt)
		}
		conn, err := nd.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("guard: %w", errors.Join(faults...))
}
