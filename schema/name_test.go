package schema_test

import (
	"errors"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var goodFileNames = map[string]schema.FileNameParts{
	"example.com!example.net!1795305600!1795391999!0a1B.json.gz": {Submitter: "example.com", Domain: "example.net", Begin: 1795305600, End: 1795391999, Unique: "0a1B", Gzip: true},
	"example.com!example.net!1795305600!1795391999.json":         {Submitter: "example.com", Domain: "example.net", Begin: 1795305600, End: 1795391999},
	"Example.COM!xn--bcher-kva.example!0!1.json.gz":              {Submitter: "example.com", Domain: "xn--bcher-kva.example", End: 1, Gzip: true},
}

var badFileNames = map[string]string{
	"":                                      "empty",
	"report.json":                           "no parts",
	"a!b!1!2":                               "no extension",
	"a!b!1!2.json.gzip":                     "another extension",
	"a!b!1!2.zip":                           "another extension",
	"a!b!1.json":                            "one time",
	"a!b!1!2!x!y.json":                      "six parts",
	"!b!1!2.json":                           "no submitter",
	"a!!1!2.json":                           "no domain",
	"a!b\u00fccher.example!1!2.json":        "U-labels",
	"a!b!+1!2.json":                         "a sign",
	"a!b!1!-2.json":                         "a sign",
	"a!b!1!99999999999999999999.json":       "more seconds than there are",
	"a!b!1!2!.json":                         "an empty unique-id",
	"a!b!1!2!x_y.json":                      "a unique-id with more than letters and digits",
	"a!b!1!2!133708152202987951+x.json.gz":  "what Microsoft's report-id would be",
	"\x1b[2Ja!b!1!2.json":                   "an escape sequence",
	"a!b!2026-11-22!2026-11-22!001.json.gz": "days",
}

func TestParseFileName(t *testing.T) {
	for name, want := range goodFileNames {
		if got, err := schema.ParseFileName(name); got != want || err != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, why := range badFileNames {
		if got, err := schema.ParseFileName(name); got != (schema.FileNameParts{}) || !errors.Is(err, schema.ErrName) {
			t.Errorf("%q, %s: %+v, %v", name, why, got, err)
		}
	}
}

var goodSubjects = map[string]schema.SubjectParts{
	"Report Domain: example.net Submitter: example.com Report-ID: <2026.11.22T00.00.00Z+example.net@example.com>": {
		Domain: "example.net", Submitter: "example.com", ReportID: "2026.11.22T00.00.00Z+example.net@example.com"},
	"Report  Domain:\t Example.NET Submitter: example.com\r\n Report-ID: <a@b> ": {
		Domain: "example.net", Submitter: "example.com", ReportID: "a@b"},
}

var badSubjects = map[string]string{
	"":           "empty",
	"TLS report": "another Subject",
	"report Domain: example.net Submitter: example.com Report-ID: <a@b>":                      "a word in lower case",
	"Report Domain: example.net Submitter: example.com Report-ID: <a@b> x":                    "more words",
	"Report Domain:example.net Submitter: example.com Report-ID: <a@b>":                       "no space",
	"Report Domain: b\u00fccher.example Submitter: example.com Report-ID: <a@b>":              "U-labels",
	"Report Domain: example.net Submitter: Example-Inc. Report-ID: 1337+example.net":          "Microsoft's form",
	"Report Domain: example.net Submitter: -!- Report-ID: <a@b>":                              "no domain",
	"Report Domain: example.net Submitter: example.com Report-ID: <2026-11-22T00:00:00Z_x@b>": "colons, as tlsrpt-reporter writes",
	"Report Domain: example.net Submitter: example.com Report-ID: <a>":                        "no right side",
	"Report Domain: example.net Submitter: example.com Report-ID: a@b":                        "no brackets",
}

func TestParseSubject(t *testing.T) {
	for s, want := range goodSubjects {
		if got, err := schema.ParseSubject(s); got != want || err != nil {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for s, why := range badSubjects {
		if got, err := schema.ParseSubject(s); got != (schema.SubjectParts{}) || !errors.Is(err, schema.ErrName) {
			t.Errorf("%q, %s: %+v, %v", s, why, got, err)
		}
	}
}

// A name that this package makes reads back as what it was made of.
func TestParseOwnNames(t *testing.T) {
	r := example()
	p, err := schema.ParseFileName(schema.FileName(r, "example.net"))
	if err != nil || !p.Gzip || p.Submitter != "example.com" || p.Domain != "example.net" || len(p.Unique) != 16 ||
		p.Begin != r.DateRange.Start.Unix() || p.End != r.DateRange.End.Unix() {
		t.Errorf("%+v, %v", p, err)
	}
	s, err := schema.ParseSubject("Report Domain: example.net Submitter: example.com Report-ID: <" + r.ReportID + ">")
	if err != nil || s.ReportID != r.ReportID {
		t.Errorf("%+v, %v", s, err)
	}
}

// Every deviation names the rule it breaks, or is a bound of ours.
func TestFaultRules(t *testing.T) {
	for _, c := range badReports() {
		for _, f := range c {
			if (f.Rule == 0) != (f.Source == "a bound of tlsrpt-agent") {
				t.Errorf("%s names no rule", f)
			}
		}
	}
	f := schema.Fault{Problem: "p", Source: "RFC 8460, section 4", Rule: 34}
	if got := f.String(); got != "report: p (RFC 8460, section 4; rule 34)" {
		t.Errorf("%s", got)
	}
	if got := (schema.Fault{Field: "f", Problem: "p", Source: "s"}).String(); got != "f: p (s)" {
		t.Errorf("%s", got)
	}
}

func badReports() (found []schema.Faults) {
	for _, c := range breakages {
		found = append(found, schema.ValidateJSON(breakage(c.old, c.new)))
	}
	return append(found, schema.ValidateJSON(nil), (&schema.Report{}).Validate())
}
