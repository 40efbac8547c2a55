package submitter

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// parse reads a message as a receiver does, and holds it against the limits of
// RFC 5322.
func parse(t *testing.T, msg []byte) *mail.Message {
	t.Helper()
	for i, line := range bytes.SplitAfter(msg, []byte("\n")) {
		switch {
		case len(line) > 998+2:
			t.Errorf("line %d has %d bytes", i+1, len(line))
		case len(line) > 0 && !bytes.HasSuffix(line, []byte("\r\n")), bytes.IndexByte(bytes.TrimSuffix(line, []byte("\r\n")), '\r') >= 0:
			t.Errorf("line %d does not end in CRLF: %q", i+1, line)
		}
	}
	if i := slices.IndexFunc(msg, func(c byte) bool { return c >= 0x7f }); i >= 0 {
		t.Errorf("byte %d is not ASCII", i)
	}
	m, err := mail.ReadMessage(bytes.NewReader(msg))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// parts are the decoded bodies of a multipart message with their headers.
func parts(t *testing.T, m *mail.Message) (headers []map[string][]string, bodies [][]byte) {
	t.Helper()
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return headers, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = part
		if part.Header.Get("Content-Transfer-Encoding") == "base64" {
			body = base64.NewDecoder(base64.StdEncoding, body)
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		headers, bodies = append(headers, part.Header), append(bodies, b)
	}
}

func TestMessageGolden(t *testing.T) {
	p := parcel(t)
	p.Gzip = []byte("what gzip makes may differ from one Go to the next")
	msg, err := p.Message("tls@example.com")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "message.eml", msg)
}

func TestMessage(t *testing.T) {
	p := parcel(t)
	msg, err := p.Message("tls@EXAMPLE.com")
	if err != nil {
		t.Fatal(err)
	}
	m := parse(t, msg)
	for name, want := range map[string]string{
		"From":                 from,
		"To":                   "tls@example.com",
		"Date":                 "Mon, 23 Nov 2026 01:02:03 +0000",
		"Message-Id":           "<" + p.MessageID + ">",
		"Subject":              "Report Domain: example.com Submitter: example.net Report-ID: <" + reportID + ">",
		"Tls-Report-Domain":    domain,
		"Tls-Report-Submitter": "example.net",
		"Tls-Required":         "No",
		"Auto-Submitted":       "auto-generated",
		"Mime-Version":         "1.0",
	} {
		if got := m.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	media, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || media != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Errorf("Content-Type: %s %v, %v", media, params, err)
	}
	checkParts(t, m, p)
}

func checkParts(t *testing.T, m *mail.Message, p Parcel) {
	t.Helper()
	headers, bodies := parts(t, m)
	if len(bodies) != 2 {
		t.Fatalf("%d parts, want 2", len(bodies))
	}
	if got := strings.ReplaceAll(string(bodies[0]), "\r\n", "\n"); got != p.Text {
		t.Errorf("the text is %q, want %q", got, p.Text)
	}
	if got := headers[0]["Content-Type"][0]; got != "text/plain; charset=us-ascii" {
		t.Errorf("the text is %s", got)
	}
	media, params, err := mime.ParseMediaType(headers[1]["Content-Type"][0])
	if err != nil || media != "application/tlsrpt+gzip" || params["name"] != p.FileName {
		t.Errorf("the report is %s %v, %v", media, params, err)
	}
	disposition, params, err := mime.ParseMediaType(headers[1]["Content-Disposition"][0])
	if err != nil || disposition != "attachment" || params["filename"] != p.FileName {
		t.Errorf("the report is an %s %v, %v", disposition, params, err)
	}
	z, err := gzip.NewReader(bytes.NewReader(bodies[1]))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if want, _ := report().Encode(); err != nil || !bytes.Equal(got, want) && p.ReportID == reportID {
		t.Errorf("the report is %s, %v", got, err)
	}
}

// The longest names that there are.
func TestMessageLimits(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label, strings.Repeat("b", 61)}, ".") // 253 bytes
	contact := "r@" + long[2:]                                                        // 253 bytes in all
	r := report()
	r.ContactInfo = contact
	r.ReportID = schema.ReportID(day, long, "0a1b2c3d4e5f6a7b", r.Submitter())
	r.OrganizationName = strings.Repeat("Example ", 30)
	to := strings.Repeat("l", 64) + "@" + long[len(long)-185:]
	p, err := Pack(r, long, contact, made, schema.ReportID(day, long, "bbbbbbbbbbbbbbbb", r.Submitter()))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := p.Message(to)
	if err != nil {
		t.Fatal(err)
	}
	m := parse(t, msg)
	if got := m.Header.Get("Subject"); got != "Report Domain: "+long+" Submitter: "+r.Submitter()+" Report-ID: <"+r.ReportID+">" {
		t.Errorf("Subject: %s", got)
	}
	checkParts(t, m, p)
}

