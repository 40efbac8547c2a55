package schema_test

import (
	"fmt"
	"net/netip"
	"time"

	"pgregory.net/rapid"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// What strangers may send, drawn at random.

var resultTypes = []schema.ResultType{
	schema.StartTLSNotSupported, schema.CertificateHostMismatch, schema.CertificateExpired,
	schema.CertificateNotTrusted, schema.ValidationFailure, schema.TLSAInvalid, schema.DNSSECInvalid,
	schema.DANERequired, schema.STSPolicyFetchError, schema.STSPolicyInvalid, schema.STSWebPKIInvalid,
}

// anyText is text with all that canonical forms have to deal with.
var anyText = rapid.OneOf(
	rapid.StringMatching(`[ -~]{0,40}`),
	rapid.StringOf(rapid.SampledFrom([]rune("aZ09 .-_*@\"\\<>&\t\r\n\x00\x1b\u007f\u0085\u00a0\u00fc\u0130\u1e9e\u2028\u202e\u2603\u3002\ufdd0\uff0e\ufffd\ufffe\U0001f4e7\U0010ffff"))),
	rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 300), func(b []byte) string { return string(b) }),
)

var anyHost = rapid.OneOf(
	rapid.StringMatching(`(\*\.)?([a-zA-Z0-9_-]{1,9}\.){1,3}[a-zA-Z]{2,5}\.?`),
	rapid.StringMatching(`[a-z\x{e4}\x{fc}\x{df}\x{4e2d}]{1,8}\.example`),
	rapid.StringMatching(`250[- ][a-z]{1,5}\.example( [a-z]+)?\r\n250 STARTTLS`),
	anyText,
)

var anyAddr = rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 16), func(b []byte) netip.Addr {
	switch {
	case len(b) == 16:
		return netip.AddrFrom16([16]byte(b)).WithZone("eth0")
	case len(b) >= 8:
		return netip.AddrFrom16([16]byte(append(make([]byte, 16-len(b)), b...)))
	case len(b) >= 4:
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.Addr{}
})

var anyDetails = rapid.Custom(func(t *rapid.T) schema.FailureDetails {
	return schema.FailureDetails{
		ResultType:            rapid.SampledFrom(append(resultTypes, "weird-type", "")).Draw(t, "result-type"),
		SendingMTAIP:          anyAddr.Draw(t, "sending-mta-ip"),
		ReceivingMXHostname:   anyHost.Draw(t, "receiving-mx-hostname"),
		ReceivingMXHelo:       anyHost.Draw(t, "receiving-mx-helo"),
		ReceivingIP:           anyAddr.Draw(t, "receiving-ip"),
		AdditionalInformation: rapid.OneOf(rapid.StringMatching(`https://example\.com/[a-z%?#]{0,9}`), anyText).Draw(t, "additional-information"),
		FailureReasonCode:     anyText.Draw(t, "failure-reason-code"),
	}
})

var anyPolicy = rapid.Custom(func(t *rapid.T) schema.Policy {
	p := schema.Policy{
		Type:    rapid.SampledFrom([]schema.PolicyType{schema.STS, schema.TLSA, schema.NoPolicyFound}).Draw(t, "policy-type"),
		Domain:  anyHost.Draw(t, "policy-domain"),
		MXHosts: rapid.SliceOf(anyHost).Draw(t, "mx-host"),
	}
	line := rapid.OneOf(rapid.StringMatching(`(mx|MX|mode|max_age|version) ?: *[a-zA-Z0-9.*]{0,12}`), anyText)
	if p.Type == schema.TLSA {
		// Nothing but a TLSA record comes out of DNS.
		line = rapid.StringMatching(` ?[0-3] {1,2}[01]\t[0-2] ([0-9a-fA-F]{2}){2,8}( [0-9A-F]{2})? ?`)
	}
	p.Strings = rapid.SliceOf(line).Draw(t, "policy-string")
	return p
})

var anySession = rapid.Custom(func(t *rapid.T) schema.Session {
	return schema.Session{
		Domain: anyHost.Draw(t, "domain"),
		Record: anyText.Draw(t, "record"),
		Results: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) schema.Result {
			return schema.Result{
				Policy:  anyPolicy.Draw(t, "policy"),
				Failed:  rapid.Bool().Draw(t, "failed"),
				Details: rapid.SliceOfN(anyDetails, 0, 5).Draw(t, "details"),
			}
		}), 0, 4).Draw(t, "results"),
	}
})

// day is the day of the reports of these tests.
var day = schema.DayOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))

// reportOf is a report about one canonical session.
func reportOf(s schema.Session) *schema.Report {
	r := &schema.Report{
		OrganizationName: "Example Inc.",
		DateRange:        day.Range(),
		ContactInfo:      "tls-reports@example.com",
		ReportID:         schema.ReportID(day, s.Domain, "0a1b2c3d", "example.com"),
	}
	for i, res := range s.Results {
		p := schema.PolicyResult{Policy: res.Policy, Summary: schema.Summary{Success: int64(i), Failure: 1}}
		for j, d := range res.Details {
			d.FailedSessionCount = int64(j + 1)
			p.FailureDetails = append(p.FailureDetails, d)
		}
		r.Policies = append(r.Policies, p)
	}
	return r
}

// example is a report with one policy, for tests to change.
func example() *schema.Report {
	return &schema.Report{
		OrganizationName: "Example Inc.",
		DateRange:        day.Range(),
		ContactInfo:      "tls-reports@example.com",
		ReportID:         schema.ReportID(day, "example.net", "0a1b2c3d", "example.com"),
		Policies: []schema.PolicyResult{{
			Policy: schema.Policy{
				Type: schema.STS, Domain: "example.net", MXHosts: []string{"*.mail.example.net"},
				Strings: []string{"version: STSv1", "mode: enforce", "mx: *.mail.example.net", "max_age: 86400"},
			},
			Summary: schema.Summary{Success: 5326, Failure: 3},
			FailureDetails: []schema.FailureDetails{{
				ResultType:          schema.CertificateExpired,
				SendingMTAIP:        netip.MustParseAddr("2001:db8:abcd:12::1"),
				ReceivingMXHostname: "mx1.mail.example.net",
				ReceivingMXHelo:     "mx1.mail.example.net",
				ReceivingIP:         netip.MustParseAddr("203.0.113.56"),
				FailedSessionCount:  3,
			}},
		}},
	}
}

// policies is n policies that differ.
func policies(n int) (results []schema.PolicyResult) {
	for i := range n {
		results = append(results, schema.PolicyResult{
			Policy:  schema.Policy{Type: schema.TLSA, Domain: fmt.Sprintf("mx%02d.example.net", i), Strings: []string{fmt.Sprintf("3 1 1 %064X", i)}},
			Summary: schema.Summary{Success: int64(i)},
		})
	}
	return results
}
