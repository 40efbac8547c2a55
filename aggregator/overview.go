package aggregator

import (
	"cmp"
	"context"
	"database/sql"
	"math"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// overviewRows is how many rows of a key are looked at in one read transaction.
const overviewRows = 20_000

// Overview is what an operator asks first. Every number of it is counted anew.
type Overview struct {
	// Deliveries counts deliveries by state; every state is there.
	Deliveries map[DeliveryState]int64

	// Waiting counts domain-days that are to be planned, by day, and Pending the
	// deliveries that have not ended; of more than 20,000 deliveries, those.
	Waiting, Pending map[schema.Day]int64

	Closed  time.Time // when a day was last closed; the zero time: none was
	Due     time.Time // when the first domain-day that waits comes due; the zero time: none does
	Attempt time.Time // when the first pending delivery may be attempted; the zero time: none may
}

// Overview reads the numbers.
func (s *Store) Overview(ctx context.Context) (o Overview, err error) {
	err = s.read(ctx, "reading the overview", func(tx *sql.Tx) error {
		var closed, due, attempt sql.NullInt64
		if err := tx.QueryRow(`SELECT (SELECT max(closed) FROM day),
			(SELECT min(due) FROM domain_day WHERE `+waiting+` AND due IS NOT NULL),
			(SELECT min(next) FROM (
				SELECT min(next) AS next FROM delivery WHERE state = 0 AND scheme = 'https' AND next IS NOT NULL UNION ALL
				SELECT min(next) FROM delivery WHERE state = 0 AND scheme = 'mailto' AND next IS NOT NULL))`).Scan(&closed, &due, &attempt); err != nil {
			return err
		}
		o.Closed, o.Due, o.Attempt = timeOf(closed), timeOf(due), timeOf(attempt)
		if o.Deliveries, err = deliveryCounts(tx); err != nil {
			return err
		}
		// Left to itself SQLite takes the key, which has the order, and reads every row.
		rows, err := tx.Query(`SELECT day, count(*) FROM domain_day INDEXED BY domain_day_waiting WHERE ` + waiting + ` GROUP BY day`)
		if o.Waiting, err = countsByDay(rows, err); err != nil {
			return err
		}
		rows, err = tx.Query(`SELECT r.day, count(*) FROM (SELECT report FROM delivery WHERE state = 0 LIMIT ?) v
			JOIN report r ON r.id = v.report GROUP BY r.day`, overviewRows)
		o.Pending, err = countsByDay(rows, err)
		return err
	})
	return o, err
}

// deliveryCounts counts in the indexes of what was not sent; the rest was.
func deliveryCounts(tx *sql.Tx) (map[DeliveryState]int64, error) {
	counts := make(map[DeliveryState]int64, len(deliveryStates))
	for _, state := range deliveryStates {
		counts[state] = 0
	}
	var pending, all int64
	if err := tx.QueryRow(`SELECT (SELECT count(*) FROM delivery WHERE state = 0), (SELECT count(*) FROM delivery)`).
		Scan(&pending, &all); err != nil {
		return nil, err
	}
	rows, err := tx.Query(`SELECT state, count(*) FROM delivery WHERE state > 1 GROUP BY state`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	sent := all - pending
	for rows.Next() {
		var state DeliveryState
		var n int64
		if err := rows.Scan(&state, &n); err != nil {
			return nil, err
		}
		counts[state] = n
		sent -= n
	}
	counts[DeliveryPending], counts[DeliverySent] = pending, sent
	return counts, rows.Err()
}

func countsByDay(rows *sql.Rows, err error) (map[schema.Day]int64, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[schema.Day]int64{}
	for rows.Next() {
		var day schema.Day
		var n int64
		if err := rows.Scan(&day, &n); err != nil {
			return nil, err
		}
		counts[day] = n
	}
	return counts, rows.Err()
}

// OpenDays lists the days, newest first, that were counted and are not closed.
func (s *Store) OpenDays(ctx context.Context) (days []schema.Day, err error) {
	err = s.read(ctx, "listing open days", func(tx *sql.Tx) error {
		// As in NewestDay, this steps from day to day.
		rows, err := tx.Query(`WITH RECURSIVE step (day) AS (
			SELECT max(day) FROM tally
			UNION ALL
			SELECT (SELECT max(day) FROM tally WHERE day < step.day) FROM step WHERE day IS NOT NULL)
			SELECT day FROM step WHERE day IS NOT NULL AND NOT EXISTS (SELECT 1 FROM day d WHERE d.day = step.day)
				AND EXISTS (SELECT 1 FROM tally t WHERE t.day = step.day AND t.part >= 0)`)
		days, err = collect(rows, err, scanOne[schema.Day])
		return err
	})
	return days, err
}

// DomainTotals is the sessions of one domain on one day.
type DomainTotals struct {
	Domain string
	State  State // "": nothing was counted on the day
	Totals schema.Summary
}

// OpenDay is what was counted of a day that is not closed.
type OpenDay struct {
	Day     schema.Day
	Domains int64
	Totals  schema.Summary

	failing []openFailure // most failures first
}

// openFailure is a domain that failed on an open day.
type openFailure struct{ domain, failures int64 }

// worstFirst is the order of failing domains.
func worstFirst(a, b openFailure) int {
	return cmp.Or(cmp.Compare(b.failures, a.failures), cmp.Compare(a.domain, b.domain))
}

// maxOpenFailing is how many failing domains of an open day are known.
const maxOpenFailing = 10_000

// CountOpenDay goes through all that was counted on a day that is not closed,
// in short transactions, and so may miss what is recorded meanwhile. It reads
// every row of the day: ask once for many.
func (s *Store) CountOpenDay(ctx context.Context, day schema.Day) (OpenDay, error) {
	o := OpenDay{Day: day}
	for after, done := int64(math.MinInt64), false; !done; {
		err := s.read(ctx, "counting "+day.String(), func(tx *sql.Tx) error {
			var n int64
			var sum schema.Summary
			var last sql.NullInt64
			if err := tx.QueryRow(`SELECT count(*), coalesce(sum(success), 0), coalesce(sum(failure), 0), max(domain) FROM (
					SELECT domain, sum(success) AS success, sum(failure) AS failure FROM tally
					WHERE day = ? AND domain > ? AND part >= 0 GROUP BY domain ORDER BY domain LIMIT ?)`,
				day, after, overviewRows).Scan(&n, &sum.Success, &sum.Failure, &last); err != nil {
				return err
			}
			o.Domains += n
			o.Totals.Success += sum.Success
			o.Totals.Failure += sum.Failure
			done = n < overviewRows
			if sum.Failure == 0 {
				after = last.Int64
				return nil
			}
			rows, err := tx.Query(`SELECT domain, sum(failure) FROM tally
				WHERE day = ? AND domain > ? AND domain <= ? AND part >= 0 AND failure > 0 GROUP BY domain`, day, after, last)
			more, err := collect(rows, err, func(r *sql.Rows) (f openFailure, err error) {
				err = r.Scan(&f.domain, &f.failures)
				return f, err
			})
			o.failing = append(o.failing, more...)
			slices.SortFunc(o.failing, worstFirst)
			o.failing = o.failing[:min(len(o.failing), maxOpenFailing)]
			after = last.Int64
			return err
		})
		if err != nil {
			return OpenDay{}, err
		}
	}
	return o, nil
}

// OpenFailing is Failing of an open day, as it was counted.
func (s *Store) OpenFailing(ctx context.Context, o OpenDay, after DomainTotals, limit int) (page []DomainTotals, err error) {
	failing := o.failing
	if after.Domain != "" {
		last := openFailure{s.keys.domain(after.Domain), after.Totals.Failure}
		at, found := slices.BinarySearchFunc(failing, last, worstFirst)
		if failing = failing[at:]; found {
			failing = failing[1:]
		}
	}
	err = s.read(ctx, "reading what failed on "+o.Day.String(), func(tx *sql.Tx) error {
		for _, f := range failing[:min(len(failing), limit)] {
			t := DomainTotals{State: StateOpen}
			t.Totals.Failure = f.failures
			if err := tx.QueryRow(`SELECT name, (SELECT coalesce(sum(success), 0) FROM tally WHERE day = ?1 AND domain = ?2 AND part >= 0)
				FROM domain WHERE id = ?2`, o.Day, f.domain).Scan(&t.Domain, &t.Totals.Success); err != nil {
				return err
			}
			page = append(page, t)
		}
		return nil
	})
	return page, err
}

// Failing is the domains that failed on a closed day, most failures first, at
// most limit of them, after the one given: the last of the page before, or the
// zero DomainTotals.
func (s *Store) Failing(ctx context.Context, day schema.Day, after DomainTotals, limit int) (page []DomainTotals, err error) {
	failures, id := int64(math.MaxInt64), int64(math.MaxInt64)
	if after.Domain != "" {
		failures, id = after.Totals.Failure, s.keys.domain(after.Domain)
	}
	err = s.read(ctx, "listing what failed on "+day.String(), func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT d.name, dd.state, dd.success, dd.failure
			FROM domain_day dd JOIN domain d ON d.id = dd.domain
			WHERE dd.day = ? AND dd.failure > 0 AND (dd.failure, dd.domain) < (?, ?)
			ORDER BY dd.failure DESC, dd.domain DESC LIMIT ?`, day, failures, id, limit)
		page, err = collect(rows, err, func(r *sql.Rows) (t DomainTotals, err error) {
			err = r.Scan(&t.Domain, &t.State, &t.Totals.Success, &t.Totals.Failure)
			return t, err
		})
		return err
	})
	return page, err
}

// TotalsOf is the totals of domains on a day, in their order. A State of ""
// means that nothing was counted.
func (s *Store) TotalsOf(ctx context.Context, day schema.Day, domains []string) (all []DomainTotals, err error) {
	err = s.read(ctx, "reading the totals of domains on "+day.String(), func(tx *sql.Tx) error {
		row, err := tx.Prepare(`SELECT state, success, failure FROM domain_day WHERE day = ?1 AND domain = ?2
			UNION ALL
			SELECT ?3, coalesce(sum(success), 0), coalesce(sum(failure), 0) FROM tally
			WHERE day = ?1 AND domain = ?2 AND part >= 0 HAVING count(*) > 0
			LIMIT 1`)
		if err != nil {
			return err
		}
		for _, domain := range domains {
			t := DomainTotals{Domain: domain}
			err := row.QueryRow(day, s.keys.domain(domain), StateOpen).Scan(&t.State, &t.Totals.Success, &t.Totals.Failure)
			if err != nil && err != sql.ErrNoRows {
				return err
			}
			all = append(all, t)
		}
		return nil
	})
	return all, err
}

// Names calls f with the names of the domains that are known, a page at a time
// in no order that means anything, until f returns an error, which it returns.
// No transaction is open while f runs.
func (s *Store) Names(ctx context.Context, f func([]string) error) error {
	for after, done := int64(-1), false; !done; {
		var page []string
		err := s.read(ctx, "listing domains", func(tx *sql.Tx) error {
			rows, err := tx.Query(`SELECT id, name FROM domain WHERE id > ? ORDER BY id LIMIT ?`, after, overviewRows)
			page, err = collect(rows, err, func(r *sql.Rows) (name string, err error) {
				err = r.Scan(&after, &name)
				return name, err
			})
			return err
		})
		if err != nil {
			return err
		}
		if err := f(page); err != nil {
			return err
		}
		done = len(page) < overviewRows
	}
	return nil
}

// History is the totals of a domain from first to last, day by day in order.
// Days on which nothing was counted are not in it.
func (s *Store) History(ctx context.Context, domain string, first, last schema.Day) (days []DomainDay, err error) {
	id := s.keys.domain(domain)
	err = s.read(ctx, "reading the days of "+domain, func(tx *sql.Tx) error {
		// CROSS JOIN: day by day, one row of the key each.
		rows, err := tx.Query(`SELECT `+domainDayColumns+`
			FROM day CROSS JOIN domain_day dd ON dd.day = day.day AND dd.domain = ?1 CROSS JOIN domain d ON d.id = dd.domain
			WHERE day.day BETWEEN ?2 AND ?3`, id, first, last)
		days, err = collect(rows, err, func(r *sql.Rows) (DomainDay, error) { return scanDomainDay(r) })
		if err != nil {
			return err
		}
		for day := first; day <= last; day++ {
			if slices.ContainsFunc(days, func(d DomainDay) bool { return d.Day == day }) {
				continue
			}
			total, err := openTotal(tx, day, id)
			if err != nil {
				return err
			}
			if total != (schema.Summary{}) {
				days = append(days, DomainDay{Day: day, Domain: domain, State: StateOpen, Totals: total, id: id, version: -1})
			}
		}
		return nil
	})
	slices.SortFunc(days, func(a, b DomainDay) int { return cmp.Compare(a.Day, b.Day) })
	return days, err
}

// Counted is what is kept of a domain-day in full: its policies, and the failure
// details of all of them, each with its number of sessions. Both are empty where
// only totals stay. Supplements are included.
func (s *Store) Counted(ctx context.Context, domain string, day schema.Day) (policies []schema.PolicyResult, err error) {
	id := s.keys.domain(domain)
	err = s.read(ctx, "reading "+domain+" of "+day.String(), func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT DISTINCT part FROM tally WHERE day = ? AND domain = ? AND part >= 0`, day, id)
		parts, err := collect(rows, err, scanOne[int])
		for _, part := range parts {
			more, err := aggregate(tx, day, id, part)
			if err != nil {
				return err
			}
			policies = append(policies, more...)
		}
		return err
	})
	return policies, err
}

