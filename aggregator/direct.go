package aggregator

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/mattn/go-sqlite3"
)

// direct runs the statements of a transaction that are run once a row, past
// database/sql: what that does for each takes as long as SQLite does.
//
// Everything else of the transaction may go on in between, by its *sql.Tx.
type direct struct {
	ctx      context.Context // after whose end nothing more is run
	conn     *sql.Conn       // that the transaction runs on
	prepared map[*statement]driver.Stmt
	args     []driver.NamedValue // used again and again
}

// statement is one for direct. It is told apart by where it is: to look for a text
// as long as SQL takes a noticeable part of the time of a row.
type statement struct{ sql string }

func newDirect(ctx context.Context, c *sql.Conn) *direct {
	return &direct{ctx: ctx, conn: c, prepared: make(map[*statement]driver.Stmt)}
}

// exec runs a statement and says how many rows it changed. The arguments are
// int64, string or []byte.
func (d *direct) exec(s *statement, args ...driver.Value) (changed int64, err error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	err = d.conn.Raw(func(c any) error {
		changed, err = d.run(c.(*sqlite3.SQLiteConn), s, args)
		return err
	})
	return changed, err
}

func (d *direct) run(c *sqlite3.SQLiteConn, s *statement, args []driver.Value) (int64, error) {
	stmt := d.prepared[s]
	if stmt == nil {
		var err error
		if stmt, err = c.Prepare(s.sql); err != nil {
			return 0, err
		}
		d.prepared[s] = stmt
	}
	d.args = d.args[:0]
	for i, v := range args {
		d.args = append(d.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	// A context that can end would cost a goroutine: see Store.write.
	result, err := stmt.(*sqlite3.SQLiteStmt).ExecContext(context.Background(), d.args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// close gives up the statements.
func (d *direct) close() (err error) {
	return d.conn.Raw(func(any) error {
		for _, s := range d.prepared {
			err = errors.Join(err, s.Close())
		}
		return err
	})
}
