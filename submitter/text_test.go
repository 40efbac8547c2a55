package submitter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// texts are parts for people, each for its reason.
func texts() map[string]func() (r *schema.Report, addsTo string) {
	success := func() *schema.Report {
		r := report()
		r.Policies = r.Policies[:1]
		r.Policies[0].Summary, r.Policies[0].FailureDetails = schema.Summary{Success: 1}, nil
		return r
	}
	return map[string]func() (*schema.Report, string){
		"failures": func() (*schema.Report, string) { return report(), "" },
		"success":  func() (*schema.Report, string) { return success(), "" },
		"adds": func() (*schema.Report, string) {
			return success(), "2026-11-22.example.com.ffffffffffffffff@example.net"
		},
		"hostile":   func() (*schema.Report, string) { return hostile(), "" },
		"many":      func() (*schema.Report, string) { return many(), "" },
		"no-policy": func() (*schema.Report, string) { return unexplained(), "" },
	}
}

// hostile has what strangers may write where they get the chance.
func hostile() *schema.Report {
	r := report()
	r.OrganizationName = "B\u00fccher GmbH"
	evil := "mx.example.com\r\n--boundary\r\nBcc: x@example.org \x1b[2J\u202e" + strings.Repeat("long", 100)
	r.Policies[0].FailureDetails = []schema.FailureDetails{
		{ResultType: schema.CertificateExpired, ReceivingMXHostname: evil, FailedSessionCount: 2},
		{ResultType: "made-up\r\n.\r\n" + schema.ResultType(strings.Repeat("x", 200)), FailedSessionCount: 1},
	}
	r.Policies[0].Policy.Domain = evil
	r.Policies[1].Policy.Type = "9\r\n"
	return r
}

// many has more of everything than a person wants to read.
func many() *schema.Report {
	r := report()
	for i := range 30 {
		r.Policies = append(r.Policies, schema.PolicyResult{Policy: schema.Policy{Type: schema.STS, Domain: fmt.Sprintf("d%d.example.com", i)}})
	}
	for i := range 30 {
		r.Policies[0].FailureDetails = append(r.Policies[0].FailureDetails,
			schema.FailureDetails{ResultType: schema.CertificateNotTrusted, ReceivingMXHostname: fmt.Sprintf("mx%d.example.com", i), FailedSessionCount: 1},
			schema.FailureDetails{ResultType: schema.ResultType(fmt.Sprintf("type-%d", i)), FailedSessionCount: 1})
	}
	return r
}

func unexplained() *schema.Report {
	r := report()
	r.DateRange.End = schema.Timestamp{Time: r.DateRange.End.AddDate(0, 0, 1)}
	r.Policies = []schema.PolicyResult{{
		Policy:  schema.Policy{Type: schema.NoPolicyFound, Domain: domain},
		Summary: schema.Summary{Failure: 1},
	}}
	return r
}

func TestTextGolden(t *testing.T) {
	for name, make := range texts() {
		r, addsTo := make()
		text := reportText(r, domain, addsTo)
		if err := checkText(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden(t, "text-"+name+".txt", []byte(text))
	}
}

func FuzzText(f *testing.F) {
	f.Add("Example Inc.", "mx.example.com", "certificate-expired", "sts", int64(1))
	f.Add("\r\n", strings.Repeat("x", 300), "\x00", "\xff", int64(-1))
	f.Fuzz(func(t *testing.T, organization, host, kind, policy string, n int64) {
		r := report()
		r.OrganizationName = organization
		r.Policies[0].Policy.Type = schema.PolicyType(policy)
		r.Policies[0].Policy.Domain = host
		r.Policies[0].FailureDetails = []schema.FailureDetails{{ResultType: schema.ResultType(kind), ReceivingMXHostname: host, FailedSessionCount: n}}
		text := reportText(r, domain, "")
		if err := checkText(text); err != nil {
			t.Errorf("%v:\n%s", err, text)
		}
		if !strings.Contains(text, reportID) || !strings.HasSuffix(text, "\n") {
			t.Errorf("something is missing:\n%s", text)
		}
	})
}
