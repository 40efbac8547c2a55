package conformance_test

import (
	"bytes"
	"mime"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Each test here holds the rule of its number. They run the agent as a whole, on
// a real store, against DNS, SMTP and HTTPS on loopback.

// delivered is where reports about example.org go if these are its TXT records,
// with "$URL" for the HTTPS server.
func delivered(t *testing.T, txts ...string) string {
	t.Helper()
	b := newBench(t)
	for i := range txts {
		txts[i] = strings.ReplaceAll(txts[i], "$URL", b.URL("/v1"))
	}
	b.Zone.SetTXT("_smtp._tls.example.org", txts...)
	b.submit(schema.Session{Domain: "example.org", Results: []schema.Result{{Policy: policies[schema.NoPolicyFound]}}})
	to := strings.Fields(strings.ReplaceAll(b.to(), b.URL("/v1"), "$URL"))
	slices.Sort(to) // the destinations of one report are tried at the same time
	return strings.Join(to, " ")
}

// expect compares where reports go.
func expect(t *testing.T, want string, txts ...string) {
	t.Helper()
	if got := delivered(t, txts...); got != want {
		t.Errorf("%q: reports go to %q, want %q", txts, got, want)
	}
}

func TestRule05(t *testing.T) {
	b := newBench(t)
	b.Publish("example.org", "v=TLSRPTv1; rua=mailto:a@example.org")
	b.submit(schema.Session{Domain: "sub.example.org", Results: []schema.Result{{Policy: policies[schema.NoPolicyFound]}}})
	if b.to() != "" || b.Zone.Queries("_smtp._tls.sub.example.org") == 0 || b.Zone.Queries("_smtp._tls.example.org") != 0 {
		t.Errorf("a report about a domain without a record went to %q, whom its parent names", b.to())
	}
}

func TestRule06(t *testing.T) {
	expect(t, "", "v=TLSRPTv2; rua=mailto:a@example.org")
	expect(t, "a@example.org", "v=TLSRPTv1; rua=mailto:a@example.org")
}

func TestRule09(t *testing.T) {
	expect(t, "a@example.org b@example.org", "v=TLSRPTv1; x=y; rua=mailto:a@example.org; rua=mailto:b@example.org")
}

func TestRule10(t *testing.T) {
	expect(t, "", "V=TLSRPTv1; rua=mailto:a@example.org")
	expect(t, "", "v = TLSRPTv1; rua=mailto:a@example.org")
}

func TestRule12(t *testing.T) {
	expect(t, "a!b@example.org", "v=TLSRPTv1; rua=mailto:a%21b@example.org")
	expect(t, "b@example.org", "v=TLSRPTv1; rua=mailto:a@example.org!10m,$URL!10m,mailto:b@example.org")
}

func TestRule13(t *testing.T) {
	expect(t, "a@example.org", "v=TLSRPTv1; rua=http://reports.example.org/, ftp://example.org, mailto:a@example.org")
}

func TestRule15(t *testing.T) {
	expect(t, "a@example.org", "v=TLSRPTv1; ruf=mailto:f@example.org; x-1.2_3=!; rua=mailto:a@example.org;")
}

func TestRule16(t *testing.T) {
	const record = "v=TLSRPTv1; rua=mailto:a@example.org"
	expect(t, "a@example.org", "v=spf1 -all", record, "v=TLSRPTv1")
	expect(t, "", record, "v=TLSRPTv1; rua=mailto:b@example.org")
	expect(t, "", record, record)
	expect(t, "", "v=spf1 -all")
}

func TestRule17(t *testing.T) {
	b := newBench(t)
	b.Zone.AddTXT("_smtp._tls.example.org", "v=TLSR", "PTv1; rua=mailto:a@exam", "ple.org")
	b.submit(schema.Session{Domain: "example.org", Results: []schema.Result{{Policy: policies[schema.NoPolicyFound]}}})
	if b.to() != "a@example.org" {
		t.Errorf("reports go to %q", b.to())
	}
}

func TestRule18(t *testing.T) {
	b := newBench(t)
	b.Zone.SetCNAME("_smtp._tls.example.org", "_smtp._tls.example.net")
	b.Publish("example.net", "v=TLSRPTv1; rua=mailto:a@example.net")
	b.submit(schema.Session{Domain: "example.org", Results: []schema.Result{{Policy: policies[schema.NoPolicyFound]}}})
	if b.to() != "a@example.net" {
		t.Errorf("reports go to %q", b.to())
	}
}

func TestRule20(t *testing.T) {
	expect(t, "$URL a@example.org", "v=TLSRPTv1; rua=$URL, mailto:a@example.org")
}

func TestRule22(t *testing.T) {
	b := newBench(t)
	b.HTTPS.Script("/v1", receiver.HTTPReply{Status: 403})
	b.Publish("example.org", "v=TLSRPTv1; rua="+b.URL("/v1")+",mailto:a@example.org")
	b.submit(schema.Session{Domain: "example.org", Results: []schema.Result{{Policy: policies[schema.NoPolicyFound]}}})
	if b.to() != "a@example.org" {
		t.Errorf("reports go to %q", b.to())
	}
}

func TestRule24(t *testing.T) {
	expect(t, "$URL", "v=TLSRPTv1; rua=$URL")
}

func TestRule26(t *testing.T) {
	expect(t, "a+b@example.org", "v=TLSRPTv1; rua=MAILTO:a%2Bb@Example.ORG?subject=x&cc=c@example.org")
}

// TestRule27To29: what the three rest on. Real Postfix does as the header says in
// package lab.
func TestRule27To29(t *testing.T) {
	m, _ := mailed(t).message()
	if got := m.Header["Tls-Required"]; len(got) != 1 || got[0] != "No" {
		t.Errorf("TLS-Required is %q: a relay would hold the report to DANE and MTA-STS", got)
	}
}

func TestRule30(t *testing.T) {
	for i, s := range mailed(t).report().Signatures {
		if s.Err != nil || s.Domain != "example.com" {
			t.Errorf("signature %d of %s: %v", i, s.Domain, s.Err)
		}
	}
}

func TestRule31(t *testing.T) {
	m, _ := mailed(t).message()
	signatures := m.Header["Dkim-Signature"]
	if len(signatures) != 2 {
		t.Errorf("%d signatures", len(signatures))
	}
	for _, s := range signatures {
		for tag := range strings.SplitSeq(s, ";") {
			if strings.HasPrefix(strings.TrimSpace(tag), "l=") {
				t.Errorf("%s", s)
			}
		}
	}
}

func TestRule32(t *testing.T) {
	signers, err := keys()
	check(t, err)
	for _, k := range signers {
		if !strings.Contains(k.TXT(), "; s=email:tlsrpt;") {
			t.Errorf("%s", k.TXT())
		}
	}
}

func TestRule36(t *testing.T) {
	if got := mailed(t).report(); !bytes.Contains(got.JSON, []byte(`"policies": [`)) {
		t.Errorf("%s", got.JSON)
	}
}

func TestRule38And39(t *testing.T) {
	ok := schema.Session{Domain: "example.org", Results: []schema.Result{{Policy: policies[schema.STS]}}}
	bad := failed("example.org", policies[schema.STS], details(schema.CertificateExpired, 1), details(schema.CertificateNotTrusted, 1))
	r := mailed(t, ok, ok, bad).report()
	if r.Sessions != (schema.Summary{Success: 2, Failure: 1}) {
		t.Errorf("%+v", r.Sessions)
	}
	if n := len(r.Content.Policies[0].FailureDetails); n != 2 {
		t.Errorf("%d details of a session with two faults", n) // rule 37
	}
}

func TestRule40And41(t *testing.T) {
	untrusted := schema.FailureDetails{ResultType: schema.CertificateNotTrusted, FailureReasonCode: "X509_V_ERR_CERT_REVOKED"}
	other := schema.FailureDetails{ResultType: "tls-alert-46"}
	r := mailed(t, failed("example.org", policies[schema.STS], untrusted, other)).report()
	got := map[schema.ResultType]string{}
	for _, d := range r.Content.Policies[0].FailureDetails {
		got[d.ResultType] = d.FailureReasonCode
	}
	if got[schema.CertificateNotTrusted] != "X509_V_ERR_CERT_REVOKED" || got[schema.ValidationFailure] != "tls-alert-46" {
		t.Errorf("%v", got)
	}
}

func TestRule44(t *testing.T) {
	b := newBench(t)
	b.Publish("xn--bcher-kva.example", "v=TLSRPTv1; rua=mailto:a@example.org")
	b.submit(failed("B\u00dcCHER.example", policies[schema.STS]))
	if r := b.report(); r.Domain != "xn--bcher-kva.example" || r.Content.Policies[0].Policy.Domain != "xn--bcher-kva.example" {
		t.Errorf("%q, %+v", r.Domain, r.Content.Policies[0].Policy)
	}
}

func TestRule45And46(t *testing.T) {
	p := policies[schema.STS]
	p.MXHosts = []string{"*.b\u00fccher.example", "mx.example.org"}
	r := mailed(t, failed("example.org", p)).report()
	if got := strings.Join(r.Content.Policies[0].Policy.MXHosts, " "); got != "*.xn--bcher-kva.example mx.example.org" {
		t.Errorf("mx-host is %s", got)
	}
}

func TestRule47(t *testing.T) {
	b := mailed(t)
	if got := b.report().Content.DateRange; got.Start.String() != b.day.String()+"T00:00:00Z" || got.End.String() != b.day.String()+"T23:59:59Z" {
		t.Errorf("%s to %s", got.Start, got.End)
	}
}

// fileName is the file name of the report in a message.
func fileName(t *testing.T, b *bench) string {
	t.Helper()
	_, body := b.message()
	_, part, _ := strings.Cut(body, "Content-Disposition: ")
	part, _, _ = strings.Cut(part, "\r\n\r\n")
	value, _, _ := strings.Cut(strings.ReplaceAll(part, "\r\n ", " "), "\r\n")
	_, params, err := mime.ParseMediaType(value)
	check(t, err)
	return params["filename"]
}

func TestRule50To54(t *testing.T) {
	b := mailed(t)
	name := fileName(t, b)
	p, err := schema.ParseFileName(name)
	r := b.day.Range()
	if err != nil || p.Submitter != "example.com" || p.Domain != "example.org" || p.Begin != r.Start.Unix() || p.End != r.End.Unix() || !p.Gzip {
		t.Errorf("%s: %+v, %v", name, p, err)
	}
	if other := fileName(t, mailed(t)); other == name {
		t.Errorf("two sources sent the same file name %s", name)
	}
}

func TestRule52(t *testing.T) {
	b := newBench(t)
	b.Publish("xn--bcher-kva.example", "v=TLSRPTv1; rua=mailto:a@example.org")
	b.submit(failed("b\u00fccher.example", policies[schema.STS]))
	if name := fileName(t, b); !strings.HasPrefix(name, "example.com!xn--bcher-kva.example!") {
		t.Errorf("%s", name)
	}
}

func TestRule55(t *testing.T) {
	b := newBench(t)
	b.Publish("example.org", "v=TLSRPTv1; rua="+b.URL("/v1"))
	b.submit(failed("example.org", policies[schema.STS]))
	if posts := b.HTTPS.Received(); len(posts) != 1 || !bytes.HasPrefix(posts[0].Body, []byte{0x1f, 0x8b}) {
		t.Errorf("%d posts, or one that is not gzip", len(posts))
	}
}

func TestRule57And58(t *testing.T) {
	m, body := mailed(t).message()
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Errorf("%s", m.Header.Get("Content-Type"))
	}
	if !strings.Contains(body, "\r\nContent-Type: text/plain;") || !strings.Contains(body, "\r\nContent-Type: application/tlsrpt+gzip;") {
		t.Errorf("%s", body)
	}
}

