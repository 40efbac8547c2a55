package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
)

// of is a notification about one recipient, without a reason.
func of(to, id, final, original, action string, status Status) Notification {
	return Notification{To: to, EnvelopeID: id, Recipients: []Recipient{{Final: final, Original: original, Action: action, Status: status}}}
}

// sample is the text of a file, with CRLF.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
}

// servers is what mail servers send, file by file, and the beginning of the reason.
var servers = []struct {
	file   string
	want   Notification
	reason string
}{
	{"postfix-failed.eml", of("tls-reports+tok@example.com", "tok", "tls@example.org", "tls@example.org", "failed", Status{5, 1, 1}),
		"smtp; 550 5.1.1 <tls@example.org>: Recipient address rejected: no such user"},
	{"postfix-delayed.eml", of("tls-reports@example.com", "tok", "tls@example.org", "tls@example.org", "delayed", Status{4, 4, 1}), "X-Postfix; connect to"},
	{"postfix-expired.eml", of("tls-reports@example.com", "", "tls@example.org", "tls@example.org", "failed", Status{4, 4, 1}), "X-Postfix; connect to"},
	{"postfix-relayed.eml", of("tls-reports@example.com", "tok", "tls@example.org", "", "relayed", Status{2, 0, 0}), ""},
	{"postfix-no-status.eml", of("tls-reports@example.com", "", "tls@example.org", "", "failed", Status{5, 1, 1}), "smtp; 550 #5.1.1 unknown"},
	{"exchange.eml", of("tls-reports+tok@example.com", "", "tls@example.org", "", "failed", Status{5, 1, 10}), "smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound"},
	{"exim-dsn.eml", of("tls-reports+tok@example.com", "", "tls@example.org", "", "failed", Status{5, 0, 0}), ""},
	{"exim-old.eml", of("tls-reports+tok@example.com", "", "tls@example.org", "", "failed", Status{5, 1, 1}), "host mx.example.org [192.0.2.1]"},
	{"qmail.eml", of("tls-reports+tok@example.com", "", "tls@example.org", "", "failed", Status{5, 1, 1}), "Sorry, no mailbox here by that name."},
	{"eai.eml", of("tls-reports+tok@example.com", "tok", "tls@example.org", "", "failed", Status{5, 2, 1}), "smtp; 550 5.2.1 gesperrt für immer"},
	{"nested.eml", of("tls-reports+tok@example.com", "tok", "tls@example.org", "", "failed", Status{5, 1, 1}), ""},
}

func TestServers(t *testing.T) {
	for _, s := range servers {
		n, err := Parse(bytes.NewReader(sample(t, s.file)))
		if err != nil {
			t.Errorf("%s: %v", s.file, err)
			continue
		}
		if !strings.HasPrefix(n.Recipients[0].Reason, s.reason) {
			t.Errorf("%s: reason %q, want %q", s.file, n.Recipients[0].Reason, s.reason)
		}
		n.Recipients[0].Reason = ""
		if !reflect.DeepEqual(n, s.want) {
			t.Errorf("%s: %+v, want %+v", s.file, n, s.want)
		}
	}
}

// report is a DSN with the lines of its status part.
func report(lines ...string) string {
	return "From: MAILER-DAEMON@example.org\r\nTo: tls-reports@example.com\r\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n" +
		"--b\r\n\r\nIt failed.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
		strings.Join(lines, "\r\n") + "\r\n--b--\r\n"
}

// nothing is messages that tell of no delivery.
var nothing = map[string]string{
	"empty":             "",
	"no header":         "\r\n\r\nhello\r\n",
	"vacation":          "To: tls-reports+tok@example.com\r\nAuto-Submitted: auto-replied\r\nSubject: away\r\n\r\nI am away until 5.1.1.\r\n",
	"person":            "To: tls-reports@example.com\r\nContent-Type: text/html\r\n\r\n<p>tls@example.org failed: 550 5.1.1\r\n",
	"MDN":               "Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n--b\r\nContent-Type: message/disposition-notification\r\n\r\nFinal-Recipient: rfc822; a@example.org\r\nDisposition: manual-action/x; displayed\r\n--b--\r\n",
	"no recipient":      report("Reporting-MTA: dns; mx.example.org", "", "Action: failed", "Status: 5.1.1"),
	"no action":         report("", "Final-Recipient: rfc822; tls@example.org", "Status: 5.1.1"),
	"header without ::": "this is\r\nno header at all",
	"in a returned one": "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: message/rfc822\r\n\r\n" + report("", "Final-Recipient: rfc822; a@example.org", "Action: failed") + "\r\n--a--\r\n",
	"too deep":          deep(20, report("", "Final-Recipient: rfc822; a@example.org", "Action: failed")),
	"too many parts":    "Content-Type: multipart/mixed; boundary=a\r\n\r\n" + strings.Repeat("--a\r\n\r\n\r\n", 100) + "--a\r\nContent-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; a@example.org\r\nAction: failed\r\n\r\n--a--\r\n",
	"beyond the bound":  "X: y\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", MaxSize/72+1) + "--b\r\nContent-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; a@example.org\r\nAction: failed\r\n--b--\r\n",
	"qmail's word only": "\r\nHi. This is the best offer.\r\n\r\na@example.org:\r\n550 5.1.1\r\n",
	"huge header":       "X: " + strings.Repeat("y", maxHeader) + "\r\n" + report("", "Final-Recipient: rfc822; a@example.org", "Action: failed"),
}

