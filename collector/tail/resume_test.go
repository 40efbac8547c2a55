package tail

import (
	"os"
	"strings"
	"testing"
	"time"
)

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
			if n := strings.Count(logs.String(), "may be lost"); n != 1 {
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
