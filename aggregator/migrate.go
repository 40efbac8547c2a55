package aggregator

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mattn/go-sqlite3"
)

// applicationID marks a file as a store: "TLSR".
const applicationID = 0x544c5352

// migrationFiles is numbered from 0001; a file is never edited once released.
//
//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations is the text of each migration in order. The version of a store is
// how many it went through.
func migrations() ([]string, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(names))
	for i, name := range names {
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		texts[i] = string(text)
	}
	return texts, nil
}

// probe tells whether the file at path may be opened as a store, before
// anything that would change it is done.
func probe(path string) error {
	db := openPool(path, probeDSN, 1)
	defer db.Close()
	err := transact(context.Background(), db, func(tx *sql.Tx) error {
		_, err := identify(tx)
		return err
	})
	if e, ok := errors.AsType[sqlite3.Error](err); ok && e.Code == sqlite3.ErrNotADB {
		return ErrNotStore
	}
	return explain(context.Background(), "looking into the file", err)
}

// identify is the version of a store, 0 for an empty file.
func identify(tx *sql.Tx) (version int, err error) {
	var application, tables int
	row := tx.QueryRow(`SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)`)
	if err := row.Scan(&application, &version, &tables); err != nil {
		return 0, err
	}
	all, err := migrations()
	switch {
	case err != nil:
		return 0, err
	case application == 0 && version == 0 && tables == 0:
		return 0, nil
	case application != applicationID:
		return 0, ErrNotStore
	case version > len(all):
		return 0, ErrTooNew
	}
	return version, nil
}

// migrate brings the store up to date, or makes it, and reads its secret. Of
// several processes that do so at once one does the work.
func (s *Store) migrate() error {
	if err := s.recognize(); err != nil || s.keys.ready() {
		return err
	}
	return s.write(context.Background(), "preparing the store", func(tx *sql.Tx) error {
		all, err := migrations()
		if err != nil {
			return err
		}
		version, err := identify(tx)
		if err != nil {
			return err
		}
		for i, text := range all[version:] {
			if _, err := tx.Exec(text); err != nil {
				return fmt.Errorf("migration %d: %w", version+i+1, err)
			}
		}
		if version < len(all) {
			mark := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(all))
			if _, err := tx.Exec(mark); err != nil {
				return err
			}
			s.log.Info("store brought up to date", "path", s.path, "from", version, "to", len(all))
		}
		return s.loadSecret(tx)
	})
}

// recognize reads the secret of a store that is up to date. A command that only
// looks then needs no right to write, and does not wait for who does.
func (s *Store) recognize() error {
	if size, err := fileSize(s.path); err != nil || size == 0 {
		return err
	}
	return s.read(context.Background(), "looking into the store", func(tx *sql.Tx) error {
		all, err := migrations()
		if err != nil {
			return err
		}
		if version, err := identify(tx); err != nil || version < len(all) {
			return err
		}
		return s.readSecret(tx)
	})
}

// loadSecret reads the store's secret, and makes it first in a new store.
func (s *Store) loadSecret(tx *sql.Tx) error {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	if _, err := tx.Exec(`INSERT INTO meta (name, value) VALUES ('secret', ?) ON CONFLICT DO NOTHING`, secret); err != nil {
		return err
	}
	return s.readSecret(tx)
}

func (s *Store) readSecret(tx *sql.Tx) error {
	var secret []byte
	if err := tx.QueryRow(`SELECT value FROM meta WHERE name = 'secret'`).Scan(&secret); err != nil {
		return err
	}
	s.keys = newKeys(secret)
	return nil
}
