//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// withStore runs f on the store, beside whoever else uses it.
func (s *soak) withStore(f func(tx *sql.Tx) error) error {
	db, err := sql.Open("sqlite3", "file:"+s.path("tlsrpt.db")+"?mode=rw&_busy_timeout=30000&_txlock=immediate")
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		return fmt.Errorf("the store: %w", err)
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return fmt.Errorf("the store: %w", err)
	}
	return tx.Commit()
}

func statements(texts ...string) func(tx *sql.Tx) error {
	return func(tx *sql.Tx) error {
		for _, text := range texts {
			if _, err := tx.Exec(text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	}
}

// passDay lets a day pass: all that is stored is a day older. Keys move by way of
// numbers that none has. Reports keep their ids, which the next day's would have
// again, so theirs are marked.
func (s *soak) passDay() error {
	var all []string
	for _, table := range []string{"tally", "tally_detail", "day", "domain_day", "report"} {
		all = append(all, "UPDATE "+table+" SET day = day - 100000", "UPDATE "+table+" SET day = day + 99999")
	}
	for _, table := range []string{"domain", "policy", "detail"} {
		all = append(all, "UPDATE "+table+" SET used = used - 1")
	}
	for _, c := range []struct{ table, column string }{
		{"domain", "record_seen"}, {"day", "closed"}, {"domain_day", "due"}, {"domain_day", "failing"}, {"report", "date"},
		{"delivery", "created"}, {"delivery", "first"}, {"delivery", "next"}, {"delivery", "done"}, {"delivery", "handed"},
		{"suppression", "since"}, {"suppression", "until"},
	} {
		all = append(all, "UPDATE "+c.table+" SET "+c.column+" = "+c.column+" - 86400 WHERE "+c.column+" > 86400")
	}
	all = append(all,
		"UPDATE suppression SET failed = failed - 1",
		"UPDATE meta SET value = value - 86400 WHERE name = 'submission-since' AND value > 86400",
		"UPDATE report SET report_id = report_id || '#' || id WHERE report_id NOT LIKE '%#%'")
	return s.withStore(statements(all...))
}

// hurry makes what waits for its next attempt due at once. leases is whether those
// who were at it are dead.
func (s *soak) hurry(leases bool) error {
	of := " AND lease = 0"
	if leases {
		of = ""
	}
	return s.withStore(statements(
		"UPDATE delivery SET next = 1 WHERE state = 0 AND next IS NOT NULL"+of,
		"UPDATE domain_day SET due = 1 WHERE state < 2 AND due IS NOT NULL AND domain NOT IN (SELECT id FROM domain WHERE name = '"+neverResolves+"')"))
}

// waiting is how many domain-days of closed days, and deliveries, are not done.
func (s *soak) waiting() (n int, err error) {
	err = s.withStore(func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT (SELECT count(*) FROM delivery WHERE state = 0) + (SELECT count(*) FROM domain_day dd JOIN domain d ON d.id = dd.domain
			WHERE dd.state < 2 AND dd.due IS NOT NULL AND d.name <> ?)`, neverResolves).Scan(&n)
	})
	return n, err
}

// position is where a source of the log will go on, and how many sessions before
// that wait for what DNS says.
type position struct {
	Inode   uint64
	Offset  int64
	Waiting int
}

// positionOf is the stored position in the log at path.
func (s *soak) positionOf(path string) (p position, err error) {
	var text []byte
	err = s.withStore(func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT cursor FROM source WHERE name LIKE ?`, "postfix_log:"+path+":%").Scan(&text)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	var cursor struct {
		Tail    []byte
		Waiting []json.RawMessage
	}
	var tail struct{ File *position }
	if err == nil {
		err = json.Unmarshal(text, &cursor)
	}
	if err == nil && cursor.Tail != nil {
		err = json.Unmarshal(cursor.Tail, &tail)
	}
	if tail.File != nil {
		p = *tail.File
	}
	p.Waiting = len(cursor.Waiting)
	return p, err
}

// classes is the numbers that states of domain-days without a report have in the
// store.
var classes = map[int]string{3: "no record", 4: "too old", 5: "record not found in time", 6: "excluded"}

// unreported is how many sessions ended without a report that arrived, by domain
// and class.
func (s *soak) unreported() (all map[string]map[string]int64, err error) {
	all = map[string]map[string]int64{}
	add := func(class, domain string, n int64) {
		if all[class] == nil {
			all[class] = map[string]int64{}
		}
		all[class][domain] += n
	}
	err = s.withStore(func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT d.name, dd.state, dd.success + dd.failure FROM domain_day dd JOIN domain d ON d.id = dd.domain`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var domain string
			var state int
			var n int64
			if err := rows.Scan(&domain, &state, &n); err != nil {
				return err
			}
			if class, ok := classes[state]; ok {
				add(class, domain, n)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return undelivered(tx, func(domain string, n int64) { add("report refused", domain, n) })
	})
	return all, err
}

// undelivered is the sessions of reports that no destination took.
func undelivered(tx *sql.Tx, add func(domain string, n int64)) error {
	rows, err := tx.Query(`SELECT d.name, r.gzip FROM report r JOIN domain d ON d.id = r.domain
		WHERE NOT EXISTS (SELECT 1 FROM delivery WHERE report = r.id AND handed IS NOT NULL)`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var domain string
		var text []byte
		if err := rows.Scan(&domain, &text); err != nil {
			return err
		}
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return err
		}
		text, err = io.ReadAll(z)
		if err != nil {
			return err
		}
		r, err := schema.Decode(text)
		if err != nil {
			return err
		}
		total := r.Totals()
		add(domain, total.Success+total.Failure)
	}
	return rows.Err()
}

// lock holds the lock of the store for a while.
func (s *soak) lock(d time.Duration) error {
	return s.withStore(func(*sql.Tx) error {
		time.Sleep(d)
		return nil
	})
}
