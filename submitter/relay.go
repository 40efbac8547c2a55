package submitter

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ErrRelay means that the address of a relay cannot be used.
var ErrRelay = errors.New("submitter: malformed relay")

// RelayOptions are what the address of a relay does not say. The zero value is
// ready.
type RelayOptions struct {
	// HELO is the name in EHLO; "" means the name of the host.
	HELO string

	// RootCAs verify the relay; nil means those of the system.
	RootCAs *x509.CertPool

	// Dialer connects to the relay; nil means a [net.Dialer]. The operator chose
	// the relay, so it may be private.
	Dialer Dialer

	// Timeout is how long the relay has for one reply; 0 means 5 min (RFC 5321,
	// section 4.5.3.2), and what is left of the attempt after the message.
	Timeout time.Duration
}

// Relay hands mail to one server. It is safe for concurrent use; every message
// has a connection of its own.
type Relay struct {
	scheme   string // smtp, submission or smtps
	host     string
	addr     string // host:port
	user     string
	password string
	helo     string
	tls      *tls.Config // verified, or with smtp:// not
	dialer   Dialer
	timeout  time.Duration
}

const defaultSMTPTimeout = 5 * time.Minute

var relayPorts = map[string]string{"smtp": "25", "submission": "587", "smtps": "465"}

// ParseRelay reads the address of a relay:
//
//	smtp://host:25              no authentication; on another host STARTTLS where
//	                            it is offered, unverified
//	submission://user@host:587  STARTTLS, verified
//	smtps://user@host:465       TLS, verified
//
// The port may be left out. The password is never part of the address; it and
// user go together. The error is [ErrRelay] and never quotes a password.
func ParseRelay(address, password string, o RelayOptions) (*Relay, error) {
	fault := func(why string) (*Relay, error) { return nil, fmt.Errorf("%w: %s", ErrRelay, why) }
	u, err := url.Parse(address)
	if err != nil || u.Opaque != "" {
		return fault("not of the form smtp://host:25") // err quotes all of it
	}
	port, ok := relayPorts[u.Scheme]
	if !ok {
		return fault("want smtp://, submission:// or smtps://")
	}
	user := u.User.Username()
	_, inURL := u.User.Password()
	switch {
	case inURL:
		return fault("the password does not belong into the address")
	case u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return fault("want a host, perhaps a port, and nothing after it")
	case u.Scheme == "smtp" && (user != "" || password != ""):
		return fault("smtp:// does not authenticate: use submission:// or smtps://")
	case (user == "") != (password == ""):
		return fault("a user and a password go together")
	}
	if n, err := strconv.ParseUint(cmp.Or(u.Port(), port), 10, 16); err != nil || n == 0 {
		return fault("no such port")
	}
	helo, err := heloName(o.HELO)
	if err != nil {
		return nil, err
	}
	r := &Relay{
		scheme: u.Scheme, host: u.Hostname(), addr: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)),
		user: user, password: password, helo: helo,
		tls: &tls.Config{ServerName: u.Hostname(), RootCAs: o.RootCAs}, dialer: o.Dialer, timeout: cmp.Or(o.Timeout, defaultSMTPTimeout),
	}
	if r.scheme == "smtp" {
		r.tls = opportunistic(r.host)
	}
	r.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if r.dialer == nil {
		r.dialer = &net.Dialer{Timeout: connectTimeout}
	}
	return r, nil
}

// heloName is the name for EHLO. A host whose name is none of the DNS still has
// to send mail.
func heloName(name string) (string, error) {
	if name != "" {
		helo, err := schema.ParseDomain(name)
		if err != nil {
			return "", fmt.Errorf("submitter: malformed HELO name: %w", err)
		}
		return helo, nil
	}
	host, _ := os.Hostname()
	if helo, err := schema.ParseDomain(host); err == nil {
		return helo, nil
	}
	return "localhost", nil
}

