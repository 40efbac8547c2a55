package aggregator

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// A bounce token is the first 80 bits of an HMAC of a delivery's id and rua, and
// the id itself. It has letters and digits only, so that every delimiter ends it,
// and means the same in upper case: a server may change the case of a local part.
const (
	tokenMAC   = 16 // base32
	tokenRadix = 36

	// MaxBounceToken is how long a bounce token may be: 63 bits in base 36.
	MaxBounceToken = tokenMAC + 13
)

// BounceToken names a delivery in what comes back of its mail. Only this store
// can make it. It is good for this delivery to this rua alone.
func (s *Store) BounceToken(id int64, rua schema.RUA) string {
	sum := s.keys.sum('b', strconv.FormatInt(id, 10)+" "+string(rua))
	mac := base32.StdEncoding.EncodeToString(sum[:tokenMAC*5/8])
	return strings.ToLower(mac) + strconv.FormatInt(id, tokenRadix)
}

// DeliveryOf is the delivery that a bounce token names. The error is
// [ErrNoDelivery] for what no BounceToken is, or one of a delivery that was
// pruned since.
func (s *Store) DeliveryOf(ctx context.Context, token string) (d Delivery, err error) {
	token = strings.ToLower(token)
	if len(token) <= tokenMAC || len(token) > MaxBounceToken {
		return Delivery{}, ErrNoDelivery
	}
	id, err := strconv.ParseInt(token[tokenMAC:], tokenRadix, 64)
	if err != nil {
		return Delivery{}, ErrNoDelivery
	}
	err = s.read(ctx, "looking for a bounced delivery", func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT `+deliveryColumns+` FROM `+deliveryTables+` WHERE v.id = ?`, id)
		all, err := collect(rows, err, scanDelivery)
		if err != nil {
			return err
		}
		if len(all) != 1 || subtle.ConstantTimeCompare([]byte(token), []byte(s.BounceToken(id, all[0].RUA))) == 0 {
			return ErrNoDelivery
		}
		d = all[0]
		return nil
	})
	return d, err
}

// Bounce says that mail which was sent came back.
type Bounce struct {
	ID     int64  // of the delivery
	Reason string // in one line

	// NoRecipient says that the address does not exist, for good. On the second
	// day that it does so, it is suppressed.
	NoRecipient bool

	At time.Time // when it came; the zero time: now

	// Oldest is when the day of a report must have ended at the earliest for the
	// next rua to get it in turn. The zero time: whenever.
	Oldest time.Time
}

// Bounce ends a delivery that was sent as given up, and lets the next one of its
// report have its turn, see [Plan.InTurn].
//
// Nothing happens if the delivery is not sent ([ErrDone]: this is the second
// bounce of it, or it ended otherwise), or if an attempt is under way whose
// outcome is not stored ([ErrUnderWay]: call again), or if it is unknown
// ([ErrNoDelivery]).
func (s *Store) Bounce(ctx context.Context, b Bounce) error {
	if b.At.IsZero() {
		b.At = time.Now()
	}
	return s.write(ctx, fmt.Sprintf("bouncing delivery %d", b.ID), func(tx *sql.Tx) error {
		if err := checkSent(tx, b.ID, b.At); err != nil {
			return err
		}
		_, err := tx.Exec(`UPDATE delivery SET state = ?, done = ?, error = ? WHERE id = ?`,
			DeliveryGaveUp, b.At.Unix(), b.Reason, b.ID)
		if err != nil {
			return err
		}
		if b.NoRecipient {
			if err := noteNoRecipient(tx, b.ID, b.Reason, b.At); err != nil {
				return err
			}
		}
		return resumeTurns(tx, b)
	})
}

// checkSent makes sure that a delivery has been sent. A relay may return mail
// faster than that it took it is stored.
func checkSent(tx *sql.Tx, id int64, at time.Time) error {
	var state DeliveryState
	var leased bool
	err := tx.QueryRow(`SELECT state, lease <> 0 AND coalesce(next, 0) > ? FROM delivery WHERE id = ?`, at.Unix(), id).Scan(&state, &leased)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrNoDelivery
	case err != nil:
		return err
	case state == DeliveryPending && leased:
		return ErrUnderWay
	case state != DeliverySent:
		return ErrDone
	}
	return nil
}

// resumeTurns gives those their turn back that had none because the delivery was
// sent. A copy for the operator took nobody's.
func resumeTurns(tx *sql.Tx, b Bounce) error {
	var day schema.Day
	var report int64
	var isCopy bool
	if err := tx.QueryRow(`SELECT r.id, r.day, v.copy FROM report r JOIN delivery v ON v.report = r.id WHERE v.id = ?`, b.ID).
		Scan(&report, &day, &isCopy); err != nil {
		return err
	}
	if isCopy || day.End().Before(b.Oldest) {
		return nil
	}
	_, err := tx.Exec(`UPDATE delivery SET state = ?1, next = NULL, done = NULL, error = ''
		WHERE report = ?2 AND state = ?3 AND error = ?4
		AND NOT EXISTS (SELECT 1 FROM delivery WHERE report = ?2 AND state = ?5 AND copy = 0)`,
		DeliveryPending, report, DeliverySuppressed, reasonInTurn, DeliverySent)
	if err != nil {
		return err
	}
	return passTurn(tx, b.ID, DeliveryGaveUp, b.At)
}
