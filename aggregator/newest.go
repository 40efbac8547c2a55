package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// NewestDay is the last day on which sessions with domain were counted. The
// error is [ErrNoData] if there is none.
func (s *Store) NewestDay(ctx context.Context, domain string) (day schema.Day, err error) {
	err = s.read(ctx, "reading the newest day of "+domain, func(tx *sql.Tx) error {
		// The key of tally begins with the day: this steps from day to day in it.
		err := tx.QueryRow(`WITH RECURSIVE step (day) AS (
			SELECT max(day) FROM tally
			UNION ALL
			SELECT (SELECT max(day) FROM tally WHERE day < step.day) FROM step WHERE day IS NOT NULL)
			SELECT day FROM step WHERE day IS NOT NULL
				AND EXISTS (SELECT 1 FROM tally t WHERE t.day = step.day AND t.domain = ?)
			LIMIT 1`, s.keys.domain(domain)).Scan(&day)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoData
		}
		return err
	})
	return day, err
}

// ReportOf is the report that was made of a part of a domain-day. The error is
// [ErrNoReport] if there is none.
func (s *Store) ReportOf(ctx context.Context, dd DomainDay) (Report, error) {
	var id string
	err := s.read(ctx, fmt.Sprintf("reading the report about %s on %s", dd.Domain, dd.Day), func(tx *sql.Tx) error {
		err := tx.QueryRow(`SELECT report_id FROM report WHERE domain = ? AND day = ? AND part = ?`,
			s.keys.domain(dd.Domain), dd.Day, dd.Part).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoReport
		}
		return err
	})
	if err != nil {
		return Report{}, err
	}
	return s.Report(ctx, id)
}
