package aggregator

import (
	"context"
	"database/sql"
	"math"
	"math/rand/v2"
	"time"
)

// MaxClaim is how many deliveries one Claim gives at most.
const MaxClaim = 64

// Claim says what may be claimed.
type Claim struct {
	// Max is how many deliveries; 0 or more than MaxClaim: MaxClaim; less than 0:
	// none.
	Max int

	// PerHost bounds how many deliveries to one host may be under way at once,
	// those of all processes counted; 0: no bound.
	PerHost int

	// Lease is for how long the deliveries belong to the claimant alone. It must
	// be longer than any attempt.
	Lease time.Duration

	// Filter leaves out others, whatever its State.
	Filter DeliveryFilter
}

// Claim takes deliveries that are due at now, for one attempt each. No other
// claimant, of this process or another, gets them before the lease ends or they
// are settled. An attempt counts from here, so that one which a crash cuts off
// counts too.
//
// Hosts take turns: each gets one delivery before any gets a second one, and the
// next Claim goes on after the last host of this one.
func (s *Store) Claim(ctx context.Context, now time.Time, c Claim) (claimed []Delivery, err error) {
	if c.Max < 0 {
		return nil, nil
	}
	if c.Max == 0 || c.Max > MaxClaim {
		c.Max = MaxClaim
	}
	if c.PerHost <= 0 {
		c.PerHost = math.MaxInt32
	}
	c.Filter.State = "" // only pending ones are looked at
	err = s.write(ctx, "claiming deliveries", func(tx *sql.Tx) error {
		l := claimant{Tx: tx, Claim: c, now: now, until: now.Add(c.Lease), lease: 1 + rand.Int64()>>1}
		l.where, l.args = c.Filter.condition(s.keys)
		if claimed, err = l.claim(s.lastHost); len(claimed) > 0 {
			s.lastHost = claimed[len(claimed)-1].Host
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// claimant is one transaction of Claim.
type claimant struct {
	*sql.Tx
	Claim
	now, until time.Time
	lease      int64
	where      string // Filter as a condition
	args       []any
}

// hostRoom is a host with deliveries that are due, and how many more of them may
// be under way.
type hostRoom struct {
	host string
	room int
}

func (c *claimant) claim(lastHost string) ([]Delivery, error) {
	hosts, err := c.hosts(lastHost)
	if err != nil {
		return nil, err
	}
	queues := make([][]int64, len(hosts))
	for i, h := range hosts {
		if queues[i], err = c.dueOf(h); err != nil {
			return nil, err
		}
	}
	var claimed []Delivery
	for _, id := range takeTurns(queues, c.Max) {
		d, err := c.take(id)
		if err != nil {
			return nil, err
		}
		claimed = append(claimed, d)
	}
	return claimed, nil
}

// takeTurns is the first of each queue, then the second of each, up to limit.
func takeTurns(queues [][]int64, limit int) (ids []int64) {
	for turn, more := 0, true; more; turn++ {
		more = false
		for _, q := range queues {
			if turn >= len(q) {
				continue
			}
			if len(ids) == limit {
				return ids
			}
			ids = append(ids, q[turn])
			more = true
		}
	}
	return ids
}

// hosts is the hosts that something may be claimed of, beginning after one and
// going round.
func (c *claimant) hosts(after string) ([]hostRoom, error) {
	hosts, err := c.hostsBetween(after, maxHost)
	if err != nil || len(hosts) == c.Max || after == "" {
		return hosts, err
	}
	round, err := c.hostsBetween("", after)
	return append(hosts, round[:min(len(round), c.Max-len(hosts))]...), err
}

// maxHost sorts after every host.
const maxHost = "\x7f"

// hostsBetween is the hosts after one up to another. It steps from host to host
// in the index, so that a host with 10,000 deliveries costs what one with a
// single delivery does.
func (c *claimant) hostsBetween(after, last string) ([]hostRoom, error) {
	args := append([]any{after, last, last, c.now.Unix(), c.PerHost, c.now.Unix()}, c.args...)
	rows, err := c.Query(`WITH RECURSIVE
		step (host) AS (
			SELECT min(host) FROM delivery WHERE state = 0 AND host > +? AND host <= +?
			UNION ALL
			SELECT (SELECT min(host) FROM delivery WHERE state = 0 AND host > step.host AND host <= +?)
			FROM step WHERE host IS NOT NULL),
		busy (host, leased) AS (
			SELECT host, (SELECT count(*) FROM delivery l
				WHERE l.state = 0 AND l.lease <> 0 AND l.host = step.host AND l.next > +?)
			FROM step WHERE host IS NOT NULL)
		SELECT host, leased FROM busy WHERE leased < +? AND EXISTS (
			SELECT 1 FROM delivery v JOIN report r ON r.id = v.report
			WHERE v.state = 0 AND v.host = busy.host AND v.next <= +?`+c.where+`)
		LIMIT +?`, append(args, c.Max)...)
	return collect(rows, err, func(r *sql.Rows) (h hostRoom, err error) {
		var leased int
		err = r.Scan(&h.host, &leased)
		h.room = min(c.PerHost-leased, c.Max)
		return h, err
	})
}

// dueOf is the deliveries to a host that may be claimed, the longest due first.
func (c *claimant) dueOf(h hostRoom) ([]int64, error) {
	args := append([]any{h.host, c.now.Unix()}, c.args...)
	rows, err := c.Query(`SELECT v.id FROM delivery v JOIN report r ON r.id = v.report
		WHERE v.state = 0 AND v.host = +? AND v.next <= +?`+c.where+`
		ORDER BY v.next LIMIT +?`, append(args, h.room)...)
	return collect(rows, err, scanOne[int64])
}

// take leases one delivery. The lease is rounded up to a whole second, or a
// short one would have ended already.
func (c *claimant) take(id int64) (Delivery, error) {
	if _, err := c.Exec(`UPDATE delivery SET lease = ?, next = ?, attempts = attempts + 1, first = coalesce(first, ?)
		WHERE id = ?`, c.lease, c.until.Add(time.Second-1).Unix(), c.now.Unix(), id); err != nil {
		return Delivery{}, err
	}
	rows, err := c.Query(`SELECT `+deliveryColumns+` FROM `+deliveryTables+` WHERE v.id = +?`, id)
	all, err := collect(rows, err, scanDelivery)
	if err != nil {
		return Delivery{}, err
	}
	if len(all) != 1 {
		return Delivery{}, ErrNoDelivery
	}
	return all[0], nil
}

// Outcome is how one attempt ended.
type Outcome struct {
	ID    int64 // of the delivery
	Lease int64 // as Claim gave it

	// State is DeliveryPending if another attempt is to be made at Next, or how
	// the delivery ended.
	State DeliveryState

	Next  time.Time
	Error string // "" leaves the one before

	// NoRecipient says that the delivery ended because the address does not
	// exist, as in Bounce.
	NoRecipient bool

	At time.Time // when the attempt ended; the zero time: now
}

// Settle stores the outcomes of attempts in one transaction. An outcome counts
// only if nobody else claimed the delivery since and it is still pending, or if
// it was cancelled and the attempt succeeded; others are dropped.
func (s *Store) Settle(ctx context.Context, outcomes []Outcome) error {
	return s.write(ctx, "storing the outcomes of attempts", func(tx *sql.Tx) error {
		for _, o := range outcomes {
			if err := settle(tx, o); err != nil {
				return err
			}
		}
		return nil
	})
}

func settle(tx *sql.Tx, o Outcome) error {
	if o.At.IsZero() {
		o.At = time.Now()
	}
	next, done := columnOf(o.Next), columnOf(o.At)
	if o.State == DeliveryPending {
		done.Valid = false
		if !next.Valid {
			next = columnOf(o.At)
		}
	} else {
		next.Valid = false
	}
	n, err := affected(tx.Exec(`UPDATE delivery SET state = ?1, next = ?2, done = ?3, lease = 0,
			handed = CASE WHEN ?1 = ?7 THEN ?3 ELSE handed END,
			error = CASE WHEN ?4 = '' THEN error ELSE ?4 END
		WHERE id = ?5 AND lease = ?6 AND lease <> 0 AND (state = 0 OR ?1 = ?7)`,
		o.State, next, done, o.Error, o.ID, o.Lease, DeliverySent))
	if err != nil || n == 0 || o.State == DeliveryPending {
		return err
	}
	if o.NoRecipient {
		if err := noteNoRecipient(tx, o.ID, o.Error, o.At); err != nil {
			return err
		}
	}
	return passTurn(tx, o.ID, o.State, o.At)
}

// reasonInTurn is why a delivery whose turn never came was not sent.
const reasonInTurn = "another rua took the report"

// passTurn lets the next delivery of a report have its turn after one ended, or
// ends those that need none because it was sent. See [Plan.InTurn]. A copy for
// the operator takes no part in it.
func passTurn(tx *sql.Tx, id int64, end DeliveryState, at time.Time) error {
	var isCopy bool
	if err := tx.QueryRow(`SELECT copy FROM delivery WHERE id = ?`, id).Scan(&isCopy); err != nil || isCopy {
		return err
	}
	if end == DeliverySent {
		_, err := tx.Exec(`UPDATE delivery SET state = ?, done = ?, error = ?
			WHERE report = (SELECT report FROM delivery WHERE id = ?) AND state = 0 AND next IS NULL`,
			DeliverySuppressed, at.Unix(), reasonInTurn, id)
		return err
	}
	_, err := tx.Exec(`UPDATE delivery SET next = ?1 WHERE id = (
		SELECT min(id) FROM delivery
		WHERE report = (SELECT report FROM delivery WHERE id = ?2) AND state = 0 AND next IS NULL)
		AND NOT EXISTS (SELECT 1 FROM delivery
			WHERE report = (SELECT report FROM delivery WHERE id = ?2) AND state = 0 AND next IS NOT NULL AND copy = 0)`, at.Unix(), id)
	return err
}
