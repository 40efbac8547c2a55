package collector

import (
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// batch is what is committed at once.
type batch struct {
	id       uint64    // grows from batch to batch, from 1, and with each settle
	since    time.Time // of the first session
	sessions int64
	tallies  []*Tally // that entered, and may have counted what rows do not have
	rows     map[key]*row
	crowds   map[crowdKey]*crowd
	keys     int // rows, and details within rows
	bytes    int // of memory that rows take up
}

// key tells apart what is counted apart.
type key struct {
	day    schema.Day
	domain string
	record string
	policy schema.PolicyText
}

func (k key) size() int { return keyOverhead + len(k.domain) + len(k.record) + len(k.policy) }

type row struct {
	success, failure int64 // sessions
	sessions         int64 // of both, those whose first policy this is
	details          map[schema.DetailsText]int64
}

func newBatch() *batch { return &batch{id: 1, rows: map[key]*row{}, crowds: map[crowdKey]*crowd{}} }

// reset empties b, which keeps the room that its map has grown to.
func (b *batch) reset(id uint64) {
	clear(b.rows)
	clear(b.crowds)
	*b = batch{id: id, rows: b.rows, crowds: b.crowds, tallies: b.tallies[:0]}
}

// maxUnsettled bounds the Tallies of a batch that rows are yet to get something
// from: whoever has them may have let go of them.
const maxUnsettled = 1 << 14

// settle gives rows what their Tallies counted, which then have to enter again. To
// do so once a batch, and not with each session, leaves little for Tally.Add.
func (b *batch) settle() {
	for _, t := range b.tallies {
		t.settle()
	}
	clear(b.tallies)
	b.tallies = b.tallies[:0]
	b.id++
}

// row is the row of k, which is made if b has none.
func (b *batch) row(k key) *row {
	r := b.rows[k]
	if r == nil {
		r = new(row)
		b.rows[k] = r
		b.keys++
		b.bytes += k.size()
	}
	return r
}

// addDetails makes room for d in r, a row of b.
func (b *batch) addDetails(r *row, d schema.DetailsText) {
	if _, ok := r.details[d]; ok {
		return
	}
	if r.details == nil {
		r.details = map[schema.DetailsText]int64{}
	}
	r.details[d] = 0
	b.keys++
	b.bytes += detailsOverhead + len(d)
}

// knows and knowsDetails may be asked of a nil batch, which knows nothing.
func (b *batch) knows(k key) bool { return b != nil && b.rows[k] != nil }

func (b *batch) knowsDetails(k key, d schema.DetailsText) bool {
	if !b.knows(k) {
		return false
	}
	_, ok := b.rows[k].details[d]
	return ok
}

// merge adds all of o, which is settled, to b.
func (b *batch) merge(o *batch) {
	for k, from := range o.rows {
		before, crowd := b.keys, b.crowd(k)
		to := b.row(k)
		crowd.policies += b.keys - before
		before = b.keys
		to.success += from.success
		to.failure += from.failure
		to.sessions += from.sessions
		for d, n := range from.details {
			b.addDetails(to, d)
			to.details[d] += n
		}
		crowd.details += b.keys - before
	}
	b.sessions += o.sessions
}

// counts is b as a Sink takes it.
func (b *batch) counts() []schema.Count {
	counts := make([]schema.Count, 0, len(b.rows))
	for k, r := range b.rows {
		c := schema.Count{
			Day: k.day, Domain: k.domain, Record: k.record, Policy: k.policy,
			Success: r.success, Failure: r.failure,
		}
		for d, n := range r.details {
			c.Details = append(c.Details, schema.DetailsCount{Details: d, Sessions: n})
		}
		counts = append(counts, c)
	}
	return counts
}
