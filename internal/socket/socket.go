// Package socket gives Unix sockets their place and their rights.
package socket

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

// ErrInUse means that another process listens on the socket. It is most likely
// another agent: end one of the two, or give them different sockets.
var ErrInUse = errors.New("socket: another process listens on the socket")

// File says where a socket is and who may use it.
type File struct {
	// Network is "unix" or "unixgram".
	Network string

	// Path of the socket, absolute, at most 107 bytes.
	Path string

	// Mode of the socket file; 0 is 0660. Who connects needs the right to write.
	Mode fs.FileMode

	// User and Group that the socket file belongs to, by name or number; ""
	// leaves it to the process. Another user takes privileges, and so does a
	// group that the process is not in.
	User, Group string
}

// MaxPath is what fits into sun_path with its final NUL.
const MaxPath = 107

// Bind has listen make a socket at a name of its own, gives it its rights, and
// then its place, in one step: who connects finds either the old one or the new
// one. A socket file that nobody listens on is replaced. Errors say what to do about them; [ErrInUse] is one.
func (f File) Bind(listen func(name string) error) (*Place, error) {
	temp, err := f.checkPath()
	if err != nil {
		return nil, err
	}
	uid, gid, err := owner(f.User, f.Group)
	if err != nil {
		return nil, err
	}
	if err := listen(temp); err != nil {
		return nil, fmt.Errorf("socket: making one in %s: %w", filepath.Dir(f.Path), hinted(err,
			"the user of the agent needs the right to write there"))
	}
	info, err := f.put(temp, uid, gid)
	if err != nil {
		os.Remove(temp) // if it is there still
		return nil, err
	}
	return &Place{path: f.Path, info: info}, nil
}

// Place is the file of a socket. Its methods are safe for concurrent use.
type Place struct {
	path string
	info fs.FileInfo
	left atomic.Bool
}

// Held reports whether the file is there still, and is no other one.
func (p *Place) Held() bool {
	now, err := os.Lstat(p.path)
	return err == nil && os.SameFile(p.info, now)
}

// Leave removes the file, unless another one has taken its place.
func (p *Place) Leave() {
	if !p.left.Swap(true) && p.Held() {
		os.Remove(p.path) // an error leaves a stale socket, which the next start replaces
	}
}

// put makes the socket at temp the one at f.Path.
func (f File) put(temp string, uid, gid int) (fs.FileInfo, error) {
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(temp, uid, gid); err != nil {
			return nil, fmt.Errorf("socket: giving it to user %q, group %q: %w", f.User, f.Group, hinted(err,
				"start the agent as root, or add its user to the group and set no user"))
		}
	}
	// After chown, which may take bits away.
	if err := os.Chmod(temp, cmp.Or(f.Mode, 0o660)); err != nil {
		return nil, fmt.Errorf("socket: setting its mode: %w", err)
	}
	if err := os.Rename(temp, f.Path); err != nil {
		return nil, fmt.Errorf("socket: putting it in its place: %w", err)
	}
	return os.Lstat(f.Path)
}

// hinted adds to a lack of rights what mends it.
func hinted(err error, hint string) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

// checkPath makes sure that a socket can be bound at f.Path, and returns the name
// to bind it at first, in the same directory.
func (f File) checkPath() (temp string, err error) {
	dir, base := filepath.Split(f.Path)
	if base == "" || !filepath.IsAbs(f.Path) {
		return "", fmt.Errorf("socket: path %q: want an absolute path of a file", f.Path)
	}
	temp = dir + tempName(dir, base)
	if n := max(len(f.Path), len(temp)); n > MaxPath {
		return "", fmt.Errorf("socket: path %s: it is %d bytes too long: a socket's path has at most %d bytes",
			f.Path, n-MaxPath, MaxPath)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("socket: path %s: its directory does not exist: "+
			"create it with \"mkdir -p %s\", such that the MTA's user may enter it", f.Path, filepath.Clean(dir))
	case err != nil:
		return "", fmt.Errorf("socket: path %s: %w", f.Path, err)
	case !info.IsDir():
		return "", fmt.Errorf("socket: path %s: %s is not a directory", f.Path, filepath.Clean(dir))
	}
	return temp, f.checkOccupant()
}

// tempName is a name in dir, which ends in a slash, that nothing else has. It is
// what lists of sockets go on to show, so it says whose it is; but it makes no
// path too long that base fits into.
func tempName(dir, base string) string {
	suffix := "." + strings.ToLower(rand.Text()[:4])
	room := max(MaxPath-len(dir)-len(suffix), 0)
	return base[:min(len(base), room)] + suffix
}

// checkOccupant makes sure that nothing is at f.Path but a socket that nobody
// listens on.
func (f File) checkOccupant() error {
	info, err := os.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket: path %s: %w", f.Path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("socket: path %s: something that is not a socket is there: remove it, or choose another path", f.Path)
	}
	// Only a live socket can be connected to. Nothing is sent to it.
	conn, err := net.DialUnix(f.Network, nil, &net.UnixAddr{Name: f.Path, Net: f.Network})
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%w %s", ErrInUse, f.Path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w %s", ErrInUse, f.Path)
	}
	return fmt.Errorf("socket: path %s: whether anyone listens on the socket there: %w", f.Path, hinted(err,
		"remove it if nobody does"))
}
