package aggregator

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Hold moves a domain-day that cannot be decided before a time, although nothing
// failed. What is no longer waiting stays as it is.
func (s *Store) Hold(ctx context.Context, dd DomainDay, until time.Time) error {
	return s.write(ctx, fmt.Sprintf("holding %s of %s", dd.Domain, dd.Day), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE domain_day SET due = ?
			WHERE day = ? AND domain = ? AND part = ? AND due IS NOT NULL AND `+waiting,
			until.Unix(), dd.Day, s.keys.domain(dd.Domain), dd.Part)
		return err
	})
}

// Sessions is how many sessions were counted for domain on day, whether or not
// the day is closed; one that was held against several policies counts for each.
func (s *Store) Sessions(ctx context.Context, day schema.Day, domain string) (n int64, err error) {
	id := s.keys.domain(domain)
	err = s.read(ctx, fmt.Sprintf("counting the sessions of %s on %s", domain, day), func(tx *sql.Tx) error {
		err := tx.QueryRow(`SELECT success + failure FROM domain_day WHERE day = ? AND domain = ?`, day, id).Scan(&n)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		total, err := openTotal(tx, day, id)
		n = total.Success + total.Failure
		return err
	})
	return n, err
}

// HandedOver is how many reports were mailed to addresses of a mail domain on
// day, those that bounced later included.
func (s *Store) HandedOver(ctx context.Context, day schema.Day, mailDomain string) (n int64, err error) {
	err = s.read(ctx, fmt.Sprintf("counting the reports to %s on %s", mailDomain, day), func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM delivery
			WHERE host = ? AND handed >= ? AND handed < ? AND substr(rua, 1, 7) = 'mailto:'`,
			mailDomain, day.Start().Unix(), (day + 1).Start().Unix()).Scan(&n)
	})
	return n, err
}

// Sharing is the other domains that had sessions under the policies of a
// domain-day, on its day, and how many sessions; at most limit of the domains. It
// reads all tallies of the day.
func (s *Store) Sharing(ctx context.Context, dd DomainDay, limit int) (domains []string, sessions int64, err error) {
	err = s.read(ctx, fmt.Sprintf("looking for what %s shares on %s", dd.Domain, dd.Day), func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT d.name, sum(t.success + t.failure) FROM tally t JOIN domain d ON d.id = t.domain
			WHERE t.day = ?1 AND t.part >= 0 AND t.domain <> ?2
				AND t.policy IN (SELECT policy FROM tally WHERE day = ?1 AND domain = ?2 AND part = ?3)
			GROUP BY t.domain LIMIT ?4`, dd.Day, s.keys.domain(dd.Domain), dd.Part, limit)
		domains, err = collect(rows, err, func(r *sql.Rows) (name string, err error) {
			var n int64
			err = r.Scan(&name, &n)
			sessions += n
			return name, err
		})
		return err
	})
	return domains, sessions, err
}
