package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// chunk is how many rows a transaction that walks through many changes at most:
// a few milliseconds, so that counting hardly waits.
const chunk = 2000

// Release closes the days before the one given, writes their totals, and lets
// their domain-days come due, each at now and a delay of its own within
// [Options.Spread]. Late domain-days of days closed before come due too; what
// has a time already keeps it. Where a day ended before oldest, its domain-days
// become not-sent instead. Release returns how many came due.
//
// It works in many short transactions. One that was cut off is completed by the
// next.
func (s *Store) Release(ctx context.Context, before schema.Day, oldest, now time.Time) (int, error) {
	r := releaser{store: s, oldest: oldest, now: now}
	for day := schema.Day(math.MinInt32); ; {
		next, found, err := s.closeNext(ctx, day, before, now)
		if err != nil {
			return r.count, err
		}
		if !found {
			break
		}
		if day = next.Day; !next.filled {
			if err := r.fill(ctx, day); err != nil {
				return r.count, err
			}
		}
	}
	return r.count, r.releaseLate(ctx, before)
}

// closedDay is a row of the table day.
type closedDay struct {
	schema.Day
	filled bool // every domain that was counted has its domain_day
}

// closeNext closes the first day after one and before another that has tallies.
// From here on its sessions are late.
func (s *Store) closeNext(ctx context.Context, after, before schema.Day, now time.Time) (day closedDay, found bool, err error) {
	err = s.write(ctx, "closing a day", func(tx *sql.Tx) error {
		day.Day, found, err = nextDay(tx, after)
		if err != nil || !found {
			return err
		}
		if day.Day >= before {
			found = false
			return nil
		}
		if _, err := tx.Exec(`INSERT INTO day (day, closed) VALUES (?, ?) ON CONFLICT DO NOTHING`, day.Day, now.Unix()); err != nil {
			return err
		}
		return tx.QueryRow(`SELECT filled FROM day WHERE day = ?`, day.Day).Scan(&day.filled)
	})
	return day, found, err
}

// releaser is one call of Release.
type releaser struct {
	store       *Store
	oldest, now time.Time
	count       int // of domain-days that came due
}

// due is the state of a released domain-day, and when it is due.
func (r *releaser) due(day schema.Day, domain int64) (State, sql.NullInt64) {
	if day.End().Before(r.oldest) {
		return StateNotSent, sql.NullInt64{}
	}
	return StateOpen, columnOf(r.now.Add(r.store.keys.delay(day, domain, r.store.spread)))
}

// fill makes the domain_day of each domain of a closed day.
func (r *releaser) fill(ctx context.Context, day schema.Day) error {
	for after, done := int64(math.MinInt64), false; !done; {
		due := 0
		err := r.store.write(ctx, "closing "+day.String(), func(tx *sql.Tx) error {
			page, err := unfilled(tx, day, after)
			if err != nil {
				return err
			}
			for _, c := range page {
				if c.State, c.due = r.due(day, c.domain); c.due.Valid {
					due++
				}
				if err := closeDomainDay(tx, c); err != nil {
					return err
				}
				after = c.domain
			}
			if done = len(page) < chunk; done {
				_, err = tx.Exec(`UPDATE day SET filled = 1 WHERE day = ?`, day)
			}
			return err
		})
		if err != nil {
			return err
		}
		r.count += due
	}
	return nil
}

// unfilled is a page of the domains of a day that have no domain_day.
func unfilled(tx *sql.Tx, day schema.Day, after int64) ([]closing, error) {
	rows, err := tx.Query(`SELECT t.domain, sum(t.success), sum(t.failure) FROM tally t
		WHERE t.day = ?1 AND t.domain > ?2 AND t.part >= 0
			AND NOT EXISTS (SELECT 1 FROM domain_day dd WHERE dd.day = ?1 AND dd.domain = t.domain)
		GROUP BY t.domain ORDER BY t.domain LIMIT ?3`, day, after, chunk)
	return collect(rows, err, func(r *sql.Rows) (closing, error) {
		c := closing{Day: day}
		err := r.Scan(&c.domain, &c.total.Success, &c.total.Failure)
		return c, err
	})
}

// releaseLate lets the domain-days come due that sessions were recorded for
// after their day was closed.
func (r *releaser) releaseLate(ctx context.Context, before schema.Day) error {
	type key struct {
		day    schema.Day
		domain int64
	}
	for more := true; more; {
		due := 0
		err := r.store.write(ctx, "releasing what came late", func(tx *sql.Tx) error {
			rows, err := tx.Query(`SELECT day, domain FROM domain_day
				WHERE `+waiting+` AND due IS NULL AND day < ? LIMIT ?`, before, chunk)
			page, err := collect(rows, err, func(r *sql.Rows) (k key, err error) {
				err = r.Scan(&k.day, &k.domain)
				return k, err
			})
			if err != nil {
				return err
			}
			for _, k := range page {
				state, at := r.due(k.day, k.domain)
				if at.Valid {
					due++
				}
				if _, err := tx.Exec(`UPDATE domain_day SET due = ?, state = CASE WHEN ? THEN ? ELSE state END
					WHERE day = ? AND domain = ?`, at, !at.Valid, state, k.day, k.domain); err != nil {
					return err
				}
			}
			more = len(page) == chunk
			return nil
		})
		if err != nil {
			return err
		}
		r.count += due
	}
	return nil
}

// DayTotals is what was counted on a closed day.
type DayTotals struct {
	Day     schema.Day
	Closed  time.Time
	Domains int64
	Totals  schema.Summary
}

// Days is the totals of the closed days from first to last, in order. Days on
// which nothing was counted are not in it.
func (s *Store) Days(ctx context.Context, first, last schema.Day) (days []DayTotals, err error) {
	err = s.read(ctx, "reading the totals of days", func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT day, closed, domains, success, failure FROM day
			WHERE day BETWEEN ? AND ? ORDER BY day`, first, last)
		days, err = collect(rows, err, func(r *sql.Rows) (d DayTotals, err error) {
			var closed sql.NullInt64
			err = r.Scan(&d.Day, &closed, &d.Domains, &d.Totals.Success, &d.Totals.Failure)
			d.Closed = timeOf(closed)
			return d, err
		})
		return err
	})
	return days, err
}

// SubmissionSince is when submission was first switched on: the first call
// stores now, or the beginning of time where nothing was counted before. Days
// that ended before are not sent.
func (s *Store) SubmissionSince(ctx context.Context, now time.Time) (since time.Time, err error) {
	err = s.write(ctx, "reading since when reports are sent", func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT INTO meta (name, value)
			SELECT 'submission-since', iif(EXISTS (SELECT 1 FROM tally WHERE part >= 0), ?, 0) WHERE true ON CONFLICT DO NOTHING`, now.Unix()); err != nil {
			return err
		}
		var at sql.NullInt64
		err := tx.QueryRow(`SELECT value FROM meta WHERE name = 'submission-since'`).Scan(&at)
		if err == nil && !at.Valid {
			err = errors.New("no time is stored")
		}
		since = timeOf(at)
		return err
	})
	return since, err
}
