package collector

import (
	"cmp"
	"maps"
	"slices"
)

// pieces is b in parts of at most so many keys, or of one domain's where that has
// more. Each can be committed by itself: all policies of a session are in one. b
// is its only piece if it is no larger.
func (b *batch) pieces(keys int) []*batch {
	if b.keys <= keys {
		return []*batch{b}
	}
	sorted := slices.SortedFunc(maps.Keys(b.rows), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.domain, b.domain), cmp.Compare(a.record, b.record))
	})
	var all []*batch
	p := newBatch()
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && sorted[n].sameSession(sorted[0]) {
			n++
		}
		size := 0
		for _, k := range sorted[:n] {
			size += 1 + len(b.rows[k].details)
		}
		if p.keys > 0 && p.keys+size > keys {
			all, p = append(all, p), newBatch()
		}
		for _, k := range sorted[:n] {
			p.share(k, b.rows[k])
		}
		sorted = sorted[n:]
	}
	return append(all, p)
}

// sameSession reports whether one session can have policies of both keys.
func (k key) sameSession(o key) bool {
	return k.day == o.day && k.domain == o.domain && k.record == o.record
}

// share gives b the row of another batch, all its sessions with it.
func (b *batch) share(k key, r *row) {
	b.rows[k] = r
	b.sessions += r.sessions
	b.keys += 1 + len(r.details)
	b.bytes += rowBytes(k, r)
}

// remove takes what p shares with b from b.
func (b *batch) remove(p *batch) {
	for k := range p.rows {
		delete(b.rows, k)
		delete(b.crowds, crowdKey{k.day, k.domain})
	}
	b.sessions -= p.sessions
	b.keys -= p.keys
	b.bytes -= p.bytes
}

func rowBytes(k key, r *row) int {
	n := k.size()
	for d := range r.details {
		n += detailsOverhead + len(d)
	}
	return n
}
