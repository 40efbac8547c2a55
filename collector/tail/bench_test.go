package tail

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// benchLog is a log of some size, in the page cache.
func benchLog(b *testing.B) (path string, size int64) {
	path = filepath.Join(b.TempDir(), "mail.log")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	line := "2026-11-22T10:11:12.345678+00:00 host postfix/smtp[4711]: Trusted TLS connection established to " +
		"mx.example.com[192.0.2.1]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\n"
	block := bytes.Repeat([]byte(line), 1<<20/len(line))
	for range 128 {
		n, err := f.Write(block)
		if err != nil {
			b.Fatal(err)
		}
		size += int64(n)
	}
	return path, size
}

// BenchmarkCatchUp reads a log that is in memory, beside what the system takes to
// copy it.
func BenchmarkCatchUp(b *testing.B) {
	path, size := benchLog(b)
	b.Run("tail", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			tail, err := Open(Options{Path: path}, nil)
			if err != nil {
				b.Fatal(err)
			}
			if n := readAll(b, tail); n != size {
				b.Fatalf("%d bytes of %d", n, size)
			}
			tail.Close()
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(size)
		buf := make([]byte, readSize)
		for b.Loop() {
			f, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			for err == nil {
				_, err = f.Read(buf)
			}
			f.Close()
		}
	})
}

func readAll(b *testing.B, tail *Tail) (n int64) {
	for {
		chunk, err := tail.Next(b.Context())
		n += int64(len(chunk))
		if err == io.EOF {
			return n
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// TestNoAllocations holds that reading on costs no memory.
func TestNoAllocations(t *testing.T) {
	l := newLog(t)
	l.lines(40_000)
	r := l.follow(nil)
	r.step()
	allocs := testing.AllocsPerRun(5, func() {
		if chunk, err := r.Next(t.Context()); len(chunk) == 0 || err != nil {
			t.Fatal(len(chunk), err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a chunk", allocs)
	}
}
