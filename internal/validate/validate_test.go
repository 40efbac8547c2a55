package validate_test

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/validate"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

var day = schema.DayOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))

// key is Ed25519: to make an RSA key takes too long under the fuzzer.
var key = sync.OnceValue(func() *submitter.Key {
	k, err := submitter.GenerateKey(submitter.Ed25519, "example.com", "tlsrpt")
	if err != nil {
		panic(err)
	}
	return k
})

// parcel is a report of this program, which has no fault.
func parcel(t testing.TB) submitter.Parcel {
	t.Helper()
	r := &schema.Report{
		OrganizationName: "Example Inc.",
		DateRange:        day.Range(),
		ContactInfo:      "tls-reports@example.com",
		ReportID:         schema.ReportID(day, "example.net", "0a1b2c3d", "example.com"),
		Policies: []schema.PolicyResult{{
			Policy:         schema.Policy{Type: schema.NoPolicyFound, Domain: "example.net"},
			Summary:        schema.Summary{Success: 5, Failure: 1},
			FailureDetails: []schema.FailureDetails{{ResultType: schema.CertificateExpired, FailedSessionCount: 1}},
		}},
	}
	p, err := submitter.Pack(r, "example.net", "tls-reports@example.com", day.End(), "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// message is the report by mail, signed.
func message(t testing.TB) string {
	t.Helper()
	s := &submitter.Submitter{Keys: []*submitter.Key{key()}}
	msg, err := s.Message(parcel(t), "mailto:a@example.net")
	if err != nil {
		t.Fatal(err)
	}
	return string(msg)
}

func unpack(t testing.TB, packed []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := io.Copy(&b, z); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// published finds the key, with its record changed.
func published(old, new string) func(string) ([]string, error) {
	return func(name string) ([]string, error) {
		if name != key().Name() {
			return nil, errors.New("no such record")
		}
		return []string{strings.Replace(key().TXT(), old, new, 1)}, nil
	}
}

// found is the field and rule of each fault.
func found(r validate.Result) string {
	var s []string
	for _, f := range r.Faults {
		s = append(s, fmt.Sprintf("%s %d", f.Field, f.Rule))
	}
	return strings.Join(s, ", ")
}

func TestFileKinds(t *testing.T) {
	p := parcel(t)
	plain, mail := unpack(t, p.Gzip), message(t)
	for _, c := range []struct {
		name, data string
		kind       validate.Kind
	}{
		{"report.json", plain, validate.JSON},
		{"", "\xef\xbb\xbf" + strings.ReplaceAll(plain, "\n", ""), validate.JSON},
		{"/dir/" + p.FileName, string(p.Gzip), validate.Gzip},
		{"-", mail, validate.Message},
		{"a!b.eml", strings.ReplaceAll(mail, "\r\n", "\n"), validate.Message},
		{"mbox", "From a@example.com Sun Nov 22 00:00:00 2026\r\n" + mail, validate.Message},
	} {
		r := validate.File(c.name, []byte(c.data), validate.Options{LookupTXT: published("", "")})
		want := ""
		if strings.HasPrefix(c.data, "\xef") {
			want = " 34" // the byte order mark
		}
		if r.Kind != c.kind || r.Report == nil || r.Report.ReportID != p.ReportID || found(r) != want {
			t.Errorf("%s as %s: %s, %v", c.name, c.kind, r.Kind, r.Faults)
		}
	}
}

func TestFileOfNothing(t *testing.T) {
	for _, data := range []string{"", " \r\n", "PK\x03\x04", "\x1f\x8bx", "hello\n", "[]", "{", ":", "\x00"} {
		if r := validate.File("", []byte(data), validate.Options{}); r.Report != nil || len(r.Faults) == 0 || r.Kind == validate.Message {
			t.Errorf("%q: %+v", data, r)
		}
	}
}

func TestFileName(t *testing.T) {
	p := parcel(t)
	for name, want := range map[string]string{
		p.FileName: "",
		"report!":  "file name 50",
		strings.Replace(p.FileName, "example.com!", "example.org!", 1): "file name 64",
		strings.Replace(p.FileName, "!example.net", "!example.org", 1): "file name 64",
		strings.Replace(p.FileName, "!17", "!16", 1):                   "file name 64",
		"bücher.example!" + p.FileName[len("example.com!"):]:           "file name 52",
	} {
		if r := validate.File(name, p.Gzip, validate.Options{}); found(r) != want {
			t.Errorf("%s: %v, want %s", name, r.Faults, want)
		}
	}
}

// spoilt is what can be wrong with a message, and the fields and rules that say so.
var spoilt = []struct{ old, new, want string }{
	{"TLS-Report-Domain: example.net\r\n", "", "TLS-Report-Domain 59"},
	{"TLS-Report-Domain: example.net\r\n", "TLS-Report-Domain: example.net\r\nTLS-Report-Domain: example.org\r\n", "TLS-Report-Domain 59"},
	{"TLS-Report-Domain: example.net\r\n", "TLS-Report-Domain: ex ample\r\n", "TLS-Report-Domain 59"},
	{"TLS-Report-Domain: example.net\r\n", "TLS-Report-Domain: b\u00fccher.example\r\n", "TLS-Report-Domain 59, TLS-Report-Domain 64, Subject 64, file name 64"},
	{"TLS-Report-Domain: example.net\r\n", "TLS-Report-Domain: example.org\r\n", "TLS-Report-Domain 64, Subject 64, file name 64"},
	{"TLS-Report-Submitter: example.com\r\n", "", "TLS-Report-Submitter 59"},
	{"TLS-Report-Submitter: example.com\r\n", "TLS-Report-Submitter: example.org\r\n", "TLS-Report-Submitter 60"},
	{"Subject: ", "X-Subject: ", "Subject 62"},
	{"Report-ID: <", "Report-ID: ", "Subject 62"},
	{"Submitter: example.com Report", "Submitter: example.org Report", "Subject 64"},
	{"multipart/report;", "multipart/mixed;", "Content-Type 57"},
	{"report-type=\"tlsrpt\"", "report-type=\"feedback-report\"", "Content-Type 73"},
	{"text/plain", "text/html", ""},
	{"application/tlsrpt+gzip", "application/gzip", "part 2 58"},
	{"application/tlsrpt+gzip", "application/tlsrpt+json", "part 2 58"},
	{"filename=", "x=", ""}, // name= of Content-Type says it, too
	{".json.gz", ".json", ""},
	{"DKIM-Signature: ", "X-DKIM: ", "DKIM-Signature 30"},
	{"v=1; ", "v=1; l=10; ", "DKIM-Signature 31"},
	{"d=example.com", "d=example.org", "DKIM-Signature 30"},
	{"d=example.com", "d=reports.example.com", ""},
}

func TestMessage(t *testing.T) {
	good := message(t)
	if r := validate.File("", []byte(good), validate.Options{}); r.Faults != nil {
		t.Fatalf("%v", r.Faults)
	}
	for _, c := range spoilt {
		msg := strings.Replace(unfold(good), c.old, c.new, 1)
		if !strings.Contains(unfold(good), c.old) {
			t.Fatalf("no %q in\n%s", c.old, unfold(good))
		}
		if r := validate.File("", []byte(msg), validate.Options{}); found(r) != c.want || r.Report == nil {
			t.Errorf("%q for %q: %v, want %s", c.new, c.old, r.Faults, c.want)
		}
	}
}

// unfold is a message whose header is not folded.
func unfold(msg string) string {
	header, body, _ := strings.Cut(msg, "\r\n\r\n")
	return strings.ReplaceAll(header, "\r\n ", " ") + "\r\n\r\n" + body
}

// built is a message made by hand around parts, without a signature.
func built(contentType string, parts ...string) string {
	msg := "Subject: Report Domain: example.net Submitter: example.com Report-ID: <a@example.com>\r\n" +
		"TLS-Report-Domain: example.net\r\nTLS-Report-Submitter: example.com\r\n" + contentType + "\r\n"
	if len(parts) == 1 {
		return msg + parts[0]
	}
	for _, p := range parts {
		msg += "--b\r\n" + p + "\r\n"
	}
	return msg + "--b--\r\n"
}

func TestMessageParts(t *testing.T) {
	const (
		multi  = "Content-Type: multipart/report; report-type=tlsrpt; boundary=b\r\n"
		people = "Content-Type: text/plain\r\n\r\nhello"
		name   = "Content-Disposition: attachment; filename=\"example.com!example.net!1795305600!1795391999.json\"\r\n"
		plain  = "Content-Type: application/tlsrpt+json\r\n"
	)
	json := unpack(t, parcel(t).Gzip)
	many := make([]string, 30)
	for i := range many {
		many[i] = people
	}
	deep := people
	for i := range 50 {
		deep = fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%[1]d\r\n\r\n--b%[1]d\r\n%[2]s\r\n--b%[1]d--", i, deep)
	}
	for _, c := range []struct {
		msg, want string
		report    bool
	}{
		{built(multi, people, plain+name+"\r\n"+json), "part 2 55", true},
		{built(multi, plain+name+"\r\n"+json, people), "part 1 57, part 1 55", true},
		{built(multi, people, plain+name+"\r\n"+json, people), "message 57, part 2 55", true},
		{built(multi, "Content-Type: text/plain\r\n\r\n ", plain+name+"\r\n"+json), "part 1 57, part 2 55", true},
		{built(multi, people, plain+"\r\n"+json), "part 2 55, file name 50", true},
		{built(multi, people, plain+strings.Replace(name, ".json", ".json.gz", 1)+"\r\n"+json), "part 2 55, file name 53", true},
		{built(multi, people, name+"\r\n"+json), "part 2 57, part 2 55", true},
		{built(multi, people, people), "message 57", false},
		{built(multi, many...), "message 57, message 57", false},
		{built(multi, people, deep), "message 57, message 57", false},
		{built(plain, json), "Content-Type 57, part 1 55, file name 50", true},
		{built("", json), "Content-Type 57, part 1 57, part 1 55, file name 50", true},
		{built("Content-Type: multipart/report; report-type=tlsrpt\r\n", people, plain+"\r\n"+json), "message 57, message 57, message 57", false},
		{strings.TrimSuffix(built(multi, people, plain+name+"\r\n"+json), "--b--\r\n"), "message 57, part 2 55", true},
		{built(multi, people, "Content-Type: application/tlsrpt+gzip\r\nContent-Disposition: attachment\r\n\r\n\x1f\x8bx"), "file name 50,  34", false},
	} {
		r := validate.File("", []byte(c.msg), validate.Options{})
		if got := strings.TrimSuffix(found(r), ", DKIM-Signature 30"); got != c.want || (r.Report != nil) != c.report {
			t.Errorf("%.300q: %v, want %s", c.msg, r.Faults, c.want)
		}
	}
	if r := validate.File("", []byte("Subject: "+strings.Repeat("x", 2<<20)+"\r\n\r\n"), validate.Options{}); found(r) != "message 57" {
		t.Errorf("a header of 2 MB: %v", r.Faults)
	}
}

func TestSignatures(t *testing.T) {
	good := message(t)
	gone := func(string) ([]string, error) { return nil, errors.New("no such record") }
	for _, c := range []struct {
		why    string
		msg    string
		lookup func(string) ([]string, error)
		want   string
	}{
		{"good", good, published("", ""), ""},
		{"line ends lost", strings.ReplaceAll(good, "\r\n", "\n"), published("", ""), ""},
		{"body changed", strings.Replace(good, "sessions", "Sessions", 1), published("", ""), "DKIM-Signature 30"},
		{"no key", good, gone, "DKIM-Signature 30"},
		{"key of another service", good, published("s=email:tlsrpt", "s=email"), "DKIM-Signature 32"},
		{"key for all", good, published("s=email:tlsrpt; ", ""), ""},
		{"a list in front", "DKIM-Signature: v=1; a=rsa-sha256; d=lists.example.org; s=x; h=from; bh=AA==; b=AA==\r\n" + good, published("", ""), ""},
		{"a bad one in front", "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=x; h=from; bh=AA==; b=AA==\r\n" + good, published("", ""), ""},
		{"a bad one that covers more", "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=x; bh=AA==; b=AA==;\r\n h=from:tls-report-domain:tls-report-submitter\r\n" + signedWithout(t), published("", ""), "DKIM-Signature 61"},
		{"a hundred of them", strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=x; h=from; bh=AA==; b=AA==\r\n", 100) + good, published("", ""), "DKIM-Signature 30"},
		{"none that can be read", "DKIM-Signature: =;=\r\n" + strings.Replace(good, "DKIM-Signature", "X", 1), published("", ""), "DKIM-Signature 30"},
	} {
		if r := validate.File("", []byte(c.msg), validate.Options{LookupTXT: c.lookup}); found(r) != c.want {
			t.Errorf("%s: %v, want %s", c.why, r.Faults, c.want)
		}
	}
}

// signedWithout is the message with a good signature that does not cover the two
// fields of RFC 8460.
func signedWithout(t *testing.T) string {
	t.Helper()
	_, msg, _ := strings.Cut(unfold(message(t)), "\r\n")
	text, err := key().PEM()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err = dkim.Sign(&b, strings.NewReader(msg), &dkim.SignOptions{
		Domain: "example.com", Selector: "tlsrpt", Signer: private.(crypto.Signer), HeaderKeys: []string{"From"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A signature that leaves the two fields of RFC 8460 open is a fault of its own.
func TestFieldsNotSigned(t *testing.T) {
	for _, name := range []string{"TLS-Report-Domain", "TLS-Report-Submitter"} {
		signature, rest, _ := strings.Cut(unfold(message(t)), "\r\n")
		if !strings.HasPrefix(signature, "DKIM-Signature:") || !strings.Contains(signature, name) {
			t.Fatalf("%s", signature)
		}
		msg := strings.ReplaceAll(signature, name, "X") + "\r\n" + rest
		if r := validate.File("", []byte(msg), validate.Options{}); found(r) != "DKIM-Signature 61" {
			t.Errorf("%v", r.Faults)
		}
	}
}

// Whatever comes in, faults can be shown and are not many.
func FuzzFile(f *testing.F) {
	good := message(f)
	f.Add([]byte(good))
	f.Add(parcel(f).Gzip)
	f.Add([]byte(unpack(f, parcel(f).Gzip)))
	for _, c := range spoilt {
		f.Add([]byte(strings.Replace(unfold(good), c.old, c.new, 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := validate.File("a!b", data, validate.Options{LookupTXT: published("", "")})
		if len(r.Faults) > 400 || r.Report == nil && len(r.Faults) == 0 {
			t.Fatalf("%d faults", len(r.Faults))
		}
		for _, fault := range r.Faults {
			if len(fault.Problem) > 8<<10 || strings.ContainsFunc(fault.Problem, unicode.IsControl) && fault.Rule >= 30 && fault.Rule < 34 {
				t.Errorf("%q", fault.Problem)
			}
		}
	})
}
