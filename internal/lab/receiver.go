//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Behaviour is what is wrong with a receiver.
type Behaviour int

const (
	Good       Behaviour = iota // STARTTLS with a certificate of the world's authority
	Expired    Behaviour = iota // the certificate expired three days ago
	SelfSigned Behaviour = iota // the certificate is signed with its own key
	WrongName  Behaviour = iota // the certificate names another host
	NoSTARTTLS Behaviour = iota // STARTTLS is not offered
	Drop       Behaviour = iota // the connection ends where the TLS handshake should begin
	Refuse     Behaviour = iota // STARTTLS is offered, and answered with 454
	NoUsers    Behaviour = iota // no recipient exists
	Greylist   Behaviour = iota // every other attempt is turned away for now
)

// Receiver is one MX host. It takes every message and remembers the truth.
// Safe for concurrent use.
type Receiver struct {
	Host string
	Addr netip.Addr

	t         testing.TB
	behaviour Behaviour
	cert      tls.Certificate

	mu       sync.Mutex
	attempts int // RCPT commands
	sessions []*Session
	conns    []net.Conn // all there ever were
}

// Session is one TCP connection as the receiver saw it.
type Session struct {
	Remote   netip.AddrPort
	TLS      bool     // the handshake was completed
	Events   []string // ehlo, starttls, handshake or no handshake, mail, data, ...
	Messages []Message
}

// Message is one message that a receiver took.
type Message struct {
	From string // envelope sender, without brackets
	To   []string
	TLS  bool
	Data []byte // as it came, with CRLF, without dot-stuffing
}

// startReceiver starts a receiver that ends with the test.
func startReceiver(t testing.TB, host string, addr netip.Addr, b Behaviour, cert tls.Certificate) *Receiver {
	t.Helper()
	r := &Receiver{Host: host, Addr: addr, t: t, behaviour: b, cert: cert}
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 25).String())
	check(t, err)
	var accepting, serving sync.WaitGroup
	accepting.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return // closed
			}
			c := r.begin(nc)
			serving.Go(c.run)
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
		for _, nc := range r.conns {
			nc.Close()
		}
		serving.Wait()
	})
	return r
}

// begin notes a new session.
func (r *Receiver) begin(nc net.Conn) *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &Session{Remote: nc.RemoteAddr().(*net.TCPAddr).AddrPort()}
	r.sessions = append(r.sessions, s)
	r.conns = append(r.conns, nc)
	return &conn{r: r, s: s, nc: nc, br: bufio.NewReader(nc)}
}

// Sessions is a copy of all sessions so far, in the order of their beginning.
func (r *Receiver) Sessions() []Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Session
	for _, s := range r.sessions {
		c := *s
		c.Events, c.Messages = slices.Clone(s.Events), slices.Clone(s.Messages)
		all = append(all, c)
	}
	return all
}

// Messages is all messages so far.
func (r *Receiver) Messages() []Message {
	var all []Message
	for _, s := range r.Sessions() {
		all = append(all, s.Messages...)
	}
	return all
}

// WaitMessages waits until there are n messages, and is all there are.
func (r *Receiver) WaitMessages(n int) []Message {
	r.t.Helper()
	var all []Message
	if !poll(func() bool { all = r.Messages(); return len(all) >= n }) {
		r.t.Fatalf("lab: %s has %d messages, want %d", r.Host, len(all), n)
	}
	return all
}

// patience is how long anything in a world may take.
const patience = 30 * time.Second

// poll asks until ok says yes, or patience ends.
func poll(ok func() bool) bool {
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// countAttempt is how many recipients were named, this one included.
func (r *Receiver) countAttempt() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts++
	return r.attempts
}

// conn is the SMTP state of one connection.
type conn struct {
	r    *Receiver
	s    *Session
	nc   net.Conn
	br   *bufio.Reader
	mail Message // being received
}

// errEnd ends a session that has said all it had to say.
var errEnd = errors.New("end of session")

// note adds to the truth about the session.
func (c *conn) note(event string) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.s.Events = append(c.s.Events, event)
}

