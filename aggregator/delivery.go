package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Delivery is one report to one rua.
type Delivery struct {
	ID       int64
	Day      schema.Day
	Domain   string // that the report is about
	Part     int    // as in Report
	ReportID string
	RUA      schema.RUA
	Host     string // of RUA
	State    DeliveryState
	Attempts int       // begun, the one under way included
	Created  time.Time // when the domain-day was planned
	First    time.Time // of the first attempt; the zero time: there was none

	// Next is when the next attempt may be made; while one is under way, when its
	// lease ends; the zero time: never, or when another rua failed.
	Next time.Time

	Done      time.Time // when it ended; the zero time: it is pending
	LastError string    // of the newest attempt that failed, or why it is suppressed
	Lease     int64     // of the newest claim; 0: none, or it was settled

	// Copy says that it goes to the operator. See [Plan.Copy].
	Copy bool
}

const deliveryColumns = `v.id, r.day, d.name, r.part, r.report_id, v.rua, v.host, v.state, v.attempts,
	v.created, v.first, v.next, v.done, v.error, v.lease, v.copy`

const deliveryTables = `delivery v JOIN report r ON r.id = v.report JOIN domain d ON d.id = r.domain`

func scanDelivery(rows *sql.Rows) (d Delivery, err error) {
	var created, first, next, done sql.NullInt64
	err = rows.Scan(&d.ID, &d.Day, &d.Domain, &d.Part, &d.ReportID, &d.RUA, &d.Host, &d.State, &d.Attempts,
		&created, &first, &next, &done, &d.LastError, &d.Lease, &d.Copy)
	d.Created, d.First, d.Next, d.Done = timeOf(created), timeOf(first), timeOf(next), timeOf(done)
	return d, err
}

// DeliveryFilter picks deliveries. The zero value picks all.
type DeliveryFilter struct {
	Day    schema.Day    // 0: any
	Domain string        // that the report is about; "": any
	State  DeliveryState // "": any
	Scheme string        // of the rua, "https" or "mailto"; "": any
	Begun  bool          // only those that were attempted
}

// condition is f as a condition on v and r, and its arguments.
func (f DeliveryFilter) condition(k keys) (where string, args []any) {
	if f.Day != 0 {
		where += ` AND r.day = ?`
		args = append(args, f.Day)
	}
	if f.Domain != "" {
		where += ` AND r.domain = ?`
		args = append(args, k.domain(f.Domain))
	}
	if f.Scheme != "" {
		where += ` AND v.scheme = +?`
		args = append(args, f.Scheme)
	}
	if f.Begun {
		where += ` AND v.first IS NOT NULL`
	}
	if f.State != "" {
		where += ` AND v.state = ?`
		args = append(args, f.State)
	}
	return where, args
}

// Pages of a listing: at most this many rows are handed over, and so many looked
// at, in one read transaction.
const (
	pageRows = 500
	pageSpan = 20_000
)

// Deliveries calls f for each delivery that the filter picks, by id, until f
// returns an error, which it returns. No transaction is open while f runs.
func (s *Store) Deliveries(ctx context.Context, filter DeliveryFilter, f func(Delivery) error) error {
	where, args := filter.condition(s.keys)
	for after, last := int64(0), int64(1); after < last; {
		var page []Delivery
		end := after + pageSpan
		err := s.read(ctx, "listing deliveries", func(tx *sql.Tx) error {
			if err := tx.QueryRow(`SELECT coalesce(max(id), 0) FROM delivery`).Scan(&last); err != nil {
				return err
			}
			rows, err := tx.Query(`SELECT `+deliveryColumns+` FROM `+deliveryTables+`
				WHERE v.id > ? AND v.id <= ?`+where+` ORDER BY v.id LIMIT ?`,
				append(append([]any{after, end}, args...), pageRows)...)
			page, err = collect(rows, err, scanDelivery)
			return err
		})
		if err != nil {
			return err
		}
		if after = end; len(page) == pageRows {
			after = page[pageRows-1].ID
		}
		for _, d := range page {
			if err := f(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// NextAttempt is when the next delivery that the filter picks, whatever its
// State, may be attempted, or the zero time if none waits. It may have passed
// although [Store.Claim] gives nothing: then the bound of a host holds the
// delivery back until another one is settled.
func (s *Store) NextAttempt(ctx context.Context, filter DeliveryFilter) (next time.Time, err error) {
	filter.State = ""
	where, args := filter.condition(s.keys)
	err = s.read(ctx, "reading the next attempt", func(tx *sql.Tx) error {
		var at sql.NullInt64
		defer func() { next = timeOf(at) }()
		err := tx.QueryRow(`SELECT v.next FROM delivery v JOIN report r ON r.id = v.report
			WHERE v.state = 0 AND v.next IS NOT NULL`+where+` ORDER BY v.next LIMIT 1`, args...).Scan(&at)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return next, err
}

// RetryDelivery makes a delivery due at now, also one that had ended, but for
// one that was sent ([ErrDone]). One that had ended gets a new span of attempts.
// Where an attempt is under way it changes nothing. The error may be
// [ErrNoDelivery].
func (s *Store) RetryDelivery(ctx context.Context, id int64, now time.Time) error {
	return s.write(ctx, fmt.Sprintf("retrying delivery %d", id), func(tx *sql.Tx) error {
		switch state, err := deliveryState(tx, id); {
		case err != nil:
			return err
		case state == DeliverySent:
			return ErrDone
		case state == DeliveryPending:
			_, err := tx.Exec(`UPDATE delivery SET next = ?1, lease = 0
				WHERE id = ?2 AND (lease = 0 OR next <= ?1)`, now.Unix(), id)
			return err
		}
		_, err := tx.Exec(`UPDATE delivery SET state = ?, next = ?, lease = 0, first = NULL, done = NULL WHERE id = ?`,
			DeliveryPending, now.Unix(), id)
		return err
	})
}

// CancelDelivery ends a pending delivery. An attempt that is under way is not
// stopped: if it succeeds, the delivery ends as sent after all. The error is
// [ErrNoDelivery], or [ErrDone] if it is not pending.
func (s *Store) CancelDelivery(ctx context.Context, id int64) error {
	return s.write(ctx, fmt.Sprintf("cancelling delivery %d", id), func(tx *sql.Tx) error {
		state, err := deliveryState(tx, id)
		if err != nil {
			return err
		}
		if state != DeliveryPending {
			return ErrDone
		}
		now := time.Now()
		if _, err := tx.Exec(`UPDATE delivery SET state = ?, done = ?, next = NULL WHERE id = ?`,
			DeliveryCancelled, now.Unix(), id); err != nil {
			return err
		}
		return passTurn(tx, id, DeliveryCancelled, now)
	})
}

func deliveryState(tx *sql.Tx, id int64) (state DeliveryState, err error) {
	err = tx.QueryRow(`SELECT state FROM delivery WHERE id = ?`, id).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoDelivery
	}
	return state, err
}
