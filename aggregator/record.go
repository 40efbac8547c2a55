package aggregator

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Bounds on what strangers can make the store and a report hold. What goes
// beyond them is folded: the 65th policy becomes {its type, the domain, no
// strings}, the 513th details become {their result type}. The few rows that
// take these in, at most one per policy type or result type, come on top.
const (
	maxPolicies = 64  // per day, domain and part
	maxDetails  = 512 // per day, domain and part
)

// maxCursor is the size of a position in bytes.
const maxCursor = 1 << 20

// Record implements collector.Sink: it adds counts and stores the position of
// source, all or nothing. After an error none of it happened.
func (s *Store) Record(ctx context.Context, source string, cursor []byte, counts []schema.Count) error {
	return s.record(ctx, entry{source: source, cursor: cursor, counts: counts})
}

// entry is what one transaction records.
type entry struct {
	source string
	cursor []byte // nil: the stored one stays
	counts []schema.Count
	spans  []schema.Span
	part   int // below 0: counts are for looking only, and of this part
}

func (s *Store) record(ctx context.Context, e entry) error {
	if len(e.cursor) > maxCursor {
		return fmt.Errorf("aggregator: position of %s has %d bytes, more than %d", e.source, len(e.cursor), maxCursor)
	}
	sightings := s.sightings(e.counts)
	return s.writeDirect(ctx, "recording the counts of "+e.source, func(tx *sql.Tx, d *direct) error {
		r := recorder{Tx: tx, direct: d, store: s, now: time.Now(), closed: map[schema.Day]bool{}, looking: e.part}
		if err := r.recordAll(sightings); err != nil {
			return err
		}
		if err := addSpans(tx, e.source, e.spans); err != nil || e.cursor == nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO source (name, cursor, saved) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, saved = excluded.saved`,
			e.source, e.cursor, r.now.Unix())
		return err
	})
}

// Cursor is the position that was stored last for source, or nil.
func (s *Store) Cursor(ctx context.Context, source string) (cursor []byte, err error) {
	err = s.read(ctx, "reading the position of "+source, func(tx *sql.Tx) error {
		err := tx.QueryRow(`SELECT cursor FROM source WHERE name = ?`, source).Scan(&cursor)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return cursor, err
}

// sighting is a Count with its ids.
type sighting struct {
	day    schema.Day
	domain int64
	policy int64
	*schema.Count
}

// before is the order of the table tally: neighbours share pages.
func (a sighting) before(b sighting) int {
	if a.day != b.day {
		return cmp.Compare(a.day, b.day)
	}
	if a.domain != b.domain {
		return cmp.Compare(a.domain, b.domain)
	}
	return cmp.Compare(a.policy, b.policy)
}

// sightings is counts in order.
func (s *Store) sightings(counts []schema.Count) []sighting {
	all := make([]sighting, len(counts))
	for i := range counts {
		c := &counts[i]
		all[i] = sighting{c.Day, s.keys.domain(c.Domain), s.keys.policy(c.Policy), c}
	}
	slices.SortFunc(all, sighting.before)
	return all
}

// recorder is one transaction of Record.
//
// A tally that exists is one UPDATE. Only if there was none are the texts of
// domain and policy stored, which therefore exist wherever a tally does. So
// nothing about ids needs to be remembered, and nothing that is remembered can
// be made wrong by another process.
type recorder struct {
	*sql.Tx
	*direct  // for what is done once a row
	store    *Store
	now      time.Time
	closed   map[schema.Day]bool
	at       domainDayAt
	policies []wording // that new rows refer to
	details  []wording
	folded   int64 // sessions
	looking  int   // below 0: the part that all of it goes to
}

// domainDayAt is the domain-day that a recorder is at.
type domainDayAt struct {
	day    schema.Day
	domain int64
	part   int
	ended  bool // it ended without a report, so only totals are kept
	late   bool // its day is closed, so that totals are due
	total  schema.Summary

	policiesFull bool // no room for another policy
	detailsFull  bool
}

func (r *recorder) recordAll(all []sighting) error {
	for i := range all {
		c := &all[i]
		if i == 0 || c.day != r.at.day || c.domain != r.at.domain {
			if err := r.leave(); err != nil {
				return err
			}
			if err := r.enter(c.day, c.domain); err != nil {
				return err
			}
		}
		if err := r.record(c); err != nil {
			return err
		}
	}
	if err := errors.Join(r.leave(), r.storeUsed()); err != nil || r.folded == 0 {
		return err
	}
	_, err := r.Exec(`INSERT INTO meta (name, value) VALUES ('folded', ?)
		ON CONFLICT (name) DO UPDATE SET value = value + excluded.value`, r.folded)
	return err
}

func (r *recorder) record(c *sighting) error {
	r.at.total.Success += c.Success
	r.at.total.Failure += c.Failure
	if !r.at.ended {
		policy, err := r.tally(c)
		if err != nil {
			return err
		}
		for _, d := range c.Details {
			if err := r.tallyDetails(c, policy, d); err != nil {
				return err
			}
		}
	}
	return r.noteRecord(c)
}

// tally counts c and says under which policy. Where there is no room for a new
// policy, INSERT OR IGNORE finds NULL in its place and does nothing. To ask
// first, in a statement or a SELECT of its own, doubles the cost of a new row.
func (r *recorder) tally(c *sighting) (policy int64, err error) {
	n, err := r.exec(countTally, c.Success, c.Failure, int64(c.Day), c.domain, int64(r.at.part), c.policy)
	if err != nil || n > 0 {
		return c.policy, err
	}
	if err := r.useDomain(c); err != nil {
		return 0, err
	}
	if !r.at.policiesFull {
		n, err = r.exec(addTally, int64(c.Day), c.domain, int64(r.at.part), int64(maxPolicies), c.policy, c.Success, c.Failure)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			r.policies = append(r.policies, wording{c.policy, c.Day, string(c.Policy)})
			return c.policy, nil
		}
		r.at.policiesFull = true
	}
	return r.foldPolicy(c)
}

// foldPolicy counts c under its policy type alone.
func (r *recorder) foldPolicy(c *sighting) (policy int64, err error) {
	p, err := c.Policy.Policy()
	if err != nil {
		return 0, err
	}
	text := schema.Policy{Type: p.Type, Domain: c.Domain}.Text()
	policy = r.store.keys.policy(text)
	if policy != c.policy {
		r.folded += c.Success + c.Failure
	}
	r.policies = append(r.policies, wording{policy, c.Day, string(text)})
	_, err = r.exec(foldTally, int64(c.Day), c.domain, int64(r.at.part), policy, c.Success, c.Failure)
	return policy, err
}

// tallyDetails counts details of sessions that were counted under policy.
func (r *recorder) tallyDetails(c *sighting, policy int64, d schema.DetailsCount) error {
	id := r.store.keys.details(d.Details)
	n, err := r.exec(countDetail, d.Sessions, int64(c.Day), c.domain, int64(r.at.part), policy, id)
	if err != nil || n > 0 {
		return err
	}
	if !r.at.detailsFull {
		n, err = r.exec(addDetail, int64(c.Day), c.domain, int64(r.at.part), policy, int64(maxDetails), id, d.Sessions)
		if err != nil {
			return err
		}
		if n > 0 {
			r.details = append(r.details, wording{id, c.Day, string(d.Details)})
			return nil
		}
		r.at.detailsFull = true
	}
	return r.foldDetails(c, policy, d)
}

// foldDetails counts d under its result type alone.
func (r *recorder) foldDetails(c *sighting, policy int64, d schema.DetailsCount) error {
	f, err := d.Details.FailureDetails()
	if err != nil {
		return err
	}
	r.folded += d.Sessions
	text := schema.FailureDetails{ResultType: f.ResultType}.Text()
	id := r.store.keys.details(text)
	r.details = append(r.details, wording{id, c.Day, string(text)})
	_, err = r.exec(foldDetail, int64(c.Day), c.domain, int64(r.at.part), policy, id, d.Sessions)
	return err
}

// useSlack is how many days the column "used" may lag behind: a row is written
// again once a week, not once a day.
const useSlack = 7

// wording is the text of a policy or of details that a new row refers to.
type wording struct {
	id   int64
	day  schema.Day
	text string
}

// storeUsed stores the texts that are new, or notes that they are still in use.
func (r *recorder) storeUsed() error {
	return errors.Join(r.storeWords(addPolicy, r.policies), r.storeWords(addWords, r.details))
}

// storeWords stores texts by add. Sorted, each page of a table is written once.
func (r *recorder) storeWords(add *statement, all []wording) error {
	slices.SortFunc(all, func(a, b wording) int { return cmp.Compare(a.id, b.id) })
	for _, w := range all {
		if _, err := r.exec(add, w.id, int64(w.day), pack(w.text), int64(useSlack)); err != nil {
			return err
		}
	}
	return nil
}

// useDomain stores the domain of c, or notes that it is still in use. A new one gets
// its record at once.
func (r *recorder) useDomain(c *sighting) error {
	seen := int64(0)
	if c.Record != "" {
		seen = r.seen(c)
	}
	n, err := r.exec(addDomain, c.domain, int64(c.Day), seen, c.Domain, pack(c.Record))
	if err != nil {
		return err
	}
	if n > 0 {
		if c.Record != "" {
			r.store.records.fresh(c.domain, c.Record, seen)
		}
		return nil
	}
	_, err = r.exec(keepDomain, int64(c.Day), c.domain, int64(useSlack))
	return err
}
