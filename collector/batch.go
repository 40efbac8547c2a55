package collector

import (
	"hash/maphash"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// batch is what is committed at once. It has its own copy of all texts.
type batch struct {
	id       uint64    // grows from batch to batch, from 1
	since    time.Time // of the first session
	sessions int64
	domains  map[domainKey]*domain
	order    []*domain // that of domains in which they came
	numbers  []int64   // all counts, of sessions, see at
	keys     int       // rows, and details within rows
	bytes    int       // of memory that all of it takes up

	texts texts
	room  []domain // for those to come
}

// at is where in batch.numbers something is counted. Who holds a number holds
// nothing of the batch, as a pointer would.
type at int32

type domainKey struct {
	day  schema.Day
	name string
}

// domain is what a batch has of one recipient domain on one day. All policies of a
// session are in one.
type domain struct {
	domainKey
	record        string // that came last, "" if none did
	sessions      at
	rows, details int // their number
	bytes         int
	row           row // the first of a chain
}

// row is one policy of a domain.
type row struct {
	hash             uint64 // of policy
	policy           schema.PolicyText
	success, failure at
	details          map[schema.DetailsText]at
	next             *row
}

// What it takes to hold a key beside its texts, in bytes, with the room that a
// map leaves empty.
const (
	domainOverhead  = 220
	rowOverhead     = 64
	detailsOverhead = 96
)

// roomFor is how many domains are made at once.
const roomFor = 128

func newBatch() *batch { return &batch{id: 1, domains: map[domainKey]*domain{}} }

// reset empties b, which keeps the room that its map has grown to.
func (b *batch) reset(id uint64) {
	clear(b.domains)
	*b = batch{id: id, domains: b.domains, numbers: b.numbers[:0]}
}

// number is a new one, 0.
func (b *batch) number() at {
	b.numbers = append(b.numbers, 0)
	return at(len(b.numbers) - 1)
}

// domain is the domain of k, which is made if b has none.
func (b *batch) domain(k domainKey) *domain {
	d := b.domains[k]
	if d != nil {
		return d
	}
	if len(b.room) == 0 {
		b.room = make([]domain, roomFor)
	}
	d, b.room = &b.room[0], b.room[1:]
	d.domainKey = domainKey{k.day, b.texts.keep(k.name)}
	d.sessions = b.number()
	b.domains[d.domainKey] = d
	b.order = append(b.order, d)
	b.grow(d, domainOverhead+len(k.name))
	return d
}

func (b *batch) grow(d *domain, bytes int) {
	d.bytes += bytes
	b.bytes += bytes
}

// setRecord stores the newest TLSRPT record of d.
func (b *batch) setRecord(d *domain, record string) {
	if record != "" && record != d.record {
		b.grow(d, len(record))
		d.record = b.texts.keep(record)
	}
}

var hashSeed = maphash.MakeSeed()

func hashOf(policy schema.PolicyText) uint64 { return maphash.String(hashSeed, string(policy)) }

// find is the row of policy, or nil. Its hash spares the comparison with others,
// which may be long and alike.
func (d *domain) find(hash uint64, policy schema.PolicyText) *row {
	if d.rows == 0 {
		return nil
	}
	for r := &d.row; r != nil; r = r.next {
		if r.hash == hash && r.policy == policy {
			return r
		}
	}
	return nil
}

// row is the row of policy, which is made if d, a domain of b, has none.
func (b *batch) row(d *domain, hash uint64, policy schema.PolicyText) *row {
	r := d.find(hash, policy)
	if r != nil {
		return r
	}
	if r = &d.row; d.rows > 0 {
		r = &row{next: d.row.next}
		d.row.next = r
	}
	r.hash, r.policy = hash, schema.PolicyText(b.texts.keep(string(policy)))
	r.success, r.failure = b.number(), b.number()
	d.rows++
	b.keys++
	b.grow(d, rowOverhead+len(policy))
	return r
}

// count is where sessions with details in r, a row of d, are counted. It is made
// if there is none.
func (b *batch) count(d *domain, r *row, details schema.DetailsText) at {
	n, ok := r.details[details]
	if ok {
		return n
	}
	if r.details == nil {
		r.details = map[schema.DetailsText]at{}
	}
	n = b.number()
	r.details[schema.DetailsText(b.texts.keep(string(details)))] = n
	d.details++
	b.keys++
	b.grow(d, detailsOverhead+len(details))
	return n
}

// merge adds all of o to b.
func (b *batch) merge(o *batch) {
	for _, from := range o.order {
		to := b.domain(from.domainKey)
		b.setRecord(to, from.record)
		b.numbers[to.sessions] += o.numbers[from.sessions]
		for f := &from.row; f != nil; f = f.next {
			t := b.row(to, f.hash, f.policy)
			b.numbers[t.success] += o.numbers[f.success]
			b.numbers[t.failure] += o.numbers[f.failure]
			for details, n := range f.details {
				b.numbers[b.count(to, t, details)] += o.numbers[n]
			}
		}
	}
	b.sessions += o.sessions
}

// piece is the first domains of b with at most so many keys, or one that has more.
func (b *batch) piece(keys int) []*domain {
	for i, d := range b.order {
		if keys -= d.rows + d.details; keys < 0 && i > 0 {
			return b.order[:i]
		}
	}
	return b.order
}

// remove takes piece, the first domains of b, from b, and says how many sessions
// it had.
func (b *batch) remove(piece []*domain) (sessions int64) {
	if len(piece) == len(b.order) {
		clear(b.domains) // in a fraction of the time, during which nobody can add
	}
	for _, d := range piece {
		delete(b.domains, d.domainKey)
		b.keys -= d.rows + d.details
		b.bytes -= d.bytes
		sessions += b.numbers[d.sessions]
	}
	b.order = b.order[len(piece):]
	b.sessions -= sessions
	return sessions
}

// counts is a piece of b as a Sink takes it.
func (b *batch) counts(piece []*domain) []schema.Count {
	rows := 0
	for _, d := range piece {
		rows += d.rows
	}
	counts := make([]schema.Count, 0, rows)
	for _, d := range piece {
		for r := &d.row; r != nil; r = r.next {
			c := schema.Count{
				Day: d.day, Domain: d.name, Record: d.record, Policy: r.policy,
				Success: b.numbers[r.success], Failure: b.numbers[r.failure],
			}
			for details, n := range r.details {
				c.Details = append(c.Details, schema.DetailsCount{Details: details, Sessions: b.numbers[n]})
			}
			counts = append(counts, c)
		}
	}
	return counts
}
