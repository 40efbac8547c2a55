// Package lmtp takes mail on a Unix socket (RFC 2033), and hands it over there.
package lmtp

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/net/netutil"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/socket"
)

// Bounds on what a client may do.
const (
	maxConns    = 16 // others wait
	maxRcpts    = 16 // of one message
	maxMessage  = 64 << 20
	idleTimeout = 5 * time.Minute
	lifetime    = 15 * time.Minute // of a connection
	patience    = time.Minute      // for one message to be taken in
	lingering   = 2 * time.Second  // for what is under way at the end
)

// lookInterval is the time between two looks at the socket file. Once it is gone no
// client finds the socket any more, and nothing would tell.
const lookInterval = 2 * time.Second

// toldInterval is the time between two lines of the log that say the same.
const toldInterval = time.Minute

// Options say where a Server listens and what it does with mail.
type Options struct {
	// Socket is where it listens; its Network is set.
	Socket socket.File

	// Keep is how many bytes of a message are handed over; the rest is dropped.
	Keep int

	// Knows reports whether mail to an address is taken. Other recipients are
	// refused for good.
	Knows func(address string) bool

	// Deliver takes in a message to one recipient. After an error the client is
	// asked to come again.
	Deliver func(ctx context.Context, to string, message io.Reader) error

	// Logger nil discards.
	Logger *slog.Logger
}

// Server is made by [Listen].
type Server struct {
	o    Options
	log  *slog.Logger
	look time.Duration // the constant; tests look more often
	smtp *smtp.Server

	listener net.Listener
	place    *socket.Place // of listener
	told     time.Time     // when it was last said that it is gone
}

// Listen makes the socket. Clients wait until [Server.Run].
func Listen(o Options) (*Server, error) {
	s := &Server{o: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), look: lookInterval}
	s.o.Socket.Network = "unix"
	if err := s.bind(); err != nil {
		return nil, err
	}
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{server: s}, nil }))
	s.smtp.LMTP = true
	s.smtp.Domain = "localhost"
	s.smtp.MaxRecipients = maxRcpts
	s.smtp.MaxMessageBytes = maxMessage
	s.smtp.ReadTimeout, s.smtp.WriteTimeout = idleTimeout, idleTimeout
	s.smtp.EnableSMTPUTF8 = true // bounces may need it
	s.smtp.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	return s, nil
}

// bind makes a socket, and its file.
func (s *Server) bind() error {
	var l *net.UnixListener
	place, err := s.o.Socket.Bind(func(name string) (err error) {
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"}); err == nil {
			l.SetUnlinkOnClose(false) // it gets another name
		}
		return err
	})
	if err != nil {
		if l != nil {
			l.Close()
		}
		return fmt.Errorf("lmtp: %w", err)
	}
	s.place, s.listener = place, netutil.LimitListener(l, maxConns)
	return nil
}

// mortal ends every connection after a time, or with ctx.
type mortal struct {
	net.Listener
	ctx context.Context
}

func (m mortal) Accept() (net.Conn, error) {
	conn, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(m.ctx, lifetime)
	context.AfterFunc(ctx, func() { conn.Close() })
	return mortalConn{conn, cancel}, nil
}

type mortalConn struct {
	net.Conn
	end context.CancelFunc
}

func (c mortalConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// Run takes mail until ctx ends, and then for a moment lets those go on that are
// at it. If someone removes the socket file, it makes the socket anew. Call it once.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	alive, kill := context.WithCancel(context.Background())
	defer kill()
	served := s.serve(alive)
	tick := time.NewTicker(s.look)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case err := <-served:
			return fmt.Errorf("lmtp: %w", err)
		case <-ctx.Done():
		case <-tick.C:
			if old := s.listener; s.remade() {
				served = s.serve(alive)
				old.Close() // who is connected goes on
			}
		}
	}
	end, cancel := context.WithTimeout(context.Background(), lingering)
	defer cancel()
	_ = s.smtp.Shutdown(end) // who is not done by then gets no answer, and comes again
	s.Close()                // where Serve began too late for Shutdown to know the listener
	<-served
	return nil
}

// serve takes mail from the present listener, and tells when that has ended.
func (s *Server) serve(alive context.Context) <-chan error {
	l, end := mortal{s.listener, alive}, make(chan error, 1)
	go func() { end <- s.smtp.Serve(l) }()
	return end
}

// remade reports whether the socket file was gone, and the socket made anew.
func (s *Server) remade() bool {
	if s.place.Held() {
		return false
	}
	err := s.bind()
	if err == nil {
		s.log.Warn("the socket file was gone, the socket was made anew", "socket", s.o.Socket.Path)
	} else if time.Since(s.told) >= toldInterval {
		s.told = time.Now()
		s.log.Error("the socket file is gone, and no mail can be taken", "socket", s.o.Socket.Path, "error", err)
	}
	return err == nil
}

// Close ends a Server, which need not have run.
func (s *Server) Close() {
	s.place.Leave()
	s.listener.Close()
}

// session is one connection.
type session struct {
	server *Server
	rcpts  []string
}

var (
	errUnknown = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such address here"}
	errLater   = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Try again later"}
)

func (*session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if !s.server.o.Knows(to) {
		return errUnknown
	}
	s.rcpts = append(s.rcpts, to)
	return nil
}

func (s *session) Reset()        { s.rcpts = nil }
func (s *session) Logout() error { return nil }

// Data is not called: every client speaks LMTP.
func (s *session) Data(io.Reader) error { return errLater }

// LMTPData hands a message over once it is here as a whole: half of one must not
// be taken for all of it.
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	var kept bytes.Buffer
	if _, err := io.Copy(&kept, io.LimitReader(r, int64(s.server.o.Keep))); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, to := range s.rcpts {
		var reply error
		if err := s.server.o.Deliver(ctx, to, bytes.NewReader(kept.Bytes())); err != nil {
			s.server.log.Error("mail that was put off", "to", to, "error", err)
			reply = errLater
		}
		status.SetStatus(to, reply)
	}
	return nil
}
