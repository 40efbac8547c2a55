package submitter

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

const (
	quitTimeout    = 5 * time.Second
	maxSMTPReplies = 256 << 10 // bytes that a server may send in one session
)

var errChatty = fmt.Errorf("it sent more than %d bytes", maxSMTPReplies)

// smtpConn is a connection that cannot hang, whatever its user forgets: each
// Read and Write has a deadline, the end of a context closes it, and what can be
// read from it is bounded. Deadlines that others set are ignored.
type smtpConn struct {
	net.Conn
	patience atomic.Int64 // time.Duration for one Read or Write
	limit    atomic.Int64 // Unix time in ns at which all of them end; 0: never
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

// within ends all Reads and Writes d from now, or earlier if that was said
// before. The function takes it back.
func (c *smtpConn) within(d time.Duration) (restore func()) {
	before := c.limit.Load()
	limit := time.Now().Add(d).UnixNano()
	if before == 0 || limit < before {
		c.limit.Store(limit)
	}
	return func() { c.limit.Store(before) }
}

// waitLong leaves the reply to a message all the time that the context has.
func (c *smtpConn) waitLong() {
	c.patience.Store(int64(AttemptTimeout))
	c.limit.Store(0)
}

func (c *smtpConn) deadline() time.Time {
	t := time.Now().Add(time.Duration(c.patience.Load()))
	if limit := c.limit.Load(); limit != 0 && limit < t.UnixNano() {
		return time.Unix(0, limit)
	}
	return t
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

func (c *smtpConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

func (*smtpConn) SetDeadline(time.Time) error      { return nil }
func (*smtpConn) SetReadDeadline(time.Time) error  { return nil }
func (*smtpConn) SetWriteDeadline(time.Time) error { return nil }

// smtpWire is a connection as the client of go-smtp needs it: begin is read
// before all else, and keywords in replies to EHLO are in upper case, as the client
// looks for them, although they have no case (RFC 5321, section 2.4). It gives one
// line at a time, so that whatever follows a reply stays here.
type smtpWire struct {
	net.Conn
	in    *bufio.Reader
	line  []byte // what the last line has left
	err   error  // what follows it
	hello bool   // a reply to EHLO is awaited
}

func newSMTPWire(conn net.Conn, begin string) *smtpWire {
	return &smtpWire{Conn: conn, in: bufio.NewReader(conn), line: []byte(begin)}
}

func (w *smtpWire) Read(p []byte) (int, error) {
	if len(w.line) == 0 && w.err == nil {
		w.line, w.err = w.in.ReadSlice('\n')
		if w.hello && bytes.HasPrefix(w.line, []byte("250")) {
			w.line = bytes.ToUpper(w.line)
		}
	}
	if len(w.line) == 0 {
		return 0, w.err
	}
	n := copy(p, w.line)
	w.line = w.line[n:]
	return n, nil
}

// isLoopback reports whether the other end is this host.
func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
