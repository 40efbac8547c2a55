// Package alert knows which domains fail now, and tells the operator: the report
// about today reaches the other side only tomorrow.
package alert

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const (
	// slots is how many parts a window has: it slides by one of them.
	slots = 6

	// maxSlotDomains and maxFailing bound memory, to some 30 MB at most. A domain
	// that has no room in a slot is not watched in it at all, so that no rate is
	// computed from half of its sessions.
	maxSlotDomains = 100_000
	maxFailing     = 10_000

	maxResults = 16 // result types of one domain; RFC 8460 has eleven
)

// Rate is what was seen of a domain within the window.
type Rate struct {
	Domain           string
	Success, Failure int64 // sessions
	Results          map[schema.ResultType]int64
}

// Sessions is how many there were.
func (r Rate) Sessions() int64 { return r.Success + r.Failure }

// Share is that of failures, from 0 to 1.
func (r Rate) Share() float64 {
	if r.Sessions() == 0 {
		return 0
	}
	return float64(r.Failure) / float64(r.Sessions())
}

// tally is the sessions of one domain in one slot.
type tally struct{ success, failure uint32 }

// slot is a part of the window. Domains are known by a hash: most never fail, and
// their names would take the most room.
type slot struct {
	number  int64 // of the part of time
	tallies map[uint64]tally
	failing map[string]map[schema.ResultType]int64
}

// Window counts the sessions of the last hour or so by domain, in memory alone:
// it begins empty at each start. Its methods are safe for concurrent use.
type Window struct {
	length time.Duration
	seed   maphash.Seed

	mu       sync.Mutex
	parts    [slots]slot
	unlisted int64
}

// NewWindow makes a Window of a length.
func NewWindow(length time.Duration) *Window {
	return &Window{length: length, seed: maphash.MakeSeed()}
}

// String is the length, such as "1h".
func (w *Window) String() string {
	s := w.length.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Record counts what was counted at now. What is of another day comes from a log
// of the past and says nothing about now. It keeps none of the texts of counts, which
// are parts of longer ones.
func (w *Window) Record(now time.Time, counts []schema.Count) {
	today := schema.DayOf(now)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.slot(now)
	for i := range counts {
		if counts[i].Day == today {
			w.add(s, &counts[i])
		}
	}
}

// slot is the part of the window that now is in.
func (w *Window) slot(now time.Time) *slot {
	number := w.number(now)
	s := &w.parts[number%slots]
	if s.number != number || s.tallies == nil {
		*s = slot{number: number, tallies: map[uint64]tally{}, failing: map[string]map[schema.ResultType]int64{}}
	}
	return s
}

func (w *Window) number(now time.Time) int64 { return now.UnixNano() / int64(w.length/slots) }

func (w *Window) add(s *slot, c *schema.Count) {
	key := maphash.String(w.seed, c.Domain)
	t, known := s.tallies[key]
	if !known && len(s.tallies) >= maxSlotDomains {
		w.unlisted += c.Success + c.Failure
		return
	}
	t.success += uint32(c.Success)
	t.failure += uint32(c.Failure)
	s.tallies[key] = t
	if c.Failure == 0 {
		return
	}
	results := s.failing[c.Domain]
	if results == nil {
		if len(s.failing) >= maxFailing {
			return
		}
		results = map[schema.ResultType]int64{}
		s.failing[strings.Clone(c.Domain)] = results
	}
	for _, d := range c.Details {
		result := d.Details.ResultType()
		if results[result] == 0 {
			if len(results) >= maxResults {
				continue
			}
			result = schema.ResultType(strings.Clone(string(result)))
		}
		results[result] += d.Sessions
	}
}

// Rates is the domains that failed within the window before now and had at least
// a number of sessions in it, most failures first.
func (w *Window) Rates(now time.Time, least int64) []Rate {
	w.mu.Lock()
	defer w.mu.Unlock()
	oldest := w.number(now) - slots + 1
	found := map[string]*Rate{}
	for i := range w.parts {
		if s := &w.parts[i]; s.number >= oldest {
			for domain, results := range s.failing {
				r := found[domain]
				if r == nil {
					r = &Rate{Domain: domain, Results: map[schema.ResultType]int64{}}
					found[domain] = r
				}
				for result, n := range results {
					r.Results[result] += n
				}
			}
		}
	}
	var rates []Rate
	for domain, r := range found {
		key := maphash.String(w.seed, domain)
		for i := range w.parts {
			if s := &w.parts[i]; s.number >= oldest {
				r.Success += int64(s.tallies[key].success)
				r.Failure += int64(s.tallies[key].failure)
			}
		}
		if r.Sessions() >= least {
			rates = append(rates, *r)
		}
	}
	slices.SortFunc(rates, func(a, b Rate) int {
		return cmp.Or(cmp.Compare(b.Failure, a.Failure), cmp.Compare(a.Domain, b.Domain))
	})
	return rates
}

// Unlisted is how many sessions had no room in the window since the start.
func (w *Window) Unlisted() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unlisted
}
