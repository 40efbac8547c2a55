package tail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
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

// TestCatchUp restarts after many rotations, some of them compressed.
func TestCatchUp(t *testing.T) {
	l := newLog(t)
	l.lines(100)
	r := l.follow(nil)
	r.drain()
	position := r.Position()
	for i := range 15 {
		l.lines(50)
		l.rename()
		if i%3 > 0 {
			l.compress(l.path + ".1")
		}
		l.reopen()
	}
	l.lines(10)
	r.mustClose()
	again := l.follow(position).drain()
	sameLines(t, append(r.got, again.got...), l.want)
	if s := again.Stats(); s.Rotations != 15 || s.Gaps != 0 || s.Lag != 0 {
		t.Errorf("stats %+v, want 15 rotations and no gap", s)
	}
}

// TestReusedInode gives the inode of the position to another file, such as a file
// system does that has few.
func TestReusedInode(t *testing.T) {
	for _, read := range []int{1, 50} {
		l := newLog(t)
		l.lines(read)
		r := l.follow(nil).drain()
		position := r.Position()
		r.mustClose()
		l.lines(5)
		text, err := os.ReadFile(l.path)
		l.must(err)
		l.must(os.WriteFile(l.path+".1", text, 0o600))
		l.must(os.Truncate(l.path, 0))
		l.lines(200) // more than there was
		sameLines(t, append(r.got, l.follow(position).drain().got...), l.want)
	}
}

// TestLost removes what was not read yet.
func TestLost(t *testing.T) {
	for name, c := range map[string]struct {
		restart bool
		lose    func(*testLog)
		bytes   int64 // that are known to be lost
	}{
		"truncated":             {false, func(l *testLog) { l.must(os.Truncate(l.path, 0)) }, 0},
		"truncated while down":  {true, func(l *testLog) { l.must(os.Truncate(l.path, 0)) }, 0},
		"removed while down":    {true, func(l *testLog) { l.must(os.Remove(l.path)); l.reopen() }, 0},
		"truncated, known":      {false, func(l *testLog) { l.must(os.Truncate(l.path, 0)) }, 10},
		"written anew, as long": {true, func(l *testLog) { l.must(os.WriteFile(l.path, make([]byte, 10_000), 0o600)) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.lines(40)
			var logs logBuffer
			o := Options{Path: l.path, Follow: true, FromStart: true, Quiet: 1, Poll: time.Hour, Logger: logs.logger()}
			r := openTail(t, o, nil)
			if c.bytes > 0 {
				l.partial()
				l.part = ""
			}
			r.drain()
			position := r.Position()
			if c.restart {
				r.mustClose()
				l.lines(3)
				l.want = l.want[:40]
			}
			c.lose(l)
			l.lines(5)
			got := r.got
			if c.restart {
				r = openTail(t, o, position)
			}
			l.lines(1)
			r.drain()
			if c.restart {
				r.got = append(got, r.got...)
			}
			sameLines(t, r.got, l.want)
			if s := r.Stats(); s.Gaps != 1 || s.Lost != c.bytes {
				t.Errorf("stats %+v, want a gap of %d bytes", s, c.bytes)
			}
			if n := strings.Count(logs.String(), "are lost"); n != 1 {
				t.Errorf("%d lines say so:\n%s", n, &logs)
			}
		})
	}
}

// TestCopyIsOlder loses what was written between copy and truncation, but not
// what was read of it, and reads nothing twice.
func TestCopyIsOlder(t *testing.T) {
	for _, read := range []bool{false, true} {
		l := newLog(t)
		l.lines(100)
		r := l.follow(nil).drain()
		text, err := os.ReadFile(l.path)
		l.must(err)
		l.must(os.WriteFile(l.path+".1", text, 0o600))
		l.lines(2)
		if read {
			r.drain()
		} else {
			l.want = l.want[:100]
		}
		l.must(os.Truncate(l.path, 0))
		l.lines(3)
		sameLines(t, r.drain().got, l.want)
	}
}

// TestCrash takes the end of a log away, as a crash of the system may.
func TestCrash(t *testing.T) {
	l := newLog(t)
	l.lines(100)
	r := l.follow(nil).drain()
	position := r.Position()
	r.mustClose()
	info, err := l.file.Stat()
	l.must(err)
	l.must(os.Truncate(l.path, info.Size()-200))
	r = l.follow(position).drain()
	l.write("\n")
	l.want = nil
	l.lines(3)
	r.drain()
	if len(r.got) == 0 || !strings.HasPrefix(r.got[0], "Nov 22") {
		t.Fatalf("%q, want the line that was cut first", r.got)
	}
	sameLines(t, r.got[1:], l.want)
	if s := r.Stats(); s.Gaps != 1 {
		t.Errorf("stats %+v, want a gap", s)
	}
}

