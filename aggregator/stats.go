package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Stats is numbers for an operator.
type Stats struct {
	// Folded counts sessions that lost their policy, or failure details that lost
	// all but their result type, to a bound on what is kept per domain and day.
	Folded int64

	// Waiting counts domain-days that are to be planned.
	Waiting int64

	// Pending counts deliveries that have not ended.
	Pending int64

	// Size is that of the file, Log that of the write-ahead log beside it, in bytes.
	Size, Log int64
}

// Stats reads the numbers.
func (s *Store) Stats(ctx context.Context) (stats Stats, err error) {
	err = s.read(ctx, "reading statistics", func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT coalesce((SELECT value FROM meta WHERE name = 'folded'), 0),
			(SELECT count(*) FROM domain_day WHERE `+waiting+`),
			(SELECT count(*) FROM delivery WHERE state = 0)`).Scan(&stats.Folded, &stats.Waiting, &stats.Pending)
	})
	if err != nil {
		return Stats{}, err
	}
	stats.Size, err = fileSize(s.path)
	if err != nil {
		return Stats{}, err
	}
	stats.Log, err = fileSize(s.path + "-wal")
	return stats, err
}

// fileSize is 0 where there is no file.
func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("aggregator: %w", err)
	}
	return info.Size(), nil
}

// Checkpoint moves the write-ahead log into the file and empties it. It is worth
// its cost when nothing else is to be done; otherwise SQLite does the same bit by
// bit.
func (s *Store) Checkpoint(ctx context.Context) error {
	return s.onWriter(ctx, "emptying the write-ahead log", func(c *sql.Conn) error {
		var busy, frames, moved int
		if err := c.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &frames, &moved); err != nil {
			return err
		}
		if busy != 0 {
			return errors.New("another process reads or writes")
		}
		return nil
	})
}

// Version changes when another process has changed the store. It may change
// without that, too.
func (s *Store) Version(ctx context.Context) (version int64, err error) {
	err = s.onWriter(ctx, "reading the version", func(c *sql.Conn) error {
		return c.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version)
	})
	return version, err
}
