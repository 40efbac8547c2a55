package tail

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rotations are the ways to rotate a log. Between begin and end the program may
// still write to the old file.
var rotations = []struct {
	name       string
	begin, end func(*testLog)
	whole      bool // lines must be whole when it begins
}{
	{name: "rename", begin: (*testLog).rename, end: (*testLog).reopen},
	{name: "rename and create", begin: func(l *testLog) {
		l.rename()
		l.must(os.WriteFile(l.path, nil, 0o600))
	}, end: (*testLog).reopen},
	{name: "rename and compress", begin: (*testLog).rename, end: func(l *testLog) {
		l.reopen()
		l.compress(l.path + ".1")
	}},
	{name: "date", begin: func(l *testLog) { l.must(os.Rename(l.path, l.path+"-20261122")) }, end: (*testLog).reopen},
	{name: "date and compress", begin: func(l *testLog) { l.must(os.Rename(l.path, l.path+"-20261122")) }, end: func(l *testLog) {
		l.reopen()
		l.compress(l.path + "-20261122")
	}},
	{name: "extension", begin: func(l *testLog) {
		l.must(os.Rename(l.path, filepath.Join(filepath.Dir(l.path), "mail-20261122.log")))
	}, end: (*testLog).reopen},
	{name: "copytruncate", begin: (*testLog).copyTruncate, end: func(*testLog) {}, whole: true},
	{name: "copytruncate and compress", begin: func(l *testLog) {
		l.copyTruncate()
		l.compress(l.path + ".1")
	}, end: func(*testLog) {}, whole: true},
	{name: "copytruncate under a writer that does not append", begin: func(l *testLog) {
		// The next write leaves a hole where the log was.
		info, err := l.file.Stat()
		l.must(err)
		f, err := os.OpenFile(l.path, os.O_WRONLY, 0)
		l.must(err)
		_, err = f.Seek(info.Size(), 0)
		l.must(err)
		l.file.Close()
		l.file = f
		l.copyTruncate()
	}, end: func(*testLog) {}, whole: true},
	{name: "twice", begin: (*testLog).rename, end: func(l *testLog) {
		l.reopen()
		l.lines(3)
		l.rename()
		l.compress(l.path + ".2")
		l.reopen()
	}},
	{name: "empty between", begin: (*testLog).rename, end: func(l *testLog) {
		for range 3 {
			l.reopen()
			l.rename()
		}
		l.reopen()
	}},
}

// TestRotation rotates a log, by each means, at several instants of reading it,
// and with and without a restart of the reader over it.
func TestRotation(t *testing.T) {
	for _, style := range rotations {
		for _, read := range []string{"nothing", "some", "all"} {
			for _, restart := range []bool{false, true} {
				for _, split := range []bool{false, true} {
					if split && style.whole {
						continue
					}
					t.Run(fmt.Sprintf("%s/read %s/restart %t/split %t", style.name, read, restart, split), func(t *testing.T) {
						l := newLog(t)
						l.lines(20)
						var got []string
						r := l.follow(nil)
						if read != "nothing" {
							r.step()
						}
						l.lines(20)
						if split {
							l.partial()
						}
						if read == "all" {
							r.drain()
						}
						if restart {
							got = r.got
							r.mustClose()
						}
						position := r.Position()
						style.begin(l)
						if !restart && read == "some" {
							r.step()
						}
						l.complete()
						if !style.whole {
							l.lines(2)
						}
						style.end(l)
						l.lines(20)
						if restart {
							r = l.follow(position)
						}
						sameLines(t, append(got, r.drain().got...), l.want)

						// What follows is read too, and nothing was lost.
						l.lines(1)
						sameLines(t, append(got, r.drain().got...), l.want)
						if s := r.Stats(); s.Gaps != 0 || s.Lost != 0 || s.Unreadable != 0 || s.Lag != 0 {
							t.Errorf("stats %+v, want no loss and no lag", s)
						}
					})
				}
			}
		}
	}
}

