package submitter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What goes with MAIL and RCPT, by what the server offers and the message needs.
func TestParameters(t *testing.T) {
	const to = "bob@example.com"
	plain, eight := "Subject: x\r\n\r\nx\r\n", "Subject: x\r\n\r\n\xc3\xbc\r\n"
	for _, c := range []struct {
		offers     string
		e          Envelope
		message    string
		mail, rcpt string // after the address
	}{
		{"", Envelope{ID: "d1"}, plain, "", ""},
		{"SIZE", Envelope{}, plain, " SIZE=17", ""},
		{"size 0", Envelope{}, plain, " SIZE=17", ""},
		{"SIZE 17", Envelope{}, plain, " SIZE=17", ""},
		{"SIZE much", Envelope{}, plain, " SIZE=17", ""},
		{"8BITMIME", Envelope{}, plain, " BODY=8BITMIME", ""}, // go-smtp knows no other way
		{"8BITMIME", Envelope{}, eight, " BODY=8BITMIME", ""},
		{"DSN", Envelope{}, plain, "", ""}, // only where asked for
		{"DSN", Envelope{ID: "d1.a+b=c d"}, plain, " RET=HDRS ENVID=d1.a+2Bb+3Dc+20d", " NOTIFY=FAILURE"},
		{"SMTPUTF8", Envelope{}, plain, "", ""},
		{"SMTPUTF8", Envelope{To: "j\u00fcrgen@example.com"}, plain, " SMTPUTF8", ""},
		{"DSN,SIZE 1000,8BITMIME,SMTPUTF8", Envelope{To: "j\u00fcrgen@example.com", ID: "x"}, eight, " BODY=8BITMIME SIZE=18 SMTPUTF8 RET=HDRS ENVID=x", " NOTIFY=FAILURE"},
	} {
		e := Envelope{From: from, To: to, ID: c.e.ID}
		if c.e.To != "" {
			e.To = c.e.To
		}
		offers := "250-hi\r\n250-" + strings.ReplaceAll(c.offers, ",", "\r\n250-") + "\r\n250 HELP"
		addr := scripted(t, line{answer: "220 hi"}, line{expect: "EHLO", answer: offers},
			line{expect: "MAIL FROM:<" + from + ">" + c.mail + "\r\n", answer: "250 ok"},
			line{expect: "RCPT TO:<" + e.To + ">" + c.rcpt + "\r\n", answer: "251 it will be forwarded"},
			line{expect: "DATA", answer: "354 go"}, line{expect: ".\r\n", answer: "250 taken"})
		r := relayAt(t, "smtp://"+addr, "", RelayOptions{Timeout: 2 * time.Second})
		if err := r.Mail(t.Context(), e, []byte(c.message)); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// What a server cannot take is found out before anything is sent: for good at an
// MX host, and as a fault of ours at a relay.
func TestUnfit(t *testing.T) {
	for _, c := range []struct{ offers, to, message, text string }{
		{"SIZE 9", mailbox, "0123456789\r\n", "5.3.4"},
		{"SIZE", mailbox, "\xfc\r\n", "5.6.3"},
		{"SIZE", "j\u00fcrgen@example.com", "x\r\n", "5.6.7"},
		{"SIZE", mailbox + ">\r\nRCPT TO:<x@example.com", "x\r\n", "line break"},
	} {
		script := []line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 " + c.offers, nil}}
		r := relayAt(t, "smtp://"+scripted(t, script...), "", RelayOptions{Timeout: time.Second})
		err := r.Mail(t.Context(), Envelope{From: from, To: c.to}, []byte(c.message))
		if e, ok := errors.AsType[*Error](err); !ok || !e.Ours || !e.Temporary || !strings.Contains(e.Error(), c.text) {
			t.Errorf("relay: %#v, want a fault of ours with %q", err, c.text)
		}
		w := newWorld(t)
		w.host("example.com", scripted(t, script...), "192.0.2.1")
		err = w.direct(t).Mail(t.Context(), Envelope{From: from, To: c.to}, []byte(c.message))
		if c.text == "line break" {
			continue // no such domain
		}
		if e, ok := errors.AsType[*Error](err); !ok || e.Ours || e.Temporary || !strings.Contains(e.Error(), c.text) {
			t.Errorf("mx: %#v, want to give up with %q", err, c.text)
		}
	}
}

// A refusal is kept as the server said it, but for codes that begin further lines.
func TestRefusal(t *testing.T) {
	for said, want := range map[string]struct {
		text   string
		nobody bool // no such recipient
	}{
		"550 5.1.1 no such user":              {"550 5.1.1 no such user", true},
		"550-5.1.1 no\r\n550 5.1.1 such user": {"550 5.1.1 no\nsuch user", true},
		"550 5.1.1":                           {"550 5.1.1", true},
		"550 5.1.10 x":                        {"550 5.1.10 x", true},
		"550 5.1.8 x":                         {"550 5.1.8 x", false},
		"550 5.1.1.8 x":                       {"550 5.1.1.8 x", false},
		"450 5.1.1 x":                         {"450 5.1.1 x", false},
		"550 1.2.3 x":                         {"550 1.2.3 x", false},
		"550 5.1 x":                           {"550 5.1 x", false},
		"550 5.x.1 x":                         {"550 5.x.1 x", false},
		"550 5.1.-1 x":                        {"550 5.1.-1 x", false},
		"550 no such user":                    {"550 no such user", false},
		"550 ":                                {"550 ", false},
	} {
		err := afterSaying(t, "220 hi\r\n250 hi\r\n250 ok\r\n"+said+"\r\n")
		r, ok := errors.AsType[*smtpRefusal](err)
		if !ok || r.command != "RCPT" || r.Error() != want.text || r.noSuchRecipient() != want.nobody {
			t.Errorf("%q: %#v, want %+v", said, err, want)
		}
	}
	if err := refused("RCPT", os.ErrClosed); err != os.ErrClosed {
		t.Errorf("%v", err)
	}
}

// An AUTH exchange that never ends, but for the bound on what a server may send.
func TestEndlessChallenges(t *testing.T) {
	again := func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			io.WriteString(c, "334 UGFzc3dvcmQ6\r\n") // Password:
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
		}
	}
	steps := []line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 AUTH LOGIN", nil}, {"AUTH", "", again}}
	conn := dialScripted(t, steps...)
	s, err := newSession(conn, conn, "client.example.net")
	if err != nil {
		t.Fatal(err)
	}
	err = s.authenticate("agent", password)
	if _, ok := errors.AsType[authError](err); !ok || conn.unread.Load() > 0 {
		t.Errorf("%v, with %d bytes to come", err, conn.unread.Load())
	}
}

