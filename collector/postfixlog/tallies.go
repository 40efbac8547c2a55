package postfixlog

import (
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
	bytes      int // of young

	batch int // grows from commit to commit
	fresh int // keys that the present batch has at most
}

type generation struct {
	successes map[string]*tallied // by domain, of the day and the record that came last
	failures  map[failureKey]*tallied
}

type tallied struct {
	*collector.Tally
	day    schema.Day
	record string
	keys   int // of a batch
	batch  int // that it was counted in last
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

func newGeneration() generation {
	return generation{make(map[string]*tallied), make(map[failureKey]*tallied)}
}

// next says that what is counted from now on is another batch.
func (t *tallies) next() {
	t.batch++
	t.fresh = 0
}

// success counts a session that succeeded without a policy. It is false if none
// like it was added of late, and counts nothing then.
func (t *tallies) success(day schema.Day, domain, record string) bool {
	known := t.young.successes[domain]
	if known == nil {
		if known = t.old.successes[domain]; known != nil {
			t.keep(known)
			t.young.successes[domain] = known
		}
	}
	if known == nil || known.day != day || known.record != record {
		return false
	}
	t.count(known)
	return true
}

// failure is the failure that was counted under k of late, or nil.
func (t *tallies) failure(k failureKey) *tallied {
	known := t.young.failures[k]
	if known == nil {
		if known = t.old.failures[k]; known != nil {
			t.keep(known)
			t.young.failures[k] = known
		}
	}
	return known
}

// add counts s. It is false if s cannot be counted.
func (t *tallies) add(counter *collector.Counter, s schema.Session) bool {
	day := schema.DayOf(s.Time)
	plain, failed := isPlain(s), s.Results[0].Failed
	var failure failureKey
	var known *tallied
	switch {
	case plain && failed:
		failure = failureKey{day, s.Domain, s.Record, s.Results[0].Details[0]}
		known = t.failure(failure)
	case plain:
		if t.success(day, s.Domain, s.Record) {
			return true
		}
	}
	if known == nil {
		c, err := s.Canonical()
		if err != nil {
			return false
		}
		known = &tallied{
			Tally: counter.Tally(day, c), day: day, record: s.Record,
			keys: 1 + len(s.Results[0].Details), batch: -1,
		}
		switch {
		case plain && failed:
			t.keep(known)
			t.young.failures[failure] = known
		case plain:
			if before := t.young.successes[s.Domain]; before != nil {
				t.bytes -= before.Size() + tallyKeySize
			}
			t.keep(known)
			t.young.successes[s.Domain] = known
		}
	}
	t.count(known)
	return true
}

func (t *tallies) count(k *tallied) {
	if k.batch != t.batch {
		k.batch = t.batch
		t.fresh += k.keys
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

// keep makes room for k in the young generation.
func (t *tallies) keep(k *tallied) {
	size := k.Size() + tallyKeySize
	if t.bytes += size; t.bytes <= maxTallyBytes {
		return
	}
	t.young, t.old, t.bytes = t.old, t.young, size
	clear(t.young.successes) // which keeps the room that it has grown to
	clear(t.young.failures)
}