// TestUnreadable passes over files in formats that cannot be read.
func TestUnreadable(t *testing.T) {
	bad := map[string]struct{ suffix, text, why string }{
		"zstd":    {".zst", "\x28\xb5\x2f\xfd....", `zstd -d`},
		"xz":      {".xz", "\xfd7zXZ\x00....", `xz -d`},
		"cut":     {".gz", string(zip(make([]byte, 10_000))[:30]), "incomplete"},
		"no gzip": {".gz", "\x1f\x8b no gzip", "damaged"},
	}
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.lines(3)
			var logs logBuffer
			o := Options{Path: l.path, Follow: true, FromStart: true, Quiet: 1, Poll: time.Hour, Logger: logs.logger()}
			r := openTail(t, o, nil).drain()
			position := r.Position()
			r.mustClose()
			l.rename()
			l.shift()
			l.must(os.WriteFile(l.path+".1"+c.suffix, []byte(c.text), 0o600))
			l.reopen()
			l.lines(3)
			again := openTail(t, o, position).drain()
			sameLines(t, append(r.got, again.got...), l.want)
			if s := again.Stats(); s.Unreadable != 1 || !strings.Contains(logs.String(), c.why) {
				t.Errorf("stats %+v, want one unreadable, %q:\n%s", s, c.why, &logs)
			}
			o.Path, o.Follow = l.path+".1"+c.suffix, false
			tail, err := Open(o, nil)
			if err == nil {
				_, err = tail.Next(t.Context())
				tail.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("import: error %v, want %q", err, c.why)
			}
		})
	}
}

// TestDamaged reads what can be read of a file whose end is damaged.
func TestDamaged(t *testing.T) {
	l := newLog(t)
	l.lines(50)
	r := l.follow(nil).drain()
	position := r.Position()
	r.mustClose()
	l.lines(1000)
	l.rename()
	l.compress(l.path + ".1")
	packed, err := os.ReadFile(l.path + ".1.gz")
	l.must(err)
	packed[len(packed)-8] ^= 1 // of the checksum
	l.must(os.WriteFile(l.path+".1.gz", packed, 0o600))
	l.reopen()
	l.lines(1)
	again := l.follow(position).drain()
	sameLines(t, append(r.got, again.got...), l.want)
	if s := again.Stats(); s.Unreadable != 1 {
		t.Errorf("stats %+v, want one unreadable", s)
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

// deniedChild reads a log whose directory it may not enter for a while. It is not
// root, whom nothing is denied.
func deniedChild() int {
	path := os.Getenv("TAIL_TEST_PATH")
	var logs logBuffer
	r, err := Open(Options{Path: path, Follow: true, FromStart: true, Quiet: 1, Poll: time.Millisecond, Logger: logs.logger()}, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer r.Close()
	said := false
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		chunk, err := r.Next(ctx)
		cancel()
		os.Stdout.Write(chunk)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			fmt.Println(err)
			return 1
		}
		if !said && strings.Contains(logs.String(), "permission denied") {
			said = true
			fmt.Println("denied")
		}
		if strings.Contains(string(chunk), "last") {
			return 0
		}
	}
}

func TestPermission(t *testing.T) {
	dir, err := os.MkdirTemp("", "tail") // every part of t.TempDir may be closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, from := range []string{"start", "rotation"} {
		l := &testLog{t: t, path: filepath.Join(dir, from, "mail.log")}
		closed := filepath.Dir(l.path)
		l.must(os.Chmod(dir, 0o755))
		l.must(os.Mkdir(closed, 0o755))
		l.reopen()
		defer l.close()
		l.must(l.file.Chmod(0o644))
		l.lines(3)
		if from == "start" {
			l.must(os.Chmod(closed, 0))
		}
		out, wait := startUnprivileged(t, "denied", l.path)
		if from == "rotation" {
			out.await(l.want[2])
			l.must(os.Chmod(closed, 0))
		}
		if os.Getuid() != 0 { // the writer needs the right as well
			out.await("denied")
			l.must(os.Chmod(closed, 0o755))
		}
		l.lines(3) // it has the file open
		l.rename()
		l.reopen()
		l.must(l.file.Chmod(0o644))
		l.lines(3)
		if os.Getuid() == 0 {
			out.await("denied")
			l.must(os.Chmod(closed, 0o755))
		}
		l.write("last\n")
		wait()
		want := strings.Join(append(l.want, "last"), "\n")
		if got := strings.TrimSpace(strings.Replace(out.String(), "denied\n", "", 1)); from == "rotation" && got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", from, got, want)
		} else if from == "start" && !strings.HasSuffix(want, got) {
			t.Errorf("%s: got\n%s\nwant the end of\n%s", from, got, want)
		}
	}
}

// startUnprivileged starts this program as a child of the name, and as nobody if
// it is root's.
func startUnprivileged(t *testing.T, name, path string) (out *output, wait func()) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // nobody may not enter the build's directory
		exe := filepath.Join(filepath.Dir(filepath.Dir(path)), "self")
		text, err := os.ReadFile(self)
		if err == nil {
			err = os.WriteFile(exe, text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		self = exe
	}
	out = &output{t: t}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TAIL_TEST_CHILD="+name, "TAIL_TEST_PATH="+path)
	cmd.Stdout, cmd.Stderr = out, out
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timeout := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	return out, func() {
		t.Helper()
		defer timeout.Stop()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// output is what a child prints.
type output struct {
	logBuffer
	t *testing.T
}

func (o *output) await(text string) {
	o.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(o.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			o.t.Fatalf("the child does not print %q:\n%s", text, o)
		}
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
