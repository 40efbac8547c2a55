package collector

import (
	"slices"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Place is where a session was counted. Most sessions with a domain are the same as
// one before: who keeps its Place counts them for the price of an increment, as
// long as they are of one commit. The zero value is nowhere.
type Place struct {
	batch    uint64 // its id; 0 is none
	folded   bool
	sessions at   // of the domain
	result   at   // of the policy
	more     []at // of further policies, and of details
}

// Lost reports whether p is nowhere: there was no room for the session.
func (p Place) Lost() bool { return p.batch == 0 }

// prepared is a session as it is counted.
type prepared struct {
	domainKey
	record string
	lines  []line
	one    [1]line // room for most
}

// line is one policy of a session.
type line struct {
	hash    uint64 // of policy
	policy  schema.PolicyText
	failed  bool
	details []schema.DetailsText
}

// prepare has p hold s, which must be in canonical form, on day.
func (p *prepared) prepare(day schema.Day, s schema.Session) {
	p.domainKey, p.record = domainKey{day, s.Domain}, s.Record
	if p.lines = p.one[:]; len(s.Results) != 1 {
		p.lines = make([]line, len(s.Results))
	}
	for i, r := range s.Results {
		l := &p.lines[i]
		l.failed = r.Failed
		l.policy = r.Policy.Text()
		l.hash = hashOf(l.policy)
		for _, f := range r.Details {
			// Details count sessions: a fault that is told twice is one.
			if d := f.Text(); !slices.Contains(l.details, d) {
				l.details = append(l.details, d)
			}
		}
	}
}

// Tally is one session, prepared to be counted over and over on one day. Unlike a
// [Place], it lasts as long as its Counter, across commits.
type Tally struct {
	counter *Counter
	prepared
	place Place
}

// Tally prepares s, which must be in canonical form, for day. It counts nothing.
func (c *Counter) Tally(day schema.Day, s schema.Session) *Tally {
	t := &Tally{counter: c}
	// A copy of its own: names may be slices of a datagram or a log line, which
	// would be held in memory as a whole.
	names := strings.Join([]string{s.Domain, s.Record}, "")
	s.Domain, s.Record = names[:len(s.Domain)], names[len(s.Domain):]
	t.prepare(day, s)
	return t
}

const tallyOverhead = 192

// Size is the memory that t takes up, in bytes.
func (t *Tally) Size() int {
	n := tallyOverhead + len(t.name) + len(t.record)
	for _, l := range t.lines {
		n += rowOverhead + len(l.policy)
		for _, d := range l.details {
			n += 16 + len(d)
		}
	}
	return n
}

// Add counts the session once more.
func (t *Tally) Add() {
	if !t.counter.Again(&t.place) {
		t.place = t.counter.add(&t.prepared)
	}
}

// Add counts s, which must be in canonical form, on day. What s says about time
// is ignored. It returns where.
func (c *Counter) Add(day schema.Day, s schema.Session) Place {
	var p prepared
	p.prepare(day, s)
	return c.add(&p)
}

// Again counts a session once more where it was counted before. It is false, and
// counts nothing, if a commit came in between: it then has to be added.
func (c *Counter) Again(p *Place) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.batch != c.batch.id {
		return false
	}
	c.count(p)
	return true
}

// count counts a session at p, a place in the present batch.
func (c *Counter) count(p *Place) {
	numbers := c.batch.numbers
	numbers[p.sessions]++
	numbers[p.result]++
	for _, n := range p.more {
		numbers[n]++
	}
	c.batch.sessions++
	c.stats.Counted++
	if p.folded {
		c.stats.Folded++
	}
}

// add counts p in the present batch, and returns where. If there is no room for it
// there, it is lost.
func (c *Counter) add(p *prepared) Place {
	c.mu.Lock()
	if !c.admits(p) {
		c.lose()
		return Place{}
	}
	defer c.mu.Unlock()
	if c.batch.sessions == 0 {
		c.batch.since = time.Now()
		c.notify()
	}
	place := c.batch.place(p)
	c.count(&place)
	if c.full() {
		c.notify()
	}
	return place
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

// admits reports whether the bounds leave room for the keys of p that are not
// held already.
func (c *Counter) admits(p *prepared) bool {
	keys, bytes := c.batch.keys, c.batch.bytes
	if c.taken != nil {
		keys += c.taken.keys
		bytes += c.taken.bytes
	}
	for i := range p.lines {
		l := &p.lines[i]
		if keys+1+len(l.details) <= c.options.MaxHeld && bytes < maxHeldBytes {
			keys += 1 + len(l.details)
			continue
		}
		n := c.unknown(p.domainKey, l)
		if n > 0 && (keys+n > c.options.MaxHeld || bytes >= maxHeldBytes) {
			return false
		}
		keys += n
	}
	return true
}

// unknown is the number of keys of l that neither the batch nor the one with
// the sink has.
func (c *Counter) unknown(k domainKey, l *line) int {
	here, there := c.batch.known(k, l), c.taken.known(k, l)
	n := 0
	if here == nil && there == nil {
		n++
	}
	for _, d := range l.details {
		if here.lacks(d) && there.lacks(d) {
			n++
		}
	}
	return n
}

// known is the row of l, or nil. It may be asked of a nil batch.
func (b *batch) known(k domainKey, l *line) *row {
	if b == nil {
		return nil
	}
	d := b.domains[k]
	if d == nil {
		return nil
	}
	return d.find(l.hash, l.policy)
}

// lacks reports whether r does not have details. It may be asked of a nil row.
func (r *row) lacks(details schema.DetailsText) bool {
	if r == nil {
		return true
	}
	_, ok := r.details[details]
	return !ok
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
