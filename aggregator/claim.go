package aggregator

import (
	"context"
	"database/sql"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// MaxClaim is how many deliveries one Claim gives at most.
const MaxClaim = 64

// Claim says what may be claimed.
type Claim struct {
	// Outcomes of attempts are stored first, as by [Store.Settle]: they free the
	// places of their hosts, and one transaction does for both.
	Outcomes []Outcome

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

// Claimed is a delivery for one attempt.
type Claimed struct {
	Delivery

	// Report is what is to be sent. It is nil if it is large or cannot be read:
	// then [Store.Report] has it, or the reason.
	Report *Report
}

// maxClaimedReport is how large a report may be, in bytes, to come with its
// delivery: many are read at once.
const maxClaimedReport = 64 << 10

// Claim takes deliveries that are due at now, for one attempt each. No other
// claimant, of this process or another, gets them before the lease ends or they
// are settled. An attempt counts from here, so that one which a crash cuts off
// counts too.
//
// The hosts of a scheme take turns: each gets one delivery before any gets a second
// one, and the next Claim goes on after the last host of this one.
func (s *Store) Claim(ctx context.Context, now time.Time, c Claim) (claimed []Claimed, err error) {
	if c.Max == 0 || c.Max > MaxClaim {
		c.Max = MaxClaim
	}
	if c.PerHost <= 0 {
		c.PerHost = math.MaxInt32
	}
	err = s.write(ctx, "claiming deliveries", func(tx *sql.Tx) error {
		if err := settleAll(tx, c.Outcomes); err != nil || c.Max < 0 {
			return err
		}
		claimed, err = newClaimant(tx, c, now, s.keys).claim(s.lastHost)
		return err
	})
	if err != nil || len(claimed) == 0 {
		return nil, err
	}
	_ = s.readReports(ctx, claimed) // where it fails, Report says why
	return claimed, nil
}

// claimant is one transaction of Claim.
type claimant struct {
	*sql.Tx
	Claim
	now, until time.Time
	lease      int64
	schemes    []string
	from       string // tables that where is about
	where      string // Filter but for scheme and state, as a condition
	args       []any
}

func newClaimant(tx *sql.Tx, c Claim, now time.Time, k keys) *claimant {
	l := &claimant{Tx: tx, Claim: c, now: now, until: now.Add(c.Lease), lease: 1 + rand.Int64()>>1}
	l.schemes, l.from = []string{c.Filter.Scheme}, "delivery v"
	if c.Filter.Scheme == "" {
		l.schemes = []string{"https", "mailto"}
	}
	if c.Filter.Day != 0 || c.Filter.Domain != "" {
		l.from = "delivery v JOIN report r ON r.id = v.report"
	}
	c.Filter.State, c.Filter.Scheme = "", ""
	l.where, l.args = c.Filter.condition(k)
	return l
}

// claim claims of one scheme after the other, since a host may have deliveries of
// both. lastHost is where the turn of each is.
func (c *claimant) claim(lastHost map[string]string) (claimed []Claimed, err error) {
	for _, scheme := range c.schemes {
		queues, err := c.queues(scheme, lastHost[scheme])
		if err != nil {
			return nil, err
		}
		took, err := c.take(takeTurns(queues, c.Max-len(claimed)))
		if err != nil {
			return nil, err
		}
		if len(took) > 0 {
			lastHost[scheme] = took[len(took)-1].Host
		}
		claimed = append(claimed, took...)
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

// queues is what may be claimed of each host, for Max hosts at most, beginning
// after one and going round.
func (c *claimant) queues(scheme, after string) ([][]int64, error) {
	queues, err := c.queuesBetween(nil, scheme, after, maxHost)
	if err != nil || after == "" {
		return queues, err
	}
	return c.queuesBetween(queues, scheme, "", after)
}

// maxHost sorts after every host.
const maxHost = "\x7f"

// queuesBetween adds the queues of the hosts after one up to another. It steps
// from host to host in the index, so that a host with 10,000 deliveries costs what
// one with a single delivery does.
func (c *claimant) queuesBetween(queues [][]int64, scheme, after, last string) ([][]int64, error) {
	args := []any{scheme, after, last, scheme, last, c.now.Unix(), c.PerHost, scheme, c.now.Unix()}
	rows, err := c.Query(`WITH RECURSIVE
		step (host) AS (
			SELECT min(host) FROM delivery WHERE state = 0 AND scheme = +? AND host > +? AND host <= +?
			UNION ALL
			SELECT (SELECT min(host) FROM delivery WHERE state = 0 AND scheme = +? AND host > step.host AND host <= +?)
			FROM step WHERE host IS NOT NULL),
		busy (host, leased) AS (
			SELECT host, (SELECT count(*) FROM delivery l
				WHERE l.state = 0 AND l.lease <> 0 AND l.host = step.host AND l.next > +?)
			FROM step WHERE host IS NOT NULL)
		SELECT leased, CASE WHEN leased < +? THEN (SELECT group_concat(id, ' ' ORDER BY next) FROM (
			SELECT v.id, v.next FROM `+c.from+`
			WHERE v.state = 0 AND v.scheme = +? AND v.host = busy.host AND v.next <= +?`+c.where+`
			ORDER BY v.next LIMIT +?)) END
		FROM busy`, append(append(args, c.args...), min(c.PerHost, c.Max))...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for len(queues) < c.Max && rows.Next() {
		var leased int
		var due sql.NullString
		if err := rows.Scan(&leased, &due); err != nil {
			return nil, err
		}
		if !due.Valid {
			continue
		}
		ids, err := parseIDs(due.String)
		if err != nil {
			return nil, err
		}
		queues = append(queues, ids[:min(len(ids), c.PerHost-leased)])
	}
	return queues, rows.Err()
}

func parseIDs(list string) (ids []int64, err error) {
	for s := range strings.FieldsSeq(list) {
		id, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// take leases deliveries, and gives them in the same order. The lease is rounded up
// to a whole second, or a short one would have ended already.
func (c *claimant) take(ids []int64) ([]Claimed, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(`UPDATE delivery SET lease = ?, next = ?, attempts = attempts + 1, first = coalesce(first, ?)
		WHERE id IN (SELECT value FROM json_each(?))`, c.lease, c.until.Add(time.Second-1).Unix(), c.now.Unix(), string(list)); err != nil {
		return nil, err
	}
	rows, err := c.Query(`SELECT `+deliveryColumns+` FROM json_each(?) AS listed CROSS JOIN delivery v ON v.id = listed.value
		CROSS JOIN report r ON r.id = v.report CROSS JOIN domain d ON d.id = r.domain`, string(list))
	claimed, err := collect(rows, err, func(r *sql.Rows) (c Claimed, err error) {
		c.Delivery, err = scanDelivery(r)
		return c, err
	})
	if err == nil && len(claimed) != len(ids) {
		err = ErrNoDelivery
	}
	return claimed, err
}

// readReports reads the reports of deliveries, as far as that goes. It is done
// outside of the transaction of Claim: one that met a bad sector could write nothing
// more.
func (s *Store) readReports(ctx context.Context, claimed []Claimed) error {
	ids := make([]string, len(claimed))
	for i := range claimed {
		ids[i] = claimed[i].ReportID
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	return s.read(ctx, "reading the reports of deliveries", func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT listed.key, `+reportColumns+`, CASE WHEN octet_length(r.gzip) <= +? THEN r.gzip END
			FROM json_each(?) AS listed CROSS JOIN report r ON r.report_id = listed.value
				CROSS JOIN domain d ON d.id = r.domain`, maxClaimedReport, string(list))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var i int
			var r Report
			var date sql.NullInt64
			if err := rows.Scan(append([]any{&i}, r.columns(&date)...)...); err != nil {
				return err
			}
			if r.Date = timeOf(date); r.Gzip != nil {
				claimed[i].Report = &r
			}
		}
		return rows.Err()
	})
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
	return s.write(ctx, "storing the outcomes of attempts", func(tx *sql.Tx) error { return settleAll(tx, outcomes) })
}

func settleAll(tx *sql.Tx, outcomes []Outcome) error {
	for _, o := range outcomes {
		if err := settle(tx, o); err != nil {
			return err
		}
	}
	return nil
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
	if end == DeliverySent {
		_, err := tx.Exec(`UPDATE delivery SET state = ?, done = ?, error = ?
			WHERE report = (SELECT report FROM delivery WHERE id = ? AND copy = 0) AND state = 0 AND next IS NULL`,
			DeliverySuppressed, at.Unix(), reasonInTurn, id)
		return err
	}
	_, err := tx.Exec(`UPDATE delivery SET next = ?1 WHERE id = (
		SELECT min(id) FROM delivery
		WHERE report = (SELECT report FROM delivery WHERE id = ?2 AND copy = 0) AND state = 0 AND next IS NULL)
		AND NOT EXISTS (SELECT 1 FROM delivery
			WHERE report = (SELECT report FROM delivery WHERE id = ?2) AND state = 0 AND next IS NOT NULL AND copy = 0)`, at.Unix(), id)
	return err
}
