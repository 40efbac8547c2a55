package submitter

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// line is what a scripted server does: it waits for a command that begins with
// expect, and then answers.
type line struct {
	expect string
	answer string
	then   func(c net.Conn) // in place of an answer
}

// scripted is a server that says what it is told to, once per connection.
func scripted(t *testing.T, script ...line) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); play(c, script) })
		}
	})
	return l.Addr().String()
}

func play(c net.Conn, script []line) {
	r := bufio.NewReader(c)
	for _, step := range script {
		for step.expect != "" {
			got, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if strings.HasPrefix(got, step.expect) {
				break
			}
		}
		if step.then != nil {
			step.then(c)
			return
		}
		if _, err := io.WriteString(c, step.answer+"\r\n"); err != nil {
			return
		}
	}
	for {
		switch got, err := r.ReadString('\n'); {
		case err != nil:
			return // the client has gone
		case strings.HasPrefix(got, "QUIT"):
			io.WriteString(c, "221 bye\r\n")
			return
		}
	}
}

// stall reads and never answers.
func stall(c net.Conn) { io.Copy(io.Discard, c) }

// freeze does not even read.
func freeze(release <-chan struct{}) func(net.Conn) {
	return func(c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4096)
		<-release
	}
}

func reset(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }

// flood sends one endless line.
func flood(c net.Conn) {
	for piece, n := bytes.Repeat([]byte("x"), 64<<10), 0; n < 10<<20; {
		m, err := c.Write(piece)
		if err != nil {
			return
		}
		n += m
	}
}

// babble sends a reply that has no last line.
func babble(c net.Conn) {
	for {
		if _, err := io.WriteString(c, strings.Repeat("250-and so on\r\n", 1000)); err != nil {
			return
		}
	}
}

// drip sends one byte after the other, and never a line.
func drip(c net.Conn) {
	for {
		if _, err := io.WriteString(c, "2"); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tlsThen says go to STARTTLS, and does then once TLS is up.
func tlsThen(cert tls.Certificate, then func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, "220 go\r\n")
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		if secured.Handshake() == nil {
			then(secured)
		}
	}
}

// accepting is the dialogue up to a step.
func accepting(last line) []line {
	all := []line{
		{answer: "220 mx.example.com ESMTP"}, {"EHLO", "250-mx.example.com\r\n250 SIZE", nil},
		{"MAIL", "250 2.1.0 ok", nil}, {"RCPT", "250 2.1.5 ok", nil}, {"DATA", "354 go", nil}, {".\r\n", "250 2.0.0 taken", nil}, {"QUIT", "221 bye", nil},
	}
	for i, step := range all {
		if step.expect == last.expect {
			return append(all[:i:i], last)
		}
	}
	return nil
}

// Whatever a server does at whatever step, the attempt ends, soon, and for now:
// as a fault of ours at a relay, and not at an MX host.
func TestHostileServers(t *testing.T) {
	before, lasts := memory(), make(map[string]line)
	for name, then := range map[string]func(net.Conn){
		"stall": stall, "freeze": nil, "reset": reset, "flood": flood, "babble": babble, "drip": drip,
	} {
		for _, step := range []string{"", "EHLO", "MAIL", "RCPT", "DATA", ".\r\n"} {
			lasts[name+" at "+step] = line{expect: step, then: then}
		}
	}
	atOnce(t, lasts, func(t *testing.T, last line) {
		if last.then == nil {
			last.then = freeze(t.Context().Done()) // which is before the server is waited for
		}
		attempts(t, accepting(last))
	})
	if after := memory(); after > before+64<<20 {
		t.Errorf("%d MiB stay in use", (after-before)>>20)
	}
}

// atOnce tries all cases at the same time: they wait more than they compute, and
// t.Parallel runs no more of them than there are processors.
func atOnce[C any](t *testing.T, cases map[string]C, try func(*testing.T, C)) {
	var wg sync.WaitGroup
	for name, c := range cases {
		wg.Go(func() { t.Run(name, func(t *testing.T) { try(t, c) }) })
	}
	wg.Wait()
}

