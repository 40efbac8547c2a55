package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// statusUnknown is the status of a destination that DNS did not answer about.
const statusUnknown string = "unknown"

// destination is what a look at DNS says of a rua. Nobody connects to it.
type destination struct {
	RUA     schema.RUA `json:"rua"`
	Status  string     `json:"status"` // "ok", "problem" or "unknown"
	Message string     `json:"message"`
}

// prober says whether reports could arrive, as far as DNS knows.
type prober struct {
	resolver     *resolve.Resolver
	allowPrivate bool
	ports        []uint16 // https.ports
}

func (p prober) destination(ctx context.Context, rua schema.RUA) destination {
	d := destination{RUA: rua}
	switch {
	case rua.Scheme() == "mailto":
		d.Status, d.Message = p.mailDomain(ctx, rua.Host())
	case !p.allowsPort(rua):
		d.Status, d.Message = statusProblem, "its port is not among https.ports"
	default:
		d.Status, d.Message = p.host(ctx, rua.Host())
	}
	return d
}

// allowsPort reports whether reports are sent to the port of an https URI. 443 is
// not written in one.
func (p prober) allowsPort(rua schema.RUA) bool {
	u, err := url.Parse(string(rua))
	if err != nil || u.Port() == "" {
		return err == nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && slices.Contains(p.ports, uint16(port))
}

// host says whether host has an address that may be contacted.
func (p prober) host(ctx context.Context, host string) (status, message string) {
	addrs, err := p.resolver.LookupNetIP(ctx, "ip", host)
	if resolve.IsTemporary(err) {
		return statusUnknown, fmt.Sprintf("asking for the addresses of %s: %v", host, err)
	} else if err != nil {
		return statusProblem, host + " has no address"
	}
	public := addrs
	if !p.allowPrivate {
		public = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !guard.Public(a) })
	}
	if len(public) == 0 {
		return statusProblem, fmt.Sprintf("%s has the address %s, and none that is public", host, addrs[0])
	}
	return statusOK, fmt.Sprintf("%s has the address %s", host, public[0])
}

// mailDomain says whether a domain takes mail: one of its MX hosts, or without MX
// records itself, has an address (RFC 5321, section 5.1).
func (p prober) mailDomain(ctx context.Context, domain string) (status, message string) {
	hosts, err := p.mxHosts(ctx, domain)
	if err != nil {
		return statusUnknown, fmt.Sprintf("asking for the MX records of %s: %v", domain, err)
	}
	if len(hosts) == 0 {
		return statusProblem, domain + " takes no mail: it has a null MX record (RFC 7505)"
	}
	for _, host := range hosts {
		// A relay may reach a private MX host; only mail.via = "mx" may not.
		s, m := prober{resolver: p.resolver, allowPrivate: true}.host(ctx, host)
		switch {
		case s == statusOK && host == domain:
			return statusOK, m
		case s == statusOK:
			return statusOK, "its MX host " + m
		case status == "" || s == statusUnknown:
			status, message = s, m
		}
	}
	return status, message
}

// maxMX is how many MX hosts of a domain are looked at.
const maxMX = 16

// mxHosts is the MX hosts of domain, the most preferred first; itself if it has no
// MX record, none if it takes no mail. The error is temporary.
func (p prober) mxHosts(ctx context.Context, domain string) (hosts []string, err error) {
	a, err := p.resolver.Lookup(ctx, domain, dns.TypeMX)
	if resolve.IsTemporary(err) {
		return nil, err
	} else if err != nil {
		return []string{domain}, nil
	}
	slices.SortStableFunc(a.Records, func(x, y dns.RR) int {
		return int(x.(*dns.MX).Preference) - int(y.(*dns.MX).Preference)
	})
	for _, rr := range a.Records[:min(len(a.Records), maxMX)] {
		if host := strings.TrimSuffix(rr.(*dns.MX).Mx, "."); host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts, nil
}
