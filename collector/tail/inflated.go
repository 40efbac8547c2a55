package tail

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// inflated is what is in a gzip file. Reading on from where the last read was, or
// from a little before, is cheap; going back starts over.
type inflated struct {
	raw    io.ReaderAt
	zip    *gzip.Reader
	window []byte // bytes of the log
	base   int64  // where window begins
	err    error  // that comes after window; nil if there may be more
}

func newInflated(raw io.ReaderAt) *inflated { return &inflated{raw: raw, err: errUnread} }

var errUnread = errors.New("tail: not read yet")

// stale says that reading has to start over: it has not begun, or the disk
// failed.
func (z *inflated) stale() bool {
	return z.err != nil && z.err != io.EOF && !errors.Is(z.err, errFormat)
}

const inflateStep = 64 << 10

// restart goes back to the beginning.
func (z *inflated) restart() {
	in := bufio.NewReaderSize(io.NewSectionReader(z.raw, 0, 1<<62), inflateStep)
	z.window, z.base, z.err = z.window[:0], 0, nil
	if z.zip == nil {
		z.zip, z.err = gzip.NewReader(in)
	} else {
		z.err = z.zip.Reset(in)
	}
	if z.err != nil {
		z.zip = nil
		z.err = damage(z.err)
	}
}

// damage tells an error in what is compressed from one of the disk.
func damage(err error) error {
	if err == io.EOF || err == nil {
		return err
	}
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	if corrupt || err == io.ErrUnexpectedEOF || err == gzip.ErrHeader || err == gzip.ErrChecksum {
		return fmt.Errorf("%w: a gzip file is damaged or incomplete: %w", errFormat, err)
	}
	return err
}

// readAt is that of io.ReaderAt.
func (z *inflated) readAt(u until, p []byte, offset int64) (int, error) {
	if offset < z.base || z.stale() {
		z.restart()
	}
	want := offset + int64(len(p))
	for z.base+int64(len(z.window)) < want && z.err == nil {
		if err := u.err(); err != nil {
			return 0, err
		}
		z.forget(offset)
		z.more()
	}
	z.forget(offset)
	if offset > z.base { // beyond the end
		return 0, z.err
	}
	n := copy(p, z.window)
	if n < len(p) {
		return n, z.err
	}
	return n, nil
}

// end reads all there is.
func (z *inflated) end(u until) (int64, error) {
	if z.stale() {
		z.restart()
	}
	for z.err == nil {
		if err := u.err(); err != nil {
			return 0, err
		}
		z.forget(z.base + int64(len(z.window)))
		z.more()
	}
	return z.base + int64(len(z.window)), unless(io.EOF, z.err)
}

// forget drops what is before offset.
func (z *inflated) forget(offset int64) {
	n := min(max(offset-z.base, 0), int64(len(z.window)))
	z.window = z.window[:copy(z.window, z.window[n:])]
	z.base += n
}

// more reads a step.
func (z *inflated) more() {
	size := len(z.window)
	if cap(z.window) < size+inflateStep {
		grown := make([]byte, size, 2*size+4*inflateStep)
		copy(grown, z.window)
		z.window = grown
	}
	n, err := z.zip.Read(z.window[size : size+inflateStep])
	z.window = z.window[:size+n]
	z.err = damage(err)
}
