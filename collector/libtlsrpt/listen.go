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
	"path/filepath"
	"sync"
	"syscall"
)

// ErrInUse means that another process listens on the socket. It is most likely
// another agent: end one of the two, or give them different sockets.
var ErrInUse = errors.New("libtlsrpt: another process listens on the socket")

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
	}
	var err error
	if o.File != nil {
		s.unbind = func() {}
		s.conn, err = fromFile(o.File)
	} else {
		s.conn, s.unbind, err = bind(o)
	}
	if err != nil {
		return nil, err
	}
	s.checkQueue(queueLengthFile)
	return s, nil
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

// maxPath is what fits into sun_path with its final NUL.
const maxPath = 107

// bind makes a socket at a name of its own, gives it its rights, and then its
// place.
func bind(o Options) (*net.UnixConn, func(), error) {
	temp, err := checkPath(o.Path)
	if err != nil {
		return nil, nil, err
	}
	uid, gid, err := owner(o.User, o.Group)
	if err != nil {
		return nil, nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: temp, Net: "unixgram"})
	if err != nil {
		return nil, nil, fmt.Errorf("libtlsrpt: making a socket in %s: %w", filepath.Dir(o.Path), hinted(err,
			"the user of the agent needs the right to write there"))
	}
	info, err := place(temp, o, uid, gid)
	if err != nil {
		conn.Close()
		os.Remove(temp) // if it is there still
		return nil, nil, err
	}
	unbind := sync.OnceFunc(func() {
		if now, err := os.Lstat(o.Path); err == nil && os.SameFile(info, now) {
			os.Remove(o.Path) // an error leaves a stale socket, which the next start replaces
		}
	})
	return conn, unbind, nil
}

// place makes the socket at temp the one at o.Path.
func place(temp string, o Options, uid, gid int) (fs.FileInfo, error) {
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(temp, uid, gid); err != nil {
			return nil, fmt.Errorf("libtlsrpt: giving the socket to user %q, group %q: %w", o.User, o.Group, hinted(err,
				"start the agent as root, or add its user to the group and set no user"))
		}
	}
	// After chown, which may take bits away.
	if err := os.Chmod(temp, cmp.Or(o.Mode, 0o660)); err != nil {
		return nil, fmt.Errorf("libtlsrpt: setting the mode of the socket: %w", err)
	}
	if err := os.Rename(temp, o.Path); err != nil {
		return nil, fmt.Errorf("libtlsrpt: putting the socket in its place: %w", err)
	}
	return os.Lstat(o.Path)
}

// hinted adds to a lack of rights what mends it.
func hinted(err error, hint string) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

// checkPath makes sure that a socket can be bound at path, and returns the name
// to bind it at first, in the same directory.
func checkPath(path string) (temp string, err error) {
	dir, base := filepath.Split(path)
	if base == "" || !filepath.IsAbs(path) {
		return "", fmt.Errorf("libtlsrpt: socket path %q: want an absolute path of a file", path)
	}
	temp = dir + tempName(dir, base)
	if n := max(len(path), len(temp)); n > maxPath {
		return "", fmt.Errorf("libtlsrpt: socket path %s: it is %d bytes too long: a socket's path has at most %d bytes",
			path, n-maxPath, maxPath)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("libtlsrpt: socket path %s: its directory does not exist: "+
			"create it with \"mkdir -p %s\", such that the MTA's user may enter it", path, filepath.Clean(dir))
	case err != nil:
		return "", fmt.Errorf("libtlsrpt: socket path %s: %w", path, err)
	case !info.IsDir():
		return "", fmt.Errorf("libtlsrpt: socket path %s: %s is not a directory", path, filepath.Clean(dir))
	}
	return temp, checkOccupant(path)
}

// checkOccupant makes sure that nothing is at path but a socket that nobody
// listens on.
func checkOccupant(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("libtlsrpt: socket path %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("libtlsrpt: socket path %s: something that is not a socket is there: remove it, or choose another path", path)
	}
	// Only a live socket can be connected to. Nothing is sent to it.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%w %s", ErrInUse, path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w %s", ErrInUse, path)
	}
	return fmt.Errorf("libtlsrpt: socket path %s: whether anyone listens on the socket there: %w", path, hinted(err,
		"remove it if nobody does"))
}
