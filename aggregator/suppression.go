package aggregator

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const aDay = 24 * time.Hour

// pauses is for how long an address is left alone: the first time, the second
// time, and so on; the last one for all that follow.
var pauses = []time.Duration{7 * aDay, 30 * aDay, 90 * aDay, 365 * aDay}

// remembered is for how long a failure, or a pause that ran out, matters to the
// next failure. Mail that a relay took proves nothing, so no success is counted;
// an address that did not fail for so long is taken to work.
const remembered = 30 * aDay

// Forever is the end of a suppression that has none.
var Forever = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

// Suppression is what is known of a mail address that reports could not be
// delivered to.
type Suppression struct {
	Address string // addr-spec

	// Until is when the newest pause ends, and Since when it began. Until then no
	// report is mailed to the address. The zero time: there was no pause, it
	// failed on one day only.
	Since, Until time.Time

	Pauses int        // that failures caused, this one included
	Failed schema.Day // of the newest failure that counted; 0: the operator added it
	Reason string
}

// InForce reports whether no report is mailed to the address at a time.
func (s *Suppression) InForce(at time.Time) bool { return s.Until.After(at) }

const suppressionColumns = `address, since, until, pauses, coalesce(failed, 0), reason`

func scanSuppression(rows *sql.Rows) (s Suppression, err error) {
	var since, until sql.NullInt64
	err = rows.Scan(&s.Address, &since, &until, &s.Pauses, &s.Failed, &s.Reason)
	s.Since, s.Until = timeOf(since), timeOf(until)
	return s, err
}

// suppressionOf is what is known of an address, the zero value if nothing.
func suppressionOf(tx *sql.Tx, address string) (s Suppression, err error) {
	rows, err := tx.Query(`SELECT `+suppressionColumns+` FROM suppression WHERE address = ?`, address)
	all, err := collect(rows, err, scanSuppression)
	if err == nil && len(all) == 1 {
		s = all[0]
	}
	return s, err
}

// Suppressions calls f for every address that failed, by address, until f
// returns an error, which it returns. No transaction is open while f runs.
func (s *Store) Suppressions(ctx context.Context, f func(Suppression) error) error {
	for after, more := "", true; more; {
		var page []Suppression
		err := s.read(ctx, "listing suppressions", func(tx *sql.Tx) error {
			rows, err := tx.Query(`SELECT `+suppressionColumns+` FROM suppression WHERE address > ? ORDER BY address LIMIT ?`,
				after, pageRows)
			page, err = collect(rows, err, scanSuppression)
			return err
		})
		if err != nil {
			return err
		}
		if more = len(page) == pageRows; more {
			after = page[pageRows-1].Address
		}
		for _, p := range page {
			if err := f(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// Suppressed is those of ruas that no report is mailed to at now, and until when
// and why.
func (s *Store) Suppressed(ctx context.Context, ruas []schema.RUA, now time.Time) (in map[schema.RUA]Suppression, err error) {
	ruas = slices.DeleteFunc(slices.Clone(ruas), func(rua schema.RUA) bool { return rua.Address() == "" })
	if len(ruas) == 0 {
		return nil, nil // only addresses are suppressed
	}
	err = s.read(ctx, "looking for suppressions", func(tx *sql.Tx) error {
		for _, rua := range ruas {
			found, err := suppressionOf(tx, rua.Address())
			if err != nil {
				return err
			}
			if found.InForce(now) {
				if in == nil {
					in = make(map[schema.RUA]Suppression)
				}
				in[rua] = found
			}
		}
		return nil
	})
	return in, err
}

// Suppress has no report mailed to an address from now until a time, whatever
// was known of it. address is as schema.ParseAddress gives it.
func (s *Store) Suppress(ctx context.Context, address string, now, until time.Time, reason string) error {
	return s.write(ctx, "suppressing "+address, func(tx *sql.Tx) error {
		return pause(tx, Suppression{Address: address, Since: now, Until: until, Reason: reason})
	})
}

// LiftSuppression forgets what is known of an address: reports are mailed to it
// again from the next planning on. The error is [ErrNoSuppression] if nothing
// was.
func (s *Store) LiftSuppression(ctx context.Context, address string) error {
	return s.write(ctx, "lifting the suppression of "+address, func(tx *sql.Tx) error {
		n, err := affected(tx.Exec(`DELETE FROM suppression WHERE address = ?`, address))
		if err == nil && n == 0 {
			err = ErrNoSuppression
		}
		return err
	})
}

// pause stores n in place of what was known of the address.
func pause(tx *sql.Tx, n Suppression) error {
	_, err := tx.Exec(`INSERT OR REPLACE INTO suppression (address, since, until, pauses, failed, reason)
		VALUES (?, ?, ?, ?, nullif(?, 0), ?)`,
		n.Address, columnOf(n.Since), columnOf(n.Until), n.Pauses, n.Failed, n.Reason)
	return err
}

// noteNoRecipient counts that mail for a delivery failed because its address does
// not exist. What fails on two days is suppressed, for longer each time. Of a copy
// for the operator nothing is noted: that address is no rua.
func noteNoRecipient(tx *sql.Tx, delivery int64, reason string, at time.Time) error {
	var rua schema.RUA
	var isCopy bool
	if err := tx.QueryRow(`SELECT rua, copy FROM delivery WHERE id = ?`, delivery).Scan(&rua, &isCopy); err != nil {
		return err
	}
	address := rua.Address()
	if address == "" || isCopy {
		return nil
	}
	known, err := suppressionOf(tx, address)
	if err != nil {
		return err
	}
	if next, ok := known.fail(at); ok {
		next.Address, next.Reason = address, reason
		return pause(tx, next)
	}
	return nil
}

// fail is what is known after one more failure. It is false for one that does not
// count: another one of the same day, or of mail that was under way when the
// pause began.
func (s Suppression) fail(at time.Time) (Suppression, bool) {
	day := schema.DayOf(at)
	if s.InForce(at) || s.Failed >= day && s.Failed != 0 {
		return s, false
	}
	last := (s.Failed + 1).Start()
	if s.Until.After(last) {
		last = s.Until // the pause ran out
	}
	if s.Failed == 0 || at.Sub(last) > remembered {
		return Suppression{Failed: day}, true
	}
	length := pauses[min(s.Pauses, len(pauses)-1)]
	return Suppression{Failed: day, Pauses: s.Pauses + 1, Since: at, Until: at.Add(length)}, true
}

// pruneSuppressions deletes what does not matter to a failure any more.
func (s *Store) pruneSuppressions(ctx context.Context, now time.Time) error {
	limit := now.Add(-remembered)
	for n := int64(chunk); n == chunk; {
		err := s.write(ctx, "pruning", func(tx *sql.Tx) (err error) {
			n, err = affected(tx.Exec(`DELETE FROM suppression WHERE address IN (SELECT address FROM suppression
				WHERE coalesce(until, 0) < ? AND coalesce(failed, 0) < ? LIMIT ?)`, limit.Unix(), schema.DayOf(limit), chunk))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
