package main

import (
	"context"
	"errors"
	"slices"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// checkDNS looks at the resolver that finds who wants reports.
func (c *config) checkDNS(ctx context.Context) []finding {
	found := []finding{checkResolver(ctx, c.resolver(), schema.AddressDomain(c.Organization.Contact))}
	if slices.ContainsFunc(c.Source.PostfixLog, func(s postfixLogConfig) bool { return s.DANE }) {
		found = append(found, checkDNSSEC(ctx, c.resolver()))
	}
	return found
}

// checkResolver asks for the TXT records of domain, or of the root. That there
// are none is an answer.
func checkResolver(ctx context.Context, r submitter.TXTResolver, domain string) finding {
	const check = "dns.servers"
	if domain == "" {
		domain = "."
	}
	if _, err := r.LookupTXT(ctx, domain); err != nil && !errors.Is(err, resolve.ErrNotFound) {
		return wrong(check, "[dns]\nservers = [\"127.0.0.1\"]   # one that answers", "asking for TXT records of %q: %v", domain, err)
	}
	return fine(check, "the resolver answers")
}

// checkDNSSEC asks for a name that is signed, the root.
func checkDNSSEC(ctx context.Context, r policy.Resolver) finding {
	const check = "dns.dnssec"
	if err := policy.Probe(ctx, r, ""); err != nil {
		return wrong(check, "[dns]\nservers = [\"127.0.0.1\"]   # one that validates, on this host or a trusted path",
			"dane = true needs a resolver that validates, and \"run\" does not start without: %v", err)
	}
	return fine(check, "the resolver vouches for a signed name")
}
