package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

func (a *app) lookupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lookup DOMAIN",
		Short: "Look up a domain's TLSRPT record and say what is wrong in it",
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
	Domain string       `json:"domain"`
	Record string       `json:"record"`
	RUA    []schema.RUA `json:"rua"`
	Faults []string     `json:"faults"`
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
	if a.json {
		line := lookupLine{domain, text, rec.RUA, rec.Faults}
		line.RUA = append([]schema.RUA{}, line.RUA...)
		line.Faults = append([]string{}, line.Faults...)
		if werr := writeJSON(a.stdout, line); werr != nil {
			return werr
		}
		return lookupError(domain, err)
	}
	fmt.Fprintf(a.stdout, "record: %s\n", printable(text))
	for _, rua := range rec.RUA {
		fmt.Fprintf(a.stdout, "rua:    %s\n", printable(string(rua)))
	}
	for _, fault := range rec.Faults {
		fmt.Fprintf(a.stdout, "fault:  %s\n", printable(fault))
	}
	return lookupError(domain, err)
}

// lookupError says what a failed look-up means for the domain.
func lookupError(domain string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, schema.ErrNoRecord):
		return hint(fmt.Errorf("no destination for %s", domain),
			"it publishes no TLSRPT record at _smtp._tls."+domain+", so nothing is owed",
			fmt.Sprintf("to see what would be sent, use \"tlsrpt-agent report %s\"", domain))
	case errors.Is(err, schema.ErrManyRecords):
		return hint(fmt.Errorf("no destination for %s: %s", domain, strings.TrimPrefix(err.Error(), "schema: ")),
			"RFC 8460 (section 3) wants exactly one record, so nothing is owed")
	case submitter.IsTemporary(err):
		return hint(fmt.Errorf("looking up %s: %w", domain, err), "the DNS did not answer; try again later, or check dns.servers")
	}
	return err
}
