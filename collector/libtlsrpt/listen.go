package libtlsrpt

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/socket"
)

// ErrInUse means that another process listens on the socket. It is most likely
// another agent: end one of the two, or give them different sockets.
var ErrInUse = socket.ErrInUse

// Options says where a Source listens.
type Options struct {
	// Path of the socket, absolute, at most 107 bytes: the value of Postfix's
	// smtp_tlsrpt_socket_name, after its queue directory where that is relative.
	// It is needed with File too, as what errors and the default Name say.
	Path string

	// Mode of the socket file; 0 is 0660. An MTA needs the right to write.
	Mode fs.FileMode

	// User and Group that the socket file belongs to, by name or number; ""
	// leaves it to the process. Another user takes privileges, and so does a
	// group that the process is not in.
	User, Group string

	// File is a socket that someone else bound, systemd normally: see
	// [Activated]. Mode, User and Group are then his business, and the socket
	// file stays when the Source ends. The caller may close it after Listen.
	File *os.File

	// SendingIP stands for a sending-mta-ip that is not public, because the MTA
	// is behind NAT or in a container. The zero address leaves it out.
	SendingIP netip.Addr

	// Name of the Source; "" is "libtlsrpt:" and Path.
	Name string

	// Logger takes what an operator should know; nil discards.
	Logger *slog.Logger
}

// Listen makes the socket, with its rights, in one step: an MTA finds either the
// old one or the new one. A socket file that nobody listens on is replaced. Errors
// say what to do about them; [ErrInUse] is one.
func Listen(o Options) (*Source, error) {
	s := &Source{
		name:      cmp.Or(o.Name, "libtlsrpt:"+o.Path),
		sendingIP: o.SendingIP,
		logger:    cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		decode:    Decode,
		options:   o,
		look:      lookInterval,
	}
	var err error
	if s.at, err = listen(o); err != nil {
		return nil, err
	}
	s.checkQueue(queueLengthFile)
	return s, nil
}

// listener is a socket and its file.
type listener struct {
	conn  *net.UnixConn
	place *socket.Place // nil if someone else bound it
	found fs.FileInfo   // the file then, nil if it is not at the path
}

func (l *listener) unbind() {
	if l.place != nil {
		l.place.Leave()
	}
}

func (l *listener) close() error {
	l.unbind()
	return l.conn.Close()
}

// listen makes the socket of o, or takes the one that was passed.
func listen(o Options) (*listener, error) {
	if o.File == nil {
		return bind(o)
	}
	conn, err := fromFile(o.File)
	if err != nil {
		return nil, err
	}
	l := &listener{conn: conn}
	if info, err := os.Lstat(o.Path); err == nil && info.Mode().Type() == fs.ModeSocket {
		l.found = info
	}
	return l, nil
}

// fromFile is the datagram socket that f is, as a duplicate.
func fromFile(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("libtlsrpt: the socket that was passed: %w", err)
	}
	if unix, ok := conn.(*net.UnixConn); ok && conn.LocalAddr().Network() == "unixgram" {
		return unix, nil
	}
	conn.Close()
	return nil, errors.New("libtlsrpt: the socket that was passed is no Unix datagram socket (ListenDatagram= with a path)")
}

// bind makes the socket of o.
func bind(o Options) (*listener, error) {
	f := socket.File{Network: "unixgram", Path: o.Path, Mode: o.Mode, User: o.User, Group: o.Group}
	l := new(listener)
	var err error
	l.place, err = f.Bind(func(name string) (err error) {
		l.conn, err = net.ListenUnixgram(f.Network, &net.UnixAddr{Name: name, Net: f.Network})
		return err
	})
	if err != nil {
		if l.conn != nil {
			l.conn.Close()
		}
		return nil, fmt.Errorf("libtlsrpt: %w", err)
	}
	return l, nil
}
