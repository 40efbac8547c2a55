package postfixlog

import "bytes"

// sieve finds the lines that may matter, most of which are of smtp(8). It knows
// nothing of the lines before, so that it may work ahead of the Parser, on another
// processor: see ahead.go.
type sieve struct {
	senders []string // in lower case
}

// sifted is what may matter of a chunk of whole lines. It is a copy: the lines lie
// next to each other, and the chunk may be overwritten.
type sifted struct {
	text  []byte
	lines []siftedLine
	all   int64 // lines of the chunk
	naked int64 // of all, see isNaked
}

// siftedLine is text[from:to] of a sifted.
type siftedLine struct {
	from, to int
	parts    parts
}

// parts is where the parts of "TIME HOST TAG[PID]: MESSAGE" are. If the program
// is other, the line may have another form.
type parts struct {
	program program
	tag     int // the end of it
	pid     int // the end of it
	message int // the beginning of it
}

// sift takes what may matter out of a chunk of whole lines; the last one may lack
// its line end.
func (s *sieve) sift(to *sifted, chunk []byte) {
	*to = sifted{text: to.text[:0], lines: to.lines[:0]}
	for len(chunk) > 0 {
		line := chunk
		if i := bytes.IndexByte(chunk, '\n'); i >= 0 {
			line, chunk = chunk[:i], chunk[i+1:]
		} else {
			chunk = nil
		}
		to.all++
		var found parts
		if !isWrapped(line) {
			line = withoutReturn(line)
			var matters bool
			if found, matters = s.split(line); !matters {
				if found.program == other && isNaked(line) {
					to.naked++
				}
				continue
			}
		}
		from := len(to.text)
		to.text = append(to.text, line...)
		to.lines = append(to.lines, siftedLine{from, len(to.text), found})
	}
}

// withoutReturn is a line without the carriage return at its end.
func withoutReturn(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\r' {
		return b[:n-1]
	}
	return b
}

// isWrapped reports whether a line may not be "TIME HOST TAG[PID]: MESSAGE", but
// such a line in JSON, after a priority, or in the log of a container runtime.
func isWrapped(b []byte) bool {
	switch {
	case len(b) == 0:
		return false
	case b[0] == '{' || b[0] == '<':
		return true
	case b[0]-'0' < 10:
		i := bytes.IndexByte(b, ' ') // all other lines with a full time pay for this
		return i >= 0 && hasPrefix(b[i+1:], "std")
	}
	return false
}

// split finds the parts of "TIME HOST TAG[PID]: MESSAGE". The first '[' is the end
// of the tag, so most lines are known not to matter before anything else is read.
func (s *sieve) split(b []byte) (p parts, matters bool) {
	if p.tag = bytes.IndexByte(b, '['); p.tag < 0 {
		return p, false
	}
	if p.program = programOf(b[:p.tag]); p.program == other {
		return p, false
	}
	n, ok := pidLength(b[p.tag+1:])
	if !ok {
		return p, false
	}
	p.pid = p.tag + 1 + n
	p.message = p.pid + len("]: ")
	return p, s.matters(p.program, b[p.message:])
}

// matters reports whether a message may matter. All of clients do. Most of qmgr
// and cleanup do not, and are known by the text after the queue id.
func (s *sieve) matters(prog program, m []byte) bool {
	switch prog {
	case qmgr:
		return isRemoval(m) || s.isOwnSender(afterColon(m)) && hasQueueID(m)
	case cleanup:
		return isOwnMessageID(afterColon(m)) && hasQueueID(m)
	case master:
		return isStart(m)
	}
	return true
}

// isRemoval reports whether qmgr(8) says that a message has left the queue.
func isRemoval(m []byte) bool { return hasSuffix(m, ": removed") }

// afterColon is what comes after the first ": ", nil if that is not there.
func afterColon(m []byte) []byte {
	if i := bytes.IndexByte(m, ':'); i >= 0 && i+1 < len(m) && m[i+1] == ' ' {
		return m[i+2:]
	}
	return nil
}

func hasQueueID(m []byte) bool {
	_, _, ok := cutQueueID(m)
	return ok
}

// isNaked reports whether a line is a message of smtp(8) without prefix. After a
// prefix the first '[' would be that of the pid.
func isNaked(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	switch b[0] {
	case 'A', 'T', 'U', 'V', 'S', 's', 'C', 'c':
		i := bytes.IndexByte(b, '[')
		return i >= 0 && (hasPrefix(b, "SSL_connect error to ") ||
			bytes.Contains(b[:i], []byte(" TLS connection established to ")) ||
			bytes.Contains(b[:i], []byte("certificate verification failed for ")))
	}
	return false
}
