package postfixlog

import (
	"sync/atomic"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// tallies counts sessions into one Counter. Most are like one before, and need
// no canonical form of their own.
//
// It remembers two generations. What was not asked for since the young one was
// last empty is in the old one alone, and goes when the young one is full.
type tallies struct {
	young, old generation
	number     int // of young
	bytes      int // of young

	batch int          // grows from commit to commit
	fresh atomic.Int64 // keys that the present batch has at most; for any goroutine
}

// generation is what is remembered. A success is known by its recipient, which
// spares most sessions a look-up.
type generation struct {
	successes []*recipient
	failures  map[failureKey]*tallied
}

type tallied struct {
	*collector.Tally
	day        schema.Day
	record     string
	generation int   // that it was last asked for in
	keys       int64 // of a batch
	batch      int   // that it was counted in last
}

// failureKey tells failures apart that are counted apart, of those without a
// policy: others are few, and have texts of strangers.
type failureKey struct {
	day            schema.Day
	domain, record string
	schema.FailureDetails
}

const (
	maxTallyBytes = 10 << 20 // of a generation
	tallyKeySize  = 256      // of a key and the map's room for it
)

func newTallies() tallies { return tallies{young: newGeneration(), old: newGeneration()} }

func newGeneration() generation { return generation{failures: make(map[failureKey]*tallied)} }

// next says that what is counted from now on is another batch.
func (t *tallies) next() {
	t.batch++
	t.fresh.Store(0)
}

// success counts a session that succeeded without a policy. It is false if none
// like it was added of late, and counts nothing then.
func (t *tallies) success(day schema.Day, of *recipient, record string) bool {
	known := &of.known
	if known.Tally == nil || known.day != day || known.record != record {
		return false
	}
	if known.generation != t.number {
		t.keepSuccess(of)
	}
	t.count(known)
	return true
}

// failure counts a session that failed as k says. It is false if none like it was
// added of late, and counts nothing then.
func (t *tallies) failure(k failureKey) bool {
	known := t.young.failures[k]
	if known == nil {
		if known = t.old.failures[k]; known == nil {
			return false
		}
		t.keep(known)
		t.young.failures[k] = known
	}
	t.count(known)
	return true
}

// again counts s, which has no policy, if one like it was added of late.
func (t *tallies) again(s *schema.Session, of *recipient) bool {
	if s.Results[0].Failed {
		return t.failure(keyOf(s))
	}
	return t.success(schema.DayOf(s.Time), of, s.Record)
}

func keyOf(s *schema.Session) failureKey {
	return failureKey{schema.DayOf(s.Time), s.Domain, s.Record, s.Results[0].Details[0]}
}

// add counts s, the domain of which is that of a recipient. It is false if s cannot
// be counted.
func (t *tallies) add(counter *collector.Counter, s schema.Session, of *recipient) bool {
	plain := isPlain(s)
	if plain && t.again(&s, of) {
		return true
	}
	c, err := s.Canonical()
	if err != nil {
		return false
	}
	day := schema.DayOf(s.Time)
	known := &tallied{
		Tally: counter.Tally(day, c), day: day, record: s.Record,
		keys: int64(1 + len(s.Results[0].Details)), batch: -1,
	}
	switch {
	case !plain:
	case s.Results[0].Failed:
		t.keep(known)
		t.young.failures[keyOf(&s)] = known
	default:
		of.known = *known
		known = &of.known
		t.keepSuccess(of)
	}
	t.count(known)
	return true
}

func (t *tallies) count(k *tallied) {
	if k.batch != t.batch {
		k.batch = t.batch
		t.fresh.Add(k.keys)
	}
	k.Add()
}

// isPlain reports whether s has no policy, and one failure at most.
func isPlain(s schema.Session) bool {
	if len(s.Results) != 1 {
		return false
	}
	r := &s.Results[0]
	failures := 0
	if r.Failed {
		failures = 1
	}
	return r.Policy.Type == schema.NoPolicyFound && r.Policy.Domain == s.Domain && len(r.Details) == failures
}

// keep puts k into the young generation, which becomes the old one if it is full.
func (t *tallies) keep(k *tallied) {
	k.generation = t.number // before others are forgotten
	size := k.Size() + tallyKeySize
	if t.bytes += size; t.bytes > maxTallyBytes {
		t.forgetOld()
		t.bytes = size
	}
	k.generation = t.number
}

// keepSuccess is keep of what of knows.
func (t *tallies) keepSuccess(of *recipient) {
	t.keep(&of.known)
	t.young.successes = append(t.young.successes, of)
}

// forgetOld forgets what is in the old generation alone, and begins a young one,
// which has the room that the old one had grown to.
func (t *tallies) forgetOld() {
	for _, of := range t.old.successes {
		if of.known.generation < t.number {
			of.known = tallied{}
		}
	}
	clear(t.old.successes)
	clear(t.old.failures)
	t.young, t.old = generation{t.old.successes[:0], t.old.failures}, t.young
	t.number++
}