// KnownDomain is the name and the TLSRPT record of a domain, and when that was
// seen. The error is [ErrNoData] if the domain is not known.
func (s *Store) KnownDomain(ctx context.Context, domain string) (record string, seen time.Time, err error) {
	err = s.read(ctx, "reading the record of "+domain, func(tx *sql.Tx) error {
		var at int64
		err := tx.QueryRow(`SELECT record, record_seen FROM domain WHERE id = ?`, s.keys.domain(domain)).Scan(&record, &at)
		if err == sql.ErrNoRows {
			return ErrNoData
		}
		record, seen = unpack(record), timeOf(sql.NullInt64{Int64: at, Valid: at != 0})
		return err
	})
	return record, seen, err
}

// DeliveryPage is the deliveries that the filter picks with an id below before,
// newest first, at most limit of them; a before of 0 begins with the newest. next
// is the before of the page that follows, 0 at the end. A page may have fewer rows
// than limit, or none, although another one follows: what is looked at in one
// call is bounded.
func (s *Store) DeliveryPage(ctx context.Context, filter DeliveryFilter, before int64, limit int) (page []Delivery, next int64, err error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	where, args := filter.condition(s.keys)
	least := int64(0)
	err = s.read(ctx, "listing deliveries", func(tx *sql.Tx) error {
		switch {
		case filter.State != "" && filter.State != DeliveryPending && filter.State != DeliverySent:
			where += ` AND v.state > 1` // so that the index is used
		case filter.Domain == "" && filter.Day == 0:
			var newest int64
			if err := tx.QueryRow(`SELECT coalesce(max(id), 0) FROM delivery WHERE id < ?`, before).Scan(&newest); err != nil {
				return err
			}
			least = newest - overviewRows
		}
		rows, err := tx.Query(`SELECT `+deliveryColumns+` FROM `+deliveryTables+`
			WHERE v.id < ? AND v.id > ?`+where+` ORDER BY v.id DESC LIMIT ?`,
			append(append([]any{before, least}, args...), limit)...)
		page, err = collect(rows, err, scanDelivery)
		return err
	})
	switch {
	case len(page) == limit:
		next = page[limit-1].ID
	case least > 0:
		next = least + 1
	}
	return page, next, err
}

// CheckWritable stores something small, and returns once it is on the disk.
func (s *Store) CheckWritable(ctx context.Context) error {
	return s.write(ctx, "trying to write", func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO meta (name, value) VALUES ('written', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1`, time.Now().Unix())
		return err
	})
}
