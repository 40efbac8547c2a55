package tail

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"
)

// errChanged means that what was read of a file is no longer what it begins
// with.
var errChanged = errors.New("tail: the file was truncated or written anew")

// errFormat means that a file cannot be read because of what is in it.
var errFormat = errors.New("tail: unreadable")

// logFile is an open file as the log in it, decompressed if need be.
type logFile struct {
	f      *os.File
	name   string      // that it was opened by
	info   fs.FileInfo // of the last refresh
	target string      // where name led to, if it is a symbolic link
	gzip   *inflated   // nil: it is not compressed
	damage error       // why the rest cannot be decompressed
}

// openLog opens the regular file at name.
func openLog(name string) (*logFile, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	l := &logFile{f: f, name: name}
	if err = l.refresh(); err == nil {
		err = l.sniff()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// magics are the first bytes of formats that rotated logs come in, beside gzip.
var magics = []struct{ format, magic, mend string }{
	{"zstd", "\x28\xb5\x2f\xfd", "zstd -d"},
	{"xz", "\xfd7zXZ\x00", "xz -d"},
	{"bzip2", "BZh", "bzip2 -d"},
	{"lz4", "\x04\x22\x4d\x18", "lz4 -d"},
	{"compress", "\x1f\x9d", "uncompress"},
}

// sniff finds out what is in the file.
func (l *logFile) sniff() error {
	if !l.info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", errFormat, l.name)
	}
	var begin [8]byte
	n, err := l.f.ReadAt(begin[:], 0)
	if err != nil && err != io.EOF {
		return err
	}
	for _, m := range magics {
		if bytes.HasPrefix(begin[:n], []byte(m.magic)) {
			return fmt.Errorf("%w: %s is compressed by %s: decompress it first with \"%s\"", errFormat, l.name, m.format, m.mend)
		}
	}
	if bytes.HasPrefix(begin[:n], []byte("\x1f\x8b")) {
		l.gzip = newInflated(l.f)
	}
	return nil
}

// refresh looks up the size and the time of the file.
func (l *logFile) refresh() (err error) {
	info, err := l.f.Stat()
	if err == nil {
		l.info = info
	}
	return err
}

func (l *logFile) close() {
	if l != nil {
		l.f.Close()
	}
}

// readAt reads the log at offset. The error is io.EOF if it ends before p is full.
func (l *logFile) readAt(u until, p []byte, offset int64) (int, error) {
	if l.gzip == nil {
		return l.f.ReadAt(p, offset)
	}
	n, err := l.gzip.readAt(u, p, offset)
	if errors.Is(err, errFormat) {
		l.damage, err = fmt.Errorf("%w: %s", err, l.name), io.EOF
	}
	return n, err
}

// errEmpty is that of a compressed file with nothing in it.
var errEmpty = errors.New("tail: an empty file")

// probe closes a compressed file that has nothing in it, or is no such file. The
// error is then errEmpty, or says what is wrong.
func (l *logFile) probe(u until) error {
	_, err := l.bytesAt(u, 0, 1)
	if err == errChanged {
		err = cmp.Or(l.damage, errEmpty)
	}
	if err != nil {
		l.close()
	}
	return err
}

// end is where the log ends now.
func (l *logFile) end(u until) (int64, error) {
	if l.gzip != nil {
		n, err := l.gzip.end(u)
		return n, unless(errFormat, err)
	}
	err := l.refresh()
	return l.info.Size(), err
}

// spot is how far a file has been read. head and tail are the bytes that a place
// has the digests of.
type spot struct {
	offset     int64
	inside     bool
	head, tail []byte
}

// place is s in l, for other times.
func (l *logFile) place(s *spot) *place {
	p := &place{
		Offset: s.offset, Head: digest(s.head), Tail: digest(s.tail),
		Time: l.info.ModTime().UnixNano(), Inside: s.inside,
	}
	p.Device, p.Inode = inode(l.info)
	if len(l.target) <= maxName && utf8.ValidString(l.target) {
		p.Name = l.target
	}
	return p
}

// advance moves s over read, the bytes that follow it.
func (s *spot) advance(read []byte) {
	s.offset += int64(len(read))
	if room := headSize - len(s.head); room > 0 {
		s.head = append(s.head, read[:min(room, len(read))]...)
	}
	if len(read) >= tailSize {
		s.tail = append(s.tail[:0], read[len(read)-tailSize:]...)
		return
	}
	keep := min(len(s.tail), tailSize-len(read))
	n := copy(s.tail, s.tail[len(s.tail)-keep:])
	s.tail = append(s.tail[:n], read...)
}

// spotAt is the spot in l at offset.
func (l *logFile) spotAt(u until, offset int64) (s spot, err error) {
	s.offset = offset
	if s.head, err = l.bytesAt(u, 0, min(offset, headSize)); err != nil {
		return s, err
	}
	n := min(offset, tailSize)
	s.tail, err = l.bytesAt(u, offset-n, n)
	return s, err
}

// bytesAt reads n bytes. Where there are fewer the error is errChanged.
func (l *logFile) bytesAt(u until, offset, n int64) ([]byte, error) {
	b := make([]byte, n)
	switch got, err := l.readAt(u, b, offset); {
	case got == len(b):
		return b, nil
	case err == io.EOF:
		return nil, errChanged
	default:
		return nil, err
	}
}

// read fills buf with what follows s, after the bytes before it, which are read
// again to see whether they are still the same. end says that there is no more.
func (l *logFile) read(u until, buf []byte, s *spot) (data []byte, end bool, err error) {
	before := len(s.tail)
	n, err := l.readAt(u, buf, s.offset-int64(before))
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	if n < before || !bytes.Equal(buf[:before], s.tail) {
		return nil, false, errChanged
	}
	return buf[before:n], err == io.EOF, nil
}

// lastLine is the spot at the end of l, before a line that is incomplete.
func (l *logFile) lastLine(u until) (spot, error) {
	end, err := l.end(u)
	if err != nil {
		return spot{}, err
	}
	n := min(end, MaxLine+1)
	last, err := l.bytesAt(u, end-n, n)
	if err != nil {
		return spot{}, err
	}
	offset := end - n + int64(bytes.LastIndexByte(last, '\n')) + 1
	inside := offset == end-n && offset > 0
	if inside {
		offset = end
	}
	s, err := l.spotAt(u, offset)
	s.inside = inside
	return s, err
}

// kinship is what a file has to do with a place.
type kinship int

const (
	stranger kinship = iota
	shorter          // it begins like the file of the place, and ends before the offset
	same             // it is the file of the place, or a copy
)

// match finds out whether l is the file of p by what is in it. The spot is where
// p is in it, if it is.
func (l *logFile) match(u until, p *place) (kinship, spot, error) {
	head, err := l.bytesAt(u, 0, min(p.Offset, headSize))
	if err == nil && !bytes.Equal(digest(head), p.Head) {
		err = errChanged
	}
	if err != nil {
		return stranger, spot{}, unless(errChanged, err)
	}
	s, err := l.spotAt(u, p.Offset)
	if err == nil && !bytes.Equal(digest(s.tail), p.Tail) {
		return stranger, spot{}, nil
	}
	if err != nil {
		return shorter, spot{}, unless(errChanged, err)
	}
	s.inside = p.Inside
	return same, s, nil
}

// unless is err, or nil if it is expected.
func unless(expected, err error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
