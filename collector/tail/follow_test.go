package tail

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// live opens the log as the agent does, but for a shorter patience.
func (l *testLog) live(logs *logBuffer) *testTail {
	l.t.Helper()
	return openTail(l.t, Options{Path: l.path, Follow: true, Quiet: 20 * time.Millisecond, Logger: logs.logger()}, nil)
}

// TestWoken reads what is written while Next waits, before polling would find it.
func TestWoken(t *testing.T) {
	l := newLog(t)
	r := openTail(t, Options{Path: l.path, Follow: true, Quiet: time.Millisecond, Poll: time.Hour}, nil)
	for range 5 {
		during(func() { l.lines(3) }, func() { r.next(3) })
	}
	during(func() {
		l.lines(3)
		l.rename()
		l.reopen()
		l.lines(3)
	}, func() { r.next(6) })
	sameLines(t, r.got, l.want)
}

// during runs write while read waits for it.
func during(write, read func()) {
	var writing sync.WaitGroup
	writing.Go(func() {
		time.Sleep(time.Millisecond) // most likely it waits then
		write()
	})
	read()
	writing.Wait()
}

// TestPolled reads where the system gives no notice of changes.
func TestPolled(t *testing.T) {
	newNotify = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
	defer func() { newNotify = fsnotify.NewWatcher }()
	l := newLog(t)
	var logs logBuffer
	r := openTail(t, Options{Path: l.path, Follow: true, Quiet: 1, Poll: time.Millisecond, Logger: logs.logger()}, nil)
	for range 3 {
		during(func() { l.lines(3) }, func() { r.next(3) })
	}
	sameLines(t, r.got, l.want)
	if !strings.Contains(logs.String(), "too many open files") {
		t.Errorf("the reason is not logged:\n%s", &logs)
	}
}

// TestAppearsLater begins before there is a log, or a directory for it.
func TestAppearsLater(t *testing.T) {
	for _, fromStart := range []bool{false, true} {
		dir := t.TempDir()
		l := &testLog{t: t, path: filepath.Join(dir, "new/mail.log")}
		o := Options{Path: l.path, Follow: true, FromStart: fromStart, Quiet: 1, Poll: time.Millisecond}
		r := openTail(t, o, nil)
		position := r.Position()
		l.must(os.Mkdir(filepath.Dir(l.path), 0o700))
		l.reopen()
		defer l.close()
		l.lines(3)
		l.rename()
		l.reopen()
		l.lines(3)
		r.next(6)
		sameLines(t, r.got, l.want)
		r = openTail(t, o, position)
		r.next(6)
		sameLines(t, r.got, l.want)
	}
}

// TestNewSource holds that a new source begins at the end, with a whole line.
func TestNewSource(t *testing.T) {
	for _, end := range []string{"", "\n", "some lines\nand a half\n", "a line that is inco", "some lines\nand one that is inco"} {
		l := newLog(t)
		l.write(end)
		o := Options{Path: l.path, Follow: true, Quiet: 1, Poll: time.Hour}
		r := openTail(t, o, nil)
		position := r.Position()
		l.rename()
		_, part, _ := strings.Cut("\n"+end, "\n")
		for strings.Contains(part, "\n") {
			_, part, _ = strings.Cut(part, "\n")
		}
		l.write("mplete\n")
		l.want = append(l.want, part+"mplete")
		l.lines(2)
		l.reopen()
		l.lines(2)
		sameLines(t, r.drain().got, l.want)
		sameLines(t, openTail(t, o, position).drain().got, l.want)
	}
}

// TestNewSourceLongLine begins within a line that is too long.
func TestNewSourceLongLine(t *testing.T) {
	l := newLog(t)
	l.write("a\n" + strings.Repeat("x", MaxLine+2))
	o := Options{Path: l.path, Follow: true, Quiet: 1, Poll: time.Hour}
	r := openTail(t, o, nil)
	position := r.Position()
	l.write("yz\n")
	l.lines(2)
	sameLines(t, r.drain().got, l.want)
	sameLines(t, openTail(t, o, position).drain().got, l.want)
}

