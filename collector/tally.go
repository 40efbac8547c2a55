package collector

import (
	"slices"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Tally is one session, prepared to be counted over and over on one day. Most
// sessions with a domain are the same as the one before: who keeps their Tally
// counts them for the price of an increment. It lasts as long as its Counter,
// across commits.
type Tally struct {
	counter *Counter
	lines   []line
	batch   uint64 // the id of the batch that the rows of lines belong to; 0 is none
	folded  bool   // in that batch
	pending int64  // sessions that the rows have yet to get
	one     [1]line
}

// line is one policy of a session.
type line struct {
	key     key
	failed  bool
	details []schema.DetailsText
	row     *row
	counted []schema.DetailsText // in row: details, or what they were folded to
}

// Tally prepares s, which must be in canonical form, for day. It counts nothing.
func (c *Counter) Tally(day schema.Day, s schema.Session) *Tally {
	t := &Tally{counter: c}
	if t.lines = t.one[:]; len(s.Results) != 1 {
		t.lines = make([]line, len(s.Results))
	}
	// A copy of its own: names may be slices of a datagram or a log line, which
	// would be held in memory as a whole.
	names := strings.Join([]string{s.Domain, s.Record}, "")
	for i, r := range s.Results {
		l := &t.lines[i]
		l.failed = r.Failed
		l.key = key{
			day:    day,
			domain: names[:len(s.Domain)],
			record: names[len(s.Domain):],
			policy: r.Policy.Text(),
		}
		for _, f := range r.Details {
			// Details count sessions: a fault that is told twice is one.
			if d := f.Text(); !slices.Contains(l.details, d) {
				l.details = append(l.details, d)
			}
		}
	}
	return t
}

// What it takes to hold a key beside its texts, in bytes, with the room that a
// map leaves empty.
const (
	keyOverhead     = 160 // key and row pointer in a map, and the row
	detailsOverhead = 96  // text and number in a map
	tallyOverhead   = 48
)

// Size is the memory that t takes up, in bytes.
func (t *Tally) Size() int {
	n := tallyOverhead
	for _, l := range t.lines {
		n += l.key.size()
		for _, d := range l.details {
			n += detailsOverhead + len(d)
		}
	}
	return n
}

// Add counts the session once more.
func (t *Tally) Add() {
	c := t.counter
	c.mu.Lock()
	if t.batch != c.batch.id && !c.enter(t) {
		c.lose()
		return
	}
	t.pending++
	c.stats.Counted++
	c.batch.sessions++
	if t.folded {
		c.stats.Folded++
	}
	c.mu.Unlock()
}

// settle gives the rows of t what was counted.
func (t *Tally) settle() {
	for i := range t.lines {
		l := &t.lines[i]
		if l.failed {
			l.row.failure += t.pending
		} else {
			l.row.success += t.pending
		}
		for _, d := range l.counted {
			l.row.details[d] += t.pending
		}
	}
	t.lines[0].row.sessions += t.pending
	t.pending = 0
}

// enter gives t its rows in the present batch. It is false if there is no room
// for them: t then has none, and must not be counted.
func (c *Counter) enter(t *Tally) bool {
	b := c.batch
	if !c.admits(t) {
		return false
	}
	t.folded = false
	for i := range t.lines {
		t.folded = b.place(&t.lines[i]) || t.folded
	}
	if len(b.tallies) == maxUnsettled {
		b.settle()
	}
	t.batch = b.id
	b.tallies = append(b.tallies, t)
	if b.sessions == 0 {
		b.since = time.Now()
		c.notify()
	}
	if c.full() {
		c.notify()
	}
	return true
}

// notify wakes Run.
func (c *Counter) notify() {
	select {
	case c.wake <- struct{}{}:
	default: // it has yet to see the last one
	}
}

// full reports whether the batch should be committed at once.
func (c *Counter) full() bool {
	return c.batch.keys >= c.options.MaxKeys || c.batch.bytes >= maxKeyBytes
}

// admits reports whether the bounds leave room for the keys of t that are not
// held already.
func (c *Counter) admits(t *Tally) bool {
	keys, bytes := c.batch.keys, c.batch.bytes
	if c.taken != nil {
		keys += c.taken.keys
		bytes += c.taken.bytes
	}
	for _, l := range t.lines {
		if keys+1+len(l.details) <= c.options.MaxHeld && bytes < maxHeldBytes {
			keys += 1 + len(l.details)
			continue
		}
		n := c.unknown(l)
		if n > 0 && (keys+n > c.options.MaxHeld || bytes >= maxHeldBytes) {
			return false
		}
		keys += n
	}
	return true
}

// unknown is the number of keys of l that neither the batch nor the one with
// the sink has.
func (c *Counter) unknown(l line) int {
	n := 0
	if !c.batch.knows(l.key) && !c.taken.knows(l.key) {
		n++
	}
	for _, d := range l.details {
		if !c.batch.knowsDetails(l.key, d) && !c.taken.knowsDetails(l.key, d) {
			n++
		}
	}
	return n
}

// lose counts a session as lost, unlocks c, and now and then says so.
func (c *Counter) lose() {
	c.stats.Lost++
	lost, now := c.stats.Lost, time.Now()
	tell := now.Sub(c.lossTold) >= lossLogInterval
	if tell {
		c.lossTold = now
	}
	c.mu.Unlock()
	if tell {
		c.options.Logger.Error("sessions are lost: too much is waiting for commits that fail or take too long",
			"source", c.source, "lost", lost)
	}
}
