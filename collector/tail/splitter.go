package tail

import "bytes"

// splitter makes chunks of whole lines from what was read.
type splitter struct {
	numbers *numbers
	max     int    // length of a line; MaxLine, but for tests
	inside  bool   // the next byte belongs to a line that was cut, and is skipped
	scratch []byte // holds chunks that are not as they were read
}

// take returns the chunk at the beginning of data, and how many bytes of data it
// stands for: there may be such without a chunk, and both may be 0 where a line is
// incomplete. final says that nothing follows data, so that its last line is
// complete. A line that is cut is a chunk of its own, after which inside holds.
func (s *splitter) take(data []byte, final bool) (chunk []byte, used int) {
	if s.inside {
		used = bytes.IndexByte(data, '\n') + 1
		if used == 0 {
			return nil, len(data)
		}
		s.inside = false
	}
	used += leadingNULs(data[used:])
	rest := data[used:]
	n, long := s.wholeLines(rest)
	switch {
	case n > 0:
		return s.clean(rest[:n]), used + n
	case long:
		s.inside = true
		s.numbers.cut.Add(1)
		return s.ended(rest[:s.max]), used + s.max
	case final && len(rest) > 0:
		return s.ended(rest), len(data)
	}
	return nil, used
}

// wholeLines is how many bytes the whole lines at the beginning of b are. long
// says that the line after them is too long.
func (s *splitter) wholeLines(b []byte) (n int, long bool) {
	for len(b)-n > s.max {
		end := bytes.LastIndexByte(b[n:n+s.max+1], '\n') + 1
		if end == 0 {
			return n, true
		}
		n += end
	}
	return n + bytes.LastIndexByte(b[n:], '\n') + 1, false
}

// clean is b without NULs.
func (s *splitter) clean(b []byte) []byte {
	if bytes.IndexByte(b, 0) < 0 {
		return b
	}
	return s.without(b)
}

// ended is b without NULs, and with a newline.
func (s *splitter) ended(b []byte) []byte {
	s.scratch = append(s.without(b), '\n')
	return s.scratch
}

func (s *splitter) without(b []byte) []byte {
	s.scratch = s.scratch[:0]
	for len(b) > 0 {
		end := bytes.IndexByte(b, 0)
		if end < 0 {
			end = len(b)
		}
		s.scratch = append(s.scratch, b[:end]...)
		b = b[end:]
		b = b[leadingNULs(b):]
	}
	return s.scratch
}

var zeros [4096]byte

// leadingNULs goes by blocks: a hole may be as long as the log was.
func leadingNULs(b []byte) (n int) {
	for len(b)-n >= len(zeros) && bytes.Equal(b[n:n+len(zeros)], zeros[:]) {
		n += len(zeros)
	}
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}