// deep is a message within n multiparts.
func deep(n int, inner string) string {
	for i := range n {
		inner = fmt.Sprintf("Content-Type: multipart/mixed; boundary=d%d\r\n\r\n--d%d\r\n%s\r\n--d%d--\r\n", i, i, inner, i)
	}
	return inner
}

func TestNothing(t *testing.T) {
	for name, msg := range nothing {
		if n, err := Parse(strings.NewReader(msg)); !errors.Is(err, ErrNotDSN) {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
}

// TestReadingFails: a message that could not be read is not one that says nothing.
func TestReadingFails(t *testing.T) {
	whole := report("", "Final-Recipient: rfc822; a@example.org", "Action: failed", "Status: 5.1.1")
	for _, n := range []int{0, 40, len(whole) / 2, len(whole) - 12} {
		r := io.MultiReader(strings.NewReader(whole[:n]), iotest.ErrReader(io.ErrClosedPipe))
		if _, err := Parse(r); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestFields(t *testing.T) {
	first := func(t *testing.T, lines ...string) Recipient {
		t.Helper()
		n, err := Parse(strings.NewReader(report(lines...)))
		if err != nil {
			t.Fatalf("%q: %v", lines, err)
		}
		return n.Recipients[0]
	}
	const to = "Final-Recipient: rfc822;a@example.org"
	for _, c := range []struct {
		lines []string
		want  Status
		why   string
	}{
		{[]string{to, "Action: failed", "Status: 5.1.1"}, Status{5, 1, 1}, "without a block about the message"},
		{[]string{"", "", to, "ACTION:FAILED", "status:5.1.1"}, Status{5, 1, 1}, "names have no case"},
		{[]string{to, "Action: failed", "Status: 5.1.1 (bad destination mailbox)"}, Status{5, 1, 1}, "a comment"},
		{[]string{to, "Action: failed", "Status:", "  5.1.1"}, Status{5, 1, 1}, "folded"},
		{[]string{to, "Action: failed"}, Status{5, 0, 0}, "no status"},
		{[]string{to, "Action: failed", "Status: 550"}, Status{5, 0, 0}, "no status of RFC 3463"},
		{[]string{to, "Action: failed", "Status: 3.1.1"}, Status{5, 0, 0}, "no such class"},
		{[]string{to, "Action: failed", "Status: 5.0.0", "Diagnostic-Code: smtp; 550-5.1.1 gone"}, Status{5, 1, 1}, "the diagnostic says more"},
		{[]string{to, "Action: failed", "Status: 5.0.0", "Diagnostic-Code: smtp; 550 not via [198.51.5.1.1] or 5.1.1.7"}, Status{5, 0, 0}, "addresses are no status"},
		{[]string{to, "Action: failed", "Status: 4.0.0", "Diagnostic-Code: smtp; 550 5.1.1 gone"}, Status{4, 0, 0}, "of another class"},
		{[]string{to, "Action: failed", "Status: 5.7.1", "Diagnostic-Code: smtp; 550 5.1.1 gone"}, Status{5, 7, 1}, "the status wins"},
		{[]string{to, "Action: failed", "Status: 5.7.1", "Status: 5.1.1"}, Status{5, 7, 1}, "the first of two"},
		{[]string{to, "Action: delayed"}, Status{}, "no failure"},
		{[]string{to, "Action: failed", "Status: 5.1.1", "", to, "Action: failed", "Status: 5.2.2"}, Status{5, 1, 1}, "two recipients"},
	} {
		if r := first(t, c.lines...); r.Status != c.want {
			t.Errorf("%s: %+v, want %s", c.why, r, c.want)
		}
	}
	r := first(t, to, "Action: failed", "Diagnostic-Code: smtp; 550 \x1b[2J\x00evil\u2028\u202e", "\t"+strings.Repeat("x", 5000))
	if len(r.Reason) > maxReason || strings.ContainsAny(r.Reason, "\x1b\x00\u2028\u202e\n") {
		t.Errorf("reason %q", r.Reason)
	}
	many := strings.Split(strings.Repeat("\n"+to+"\nAction: failed\n", 500), "\n")
	if n, err := Parse(strings.NewReader(report(many...))); err != nil || len(n.Recipients) != maxRecipients {
		t.Errorf("%d recipients, %v", len(n.Recipients), err)
	}
}

func TestStatus(t *testing.T) {
	for s, want := range map[Status]bool{
		{5, 1, 1}: true, {5, 1, 2}: true, {5, 1, 3}: true, {5, 1, 6}: true, {5, 1, 10}: true,
		{5, 1, 0}: false, {5, 1, 7}: false, {5, 1, 8}: false, {5, 1, 9}: false, {4, 1, 1}: false, {5, 2, 1}: false, {5, 7, 1}: false, {}: false,
	} {
		if s.NoSuchRecipient() != want {
			t.Errorf("%s: no such recipient is %t", s, !want)
		}
		if s.MailboxDisabled() != (s == Status{5, 2, 1}) {
			t.Errorf("%s: disabled is %t", s, s.MailboxDisabled())
		}
	}
}

func TestIs(t *testing.T) {
	for _, c := range []struct {
		r    Recipient
		addr string
		want bool
	}{
		{Recipient{Final: "tls@example.org"}, "tls@example.org", true},
		{Recipient{Final: "TLS@Example.org"}, "tls@example.org", true},
		{Recipient{Final: "x@example.net", Original: "tls@example.org"}, "tls@example.org", true},
		{Recipient{Original: "tls+2Bx@example.org"}, "tls+x@example.org", true},
		{Recipient{Original: "tls+x@example.org"}, "tls+x@example.org", true},
		{Recipient{Original: "tls+2"}, "tls+2", true},
		{Recipient{Original: "tls+2Bx@example.org"}, "tls@example.org", false},
		{Recipient{Final: "x@example.net"}, "tls@example.org", false},
		{Recipient{Final: "tls@example.org.example.net"}, "tls@example.org", false},
	} {
		if c.r.Is(c.addr) != c.want {
			t.Errorf("%+v is %s: %t", c.r, c.addr, !c.want)
		}
	}
}

// render is a plain DSN that says the same as n.
func render(n Notification) string {
	var b strings.Builder
	fmt.Fprintf(&b, "To: <%s>\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"+
		"--b\r\nContent-Type: message/delivery-status\r\n\r\n", n.To)
	fmt.Fprintf(&b, "Original-Envelope-Id: %s\r\n\r\n", n.EnvelopeID)
	for _, r := range n.Recipients {
		fmt.Fprintf(&b, "Final-Recipient: rfc822; %s\r\nOriginal-Recipient: rfc822; %s\r\nAction: %s\r\nDiagnostic-Code: %s\r\n",
			r.Final, r.Original, r.Action, r.Reason)
		if r.Status != (Status{}) {
			fmt.Fprintf(&b, "Status: %s\r\n", r.Status)
		}
		b.WriteString("\r\n")
	}
	return b.String() + "--b--\r\n"
}

// FuzzParse: what is read is within its bounds, printable, and the same again
// when it is written as a plain DSN; or else it is no DSN.
func FuzzParse(f *testing.F) {
	for _, s := range servers {
		f.Add(sample(f, s.file))
	}
	for _, msg := range nothing {
		if len(msg) < 4096 {
			f.Add([]byte(msg))
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		n, err := Parse(bytes.NewReader(msg))
		if err != nil {
			if !errors.Is(err, ErrNotDSN) || !reflect.DeepEqual(n, Notification{}) {
				t.Fatalf("%+v, %v", n, err)
			}
			return
		}
		if len(n.Recipients) == 0 || len(n.Recipients) > maxRecipients {
			t.Fatalf("%d recipients", len(n.Recipients))
		}
		for _, r := range n.Recipients {
			for _, s := range []string{n.To, n.EnvelopeID, r.Final, r.Original, r.Action, r.Reason} {
				if len(s) > maxValue || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
					t.Fatalf("not clean: %q", s)
				}
			}
			if r.Action == "" || r.Final+r.Original == "" || len(r.Reason) > maxReason {
				t.Fatalf("%+v", r)
			}
			if r.Failed() && r.Status == (Status{}) {
				t.Fatalf("failed without a status: %+v", r)
			}
		}
		again, err := Parse(strings.NewReader(render(n)))
		if err != nil || !reflect.DeepEqual(again.Recipients, n.Recipients) || again.EnvelopeID != n.EnvelopeID {
			t.Fatalf("%+v became %+v, %v", n, again, err)
		}
	})
}
