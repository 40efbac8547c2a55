package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Imported is a row of another program's database, as it is now.
type Imported struct {
	Row   string // what tells it apart from all other rows of its source
	Count schema.Count
}

// RecordImported counts what rows have grown by since they were last recorded for
// source, which is all of a row that is new. Counts that have shrunk stay. With
// looking they are recorded as by [Store.RecordLooking]. It returns how many
// sessions were counted on each day for each domain.
func (s *Store) RecordImported(ctx context.Context, source string, rows []Imported, looking bool) (counts []schema.Count, err error) {
	part := 0
	if looking {
		part = s.keys.lookingPart(source)
	}
	err = s.writeDirect(ctx, "recording what was imported from "+source, func(tx *sql.Tx, d *direct) error {
		counts = nil
		for _, row := range rows {
			c, err := s.growth(tx, source, row)
			if err != nil {
				return err
			}
			if c.Success > 0 || c.Failure > 0 || len(c.Details) > 0 {
				counts = append(counts, c)
			}
		}
		r := recorder{Tx: tx, direct: d, store: s, now: time.Now(), closed: map[schema.Day]bool{}, looking: part}
		return r.recordAll(s.sightings(counts))
	})
	return counts, err
}

// growth is what a row has more than it had, and notes what it has.
func (s *Store) growth(tx *sql.Tx, source string, row Imported) (schema.Count, error) {
	c := row.Count
	c.Details = nil
	var err error
	if c.Success, c.Failure, err = s.grown(tx, source, row.Row, c); err != nil {
		return c, err
	}
	for _, d := range row.Count.Details {
		one := schema.Count{Day: c.Day, Failure: d.Sessions}
		if _, d.Sessions, err = s.grown(tx, source, row.Row+"\x00"+string(d.Details), one); err != nil {
			return c, err
		}
		if d.Sessions > 0 {
			c.Details = append(c.Details, d)
		}
	}
	return c, nil
}

// grown is by how much the numbers of now exceed those that are noted for a row,
// which become those of now.
func (s *Store) grown(tx *sql.Tx, source, row string, now schema.Count) (success, failure int64, err error) {
	id := s.keys.id('i', row)
	var old schema.Summary
	err = tx.QueryRow(`SELECT success, failure FROM imported WHERE source = ? AND row = ?`, source, id).Scan(&old.Success, &old.Failure)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, 0, err
	}
	success, failure = max(now.Success-old.Success, 0), max(now.Failure-old.Failure, 0)
	if success == 0 && failure == 0 {
		return 0, 0, nil
	}
	_, err = tx.Exec(`INSERT INTO imported (source, row, day, success, failure) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (source, row) DO UPDATE SET success = excluded.success, failure = excluded.failure`,
		source, id, now.Day, old.Success+success, old.Failure+failure)
	return success, failure, err
}
