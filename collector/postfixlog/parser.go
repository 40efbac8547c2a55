package postfixlog

import (
	"strings"
	"time"
)

// Options says whose log it is. The zero value is usable.
type Options struct {
	// Instance is the syslog_name of the Postfix instance. "postfix" matches the
	// tags "postfix/smtp" and "postfix/relay/smtp", not "postfix-out/smtp".
	// "" means "postfix"; "*" means any.
	Instance string

	// ReportPlaintext makes a session of each plaintext delivery where TLS was
	// not required, failed with starttls-not-supported. Before 3.11 a log cannot
	// tell "not offered" from "not to be used".
	ReportPlaintext bool

	// Relays, if not nil, is hosts that mail goes to and that are no MX of its
	// domain. Sessions with them are not handed on.
	Relays *Relays

	// Location is the time zone of prefixes that name none; nil means local time.
	Location *time.Location

	// Latest is about the latest time that a line can have, which tells the year
	// of prefixes that name none: now, or the time of a file that is complete.
	// nil means time.Now.
	Latest func() time.Time

	// Senders are the envelope senders of our own report mail. Sessions of such
	// mail are not handed on. Mail with a Message-ID that begins "tlsrpt." is
	// ours too.
	Senders []string

	// Dropped, if not nil, is called for each session that is not handed on. The
	// *Session is valid during the call; Domain may be missing.
	Dropped func(*Session, Drop)
}

// Parser turns log lines into sessions. Its methods must not run at the same
// time. It sees one log, whose lines are in the order in which each process
// wrote them.
type Parser struct {
	options  Options
	anyone   bool // options.Instance is "*"
	location *time.Location
	sieve    sieve

	clock     clock
	names     names
	mtas      map[string]*mta     // by host and syslog_name
	processes map[string]*process // by host, tag and pid
	busy      [256]*process       // some of processes, where they are found faster
	own       ownMail
	sweepAt   int64 // nanoseconds; when to look for what has been waiting too long

	current entry // its texts are valid while it is read
	emit    func(*Session)
	session Session // what emit is given
	json    [2]jsonLine
	key     []byte // scratch: the key of a process
	sifted  sifted // scratch: of a chunk
	stats   Stats
}

// NewParser is a parser that has seen nothing.
func NewParser(o Options) *Parser {
	p := &Parser{options: o, location: o.Location}
	if p.options.Instance == "" {
		p.options.Instance = "postfix"
	}
	p.anyone = p.options.Instance == "*"
	if p.location == nil {
		p.location = time.Local
	}
	if p.options.Latest == nil {
		p.options.Latest = time.Now
	}
	for _, s := range o.Senders {
		p.sieve.senders = append(p.sieve.senders, strings.ToLower(s))
	}
	p.stats.Dropped = make(map[Drop]int64)
	p.stats.NativeLost = make(map[string]int64)
	p.reset()
	return p
}

// reset forgets all that was read.
func (p *Parser) reset() {
	p.clock = clock{location: p.location, latest: p.options.Latest}
	p.names = newNames()
	p.mtas = make(map[string]*mta)
	p.processes = make(map[string]*process)
	clear(p.busy[:])
	p.own = newOwnMail()
	p.sweepAt = 0
}

// Parse reads a chunk of whole lines; the last one may lack its line end. emit
// is called for each session that is complete, in the order of the lines that
// completed them. The *Session is valid during the call.
func (p *Parser) Parse(chunk []byte, emit func(*Session)) {
	p.sieve.sift(&p.sifted, chunk)
	p.read(&p.sifted, emit)
}

// read is Parse of a chunk that was sifted.
func (p *Parser) read(s *sifted, emit func(*Session)) {
	p.emit = emit
	for i := range s.lines {
		l := &s.lines[i]
		if line := s.text[l.from:l.to]; l.parts.program == other {
			p.line(line, wrapping{})
		} else {
			p.splitLine(line, l.parts, 0)
		}
	}
	p.stats.Lines += s.all
	p.stats.NoPrefix += s.naked
	p.emit = nil
}

// Flush gives up what was waiting too long at now: sessions whose recipient did
// not come within an hour. A time far ahead gives up everything, as is right at
// the end of a log that is complete.
func (p *Parser) Flush(now time.Time, emit func(*Session)) {
	p.emit = emit
	p.sweep(now.UnixNano())
	p.emit = nil
}

// newest is the time of the line of the mail server that was read last.
func (p *Parser) newest() time.Time { return time.Unix(0, p.current.at) }
