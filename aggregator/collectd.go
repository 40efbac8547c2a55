package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// ErrNotCollectd means that a file is not the database of tlsrpt-collectd, or one
// of a version that nobody knows. It was not touched.
var ErrNotCollectd error = fault("not a database of tlsrpt-collectd")

// Collectd is the SQLite database of tlsrpt-collectd, of which each day has its
// own. The daemon may be writing to it: a row is read in a moment, because while
// one reads, the daemon loses events. It is for one goroutine.
type Collectd struct {
	// ID is the same for a database and its copies, whatever they are called.
	ID string

	db *sql.DB
}

// CollectdRow is what was counted for one policy. Its texts are those of
// strangers: a nil of a text or of a number was of another type, or too long.
type CollectdRow struct {
	Day, Domain, Record, Policy *string
	Total, Failure              *int64
	Reasons                     []CollectdReason

	rowid int64
}

// CollectdReason is a failure of the policy of a row.
type CollectdReason struct {
	Reason   *string
	Sessions *int64
}

const (
	// collectdPurpose is the beginning of what the database says it is for.
	collectdPurpose = "TLSRPT-Collectd-DB"

	collectdPage  = 500     // rows
	collectdText  = 1 << 18 // bytes
	maxCollectdID = 100     // bytes
	maxReasons    = 1000    // of a row
)

// OpenCollectd opens the database in a file, for reading. The error may be
// [ErrNotCollectd].
func OpenCollectd(ctx context.Context, path string) (*Collectd, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	c := &Collectd{db: openPool(path, "mode=ro&_query_only=1&_busy_timeout=10000", 1)}
	if err := c.identify(ctx); err != nil {
		return nil, errors.Join(err, c.db.Close())
	}
	return c, nil
}

// identify reads ID. The database is made anew at midnight, and says to
// the millisecond when.
func (c *Collectd) identify(ctx context.Context) error {
	err := c.db.QueryRowContext(ctx, `SELECT installdate FROM dbversion
		WHERE version = 1 AND typeof(installdate) = 'text' AND length(installdate) < ? AND substr(purpose, 1, ?) = ?
			AND (SELECT count(*) FROM sqlite_schema WHERE name IN ('finalresults', 'failures')) = 2`,
		maxCollectdID, len(collectdPurpose), collectdPurpose).Scan(&c.ID)
	e, isSQL := errors.AsType[sqlite3.Error](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows), isSQL && (e.Code == sqlite3.ErrNotADB || e.Code == sqlite3.ErrError):
		return ErrNotCollectd
	}
	return fmt.Errorf("aggregator: reading a database of tlsrpt-collectd: %w", err)
}

// Close closes the database.
func (c *Collectd) Close() error { return c.db.Close() }

// Next is the rows after the last one of a page, at most 500, none at the end.
// nil asks for the first page.
func (c *Collectd) Next(ctx context.Context, page []CollectdRow) (next []CollectdRow, err error) {
	after := int64(-1)
	if len(page) > 0 {
		after = page[len(page)-1].rowid
	}
	err = transact(ctx, c.db, func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT rowid, `+boundedText("day, domain, tlsrptrecord, policy")+`, `+boundedNumber("cntrtotal, cntrfailure")+`
			FROM finalresults WHERE rowid > ? ORDER BY rowid LIMIT ?`, after, collectdPage)
		next, err = collect(rows, err, func(r *sql.Rows) (row CollectdRow, err error) {
			err = r.Scan(&row.rowid, &row.Day, &row.Domain, &row.Record, &row.Policy, &row.Total, &row.Failure)
			return row, err
		})
		for i := range next {
			if err == nil {
				err = next[i].readReasons(tx)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("aggregator: reading a database of tlsrpt-collectd: %w", err)
	}
	return next, nil
}

// readReasons reads the failures of a row, if there are any.
func (r *CollectdRow) readReasons(tx *sql.Tx) error {
	if r.Policy == nil {
		return nil
	}
	rows, err := tx.Query(`SELECT `+boundedText("reason")+`, `+boundedNumber("cntr")+` FROM failures
		WHERE day = ? AND domain = ? AND tlsrptrecord = ? AND policy = ? LIMIT ?`, r.Day, r.Domain, r.Record, r.Policy, maxReasons)
	r.Reasons, err = collect(rows, err, func(rows *sql.Rows) (c CollectdReason, err error) {
		err = rows.Scan(&c.Reason, &c.Sessions)
		return c, err
	})
	return err
}

// boundedText is the columns of texts, NULL where one is of another type or too
// long.
func boundedText(columns string) string {
	return eachColumn(columns, fmt.Sprintf(`iif(typeof(%%[1]s) = 'text' AND length(%%[1]s) <= %d, %%[1]s, NULL)`, collectdText))
}

// boundedNumber is the columns of counts, NULL where one is of another type.
func boundedNumber(columns string) string {
	return eachColumn(columns, `iif(typeof(%[1]s) = 'integer', %[1]s, NULL)`)
}

func eachColumn(columns, form string) string {
	var all []string
	for c := range strings.SplitSeq(columns, ", ") {
		all = append(all, fmt.Sprintf(form, c))
	}
	return strings.Join(all, ", ")
}
