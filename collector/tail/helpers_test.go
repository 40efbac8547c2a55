package tail

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if do := children[os.Getenv("TAIL_TEST_CHILD")]; do != nil {
		os.Exit(do())
	}
	goleak.VerifyTestMain(m)
}

// children are what this program does instead of tests, as a child of one.
var children = map[string]func() int{
	"reader":     readerChild,
	"journalctl": journalctlChild,
	"denied":     deniedChild,
}

// testLog is a log and the program that writes it.
type testLog struct {
	t    fataler
	path string
	file *os.File // that the program has open
	n    int      // of lines, for their text
	want []string // lines that were written, whole
	part string   // of a line

	files int // that were rotated
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newLog(t *testing.T) *testLog {
	l := &testLog{t: t, path: filepath.Join(t.TempDir(), "mail.log")}
	l.reopen()
	t.Cleanup(l.close)
	return l
}

func (l *testLog) close() { l.file.Close() }

func (l *testLog) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// reopen is what SIGHUP makes a program do.
func (l *testLog) reopen() {
	l.t.Helper()
	if l.file != nil {
		l.file.Close()
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	l.must(err)
	l.file = f
}

func (l *testLog) write(text string) {
	l.t.Helper()
	_, err := l.file.WriteString(text)
	l.must(err)
}

func (l *testLog) line() string {
	l.n++
	return fmt.Sprintf("Nov 22 10:11:12 host postfix/smtp[4711]: %06d %s", l.n, strings.Repeat("x", l.n%50))
}

// lines writes n lines.
func (l *testLog) lines(n int) {
	l.t.Helper()
	for range n {
		text := l.line()
		l.write(text + "\n")
		l.want = append(l.want, text)
	}
}

// partial writes the beginning of a line, and complete the rest of it.
func (l *testLog) partial() {
	l.t.Helper()
	l.part = l.line()
	l.write(l.part[:10])
}

func (l *testLog) complete() {
	l.t.Helper()
	if l.part != "" {
		l.write(l.part[10:] + "\n")
		l.want = append(l.want, l.part)
		l.part = ""
	}
}

// shift renames the rotated files: 1 to 2 and so on.
func (l *testLog) shift() {
	l.t.Helper()
	l.files++
	for n := l.files; n > 0; n-- {
		for _, ext := range []string{"", ".gz"} {
			err := os.Rename(fmt.Sprintf("%s.%d%s", l.path, n, ext), fmt.Sprintf("%s.%d%s", l.path, n+1, ext))
			if !errors.Is(err, fs.ErrNotExist) {
				l.must(err)
			}
		}
	}
}

func (l *testLog) rename() {
	l.t.Helper()
	l.shift()
	l.must(os.Rename(l.path, l.path+".1"))
}

func (l *testLog) copyTruncate() {
	l.t.Helper()
	l.shift()
	text, err := os.ReadFile(l.path)
	l.must(err)
	l.must(os.WriteFile(l.path+".1", text, 0o600))
	l.must(os.Truncate(l.path, 0))
}

// compress replaces the rotated file by name.gz, with the same time.
func (l *testLog) compress(name string) {
	l.t.Helper()
	text, err := os.ReadFile(name)
	l.must(err)
	info, err := os.Stat(name)
	l.must(err)
	l.must(os.WriteFile(name+".gz", zip(text), 0o600))
	l.must(os.Chtimes(name+".gz", info.ModTime(), info.ModTime()))
	l.must(os.Remove(name))
}

func zip(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(text)
	w.Close()
	return b.Bytes()
}

// follow opens the log such that drain can read it.
func (l *testLog) follow(position []byte) *testTail {
	l.t.Helper()
	return openTail(l.t, Options{Path: l.path, Follow: true, FromStart: true, Quiet: 1, Poll: time.Hour}, position)
}

// testTail gathers the lines of a Tail.
type testTail struct {
	*Tail
	t   fataler
	got []string
}

func openTail(t fataler, o Options, position []byte) *testTail {
	t.Helper()
	tail, err := Open(o, position)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := t.(*testing.T); ok {
		c.Cleanup(func() { tail.Close() })
	}
	return &testTail{Tail: tail, t: t}
}

func background() until { return until{ctx: context.Background()} }

// step reads a chunk. It is false if there is nothing to read now.
func (r *testTail) step() bool {
	r.t.Helper()
	for {
		chunk, err := r.source.(*follower).step(background())
		r.add(chunk)
		switch {
		case err == errWait, errors.Is(err, fs.ErrNotExist):
			return false
		case err != nil:
			r.t.Fatal(err)
		case len(chunk) > 0:
			return true
		}
	}
}

// drain reads all there is. It needs no time: Options.Quiet is none.
func (r *testTail) drain() *testTail {
	r.t.Helper()
	for r.step() {
	}
	return r
}

func (r *testTail) add(chunk []byte) {
	r.t.Helper()
	if len(chunk) == 0 {
		return
	}
	text, ok := strings.CutSuffix(string(chunk), "\n")
	if !ok {
		r.t.Fatalf("a chunk without newline at the end: %.100q", chunk)
	}
	r.got = append(r.got, strings.Split(text, "\n")...)
}

// next waits for n more lines.
func (r *testTail) next(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for n += len(r.got); len(r.got) < n; {
		chunk, err := r.Next(ctx)
		if err != nil {
			r.t.Fatalf("Next: %v, after %d lines of %d", err, len(r.got), n)
		}
		r.add(chunk)
	}
}

// rest reads up to the end of a log that is not followed.
func (r *testTail) rest() {
	r.t.Helper()
	for {
		chunk, err := r.Next(context.Background())
		if err == io.EOF {
			return
		}
		if err != nil {
			r.t.Fatal(err)
		}
		r.add(chunk)
	}
}

func (r *testTail) mustClose() {
	r.t.Helper()
	if err := r.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// sameLines fails with the first line that differs.
func sameLines(t fataler, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("line %d of %d is %.80q, want %.80q (%d lines)", i, len(got), got[i], want[i], len(want))
		}
	}
	if len(got) > len(want) {
		t.Fatalf("%d lines, want %d: the next is %.80q, which is line %d too",
			len(got), len(want), got[len(want)], slices.Index(want, got[len(want)]))
	}
	if len(got) < len(want) {
		t.Fatalf("%d lines, want %d: the next would be %.80q", len(got), len(want), want[len(got)])
	}
}

// logBuffer takes log lines from any goroutine.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
