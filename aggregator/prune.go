package aggregator

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Prune deletes the days before the one given: what was counted, totals, reports
// and their deliveries, but not what still is to be delivered. It then deletes
// the texts that nothing refers to any more, at most a week after the last day
// that did. before must not lie after a day that may yet be reported.
//
// It works in many short transactions and may be cut off at any of them. Other
// processes notice nothing: see recorder.
func (s *Store) Prune(ctx context.Context, before schema.Day) error {
	for _, q := range []string{
		`DELETE FROM tally_detail WHERE (day, domain, part, policy, detail) IN (
			SELECT day, domain, part, policy, detail FROM tally_detail WHERE day < ? LIMIT ?)`,
		`DELETE FROM tally WHERE (day, domain, part, policy) IN (
			SELECT day, domain, part, policy FROM tally WHERE day < ? LIMIT ?)`,
		`DELETE FROM imported WHERE (source, row) IN (SELECT source, row FROM imported WHERE day < ? LIMIT ?)`,
		`DELETE FROM domain_day WHERE (day, domain) IN (
			SELECT day, domain FROM domain_day WHERE day < ? LIMIT ?)`,
		`DELETE FROM day WHERE day IN (SELECT day FROM day WHERE day < ? LIMIT ?)`,
		`DELETE FROM delivery WHERE id IN (
			SELECT v.id FROM report r JOIN delivery v ON v.report = r.id
			WHERE r.day < ? AND v.state <> 0 LIMIT ?)`,
		`DELETE FROM report WHERE id IN (
			SELECT id FROM report r WHERE r.day < ?
				AND NOT EXISTS (SELECT 1 FROM delivery v WHERE v.report = r.id) LIMIT ?)`,
	} {
		if err := s.pruneRows(ctx, q, before); err != nil {
			return err
		}
	}
	if err := s.pruneSpans(ctx, before); err != nil {
		return err
	}
	if err := s.pruneSuppressions(ctx, time.Now()); err != nil {
		return err
	}
	for _, table := range []string{"policy", "detail", "domain"} {
		if err := s.pruneUnused(ctx, table, before-useSlack); err != nil {
			return err
		}
	}
	return nil
}

// pruneRows repeats a DELETE of at most chunk rows until none is left.
func (s *Store) pruneRows(ctx context.Context, query string, before schema.Day) error {
	for n := int64(chunk); n == chunk; {
		err := s.write(ctx, "pruning", func(tx *sql.Tx) (err error) {
			n, err = affected(tx.Exec(query, before, chunk))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pruneUnused deletes the rows that were last used before a day. A tally refers
// to a row only if the row's used is at most useSlack days older. A report that
// is not delivered yet may be older than every tally, and needs its domain.
func (s *Store) pruneUnused(ctx context.Context, table string, before schema.Day) error {
	for after, done := int64(math.MinInt64), false; !done; {
		err := s.write(ctx, "pruning", func(tx *sql.Tx) error {
			var last sql.NullInt64
			var n int
			if err := tx.QueryRow(`SELECT max(id), count(*) FROM (SELECT id FROM `+table+` WHERE id > ? ORDER BY id LIMIT ?)`,
				after, chunk).Scan(&last, &n); err != nil {
				return err
			}
			_, err := tx.Exec(`DELETE FROM `+table+` WHERE id > ? AND id <= ? AND used < ?
				AND (? <> 'domain' OR NOT EXISTS (SELECT 1 FROM report r WHERE r.domain = `+table+`.id))`,
				after, last, before, table)
			after, done = last.Int64, n < chunk
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
