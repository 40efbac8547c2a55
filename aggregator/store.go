package aggregator

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

// fault is the type of the errors below, which are never wrapped on their way out.
type fault string

func (f fault) Error() string { return "aggregator: " + string(f) }

var (
	// ErrTooNew means that a newer version of the program made the store. Use
	// that version.
	ErrTooNew error = fault("the store was made by a newer version")

	// ErrNotStore means that the file is not a store: it is another program's
	// database or no database at all. It was not touched.
	ErrNotStore error = fault("not a tlsrpt-agent store")

	// ErrClosed means that the store was closed.
	ErrClosed error = fault("the store is closed")

	// ErrNoData means that nothing was counted for a domain on a day.
	ErrNoData error = fault("nothing was counted for this domain and day")

	// ErrNotClosed means that a day cannot be planned because it was not released.
	ErrNotClosed error = fault("the day is not closed")

	// ErrPlanned means that a domain-day, or this part of it, was planned before.
	// Its report must be dropped: another one is stored.
	ErrPlanned error = fault("already planned")

	// ErrChanged means that sessions were recorded for a domain-day since it was
	// read. Read it again and plan that.
	ErrChanged error = fault("sessions were recorded meanwhile")

	// ErrNoReport means that no report has this report-id.
	ErrNoReport error = fault("no such report")

	// ErrNoDelivery means that no delivery has this id.
	ErrNoDelivery error = fault("no such delivery")

	// ErrDone means that a delivery has ended in a way that cannot be undone.
	ErrDone error = fault("the delivery is done")

	// ErrUnderWay means that an attempt of a delivery is not over, or its outcome
	// not stored. Call again soon.
	ErrUnderWay error = fault("an attempt is under way")

	// ErrNoSuppression means that nothing is known of an address.
	ErrNoSuppression error = fault("the address is not suppressed")
)

// Options of a store. The zero value is usable.
type Options struct {
	// Spread is the time over which the domains of a day come due, each at a
	// moment of its own. 0: all at once.
	Spread time.Duration

	// Logger hears when a store is made or brought up to date. nil: nobody does.
	Logger *slog.Logger
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	path   string
	spread time.Duration
	log    *slog.Logger
	keys   keys

	readers *sql.DB
	writer  *sql.DB // one connection

	// life is held for reading during every transaction, so that Close waits for
	// those under way. closed is guarded by it.
	life   sync.RWMutex
	closed bool

	// turn is held by the one goroutine that writes. It guards what follows.
	turn     chan struct{}
	records  recordMarks
	lastHost map[string]string // that Claim looked at last, by scheme
}

// Settings of the connections, beside that of setCheckpoint. All are per connection,
// so that none may be set by Exec on a pool.
//
// mutex=no: database/sql gives a connection to one goroutine at a time.
// synchronous=FULL: a committed position must outlive a power cut, or a log
// would be counted again. The readers must not begin IMMEDIATE, else they would
// wait for the writer.
//
// _stmt_cache_size: what is compiled is kept. Statements that run for each report
// also write a parameter as "+?" wherever it does not complete a primary key: SQLite
// takes the value of a bare one for a hint at the best plan, and since the driver
// clears it after each run, compiles the statement anew for the next.
const (
	commonDSN = "mode=rw&_mutex=no&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_stmt_cache_size=64"
	writerDSN = commonDSN + "&_txlock=immediate&_cache_size=-8000"
	readerDSN = commonDSN + "&_txlock=deferred&_query_only=1"
	probeDSN  = "mode=rw&_query_only=1&_busy_timeout=10000" // leaves the journal mode alone
)

// maxReaders is how many connections read at once.
const maxReaders = 4

// Open opens the store in the file at path, and makes it first if there is none
// or it is empty, along with its directory. A store of an older version is
// brought up to date. The error may be [ErrTooNew] or [ErrNotStore].
func Open(path string, o Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("aggregator: %w", err)
	}
	if err := makeFile(path); err != nil {
		return nil, fmt.Errorf("aggregator: %w", err)
	}
	if err := probe(path); err != nil {
		return nil, fmt.Errorf("%w: %s", err, path)
	}
	s := &Store{path: path, spread: o.Spread, log: o.Logger, turn: make(chan struct{}, 1), lastHost: map[string]string{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.writer, s.readers = openPool(path, writerDSN, 1), openPool(path, readerDSN, maxReaders)
	if err := s.migrate(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, path), s.Close())
	}
	return s, nil
}

