package aggregator

import (
	"database/sql"
	"errors"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// enter begins with a domain-day. While its day is open that takes no query.
func (r *recorder) enter(day schema.Day, domain int64) error {
	r.at = domainDayAt{day: day, domain: domain}
	if r.looking < 0 {
		r.at.part = r.looking
		return nil
	}
	closed, known := r.closed[day]
	if !known {
		if err := r.QueryRow(`SELECT EXISTS (SELECT 1 FROM day WHERE day = ?)`, day).Scan(&closed); err != nil {
			return err
		}
		r.closed[day] = closed
	}
	if !closed {
		return nil
	}
	r.at.late = true
	return r.enterLate()
}

// enterLate finds out where late sessions go.
func (r *recorder) enterLate() error {
	var state State
	err := r.QueryRow(`SELECT part, state FROM domain_day WHERE day = ? AND domain = ?`, r.at.day, r.at.domain).
		Scan(&r.at.part, &state)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		// The first sessions of the domain came after the day was closed.
		total, err := openTotal(r.Tx, r.at.day, r.at.domain)
		if err != nil {
			return err
		}
		return closeDomainDay(r.Tx, closing{Day: r.at.day, domain: r.at.domain, State: StateOpen, total: total})
	case err != nil:
		return err
	case state == StateReported:
		r.at.part++
		_, err = r.Exec(`UPDATE domain_day SET state = ?, part = ?, due = NULL, failing = NULL WHERE day = ? AND domain = ?`,
			StateLate, r.at.part, r.at.day, r.at.domain)
		return err
	}
	r.at.ended = !state.keepsTallies()
	return nil
}

// leave adds what was recorded late to the totals. The new version tells a
// planner that read the domain-day before.
func (r *recorder) leave() error {
	if !r.at.late {
		return nil
	}
	if _, err := r.Exec(`UPDATE domain_day SET version = version + 1, success = success + ?, failure = failure + ?
		WHERE day = ? AND domain = ?`, r.at.total.Success, r.at.total.Failure, r.at.day, r.at.domain); err != nil {
		return err
	}
	return addToDay(r.Tx, r.at.day, 0, r.at.total)
}

// openTotal is the sum of the tallies of a domain-day that has no row yet.
func openTotal(tx *sql.Tx, day schema.Day, domain int64) (total schema.Summary, err error) {
	err = tx.QueryRow(`SELECT coalesce(sum(success), 0), coalesce(sum(failure), 0) FROM tally WHERE day = ? AND domain = ? AND part >= 0`,
		day, domain).Scan(&total.Success, &total.Failure)
	return total, err
}

// closing is a domain-day about to get its row.
type closing struct {
	schema.Day
	domain int64
	State
	due   sql.NullInt64
	total schema.Summary
}

// closeDomainDay makes the row of a domain-day whose day is closed.
func closeDomainDay(tx *sql.Tx, c closing) error {
	if _, err := tx.Exec(`INSERT INTO domain_day (day, domain, state, due, success, failure) VALUES (?, ?, ?, ?, ?, ?)`,
		c.Day, c.domain, c.State, c.due, c.total.Success, c.total.Failure); err != nil {
		return err
	}
	return addToDay(tx, c.Day, 1, c.total)
}

// addToDay adds to the totals of a closed day.
func addToDay(tx *sql.Tx, day schema.Day, domains int, total schema.Summary) error {
	_, err := tx.Exec(`UPDATE day SET domains = domains + ?, success = success + ?, failure = failure + ? WHERE day = ?`,
		domains, total.Success, total.Failure, day)
	return err
}
