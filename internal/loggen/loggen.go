// Package loggen writes logs of a busy Postfix relay, and knows what is in them:
// which sessions, for whom, and how they ended. Its lines are those of real logs
// (collector/postfixlog/testdata) with other names, numbers and times. Many
// processes write at once, so the lines of a delivery lie apart.
package loggen

import (
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Options says what kind of log it is. The zero value is usable, and each value
// always gives the same log.
type Options struct {
	Seed    uint64
	Domains int // that mail is sent to; 0 is 20,000

	// Processes is how many of smtp(8) deliver at once; 0 is 100.
	Processes int

	// Traditional gives lines the time as syslog did of old, without year, zone
	// and fraction. It is in RFC 3339 form otherwise.
	Traditional bool

	// Start is the time of the first line, and a millisecond passes with each;
	// the zero time is 2026-11-23 00:00 UTC.
	Start time.Time

	// Now, if not nil, says what time it is, in place of Start.
	Now func() time.Time
}

// Key is what sessions are counted by. Result "" is success.
type Key struct {
	Domain string
	Result schema.ResultType
}

// Log is a log in the making. Its methods must not run at the same time.
type Log struct {
	o        Options
	rand     *rand.Rand
	now      time.Time
	stamp    []byte // of now, in the form of a prefix
	slots    []slot
	busy     []int // indices of slots with lines left, while ending
	messages uint64

	sessions map[Key]int64
	stats    Stats
}

// Stats says how much was written.
type Stats struct {
	Lines, Client int64 // Client is lines of smtp(8)
	Sessions      int64 // that are complete
	Bytes         int64
}

// New is an empty log.
func New(o Options) *Log {
	if o.Domains == 0 {
		o.Domains = 20_000
	}
	if o.Processes == 0 {
		o.Processes = 100
	}
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	}
	l := &Log{
		o:        o,
		rand:     rand.New(rand.NewPCG(o.Seed, 0x746c73727074)),
		now:      o.Start.UTC().Add(-time.Millisecond),
		slots:    make([]slot, o.Processes),
		sessions: make(map[Key]int64),
	}
	for i := range l.slots {
		l.slots[i] = newSlot(i)
	}
	return l
}

// Append adds the next line of the log to b.
func (l *Log) Append(b []byte) []byte {
	s := &l.slots[l.rand.IntN(len(l.slots))]
	if s.done() {
		l.compose(s)
	}
	return l.write(b, s)
}

// AppendRest adds to b the lines that end what was begun. The log may go on
// after them.
func (l *Log) AppendRest(b []byte) []byte {
	for {
		l.busy = l.busy[:0]
		for i := range l.slots {
			if !l.slots[i].done() {
				l.busy = append(l.busy, i)
			}
		}
		if len(l.busy) == 0 {
			return b
		}
		b = l.write(b, &l.slots[l.busy[l.rand.IntN(len(l.busy))]])
	}
}

// Sessions is how many sessions are complete in what was written so far: those
// whose last line is.
func (l *Log) Sessions() map[Key]int64 { return maps.Clone(l.sessions) }

// Stats is a snapshot.
func (l *Log) Stats() Stats { return l.stats }

// write adds the next line of s to b.
func (l *Log) write(b []byte, s *slot) []byte {
	from := len(b)
	at := &s.lines[s.next]
	s.next++
	b = append(b, l.tick()...)
	b = append(b, " out postfix/"...)
	b = append(b, at.program...)
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(s.pid(at.program)), 10)
	b = append(b, "]: "...)
	b = append(b, s.text[at.from:at.to]...)
	b = append(b, '\n')
	l.stats.Lines++
	l.stats.Bytes += int64(len(b) - from)
	if at.program == smtp {
		l.stats.Client++
	}
	if at.counts {
		l.sessions[at.key]++
		l.stats.Sessions++
	}
	return b
}

const (
	rfc3339     = "2006-01-02T15:04:05.000000-07:00"
	traditional = "Jan _2 15:04:05"
)

// tick is the time of the next line.
func (l *Log) tick() []byte {
	before := l.now
	if l.o.Now != nil {
		l.now = l.o.Now()
	} else {
		l.now = l.now.Add(time.Millisecond)
	}
	if !l.o.Traditional {
		l.stamp = l.now.AppendFormat(l.stamp[:0], rfc3339)
	} else if len(l.stamp) == 0 || before.Unix() != l.now.Unix() {
		l.stamp = l.now.AppendFormat(l.stamp[:0], traditional)
	}
	return l.stamp
}
