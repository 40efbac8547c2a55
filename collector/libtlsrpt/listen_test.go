package libtlsrpt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/socket"
)

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("unix", filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	ok := filepath.Join(dir, "s")
	for _, c := range []struct {
		o    Options
		want string // within the error
	}{
		{Options{}, "absolute"},
		{Options{Path: "run/tlsrpt.sock"}, "absolute"},
		{Options{Path: dir + "/"}, "absolute path of a file"},
		{Options{Path: filepath.Join(dir, strings.Repeat("x", 200))}, "at most 107 bytes"},
		{Options{Path: filepath.Join(dir, "none", "s")}, "mkdir -p " + filepath.Join(dir, "none")},
		{Options{Path: filepath.Join(file, "s")}, "not a directory"},
		{Options{Path: file}, "not a socket"},
		{Options{Path: link}, "not a socket"},
		{Options{Path: dir}, "not a socket"},
		{Options{Path: stream.Addr().String()}, "another process listens"},
		{Options{Path: ok, User: "no such user"}, "no such user"},
		{Options{Path: ok, Group: "no such group"}, "no such group"},
	} {
		s, err := Listen(c.o)
		if err == nil {
			s.Close()
			t.Errorf("%+v is accepted, want an error with %q", c.o, c.want)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v\nwant %q", c.o, err, c.want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("%v is left, want file, link and stream", entries)
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file has %q, error %v", b, err)
	}
}

// TestLongestPath binds at 107 bytes, and is told how much too long 108 are.
func TestLongestPath(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "tlsrpt")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	base := strings.Repeat("x", socket.MaxPath-len(dir)-1)
	s, err := Listen(Options{Path: filepath.Join(dir, base)})
	if err != nil {
		t.Fatal(err)
	}
	dial(t, filepath.Join(dir, base))
	s.Close()
	if _, err = Listen(Options{Path: filepath.Join(dir, base+"x")}); err == nil || !strings.Contains(err.Error(), "1 bytes too long") {
		t.Errorf("error %v", err)
	}
}

func TestRights(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	info := func(o Options) (fs.FileMode, *syscall.Stat_t) {
		t.Helper()
		o.Path = path
		s, err := Listen(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode(), st.Sys().(*syscall.Stat_t)
	}
	if mode, _ := info(Options{}); mode != fs.ModeSocket|0o660 {
		t.Errorf("mode %v, want 0660", mode)
	}
	if mode, _ := info(Options{Mode: 0o222}); mode != fs.ModeSocket|0o222 {
		t.Errorf("mode %v, want 0222", mode)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Skip("the group of this process has no name")
	}
	if _, st := info(Options{User: me.Username, Group: group.Name}); fmt.Sprint(st.Uid, st.Gid) != me.Uid+" "+me.Gid {
		t.Errorf("owner %d:%d, want %s:%s", st.Uid, st.Gid, me.Uid, me.Gid)
	}
	if os.Geteuid() != 0 {
		_, err := Listen(Options{Path: path, User: "0"})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "start the agent as root") {
			t.Errorf("giving the socket to root: %v", err)
		}
		return
	}
	if mode, st := info(Options{User: "4711", Group: "4712", Mode: 0o620}); st.Uid != 4711 || st.Gid != 4712 || mode.Perm() != 0o620 {
		t.Errorf("owner %d:%d, mode %v, want 4711:4712, 0620", st.Uid, st.Gid, mode)
	}
}

// TestStaleAndLive replaces what a process left that is gone, but not what one
// listens on.
func TestStaleAndLive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Path: path}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a live socket: %v", err)
	}
	dial(t, path) // it is there still
	left.Close()  // a datagram socket stays in the file system

	s, err := Listen(Options{Path: path})
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	defer s.Close()
	if _, err := Listen(Options{Path: path}); !errors.Is(err, ErrInUse) {
		t.Errorf("our own live socket: %v", err)
	}
	dial(t, path)
}

// TestCloseLeavesOthersAlone closes a source after another took its path.
func TestCloseLeavesOthersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := Listen(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	dial(t, path)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket file is still there: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestReplacedInOneStep sends without pause while the socket is made anew. There
// must always be one that takes datagrams, but for the stale one at the start.
func TestReplacedInOneStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	left.Close()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			// Its rights must never be other than asked for, either.
			info, err := os.Lstat(path)
			if err != nil {
				done <- err
				return
			}
			if p := info.Mode().Perm(); p != 0o755 && p != 0o600 {
				done <- fmt.Errorf("mode %v", p)
				return
			}
		}
	}()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		s, err := Listen(Options{Path: path, Mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		s.at.conn.Close() // as a crash would
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPassedSocket holds that a socket of someone else's making is used, found
// by its path, and left alone at the end.
func TestPassedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	socket := passedSocket(t, path)
	stream, err := net.Listen("unix", filepath.Join(t.TempDir(), "web"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	web, err := stream.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	files := []*os.File{os.Stdin, web, socket}
	if got := socketAt(path, files); got != socket {
		t.Fatalf("found %v", got)
	}
	if got := socketAt(path+"x", files); got != nil {
		t.Fatalf("found %v at another path", got.Name())
	}
	for _, f := range files[:2] {
		if s, err := Listen(Options{Path: path, File: f}); err == nil {
			s.Close()
			t.Errorf("%s is accepted", f.Name())
		}
	}
	var s sink
	for n := int64(1); n <= 2; n++ { // the second follows upon a restart
		dial(t, path).Write([]byte(policy(okPolicy)))
		h := start(t, &s, Options{Path: path, File: socket})
		h.await(1)
		h.mustStop()
		s.check(t, map[string]int64{"example.com no-policy-found example.com success": n})
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket file is gone: %v", err)
	}
}

// passedSocket is a bound socket as systemd passes it.
func passedSocket(t *testing.T, path string) *os.File {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // f is a duplicate
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// activatedChild names the variable that makes a process of this test the child
// of TestActivated; its value is the path of the socket.
const activatedChild = "LIBTLSRPT_TEST_ACTIVATED"

// TestActivated passes a socket to a process the way systemd does.
func TestActivated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	socket := passedSocket(t, path)
	dial(t, path).Write([]byte(policy(okPolicy)))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), activatedChild+"="+path, "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{socket}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "1 session\n" {
		t.Errorf("the child said %q, error %v", out, err)
	}
}

// runActivatedChild counts what is queued and says how much that was.
func runActivatedChild() int {
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // systemd knows it in time
	path := os.Getenv(activatedChild)
	f := Activated(path)
	if f == nil || Activated(path) != f || Activated("/nowhere") != nil {
		fmt.Println("no socket was passed, or another each time")
		return 1
	}
	source, err := Listen(Options{Path: path, File: f})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var s discard
	if err := source.Run(ctx, &s); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(s.sessions.Load(), "session")
	return 0
}

func TestQueueLength(t *testing.T) {
	for _, c := range []struct {
		text string
		warn bool
	}{
		{"10\n", true}, {"511\n", true}, {"512\n", false}, {"4096\n", false}, {"", false}, {"x", false},
	} {
		file := filepath.Join(t.TempDir(), "max_dgram_qlen")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s := Source{logger: slog.New(slog.NewTextHandler(&log, nil))}
		s.checkQueue(file)
		s.checkQueue(file + ".none")
		if got := strings.Count(log.String(), "sysctl -w net.unix.max_dgram_qlen=512"); got != map[bool]int{true: 1}[c.warn] {
			t.Errorf("%q: %d warnings:\n%s", c.text, got, &log)
		}
	}
}
