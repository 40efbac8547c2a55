package aggregator

import (
	"context"
	"database/sql"
	"math"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Pending is what was counted for one policy and is not yet delivered.
type Pending struct {
	Day     schema.Day
	Domain  string
	Part    int // -1: for looking
	Policy  schema.Policy
	Success int64 // sessions
	Failure int64 // sessions

	// Results counts failure details by result type. Their sum may exceed
	// Failure, see schema.Count.
	Results map[schema.ResultType]int64

	// State is StateOpen, StateLate or StateNotSent, or StateReported until one
	// rua took the report, or none is left to be tried (RFC 8460, section 3).
	State State
}

// PendingFilter picks what Pending lists. The zero value picks all.
type PendingFilter struct {
	Day    schema.Day // 0: any
	Domain string     // "": any
}

// pendingKey is where a page of Pending begins: after this tally.
type pendingKey struct {
	domain int64
	part   int
	policy int64
}

// Pending calls f for what was counted and is neither delivered nor ended, by
// day and within it in no order that means anything, until f returns an error,
// which it returns. No transaction is open while f runs.
func (s *Store) Pending(ctx context.Context, filter PendingFilter, f func(Pending) error) error {
	for day := schema.Day(math.MinInt32); ; {
		found := false
		err := s.read(ctx, "listing days", func(tx *sql.Tx) (err error) {
			if filter.Day != 0 {
				day, found = filter.Day, day < filter.Day
				return nil
			}
			day, found, err = nextDay(tx, day)
			return err
		})
		if err != nil || !found {
			return err
		}
		if err := s.pendingOf(ctx, day, filter.Domain, f); err != nil {
			return err
		}
	}
}

// pendingOf is Pending of one day.
func (s *Store) pendingOf(ctx context.Context, day schema.Day, domain string, f func(Pending) error) error {
	after, last := pendingKey{math.MinInt64, 0, 0}, int64(math.MaxInt64)
	if domain != "" {
		last = s.keys.domain(domain)
		after.domain = last - 1
		after.part = math.MaxInt32
	}
	for done := false; !done; {
		var page []Pending
		err := s.read(ctx, "listing what was counted on "+day.String(), func(tx *sql.Tx) error {
			keys, err := pendingPage(tx, day, after, last)
			if err != nil {
				return err
			}
			if done = len(keys) < pageRows; len(keys) > 0 {
				after = keys[len(keys)-1].pendingKey
			}
			for _, k := range keys {
				if !k.state.Valid {
					continue
				}
				p, err := pendingRow(tx, day, k)
				if err != nil {
					return err
				}
				page = append(page, p)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, p := range page {
			if err := f(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// pendingTally is a tally and the state in which it is pending; NULL: it is not.
type pendingTally struct {
	pendingKey
	schema.Summary
	state    sql.Null[State]
	domain   string
	policy   string // packed
	detailed bool   // there are failure details
}

// pendingPage is the next tallies of a day, pending or not: what it costs does
// not depend on how many are. What several imports brought for looking is listed
// once, with the first of them.
func pendingPage(tx *sql.Tx, day schema.Day, after pendingKey, last int64) ([]pendingTally, error) {
	const looking = `FROM tally l WHERE l.day = t.day AND l.domain = t.domain AND l.part < 0 AND l.policy = t.policy`
	rows, err := tx.Query(`SELECT t.domain, t.part, t.policy,
			iif(t.part < 0, (SELECT sum(l.success) `+looking+`), t.success),
			iif(t.part < 0, (SELECT sum(l.failure) `+looking+`), t.failure), CASE
			WHEN t.part < 0 THEN iif(t.part = (SELECT min(l.part) `+looking+`), ?3, NULL)
			WHEN dd.state IS NULL THEN ?1
			WHEN t.part = dd.part AND dd.state IN (?1, ?2, ?3) THEN dd.state
			WHEN (SELECT max(v.state = 0) AND NOT max(v.state = 1) FROM report r JOIN delivery v ON v.report = r.id
				WHERE r.domain = t.domain AND r.day = t.day AND r.part = t.part AND v.copy = 0) THEN ?4
			END,
			d.name, p.text,
			EXISTS (SELECT 1 FROM tally_detail td WHERE td.day = t.day AND td.domain = t.domain AND td.part = t.part AND td.policy = t.policy)
		FROM tally t JOIN domain d ON d.id = t.domain JOIN policy p ON p.id = t.policy
		LEFT JOIN domain_day dd ON dd.day = t.day AND dd.domain = t.domain
		WHERE t.day = ?5 AND (t.domain, t.part, t.policy) > (?6, ?7, ?8) AND t.domain <= ?9
		ORDER BY t.domain, t.part, t.policy LIMIT ?10`,
		StateOpen, StateLate, StateNotSent, StateReported,
		day, after.domain, after.part, after.policy, last, pageRows)
	return collect(rows, err, func(r *sql.Rows) (t pendingTally, err error) {
		err = r.Scan(&t.pendingKey.domain, &t.part, &t.pendingKey.policy, &t.Success, &t.Failure, &t.state, &t.domain, &t.policy, &t.detailed)
		return t, err
	})
}

// pendingRow adds result types to a tally.
func pendingRow(tx *sql.Tx, day schema.Day, t pendingTally) (p Pending, err error) {
	p = Pending{Day: day, Domain: t.domain, Part: max(t.part, partLooking), Success: t.Success, Failure: t.Failure, State: t.state.V}
	p.Results = make(map[schema.ResultType]int64)
	if t.detailed {
		details, err := detailsOf(tx, day, t.pendingKey.domain, t.part, t.pendingKey.policy)
		if err != nil {
			return Pending{}, err
		}
		for _, d := range details {
			p.Results[d.ResultType] += d.FailedSessionCount
		}
	}
	p.Policy, err = schema.PolicyText(unpack(t.policy)).Policy()
	return p, err
}
