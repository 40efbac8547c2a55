package socket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// bind makes a stream socket that stays when it is closed.
func bind(t *testing.T, f File) (l *net.UnixListener, place *Place, err error) {
	t.Helper()
	f.Network = "unix"
	place, err = f.Bind(func(name string) (err error) {
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"}); err == nil {
			l.SetUnlinkOnClose(false)
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	return l, place, err
}

// TestBind: a live socket is respected, a dead one replaced, and Leave takes away
// its own alone. What else may be at a path is tested with package libtlsrpt.
func TestBind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, firstPlace, err := bind(t, File{Path: path, Mode: 0o620})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o620 {
		t.Errorf("%v, %v", info, err)
	}
	if _, _, err := bind(t, File{Path: path}); !errors.Is(err, ErrInUse) {
		t.Errorf("beside a live socket: %v", err)
	}
	first.Close()
	_, secondPlace, err := bind(t, File{Path: path})
	if err != nil {
		t.Fatalf("after a dead socket: %v", err)
	}
	if firstPlace.Held() || !secondPlace.Held() {
		t.Error("who holds the place is not told")
	}
	firstPlace.Leave()
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first one took the second one away: %v", err)
	} else {
		conn.Close()
	}
	secondPlace.Leave()
	if secondPlace.Held() {
		t.Error("it is held after it was left")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestBindFails leaves nothing behind.
func TestBindFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	place, err := File{Network: "unix", Path: path}.Bind(func(string) error { return fs.ErrPermission })
	if !errors.Is(err, fs.ErrPermission) || place != nil {
		t.Errorf("%v", err)
	}
	if _, _, err := bind(t, File{Path: path, User: "no such user"}); err == nil {
		t.Error("a user that is not there")
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