// makeFile makes an empty file at path unless there is one. SQLite gives the
// files beside it the same mode.
func makeFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// openPool is a pool of connections to path with the settings dsn. The path is
// escaped, because in a URI "?", "#" and "%" have a meaning.
func openPool(path, dsn string, conns int) *sql.DB {
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: dsn}
	db := sql.OpenDB(&connector{dsn: u.String(), driver: &sqlite3.SQLiteDriver{ConnectHook: setCheckpoint}})
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

// connector makes the connections of a pool.
type connector struct {
	dsn    string
	driver *sqlite3.SQLiteDriver
}

func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c *connector) Driver() driver.Driver                        { return c.driver }

// setCheckpoint lets the write-ahead log grow to some 16 MB, four times the default:
// a page that many commits change is moved into the file less often. This setting
// has no place in the DSN.
func setCheckpoint(c *sqlite3.SQLiteConn) error {
	_, err := c.Exec(`PRAGMA wal_autocheckpoint = 4000`, nil)
	return err
}

// Close waits for the transactions under way and closes the store. Every later
// call is answered with [ErrClosed], but for a second Close, which does nothing.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	// The last connection to close moves the write-ahead log into the file. A
	// reader may not.
	return errors.Join(s.readers.Close(), s.writer.Close())
}

// write runs f in a transaction of its own and commits it if f returns nil.
//
// f uses tx.Exec and tx.Query, which know nothing of ctx: for each statement
// under a context that can end the driver starts a goroutine, a third of the
// cost of a count. When ctx ends, database/sql rolls the transaction back
// between two statements.
func (s *Store) write(ctx context.Context, doing string, f func(tx *sql.Tx) error) error {
	return s.onWriter(ctx, doing, func(c *sql.Conn) error { return s.transact(ctx, c, f) })
}

// writeDirect is write for who has a statement for each of many rows. When ctx ends
// it is the next of these statements that fails: database/sql, which would close the
// connection, must not while they go past it.
func (s *Store) writeDirect(ctx context.Context, doing string, f func(tx *sql.Tx, d *direct) error) error {
	return s.onWriter(ctx, doing, func(c *sql.Conn) error {
		return s.transact(context.WithoutCancel(ctx), c, func(tx *sql.Tx) error {
			d := newDirect(ctx, c)
			if err := f(tx, d); err != nil {
				_ = d.close() // which fails for the same reason, if at all
				return err
			}
			return errors.Join(d.close(), ctx.Err())
		})
	})
}

// transact is a transaction on the connection that writes.
func (s *Store) transact(ctx context.Context, c *sql.Conn, f func(tx *sql.Tx) error) error {
	err := transact(ctx, c, f)
	if err != nil {
		s.records.forget() // they speak of rows that were rolled back
	}
	return err
}

// onWriter runs f on the one connection that writes, when it is this caller's turn.
func (s *Store) onWriter(ctx context.Context, doing string, f func(c *sql.Conn) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return ErrClosed
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return explain(ctx, doing, ctx.Err())
	}
	c, err := s.writer.Conn(ctx)
	if err == nil {
		err = f(c)
		c.Close() // gives it back
	}
	return explain(ctx, doing, err)
}

// read runs f in a transaction that sees one state of the store and does not
// wait for the writer.
func (s *Store) read(ctx context.Context, doing string, f func(tx *sql.Tx) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return ErrClosed
	}
	return explain(ctx, doing, transact(ctx, s.readers, f))
}

// beginner is a pool or a connection.
type beginner interface {
	BeginTx(ctx context.Context, o *sql.TxOptions) (*sql.Tx, error)
}

func transact(ctx context.Context, on beginner, f func(tx *sql.Tx) error) error {
	tx, err := on.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// explain is err with what was being done, the reason why ctx ended where that
// is the reason for err, or one of the errors of this package as it is.
func explain(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[fault](err); ok {
		return f
	}
	if ctx.Err() != nil && (errors.Is(err, sql.ErrTxDone) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, ctx.Err())) {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("aggregator: %s: %w", doing, err)
}

// collect reads all rows with scan.
func collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// scanOne reads a row of one column.
func scanOne[T any](rows *sql.Rows) (v T, err error) {
	err = rows.Scan(&v)
	return v, err
}

// affected is how many rows a statement changed.
func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// timeOf is the time of a column; NULL is the zero time.
func timeOf(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(n.Int64, 0).UTC()
}

// columnOf is the column of a time; the zero time is NULL.
func columnOf(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.Unix(), Valid: !t.IsZero()}
}
