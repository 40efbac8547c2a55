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
	if len(cursor) > maxCursor {
		return fmt.Errorf("aggregator: position of %s has %d bytes, more than %d", source, len(cursor), maxCursor)
	}
	sightings := s.sightings(counts)
	return s.write(ctx, "recording the counts of "+source, func(tx *sql.Tx) error {
		r := recorder{Tx: tx, store: s, now: time.Now(), closed: map[schema.Day]bool{}}
		if err := r.recordAll(sightings); err != nil {
			return err
		}
		if cursor == nil {
			return nil
		}
		_, err := tx.Exec(`INSERT INTO source (name, cursor, saved) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, saved = excluded.saved`,
			source, cursor, r.now.Unix())
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
	domain int64
	policy int64
	*schema.Count
}

// sightings is counts in the order of the table tally: neighbours share pages.
func (s *Store) sightings(counts []schema.Count) []sighting {
	all := make([]sighting, len(counts))
	for i := range counts {
		c := &counts[i]
		all[i] = sighting{s.keys.domain(c.Domain), s.keys.policy(c.Policy), c}
	}
	slices.SortFunc(all, func(a, b sighting) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.domain, b.domain), cmp.Compare(a.policy, b.policy))
	})
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
	store  *Store
	now    time.Time
	count  *sql.Stmt // the one statement of the steady state
	closed map[schema.Day]bool
	at     domainDayAt
	used   []wording
	folded int64 // sessions
}

// domainDayAt is the domain-day that a recorder is at.
type domainDayAt struct {
	day    schema.Day
	domain int64
	part   int
	ended  bool // it ended without a report, so only totals are kept
	late   bool // its day is closed, so that totals are due
	total  schema.Summary

	policies int // rows, at least; -1: not counted yet
	details  int
}

func (r *recorder) recordAll(all []sighting) (err error) {
	r.count, err = r.Prepare(`UPDATE tally SET success = success + ?, failure = failure + ?
		WHERE day = ? AND domain = ? AND part = ? AND policy = ?`)
	if err != nil {
		return err
	}
	for i := range all {
		c := &all[i]
		if i == 0 || c.Day != r.at.day || c.domain != r.at.domain {
			if err := r.leave(); err != nil {
				return err
			}
			if err := r.enter(c.Day, c.domain); err != nil {
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
	_, err = r.Exec(`INSERT INTO meta (name, value) VALUES ('folded', ?)
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

// tally counts c and says under which policy.
func (r *recorder) tally(c *sighting) (policy int64, err error) {
	n, err := affected(r.count.Exec(c.Success, c.Failure, c.Day, c.domain, r.at.part, c.policy))
	if err != nil || n > 0 {
		return c.policy, err
	}
	if err := r.useDomain(c); err != nil {
		return 0, err
	}
	if full, err := r.full(&r.at.policies, "tally", maxPolicies); err != nil {
		return 0, err
	} else if full {
		return r.foldPolicy(c)
	}
	return c.policy, r.addPolicy(c, c.policy, c.Policy)
}

// full reports whether a table has no room for another row of this domain-day.
// n is how many it has; -1: unknown.
func (r *recorder) full(n *int, table string, bound int) (bool, error) {
	if *n < 0 {
		if err := r.QueryRow(`SELECT count(*) FROM `+table+` WHERE day = ? AND domain = ? AND part = ?`,
			r.at.day, r.at.domain, r.at.part).Scan(n); err != nil {
			return false, err
		}
	}
	*n++
	return *n > bound, nil
}

// addPolicy counts c under a policy that may have no tally yet.
func (r *recorder) addPolicy(c *sighting, policy int64, text schema.PolicyText) error {
	r.use(wording{"policy", policy, c.Day, string(text)})
	_, err := r.Exec(`INSERT INTO tally (day, domain, part, policy, success, failure) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (day, domain, part, policy) DO UPDATE SET success = success + excluded.success, failure = failure + excluded.failure`,
		c.Day, c.domain, r.at.part, policy, c.Success, c.Failure)
	return err
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
	return policy, r.addPolicy(c, policy, text)
}

// tallyDetails counts details of sessions that were counted under policy.
func (r *recorder) tallyDetails(c *sighting, policy int64, d schema.DetailsCount) error {
	id := r.store.keys.details(d.Details)
	n, err := affected(r.Exec(`UPDATE tally_detail SET sessions = sessions + ?
		WHERE day = ? AND domain = ? AND part = ? AND policy = ? AND detail = ?`,
		d.Sessions, c.Day, c.domain, r.at.part, policy, id))
	if err != nil || n > 0 {
		return err
	}
	if full, err := r.full(&r.at.details, "tally_detail", maxDetails); err != nil {
		return err
	} else if full {
		return r.foldDetails(c, policy, d)
	}
	return r.addDetails(c, policy, d)
}

// addDetails counts details that may have no tally yet.
func (r *recorder) addDetails(c *sighting, policy int64, d schema.DetailsCount) error {
	id := r.store.keys.details(d.Details)
	r.use(wording{"detail", id, c.Day, string(d.Details)})
	_, err := r.Exec(`INSERT INTO tally_detail (day, domain, part, policy, detail, sessions) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (day, domain, part, policy, detail) DO UPDATE SET sessions = sessions + excluded.sessions`,
		c.Day, c.domain, r.at.part, policy, id, d.Sessions)
	return err
}

// foldDetails counts d under its result type alone.
func (r *recorder) foldDetails(c *sighting, policy int64, d schema.DetailsCount) error {
	f, err := d.Details.FailureDetails()
	if err != nil {
		return err
	}
	r.folded += d.Sessions
	d.Details = schema.FailureDetails{ResultType: f.ResultType}.Text()
	return r.addDetails(c, policy, d)
}

// useSlack is how many days the column "used" may lag behind: a row is written
// again once a week, not once a day.
const useSlack = 7

// wording is the text of a policy or of details that a new row refers to.
type wording struct {
	table string
	id    int64
	day   schema.Day
	text  string
}

// use takes note that a new row refers to a text.
func (r *recorder) use(w wording) { r.used = append(r.used, w) }

// storeUsed stores the texts that are new, or notes that they are still in use.
// Sorted, each page of a table is written once.
func (r *recorder) storeUsed() error {
	slices.SortFunc(r.used, func(a, b wording) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.id, b.id))
	})
	for _, w := range r.used {
		if _, err := r.Exec(`INSERT INTO `+w.table+` (id, used, text) VALUES (?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET used = excluded.used WHERE used < excluded.used - ?`,
			w.id, w.day, pack(w.text), useSlack); err != nil {
			return err
		}
	}
	return nil
}

// useDomain is use for a domain.
func (r *recorder) useDomain(c *sighting) error {
	_, err := r.Exec(`INSERT INTO domain (id, used, name) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET used = excluded.used WHERE used < excluded.used - ?`, c.domain, c.Day, c.Domain, useSlack)
	return err
}
