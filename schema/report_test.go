package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var update = flag.Bool("update", false, "rewrite golden files")

// reportSchema is RFC 8460, section 4.4, as a JSON schema.
var reportSchema = func() *jsonschema.Schema {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	return c.MustCompile("testdata/report.schema.json")
}()

// checkReport holds what must be true of every report that is built from
// canonical parts: it encodes, RFC 8460 allows it, it reads back the same.
func checkReport(t interface {
	Errorf(string, ...any)
}, r *schema.Report) []byte {
	data, err := r.Encode()
	if err != nil {
		t.Errorf("%+v does not encode: %v", r, err)
		return nil
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err == nil {
		err = reportSchema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s\nis no report of RFC 8460: %v", data, err)
	}
	if faults := schema.ValidateJSON(data); faults != nil {
		t.Errorf("%s\nhas faults: %v", data, faults)
	}
	if again, err := schema.Decode(data); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("%+v\nreads back as %+v, %v", r, again, err)
	}
	return data
}

func TestEncodeGolden(t *testing.T) {
	reports := map[string]func(r *schema.Report){
		"sts":     func(r *schema.Report) {},
		"success": func(r *schema.Report) { r.Policies[0].FailureDetails = nil },
		"tlsa": func(r *schema.Report) {
			r.Policies[0].Policy = schema.Policy{Type: schema.TLSA, Domain: "mx1.mail.example.net", Strings: []string{
				"2 1 1 8BD1DA95272F7FA4FFB24137FC0ED03AAE67E5C4D8B3C50734E1050A7920B922",
				"3 0 1 1F850A337E6DB9C609C522D136A475638CC43E1ED424F8EEC8513D747D1D085D",
			}}
		},
		"no-policy-found": func(r *schema.Report) {
			r.Policies[0].Policy = schema.Policy{Type: schema.NoPolicyFound, Domain: "example.net"}
		},
		"policy-fetch-error": func(r *schema.Report) {
			r.Policies[0].Policy = schema.Policy{Type: schema.STS, Domain: "example.net"}
			r.Policies[0].FailureDetails = []schema.FailureDetails{{ResultType: schema.STSPolicyFetchError, FailedSessionCount: 3}}
		},
		"idn": func(r *schema.Report) {
			p, _ := schema.Session{Domain: "B\u00fccher.example", Results: []schema.Result{{Policy: schema.Policy{
				Type: schema.STS, Strings: []string{"version: STSv1", "mx: *.b\u00fccher.example"}, MXHosts: []string{"*.b\u00fccher.example"},
			}}}}.Canonical()
			r.OrganizationName = "B\u00fccherei <M\u00fcller & S\u00f6hne> \u2028"
			r.OrganizationName = strings.TrimSpace(r.OrganizationName)
			r.Policies[0].Policy = p.Results[0].Policy
			r.Policies[0].FailureDetails[0].FailureReasonCode = "\u201cabgelaufen\u201d \"expired\" \\ <&>"
		},
		"all-fields": func(r *schema.Report) {
			d := &r.Policies[0].FailureDetails[0]
			d.ReceivingIP = netip.MustParseAddr("2001:db8::25")
			d.AdditionalInformation = "https://reports.example.com/report_info?id=5065427c-23d3#StarttlsNotSupported"
			d.FailureReasonCode = "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
		},
		"all-results": func(r *schema.Report) {
			r.Policies[0].FailureDetails = nil
			for i, result := range resultTypes {
				r.Policies[0].FailureDetails = append(r.Policies[0].FailureDetails,
					schema.FailureDetails{ResultType: result, FailedSessionCount: int64(i + 1)})
			}
		},
		"64-policies": func(r *schema.Report) { r.Policies = policies(64) },
		"largest-count": func(r *schema.Report) {
			r.Policies[0].Summary = schema.Summary{Success: 1<<53 - 1, Failure: 1<<53 - 1}
		},
	}
	for name, change := range reports {
		r := example()
		change(r)
		data := checkReport(t, r)
		golden := filepath.Join("testdata", "report", name+".json")
		if *update {
			if err := os.WriteFile(golden, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, data, want)
		}
	}
}

