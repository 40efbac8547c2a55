package postfixlog

import "hash/maphash"

// digest stands for a text. Nobody outside can make two texts that share one: it
// has 128 bits, and its seeds are of this process.
type digest [2]uint64

var digestSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// digestOf never begins with 0.
func digestOf(b []byte) digest {
	return digest{maphash.Bytes(digestSeeds[0], b) | 1, maphash.Bytes(digestSeeds[1], b)}
}

// table finds what was made of a text. It is what a map of strings is, but that a
// look-up, of which each session needs some, touches one place in memory: half of
// the sessions of a log are with hosts that were not seen of late, so that this is
// what a look-up costs. The benchmarks are BenchmarkTable and BenchmarkMap.
type table[V any] struct {
	slots []slot[V] // a power of two, at most half of them used
	used  int
}

type slot[V any] struct {
	text  digest // zero: unused
	value V
}

// maxNames bounds each table: about 10 MB.
const maxNames = 1 << 16

func newTable[V any]() table[V] { return table[V]{slots: make([]slot[V], 64)} }

// find is the value of a text, if it has one.
func (t *table[V]) find(text digest) (v V, ok bool) {
	mask := uint64(len(t.slots) - 1)
	for i := text[0] >> 32 & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.text == text {
			return s.value, true
		}
		if s.text[0] == 0 {
			return v, false
		}
	}
}

// add gives a text, which has none, a value. If there are too many, all others are
// forgotten.
func (t *table[V]) add(text digest, v V) {
	switch {
	case t.used >= maxNames:
		clear(t.slots)
		t.used = 0
	case 2*t.used >= len(t.slots):
		t.grow()
	}
	t.used++
	t.put(slot[V]{text, v})
}

// put puts s into the first slot that is free.
func (t *table[V]) put(s slot[V]) {
	mask := uint64(len(t.slots) - 1)
	i := s.text[0] >> 32 & mask
	for t.slots[i].text[0] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

func (t *table[V]) grow() {
	old := t.slots
	t.slots = make([]slot[V], 2*len(old))
	for _, s := range old {
		if s.text[0] != 0 {
			t.put(s)
		}
	}
}
