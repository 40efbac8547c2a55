package schema_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// minimal is a report without fault, for tests to break.
const minimal = `{"organization-name":"Example Inc.","date-range":{"start-datetime":"2026-11-22T00:00:00Z","end-datetime":"2026-11-22T23:59:59Z"},` +
	`"contact-info":"a@example.com","report-id":"1@example.com","policies":[{"policy":{"policy-type":"sts","policy-string":["mode: none"],` +
	`"policy-domain":"example.net","mx-host":["mx.example.net"]},"summary":{"total-successful-session-count":1,"total-failure-session-count":2},` +
	`"failure-details":[{"result-type":"tlsa-invalid","sending-mta-ip":"192.0.2.1","receiving-mx-hostname":"mx.example.net","receiving-mx-helo":"mx",` +
	`"receiving-ip":"2001:db8::1","failed-session-count":2,"additional-information":"https://example.com/","failure-reason-code":"x"}]}]}`

// breakages says what each deviation is found to be. The value that Decode
// takes all the same is checked where one is given.
var breakages = []struct {
	old, new string
	faults   string // fields and sources
	check    func(r *schema.Report) bool
}{
	{`"mx-host":["mx.example.net"]`, `"mx-host":"mx.example.net"`,
		"policies[0].policy.mx-host (RFC 8460, section 4.4; erratum 6241)",
		func(r *schema.Report) bool {
			return slices.Equal(r.Policies[0].Policy.MXHosts, []string{"mx.example.net"})
		}},
	{`"mx-host":["mx.example.net"]`, `"mx-host-pattern":["mx.example.net"]`,
		"policies[0].policy.mx-host-pattern (RFC 8460, section 4.4)",
		func(r *schema.Report) bool {
			return slices.Equal(r.Policies[0].Policy.MXHosts, []string{"mx.example.net"})
		}},
	{`"mx-host":["mx.example.net"]`, `"mx-host":null`, "policies[0].policy.mx-host (rejected by Stalwart mail-auth)", nil},
	{`"mx-host":["mx.example.net"]`, `"mx-host":["mx: x"]`, "policies[0].policy.mx-host[0] (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].Policy.MXHosts[0] == "mx: x" }},
	{`"policy-string":["mode: none"]`, `"policy-string":"mode: none"`, "policies[0].policy.policy-string (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return slices.Equal(r.Policies[0].Policy.Strings, []string{"mode: none"}) }},
	{`"policy-string":["mode: none"]`, `"policy-string":["[\"3 1 1 AB\",\"3 1 1 CD\"]","[x]"]`, "policies[0].policy.policy-string[0] (RFC 8460, section 4.4)",
		func(r *schema.Report) bool {
			return slices.Equal(r.Policies[0].Policy.Strings, []string{"3 1 1 AB", "3 1 1 CD", "[x]"})
		}},
	{`"policy-string":["mode: none"]`, `"policy-string":["mode: none",1]`, "policies[0].policy.policy-string[1] (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return slices.Equal(r.Policies[0].Policy.Strings, []string{"mode: none"}) }},
	{`"policy-type":"sts"`, `"policy-type":"invalid-policy-type"`, "policies[0].policy.policy-type (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].Policy.Type == "invalid-policy-type" }},
	{`"policy-domain":"example.net"`, `"x":1`, "policies[0].policy.policy-domain (RFC 8460, section 4.4)", nil},
	{`"policy-domain":"example.net"`, `"policy-domain":"b\u00fccher.example"`, "policies[0].policy.policy-domain (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].Policy.Domain == "b\u00fccher.example" }},
	{`"result-type":"tlsa-invalid"`, `"result-type":"Testing"`, "policies[0].failure-details[0].result-type (RFC 8460, section 4.3)",
		func(r *schema.Report) bool { return r.Policies[0].FailureDetails[0].ResultType == "Testing" }},
	{`"192.0.2.1"`, `""`, "policies[0].failure-details[0].sending-mta-ip (rejected by Stalwart mail-auth)",
		func(r *schema.Report) bool { return !r.Policies[0].FailureDetails[0].SendingMTAIP.IsValid() }},
	{`"192.0.2.1"`, `null`, "policies[0].failure-details[0].sending-mta-ip (rejected by Stalwart mail-auth)", nil},
	{`"192.0.2.1"`, `"x.x.x.x"`, "policies[0].failure-details[0].sending-mta-ip (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return !r.Policies[0].FailureDetails[0].SendingMTAIP.IsValid() }},
	{`"192.0.2.1"`, `"fe80::1%eth0"`, "policies[0].failure-details[0].sending-mta-ip (RFC 8460, section 4.4)", nil},
	{`"192.0.2.1"`, `"::ffff:192.0.2.1"`, "policies[0].failure-details[0].sending-mta-ip (RFC 8460, section 4.4; RFC 5952, section 4)",
		func(r *schema.Report) bool {
			return r.Policies[0].FailureDetails[0].SendingMTAIP == netip.MustParseAddr("192.0.2.1")
		}},
	{`"2001:db8::1"`, `"2001:0DB8::1"`, "policies[0].failure-details[0].receiving-ip (RFC 8460, section 4.4; RFC 5952, section 4)",
		func(r *schema.Report) bool {
			return r.Policies[0].FailureDetails[0].ReceivingIP == netip.MustParseAddr("2001:db8::1")
		}},
	{`"additional-information":"https://example.com/"`, `"additional-info-uri":"https://example.com/"`,
		"policies[0].failure-details[0].additional-info-uri (RFC 8460, section 4.4)",
		func(r *schema.Report) bool {
			return r.Policies[0].FailureDetails[0].AdditionalInformation == "https://example.com/"
		}},
	{`"additional-information":"https://example.com/"`, `"additional-information":"see below"`,
		"policies[0].failure-details[0].additional-information (RFC 8460, section 4.4)", nil},
	{`"failure-reason-code":"x"`, `"failure-reason-code":5`, "policies[0].failure-details[0].failure-reason-code (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].FailureDetails[0].FailureReasonCode == "5" }},
	{`"failure-reason-code":"x"`, `"failure-reason-code":["x"]`, "policies[0].failure-details[0].failure-reason-code (RFC 8460, section 4.4)", nil},
	{`"failure-reason-code":"x"`, `"failure-reason-code":"\u0000"`, "policies[0].failure-details[0].failure-reason-code (RFC 7493, section 2.1)", nil},
	{`"failure-reason-code":"x"`, `"failure-reason-code":"\ufffe"`, "policies[0].failure-details[0].failure-reason-code (RFC 7493, section 2.1)", nil},
	{`"failure-reason-code":"x"`, `"failure-reason-code":"\ud83d"`, "report (RFC 7493, section 2.1)", nil},
	{`"failure-reason-code":"x"`, `"failure-reason-code":"\udc00\udc00"`, "report (RFC 7493, section 2.1)", nil},
	{`"failure-reason-code":"x"`, `"failure-reason-code":"\\\udc00x"`, "report (RFC 7493, section 2.1)", nil},
	{`"failure-reason-code":"x"`, "\"failure-reason-code\":\"\xff\"", "report (RFC 7493, section 2.1)", nil},
	{`"failed-session-count":2`, `"failed-session-count":0`, "policies[0].failure-details[0].failed-session-count (RFC 8460, section 4.4)", nil},
	{`"failed-session-count":2`, `"failed-session-count":null`, "policies[0].failure-details[0].failed-session-count (RFC 8460, section 4.4)", nil},
	{`"total-successful-session-count":1`, `"total-successful-session-count":"7"`, "policies[0].summary.total-successful-session-count (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].Summary.Success == 7 }},
	{`"total-successful-session-count":1`, `"total-successful-session-count":7.0e1`, "policies[0].summary.total-successful-session-count (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].Summary.Success == 70 }},
	{`"total-successful-session-count":1,`, ``, "policies[0].summary.total-successful-session-count (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].Summary == schema.Summary{Failure: 2} }},
	{`"summary":{"total-successful-session-count":1,"total-failure-session-count":2}`, `"summary":null`, "policies[0].summary (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.Policies[0].Summary == schema.Summary{} }},
	{`"summary":{"total-successful-session-count":1,"total-failure-session-count":2}`, `"summary":[1,2]`, "policies[0].summary (RFC 8460, section 4.4)", nil},
	{`"failure-details":[{`, `"failure-details":null,"x":[{`, "policies[0].failure-details (rejected by Stalwart mail-auth)", nil},
	{`"failure-details":[{`, `"failure-details":["x",null,{`,
		"policies[0].failure-details[0] (RFC 8460, section 4.4); policies[0].failure-details[1] (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return len(r.Policies[0].FailureDetails) == 1 }},
	{`"policies":[{`, `"policies":{"policy":{"policy-type":"no-policy-found","policy-domain":"example.net"},"summary":{"total-successful-session-count":9,"total-failure-session-count":0}},"x":[{`,
		"policies (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return len(r.Policies) == 1 && r.Policies[0].Summary.Success == 9 }},
	{`"policies":[{`, `"policies":[],"x":[{`, "policies (RFC 8460, section 4.4)", func(r *schema.Report) bool { return len(r.Policies) == 0 }},
	{`"policies":[{`, `"policies":null,"x":[{`, "policies (RFC 8460, section 4.4)", nil},
	{`"organization-name":"Example Inc.",`, ``, "organization-name (RFC 8460, section 4.4)", nil},
	{`"a@example.com"`, `null`, "contact-info (RFC 8460, section 4.4)", func(r *schema.Report) bool { return r.ContactInfo == "" }},
	{`"a@example.com"`, `"mailto:a"`, "contact-info (RFC 8460, section 4.4)", func(r *schema.Report) bool { return r.ContactInfo == "mailto:a" }},
	{`"1@example.com"`, `""`, "report-id (RFC 8460, section 4.4)", nil},
	{`"report-id"`, `"report-id":"0@example.com","report-id"`, "report-id (RFC 7493, section 2.3)",
		func(r *schema.Report) bool { return r.ReportID == "1@example.com" }},
	{`"policy-type"`, `"x":{"y":[{"z":1,"z":2}]},"policy-type"`, "policies.[].policy.x.y.[].z (RFC 7493, section 2.3)", nil},
	{`"date-range":{`, `"date-range":null,"x":{`, "date-range (RFC 8460, section 4.4)", func(r *schema.Report) bool { return r.DateRange == schema.DateRange{} }},
	{`23:59:59Z`, `23:59:59`, "date-range.end-datetime (RFC 7493, section 4.3)", endsOnDay},
	{`23:59:59Z`, `23:59:59z`, "date-range.end-datetime (RFC 7493, section 4.3)", endsOnDay},
	{`T23:59:59Z`, ` 23:59:59Z`, "date-range.end-datetime (RFC 7493, section 4.3)", endsOnDay},
	{`T23:59:59Z`, ` 23:59:59`, "date-range.end-datetime (RFC 7493, section 4.3)", endsOnDay},
	{`T00:00:00Z`, `T00:00Z`, "date-range.start-datetime (RFC 7493, section 4.3)", endsOnDay},
	{`T00:00:00Z`, ``, "date-range.start-datetime (RFC 7493, section 4.3)", endsOnDay},
	{`"2026-11-22T23:59:59Z"`, `"tomorrow"`, "date-range.end-datetime (RFC 8460, section 4.4)",
		func(r *schema.Report) bool { return r.DateRange.End.IsZero() && !r.DateRange.Start.IsZero() }},
	{`"2026-11-22T23:59:59Z"`, `1795391999`, "date-range.end-datetime (RFC 8460, section 4.4); date-range.end-datetime (RFC 8460, section 4.4)", nil},
	{`2026-11-22T23:59:59Z`, `2026-11-29T23:59:59Z`, "date-range (RFC 8460, section 4.1)", nil},
	{`2026-11-22T23:59:59Z`, `2026-11-21T23:59:59Z`, "date-range (RFC 8460, section 4.1)", nil},
	{`{"organ`, "\xef\xbb\xbf{\"organ", "report (RFC 8259, section 8.1)", nil},
	{`]}]}`, `]}]}{`, "report (RFC 8259, section 2)", nil},
	// These are no deviations.
	{`23:59:59Z`, `23:59:59.999999Z`, "", endsOnDay},
	{`2026-11-22T23:59:59Z`, `2026-11-23T01:59:59+02:00`, "", endsOnDay},
	{`2026-11-22T23:59:59Z`, `2026-11-23T00:00:00Z`, "", func(r *schema.Report) bool { return r.DateRange.End.Equal((day + 1).Start()) }},
	{`"x"}]}]}`, "\"\\\\\\\"\\ud83d\\ude00\\\\ud800\"}]}]}\r\n", "", func(r *schema.Report) bool {
		return r.Policies[0].FailureDetails[0].FailureReasonCode == "\\\"\U0001f600\\ud800"
	}},
	{`"policy-type"`, `"extension":[null,true],"policy-type"`, "", nil},
	{`,"policy-string":["mode: none"]`, ``, "", nil},
	{`"1@example.com"`, `"2024-09-03T00:00:00Z_example.com"`, "", nil},
	{`"failure-reason-code":"x"`, `"failure-reason-code":"` + strings.Repeat("x", 300) + `"`, "", nil}, // our bound, nobody else's
}

func endsOnDay(r *schema.Report) bool { return r.DateRange == day.Range() }

func TestDecodeDeviations(t *testing.T) {
	for _, c := range breakages {
		data := strings.Replace(minimal, c.old, c.new, 1)
		if data == minimal {
			t.Fatalf("%s is not in the report", c.old)
		}
		var faults []string
		for _, f := range schema.ValidateJSON([]byte(data)) {
			field := f.Field
			if field == "" {
				field = "report"
			}
			faults = append(faults, field+" ("+f.Source+")")
			if f.Problem == "" {
				t.Errorf("%s: no problem at %s", c.new, f.Field)
			}
		}
		if got := strings.Join(faults, "; "); got != c.faults {
			t.Errorf("%s for %s: faults\n got %s\nwant %s", c.new, c.old, got, c.faults)
		}
		r, err := schema.Decode([]byte(data))
		if err != nil || c.check != nil && !c.check(r) {
			t.Errorf("%s for %s: got %+v, %v", c.new, c.old, r, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	bad := func(data, why string) {
		t.Helper()
		if r, err := schema.Decode([]byte(data)); r != nil || !errors.Is(err, schema.ErrReport) {
			t.Errorf("%s: %+v, %v", why, r, err)
		}
		if faults := schema.ValidateJSON([]byte(data)); len(faults) == 0 || len(faults.Error()) > 500 {
			t.Errorf("%s: faults %v", why, faults)
		}
	}
	with := func(old, new string) string { return strings.Replace(minimal, old, new, 1) }
	bad("", "empty")
	bad("\x1f\x8bx", "not gzip")
	bad("From: a@example.com\r\n", "a message")
	bad("null", "null")
	bad("[]", "an array")
	bad("{}", "no policies")
	bad(`{"report-id":"x"}`, "no policies")
	bad(minimal[:len(minimal)/2], "half of a report")
	bad(minimal[:len(minimal)-1], "all but the last byte")
	bad(with(`:1,`, `:1,,`), "a comma too many")
	bad(with(`:1,`, `:1 `), "a comma too few")
	bad(with(`"mx.example.net"]`, `"mx.example.net",]`), "a final comma")
	bad(with(`"report-id"`, `report-id`), "a bare name")
	bad(with(`count":1,`, `count":-1,`), "a negative count")
	bad(with(`count":1,`, `count":9007199254740992,`), "a count that JSON readers round")
	bad(with(`count":1,`, `count":1e400,`), "a huge count")
	bad(with(`count":1,`, `count":1.5,`), "a fraction")
	bad(with(`count":1,`, `count":"many",`), "a word")
	bad(with(`count":1,`, `count":"NaN",`), "not a number")
	bad(with(`count":1,`, `count":true,`), "a truth")
	bad(with(`count":1,`, `count":{},`), "an object")
	bad(with(`"sts"`, strings.Repeat("[", 100)+strings.Repeat("]", 100)), "deep")
	bad(strings.Repeat("[", 10_000_000), "deep, and unfinished")
	bad(strings.Repeat(`{"a":`, 1_000_000), "deep objects")
	bad(minimal+strings.Repeat(" ", 20_000_000), "more than 20 MB")
	bad(with(`"mx.example.net"`, `""`+strings.Repeat(`,""`, 500_000)), "half a million values")
}

func TestDecodeRefusesByField(t *testing.T) {
	data := []byte(strings.Replace(minimal, `count":1,`, `count":-1,`, 1))
	const field = "policies[0].summary.total-successful-session-count"
	if _, err := schema.Decode(data); err == nil || !strings.Contains(err.Error(), field) {
		t.Errorf("%v does not name %s", err, field)
	}
	if faults := schema.ValidateJSON(data); len(faults) != 1 || faults[0].Field != field {
		t.Errorf("faults %v", faults)
	}
}

func TestDecodeGzip(t *testing.T) {
	pack := func(data []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(data)
		z.Close()
		return b.Bytes()
	}
	want, err := schema.Decode([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	packed := pack([]byte(minimal))
	if r, err := schema.Decode(packed); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v", r, err)
	}
	if faults := schema.ValidateJSON(packed); faults != nil {
		t.Errorf("faults %v", faults)
	}
	if r, err := schema.Decode(packed[:len(packed)-9]); r != nil || !errors.Is(err, schema.ErrReport) {
		t.Errorf("cut: %+v, %v", r, err)
	}
	// 20 GB, were all of it unpacked.
	bomb := bytes.Repeat(pack(make([]byte, 10_000_000)), 2000)
	if r, err := schema.Decode(bomb); r != nil || !errors.Is(err, schema.ErrReport) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("bomb: %+v, %v", r, err)
	}
}

func TestValidateJSONBound(t *testing.T) {
	data := strings.Replace(minimal, `"policies":[`, `"policies":[`+strings.Repeat("null,", 10_000), 1)
	if n := len(schema.ValidateJSON([]byte(data))); n != 200 {
		t.Errorf("%d faults", n)
	}
	many := example()
	many.Policies = make([]schema.PolicyResult, 10_000)
	if n := len(many.Validate()); n != 200 {
		t.Errorf("%d faults", n)
	}
}

// Reports of other senders, and what is wrong with each; "" for nothing.
var samples = map[string]string{
	"Neztore_tls-rpt-monitor__test_fixtures_microsoft-report.json":                 `"x.x.x.x" is not an IP address; its name is additional-information; "Testing" is not registered; "testing.josh.scot" is not a URI`,
	"cry-inc_dmarc-report-viewer__testdata_smtp-tls-reports_google.json":           "",
	"cry-inc_dmarc-report-viewer__testdata_smtp-tls-reports_microsoft.json":        microsoftTLSA,
	"cry-inc_dmarc-report-viewer__testdata_smtp-tls-reports_no-contact.json":       `null; "mx: mx.server.com" is not a host name in A-labels`,
	"cry-inc_dmarc-report-viewer__testdata_smtp-tls-reports_no-policy.json":        "",
	"cry-inc_dmarc-report-viewer__testdata_smtp-tls-reports_no_ip_and_mx.json":     "",
	"cry-inc_dmarc-report-viewer__testdata_smtp-tls-reports_rfc-example.json":      leadingZeros,
	"domainaware_parsedmarc__samples_smtp_tls_google.com_smtp_tls_report.eml.json": "",
	"domainaware_parsedmarc__samples_smtp_tls_mail.ru.json":                        "",
	"domainaware_parsedmarc__samples_smtp_tls_rfc8460.json":                        "not an array; " + leadingZeros,
	"domainaware_parsedmarc__samples_smtp_tls_smtp_tls.json":                       "",
	"isseis_tlsrpt-digest__testdata_tlsrpt_failure.eml.json":                       "",
	"isseis_tlsrpt-digest__testdata_tlsrpt_success_google_1.eml.json":              "",
	"isseis_tlsrpt-digest__testdata_tlsrpt_success_google_2.eml.json":              "",
	"isseis_tlsrpt-digest__testdata_tlsrpt_success_microsoft.eml.json":             "",
	"issue_cry-inc_dmarc-report-viewer_57_microsoft.json":                          "",
	"issue_cry-inc_dmarc-report-viewer_71_stalwart.json":                           "null",
	"kravietz_tlsrpt-rs__tlsrpt_fixtures_google1.eml.json":                         "",
	"kravietz_tlsrpt-rs__tlsrpt_fixtures_google2.eml.json":                         "",
	"kravietz_tlsrpt-rs__tlsrpt_fixtures_mail.ru.eml.json":                         "",
	"kravietz_tlsrpt-rs__tlsrpt_fixtures_mail.ru.json":                             "",
	"kravietz_tlsrpt-rs__tlsrpt_fixtures_microsoft1.eml.json":                      microsoftTLSA,
	"marcbradshaw_mail-tls-rpt__t_data_email.eml.json":                             "",
	"marcbradshaw_mail-tls-rpt__t_data_report.json":                                "",
	"mjl-_mox__testdata_tlsreports_example.eml.json":                               "",
	"mjl-_mox__testdata_tlsreports_microsoft.eml.json":                             `"2023-01-10T00:00:00" has no time zone; taken as UTC; "2023-01-10T23:59:59" has no time zone; taken as UTC`,
	"robalexdev_tlsrpt-be__app_cmd_mail_test.eml.json":                             "not an array; " + leadingZeros + "; " + spacesInURI,
	"robalexdev_tlsrpt-be__report-2.json":                                          "",
	"robalexdev_tlsrpt-be__report.json":                                            "",
	"stalwartlabs_mail-auth__resources_tlsrpt_rpt01.eml.json":                      leadingZeros + "; " + spacesInURI,
	"stalwartlabs_mail-auth__resources_tlsrpt_rpt01.json":                          leadingZeros + "; " + spacesInURI,
	"stalwartlabs_mail-auth__resources_tlsrpt_rpt02.eml.json":                      sevenDays,
	"stalwartlabs_mail-auth__resources_tlsrpt_rpt02.json":                          sevenDays,
	"stalwartlabs_mail-auth__resources_tlsrpt_rpt03.json":                          `missing; missing; missing; missing; "invalid-policy-type" is neither tlsa, sts nor no-policy-found`,
}

const (
	microsoftTLSA = "the JSON text of an array, not one line"
	leadingZeros  = "2001:db8:abcd:0012::1 is written as 2001:db8:abcd:12::1; 2001:db8:abcd:0013::1 is written as 2001:db8:abcd:13::1"
	spacesInURI   = `"https://reports.company-x.example/report_info ? id = 5065427 c - 23 d3# StarttlsNotSupported" is not a URI`
	sevenDays     = "2020-01-01T00:00:00Z to 2020-01-07T23:59:59Z is not one UTC day"
)

// sampleDir is not part of this repository: its files have other licences.
const sampleDir = "../../shared/data/sample-reports"

func TestDecodeSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(sampleDir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Skipf("no sample reports of other senders in %s", sampleDir)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		want, ok := samples[name]
		if !ok {
			t.Errorf("%s: what is wrong with it is not known", name)
			continue
		}
		r, err := schema.Decode(data)
		if err != nil || len(r.Policies) == 0 || r.Policies[0].Policy.Type == "" || r.DateRange.End.Sub(r.DateRange.Start.Time) < 23*time.Hour {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		var problems []string
		for _, f := range schema.ValidateJSON(data) {
			problems = append(problems, f.Problem)
		}
		if got := strings.Join(problems, "; "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// What Microsoft sends as one string is several TLSA records.
func TestDecodeMicrosoft(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(sampleDir, "kravietz_tlsrpt-rs__tlsrpt_fixtures_microsoft1.eml.json"))
	if err != nil {
		t.Skipf("no sample reports of other senders in %s", sampleDir)
	}
	r, err := schema.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	lines := r.Policies[1].Policy.Strings
	if len(lines) < 13 || lines[0] != "2 1 1 025490860B498AB73C6A12F27A49AD5FE230FAFE3AC8F6112C9B7D0AAD46941D" {
		t.Errorf("%q", lines)
	}
}

// breakage is the minimal report with one thing exchanged.
func breakage(old, new string) []byte { return []byte(strings.Replace(minimal, old, new, 1)) }