// TestNewSourceAfterRotation begins with a log that was just rotated, or is about
// to be made: what is in the older files is not read, what follows them is.
func TestNewSourceAfterRotation(t *testing.T) {
	for _, compress := range []bool{false, true} {
		for _, create := range []bool{false, true} {
			l := newLog(t)
			l.lines(5)
			l.rename()
			if compress {
				l.compress(l.path + ".1")
			}
			l.want = nil
			if create {
				l.reopen()
			}
			o := Options{Path: l.path, Follow: true, Quiet: 1, Poll: time.Hour}
			position := openTail(t, o, nil).Position()
			l.reopen()
			l.lines(3)
			l.rename()
			l.reopen()
			l.lines(3)
			sameLines(t, openTail(t, o, position).drain().got, l.want)
		}
	}
}

// TestLongLineRestart restarts within a line that is too long.
func TestLongLineRestart(t *testing.T) {
	l := newLog(t)
	l.lines(2)
	long := strings.Repeat("x", 3*MaxLine)
	l.write(long)
	r := l.follow(nil).drain()
	position := r.Position()
	r.mustClose()
	l.write(long + "\n")
	l.want = append(l.want, long[:MaxLine])
	l.lines(2)
	again := l.follow(position).drain()
	sameLines(t, append(r.got, again.got...), l.want)
	if n := r.Stats().Cut + again.Stats().Cut; n != 1 {
		t.Errorf("%d lines were cut, want 1", n)
	}
}

// TestOddPaths opens what is no log.
func TestOddPaths(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o   Options
		why string
	}{
		{Options{}, "one of"},
		{Options{Path: dir, Journal: true}, "one of"},
		{Options{Path: dir, Follow: true}, "not a regular file"},
		{Options{Path: fifo, Follow: true}, "not a regular file"},
		{Options{Path: filepath.Join(dir, "none")}, "no such file"},
	} {
		if _, err := Open(c.o, nil); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%+v: error %v, want %q", c.o, err, c.why)
		}
	}
	// A pipe that takes the place of the log later must not hang anyone.
	l := newLog(t)
	var logs logBuffer
	r := l.live(&logs)
	l.must(os.Remove(l.path))
	l.must(syscall.Mkfifo(l.path, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	l.must(os.Remove(l.path))
	l.reopen()
	l.lines(2)
	r.next(2)
	sameLines(t, r.got, l.want)
}

func TestLag(t *testing.T) {
	l := newLog(t)
	r := l.follow(nil)
	for _, want := range []int64{0, 10, 16} {
		if lag := r.Stats().Lag; lag != want {
			t.Errorf("lag %d, want %d", lag, want)
		}
		if want == 0 {
			l.write("123456789\n")
		} else if want == 10 {
			r.drain()
			l.write("123456789\n")
			l.rename()
			l.reopen()
			l.write("12345\n")
		}
	}
	r.drain()
	if lag := r.Stats().Lag; lag != 0 {
		t.Errorf("lag %d at the end", lag)
	}
}

// TestCancel ends Next while it waits, and loses nothing by it.
func TestCancel(t *testing.T) {
	l := newLog(t)
	r := openTail(t, Options{Path: l.path, Follow: true, Poll: time.Hour}, nil)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if chunk, err := r.Next(ctx); err != cause || chunk != nil {
		t.Errorf("%q, error %v", chunk, err)
	}
	l.lines(2)
	if chunk, err := r.Next(ctx); err != cause || chunk != nil {
		t.Errorf("%q, error %v", chunk, err)
	}
	r.next(2)
	sameLines(t, r.got, l.want)
}

// TestClose ends Next from another goroutine.
func TestClose(t *testing.T) {
	l := newLog(t)
	r := openTail(t, Options{Path: l.path, Follow: true, Poll: time.Hour}, nil)
	closed := make(chan error)
	time.AfterFunc(20*time.Millisecond, func() { closed <- r.Close() })
	if chunk, err := r.Next(t.Context()); err != fs.ErrClosed || chunk != nil {
		t.Errorf("%q, error %v", chunk, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Next(t.Context()); err != fs.ErrClosed {
		t.Errorf("error %v", err)
	}
}