// attempts makes one at a server that plays script, as an MX host and as a
// relay. Both have to fail.
func attempts(t *testing.T, script []line) {
	addr, w := scripted(t, script...), newWorld(t)
	w.host(domain, addr, "192.0.2.1")
	d := w.direct(t)
	d.timeout = 100 * time.Millisecond
	for _, m := range []Mailer{d, relayAt(t, "smtp://"+addr, "", RelayOptions{Timeout: 100 * time.Millisecond})} {
		began := time.Now()
		s := &Submitter{Mail: m, ExternalDKIM: true, Timeout: time.Second}
		err := s.Submit(t.Context(), parcel(t), "mailto:"+mailbox, "")
		e, ok := errors.AsType[*Error](err)
		_, relayed := m.(*Relay)
		if !ok || !e.Temporary || e.Ours != relayed || len(e.Error()) > 2*maxReply {
			t.Errorf("%T: %#v", m, err)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%T took %s", m, d)
		}
	}
}

// A relay that stops reading in the middle of a message too large for buffers.
func TestFrozenRelay(t *testing.T) {
	addr := scripted(t, accepting(line{expect: "DATA", then: func(c net.Conn) {
		io.WriteString(c, "354 go\r\n")
		freeze(t.Context().Done())(c)
	}})...)
	r := relayAt(t, "smtp://"+addr, "", RelayOptions{Timeout: 100 * time.Millisecond})
	began := time.Now()
	err := r.Mail(t.Context(), Envelope{From: from, To: mailbox}, bytes.Repeat([]byte("0123456789\r\n"), 1<<21))
	if !IsTemporary(err) || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestRelayEndsWithContext(t *testing.T) {
	reached := make(chan struct{})
	addr := scripted(t, accepting(line{expect: "RCPT", then: func(c net.Conn) { close(reached); stall(c) }})...)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	r := relayAt(t, "smtp://"+addr, "", RelayOptions{})
	if err := r.Mail(ctx, Envelope{From: from, To: mailbox}, []byte("x\r\n")); !IsTemporary(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

// Once the message is taken, nothing that follows matters.
func TestRelayAfterTheMessage(t *testing.T) {
	for name, last := range map[string]line{
		"refusal":  {expect: "QUIT", answer: "500 what?"},
		"reset":    {expect: "QUIT", then: reset},
		"nonsense": {expect: "QUIT", answer: "???"},
	} {
		addr := scripted(t, accepting(last)...)
		if e := send(t, relayAt(t, "smtp://"+addr, "", RelayOptions{})); e != nil {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// TLS that fails does not keep a report from a relay where it is only asked for.
func TestBrokenSTARTTLS(t *testing.T) {
	plain := []line{{"MAIL", "250 ok", nil}, {"RCPT", "250 ok", nil}, {"DATA", "354 go", nil}, {".\r\n", "250 taken", nil}, {"QUIT", "221 bye", nil}}
	hello := []line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 STARTTLS", nil}}
	for name, starttls := range map[string]line{
		"refused":   {"STARTTLS", "454 4.7.0 not now", nil},
		"handshake": {"STARTTLS", "220 go\r\nthis is no TLS at all", nil},
		"reset":     {"STARTTLS", "", reset},
	} {
		// A server that breaks TLS where it is started, and else takes the message.
		addr := scripted(t, choose(hello, starttls, plain)...)
		r := relayAt(t, "smtp://mail.example.org:25", "", RelayOptions{Dialer: elsewhere{addr}})
		if e := send(t, r); e != nil {
			t.Errorf("%s: %v", name, e)
		}
		r = relayAt(t, "submission://mail.example.org:25", "", RelayOptions{Dialer: elsewhere{addr}})
		if e := send(t, r); e == nil || !e.Ours {
			t.Errorf("%s, required: %v, want a fault of ours", name, e)
		}
	}
}

// choose is a script of one step that plays on by what the client says after
// EHLO.
func choose(hello []line, starttls line, plain []line) []line {
	return append(hello[:1:1], line{expect: "EHLO", then: func(c net.Conn) {
		io.WriteString(c, hello[1].answer+"\r\n")
		r := bufio.NewReader(c)
		command, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.HasPrefix(command, "STARTTLS") {
			if starttls.then != nil {
				starttls.then(c)
				return
			}
			io.WriteString(c, starttls.answer+"\r\n")
			io.Copy(io.Discard, r)
			return
		}
		io.WriteString(c, plain[0].answer+"\r\n") // MAIL
		play(c, plain[1:])
	}})
}

// A relay without EHLO gets HELO.
func TestRelayHELO(t *testing.T) {
	script := append([]line{{answer: "220 hi"}, {"EHLO", "502 what?", nil}, {"HELO client.example.net", "250 hi", nil}}, accepting(line{expect: "QUIT", answer: "221 bye"})[2:]...)
	if e := send(t, relayAt(t, "smtp://"+scripted(t, script...), "", RelayOptions{})); e != nil {
		t.Error(e)
	}
}

// A relay that says everything back, the password included, over TLS of its own.
func TestPasswordIsNotRepeated(t *testing.T) {
	cert, pool := certificate()
	plain := base64.StdEncoding.EncodeToString([]byte("\x00agent\x00" + password))
	encoded := base64.StdEncoding.EncodeToString([]byte(password))
	for name, script := range map[string][]line{
		"refusal":          {{"AUTH", "500 5.5.1 unknown: AUTH PLAIN " + plain, nil}, {"*", "501 so be it", nil}},
		"malformed":        {{"AUTH", "AUTH PLAIN " + plain, nil}},
		"challenge":        {{"AUTH", "334 " + encoded, nil}, {"*", "501 " + encoded, nil}},
		"later":            {{"AUTH", "235 ok", nil}, {"MAIL", "550 5.7.1 " + password + " " + encoded + " " + plain, nil}},
		"later, malformed": {{"AUTH", "235 ok", nil}, {"MAIL", password + " " + encoded + " " + plain, nil}},
	} {
		addr := scripted(t, line{then: func(c net.Conn) {
			secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			play(secured, append([]line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 AUTH PLAIN LOGIN", nil}}, script...))
		}})
		e := send(t, relayAt(t, "smtps://agent@"+addr, password, RelayOptions{RootCAs: pool, Timeout: time.Second}))
		if e == nil || !e.Ours {
			t.Errorf("%s: %v, want a fault of ours", name, e)
			continue
		}
		text := fmt.Sprintf("%v %+v %#v", e, e, e)
		for _, secret := range []string{password, encoded, plain} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
}

func TestRelayLogin(t *testing.T) {
	cert, pool := certificate()
	user, pass := base64.StdEncoding.EncodeToString([]byte("agent")), base64.StdEncoding.EncodeToString([]byte(password))
	script := append([]line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 AUTH LOGIN CRAM-MD5", nil},
		{"AUTH LOGIN " + user, "334 UGFzc3dvcmQ6", nil}, {pass, "235 ok", nil}},
		accepting(line{expect: "QUIT", answer: "221 bye"})[2:]...)
	addr := scripted(t, line{then: func(c net.Conn) { play(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}), script) }})
	if e := send(t, relayAt(t, "smtps://agent@"+addr, password, RelayOptions{RootCAs: pool})); e != nil {
		t.Error(e)
	}
	addr = scripted(t, line{then: func(c net.Conn) {
		play(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}), []line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 AUTH CRAM-MD5", nil}})
	}})
	if e := send(t, relayAt(t, "smtps://agent@"+addr, password, RelayOptions{RootCAs: pool})); e == nil || !strings.Contains(e.Error(), "CRAM-MD5") {
		t.Errorf("%v, want to hear what it offers", e)
	}
}
