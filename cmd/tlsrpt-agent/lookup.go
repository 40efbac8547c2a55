package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

func (a *app) lookupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lookup DOMAIN",
		Short: "Look up a domain's TLSRPT record, say what is wrong in it, and its policies",
		Long: `lookup prints the TLSRPT record of a domain, where its reports go, what is wrong
in the record, and the policies that the domain publishes for its MX hosts: DANE
(where the resolver validates DNSSEC) and MTA-STS.`,
		Example: `  tlsrpt-agent lookup example.com
  tlsrpt-agent lookup --json example.com`,
		Args: oneArg("DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			domain, err := schema.ParseDomain(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			return a.lookup(cmd, domain)
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

// lookupLine is the line of "lookup --json".
type lookupLine struct {
	Domain   string          `json:"domain"`
	Record   string          `json:"record"`
	RUA      []schema.RUA    `json:"rua"`
	Faults   []string        `json:"faults"`
	Policies []schema.Policy `json:"policies"`
}

func (a *app) lookup(cmd *cobra.Command, domain string) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	s := &submitter.Submitter{Resolver: c.resolver()}
	text, rec, err := s.Discover(cmd.Context(), domain)
	if err != nil && text == "" {
		return lookupError(domain, err)
	}
	policies, fault := c.policies(cmd.Context(), domain)
	if fault != nil {
		rec.Faults = append(rec.Faults, "its policies: "+fault.Error())
	}
	if a.json {
		// Arrays always, never null.
		line := lookupLine{domain, text, append([]schema.RUA{}, rec.RUA...), append([]string{}, rec.Faults...), append([]schema.Policy{}, policies...)}
		return errors.Join(writeJSON(a.stdout, line), lookupError(domain, err))
	}
	fmt.Fprintf(a.stdout, "record: %s\n", printable(text))
	for _, rua := range rec.RUA {
		fmt.Fprintf(a.stdout, "rua:    %s\n", printable(string(rua)))
	}
	for _, fault := range rec.Faults {
		fmt.Fprintf(a.stdout, "fault:  %s\n", printable(fault))
	}
	for _, p := range policies {
		fmt.Fprintf(a.stdout, "policy: %s %s: %s\n", p.Type, printable(p.Domain), printable(strings.Join(p.Strings, "; ")))
	}
	return lookupError(domain, err)
}

// policies is what the domain publishes for its MX hosts. The error says why it
// may be less than there is.
func (c *config) policies(ctx context.Context, domain string) (found []schema.Policy, err error) {
	f := policy.New(policy.Options{Resolver: c.resolver(), DANE: true, MTASTS: true, AllowPrivate: c.Submit.AllowPrivate})
	defer f.Close()
	about, err := lookedUp(ctx, f, domain, "")
	if about.STS != nil {
		found = append(found, about.STS.Policy)
	}
	for _, mx := range about.MX {
		at, mxErr := lookedUp(ctx, f, domain, mx)
		err = cmp.Or(err, mxErr)
		if at.TLSA != nil {
			found = append(found, at.TLSA.Policy)
		}
	}
	return found, err
}

// lookedUp is what f finds out, however long it takes.
func lookedUp(ctx context.Context, f *policy.Finder, domain, mx string) (policy.Answer, error) {
	for {
		answer, err := f.Find(domain, mx)
		if !errors.Is(err, policy.ErrPending) {
			return answer, err
		}
		if err := f.Wait(ctx); err != nil {
			return answer, err
		}
	}
}

// lookupError says what a failed look-up means for the domain.
func lookupError(domain string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, schema.ErrNoRecord):
		return hint(fmt.Errorf("no destination for %s", domain),
			"it publishes no TLSRPT record at "+schema.RecordName(domain)+", so nothing is owed",
			fmt.Sprintf("to see what would be sent, use \"tlsrpt-agent report %s\"", domain))
	case errors.Is(err, schema.ErrManyRecords):
		return hint(fmt.Errorf("no destination for %s: %s", domain, strings.TrimPrefix(err.Error(), "schema: ")),
			"RFC 8460 (section 3) wants exactly one record, so nothing is owed")
	case submitter.IsTemporary(err):
		return hint(fmt.Errorf("looking up %s: %w", domain, err), "the DNS did not answer; try again later, or check dns.servers")
	}
	return err
}