// A server may think long about a message, and not about anything else.
func TestPatience(t *testing.T) {
	ponder := func(c net.Conn) { time.Sleep(9 * time.Minute); io.WriteString(c, "250 taken\r\n"); stall(c) }
	for name, c := range map[string]struct {
		script []line
		ok     bool
		took   time.Duration
	}{
		"verdict":   {accepting(line{expect: ".\r\n", then: ponder}), true, 9*time.Minute + quitTimeout},
		"recipient": {accepting(line{expect: "RCPT", then: stall}), false, defaultSMTPTimeout},
		"STARTTLS": { // and then MAIL, on another connection
			[]line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 STARTTLS", nil}, {"STARTTLS", "", stall}}, false, tlsTimeout + defaultSMTPTimeout,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			r := relayAt(t, "smtp://mail.example.org", "", RelayOptions{Dialer: piped(c.script)})
			err := r.Mail(t.Context(), Envelope{From: from, To: mailbox}, []byte("x\r\n"))
			if took := time.Since(began); (err == nil) != c.ok || took != c.took {
				t.Errorf("%s: %v after %s, want %s", name, err, took, c.took)
			}
		})
	}
}

// piped is a server that says what it is told to, without sockets, which would
// stop the clock of a bubble.
type piped []line

func (p piped) DialContext(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { defer theirs.Close(); play(theirs, p) }()
	return ours, nil
}

// dialScripted is a connection to a server that says what it is told to.
func dialScripted(t *testing.T, script ...line) *smtpConn {
	t.Helper()
	raw, err := elsewhere{scripted(t, script...)}.DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	conn := newSMTPConn(context.Background(), raw, time.Second)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// FuzzSession lets a stranger say whatever it likes.
func FuzzSession(f *testing.F) {
	f.Add("220 hi\r\n250-hi\r\n250-SIZE 5\r\n250 DSN\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n221 bye\r\n")
	f.Add("220 hi\r\n500 what\r\n250 ok\r\n550 5.1.1 no\r\n")
	f.Add("421 4.3.2 closing\r\n")
	f.Add("220-\r\n220 \r\n250-\r\n250-SIZE \r\n250 AUTH\r\n")
	f.Add("\x00\xff\r\n")
	f.Fuzz(func(t *testing.T, said string) {
		err := afterSaying(t, said)
		e := directError(t.Context(), []error{mxError{"mx", err}})
		if r, ok := errors.AsType[*smtpRefusal](err); ok && e.Temporary == (r.Code >= 500 && r.Code < 600) {
			t.Errorf("%v: temporary: %t", r, e.Temporary)
		}
		if text := fmt.Sprint(e); err != nil && (len(text) > maxErrorText || text != printable(text, maxErrorText)) {
			t.Errorf("%q", text)
		}
	})
}

// afterSaying is the outcome of a session with a server that says one thing,
// whatever it hears.
func afterSaying(t *testing.T, said string) error {
	conn := newSMTPConn(t.Context(), &deaf{said: strings.NewReader(said)}, time.Second)
	defer conn.Close()
	s, err := newSession(conn, conn, "client.example.net")
	if err != nil {
		return err
	}
	return s.send(Envelope{From: from, To: mailbox, ID: "x"}, []byte("x\r\n"))
}

// deaf is a connection whose other end says one thing, and listens to nothing.
type deaf struct {
	net.Conn
	said *strings.Reader
}

func (d *deaf) Read(p []byte) (int, error)     { return d.said.Read(p) }
func (*deaf) Write(p []byte) (int, error)      { return len(p), nil }
func (*deaf) Close() error                     { return nil }
func (*deaf) SetReadDeadline(time.Time) error  { return nil }
func (*deaf) SetWriteDeadline(time.Time) error { return nil }
