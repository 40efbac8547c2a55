package postfixlog

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonLine is the members of one JSON line that matter. A log line is a flat
// object, so nothing is built for the others.
type jsonLine struct {
	scratch []byte // texts that had escapes

	log, time                        []byte // docker json-file
	message, host, tag, program, pid []byte // rsyslog and others
	realtime, identifier             []byte // journald
	syslogPID, processID             []byte
}

// jsonLine reads a line of journalctl -o json, of rsyslog, or of docker's
// json-file driver.
func (p *Parser) jsonLine(b []byte, in wrapping) {
	j := &p.json[0]
	if in.is {
		j = &p.json[1] // b may be in the scratch of the other one
	}
	*j = jsonLine{scratch: j.scratch[:0]}
	if !j.read(b) {
		return
	}
	switch {
	case j.log != nil && !in.is:
		p.line(bytes.TrimRight(j.log, "\n"), wrapping{true, j.time})
	case j.realtime != nil:
		us, err := strconv.ParseInt(string(j.realtime), 10, 64)
		if err != nil || us < 0 || us > 1<<62/1000 {
			return
		}
		pid := j.syslogPID
		if pid == nil {
			pid = j.processID
		}
		p.fields(us*1000, j.host, j.identifier, pid, j.message)
	case j.time != nil:
		p.syslogJSON(j)
	}
}

// syslogJSON reads the members that a template of rsyslog, syslog-ng or vector
// is likely to write.
func (p *Parser) syslogJSON(j *jsonLine) {
	at, rest, ok := readRFC3339(j.time)
	if !ok || len(rest) > 0 {
		return
	}
	tag, pid := j.tag, j.pid
	if i := bytes.IndexByte(tag, '['); i >= 0 {
		n, _ := digits(tag[i+1:])
		tag, pid = tag[:i], tag[i+1:i+1+n]
	} else if tag == nil {
		tag = j.program
	}
	p.fields(at, j.host, tag, pid, j.message)
}

// member is where the value of a name goes, nil if nowhere.
func (j *jsonLine) member(name []byte) *[]byte {
	switch string(name) {
	case "MESSAGE", "message", "msg":
		return &j.message
	case "__REALTIME_TIMESTAMP":
		return &j.realtime
	case "SYSLOG_IDENTIFIER":
		return &j.identifier
	case "SYSLOG_PID":
		return &j.syslogPID
	case "_PID":
		return &j.processID
	case "_HOSTNAME", "host", "hostname":
		return &j.host
	case "log":
		return &j.log
	case "time", "timestamp", "@timestamp":
		return &j.time
	case "syslogtag":
		return &j.tag
	case "programname", "program", "appname", "app-name", "tag", "ident":
		return &j.program
	case "pid", "procid":
		return &j.pid
	}
	return nil
}

// read takes the members out of the object b. false means that it is not one.
func (j *jsonLine) read(b []byte) bool {
	b = skipSpace(b[1:])
	for len(b) > 0 && b[0] == '"' {
		var name []byte
		var ok bool
		if name, b, ok = j.text(b); !ok {
			return false
		}
		if b = skipSpace(b); len(b) == 0 || b[0] != ':' {
			return false
		}
		if b, ok = j.value(j.member(name), skipSpace(b[1:])); !ok {
			return false
		}
		if b = skipSpace(b); len(b) > 0 && b[0] == ',' {
			b = skipSpace(b[1:])
		}
	}
	return len(b) > 0 && b[0] == '}'
}

// value reads a value into dst, unless that is nil.
func (j *jsonLine) value(dst *[]byte, b []byte) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	var v []byte
	switch {
	case b[0] == '"':
		v, rest, ok = j.text(b)
	case b[0] == '[' && dst == &j.message:
		// journald writes a text that is not UTF-8, or has control characters,
		// as an array of bytes.
		v, rest, ok = j.byteArray(b)
	case b[0] == '[' || b[0] == '{':
		rest, ok = skipNested(b)
	default:
		n := bytes.IndexAny(b, ",} ")
		if n < 0 {
			return nil, false
		}
		v, rest, ok = b[:n], b[n:], true
	}
	if dst != nil && v != nil {
		*dst = v
	}
	return rest, ok
}

// text reads a string. It is part of b, or of the scratch if it had escapes.
func (j *jsonLine) text(b []byte) (s, rest []byte, ok bool) {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			return b[1:i:i], b[i+1:], true
		case '\\':
			return j.escaped(b, i)
		}
	}
	return nil, nil, false
}

// escaped reads a string whose first escape is at i.
func (j *jsonLine) escaped(b []byte, i int) (s, rest []byte, ok bool) {
	start := len(j.scratch)
	j.scratch = append(j.scratch, b[1:i]...)
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			end := len(j.scratch)
			return j.scratch[start:end:end], b[i+1:], true
		case c != '\\':
			j.scratch = append(j.scratch, c)
			i++
		case i+1 >= len(b):
			return nil, nil, false
		case b[i+1] == 'u':
			r, n := readUnicode(b[i:])
			if n == 0 {
				return nil, nil, false
			}
			j.scratch = utf8.AppendRune(j.scratch, r)
			i += n
		default:
			j.scratch = append(j.scratch, unescape(b[i+1]))
			i += 2
		}
	}
	return nil, nil, false
}

// unescape is what a backslash and c stand for.
func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 'r':
		return '\r'
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	}
	return c
}

// readUnicode reads "\u00fc", or two of them that are one surrogate pair. n is
// the number of bytes, 0 if b is neither.
func readUnicode(b []byte) (r rune, n int) {
	unit := func(b []byte) (rune, bool) {
		if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
		return rune(v), err == nil
	}
	r, ok := unit(b)
	if !ok {
		return 0, 0
	}
	if utf16.IsSurrogate(r) {
		if low, ok := unit(b[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12
			}
		}
	}
	return r, 6
}

// byteArray reads [84,76,83].
func (j *jsonLine) byteArray(b []byte) (s, rest []byte, ok bool) {
	start := len(j.scratch)
	b = skipSpace(b[1:])
	for len(b) > 0 && b[0] != ']' {
		n, after := leadingNumber(b)
		if len(after) == len(b) || n > 255 {
			return nil, nil, false
		}
		j.scratch = append(j.scratch, byte(n))
		if b = skipSpace(after); len(b) > 0 && b[0] == ',' {
			b = skipSpace(b[1:])
		}
	}
	if len(b) == 0 {
		return nil, nil, false
	}
	end := len(j.scratch)
	return j.scratch[start:end:end], b[1:], true
}

// skipNested takes an array or an object off b.
func skipNested(b []byte) ([]byte, bool) {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return b[i+1:], true
			}
		}
	}
	return nil, false
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}