func (c *conn) reply(lines ...string) error {
	_, err := io.WriteString(c.nc, strings.Join(lines, "\r\n")+"\r\n")
	return err
}

func (c *conn) run() {
	defer c.nc.Close()
	_ = c.nc.SetDeadline(time.Now().Add(patience)) // of a TCP connection: never fails
	if err := c.serve(); err != errEnd {
		c.note(err.Error())
	}
}

func (c *conn) serve() error {
	if err := c.reply("220 " + c.r.Host + " ESMTP"); err != nil {
		return err
	}
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			return err
		}
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err := c.command(strings.ToUpper(verb), arg); err != nil {
			return err
		}
	}
}

func (c *conn) command(verb, arg string) error {
	c.note(strings.ToLower(verb))
	switch verb {
	case "EHLO":
		return c.ehlo()
	case "STARTTLS":
		return c.startTLS()
	case "MAIL":
		c.mail = Message{From: mailbox(arg), TLS: c.s.TLS}
		return c.reply("250 2.1.0 Ok")
	case "RCPT":
		if c.r.behaviour == NoUsers {
			return c.reply("550 5.1.1 <" + mailbox(arg) + ">: no such user")
		}
		if c.r.behaviour == Greylist && c.r.countAttempt()%2 == 1 {
			return c.reply("450 4.7.1 <" + mailbox(arg) + ">: greylisted, come back")
		}
		c.mail.To = append(c.mail.To, mailbox(arg))
		return c.reply("250 2.1.5 Ok")
	case "DATA":
		return c.data()
	case "HELO", "RSET", "NOOP":
		return c.reply("250 " + c.r.Host)
	case "QUIT":
		_ = c.reply("221 2.0.0 Bye") // the client may be gone
		return errEnd
	}
	return c.reply("502 5.5.1 Unknown command")
}

// mailbox is the address of a MAIL or RCPT argument, "FROM:<a@example.com> SIZE=1".
func mailbox(arg string) string {
	_, arg, _ = strings.Cut(arg, "<")
	arg, _, _ = strings.Cut(arg, ">")
	return arg
}

func (c *conn) ehlo() error {
	lines := []string{"250-" + c.r.Host, "250-PIPELINING", "250-SIZE 20480000"}
	if !c.s.TLS && c.r.behaviour != NoSTARTTLS {
		lines = append(lines, "250-STARTTLS")
	}
	return c.reply(append(lines, "250-ENHANCEDSTATUSCODES", "250-8BITMIME", "250 SMTPUTF8")...)
}

func (c *conn) startTLS() error {
	if c.r.behaviour == Refuse {
		return c.reply("454 4.7.0 TLS not available due to temporary reason")
	}
	if err := c.reply("220 2.0.0 Ready to start TLS"); err != nil {
		return err
	}
	if c.r.behaviour == Drop {
		return errEnd
	}
	secure := tls.Server(c.nc, &tls.Config{Certificates: []tls.Certificate{c.r.cert}})
	if err := secure.Handshake(); err != nil {
		c.note("no handshake: " + err.Error())
		return errEnd
	}
	c.note("handshake")
	c.r.mu.Lock()
	c.s.TLS = true
	c.r.mu.Unlock()
	c.nc, c.br = secure, bufio.NewReader(secure)
	return nil
}

func (c *conn) data() error {
	if len(c.mail.To) == 0 {
		return c.reply("554 5.5.1 No valid recipients")
	}
	if err := c.reply("354 End data with <CR><LF>.<CR><LF>"); err != nil {
		return err
	}
	for {
		line, err := c.br.ReadBytes('\n')
		if err != nil {
			return err
		}
		if string(line) == ".\r\n" {
			break
		}
		c.mail.Data = append(c.mail.Data, bytes.TrimPrefix(line, []byte("."))...)
	}
	c.r.mu.Lock()
	c.s.Messages = append(c.s.Messages, c.mail)
	c.r.mu.Unlock()
	return c.reply("250 2.0.0 Ok: taken")
}
