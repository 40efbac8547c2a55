package tail

import (
	"bytes"
	"strings"
	"testing"
)

// split feeds data to a splitter in pieces of size bytes, such as a file that
// grows, and returns the chunks.
func split(s *splitter, data []byte, size int) (chunks [][]byte) {
	var pending []byte
	for len(data) > 0 || len(pending) > 0 {
		n := min(size, len(data))
		pending, data = append(pending, data[:n]...), data[n:]
		chunk, used := s.take(pending, len(data) == 0)
		for used > 0 {
			if len(chunk) > 0 {
				chunks = append(chunks, bytes.Clone(chunk))
			}
			pending = pending[used:]
			chunk, used = s.take(pending, len(data) == 0)
		}
	}
	return chunks
}

// plain is what a splitter makes of data, by simpler means.
func plain(data []byte, limit int) (out []byte, cut int64) {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSuffix(bytes.TrimLeft(line, "\x00"), []byte("\n"))
		if len(line) > limit {
			line = line[:limit]
			cut++
		}
		out = append(append(out, bytes.ReplaceAll(line, []byte{0}, nil)...), '\n')
	}
	return out, cut
}

var splits = []string{
	"",
	"\n",
	"a\n",
	"a",
	"a\nb",
	"a\r\nb\r\n",
	"\n\n\n",
	"\x00\x00a\n",
	"a\x00b\n\x00\x00\n",
	strings.Repeat("\x00", 10_000) + "a\nb\n",
	strings.Repeat("\x00", 2*MaxLine) + "a\nb\n",
	strings.Repeat("x", MaxLine) + "\n",
	strings.Repeat("x", MaxLine) + "\nb\n",
	strings.Repeat("x", MaxLine+1) + "\nb\n",
	"a\n" + strings.Repeat("x", MaxLine+1) + "\nb\n" + strings.Repeat("y", 3*MaxLine) + "\nc\n",
	strings.Repeat("x", MaxLine+1),
	strings.Repeat("x", 5*MaxLine),
	strings.Repeat("0123456789abcdef\n", 3*MaxLine/17),
}

func checkSplit(t *testing.T, data []byte, limit, size int) {
	t.Helper()
	s := splitter{numbers: new(numbers), max: limit}
	chunks := split(&s, data, size)
	want, cut := plain(data, limit)
	got := bytes.Join(chunks, nil)
	if bytes.HasSuffix(data, []byte("\x00")) && !bytes.Equal(got, want) {
		want = bytes.TrimSuffix(want, []byte("\n")) // nothing but NULs is no line at the end
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%.50q in pieces of %d: %d bytes, want %d: %.50q, want %.50q", data, size, len(got), len(want), got, want)
	}
	if n := s.numbers.cut.Load(); n != cut {
		t.Errorf("%.50q in pieces of %d: %d lines cut, want %d", data, size, n, cut)
	}
	for _, c := range chunks {
		if !bytes.HasSuffix(c, []byte("\n")) || len(c) > MaxChunk {
			t.Errorf("a chunk of %d bytes ends in %.20q", len(c), c[max(0, len(c)-20):])
		}
	}
}

func TestSplit(t *testing.T) {
	for _, data := range splits {
		for _, size := range []int{readSize, MaxLine + 1, MaxLine, 10_001} {
			checkSplit(t, []byte(data), MaxLine, size)
		}
		if len(data) < 1000 {
			checkSplit(t, []byte(data), MaxLine, 1)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, data := range splits {
		f.Add([]byte(data[:min(len(data), 200)]), uint8(20), uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, limit, size uint8) {
		checkSplit(t, data, 1+int(limit), 1+int(size))
	})
}

func TestWithoutNULs(t *testing.T) {
	s := splitter{numbers: new(numbers), max: MaxLine}
	data := []byte("as it was\n")
	if chunk, _ := s.take(data, false); &chunk[0] != &data[0] {
		t.Error("lines without NULs are copied")
	}
}
