package submitter

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
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
//
// The client of go-smtp greets with "EHLO localhost" before STARTTLS, for which
// large providers hang up, and declares BODY=8BITMIME for every message, which
// makes a relay convert or return what a 7-bit server would have taken.
type session struct {
	conn       *smtpConn // below TLS
	text       *textproto.Conn
	helo       string
	extensions map[string]string // parameters by name in upper case
}

// newSession reads the greeting on wire, which is conn or TLS on it, and says
// EHLO.
func newSession(conn *smtpConn, wire net.Conn, helo string) (*session, error) {
	s := &session{conn: conn, text: textproto.NewConn(wire), helo: helo}
	if _, _, err := s.text.ReadResponse(220); err != nil {
		return nil, replyTo("", err)
	}
	return s, s.hello()
}

// hello says EHLO, or HELO to a server that does not take EHLO.
func (s *session) hello() error {
	s.extensions = make(map[string]string)
	offers, err := s.command(250, "EHLO", s.helo)
	if r, ok := errors.AsType[*smtpRefusal](err); ok && r.permanent() {
		_, err = s.command(250, "HELO", s.helo)
		return err
	}
	lines := strings.Split(offers, "\n")
	for _, line := range lines[1:] { // the first one is its name
		name, parameters, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.extensions[strings.ToUpper(name)] = parameters
	}
	return err
}

// command says verb and arguments, and is the text of the reply.
func (s *session) command(want int, verb string, arguments ...string) (string, error) {
	line := strings.Join(append([]string{verb}, arguments...), " ")
	if strings.ContainsAny(line, "\r\n") {
		return "", fmt.Errorf("%w: a line break in %s", errUnfit, verb)
	}
	if err := s.text.PrintfLine("%s", line); err != nil {
		return "", err
	}
	_, text, err := s.text.ReadResponse(want)
	return text, replyTo(verb, err)
}

func (s *session) offers(extension string) bool {
	_, ok := s.extensions[extension]
	return ok
}

// startTLS starts TLS, which the server offers, and says EHLO anew. All that
// goes wrong on the way is errHandshake: there are servers that fall silent once
// TLS is up.
func (s *session) startTLS(ctx context.Context, config *tls.Config) error {
	defer s.conn.within(tlsTimeout)()
	fault := func(err error) error { return fmt.Errorf("%w: %w", errHandshake, err) }
	if _, err := s.command(220, "STARTTLS"); err != nil {
		return fault(err)
	}
	if s.text.R.Buffered() > 0 { // what came in the clear must not pass for secured
		return fault(errors.New("data after the reply to STARTTLS"))
	}
	secured, err := handshake(ctx, s.conn, config)
	if err != nil {
		return err
	}
	s.text = textproto.NewConn(secured)
	if err := s.hello(); err != nil {
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
	offered := s.extensions["AUTH"]
	var client sasl.Client
	for _, m := range strings.Fields(strings.ToUpper(offered)) {
		switch {
		case m == sasl.Plain:
			client = sasl.NewPlainClient("", user, password)
		case m == sasl.Login && client == nil:
			client = sasl.NewLoginClient(user, password)
		}
	}
	if client == nil {
		return fmt.Errorf("it offers neither AUTH PLAIN nor AUTH LOGIN, but %q", printable(offered, 80))
	}
	if err := s.auth(client); err != nil {
		return authError{err}
	}
	return nil
}

// maxChallenges is more than any mechanism here has.
const maxChallenges = 4

// auth is the exchange of RFC 4954, section 4.
func (s *session) auth(client sasl.Client) error {
	mechanism, response, err := client.Start()
	if err != nil {
		return err
	}
	arguments := []string{"AUTH", mechanism}
	if response != nil {
		arguments = append(arguments, base64.StdEncoding.EncodeToString(response))
	}
	for range maxChallenges {
		if err := s.text.PrintfLine("%s", strings.Join(arguments, " ")); err != nil {
			return err
		}
		_, text, err := s.text.ReadResponse(334)
		if reply, ok := errors.AsType[*textproto.Error](err); ok && reply.Code == 235 {
			return nil
		} else if err != nil {
			return replyTo("AUTH", err)
		}
		challenge, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return err
		}
		if response, err = client.Next(challenge); err != nil {
			return err
		}
		arguments = []string{base64.StdEncoding.EncodeToString(response)}
	}
	return errors.New("it asks on and on")
}

// send is one mail transaction (RFC 5321, section 3.3), and the end of the
// session.
func (s *session) send(e Envelope, message []byte) error {
	err := s.transaction(e, message)
	if r, ok := errors.AsType[*smtpRefusal](err); err == nil || errors.Is(err, errUnfit) || ok && !r.closing() {
		defer s.conn.within(quitTimeout)()
		s.command(221, "QUIT") // whatever the answer, all is said
	}
	return err
}

func (s *session) transaction(e Envelope, message []byte) error {
	parameters, err := s.parameters(e, message)
	if err != nil {
		return err
	}
	if _, err := s.command(250, "MAIL", append([]string{"FROM:<" + e.From + ">"}, parameters...)...); err != nil {
		return err
	}
	recipient := []string{"TO:<" + e.To + ">"}
	if s.wantsDSN(e) {
		recipient = append(recipient, "NOTIFY=FAILURE")
	}
	if _, err := s.command(25, "RCPT", recipient...); err != nil { // 250, or 251: it will forward
		return err
	}
	if _, err := s.command(354, "DATA"); err != nil {
		return err
	}
	return s.data(message)
}

func (s *session) data(message []byte) error {
	w := s.text.DotWriter()
	if _, err := w.Write(message); err != nil {
		return err
	}
	// To give up too early doubles the message: the server may have it already.
	s.conn.waitLong()
	if err := w.Close(); err != nil {
		return err
	}
	_, _, err := s.text.ReadResponse(250)
	err = replyTo("DATA", err)
	if _, replied := errors.AsType[*smtpRefusal](err); err != nil && !replied {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// parameters is those of MAIL, by what the server offers and the message needs.
func (s *session) parameters(e Envelope, message []byte) ([]string, error) {
	var p []string
	if limit, ok := s.extensions["SIZE"]; ok { // RFC 1870
		if n, err := strconv.ParseInt(limit, 10, 64); err == nil && n > 0 && int64(len(message)) > n {
			return nil, fmt.Errorf("%w: 5.3.4 it has %d bytes, and %d are allowed", errUnfit, len(message), n)
		}
		p = append(p, fmt.Sprintf("SIZE=%d", len(message)))
	}
	if !isASCII(message) { // RFC 6152; ours are 7-bit
		if !s.offers("8BITMIME") {
			return nil, fmt.Errorf("%w: 5.6.3 it is 8-bit, and 8BITMIME is not offered", errUnfit)
		}
		p = append(p, "BODY=8BITMIME")
	}
	if !isASCII(e.From) || !isASCII(e.To) { // RFC 6531
		if !s.offers("SMTPUTF8") {
			return nil, fmt.Errorf("%w: 5.6.7 the address is not ASCII, and SMTPUTF8 is not offered", errUnfit)
		}
		p = append(p, "SMTPUTF8")
	}
	if s.wantsDSN(e) {
		p = append(p, "RET=HDRS", "ENVID="+xtext(e.ID))
	}
	return p, nil
}

// wantsDSN reports whether a bounce can be asked to name e.ID (RFC 3461).
func (s *session) wantsDSN(e Envelope) bool { return e.ID != "" && s.offers("DSN") }

// xtext is RFC 3461, section 4.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
