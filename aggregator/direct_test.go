package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"testing"
)

// TestDirectEnds ends the context of a transaction between two statements that go
// past database/sql: what came after its rollback is not done either.
func TestDirectEnds(t *testing.T) {
	s := newStore(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	insert := &statement{`INSERT INTO policy (id, used, text) VALUES (?, 0, '')`}
	err := s.writeDirect(ctx, "counting", func(_ *sql.Tx, d *direct) error {
		if n, err := d.exec(insert, int64(1)); n != 1 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		cancel(why)
		n, err := d.exec(insert, int64(2))
		if n != 0 || err == nil {
			t.Errorf("%d rows after the end", n)
		}
		return err
	})
	if !errors.Is(err, why) {
		t.Errorf("error %v, want %v", err, why)
	}
	ctx, cancel = context.WithCancelCause(context.Background())
	err = s.writeDirect(ctx, "counting", func(_ *sql.Tx, d *direct) error {
		defer cancel(why) // after the last statement
		_, err := d.exec(insert, int64(3))
		return err
	})
	if !errors.Is(err, why) {
		t.Errorf("error %v, want %v", err, why)
	}
	rows := func() (n int) {
		must(t, s.read(t.Context(), "counting", func(tx *sql.Tx) error { return tx.QueryRow(`SELECT count(*) FROM policy`).Scan(&n) }))
		return n
	}
	if n := rows(); n != 0 {
		t.Errorf("%d rows were kept", n)
	}
	must(t, s.writeDirect(t.Context(), "counting", func(_ *sql.Tx, d *direct) error {
		for id := range int64(3) {
			if _, err := d.exec(insert, id); err != nil {
				return err
			}
		}
		return nil
	}))
	if n := rows(); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}
