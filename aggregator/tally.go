package aggregator

import (
	"cmp"
	"database/sql"
	"slices"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// tally is a row of the table: the sessions of one policy.
type tally struct {
	schema.Summary
	policy   int64
	text     schema.PolicyText
	detailed bool // there are details, also of sessions that succeeded
}

// talliesOf is sorted by text, which begins with the policy type. A part below 0
// is all that there is for looking.
func talliesOf(tx *sql.Tx, day schema.Day, domain int64, part int) ([]tally, error) {
	rows, err := tx.Query(`SELECT t.policy, p.text, sum(t.success), sum(t.failure),
			max(EXISTS (SELECT 1 FROM tally_detail f WHERE f.day = t.day AND f.domain = t.domain AND f.part = t.part AND f.policy = t.policy))
		FROM tally t JOIN policy p ON p.id = t.policy
		WHERE t.day = +? AND t.domain = +? AND `+ofPart(part)+` GROUP BY t.policy`, day, domain, part)
	tallies, err := collect(rows, err, func(r *sql.Rows) (t tally, err error) {
		var text string
		err = r.Scan(&t.policy, &text, &t.Success, &t.Failure, &t.detailed)
		t.text = schema.PolicyText(unpack(text))
		return t, err
	})
	slices.SortFunc(tallies, func(a, b tally) int { return cmp.Compare(a.text, b.text) })
	return tallies, err
}

// detailsOf is sorted by text, which begins with the result type.
func detailsOf(tx *sql.Tx, day schema.Day, domain int64, part int, policy int64) ([]schema.FailureDetails, error) {
	type row struct {
		text     schema.DetailsText
		sessions int64
	}
	rows, err := tx.Query(`SELECT f.text, sum(t.sessions)
		FROM tally_detail t JOIN detail f ON f.id = t.detail
		WHERE t.day = +? AND t.domain = +? AND `+ofPart(part)+` AND t.policy = +? GROUP BY t.detail`, day, domain, part, policy)
	all, err := collect(rows, err, func(r *sql.Rows) (d row, err error) {
		err = r.Scan(&d.text, &d.sessions)
		d.text = schema.DetailsText(unpack(string(d.text)))
		return d, err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b row) int { return strings.Compare(string(a.text), string(b.text)) })
	details := make([]schema.FailureDetails, len(all))
	for i, d := range all {
		if details[i], err = d.text.FailureDetails(); err != nil {
			return nil, err
		}
		details[i].FailedSessionCount = d.sessions
	}
	return details, nil
}

// dropTallies deletes what was counted for a part of a domain-day.
func dropTallies(tx *sql.Tx, day schema.Day, domain int64, part int) error {
	if _, err := tx.Exec(`DELETE FROM tally WHERE day = ? AND domain = ? AND part = ?`, day, domain, part); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM tally_detail WHERE day = ? AND domain = ? AND part = ?`, day, domain, part)
	return err
}

// nextDay is the first day after one that has tallies, and false if none has.
func nextDay(tx *sql.Tx, after schema.Day) (schema.Day, bool, error) {
	var day sql.NullInt64
	err := tx.QueryRow(`SELECT min(day) FROM tally WHERE day > ?`, after).Scan(&day)
	return schema.Day(day.Int64), day.Valid, err
}
