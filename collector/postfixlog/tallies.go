package postfixlog

import (
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// tallies counts sessions into one Counter. Most are like one before, and need
// no canonical form of their own.
type tallies struct {
	successes map[successKey]*tallied
	failures  map[failureKey]*tallied
	bytes     int // of both

	batch int // grows from commit to commit
	fresh int // keys that the present batch has at most
}

type tallied struct {
	*collector.Tally
	keys  int // of a batch
	batch int // that it was counted in last
}

// successKey and failureKey tell sessions apart that are counted apart, of those
// without a policy: others are few, and have texts of strangers.
type (
	successKey struct {
		day            schema.Day
		domain, record string
	}
	failureKey struct {
		successKey
		schema.FailureDetails
	}
)

const (
	maxTallyBytes = 16 << 20 // of what is remembered
	tallyKeySize  = 256      // of a key and the map's room for it
)

func newTallies() tallies {
	return tallies{successes: make(map[successKey]*tallied), failures: make(map[failureKey]*tallied)}
}

// next says that what is counted from now on is another batch.
func (t *tallies) next() {
	t.batch++
	t.fresh = 0
}

// add counts s. It is false if s cannot be counted.
func (t *tallies) add(counter *collector.Counter, s schema.Session) bool {
	success := successKey{schema.DayOf(s.Time), s.Domain, s.Record}
	failure := failureKey{successKey: success}
	plain, failed := isPlain(s), s.Results[0].Failed
	var known *tallied
	switch {
	case plain && failed:
		failure.FailureDetails = s.Results[0].Details[0]
		known = t.failures[failure]
	case plain:
		known = t.successes[success]
	}
	if known == nil {
		c, err := s.Canonical()
		if err != nil {
			return false
		}
		known = &tallied{Tally: counter.Tally(success.day, c), keys: 1 + len(s.Results[0].Details), batch: -1}
		switch {
		case plain && failed:
			t.makeRoom(known)
			t.failures[failure] = known
		case plain:
			t.makeRoom(known)
			t.successes[success] = known
		}
	}
	if known.batch != t.batch {
		known.batch = t.batch
		t.fresh += known.keys
	}
	known.Add()
	return true
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

// makeRoom forgets all sessions if there is no room for another one.
func (t *tallies) makeRoom(k *tallied) {
	size := k.Size() + tallyKeySize
	if t.bytes += size; t.bytes > maxTallyBytes {
		clear(t.successes)
		clear(t.failures)
		t.bytes = size
	}
}
