package postfixlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector/tail"
)

// Past is a log that is read once, from its beginning to its end, and known again
// by what is in it: a file, compressed by gzip or not. Its methods are for one
// goroutine, but Done is for any.
type Past struct {
	Name string

	// First is when its first line was written that Postfix did write. The zero
	// time: there is none among the first ones.
	First time.Time

	// Key is the same for all logs that begin with the same line.
	Key string

	// Size is how many bytes the file has.
	Size int64

	// Known is how many lines were not read because they were read before.
	Known int64

	file   *os.File
	latest time.Time
	text   io.Reader
	done   atomic.Int64

	buf        []byte
	start, end int   // of what waits in buf
	err        error // that comes after it
	place      place
	sum        hash.Hash // of what was returned
}

// place is a position in a Past.
type place struct {
	Offset int64  `json:"offset"` // bytes of the log
	Sum    []byte `json:"sum"`    // SHA-256 of what is before
}

const (
	headSize = 1 << 20   // where First is looked for
	pastSize = 320 << 10 // the longest line, and how much is read at once
)

// OpenPast opens the log in a file. location is as in [Options].
func OpenPast(path string, location *time.Location) (*Past, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p, err := newPast(path, f)
	if err == nil {
		err = p.look(location)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return p, nil
}

// SpoolPast copies a log from r into a file without a name, so that it can be read
// as any other.
func SpoolPast(name string, r io.Reader, location *time.Location) (*Past, error) {
	f, err := os.CreateTemp("", "tlsrpt-import-*")
	if err != nil {
		return nil, err
	}
	var p *Past
	if err = os.Remove(f.Name()); err == nil {
		_, err = io.Copy(f, r)
	}
	if err == nil {
		p, err = newPast(name, f)
	}
	if err == nil {
		err = p.look(location)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return p, nil
}

func newPast(name string, f *os.File) (*Past, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	}
	p := &Past{Name: name, Size: info.Size(), file: f, latest: info.ModTime(), buf: make([]byte, pastSize)}
	return p, p.rewind()
}

// rewind goes to the beginning.
func (p *Past) rewind() error {
	p.done.Store(0)
	raw := bufio.NewReaderSize(&counted{io.NewSectionReader(p.file, 0, 1<<62), &p.done}, 64<<10)
	p.text = raw
	if magic, err := raw.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		if p.text, err = gzip.NewReader(raw); err != nil {
			return err
		}
	}
	p.start, p.end, p.err = 0, 0, nil
	p.place, p.sum, p.Known = place{}, sha256.New(), 0
	return nil
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// look finds out Key and First, and goes back to the beginning.
func (p *Past) look(location *time.Location) error {
	parser := NewParser(Options{Instance: "*", Location: location, Latest: p.Latest})
	head := 0
	for p.First.IsZero() && head < headSize {
		chunk, err := p.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		head += len(chunk)
		for line := range bytes.Lines(chunk) {
			if p.Key == "" {
				sum := sha256.Sum256(line)
				p.Key = hex.EncodeToString(sum[:12])
			}
			if parser.Parse(line, func(*Session) {}); parser.current.at != 0 {
				p.First = time.Unix(0, parser.current.at)
				break
			}
		}
	}
	return p.rewind()
}

// Latest is about the latest time that a line of the log can have, see [Options].
func (p *Past) Latest() time.Time { return p.latest }

// Done is how many bytes of the file were read.
func (p *Past) Done() int64 { return p.done.Load() }

// Next is that of tail.Tail. A last line without a newline is left out: it is not
// whole, and is read when the log has more in it.
func (p *Past) Next(ctx context.Context) ([]byte, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		waiting := p.buf[p.start:p.end]
		n := bytes.LastIndexByte(waiting, '\n') + 1
		if n == 0 && len(waiting) == len(p.buf) {
			n = len(waiting) // no line of Postfix is that long
		}
		if n > 0 {
			p.start += n
			p.place.Offset += int64(n)
			p.sum.Write(waiting[:n])
			return waiting[:n], nil
		}
		if p.err != nil {
			return nil, p.err
		}
		p.end = copy(p.buf, waiting)
		p.start = 0
		n, p.err = p.text.Read(p.buf[p.end:])
		p.end += n
	}
}

// Position is that of tail.Tail.
func (p *Past) Position() []byte {
	text, _ := json.Marshal(place{p.place.Offset, p.sum.Sum(nil)}) // cannot fail
	return text
}

// Stats is that of tail.Tail. Nothing is ever missing.
func (p *Past) Stats() tail.Stats { return tail.Stats{} }

// Close closes the file. It may be called again.
func (p *Past) Close() error {
	if err := p.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// seek goes on at a position; nil is the beginning. The error is tail.ErrPosition
// if it is of another log.
func (p *Past) seek(position []byte) error {
	if position == nil {
		return p.rewind()
	}
	var at place
	if err := json.Unmarshal(position, &at); err != nil {
		return fmt.Errorf("%w: %w", tail.ErrPosition, err)
	}
	if err := p.rewind(); err != nil {
		return err
	}
	var lines newlines
	if _, err := io.CopyN(io.MultiWriter(p.sum, &lines), p.text, at.Offset); err != nil && err != io.EOF {
		return err
	}
	if !bytes.Equal(p.sum.Sum(nil), at.Sum) {
		return fmt.Errorf("%w: the log has changed", tail.ErrPosition)
	}
	p.place.Offset, p.Known = at.Offset, int64(lines)
	return nil
}

// newlines counts those that are written to it.
type newlines int64

func (n *newlines) Write(b []byte) (int, error) {
	*n += newlines(bytes.Count(b, []byte("\n")))
	return len(b), nil
}

// Continues reports whether the log begins with all that was read when a Source
// stored cursor.
func (p *Past) Continues(cursor []byte) (bool, error) {
	at, err := decodeCursor(cursor)
	if err != nil {
		return false, err
	}
	err = p.seek(at.Tail)
	if errors.Is(err, tail.ErrPosition) {
		return false, p.rewind()
	}
	return err == nil, err
}
