package agent

import (
	"context"
	"fmt"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Choice says who gets reports of those who ask for them. The zero value leaves
// nobody out.
//
// A domain pattern is "example.com", that domain alone; "*.example.com", every
// domain below it and not itself; or "*". A rua pattern is "a@example.com" or
// "*@example.com", where the domain is a domain pattern; or
// "https://example.com/v1/reports", where the host is a domain pattern, a path
// that ends in "*" may go on, no path is every path and no port is every port.
// Nowhere does case count; names may be U-labels or A-labels.
type Choice struct {
	// OnlyDomains are the domains that reports are made about; empty: all.
	OnlyDomains []string

	// ExcludeDomains are domains that no report is made about, whatever
	// OnlyDomains says.
	ExcludeDomains []string

	// ExcludeRUA are destinations that nothing is sent to. A domain all of whose
	// destinations are left out is excluded.
	ExcludeRUA []string

	// OnlyFailures leaves out domain-days without a failed session.
	OnlyFailures bool

	// MinSessions leaves out domain-days with fewer sessions.
	MinSessions int64
}

// choice is a Choice that was read.
type choice struct {
	Choice
	only, exclude []domainPattern
	ruas          []ruaPattern
}

func (c Choice) read() (r choice, err error) {
	r.Choice = c
	if r.only, err = readAll(c.OnlyDomains, parseDomainPattern); err != nil {
		return r, err
	}
	if r.exclude, err = readAll(c.ExcludeDomains, parseDomainPattern); err != nil {
		return r, err
	}
	if c.MinSessions < 0 {
		return r, fmt.Errorf("%w: a negative MinSessions", ErrOptions)
	}
	r.ruas, err = readAll(c.ExcludeRUA, parseRUAPattern)
	return r, err
}

// Check reports whether every pattern can be read. The error is [ErrPattern].
func (c Choice) Check() error {
	_, err := c.read()
	return err
}

func readAll[P any](patterns []string, read func(string) (P, error)) (all []P, err error) {
	for _, s := range patterns {
		p, err := read(s)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Why a domain-day or a rua is left out. Each names the setting of the command.
const (
	byExcludeDomains = "submit.exclude_domains"
	byOnlyDomains    = "submit.only_domains"
	byExcludeRUA     = "submit.exclude_rua"
	byOnlyFailures   = "submit.only_failures"
	byMinSessions    = "submit.min_sessions"
	byDryRun         = "submit.dry_run"
)

// domain is the setting that leaves out a domain, or "".
func (c *choice) domain(domain string) string {
	matches := func(patterns []domainPattern) bool {
		for _, p := range patterns {
			if p.matches(domain) {
				return true
			}
		}
		return false
	}
	switch {
	case matches(c.exclude):
		return byExcludeDomains
	case len(c.only) > 0 && !matches(c.only):
		return byOnlyDomains
	}
	return ""
}

// sessions is the setting that leaves out a domain-day with these sessions, or "".
func (c *choice) sessions(total schema.Summary) string {
	switch {
	case c.OnlyFailures && total.Failure == 0:
		return byOnlyFailures
	case total.Success+total.Failure < c.MinSessions:
		return byMinSessions
	}
	return ""
}

// rua is the pattern that leaves out a rua, or "".
func (c *choice) rua(rua schema.RUA) string {
	for i := range c.ruas {
		if c.ruas[i].matches(rua) {
			return byExcludeRUA + " has " + c.ruas[i].text
		}
	}
	return ""
}

// excluded is the setting that leaves out d, whoever asks for its report, or "".
func (a *Agent) excluded(ctx context.Context, d aggregator.DomainDay) (string, error) {
	if by := a.choice.domain(d.Domain); by != "" || !a.choice.OnlyFailures && a.choice.MinSessions <= 1 {
		return by, nil
	}
	total := d.Totals
	if total == (schema.Summary{}) { // the day has no totals before it is closed
		r, err := a.report(ctx, d)
		if err != nil {
			return "", err
		}
		total = r.Totals()
	}
	return a.choice.sessions(total), nil
}

// destinations says where a report goes of what the record asks for, and where it
// does not. With neither there is nobody to report to.
func (a *Agent) destinations(ruas []schema.RUA) (to []schema.RUA, withheld []aggregator.Withheld) {
	for _, rua := range ruas {
		if by := a.choice.rua(rua); by != "" {
			withheld = append(withheld, aggregator.Withheld{RUA: rua, Reason: by})
			continue
		}
		to = append(to, rua)
	}
	if len(to) == 0 {
		return nil, nil
	}
	if a.o.DryRun {
		for _, rua := range to {
			withheld = append(withheld, aggregator.Withheld{RUA: rua, Reason: byDryRun})
		}
		to = nil
	}
	return to, withheld
}