func TestRule59(t *testing.T) {
	m, _ := mailed(t).message()
	if got := m.Header["Tls-Report-Domain"]; len(got) != 1 || got[0] != "example.org" {
		t.Errorf("TLS-Report-Domain is %q", got)
	}
}

func TestRule60(t *testing.T) {
	b := mailed(t)
	m, _ := b.message()
	if got := m.Header["Tls-Report-Submitter"]; len(got) != 1 || got[0] != b.report().Content.Submitter() || got[0] != "example.com" {
		t.Errorf("TLS-Report-Submitter is %q", got)
	}
}

func TestRule61(t *testing.T) {
	for _, s := range mailed(t).report().Signatures {
		covered := ":" + strings.Join(s.Covered, ":") + ":"
		if !strings.Contains(covered, ":tls-report-domain:") || !strings.Contains(covered, ":tls-report-submitter:") {
			t.Errorf("%s covers %q", s.Selector, s.Covered)
		}
	}
}

func TestRule62(t *testing.T) {
	b := mailed(t)
	m, _ := b.message()
	got, err := schema.ParseSubject(textproto.TrimString(m.Header.Get("Subject")))
	if want := (schema.SubjectParts{Domain: "example.org", Submitter: "example.com", ReportID: b.report().ReportID}); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRule64(t *testing.T) {
	// There is nothing to disagree: the strict receiver compares Subject, file
	// name and header with the report.
	if r := mailed(t).report(); r.ReportID == "" || r.Domain != "example.org" {
		t.Errorf("%+v", r)
	}
}

func TestRule67(t *testing.T) {
	b := newBench(t)
	b.Publish("example.org", "v=TLSRPTv1; rua="+b.URL("/v1"))
	b.submit(failed("example.org", policies[schema.STS]))
	posts := b.HTTPS.Received()
	if len(posts) != 1 || posts[0].Method != "POST" || posts[0].Header.Get("Content-Type") != "application/tlsrpt+gzip" {
		t.Errorf("%+v", posts)
	}
}
