package lmtp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/socket"
)

// office takes mail to addresses in example.com.
type office struct {
	mu    sync.Mutex
	taken []string // "to size"
	fail  error
}

func (o *office) deliver(_ context.Context, to string, message io.Reader) error {
	text, err := io.ReadAll(message)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		err = o.fail
	}
	if err == nil {
		o.taken = append(o.taken, fmt.Sprintf("%s %d", to, len(text)))
	}
	return err
}

func (o *office) list() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.taken)
}

// start runs a server until the test ends.
func start(t *testing.T, deliver func(context.Context, string, io.Reader) error) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	s, err := Listen(Options{
		Socket: socket.File{Path: path, Mode: 0o600}, Keep: 1000, Deliver: deliver,
		Knows: func(address string) bool { return strings.HasSuffix(address, "@example.com") },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.look = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return path
}

// talk is the replies to what a client says, line by line. Each item is a line, or
// a text of many lines that gets no reply.
func talk(t *testing.T, path string, lines ...string) (replies []string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for i := -1; i < len(lines); i++ {
		if i >= 0 {
			if _, err := io.WriteString(conn, lines[i]+"\r\n"); err != nil {
				return append(replies, "closed")
			}
			if strings.HasSuffix(lines[i], "\n") {
				continue
			}
		}
		for more := true; more; {
			line, err := r.ReadString('\n')
			if err != nil {
				return append(replies, "closed")
			}
			if more = len(line) > 3 && line[3] == '-'; !more {
				replies = append(replies, line[:3])
			}
		}
	}
	return replies
}

func TestServer(t *testing.T) {
	o := new(office)
	path := start(t, o.deliver)
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"a bounce", []string{"LHLO x", "MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA", "Subject: x\r\n\r\nhello\r\n.", "QUIT"}, "220 250 250 250 354 250 221"},
		{"from anybody", []string{"LHLO x", "MAIL FROM:<who@example.net> SIZE=100", "RCPT TO:<a@example.com>"}, "220 250 250 250"},
		{"to others", []string{"LHLO x", "MAIL FROM:<>", "RCPT TO:<a@example.net>", "RCPT TO:<postmaster>", "RCPT TO:<>", "DATA"}, "220 250 250 550 501 501 502"},
		{"too large as announced", []string{"LHLO x", "MAIL FROM:<> SIZE=99999999"}, "220 250 552"},
		{"nonsense", []string{"GET / HTTP/1.1", "LHLO x", "MAIL", strings.Repeat("x", 5000)}, "220 501 250 501 500"},
		{"not SMTP", []string{"EHLO x"}, "220 500"},
	} {
		if got := strings.Join(talk(t, path, c.lines...), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if got := o.list(); !slices.Equal(got, []string{"a@example.com 21"}) {
		t.Errorf("taken: %q", got)
	}
}

func TestSend(t *testing.T) {
	o := new(office)
	path := start(t, o.deliver)
	send := func(to string, message io.Reader) error { return Send(t.Context(), path, to, message) }
	if err := send("a@example.com", strings.NewReader("Subject: x\n\n.dots\n.\nhello\n")); err != nil {
		t.Error(err)
	}
	if err := send("b@example.com", strings.NewReader(strings.Repeat(strings.Repeat("x", 78)+"\r\n", 20000))); err != nil {
		t.Errorf("a long one: %v", err)
	}
	if err := send("a@example.net", strings.NewReader("hello\n")); !errors.Is(err, ErrRefused) {
		t.Errorf("to others: %v", err)
	}
	// Half a message is none.
	broken := io.MultiReader(strings.NewReader("Subject: x\r\n\r\nhello\r\n"), iotest.ErrReader(io.ErrClosedPipe))
	if err := send("a@example.com", broken); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a message that breaks off: %v", err)
	}
	o.mu.Lock()
	o.fail = errors.New("disk full")
	o.mu.Unlock()
	if err := send("a@example.com", strings.NewReader("hello\n")); err == nil || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "Try again later") {
		t.Errorf("without a store: %v", err)
	}
	if err := Send(t.Context(), path+"none", "a@example.com", strings.NewReader("")); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("without a server: %v", err)
	}
	if got := o.list(); !slices.Equal(got, []string{"a@example.com 31", "b@example.com 1000"}) {
		t.Errorf("taken: %q", got)
	}
}

// TestManyConns: one beyond the bound waits, and gets its turn.
func TestManyConns(t *testing.T) {
	path := start(t, new(office).deliver)
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, bufio.NewReader(conn)
	}
	hear := func(r *bufio.Reader) {
		if line, err := r.ReadString('\n'); err != nil || line[0] != '2' {
			t.Errorf("reply %q, %v", line, err)
		}
	}
	var held []func()
	var first net.Conn
	for range maxConns {
		conn, r := dial()
		hear(r)
		first = conn
		held = append(held, func() {
			fmt.Fprint(conn, "NOOP\r\n")
			hear(r)
		})
	}
	_, waiting := dial()
	var free atomic.Bool
	greeted := make(chan bool, 1)
	go func() {
		hear(waiting)
		greeted <- free.Load()
	}()
	for range 20 { // time enough for a server that did not wait
		for _, talk := range held {
			talk()
		}
	}
	free.Store(true)
	first.Close()
	if !<-greeted {
		t.Errorf("more than %d connections at once", maxConns)
	}
}

func TestListenRefuses(t *testing.T) {
	path := start(t, new(office).deliver)
	if _, err := Listen(Options{Socket: socket.File{Path: path}}); !errors.Is(err, socket.ErrInUse) {
		t.Errorf("a second server: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Socket: socket.File{Path: file}}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if _, err := Listen(Options{Socket: socket.File{Path: file + "x", Group: "no such group"}}); err == nil || !strings.Contains(err.Error(), "no such group") {
		t.Errorf("a group: %v", err)
	}
}

// TestSocketFileRemoved: the socket is made anew, as often as it takes, and who was
// connected goes on.
func TestSocketFileRemoved(t *testing.T) {
	var o office
	path := start(t, o.deliver)
	early, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	replies := bufio.NewReader(early)
	if reply, err := replies.ReadString('\n'); err != nil || !strings.HasPrefix(reply, "220 ") {
		t.Fatalf("greeting %q, %v", reply, err)
	}
	for range 3 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Lstat(path); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err := Send(t.Context(), path, "a@example.com", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := o.list(); len(got) != 3 {
		t.Errorf("taken: %q", got)
	}
	if _, err := io.WriteString(early, "NOOP\r\n"); err != nil {
		t.Fatal(err)
	}
	if reply, err := replies.ReadString('\n'); err != nil || !strings.HasPrefix(reply, "250 ") {
		t.Errorf("who was connected gets %q, %v", reply, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the new socket: %v, %v", info, err)
	}
}
