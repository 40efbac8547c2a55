package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// DomainDay is one domain on one day.
type DomainDay struct {
	Day    schema.Day
	Domain string // A-labels, lower case, no final dot

	// Part is 0 for the report of the day, n for its n-th supplement, and -1 where
	// all that there is was recorded for looking.
	Part  int
	State State

	// Due is when it is to be planned. The zero time: it waits for Release.
	Due time.Time

	// Failing is when a look-up of its TLSRPT record first failed. The zero time:
	// none did.
	Failing time.Time

	// Record is the newest text of its TLSRPT record that a source or a look-up
	// saw, "" if none did, and RecordSeen is when that was.
	Record     string
	RecordSeen time.Time

	// Totals counts the sessions of all parts. While the day is open it is zero.
	Totals schema.Summary

	id      int64 // of Domain
	version int64 // times that late sessions were added; -1: the day is open
}

// domainDayColumns are those that scanDomainDay reads.
const domainDayColumns = `dd.day, d.name, dd.part, dd.state, dd.due, dd.failing, d.record, d.record_seen,
	dd.success, dd.failure, dd.domain, dd.version`

func scanDomainDay(row interface{ Scan(...any) error }) (dd DomainDay, err error) {
	var due, failing sql.NullInt64
	var seen int64
	err = row.Scan(&dd.Day, &dd.Domain, &dd.Part, &dd.State, &due, &failing, &dd.Record, &seen,
		&dd.Totals.Success, &dd.Totals.Failure, &dd.id, &dd.version)
	dd.Due, dd.Failing, dd.Record = timeOf(due), timeOf(failing), unpack(dd.Record)
	dd.RecordSeen = timeOf(sql.NullInt64{Int64: seen, Valid: seen != 0})
	return dd, err
}

// Due lists the domain-days that are due at now, oldest first, at most limit of
// them, after the one given: the last of the list before, or the zero DomainDay.
// A now far ahead lists all that were released, whatever their time.
func (s *Store) Due(ctx context.Context, now time.Time, limit int, after DomainDay) (due []DomainDay, err error) {
	var from int64
	if !after.Due.IsZero() {
		from = after.Due.Unix()
	}
	err = s.read(ctx, "listing what is due", func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT `+domainDayColumns+`
			FROM domain_day dd JOIN domain d ON d.id = dd.domain
			WHERE `+waiting+` AND due <= ? AND (due, day, domain) > (?, ?, ?)
			ORDER BY due, day, domain LIMIT ?`, now.Unix(), from, after.Day, s.keys.domain(after.Domain), limit)
		due, err = collect(rows, err, func(r *sql.Rows) (DomainDay, error) { return scanDomainDay(r) })
		return err
	})
	return due, err
}

// NextDue is when the next domain-day comes due, or the zero time if none will
// before the next Release.
func (s *Store) NextDue(ctx context.Context) (next time.Time, err error) {
	err = s.read(ctx, "reading what is due next", func(tx *sql.Tx) error {
		var due sql.NullInt64
		defer func() { next = timeOf(due) }()
		return tx.QueryRow(`SELECT min(due) FROM domain_day WHERE ` + waiting + ` AND due IS NOT NULL`).Scan(&due)
	})
	return next, err
}

// DomainDayOf is what is known of domain on day, whether or not the day is
// closed. The error is [ErrNoData] if nothing was counted.
func (s *Store) DomainDayOf(ctx context.Context, day schema.Day, domain string) (dd DomainDay, err error) {
	err = s.read(ctx, fmt.Sprintf("reading %s of %s", domain, day), func(tx *sql.Tx) error {
		dd, err = domainDayOf(tx, day, s.keys.domain(domain))
		return err
	})
	return dd, err
}

func domainDayOf(tx *sql.Tx, day schema.Day, domain int64) (DomainDay, error) {
	dd, err := scanDomainDay(tx.QueryRow(`SELECT `+domainDayColumns+`
		FROM domain_day dd JOIN domain d ON d.id = dd.domain WHERE dd.day = ? AND dd.domain = ?`, day, domain))
	if !errors.Is(err, sql.ErrNoRows) {
		return dd, err
	}
	// What is open comes before what is there for looking.
	for _, part := range []struct {
		number int
		state  State
	}{{0, StateOpen}, {partLooking, StateNotSent}} {
		dd, err = scanDomainDay(tx.QueryRow(`SELECT ?1, name, ?4, ?2, NULL, NULL, record, record_seen, 0, 0, id, -1
			FROM domain WHERE id = ?3 AND EXISTS (SELECT 1 FROM tally t WHERE day = ?1 AND domain = ?3 AND `+strings.ReplaceAll(ofPart(part.number), "?", "?4")+`)`,
			day, part.state, domain, part.number))
		if !errors.Is(err, sql.ErrNoRows) {
			return dd, err
		}
	}
	return DomainDay{}, ErrNoData
}

// Postpone moves a domain-day whose look-up failed for the time being. It notes
// dd.Failing as the time of the first failure, or now if that is the zero time;
// a time that is noted already stays. What is no longer waiting stays as it is.
func (s *Store) Postpone(ctx context.Context, dd DomainDay, until time.Time) error {
	if dd.Failing.IsZero() {
		dd.Failing = time.Now()
	}
	return s.write(ctx, fmt.Sprintf("postponing %s of %s", dd.Domain, dd.Day), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE domain_day SET due = ?, failing = coalesce(failing, ?)
			WHERE day = ? AND domain = ? AND part = ? AND due IS NOT NULL AND `+waiting,
			until.Unix(), columnOf(dd.Failing), dd.Day, s.keys.domain(dd.Domain), dd.Part)
		return err
	})
}

// Aggregate is what is counted for a part of a domain-day, ready for a report:
// policies sorted by type and text, failure details by text.
func (s *Store) Aggregate(ctx context.Context, dd DomainDay) (results []schema.PolicyResult, err error) {
	err = s.read(ctx, fmt.Sprintf("aggregating %s of %s", dd.Domain, dd.Day), func(tx *sql.Tx) error {
		results, err = aggregate(tx, dd.Day, s.keys.domain(dd.Domain), dd.Part)
		return err
	})
	return results, err
}

func aggregate(tx *sql.Tx, day schema.Day, domain int64, part int) ([]schema.PolicyResult, error) {
	tallies, err := talliesOf(tx, day, domain, part)
	if err != nil {
		return nil, err
	}
	results := make([]schema.PolicyResult, len(tallies))
	for i, t := range tallies {
		results[i].Summary = t.Summary
		if results[i].Policy, err = t.text.Policy(); err != nil {
			return nil, err
		}
		if !t.detailed {
			continue
		}
		if results[i].FailureDetails, err = detailsOf(tx, day, domain, part, t.policy); err != nil {
			return nil, err
		}
	}
	return results, nil
}
