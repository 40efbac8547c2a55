package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

func (a *app) lookupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lookup DOMAIN",
		Short: "Look up a domain's TLSRPT record, say what is wrong in it, and its policies",
		Long: `lookup prints the TLSRPT record of a domain, what is wrong in it, where its reports
go and whether they could arrive, as far as DNS knows: no destination is contacted.
It also prints the domain's MX hosts and the policies for them: DANE (where the
resolver validates DNSSEC) and MTA-STS, which is fetched. Exit code 1 means that
there is nowhere to send a report to.`,
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
	Domain       string          `json:"domain"`
	Record       string          `json:"record"` // "" if there is none, or more than one
	TXT          []string        `json:"txt"`    // all TXT records where the record is looked for
	RUA          []schema.RUA    `json:"rua"`
	Destinations []destination   `json:"destinations"`
	Faults       []string        `json:"faults"`
	MX           []lookupMX      `json:"mx"`
	Policies     []schema.Policy `json:"policies"`
}

// lookupMX is an MX host, and whether DANE protects it.
type lookupMX struct {
	Host string `json:"host"`
	DANE string `json:"dane"`
}

func (a *app) lookup(cmd *cobra.Command, domain string) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	line, err := c.lookupRecord(cmd.Context(), domain)
	if submitter.IsTemporary(err) {
		return lookupError(domain, err)
	}
	if line.Record != "" {
		line.addPolicies(cmd.Context(), policy.Options{
			Resolver: c.resolver(), DANE: true, MTASTS: true, AllowPrivate: c.Submit.AllowPrivate,
		})
	}
	return errors.Join(a.writeLookup(&line), lookupError(domain, err))
}

// lookupRecord is what can be said of a domain's record and its destinations. The
// error is that of [submitter.Submitter.Discover].
func (c *config) lookupRecord(ctx context.Context, domain string) (lookupLine, error) {
	line := lookupLine{
		Domain: domain,
		// Arrays always, never null.
		TXT: []string{}, RUA: []schema.RUA{}, Destinations: []destination{}, Faults: []string{}, MX: []lookupMX{}, Policies: []schema.Policy{},
	}
	s := &submitter.Submitter{Resolver: c.resolver()}
	text, rec, err := s.Discover(ctx, domain)
	if submitter.IsTemporary(err) {
		return line, err
	}
	line.Record = text
	txts, txtErr := c.resolver().LookupTXT(ctx, schema.RecordName(domain))
	if txtErr == nil {
		line.TXT = append(line.TXT, txts...)
	}
	for _, txt := range txts {
		if why := schema.WhyNoRecord(txt); why != "" {
			line.Faults = append(line.Faults, fmt.Sprintf("the TXT record %q does not count: %s", txt, why))
		}
	}
	line.Faults = append(line.Faults, rec.Faults...)
	p := prober{c.resolver(), c.Submit.AllowPrivate, c.HTTPS.Ports}
	for _, rua := range rec.RUA {
		line.RUA = append(line.RUA, rua)
		line.Destinations = append(line.Destinations, p.destination(ctx, rua))
	}
	return line, err
}

// fetchFailures is why an MTA-STS policy could not be fetched.
type fetchFailures struct {
	mu     sync.Mutex
	faults []string
}

func (f *fetchFailures) add(s schema.Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range s.Results {
		for _, d := range r.Details {
			f.faults = append(f.faults, strings.TrimSuffix(fmt.Sprintf("its MTA-STS policy: %s: %s", d.ResultType, d.FailureReasonCode), ": "))
		}
	}
}

// addPolicies adds what the domain publishes for its MX hosts.
func (l *lookupLine) addPolicies(ctx context.Context, o policy.Options) {
	var failures fetchFailures
	o.Report = failures.add
	f := policy.New(o)
	l.addFound(ctx, f)
	f.Close() // after that nothing is added to failures
	l.Faults = append(l.Faults, failures.faults...)
}

// addFound adds what f finds.
func (l *lookupLine) addFound(ctx context.Context, f *policy.Finder) {
	about, err := lookedUp(ctx, f, l.Domain, "")
	if about.STS != nil {
		l.Policies = append(l.Policies, about.STS.Policy)
	}
	for _, mx := range about.MX {
		at, mxErr := lookedUp(ctx, f, l.Domain, mx)
		err = cmp.Or(err, mxErr)
		l.MX = append(l.MX, lookupMX{mx, daneWords(at.TLSA, mxErr)})
		if at.TLSA != nil {
			l.Policies = append(l.Policies, at.TLSA.Policy)
		}
		if about.STS != nil && !about.STS.Matches(mx) {
			l.Faults = append(l.Faults, fmt.Sprintf("its MX host %s matches no mx of its MTA-STS policy", mx))
		}
	}
	if about.MXKnown && len(about.MX) == 0 {
		l.Faults = append(l.Faults, "it takes no mail: it has a null MX record (RFC 7505)")
	}
	if err != nil {
		l.Faults = append(l.Faults, "its policies: "+err.Error())
	}
}

// daneWords says what the TLSA records of a host are good for.
func daneWords(tlsa *policy.TLSA, err error) string {
	switch {
	case tlsa == nil && err != nil:
		return "unknown"
	case tlsa == nil:
		return "none, or not secured by DNSSEC"
	case tlsa.Half:
		return "half: the host is secure, the MX record is not"
	case !tlsa.Usable:
		return "no usable record: TLS, unauthenticated"
	}
	return "secure"
}

func (a *app) writeLookup(l *lookupLine) error {
	if a.json {
		return writeJSON(a.stdout, l)
	}
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-7s %s\n", name+":", printable(fmt.Sprintf(format, args...)))
	}
	if l.Record != "" {
		row("record", "%s", l.Record)
	}
	for _, d := range l.Destinations {
		row("rua", "%s", d.RUA)
		row("  "+d.Status, "%s", d.Message)
	}
	for _, fault := range l.Faults {
		row("fault", "%s", fault)
	}
	for _, mx := range l.MX {
		row("mx", "%s; DANE: %s", mx.Host, mx.DANE)
	}
	for _, p := range l.Policies {
		row("policy", "%s %s: %s", p.Type, p.Domain, strings.Join(p.Strings, "; "))
	}
	_, err := io.WriteString(a.stdout, b.String())
	return err
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
