package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

// logWriter is a Postfix that writes a log, and the program that rotates it.
type logWriter struct {
	t      *testing.T
	rand   *rand.Rand
	text   *loggen.Log
	path   string
	file   *os.File
	linked bool // path is a symbolic link
	files  int  // that it has led to
}

func newLogWriter(t *testing.T, path string, r *rand.Rand) *logWriter {
	w := &logWriter{t: t, rand: r, path: path}
	w.text = loggen.New(loggen.Options{Seed: r.Uint64(), Domains: chaosDomains, Processes: 30, Now: func() time.Time { return time.Now().UTC() }})
	w.open()
	return w
}

func (w *logWriter) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *logWriter) open() {
	w.t.Helper()
	if w.file != nil {
		w.check(w.file.Close())
	}
	var err error
	w.file, err = os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	w.check(err)
}

func (w *logWriter) stat() os.FileInfo {
	w.t.Helper()
	info, err := w.file.Stat()
	w.check(err)
	return info
}

func (w *logWriter) size() int64   { return w.stat().Size() }
func (w *logWriter) inode() uint64 { return w.stat().Sys().(*syscall.Stat_t).Ino }

// write writes so many lines: one at a time, several, or one in two pieces, as a
// busy syslog may.
func (w *logWriter) write(lines int) {
	w.t.Helper()
	for lines > 0 {
		n := min(lines, 1+w.rand.IntN(1+w.rand.IntN(20)))
		lines -= n
		var b []byte
		for range n {
			b = w.text.Append(b)
		}
		w.pieces(b, func() {})
		if w.rand.IntN(4) == 0 {
			time.Sleep(time.Duration(w.rand.IntN(2000)) * time.Microsecond)
		}
	}
}

// pieces writes b, half of the time in two pieces. Between them it calls between.
func (w *logWriter) pieces(b []byte, between func()) {
	w.t.Helper()
	cut := w.rand.IntN(2 * len(b))
	if cut >= len(b) {
		cut = 0
	}
	_, err := w.file.Write(b[:cut])
	w.check(err)
	between()
	_, err = w.file.Write(b[cut:])
	w.check(err)
}

// late writes a few lines to the file that it has open; between happens before
// the last of them is complete.
func (w *logWriter) late(between func()) {
	w.t.Helper()
	var b []byte
	for range 1 + w.rand.IntN(5) {
		b = w.text.Append(b)
	}
	w.pieces(b, between)
	w.write(w.rand.IntN(5))
}

// finish writes what ends everything that was begun.
func (w *logWriter) finish() {
	w.t.Helper()
	_, err := w.file.Write(w.text.AppendRest(nil))
	w.check(err)
}

// shift makes room for path.1: older files move up, and all but the newest are
// compressed, as logrotate does it with delaycompress.
func (w *logWriter) shift() {
	w.t.Helper()
	if _, err := os.Stat(w.path + ".1"); err != nil {
		return
	}
	last := 2
	for ; ; last++ {
		if _, err := os.Stat(fmt.Sprintf("%s.%d.gz", w.path, last)); err != nil {
			break
		}
	}
	for i := last; i > 2; i-- {
		w.check(os.Rename(fmt.Sprintf("%s.%d.gz", w.path, i-1), fmt.Sprintf("%s.%d.gz", w.path, i)))
	}
	compress(w.t, w.path+".1", w.path+".2.gz")
}

// rename rotates by renaming. The writer notices later.
func (w *logWriter) rename() {
	w.t.Helper()
	w.shift()
	w.late(func() { w.check(os.Rename(w.path, w.path+".1")) })
	w.open()
}

// copyTruncate rotates by copying, for a writer that never reopens its log.
func (w *logWriter) copyTruncate() {
	w.t.Helper()
	old := w.path + ".1"
	if w.linked {
		old, _ = os.Readlink(w.path)
		old += fmt.Sprintf(".copy%d", w.files)
	} else {
		w.shift()
	}
	text, err := os.ReadFile(w.path)
	w.check(err)
	w.check(os.WriteFile(old, text, 0o644))
	w.check(w.file.Truncate(0))
}

// link makes path a link, from now on.
func (w *logWriter) link() {
	w.t.Helper()
	w.shift()
	w.check(os.Rename(w.path, w.path+".1"))
	w.linked = true
	w.relink()
}

// relink has path lead to another file. The writer notices later.
func (w *logWriter) relink() {
	w.t.Helper()
	w.files++
	target := filepath.Join(filepath.Dir(w.path), fmt.Sprintf("day%d.txt", w.files))
	w.check(os.WriteFile(target, nil, 0o644))
	w.check(os.Symlink(target, w.path+".new"))
	w.late(func() { w.check(os.Rename(w.path+".new", w.path)) })
	w.open()
}

// compress replaces a file by a compressed one.
func compress(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err = z.Write(text)
	if err = errors.Join(err, z.Close(), os.WriteFile(to, b.Bytes(), 0o644), os.Remove(from)); err != nil {
		t.Fatal(err)
	}
}