// TestQuiet holds that a rotated file is read as long as a program may write to
// it, and the next one after that.
func TestQuiet(t *testing.T) {
	l := newLog(t)
	r := openTail(t, Options{Path: l.path, Follow: true, Quiet: time.Hour, Poll: time.Hour}, nil)
	f := r.source.(*follower)
	age := func(d time.Duration) { // as if so much time had passed
		f.grew = f.grew.Add(-d)
		if !f.turned.IsZero() {
			f.turned = f.turned.Add(-d)
		}
	}
	l.lines(3)
	r.drain()
	l.rename()
	l.must(os.WriteFile(l.path, nil, 0o600)) // as logrotate's create does
	r.drain()
	age(100 * time.Hour)
	l.lines(1) // long after: there is nothing to go on with, so nothing is lost
	sameLines(t, r.drain().got, l.want)

	other := &testLog{t: t, path: l.path, n: 1000}
	other.reopen()
	defer other.close()
	other.lines(2)
	sameLines(t, r.drain().got, l.want)
	age(59 * time.Minute)
	l.lines(1)
	sameLines(t, r.drain().got, l.want)
	age(59 * time.Minute) // quiet for so long
	sameLines(t, r.drain().got, l.want)
	age(time.Minute)
	sameLines(t, r.drain().got, append(l.want, other.want...))
	if s := r.Stats(); s.Rotations != 1 {
		t.Errorf("stats %+v, want a rotation", s)
	}
}

// TestPatience holds that a file that never gets quiet is left in the end.
func TestPatience(t *testing.T) {
	l := newLog(t)
	r := openTail(t, Options{Path: l.path, Follow: true, Quiet: time.Hour, Poll: time.Hour}, nil)
	f := r.source.(*follower)
	l.rename()
	other := &testLog{t: t, path: l.path, n: 1000}
	other.reopen()
	defer other.close()
	other.lines(2)
	l.lines(1)
	r.drain()
	for range 29 {
		f.turned = f.turned.Add(-time.Hour)
		l.lines(1)
		sameLines(t, r.drain().got, l.want)
	}
	f.turned = f.turned.Add(-time.Hour)
	l.lines(1)
	sameLines(t, r.drain().got, append(l.want, other.want...))
}

// TestLateWrite writes between the last read of a file and the look that finds it
// rotated.
func TestLateWrite(t *testing.T) {
	l := newLog(t)
	l.lines(1)
	r := l.follow(nil).drain()
	f := r.source.(*follower)
	data, _, err := f.file.read(background(), f.buf, &f.at)
	if len(data) > 0 || err != nil {
		t.Fatal(data, err)
	}
	l.lines(1)
	l.rename()
	l.reopen()
	l.lines(1)
	if chunk, err := f.atEnd(background(), data); chunk != nil || err != nil {
		t.Fatal(chunk, err)
	}
	sameLines(t, r.drain().got, l.want)
}

// TestRotatedFast rotates a log again and again before the reader may leave a file,
// and keeps two. What is gone with others unread is said to be.
func TestRotatedFast(t *testing.T) {
	for _, c := range []struct {
		name         string
		seen, unseen int // rotations, before and after the reader sees that there was one
		lost         int // files that were not read
		gaps         int64
	}{
		{"none removed", 1, 1, 0, 0},
		{"the file that is read removed", 1, 2, 0, 0},
		{"the next one removed", 1, 3, 0, 1}, // for all one knows, there was another after it
		{"two removed", 1, 4, 1, 1},
		{"none removed, at once", 0, 2, 0, 0},
		{"the file that is read removed, at once", 0, 3, 0, 1},
		{"the next one removed, at once", 0, 4, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog(t)
			var logs logBuffer
			r := openTail(t, Options{Path: l.path, Follow: true, Quiet: time.Hour, Poll: time.Hour, Logger: logs.logger()}, nil)
			f := r.source.(*follower)
			wait := func() { // as if Quiet had passed
				f.grew, f.turned = f.grew.Add(-time.Hour), f.turned.Add(-time.Hour)
			}
			rotations := 0
			rotate := func() {
				l.rename()
				l.reopen()
				l.must(os.RemoveAll(l.path + ".3"))
				if rotations++; rotations > c.seen && rotations <= c.seen+c.lost {
					l.write("lost\n")
					return
				}
				l.lines(3)
			}
			l.lines(3)
			r.drain()
			for range c.seen {
				rotate()
				r.drain()
			}
			for range c.unseen {
				rotate()
			}
			for range c.seen + c.unseen {
				r.drain()
				wait()
			}
			sameLines(t, r.drain().got, l.want)
			if s := r.Stats(); s.Gaps != c.gaps {
				t.Errorf("stats %+v, want %d gaps", s, c.gaps)
			}
			if n := strings.Count(logs.String(), "may be lost"); n != int(c.gaps) {
				t.Errorf("%d lines say so:\n%s", n, &logs)
			}
		})
	}
}

