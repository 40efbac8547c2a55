package submitter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	quitTimeout    = 5 * time.Second
	maxSMTPReplies = 256 << 10 // bytes that a server may send in one session
)

var (
	errHandshake = errors.New("TLS failed")
	errChatty    = fmt.Errorf("it sent more than %d bytes", maxSMTPReplies)
)

// smtpConn is a connection that cannot hang, whatever the SMTP client forgets:
// each Read and Write has a deadline, the end of a context closes it, and what
// can be read from it is bounded. Deadlines that others set are ignored.
type smtpConn struct {
	net.Conn
	patience atomic.Int64 // time.Duration for one Read or Write
	unread   atomic.Int64 // bytes that may still come
	stop     func() bool
}

func newSMTPConn(ctx context.Context, conn net.Conn, patience time.Duration) *smtpConn {
	c := &smtpConn{Conn: conn}
	c.patience.Store(int64(patience))
	c.unread.Store(maxSMTPReplies)
	c.stop = context.AfterFunc(ctx, func() { conn.Close() })
	return c
}

func (c *smtpConn) Read(p []byte) (int, error) {
	left := c.unread.Load()
	if left <= 0 {
		return 0, errChatty
	}
	if err := c.Conn.SetReadDeadline(c.deadline()); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), left)])
	c.unread.Add(-int64(n))
	return n, err
}

// Write writes in pieces, so that a slow reader is not a dead one.
func (c *smtpConn) Write(p []byte) (done int, err error) {
	const piece = 64 << 10
	for done < len(p) || len(p) == 0 {
		if err := c.Conn.SetWriteDeadline(c.deadline()); err != nil {
			return done, err
		}
		n, err := c.Conn.Write(p[done:min(len(p), done+piece)])
		done += n
		if err != nil || len(p) == 0 {
			return done, err
		}
	}
	return done, nil
}

func (c *smtpConn) deadline() time.Time { return time.Now().Add(time.Duration(c.patience.Load())) }

func (c *smtpConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

func (*smtpConn) SetDeadline(time.Time) error      { return nil }
func (*smtpConn) SetReadDeadline(time.Time) error  { return nil }
func (*smtpConn) SetWriteDeadline(time.Time) error { return nil }

// handshake is conn within TLS.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return secured, nil
}

// startTLS greets the server and starts TLS. Where the server does not offer it,
// the result is conn, unless TLS is required. Either way the SMTP client then
// starts over, with a greeting of ours.
//
// The client of go-smtp can do this, but says "EHLO localhost" before TLS, for
// which large providers hang up.
func startTLS(ctx context.Context, conn net.Conn, helo string, config *tls.Config, required bool) (net.Conn, error) {
	t := textproto.NewConn(conn)
	if _, _, err := t.ReadResponse(220); err != nil {
		return nil, smtpError(err)
	}
	offers, err := command(t, 250, "EHLO %s", helo)
	if err != nil && required {
		return nil, err
	}
	if !offersSTARTTLS(offers) {
		if required {
			return nil, errors.New("it does not offer STARTTLS")
		}
		return &greeted{Conn: conn, greeting: strings.NewReader(fakeGreeting)}, nil
	}
	if _, err := command(t, 220, "STARTTLS"); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	if t.R.Buffered() > 0 { // what came in the clear must not pass for secured
		return nil, fmt.Errorf("%w: data after the reply to STARTTLS", errHandshake)
	}
	secured, err := handshake(ctx, conn, config)
	if err != nil {
		return nil, err
	}
	return &greeted{Conn: secured, greeting: strings.NewReader(fakeGreeting)}, nil
}

// fakeGreeting stands for the one that came before TLS.
const fakeGreeting = "220 go on\r\n"

// greeted is a connection on which a greeting is read first.
type greeted struct {
	net.Conn
	greeting *strings.Reader
}

func (g *greeted) Read(p []byte) (int, error) {
	if n, err := g.greeting.Read(p); err != io.EOF {
		return n, err
	}
	return g.Conn.Read(p)
}

func command(t *textproto.Conn, want int, format string, args ...any) (string, error) {
	if err := t.PrintfLine(format, args...); err != nil {
		return "", err
	}
	_, text, err := t.ReadResponse(want)
	return text, smtpError(err)
}

// smtpError is err as the SMTP client would return it.
func smtpError(err error) error {
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		return &smtp.SMTPError{Code: reply.Code, Message: reply.Msg}
	}
	return err
}

// offersSTARTTLS reads the reply to EHLO.
func offersSTARTTLS(reply string) bool {
	for line := range strings.SplitSeq(reply, "\n") {
		if strings.EqualFold(strings.TrimSpace(line), "STARTTLS") {
			return true
		}
	}
	return false
}

// isLoopback reports whether the other end is this host.
func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
