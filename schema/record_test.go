package schema_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// goodRecords also seed FuzzParseRecord. The numbers are those of the rules of
// RFC 8460, section 3, in the order of its text.
var goodRecords = []struct {
	txt    string
	rua    []schema.RUA
	faults int
	why    string
}{
	// 6, 10: the version, in that case.
	{"v=TLSRPTv1;rua=mailto:reports@example.com", ruas("mailto:reports@example.com"), 0, "the example of Appendix A"},
	// 7: one or more fields, a delimiter may end the record.
	{"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt", ruas("https://reporting.example.com/v1/tlsrpt"), 0, "the other example of Appendix A"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;", ruas("mailto:a@example.com"), 0, "final delimiter"},
	{"v=TLSRPTv1; rua=mailto:a@example.com; \t", ruas("mailto:a@example.com"), 0, "final delimiter with white space"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;;; ;", ruas("mailto:a@example.com"), 0, "more final delimiters than the ABNF has"},
	{"v=TLSRPTv1;;rua=mailto:a@example.com", ruas("mailto:a@example.com"), 1, "an empty field within"},
	// 8, 19: white space around a delimiter.
	{"v=TLSRPTv1 \t; \trua=mailto:a@example.com", ruas("mailto:a@example.com"), 0, "white space that the ABNF allows and the text does not"},
	// 9: fields in any order, several rua fields are joined.
	{"v=TLSRPTv1;x=1;rua=mailto:a@example.com", ruas("mailto:a@example.com"), 0, "rua after an extension"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;rua=mailto:b@example.com", ruas("mailto:a@example.com", "mailto:b@example.com"), 0, "two rua fields"},
	// 11: a list, white space around commas only.
	{"v=TLSRPTv1;rua=mailto:a@example.com \t,\t https://example.com/r", ruas("mailto:a@example.com", "https://example.com/r"), 0, "white space around a comma"},
	{"v=TLSRPTv1;rua= mailto:a@example.com", ruas("mailto:a@example.com"), 0, "white space after the name, which harms nobody"},
	{"v=TLSRPTv1;rua=mailto:a@example.com,,", ruas("mailto:a@example.com"), 2, "empty elements"},
	// 12: delimiters within a URI are percent-encoded.
	{"v=TLSRPTv1;rua=https://example.com/a%2Cb%3Bc%21d", ruas("https://example.com/a%2Cb%3Bc%21d"), 0, "encoded delimiters stay encoded"},
	{"v=TLSRPTv1;rua=mailto:a%21b@example.com", ruas("mailto:a%21b@example.com"), 0, "encoded delimiter in a local part"},
	{"v=TLSRPTv1;rua=mailto:a@example.com!10m,mailto:b@example.com", ruas("mailto:b@example.com"), 1, "the size of a DMARC record"},
	// 13: two schemes.
	{"v=TLSRPTv1;rua=MAILTO:a@example.com,HTTPS://EXAMPLE.com/R", ruas("mailto:a@example.com", "https://example.com/R"), 0, "a scheme and a host have no case"},
	{"v=TLSRPTv1;rua=http://example.com/,mailto:a@example.com", ruas("mailto:a@example.com"), 1, "an unsupported scheme drops itself only"},
	// 14, 15: extensions are ignored.
	{"v=TLSRPTv1;rua=mailto:a@example.com;ext.1_-=foo<bar>", ruas("mailto:a@example.com"), 0, "an extension"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;ext=", ruas("mailto:a@example.com"), 1, "an extension without value"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;ext=a=b", ruas("mailto:a@example.com"), 1, "an extension with a second equals sign"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;_ext=a", ruas("mailto:a@example.com"), 1, "a name that begins with an underscore"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;" + strings.Repeat("n", 33) + "=a", ruas("mailto:a@example.com"), 1, "a name of 33 characters"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;junk", ruas("mailto:a@example.com"), 1, "no equals sign"},
	// What domains get wrong.
	{"v=TLSRPTv1;RUA=mailto:b@example.com;rua=mailto:a@example.com", ruas("mailto:a@example.com"), 1, "a name in upper case is another name"},
	{"v=TLSRPTv1;rua=postmaster@example.com,mailto:a@example.com", ruas("mailto:a@example.com"), 1, "no scheme"},
	{"v=TLSRPTv1;rua=mailto:a@example.com,mailto:a@EXAMPLE.COM.", ruas("mailto:a@example.com"), 1, "there twice"},
	{"v=TLSRPTv1;rua=mailto:a@example.com?subject=x", ruas("mailto:a@example.com"), 0, "header fields are dropped"},
}

var badRecords = []struct {
	txt string
	err error
	why string
}{
	{"", schema.ErrNoRecord, "nothing"},
	{"v=spf1 -all", schema.ErrNoRecord, "another record"},
	{"v=TLSRPTv1", schema.ErrNoRecord, "rules 7 and 16: no delimiter"},
	{"v=TLSRPTv10;rua=mailto:a@example.com", schema.ErrNoRecord, "rule 6: another version"},
	{"V=TLSRPTv1;rua=mailto:a@example.com", schema.ErrNoRecord, "rule 10: the name has a case"},
	{"v=tlsrptv1;rua=mailto:a@example.com", schema.ErrNoRecord, "rule 10: the version has a case"},
	{" v=TLSRPTv1;rua=mailto:a@example.com", schema.ErrNoRecord, "rule 10: white space before it"},
	{"v = TLSRPTv1;rua=mailto:a@example.com", schema.ErrNoRecord, "rule 10: white space around the equals sign"},
	{"rua=mailto:a@example.com;v=TLSRPTv1;", schema.ErrNoRecord, "rule 7: the version is not first"},
	{`v=TLSRPTv1\; rua=mailto:a@example.com`, schema.ErrNoRecord, "a zone file's escape"},
	{"v=TLSRPTv1;", schema.ErrRecord, "rule 9: no rua"},
	{"v=TLSRPTv1;rua=", schema.ErrRecord, "an empty rua"},
	{"v=TLSRPTv1;rua", schema.ErrRecord, "no equals sign"},
	{"v=TLSRPTv1;RUA=mailto:a@example.com", schema.ErrRecord, "rule 11: the name has a case"},
	{"v=TLSRPTv1;rua =mailto:a@example.com", schema.ErrRecord, "rule 11: white space before the equals sign"},
	{"v=TLSRPTv1;rua=ftp://example.com/", schema.ErrRecord, "rule 13: no supported scheme"},
	{"v=TLSRPTv1;rua=postmaster@example.com", schema.ErrRecord, "no scheme"},
	{"v=TLSRPTv1;rua=mailto:a@example.com!10m", schema.ErrRecord, "rule 12: a raw delimiter"},
	{"v=TLSRPTv1;ext=1", schema.ErrRecord, "an extension alone"},
	{"v=TLSRPTv1;rua=mailto:a@example.com;x=" + strings.Repeat("y", 8192), schema.ErrRecord, "too long"},
}

func ruas(uris ...schema.RUA) []schema.RUA { return uris }

func TestParseRecord(t *testing.T) {
	good := func(txt string, rua []schema.RUA, faults int, why string) {
		t.Helper()
		rec, err := schema.ParseRecord(txt)
		if err != nil || !slices.Equal(rec.RUA, rua) || len(rec.Faults) != faults {
			t.Errorf("%s: ParseRecord(%q) = %+v, %v; want %v and %d faults", why, txt, rec, err, rua, faults)
		}
	}
	bad := func(txt string, want error, why string) {
		t.Helper()
		if rec, err := schema.ParseRecord(txt); !errors.Is(err, want) || len(rec.RUA) > 0 {
			t.Errorf("%s: ParseRecord(%q) = %+v, %v; want %v", why, txt, rec, err, want)
		}
	}
	for _, c := range goodRecords {
		good(c.txt, c.rua, c.faults, c.why)
	}
	for _, c := range badRecords {
		bad(c.txt, c.err, c.why)
	}
}

func TestSelectRecord(t *testing.T) {
	const a, b = "v=TLSRPTv1;rua=mailto:a@example.com", "v=TLSRPTv1;rua=mailto:b@example.com"
	const loose = "v=TLSRPTv1 ;rua=mailto:c@example.com"
	good := func(want string, txts ...string) {
		t.Helper()
		if txt, err := schema.SelectRecord(txts); txt != want || err != nil {
			t.Errorf("SelectRecord(%q) = %q, %v; want %q", txts, txt, err, want)
		}
	}
	bad := func(want error, txts ...string) {
		t.Helper()
		if txt, err := schema.SelectRecord(txts); txt != "" || !errors.Is(err, want) {
			t.Errorf("SelectRecord(%q) = %q, %v; want %v", txts, txt, err, want)
		}
	}
	// Rule 16: what does not begin so is discarded, then one must be left.
	good(a, a)
	good(a, "v=spf1 -all", a, "")
	good(a, "V=TLSRPTv1;", a, "v=TLSRPTv2;rua=mailto:x@example.com")
	good("v=TLSRPTv1;", "v=TLSRPTv1;")
	bad(schema.ErrNoRecord)
	bad(schema.ErrNoRecord, "", "v=spf1 -all")
	bad(schema.ErrManyRecords, a, b)
	bad(schema.ErrManyRecords, a, a)
	bad(schema.ErrManyRecords, a, "v=TLSRPTv1;") // broken, but it counts
	// Rule 19: white space before the delimiter.
	good(loose, loose)
	good(a, loose, a)
	bad(schema.ErrManyRecords, loose, loose)
	bad(schema.ErrManyRecords, loose, a, b)
}

func TestParseRecordBounds(t *testing.T) {
	var uris []string
	for i := range 100 {
		uris = append(uris, fmt.Sprintf("mailto:a%d@example.com", i))
	}
	rec, err := schema.ParseRecord("v=TLSRPTv1;rua=" + strings.Join(uris, ","))
	if err != nil || len(rec.RUA) != schema.MaxRUA || rec.RUA[7] != "mailto:a7@example.com" {
		t.Errorf("of 100 rua %v are used, %v", rec.RUA, err)
	}
	if len(rec.Faults) == 0 || len(rec.Faults) > 16 {
		t.Errorf("%d faults", len(rec.Faults))
	}
	// Faults go to terminals and logs.
	rec, _ = schema.ParseRecord("v=TLSRPTv1;rua=mailto:a@example.com;\x1b[2J\r\nX\xff")
	if len(rec.Faults) != 1 || strings.ContainsAny(rec.Faults[0], "\x1b\r\n") || !utf8.ValidString(rec.Faults[0]) {
		t.Errorf("faults %q", rec.Faults)
	}
}

func TestWhyNoRecord(t *testing.T) {
	for txt, want := range map[string]string{
		"v=TLSRPTv1;rua=x":       "",
		"v=TLSRPTv1 ; rua=x":     "",
		"V=TLSRPTv1; rua=x":      "has a case",
		"v=tlsrptv1; rua=x":      "has a case",
		"v = TLSRPTv1; rua=x":    "without white space",
		" v=TLSRPTv1; rua=x":     "without white space",
		`"v=TLSRPTv1; rua=x"`:    "quotation marks",
		`v=TLSRPTv1\; rua=x`:     "a backslash",
		"v=TLSRPTv1":             "no rua",
		"v=TLSRPTv1 rua=x":       "no semicolon",
		"v=TLSRPTv2; rua=x":      "does not begin",
		"v=spf1 -all":            "does not begin",
		"":                       "does not begin",
		"\x00\xffv=TLSRPTv1;rua": "does not begin",
	} {
		if got := schema.WhyNoRecord(txt); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", txt, got, want)
		}
	}
}