// TestRotatedAway holds that a file that nobody can find any more, as it went to
// another directory, is read to its end, and that nobody is alarmed.
func TestRotatedAway(t *testing.T) {
	l := newLog(t)
	dir := t.TempDir()
	r := l.follow(nil)
	for range 3 {
		l.lines(2)
		r.drain()
		l.lines(2)
		l.must(os.Rename(l.path, filepath.Join(dir, "old")))
		l.lines(2)
		l.reopen()
		l.lines(2)
		sameLines(t, r.drain().got, l.want)
	}
	if s := r.Stats(); s.Gaps != 0 || s.Rotations != 3 {
		t.Errorf("stats %+v, want 3 rotations and no gap", s)
	}
}

func TestSymlink(t *testing.T) {
	l := newLog(t)
	dir := filepath.Dir(l.path)
	target := func(n int) string { return filepath.Join(dir, fmt.Sprintf("data/mail-%d", n)) }
	point := func(n int) {
		l.must(os.Symlink(target(n), l.path+".new"))
		l.must(os.Rename(l.path+".new", l.path))
		l.reopen()
	}
	l.must(os.Mkdir(filepath.Join(dir, "data"), 0o700))
	l.must(os.Remove(l.path))
	point(1)
	l.lines(3)
	r := l.follow(nil).drain()
	l.lines(1)
	point(2) // with something unread in the old one
	l.lines(3)
	sameLines(t, r.drain().got, l.want)

	got, position := r.got, r.Position()
	r.mustClose()
	l.lines(1)
	point(3) // and with nobody reading
	l.lines(3)
	r = l.follow(position).drain()
	sameLines(t, append(got, r.got...), l.want)

	got, position = append(got, r.got...), r.Position()
	r.mustClose()
	l.lines(1)
	l.must(os.Rename(target(3), target(3)+".1")) // where it leads to is rotated
	l.reopen()
	l.lines(3)
	r = l.follow(position).drain()
	sameLines(t, append(got, r.got...), l.want)
}

// TestRemoved removes the log while it is read. Its end can still be read.
func TestRemoved(t *testing.T) {
	l := newLog(t)
	l.lines(3)
	r := l.follow(nil).drain()
	l.must(os.Remove(l.path))
	l.lines(3)
	sameLines(t, r.drain().got, l.want)
	l.lines(3)
	l.reopen()
	l.lines(3)
	sameLines(t, r.drain().got, l.want)
}

// TestReplaced puts a copy in the place of the log, as an editor does.
func TestReplaced(t *testing.T) {
	l := newLog(t)
	l.lines(3)
	r := l.follow(nil).drain()
	text, err := os.ReadFile(l.path)
	l.must(err)
	l.must(os.WriteFile(l.path+"~", text, 0o600))
	l.must(os.Rename(l.path+"~", l.path))
	sameLines(t, r.drain().got, l.want)
	l.reopen()
	l.lines(3)
	sameLines(t, r.drain().got, l.want)
}
