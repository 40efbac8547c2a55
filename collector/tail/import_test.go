package tail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestReader(t *testing.T) {
	text := "a\nb\r\n" + strings.Repeat("c", MaxLine) + "\nd"
	want := strings.Split(text, "\n")
	for name, reader := range map[string]io.Reader{
		"plain": strings.NewReader(text), "one by one": iotest.OneByteReader(strings.NewReader(text)),
		"with error": iotest.DataErrReader(strings.NewReader(text)),
	} {
		r := openTail(t, Options{Reader: reader}, nil)
		r.rest()
		if !slices.Equal(r.got, want) || r.Position() != nil {
			t.Errorf("%s: %.100q, position %s", name, r.got, r.Position())
		}
		if _, err := r.Next(t.Context()); err != io.EOF {
			t.Errorf("%s: error %v after the end", name, err)
		}
	}
	broken := errors.New("broken")
	r := openTail(t, Options{Reader: io.MultiReader(strings.NewReader("a\n"), iotest.ErrReader(broken))}, nil)
	r.next(1)
	if _, err := r.Next(t.Context()); err != broken {
		t.Errorf("error %v", err)
	}
}

// TestSlowReader ends a wait for a reader that has nothing, and goes on.
func TestSlowReader(t *testing.T) {
	in, out := io.Pipe()
	r := openTail(t, Options{Reader: in}, nil)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		cancel()
	}
	go func() {
		out.Write([]byte("a\nb"))
		out.Write([]byte("c\n"))
	}()
	r.next(2)
	if !slices.Equal(r.got, []string{"a", "bc"}) {
		t.Errorf("%q", r.got)
	}
	go func() {
		time.Sleep(5 * time.Millisecond)
		r.Close()
		out.Close()
	}()
	if _, err := r.Next(t.Context()); err != os.ErrClosed {
		t.Errorf("error %v", err)
	}
}

// TestImport reads a file once, and from a position what has come since.
func TestImport(t *testing.T) {
	for _, packed := range []bool{false, true} {
		l := newLog(t)
		l.lines(20_000) // some megabytes
		l.write("the last one")
		l.want = append(l.want, "the last one")
		path := l.path
		if packed {
			l.compress(path)
			path += ".gz"
		}
		r := openTail(t, Options{Path: path}, nil)
		r.next(10)
		position := r.Position()
		head := slices.Clone(r.got)
		r.rest()
		sameLines(t, r.got, l.want)
		if _, err := r.Next(t.Context()); err != io.EOF {
			t.Errorf("error %v after the end", err)
		}
		again := openTail(t, Options{Path: path}, position)
		again.rest()
		sameLines(t, append(head, again.got...), l.want)
	}
}

// TestImportOlder leaves the rotated files alone, until a position is in one.
func TestImportOlder(t *testing.T) {
	l := newLog(t)
	l.lines(3)
	l.rename()
	l.reopen()
	l.want = nil
	l.lines(3)
	r := openTail(t, Options{Path: l.path}, nil)
	r.rest()
	sameLines(t, r.got, l.want)
	l.lines(1)
	l.rename()
	l.compress(l.path + ".1")
	l.reopen()
	l.lines(3)
	end := openTail(t, Options{Path: l.path}, r.Position())
	end.rest()
	sameLines(t, append(r.got, end.got...), l.want)
}

// TestImportCancel stops while a large file is decompressed.
func TestImportCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.log.gz")
	if err := os.WriteFile(path, zip(bytes.Repeat([]byte("0123456789abcde\n"), 4<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := openTail(t, Options{Path: path}, nil)
	z := r.source.(*follower).file.gzip
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := z.end(until{ctx: ctx}); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	if z.base > 1<<20 {
		t.Errorf("%d bytes were read", z.base)
	}
	if n, err := z.end(background()); n != 64<<20 || err != nil {
		t.Errorf("%d bytes, error %v", n, err)
	}
	if cap(z.window) > 1<<20 {
		t.Errorf("%d bytes are held", cap(z.window))
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	file := func(name string, days int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, day, day.AddDate(0, 0, days)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	want := []string{
		file("z.log", -3),
		file("mail.log.10.gz", -2), file("mail.log.2.gz", -2), file("mail.log.1", -2),
		file("mail.log", -2),
		file("mail-20261120", -1), file("mail-20261121.gz", -1),
		file("a.log", 0),
	}
	link := filepath.Join(dir, "link")
	if err := os.Link(want[0], link); err != nil {
		t.Fatal(err)
	}
	in := slices.Clone(want)
	slices.Sort(in)
	in = append(in, link)
	slices.Reverse(in)
	got, err := Files(in)
	if i := slices.Index(got, link); i == 0 {
		got[i] = want[0] // either name
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := Files([]string{link, filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestRotatedNames(t *testing.T) {
	for _, c := range []struct {
		base, name string
		want       rotated
	}{
		{"mail.log", "mail.log.1", rotated{numbered, "1", false}},
		{"mail.log", "mail.log.02.gz", rotated{numbered, "2", true}},
		{"mail.log", "mail.log.0", rotated{numbered, "", false}},
		{"mail.log", "mail.1.log.xz", rotated{numbered, "1", true}},
		{"mail.log", "mail.log-20261122", rotated{dated, "20261122", false}},
		{"mail.log", "mail.log-20261122.zst", rotated{dated, "20261122", true}},
		{"mail.log", "mail-20261122.log.gz", rotated{dated, "20261122", true}},
		{"maillog", "maillog-1795429601", rotated{dated, "1795429601", false}},
		{"maillog", "maillog.20261122-101112.gz", rotated{dated, "20261122101112", true}}, // postfix logrotate
		{"maillog", "maillog.2026-11-22T10:11:12", rotated{dated, "20261122101112", false}},
		{"x.gz", "x.gz.1", rotated{numbered, "1", false}},
	} {
		if got, ok := parseRotated(c.base, c.name); !ok || got != c.want {
			t.Errorf("%s of %s: %+v, %t, want %+v", c.name, c.base, got, ok, c.want)
		}
	}
	for _, c := range []struct{ base, name string }{
		{"mail.log", "mail.log"}, {"mail.log", "mail.log.gz"}, {"mail.log", "mail.log."}, {"mail.log", "mail.log.a"},
		{"mail.log", "mail.log.1.bak"}, {"mail.log", "mail.log1"}, {"mail.log", "mail.err.1"}, {"mail.log", "mail.err"},
		{"mail.log", "mail-2.log"}, {"mail.log", "mail.log-2"}, {"mail.log", "mail.log.-1"}, {"mail.log", "mail.log.1-"},
		{"mail.log", "mail.log.swp"}, {"mail.log", "xmail.log.1"}, {".log", "1.log"},
	} {
		if got, ok := parseRotated(c.base, c.name); ok {
			t.Errorf("%s of %s: %+v", c.name, c.base, got)
		}
	}
}