// The schema must be able to refuse, or it proves nothing.
func TestSchemaRefuses(t *testing.T) {
	data, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new string }{
		{`"organization-name": "Example Inc.",`, ``},
		{`"2026-11-22T00:00:00Z"`, `"2026-11-22T00:00:00"`},
		{`"2026-11-22T00:00:00Z"`, `"2026-11-22T00:00:00z"`},
		{`"tls-reports@example.com"`, `"mailto:x"`},
		{`"sts"`, `"mta-sts"`},
		{`"example.net",`, `"b\u00fccher.example",`},
		{`5326`, `-1`},
		{`5326`, `1.5`},
		{`5326`, `9007199254740992`},
		{`"certificate-expired"`, `"Testing"`},
		{`"203.0.113.56"`, `""`},
		{`"203.0.113.56"`, `"2001:DB8::1"`},
		{`"mx-host"`, `"mx-host-pattern"`},
		{`"policy-type": "sts"`, `"policy-type": "tlsa"`},
		{`"summary"`, `"totals"`},
	} {
		broken := strings.Replace(string(data), c.old, c.new, 1)
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(broken))
		if err != nil || broken == string(data) {
			t.Fatalf("%s: %v", c.old, err)
		}
		if reportSchema.Validate(v) == nil {
			t.Errorf("%s for %s passes", c.new, c.old)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	bad := func(field string, change func(r *schema.Report)) {
		t.Helper()
		r := example()
		change(r)
		data, err := r.Encode()
		faults, ok := errors.AsType[schema.Faults](err)
		if data != nil || !ok || len(faults) == 0 || faults[0].Field != field {
			t.Errorf("%s: %.40s, %v", field, data, err)
			return
		}
		if f := faults[0]; f.Problem == "" || f.Source == "" || !strings.Contains(err.Error(), f.String()) {
			t.Errorf("%s: %v", field, err)
		}
	}
	const (
		policy  = "policies[0].policy"
		details = "policies[0].failure-details[0]"
	)
	bad("organization-name", func(r *schema.Report) { r.OrganizationName = "" })
	bad("organization-name", func(r *schema.Report) { r.OrganizationName = "a\x00" })
	bad("organization-name", func(r *schema.Report) { r.OrganizationName = "a\xff" })
	bad("organization-name", func(r *schema.Report) { r.OrganizationName = "a\ufffe" })
	bad("organization-name", func(r *schema.Report) { r.OrganizationName = strings.Repeat("x", 256) })
	bad("contact-info", func(r *schema.Report) { r.ContactInfo = "" })
	bad("contact-info", func(r *schema.Report) { r.ContactInfo = "mailto:a" })
	bad("contact-info", func(r *schema.Report) { r.ContactInfo = "A <a@example.com>" })
	bad("contact-info", func(r *schema.Report) { r.ContactInfo = "a@b\u00fccher.example" })
	bad("report-id", func(r *schema.Report) { r.ReportID = "" })
	bad("report-id", func(r *schema.Report) { r.ReportID = "a b@example.com" })
	bad("report-id", func(r *schema.Report) { r.ReportID = "a>\nb@example.com" })
	bad("report-id", func(r *schema.Report) { r.ReportID = "<a@example.com>" })
	bad("report-id", func(r *schema.Report) { r.ReportID = strings.Repeat("x", 641) })
	bad("date-range.start-datetime", func(r *schema.Report) { r.DateRange.Start = schema.Timestamp{} })
	bad("date-range.end-datetime", func(r *schema.Report) { r.DateRange.End = schema.Timestamp{} })
	bad("date-range.end-datetime", func(r *schema.Report) {
		r.DateRange.End = schema.Timestamp{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}
	})
	bad("date-range", func(r *schema.Report) { r.DateRange = schema.DateRange{Start: r.DateRange.End, End: r.DateRange.Start} })
	bad("policies", func(r *schema.Report) { r.Policies = nil })
	bad(policy+".policy-type", func(r *schema.Report) { r.Policies[0].Policy.Type = "x" })
	bad(policy+".policy-domain", func(r *schema.Report) { r.Policies[0].Policy.Domain = "" })
	bad(policy+".policy-domain", func(r *schema.Report) { r.Policies[0].Policy.Domain = "b\u00fccher.example" })
	bad(policy+".policy-domain", func(r *schema.Report) { r.Policies[0].Policy.Domain = "example.com." })
	bad(policy+".policy-domain", func(r *schema.Report) { r.Policies[0].Policy.Domain = "*.example.com" })
	bad(policy+".policy-string[1]", func(r *schema.Report) { r.Policies[0].Policy.Strings[1] = "mode:\tx" })
	bad(policy+".policy-string[1]", func(r *schema.Report) { r.Policies[0].Policy.Strings[1] = "" })
	bad(policy+".policy-string", func(r *schema.Report) { r.Policies[0].Policy.Strings = make([]string, 0, 1); fill(r) })
	bad(policy+".mx-host[0]", func(r *schema.Report) { r.Policies[0].Policy.MXHosts[0] = "mx: mx.example.com" })
	bad(policy+".mx-host[0]", func(r *schema.Report) { r.Policies[0].Policy.MXHosts[0] = "b\u00fccher.example" })
	bad(policy+".mx-host", func(r *schema.Report) {
		for range 100 {
			r.Policies[0].Policy.MXHosts = append(r.Policies[0].Policy.MXHosts, "mx.example.com")
		}
	})
	bad("policies[0].summary.total-successful-session-count", func(r *schema.Report) { r.Policies[0].Summary.Success = -1 })
	bad("policies[0].summary.total-failure-session-count", func(r *schema.Report) { r.Policies[0].Summary.Failure = 1 << 53 })
	bad(details+".result-type", func(r *schema.Report) { r.Policies[0].FailureDetails[0].ResultType = "Testing" })
	bad(details+".failed-session-count", func(r *schema.Report) { r.Policies[0].FailureDetails[0].FailedSessionCount = 0 })
	bad(details+".failed-session-count", func(r *schema.Report) { r.Policies[0].FailureDetails[0].FailedSessionCount = math.MaxInt64 })
	bad(details+".sending-mta-ip", func(r *schema.Report) {
		r.Policies[0].FailureDetails[0].SendingMTAIP = netip.MustParseAddr("::ffff:192.0.2.1")
	})
	bad(details+".receiving-ip", func(r *schema.Report) {
		r.Policies[0].FailureDetails[0].ReceivingIP = netip.MustParseAddr("fe80::1%eth0")
	})
	bad(details+".additional-information", func(r *schema.Report) { r.Policies[0].FailureDetails[0].AdditionalInformation = "not a URI" })
	bad(details+".receiving-mx-helo", func(r *schema.Report) { r.Policies[0].FailureDetails[0].ReceivingMXHelo = "250-a\r\n250 b" })
	bad(details+".failure-reason-code", func(r *schema.Report) {
		r.Policies[0].FailureDetails[0].FailureReasonCode = strings.Repeat("x", 256)
	})
}

