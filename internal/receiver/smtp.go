package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// SMTP is a server on 127.0.0.1 that takes mail for every recipient.
type SMTP struct {
	addr     string
	options  SMTPOptions
	listener net.Listener
	server   *smtp.Server
	running  sync.WaitGroup
	close    func() error
	mails    arrivals[Mail]

	mu      sync.Mutex
	scripts map[script][]*smtp.SMTPError
}

// SMTPOptions says what the server offers. The zero value is plain SMTP.
type SMTPOptions struct {
	TLS      *tls.Config // nil: no TLS
	Implicit bool        // TLS from the first byte instead of STARTTLS

	// User and Password are what AUTH PLAIN wants. An empty User means no AUTH.
	// Where there is TLS, AUTH is offered only within it.
	User, Password string
}

// Mail is one message that arrived whole.
type Mail struct {
	Time   time.Time
	Helo   string
	User   string // who authenticated, or ""
	TLS    bool   // whether it came over TLS
	Sender string // envelope sender, "" for the null sender
	To     []string
	Data   []byte          // the message as it was sent, without dot-stuffing
	Reply  *smtp.SMTPError // what it was answered; nil means accepted
}

// Accepted reports whether the server took over the message.
func (m *Mail) Accepted() bool { return m.Reply == nil }

// Stage is the SMTP command that a script answers.
type Stage string

const (
	AtMAIL Stage = "MAIL" // AtMAIL answers MAIL FROM; the address is the sender's.
	AtRCPT Stage = "RCPT" // AtRCPT answers RCPT TO.
	AtDATA Stage = "DATA" // AtDATA answers the message; the address is any of its recipients.
)

type script struct {
	stage   Stage
	address string
}

// maxMessage is the largest message that is taken, in bytes: what mox takes.
const maxMessage = 15 << 20

// StartSMTP starts a server.
func StartSMTP(o SMTPOptions) (*SMTP, error) {
	if o.Implicit && o.TLS == nil {
		return nil, errors.New("receiver: implicit TLS needs a TLS configuration")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("receiver: starting the SMTP server: %w", err)
	}
	s := &SMTP{addr: l.Addr().String(), options: o, listener: l, scripts: map[script][]*smtp.SMTPError{}}
	if o.Implicit {
		s.listener = tls.NewListener(l, o.TLS)
	}
	s.close = sync.OnceValue(s.shutdown)
	s.server = smtp.NewServer(smtp.BackendFunc(s.session))
	s.server.Domain = "mx.example.org"
	s.server.TLSConfig = o.TLS
	s.server.AllowInsecureAuth = o.TLS == nil
	s.server.MaxMessageBytes = maxMessage
	s.server.ReadTimeout, s.server.WriteTimeout = time.Minute, time.Minute
	s.server.ErrorLog = log.New(io.Discard, "", 0) // what a client does wrong, the client reports
	s.running.Go(func() { _ = s.server.Serve(s.listener) })
	return s, nil
}

// Addr is "127.0.0.1:port".
func (s *SMTP) Addr() string { return s.addr }

// Script sets the answers at stage for address, one for each time it is asked;
// nil accepts. Later ones are accepted, as all others are. A reply carries what
// goes over the wire: code, enhanced code, text.
func (s *SMTP) Script(stage Stage, address string, replies ...*smtp.SMTPError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[script{stage, address}] = slices.Clone(replies)
}

// Received is all that arrived, in its order, whatever it was answered. What was
// refused before DATA did not arrive.
func (s *SMTP) Received() []Mail { return s.mails.list() }

// Wait is like Received, as soon as n messages arrived or ctx ended.
func (s *SMTP) Wait(ctx context.Context, n int) ([]Mail, error) { return s.mails.wait(ctx, n) }

// Close cuts all connections. Only the first call does anything.
func (s *SMTP) Close() error { return s.close() }

func (s *SMTP) shutdown() error {
	s.listener.Close() // the server knows it only once Serve has run
	err := s.server.Close()
	s.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *SMTP) next(stage Stage, address string) *smtp.SMTPError {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := script{stage, address}
	replies := s.scripts[key]
	if len(replies) == 0 {
		return nil
	}
	s.scripts[key] = replies[1:]
	return replies[0]
}

func (s *SMTP) session(c *smtp.Conn) (smtp.Session, error) {
	_, encrypted := c.TLSConnectionState()
	return &session{server: s, encrypted: encrypted, mail: Mail{Helo: c.Hostname(), TLS: encrypted}}, nil
}

// session is one connection. It has the methods of AUTH whether AUTH is offered
// or not.
type session struct {
	server    *SMTP
	encrypted bool
	mail      Mail
}

var _ smtp.AuthSession = (*session)(nil)

func (c *session) AuthMechanisms() []string {
	if c.server.options.User == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (c *session) Auth(mechanism string) (sasl.Server, error) {
	if !slices.Contains(c.AuthMechanisms(), mechanism) {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != c.server.options.User || password != c.server.options.Password {
			return smtp.ErrAuthFailed
		}
		c.mail.User = user
		return nil
	}), nil
}

func (c *session) Mail(from string, _ *smtp.MailOptions) error {
	if c.mail.User != c.server.options.User {
		return smtp.ErrAuthRequired
	}
	c.mail.Sender = from
	return asError(c.server.next(AtMAIL, from))
}

func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if reply := c.server.next(AtRCPT, to); reply != nil {
		return reply
	}
	c.mail.To = append(c.mail.To, to)
	return nil
}

func (c *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	mail := c.mail
	mail.Time, mail.Data, mail.To = time.Now(), data, slices.Clone(c.mail.To)
	for _, to := range mail.To {
		if mail.Reply = c.server.next(AtDATA, to); mail.Reply != nil {
			break
		}
	}
	c.server.mails.add(mail)
	return asError(mail.Reply)
}

func (c *session) Reset() { c.mail.Sender, c.mail.To = "", nil }

func (c *session) Logout() error { return nil }

// asError keeps a nil reply from becoming an error that is not nil.
func asError(reply *smtp.SMTPError) error {
	if reply == nil {
		return nil
	}
	return reply
}