// A line is longer than 78 bytes only if one word makes it so.
func TestFolding(t *testing.T) {
	msg, err := new(parcel(t)).Message("tls@example.com")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.SplitSeq(msg, []byte("\r\n")) {
		if len(line) > 78 && len(bytes.Fields(line)) > 1 {
			t.Errorf("%d bytes: %q", len(line), line)
		}
	}
}

func TestSender(t *testing.T) {
	good := func(from, addr, field string) {
		t.Helper()
		p, err := Pack(report(), domain, from, made, "")
		if err != nil {
			t.Errorf("%q: %v", from, err)
			return
		}
		msg, err := p.Message("tls@example.com")
		if err != nil {
			t.Errorf("%q: %v", from, err)
			return
		}
		if got := parse(t, msg).Header.Get("From"); got != field || p.Envelope() != addr {
			t.Errorf("%q: From %q, envelope %q; want %q, %q", from, got, p.Envelope(), field, addr)
		}
	}
	bad := func(from string) {
		t.Helper()
		if p, err := Pack(report(), domain, from, made, ""); !errors.Is(err, ErrParcel) {
			t.Errorf("%q: %q, %v", from, p.From, err)
		}
	}
	good("a@example.net", "a@example.net", "a@example.net")
	good("TLS Reports <a@example.net>", "a@example.net", `"TLS Reports" <a@example.net>`)
	good(`"Reports, TLS" <a@EXAMPLE.net>`, "a@example.net", `"Reports, TLS" <a@example.net>`)
	good("B\u00fcro <a@example.net>", "a@example.net", "=?utf-8?q?B=C3=BCro?= <a@example.net>")
	good(strings.Repeat("long ", 40)+"<a@example.net>", "a@example.net", `"`+strings.TrimSpace(strings.Repeat("long ", 40))+`" <a@example.net>`)
	bad("a@example.com")                            // not of the submitter
	bad("a@example.net, b@example.net")             // two
	bad("a@example.net\r\nBcc: b@example.com")      // a field of its own
	bad("\"x\r\n Bcc: y\" <a@example.net>")         // the same in a name
	bad("=?utf-8?q?=0D=0ABcc:_b?= <a@example.com>") // and hidden, of another
	bad("a@[192.0.2.1]")                            // no domain
	bad("")
}

// Nothing that a parcel holds ends its line or its part, whoever stored it.
func TestInjection(t *testing.T) {
	const evil = "x\r\nBcc: b@example.org"
	for name, change := range map[string]func(p *Parcel){
		"ReportID":         func(p *Parcel) { p.ReportID = evil },
		"ReportID, spaces": func(p *Parcel) { p.ReportID = "a b@example.net" },
		"ReportID, colon":  func(p *Parcel) { p.ReportID = "a:b@example.net" },
		"ReportID, long":   func(p *Parcel) { p.ReportID = strings.Repeat("a", 700) + "@example.net" },
		"Domain":           func(p *Parcel) { p.Domain = evil },
		"Domain, Unicode":  func(p *Parcel) { p.Domain = "b\u00fccher.example" },
		"Submitter":        func(p *Parcel) { p.Submitter = evil },
		"FileName":         func(p *Parcel) { p.FileName = `x"` + evil },
		"FileName, path":   func(p *Parcel) { p.FileName = "../x.json.gz" },
		"From":             func(p *Parcel) { p.From = from + "\r\nBcc: b@example.org" },
		"MessageID":        func(p *Parcel) { p.MessageID = evil },
		"Boundary":         func(p *Parcel) { p.Boundary = `x"; ` + evil },
		"Boundary, long":   func(p *Parcel) { p.Boundary = strings.Repeat("x", 71) },
		"Boundary in text": func(p *Parcel) { p.Text = "--" + p.Boundary + "\n" },
		"Text, CR":         func(p *Parcel) { p.Text = "a\rb\n" },
		"Text, 8 bit":      func(p *Parcel) { p.Text = "b\u00fccher\n" },
		"Text, long":       func(p *Parcel) { p.Text = strings.Repeat("x", 77) },
		"Gzip":             func(p *Parcel) { p.Gzip = nil },
	} {
		p := parcel(t)
		change(&p)
		if msg, err := p.Message("tls@example.com"); !errors.Is(err, ErrParcel) {
			t.Errorf("%s: %v\n%s", name, err, msg)
		}
	}
	p := parcel(t)
	for _, to := range []string{"", "x", "a@example.com\r\nBcc: b@example.org", "a@example.com, b@example.com", "<a@example.com>"} {
		if _, err := p.Message(to); !errors.Is(err, schema.ErrAddress) {
			t.Errorf("To %q: %v", to, err)
		}
	}
	for _, addsTo := range []string{"x", "a b@example.net", "a@example.net\n\nhello"} {
		if _, err := Pack(report(), domain, from, made, addsTo); !errors.Is(err, ErrParcel) {
			t.Errorf("adds to %q: %v", addsTo, err)
		}
	}
	if _, err := Pack(report(), evil, from, made, ""); !errors.Is(err, ErrParcel) {
		t.Errorf("domain: %v", err)
	}
}