// fill gives the first policy more text than it may have.
func fill(r *schema.Report) {
	for range 5 {
		p := &r.Policies[0].Policy
		p.Strings = append(p.Strings, strings.Repeat("x", 16<<10))
	}
}

// The sum of the details may exceed the failures: RFC 8460, section 4.
func TestEncodeManyFaultsPerSession(t *testing.T) {
	r := example()
	r.Policies[0].FailureDetails[0].FailedSessionCount = 1000
	checkReport(t, r)
}

// What bounds allow must fit, or a domain could keep itself from being told.
func TestEncodeLargest(t *testing.T) {
	r := example()
	r.Policies = nil
	long := strings.Repeat(`"`, 255)
	for i := range 64 {
		p := schema.Policy{Type: schema.STS, Domain: fmt.Sprintf("d%d.example", i)}
		for range 5000 {
			p.Strings = append(p.Strings, `x"\`)
		}
		for j := range 100 {
			p.MXHosts = append(p.MXHosts, fmt.Sprintf("mx%d%s", j, strings.Repeat(".example", 31)))
		}
		c := canonical(t, "example.net", schema.Result{Policy: p})
		result := schema.PolicyResult{Policy: c.Policy}
		for range 8 {
			result.FailureDetails = append(result.FailureDetails, schema.FailureDetails{
				ResultType: schema.STSPolicyFetchError, FailedSessionCount: 1, ReceivingMXHostname: long, ReceivingMXHelo: long, FailureReasonCode: long,
			})
		}
		r.Policies = append(r.Policies, result)
	}
	data, err := r.Encode()
	if err != nil || len(data) < schema.MaxReport/2 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	r.Policies = append(r.Policies, r.Policies...)
	if data, err := r.Encode(); err == nil || data != nil {
		t.Errorf("a report of %d bytes", len(data))
	}
}

func TestEncodeLeavesReport(t *testing.T) {
	r := example()
	r.Policies[0].FailureDetails = nil
	if _, err := r.Encode(); err != nil || r.Policies[0].FailureDetails != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTimestamp(t *testing.T) {
	when := schema.Timestamp{Time: time.Date(2026, 11, 23, 0, 59, 59, 999, time.FixedZone("", 3600))}
	text, err := json.Marshal(when)
	if string(text) != `"2026-11-22T23:59:59Z"` || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

func TestNames(t *testing.T) {
	r := example()
	if r.ReportID != "2026-11-22.example.net.0a1b2c3d@example.com" {
		t.Errorf("report-id %q", r.ReportID)
	}
	if s := r.Submitter(); s != "example.com" {
		t.Errorf("submitter %q", s)
	}
	name := schema.FileName(r, "example.net")
	// RFC 8460, section 5.1.
	form := regexp.MustCompile(`^example\.com!example\.net!1795305600!1795391999![0-9A-Za-z]+\.json\.gz$`)
	if !form.MatchString(name) {
		t.Errorf("file name %q", name)
	}
	if again := schema.FileName(r, "example.net"); again != name {
		t.Errorf("%s, then %s", name, again)
	}
	r.ReportID = schema.ReportID(day, "example.net", "0a1b2c3e", "example.com")
	if other := schema.FileName(r, "example.net"); other == name {
		t.Errorf("two reports are both named %s", name)
	}
	r.ContactInfo = "A.B@Example.COM."
	if s := r.Submitter(); s != "example.com" {
		t.Errorf("submitter %q", s)
	}
	r.ContactInfo = "nobody"
	if s := r.Submitter(); s != "" {
		t.Errorf("submitter %q", s)
	}
}

// A report-id of ours is a msg-id of RFC 5322: no colon, no space.
func TestReportIDIsMsgID(t *testing.T) {
	id := schema.ReportID(day, "_x.xn--bcher-kva.example", "0123456789abcdef", "example.com")
	if addr, err := schema.ParseAddress(id[len(id)-len("0123456789abcdef@example.com"):]); err != nil || strings.ContainsAny(id, ": <>") {
		t.Errorf("%s, %v", addr, err)
	}
	r := example()
	long := strings.Repeat(strings.Repeat("x", 61)+".", 4) + "x"
	r.ReportID = schema.ReportID(day, long, strings.Repeat("0", 16), long)
	if faults := r.Validate(); faults != nil {
		t.Errorf("the longest names: %v", faults)
	}
}

func TestTotals(t *testing.T) {
	r := example()
	r.Policies = append(r.Policies, policies(3)...)
	if got, want := r.Totals(), (schema.Summary{Success: 5329, Failure: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
