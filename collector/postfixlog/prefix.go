package postfixlog

import "bytes"

// program is a daemon of Postfix, as far as this package cares.
type program uint8

const (
	other    program = iota
	smtp     program = iota
	lmtp     program = iota
	tlsproxy program = iota
	qmgr     program = iota
	cleanup  program = iota
	master   program = iota
	unnamed  program = iota // its tag was cut at the slash: one of all
)

// programOf reads the end of a tag, "postfix/relay/smtp".
func programOf(tag []byte) program {
	n := len(tag)
	if n < 5 {
		return other
	}
	switch tag[n-1] {
	case 'p':
		switch {
		case hasSuffix(tag, "/smtp"):
			return smtp
		case hasSuffix(tag, "/lmtp"):
			return lmtp
		case hasSuffix(tag, "/cleanup"):
			return cleanup
		}
	case 'y':
		if hasSuffix(tag, "/tlsproxy") {
			return tlsproxy
		}
	case 'r':
		switch {
		case hasSuffix(tag, "/qmgr"):
			return qmgr
		case hasSuffix(tag, "/master"):
			return master
		}
	}
	return other
}

func hasSuffix(b []byte, s string) bool { return len(b) >= len(s) && string(b[len(b)-len(s):]) == s }

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// entry is a line without its prefix.
type entry struct {
	at      int64 // nanoseconds
	program program
	key     []byte   // "host tag[pid": what one process is known by
	process *process // that the key is of; nil: not looked up yet
	message []byte
}

// wrapping is the line of a container runtime, as far as it matters to the line
// that it holds.
type wrapping struct {
	is   bool
	time []byte // nil: it has none
}

// line reads one line, whatever its format. Each kind of prefix shows by its
// first byte.
func (p *Parser) line(b []byte, in wrapping) {
	if b = withoutReturn(b); len(b) == 0 {
		return
	}
	switch c := b[0]; {
	case c == '{':
		p.jsonLine(b, in)
	case c == '<':
		p.priorityLine(b)
	case c-'0' < 10:
		if inner, outer, ok := unwrapCRI(b); ok && !in.is {
			p.line(inner, outer)
			return
		}
		p.plainLine(b, 0)
	case in.is && monthOf(b) != 0:
		// The line says no year, the container runtime does.
		at, _, _ := readRFC3339(in.time)
		p.plainLine(b, at)
	default:
		p.plainLine(b, 0)
	}
}

// plainLine reads "TIME HOST TAG[PID]: MESSAGE". at is the time if a wrapper said
// it, else 0.
func (p *Parser) plainLine(b []byte, at int64) {
	found, matters := p.sieve.split(b)
	switch {
	case matters:
		p.splitLine(b, found, at)
	case found.program == other && isNaked(b):
		p.stats.NoPrefix++
	}
}

// splitLine reads a line whose parts are known.
func (p *Parser) splitLine(b []byte, found parts, at int64) {
	message := b[found.message:]
	if found.program == qmgr && isRemoval(message) && !p.mayBeOwn(message) {
		return
	}
	t, rest, ok := p.clock.read(b)
	if !ok {
		p.stats.NoPrefix++
		return
	}
	if at == 0 {
		at = t
	}
	start := len(b) - len(rest)
	if start > found.tag {
		return
	}
	e := entry{at: at, program: found.program, message: message}
	if e.process = p.busyProcess(b[start:found.pid]); e.process != nil {
		e.key = b[found.pid-len(e.process.key) : found.pid]
	} else {
		e.key = b[start+hostStart(b[start:found.tag]) : found.pid]
	}
	p.entry(e)
}

// mayBeOwn reports whether the removal of a message can change anything: it is a
// report of ours, or its queue id may come again.
func (p *Parser) mayBeOwn(removal []byte) bool {
	return len(p.own.ids) > 0 || isShort(removal[:len(removal)-len(": removed")])
}

// hostStart is where the name of the host begins in what is between time and
// pid. Some daemons put "<mail.info>" before it.
func hostStart(b []byte) int {
	tag := bytes.LastIndexByte(b, ' ')
	return bytes.LastIndexByte(b[:max(tag, 0)], ' ') + 1
}

// pidLength is how long the number is that b begins with; "]: " must follow.
func pidLength(b []byte) (int, bool) {
	n := 0
	for n < len(b) && b[n]-'0' < 10 {
		n++
	}
	return n, n > 0 && n <= 10 && hasPrefix(b[n:], "]: ")
}

// unwrapCRI takes "2026-11-23T10:27:35.123456789Z stdout F " off a line of a
// container.
func unwrapCRI(b []byte) (inner []byte, outer wrapping, ok bool) {
	i := bytes.IndexByte(b, ' ')
	if i < 0 || len(b) < i+len(" stdout F ") {
		return nil, outer, false
	}
	if s := b[i+1:]; !hasPrefix(s, "stdout ") && !hasPrefix(s, "stderr ") {
		return nil, outer, false
	}
	rest := b[i+len(" stdout "):]
	if rest[1] != ' ' {
		return nil, outer, false
	}
	return rest[2:], wrapping{true, b[:i]}, true
}

// priorityLine reads the form of RFC 5424, section 6, and that of RFC 3164 with
// its priority.
func (p *Parser) priorityLine(b []byte) {
	i := bytes.IndexByte(b, '>')
	if i < 0 || i > len("<191") || i+3 > len(b) {
		return
	}
	if b = b[i+1:]; b[0] != '1' || b[1] != ' ' {
		p.plainLine(b, 0)
		return
	}
	at, rest, ok := readRFC3339(b[2:])
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		return
	}
	rest = rest[1:]
	var field [4][]byte // HOSTNAME APP-NAME PROCID MSGID
	for i := range field {
		n := bytes.IndexByte(rest, ' ')
		if n < 0 {
			return
		}
		field[i], rest = rest[:n], rest[n+1:]
	}
	message, ok := skipStructuredData(rest)
	if !ok {
		return
	}
	p.fields(at, field[0], field[1], field[2], message)
}

// skipStructuredData takes the structured data of RFC 5424, section 6.3, off b.
func skipStructuredData(b []byte) ([]byte, bool) {
	if hasPrefix(b, "- ") {
		return b[2:], true
	}
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '\\' && quoted:
			i++
		case b[i] == '"':
			quoted = !quoted
		case b[i] == ']' && !quoted && i+1 < len(b) && b[i+1] == ' ':
			return b[i+2:], true
		case i == 0 && b[i] != '[':
			return nil, false
		}
	}
	return nil, false
}

// fields reads a line that came in parts. tag may have been cut at its first
// slash (RFC 5424 of rsyslog): only the message then tells the program.
func (p *Parser) fields(at int64, host, tag, pid, message []byte) {
	prog := programOf(tag)
	if prog == other && bytes.IndexByte(tag, '/') < 0 {
		prog = unnamed
	}
	if n, ok := digits(pid); prog == other || !ok || n != len(pid) {
		return
	}
	message = bytes.TrimLeft(message, " ")
	k := append(p.key[:0], host...)
	k = append(k, ' ')
	k = append(k, tag...)
	k = append(k, '[')
	p.key = append(k, pid...)
	p.clock.last = at
	p.entry(entry{at: at, program: prog, key: p.key, message: message})
}

// digits is how long the number is that b begins with.
func digits(b []byte) (int, bool) {
	n := 0
	for n < len(b) && b[n]-'0' < 10 {
		n++
	}
	return n, n > 0 && n <= 10
}