func TestPackIsDeterministic(t *testing.T) {
	a, b := parcel(t), parcel(t)
	if fmt.Sprintf("%q", a) != fmt.Sprintf("%q", b) {
		t.Errorf("%q\n%q", a, b)
	}
	if mtime := a.Gzip[4:8]; !bytes.Equal(mtime, make([]byte, 4)) {
		t.Errorf("gzip has the time %x", mtime)
	}
	r := report()
	r.ReportID = "other@example.net"
	c, err := Pack(r, domain, from, made, "")
	if err != nil || a.MessageID == c.MessageID || a.Boundary == c.Boundary || a.FileName == c.FileName {
		t.Errorf("%v; another report has the names of the first: %q", err, c)
	}
}

// The text may say what it likes, a boundary stays one.
func TestBoundary(t *testing.T) {
	first := boundary(reportID, "")
	if second := boundary(reportID, "x"+first+"x"); second == first || len(second) > 70 {
		t.Errorf("%q", second)
	}
}

// rsaKey is made once: that takes a while.
var rsaKey = sync.OnceValues(func() (*Key, error) { return GenerateKey(RSA, "example.net", "tlsrpt") })

// newTestKey is a new Ed25519 key, or the RSA key.
func newTestKey(t testing.TB, algorithm Algorithm) *Key {
	t.Helper()
	k, err := rsaKey()
	if algorithm == Ed25519 {
		k, err = GenerateKey(Ed25519, "example.net", "tlsrpt")
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signed is a message with a signature per key.
func signed(t *testing.T, keys ...*Key) []byte {
	t.Helper()
	s := &Submitter{Keys: keys}
	msg, err := s.Message(parcel(t), "mailto:tls@example.com")
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// check is what go-msgauth thinks of the signatures of msg.
func check(t *testing.T, msg []byte, keys ...*Key) []error {
	t.Helper()
	lookup := func(name string) ([]string, error) {
		for _, k := range keys {
			if k.Name() == name {
				return []string{k.TXT()}, nil
			}
		}
		return nil, errors.New("no key at " + name)
	}
	found, err := dkim.VerifyWithOptions(bytes.NewReader(msg), &dkim.VerifyOptions{LookupTXT: lookup})
	if err != nil {
		t.Fatal(err)
	}
	var faults []error
	for _, v := range found {
		faults = append(faults, v.Err)
	}
	return faults
}

func verify(t *testing.T, msg []byte, keys ...*Key) {
	t.Helper()
	faults := check(t, msg, keys...)
	if len(faults) != len(keys) {
		t.Errorf("%d signatures, want %d", len(faults), len(keys))
	}
	if err := errors.Join(faults...); err != nil {
		t.Error(err)
	}
}

func keyPair(t *testing.T) (*Key, *Key) {
	t.Helper()
	ed, err := GenerateKey(Ed25519, "example.net", "tlsrpt-ed")
	if err != nil {
		t.Fatal(err)
	}
	return newTestKey(t, RSA), ed
}

func TestDKIM(t *testing.T) {
	rsa, ed := keyPair(t)
	msg := signed(t, rsa, ed)
	verify(t, msg, rsa, ed)
	signatures := parse(t, msg).Header["Dkim-Signature"]
	for i, want := range []string{"a=rsa-sha256", "a=ed25519-sha256"} {
		tags := strings.Split(strings.ReplaceAll(signatures[i], " ", ""), ";")
		if !slices.Contains(tags, want) || !slices.Contains(tags, "c=relaxed/relaxed") || !slices.Contains(tags, "d=example.net") {
			t.Errorf("signature %d: %s", i, signatures[i])
		}
		if slices.ContainsFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, "l=") }) {
			t.Errorf("signature %d has l=", i)
		}
	}
}

