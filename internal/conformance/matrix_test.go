package conformance_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/validate"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var resultTypes = []schema.ResultType{
	schema.StartTLSNotSupported, schema.CertificateHostMismatch, schema.CertificateExpired,
	schema.CertificateNotTrusted, schema.ValidationFailure, schema.TLSAInvalid, schema.DNSSECInvalid,
	schema.DANERequired, schema.STSPolicyFetchError, schema.STSPolicyInvalid, schema.STSWebPKIInvalid,
}

var policies = map[schema.PolicyType]schema.Policy{
	schema.TLSA:          {Type: schema.TLSA, Domain: "mx1.example.net", Strings: []string{"3 1 1 " + strings.Repeat("ab", 32), "2 0 1 " + strings.Repeat("0C", 32)}},
	schema.STS:           {Type: schema.STS, Strings: []string{"version: STSv1", "mode: testing", "mx: *.example.net", "max_age: 86400"}, MXHosts: []string{"*.example.net"}},
	schema.NoPolicyFound: {Type: schema.NoPolicyFound},
}

// failed is one failed session with all details that there are.
func failed(domain string, policy schema.Policy, details ...schema.FailureDetails) schema.Session {
	return schema.Session{Domain: domain, Results: []schema.Result{{Policy: policy, Failed: true, Details: details}}}
}

func details(r schema.ResultType, i int) schema.FailureDetails {
	return schema.FailureDetails{
		ResultType:            r,
		SendingMTAIP:          netip.MustParseAddr("2001:db8::25"),
		ReceivingMXHostname:   fmt.Sprintf("mx%d.example.net", i),
		ReceivingMXHelo:       "250-mx.example.net\r\n250 STARTTLS",
		ReceivingIP:           netip.MustParseAddr("::ffff:192.0.2.25"),
		AdditionalInformation: "https://example.com/help?a=b#c",
		FailureReasonCode:     "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
	}
}

// matrix is the sessions of every kind of report.
func matrix() (sessions []schema.Session) {
	add := func(s ...schema.Session) { sessions = append(sessions, s...) }
	for policyType, policy := range policies {
		for i, r := range resultTypes {
			add(failed(fmt.Sprintf("%s-%d.example.org", policyType, i), policy, details(r, i)))
		}
		add(schema.Session{Domain: string(policyType) + ".example.org", Results: []schema.Result{{Policy: policy}}})
	}
	idn := policies[schema.STS]
	idn.MXHosts, idn.Strings = []string{"*.b\u00fccher.example"}, []string{"version: STSv1", "mx: *.b\u00fccher.example"}
	odd := details(schema.ValidationFailure, 0)
	odd.ReceivingMXHostname, odd.FailureReasonCode = "MX.b\u00fccher.example.", "\x1b[2J\r\nSubject: \u2028 <\xff>&\"\\\ufdd0"
	odd.AdditionalInformation, odd.ReceivingMXHelo = "no URI", strings.Repeat("\U0001f4e7", 400)
	odd.SendingMTAIP = netip.MustParseAddr("fe80::1%eth0")
	add(failed("b\u00fccher.example", idn, odd))
	add(failed("empty.example.org", policies[schema.NoPolicyFound], schema.FailureDetails{}))
	add(failed("nodetails.example.org", policies[schema.NoPolicyFound]))
	for i := range 70 { // more than the 64 that are kept apart
		tlsa := policies[schema.TLSA]
		tlsa.Domain = fmt.Sprintf("mx%d.example.net", i)
		add(failed("policies.example.org", tlsa, details(schema.TLSAInvalid, i)))
	}
	for i := range 600 { // more than the 512 that are kept apart
		add(failed("details.example.org", policies[schema.STS], details(resultTypes[i%len(resultTypes)], i)))
	}
	both := schema.Session{Domain: "both.example.org", Results: []schema.Result{{Policy: policies[schema.TLSA]}, {Policy: policies[schema.STS], Failed: true, Details: []schema.FailureDetails{details(schema.CertificateExpired, 1), details(schema.CertificateHostMismatch, 1)}}}}
	add(both, schema.Session{Domain: "late.example.org", Results: []schema.Result{{Policy: policies[schema.STS]}}})
	return sessions
}

// counts is the sessions as a source hands them over.
func counts(t *testing.T, day schema.Day, sessions []schema.Session) (list []schema.Count) {
	t.Helper()
	for _, s := range sessions {
		c, err := s.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range c.Results {
			n := schema.Count{Day: day, Domain: c.Domain, Policy: r.Policy.Text(), Success: 1}
			if r.Failed {
				n.Success, n.Failure = 0, 1
			}
			for _, d := range r.Details {
				n.Details = append(n.Details, schema.DetailsCount{Details: d.Text(), Sessions: 1})
			}
			list = append(list, n)
		}
	}
	return list
}

// TestMatrix sends every kind of report there is, by mail and by HTTPS and through
// a real store, to a receiver that rejects what any receiver does (see package
// receiver), and has package validate judge the messages.
func TestMatrix(t *testing.T) {
	b := newBench(t)
	sessions := matrix()
	domains := map[string]bool{}
	for _, c := range counts(t, b.day, sessions) {
		domains[c.Domain] = true
		b.Publish(c.Domain, "v=TLSRPTv1; rua=mailto:tlsrpt@"+c.Domain+", "+b.URL("/"+c.Domain))
	}
	b.submit(sessions...)
	b.submit(failed("late.example.org", policies[schema.STS], details(schema.CertificateExpired, 1)))
	if want := 2 * (len(domains) + 1); len(b.Reports()) != want {
		t.Errorf("%d reports arrived, want %d", len(b.Reports()), want)
	}
	checkMatrix(t, b.World)
}

func checkMatrix(t *testing.T, w *receiver.World) {
	t.Helper()
	seen := map[schema.ResultType]bool{}
	for _, r := range w.Reports() {
		if len(r.Problems) > 0 {
			t.Errorf("%s by %s: %q", r.Domain, r.Via, r.Problems)
		}
		for _, p := range r.Content.Policies {
			for _, d := range p.FailureDetails {
				seen[d.ResultType] = true
			}
		}
		switch policies := r.Content.Policies; r.Domain {
		case "policies.example.org":
			if len(policies) < 64 || r.Sessions.Failure != 70 {
				t.Errorf("%d policies, %+v", len(policies), r.Sessions)
			}
		case "details.example.org":
			if n := len(policies[0].FailureDetails); n < 512 || r.Sessions.Failure != 600 {
				t.Errorf("%d details, %+v", n, r.Sessions)
			}
		}
	}
	if len(seen) != len(resultTypes) {
		t.Errorf("result types %v", seen)
	}
	for _, m := range w.SMTP.Received() {
		if r := validate.File("", m.Data, validate.Options{LookupTXT: w.Zone.LookupTXT}); r.Faults != nil {
			t.Errorf("mail to %v: %v", m.To, r.Faults)
		}
	}
	for _, p := range w.HTTPS.Received() {
		if r := validate.File("", p.Body, validate.Options{}); r.Faults != nil {
			t.Errorf("POST to %s: %v", p.URL, r.Faults)
		}
	}
}
