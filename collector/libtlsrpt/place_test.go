package libtlsrpt

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// watchedLog is a log that may be read while it is written to.
type watchedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *watchedLog) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watchedLog) count(s string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.text.String(), s)
}

// await waits until the log has said s so many times.
func (w *watchedLog) await(t *testing.T, s string, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); w.count(s) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log does not say %q %d times:\n%s", s, n, w.text.String())
		}
	}
}

// watched is a source that runs and looks at its file all the time.
func watched(t *testing.T, s *sink, o Options) (*harness, *watchedLog) {
	t.Helper()
	log := new(watchedLog)
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "s")
	}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	return startWith(t, s, o, func(s *Source) { s.look = time.Millisecond }), log
}

const anew = "the socket was made anew"

// TestSocketFileRemoved: what was sent before and after is counted, all of it.
func TestSocketFileRemoved(t *testing.T) {
	var s sink
	h, log := watched(t, &s, Options{Mode: 0o620})
	want := map[string]int64{}
	send := func(n int) {
		for i := range n {
			d := load("failure", i%7)
			h.send(d)
			expect(t, want, d)
		}
	}
	for round := range 5 {
		send(100)
		if err := os.Remove(h.path); err != nil {
			t.Fatal(err)
		}
		log.await(t, anew, round+1)
	}
	send(100)
	if info, err := os.Stat(h.path); err != nil || info.Mode().Perm() != 0o620 {
		t.Errorf("the new socket: %v, %v, want the mode of the old one", info, err)
	}
	h.mustStop()
	s.check(t, want)
	if entries, err := os.ReadDir(filepath.Dir(h.path)); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestSocketPlaceTaken: another process's socket is respected, and said to be in
// the way; when it is gone the source takes its place again.
func TestSocketPlaceTaken(t *testing.T) {
	var s sink
	h, log := watched(t, &s, Options{})
	connected := dial(t, h.path)
	// Renamed into the place, so that at no moment the source could take it again.
	beside := filepath.Join(t.TempDir(), "s")
	other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: beside, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(beside, h.path); err != nil {
		t.Fatal(err)
	}
	log.await(t, "another process listens on the socket", 1)
	if _, err := connected.Write(load("success-none", 1)); err != nil {
		t.Errorf("who was connected before cannot send any more: %v", err)
	}
	other.Close() // its file stays
	log.await(t, anew, 1)
	h.send(load("success-none", 1))
	h.mustStop()
	s.check(t, map[string]int64{"d1.example.com no-policy-found d1.example.com success": 2})
	if n := log.count("no session can be received"); n != 1 {
		t.Errorf("told %d times, want once a minute", n)
	}
}

// TestSocketDirectoryRemoved, and made again some time later.
func TestSocketDirectoryRemoved(t *testing.T) {
	var s sink
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h, log := watched(t, &s, Options{Path: filepath.Join(dir, "s")})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	log.await(t, "mkdir -p "+dir, 1)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log.await(t, anew, 1)
	h.send(load("success-none", 1))
	h.mustStop()
	s.check(t, map[string]int64{"d1.example.com no-policy-found d1.example.com success": 1})
}

// TestPassedSocketRemoved: only who made the socket can make it anew, so it is said.
func TestPassedSocketRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var s sink
	h, log := watched(t, &s, Options{Path: path, File: file})
	h.send(load("success-none", 1))
	h.await(1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	log.await(t, "restart who made it", 1)
	h.mustStop()
	s.check(t, map[string]int64{"d1.example.com no-policy-found d1.example.com success": 1})
}

// TestCloseWhileMoving: a source that is given up leaves no socket behind, whatever
// it was about to do.
func TestCloseWhileMoving(t *testing.T) {
	for range 50 {
		var s sink
		h, _ := watched(t, &s, Options{})
		os.Remove(h.path)
		time.Sleep(time.Millisecond)
		h.Close()
		if err := h.stop(); err == nil {
			t.Log("stopped before it was closed")
		}
		if entries, err := os.ReadDir(filepath.Dir(h.path)); err != nil || len(entries) > 0 {
			t.Fatalf("left: %v, %v", entries, err)
		}
	}
}