// What is changed or added on the way ends the signature, what relays do to
// every message does not.
func TestDKIMCovers(t *testing.T) {
	rsa, ed := keyPair(t)
	msg := string(signed(t, rsa, ed))
	fields, body, _ := strings.Cut(msg, "\r\n\r\n")
	broken := func(what, msg string) {
		t.Helper()
		for i, err := range check(t, []byte(msg), rsa, ed) {
			if err == nil {
				t.Errorf("%s: signature %d is still valid", what, i)
			}
		}
	}
	for _, name := range signedFields {
		if name != "Content-Type" { // a second one, and the parts are somebody else's
			broken("another "+name, name+": x\r\n"+msg)
		}
		broken("another "+name+" below", fields+"\r\n"+name+": x\r\n\r\n"+body)
		broken("no "+name, strings.Replace(msg, "\r\n"+name+":", "\r\nX-"+name+":", 1))
	}
	broken("more text", msg+"more\r\n")
	broken("less text", msg[:len(msg)-10])
	verify(t, []byte("Received: from localhost\r\n\tby mx.example.com\r\nX-Spam: no\r\n"+msg), rsa, ed)
	verify(t, []byte(strings.Replace(msg, "\r\nTLS-Required: No", "\r\ntls-required:  No ", 1)), rsa, ed)
}

// A verifier that shares no code with the signer.
func TestDKIMIndependently(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import dkim").Run(); err != nil {
		t.Skip("no second DKIM verifier: install the package python3-dkim")
	}
	rsa, ed := keyPair(t)
	keys := []*Key{rsa}
	if err := exec.Command(python, "-c", "import nacl").Run(); err == nil {
		keys = append(keys, ed) // python3-dkim checks Ed25519 with python3-nacl
	} else {
		t.Log("Ed25519 is not checked: install the package python3-nacl")
	}
	msg := signed(t, keys...)
	dir := t.TempDir()
	for i, k := range keys {
		if got := verifyWithPython(t, dir, msg, i, k); got != "True" {
			t.Errorf("%s: %s", k.Name(), got)
		}
		if got := verifyWithPython(t, dir, append(msg[:len(msg):len(msg)], "more\r\n"...), i, k); got != "False" {
			t.Errorf("%s, changed: %s", k.Name(), got)
		}
	}
}

func verifyWithPython(t *testing.T, dir string, msg []byte, i int, k *Key) string {
	t.Helper()
	file := filepath.Join(dir, "message.eml")
	if err := os.WriteFile(file, msg, 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `
import sys, dkim
name, txt = sys.argv[3].encode() + b".", sys.argv[4].encode()
def dns(asked, timeout=5):
    return txt if asked == name else None
message = open(sys.argv[1], "rb").read()
try:
    print(dkim.DKIM(message).verify(idx=int(sys.argv[2]), dnsfunc=dns))
except dkim.ValidationError:
    print(False)
`
	// RFC 6376, section 3.6.1, makes s= a list. This verifier takes it for one
	// word and then has no key, so here it gets the record without.
	txt := strings.Replace(k.TXT(), " s=email:tlsrpt;", "", 1)
	out, err := exec.Command("/usr/bin/python3", "-c", script, file, fmt.Sprint(i), k.Name(), txt).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestSignedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKey(t, Ed25519)
		first := signed(t, k)
		time.Sleep(time.Second)
		if second := signed(t, k); bytes.Equal(first, second) {
			t.Error("two attempts have one signature")
		}
	})
}

func BenchmarkSignedMessage(b *testing.B) {
	for _, algorithm := range []Algorithm{RSA, Ed25519} {
		b.Run(string(algorithm), func(b *testing.B) {
			s, p := &Submitter{Keys: []*Key{newTestKey(b, algorithm)}}, parcel(b)
			for b.Loop() {
				if _, err := s.Message(p, "mailto:tls@example.com"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	r := report()
	for b.Loop() {
		if _, err := Pack(r, domain, from, made, ""); err != nil {
			b.Fatal(err)
		}
	}
}
