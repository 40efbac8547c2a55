package submitter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// tlsTimeout is for TLS and the first reply within it. What is left of an
// attempt has to do for another one, without TLS.
const tlsTimeout = 30 * time.Second

var (
	// errHandshake means that there is no TLS with this server, although it
	// offered it. Where TLS is not demanded, try without.
	errHandshake = errors.New("TLS failed")

	// errUnfit means that the server cannot take this message, by what it says of
	// itself: nothing was sent.
	errUnfit = errors.New("the server cannot take the message")

	// errLost means that the message was sent and nothing came back. It may have
	// been taken: to send it elsewhere at once would double it.
	errLost = errors.New("no reply to the message")
)

// authError is a refusal of the user. What the server says is left out of every
// text: it may repeat what it was sent.
type authError struct{ error }

func (e authError) Unwrap() error { return e.error }

// session is one SMTP connection, seen from the client (RFC 5321).
type session struct {
	conn   *smtpConn // below TLS
	wire   *smtpWire
	client *smtp.Client
	helo   string
}

// newSession reads the greeting on stream, which is conn or TLS on it, and says
// EHLO, or HELO to a server that does not know EHLO.
func newSession(conn *smtpConn, stream net.Conn, helo string) (*session, error) {
	s := &session{conn: conn, helo: helo}
	return s, s.hello(newSMTPWire(stream, ""))
}

func (s *session) hello(wire *smtpWire) error {
	s.wire, s.client = wire, smtp.NewClient(wire)
	wire.hello = true
	defer func() { wire.hello = false }()
	return refused("EHLO", s.client.Hello(s.helo))
}

func (s *session) offers(extension string) bool {
	ok, _ := s.client.Extension(extension)
	return ok
}

// startTLS starts TLS, which the server offers, and says EHLO anew. All that
// goes wrong on the way is errHandshake: there are servers that fall silent once
// TLS is up.
//
// The client of go-smtp can do this in NewClientStartTLS alone, and there says
// "EHLO localhost" before TLS, for which large providers hang up.
func (s *session) startTLS(ctx context.Context, config *tls.Config) error {
	defer s.conn.within(tlsTimeout)()
	fault := func(err error) error { return fmt.Errorf("%w: %w", errHandshake, err) }
	text := textproto.NewConn(s.wire)
	if err := text.PrintfLine("STARTTLS"); err != nil {
		return fault(err)
	}
	if _, _, err := text.ReadResponse(220); err != nil {
		return fault(refused("STARTTLS", err))
	}
	if s.wire.in.Buffered() > 0 { // what came in the clear must not pass for secured
		return fault(errors.New("data after the reply to STARTTLS"))
	}
	secured, err := handshake(ctx, s.conn, config)
	if err != nil {
		return err
	}
	// The server does not greet again, but a new client waits for it.
	if err := s.hello(newSMTPWire(secured, "220 \r\n")); err != nil {
		return fault(err)
	}
	return nil
}

// handshake is conn within TLS.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return secured, nil
}

// opportunistic is TLS that verifies nothing: MTA-STS and DANE must not stop a
// report about them (RFC 8460, section 5.3.1), and an old version of TLS is
// better than none.
func opportunistic(host string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
}

// authenticate gives the password by PLAIN or LOGIN. The caller has seen to it
// that the server is who it should be.
func (s *session) authenticate(user, password string) error {
	var mechanism sasl.Client
	switch {
	case s.client.SupportsAuth(sasl.Plain):
		mechanism = sasl.NewPlainClient("", user, password)
	case s.client.SupportsAuth(sasl.Login):
		mechanism = sasl.NewLoginClient(user, password)
	default:
		_, offered := s.client.Extension("AUTH")
		return fmt.Errorf("it offers neither AUTH PLAIN nor AUTH LOGIN, but %q", printable(offered, 80))
	}
	if err := s.client.Auth(mechanism); err != nil {
		return authError{refused("AUTH", err)}
	}
	return nil
}

// send is one mail transaction (RFC 5321, section 3.3), and the end of the
// session.
func (s *session) send(e Envelope, message []byte) error {
	err := s.transaction(e, message)
	if r, ok := errors.AsType[*smtpRefusal](err); err == nil || errors.Is(err, errUnfit) || ok && !r.closing() {
		defer s.conn.within(quitTimeout)()
		s.client.Quit() // whatever the answer, all is said
	}
	return err
}

func (s *session) transaction(e Envelope, message []byte) error {
	if err := s.fits(e, message); err != nil {
		return err
	}
	// The client leaves out what the server does not offer. It declares
	// BODY=8BITMIME wherever that is offered, although our messages are 7-bit.
	mail, rcpt := &smtp.MailOptions{Size: int64(len(message)), UTF8: !isASCII(e.From + e.To)}, new(smtp.RcptOptions)
	if e.ID != "" { // a bounce names it (RFC 3461)
		mail.Return, mail.EnvelopeID = smtp.DSNReturnHeaders, e.ID
		rcpt.Notify = []smtp.DSNNotify{smtp.DSNNotifyFailure}
	}
	if err := s.client.Mail(e.From, mail); err != nil {
		return refused("MAIL", err)
	}
	if err := s.client.Rcpt(e.To, rcpt); err != nil {
		return refused("RCPT", err)
	}
	return s.data(message)
}

func (s *session) data(message []byte) error {
	w, err := s.client.Data()
	if err != nil {
		return refused("DATA", err)
	}
	if _, err := w.Write(message); err != nil {
		return err
	}
	// To give up too early doubles the message: the server may have it already.
	s.conn.waitLong()
	err = refused("DATA", w.Close())
	if _, replied := errors.AsType[*smtpRefusal](err); err != nil && !replied {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// fits reports, as errUnfit, what the server does not offer and the message
// needs.
func (s *session) fits(e Envelope, message []byte) error {
	limit, _ := s.client.MaxMessageSize() // 0: none
	switch {
	case strings.ContainsAny(e.From+e.To, "\r\n"):
		return fmt.Errorf("%w: a line break in an address", errUnfit)
	case limit > 0 && len(message) > limit: // RFC 1870
		return fmt.Errorf("%w: 5.3.4 it has %d bytes, and %d are allowed", errUnfit, len(message), limit)
	case !isASCII(message) && !s.offers("8BITMIME"): // RFC 6152
		return fmt.Errorf("%w: 5.6.3 it is 8-bit, and 8BITMIME is not offered", errUnfit)
	case !isASCII(e.From+e.To) && !s.offers("SMTPUTF8"): // RFC 6531
		return fmt.Errorf("%w: 5.6.7 the address is not ASCII, and SMTPUTF8 is not offered", errUnfit)
	}
	return nil
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
