package tail

import "io"

// feed reads in a goroutine of its own, so that a read can be waited for
// together with other things.
type feed struct {
	want  chan []byte // to be read into
	got   chan reading
	asked bool // a reading is on its way
}

type reading struct {
	n   int
	err error
}

// newFeed reads from r until an error, or until stop and the end of a read that
// has begun.
func newFeed(r io.Reader) *feed {
	f := &feed{want: make(chan []byte), got: make(chan reading, 1)}
	go func() {
		for p := range f.want {
			n, err := r.Read(p)
			f.got <- reading{n, err}
		}
	}()
	return f
}

// read is r.Read(p). The error is that of u: the next call must be for the same p
// then.
func (f *feed) read(u until, p []byte) (reading, error) {
	if !f.asked {
		f.want <- p
		f.asked = true
	}
	select {
	case r := <-f.got:
		f.asked = false
		return r, nil
	case <-u.closed:
	case <-u.ctx.Done():
	}
	return reading{}, u.err()
}

func (f *feed) stop() { close(f.want) }

// stream makes chunks of what a feed reads.
type stream struct {
	feed       *feed
	lines      splitter
	buf        []byte
	start, end int   // of what waits in buf
	err        error // of the feed
}

func newStream(r io.Reader, n *numbers) *stream {
	return &stream{feed: newFeed(r), lines: splitter{numbers: n, max: MaxLine}, buf: make([]byte, MaxLine+readSize)}
}

// next returns the next chunk. At the end it returns the last line if final holds,
// and then the error of the reader.
func (s *stream) next(u until, final bool) ([]byte, error) {
	for {
		chunk, used := s.lines.take(s.buf[s.start:s.end], s.err != nil && final)
		s.start += used
		switch {
		case len(chunk) > 0:
			return chunk, nil
		case used > 0:
		case s.err != nil:
			return nil, s.err
		default:
			if err := s.fill(u); err != nil {
				return nil, err
			}
		}
	}
}

// fill reads once. The error is that of u.
func (s *stream) fill(u until) error {
	if !s.feed.asked {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	r, err := s.feed.read(u, s.buf[s.end:])
	s.end += r.n
	s.err = r.err
	return err
}

// reader is the source of an io.Reader.
type reader struct{ stream *stream }

func newReader(r io.Reader, n *numbers) *reader { return &reader{newStream(r, n)} }

func (r *reader) next(u until) ([]byte, error) { return r.stream.next(u, true) }
func (r *reader) position() *position          { return nil }
func (r *reader) lag() int64                   { return 0 }

func (r *reader) close() error {
	r.stream.feed.stop()
	return nil
}
