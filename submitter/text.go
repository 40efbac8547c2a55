package submitter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Bounds on the part for people. The report itself has everything.
const (
	textWidth    = 76 // bytes of a line
	textPolicies = 16
	textHosts    = 8  // of one result type
	textTypes    = 16 // result types of one policy
	textName     = 64 // bytes of what a stranger called something
)

// reportText is what a person reads who opens the message. What others wrote is
// in it as printable ASCII only.
func reportText(r *schema.Report, domain, addsTo string) string {
	var t text
	t.line("", "This is a TLS report (RFC 8460): how mail servers of %s fared when they set up TLS to deliver mail to %s.",
		organization(r), domain)
	t.blank()
	t.line("", "Time:       %s", period(r.DateRange))
	t.line("", "Sent by:    %s", organization(r))
	t.line("", "Questions:  %s", r.ContactInfo)
	t.line("", "Report-ID:  %s", r.ReportID)
	t.blank()
	if addsTo != "" {
		t.line("", "This report adds to an earlier one of the same time, with the Report-ID %s. It has the sessions that became known later; none is in both.", addsTo)
		t.blank()
	}
	t.totals(r)
	for _, p := range r.Policies[:min(len(r.Policies), textPolicies)] {
		t.policy(p)
	}
	if more := len(r.Policies) - textPolicies; more > 0 {
		t.blank()
		t.line("", "The attached report has %s.", count(int64(more), "more policy", "more policies"))
	}
	t.blank()
	t.line("", "The attached file is the whole report for programs: JSON, compressed with gzip. You get it because the DNS record at %s asks for it.", schema.RecordName(domain))
	return t.b.String()
}

func organization(r *schema.Report) string { return printable(r.OrganizationName, 2*textName) }

// period says which time a report is about.
func period(d schema.DateRange) string {
	day := schema.DayOf(d.Start.Time)
	if d.Start.Equal(day.Start()) && d.End.Equal(day.End()) {
		return day.String() + ", 00:00 to 24:00 UTC"
	}
	return fmt.Sprintf("%s to %s", d.Start, d.End)
}

// text is lines of at most textWidth bytes.
type text struct{ b strings.Builder }

func (t *text) blank() { t.b.WriteByte('\n') }

// line writes what it is given as one line, or as several if it is too long.
// Further lines of an item are indented by two more than the first. A word that
// is longer than a line, such as the name of a host, is broken.
func (t *text) line(indent, format string, args ...any) {
	s, prefix := fmt.Sprintf(format, args...), indent
	for {
		room := textWidth - len(prefix)
		if len(s) <= room {
			t.b.WriteString(prefix + s + "\n")
			return
		}
		cut := strings.LastIndexByte(s[:room+1], ' ')
		if strings.TrimSpace(s[:max(cut, 0)]) == "" {
			cut = room
		}
		t.b.WriteString(prefix + strings.TrimRight(s[:cut], " ") + "\n")
		s, prefix = strings.TrimLeft(s[cut:], " "), indent+indent
	}
}

// totals adds up. A session that was held against two policies counts twice,
// and the reader is told so.
func (t *text) totals(r *schema.Report) {
	s, over := r.Totals(), ""
	if len(r.Policies) > 1 {
		over = ", added up over all policies"
	}
	if s.Failure == 0 {
		t.line("", "No failures: %s succeeded%s.", sessions(s.Success), over)
		return
	}
	t.line("", "%s succeeded, %d failed%s.", sessions(s.Success), s.Failure, over)
}

// policy says how the sessions of one policy fared.
func (t *text) policy(p schema.PolicyResult) {
	t.blank()
	t.line("", "%s:", policyWords(p.Policy))
	t.line("  ", "%s succeeded, %d failed.", sessions(p.Summary.Success), p.Summary.Failure)
	kinds := failures(p.FailureDetails)
	if len(kinds) == 0 && p.Summary.Failure > 0 {
		t.line("  ", "Why they failed is not known.")
	}
	for _, k := range kinds[:min(len(kinds), textTypes)] {
		t.line("  ", "%s: %s%s", sessions(k.sessions), printable(k.kind.Words(), textName), k.where())
	}
	if more := len(kinds) - textTypes; more > 0 {
		t.line("  ", "The attached report has %s.", count(int64(more), "more kind of failure", "more kinds of failure"))
	}
}

func policyWords(p schema.Policy) string {
	of := printable(p.Domain, 253)
	switch p.Type {
	case schema.STS:
		return "MTA-STS policy of " + of
	case schema.TLSA:
		return "DANE policy (TLSA records) of " + of
	case schema.NoPolicyFound:
		return "No policy, neither DANE nor MTA-STS, was found for " + of
	}
	return fmt.Sprintf("Policy of type %s of %s", printable(string(p.Type), textName), of)
}

// failure is one result type within a policy.
type failure struct {
	kind     schema.ResultType
	sessions int64
	hosts    map[string]int64 // sessions by MX host
}

// failures adds up details by result type, the most frequent first.
func failures(details []schema.FailureDetails) []*failure {
	byType := make(map[schema.ResultType]*failure)
	for _, d := range details {
		f := byType[d.ResultType]
		if f == nil {
			f = &failure{kind: d.ResultType, hosts: make(map[string]int64)}
			byType[d.ResultType] = f
		}
		f.sessions += d.FailedSessionCount
		if d.ReceivingMXHostname != "" {
			f.hosts[d.ReceivingMXHostname] += d.FailedSessionCount
		}
	}
	return slices.SortedFunc(maps.Values(byType), func(a, b *failure) int {
		return cmp.Or(cmp.Compare(b.sessions, a.sessions), cmp.Compare(a.kind, b.kind))
	})
}

// where names the hosts with most failures, ", at a and b" or "".
func (f *failure) where() string {
	hosts := slices.SortedFunc(maps.Keys(f.hosts), func(a, b string) int {
		return cmp.Or(cmp.Compare(f.hosts[b], f.hosts[a]), cmp.Compare(a, b))
	})
	if len(hosts) == 0 {
		return ""
	}
	names := make([]string, 0, textHosts)
	for _, h := range hosts[:min(len(hosts), textHosts)] {
		names = append(names, printable(h, textName))
	}
	s := ", at " + strings.Join(names, ", ")
	if more := len(hosts) - textHosts; more > 0 {
		s += " and " + count(int64(more), "more host", "more hosts")
	}
	return s
}

func sessions(n int64) string { return count(n, "session", "sessions") }

// count is n with its noun.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
