package postfixlog

import "hash/maphash"

// table finds what was made of a text. It is what a map of strings is, but that a
// look-up, of which each session needs some, touches less memory: a slot, and the
// text that it has. Half of the sessions of a log are with hosts that were not
// seen of late, so that this is what a look-up costs. The benchmarks are
// BenchmarkTable and BenchmarkMap.
//
// Names are of strangers: the seed keeps them from choosing where they go.
type table[V any] struct {
	seed  maphash.Seed
	slots []slot[V] // a power of two, at most half of them used
	used  int
}

type slot[V any] struct {
	hash  uint64 // 0: unused
	text  string
	value V
}

// maxNames bounds each table: about 10 MB.
const maxNames = 1 << 16

func newTable[V any]() table[V] {
	return table[V]{seed: maphash.MakeSeed(), slots: make([]slot[V], 64)}
}

// hash is never 0.
func (t *table[V]) hash(b []byte) uint64 { return maphash.Bytes(t.seed, b) | 1 }

// find is the value of b, if it has one.
func (t *table[V]) find(hash uint64, b []byte) (v V, ok bool) {
	mask := uint64(len(t.slots) - 1)
	for i := hash >> 32 & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.hash == hash && s.text == string(b) {
			return s.value, true
		}
		if s.hash == 0 {
			return v, false
		}
	}
}

// add gives text, which has none, a value. If there are too many, all others are
// forgotten.
func (t *table[V]) add(hash uint64, text string, v V) {
	switch {
	case t.used >= maxNames:
		clear(t.slots)
		t.used = 0
	case 2*t.used >= len(t.slots):
		t.grow()
	}
	t.used++
	t.put(slot[V]{hash, text, v})
}

// put puts s into the first slot that is free.
func (t *table[V]) put(s slot[V]) {
	mask := uint64(len(t.slots) - 1)
	i := s.hash >> 32 & mask
	for t.slots[i].hash != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

func (t *table[V]) grow() {
	old := t.slots
	t.slots = make([]slot[V], 2*len(old))
	for _, s := range old {
		if s.hash != 0 {
			t.put(s)
		}
	}
}