// String is the address of r without user.
func (r *Relay) String() string { return r.scheme + "://" + r.addr }

// Mail hands over one message. The error is an [*Error]: permanent only if the
// relay says that the recipient's address does not exist, otherwise temporary
// and [Error.Ours].
func (r *Relay) Mail(ctx context.Context, e Envelope, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, AttemptTimeout)
	defer cancel()
	err := r.send(ctx, e, message, true)
	if r.scheme == "smtp" && errors.Is(err, errHandshake) {
		// A report is to arrive although TLS is broken (RFC 8460, section 3).
		err = r.send(ctx, e, message, false)
	}
	if err != nil {
		return r.fault(ctx, err)
	}
	return nil
}

// send makes one connection and hands over the message.
//
// The connection is not kept for the next message: one that the relay closed
// meanwhile is found out halfway through a message. A new one costs a third of
// an RSA signature, or 1.4 with TLS that is resumed (three if it were not).
func (r *Relay) send(ctx context.Context, e Envelope, message []byte, useTLS bool) error {
	raw, err := r.dialer.DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return err
	}
	conn := newSMTPConn(ctx, raw, r.timeout)
	defer conn.Close()
	s, err := r.open(ctx, conn, useTLS)
	if err != nil {
		return err
	}
	return s.send(e, message)
}

// open is a session with the TLS that the scheme demands, and with the user that
// only submission:// and smtps:// have: the password goes over verified TLS or
// not at all. With smtp:// TLS is asked for on other hosts, and where it is
// offered.
func (r *Relay) open(ctx context.Context, conn *smtpConn, useTLS bool) (*session, error) {
	var wire net.Conn = conn
	var err error
	if r.scheme == "smtps" {
		if wire, err = handshake(ctx, conn, r.tls); err != nil {
			return nil, err
		}
	}
	s, err := newSession(conn, wire, r.helo)
	if err != nil {
		return nil, err
	}
	switch offered := s.offers("STARTTLS"); {
	case r.scheme == "submission" && !offered:
		return nil, errors.New("it does not offer STARTTLS")
	case r.scheme == "submission", r.scheme == "smtp" && offered && useTLS && !isLoopback(conn.RemoteAddr()):
		err = s.startTLS(ctx, r.tls)
	}
	if err == nil && r.user != "" {
		err = s.authenticate(r.user, r.password)
	}
	return s, err
}

// fault is err as an Error. It keeps the text of err alone, without what may be
// secret in it.
func (r *Relay) fault(ctx context.Context, err error) *Error {
	e := &Error{Temporary: true, Ours: true}
	reply, replied := errors.AsType[*smtpRefusal](err)
	_, atAuth := errors.AsType[authError](err)
	switch {
	case ctx.Err() != nil:
		e.Err = fmt.Errorf("relay %s: %w", r, context.Cause(ctx))
	case replied && atAuth:
		e.Err = fmt.Errorf("relay %s refused user and password", r)
		e.Reply = r.redact(reply.codes())
	case atAuth:
		e.Err = fmt.Errorf("relay %s broke off the authentication", r)
	case replied:
		e.Err = fmt.Errorf("relay %s refused", r)
		e.Reply = printable(r.redact(reply.Error()), maxReply)
		if reply.noSuchRecipient() {
			e.Temporary, e.Ours, e.NoSuchRecipient = false, false, true
		}
	default:
		e.Err = fmt.Errorf("relay %s: %s", r, printable(r.redact(err.Error()), maxReply))
	}
	return e
}

// redact takes the password out of s, as it is and as it is sent.
func (r *Relay) redact(s string) string {
	if r.password == "" {
		return s
	}
	plain := "\x00" + r.user + "\x00" + r.password
	for _, secret := range []string{plain, r.password} {
		s = strings.ReplaceAll(s, base64.StdEncoding.EncodeToString([]byte(secret)), "***")
	}
	return strings.ReplaceAll(s, r.password, "***")
}
