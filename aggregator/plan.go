package aggregator

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Report is one report as it is stored: everything that is the same in each
// attempt to deliver it.
type Report struct {
	ID        string // report-id
	Day       schema.Day
	Domain    string // that the report is about
	Part      int    // 0: the report of the day, n: its n-th supplement
	Submitter string
	FileName  string // "submitter!domain!begin!end!id.json.gz"
	From      string // addr-spec
	MessageID string // as it was given
	Boundary  string // of the message's parts
	Date      time.Time
	Text      string // the part for people
	Gzip      []byte // the JSON, compressed
}

// Plan says how a domain-day ends.
type Plan struct {
	// DomainDay is as [Store.Due] or [Store.DomainDayOf] gave it.
	DomainDay DomainDay

	// State is StateReported, which goes with a Report and at least one rua, or
	// the reason why there is no report.
	State State

	// Record is the text of the TLSRPT record that was looked up, or "".
	Record string

	// Report is what is sent. Its Day, Domain and Part are those of DomainDay.
	Report *Report

	// RUAs is where it is sent, one delivery each.
	RUAs []schema.RUA

	// Withheld is where it is not sent although the record asks for it. Each
	// becomes a delivery that is suppressed from the start.
	Withheld []Withheld

	// Copy is a copy for the operator, "" is none: a delivery that is attempted
	// whatever becomes of the others, and that never counts as the report's.
	Copy schema.RUA

	// InTurn says that one rua is enough: each but the first is tried only when
	// the one before it ended without being sent.
	InTurn bool

	// First is when the first attempt may be made. The zero time: at once.
	First time.Time
}

// Withheld is a rua that a report is not sent to, and why.
type Withheld struct {
	RUA    schema.RUA
	Reason string
}

// check reports whether p is complete.
func (p *Plan) check() error {
	switch {
	case !p.State.Ended():
		return fmt.Errorf("aggregator: a plan cannot end in state %q", string(p.State))
	case p.State == StateReported && (p.Report == nil || len(p.RUAs)+len(p.Withheld) == 0):
		return errors.New("aggregator: a plan to report needs a report and a rua")
	case p.State != StateReported && (p.Report != nil || len(p.RUAs)+len(p.Withheld) > 0 || p.Copy != ""):
		return fmt.Errorf("aggregator: a plan that ends in state %q has no report", string(p.State))
	}
	return nil
}

// Plan ends a domain-day, all or nothing: its state, its report, the deliveries.
// Of a domain-day that nothing is owed for only totals stay, see the package
// comment; what was not sent for its age stays as it is, for looking.
//
// Nothing happens if another process planned it first ([ErrPlanned]), if
// sessions were recorded for it since DomainDay was read ([ErrChanged]: read it
// again), or if its day is not closed ([ErrNotClosed]).
func (s *Store) Plan(ctx context.Context, p Plan) error {
	return s.PlanAll(ctx, []Plan{p})[0]
}

// PlanAll is Plan of many in one transaction, which costs hardly more than one.
// What fails of one leaves the others as they are. The errors are in the order
// of plans; nil is success.
func (s *Store) PlanAll(ctx context.Context, plans []Plan) []error {
	errs := make([]error, len(plans))
	for {
		culprit, err := s.planTogether(ctx, plans, errs)
		switch {
		case err == nil:
			return errs
		case culprit >= 0:
			errs[culprit] = err // and the others once more
		default:
			for i := range errs {
				errs[i] = cmp.Or(errs[i], err)
			}
			return errs
		}
	}
}

// planTogether plans in one transaction those that errs has nothing of, and says
// there why nothing became of one. The error undoes all of it; culprit is the plan
// that is to blame, or -1.
func (s *Store) planTogether(ctx context.Context, plans []Plan, errs []error) (culprit int, err error) {
	culprit = -1
	err = s.write(ctx, "planning", func(tx *sql.Tx) error {
		for i := range plans {
			if errs[i] == nil {
				errs[i] = plans[i].check()
			}
			if errs[i] != nil {
				continue
			}
			err := s.plan(tx, &plans[i])
			if f, ok := errors.AsType[fault](err); ok {
				errs[i] = f
			} else if err != nil {
				culprit = i
				return err
			}
		}
		return nil
	})
	return culprit, err
}

// plan ends the domain-day of p. Where the error is a fault, nothing was changed.
func (s *Store) plan(tx *sql.Tx, p *Plan) error {
	dd := p.DomainDay
	id := s.keys.domain(dd.Domain)
	if err := endDomainDay(tx, dd, id, p.State); err != nil {
		return err
	}
	now := time.Now()
	if p.Record != "" {
		if err := storeRecord(tx, id, p.Record, now.Unix()); err != nil {
			return err
		}
	}
	switch {
	case !p.State.keepsTallies():
		return dropTallies(tx, dd.Day, id, dd.Part)
	case p.State == StateReported:
		return addReport(tx, p, id, now)
	}
	return nil
}

// endDomainDay is the compare-and-swap of Plan.
func endDomainDay(tx *sql.Tx, dd DomainDay, id int64, end State) error {
	n, err := affected(tx.Exec(`UPDATE domain_day SET state = ?, due = NULL, failing = NULL
		WHERE day = ? AND domain = ? AND part = ? AND version = ? AND `+waiting, end, dd.Day, id, dd.Part, dd.version))
	if err != nil || n > 0 {
		return err
	}
	now, err := domainDayOf(tx, dd.Day, id)
	switch {
	case err != nil:
		return err
	case now.version < 0:
		return ErrNotClosed
	case now.Part != dd.Part || now.State.Ended():
		return ErrPlanned
	}
	return ErrChanged
}

// addReport stores the report of p and its deliveries.
func addReport(tx *sql.Tx, p *Plan, domain int64, now time.Time) error {
	r := p.Report
	result, err := tx.Exec(`INSERT INTO report
		(domain, day, part, date, report_id, submitter, file_name, sender, message_id, boundary, text, gzip)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		domain, p.DomainDay.Day, p.DomainDay.Part, r.Date.Unix(), r.ID, r.Submitter, r.FileName, r.From,
		r.MessageID, r.Boundary, r.Text, r.Gzip)
	if err != nil {
		return err
	}
	report, err := result.LastInsertId()
	if err != nil {
		return err
	}
	next := p.First
	if next.IsZero() {
		next = now
	}
	return addDeliveries(tx, p, report, next, now)
}

// addDeliveries stores the deliveries of p, the first of which may be attempted
// at next.
func addDeliveries(tx *sql.Tx, p *Plan, report int64, next, now time.Time) error {
	add := func(rua schema.RUA, state DeliveryState, next, done time.Time, isCopy bool, reason string) error {
		_, err := tx.Exec(`INSERT INTO delivery (report, host, rua, state, created, next, done, copy, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			report, rua.Host(), rua, state, now.Unix(), columnOf(next), columnOf(done), isCopy, reason)
		return err
	}
	for i, rua := range p.RUAs {
		turn := next
		if i > 0 && p.InTurn {
			turn = time.Time{}
		}
		if err := add(rua, DeliveryPending, turn, time.Time{}, false, ""); err != nil {
			return err
		}
	}
	for _, w := range p.Withheld {
		if err := add(w.RUA, DeliverySuppressed, time.Time{}, now, false, w.Reason); err != nil {
			return err
		}
	}
	if p.Copy == "" {
		return nil
	}
	return add(p.Copy, DeliveryPending, next, time.Time{}, true, "")
}

// reportColumns are followed by that of the report itself.
const reportColumns = `r.report_id, r.day, d.name, r.part, r.submitter, r.file_name, r.sender,
	r.message_id, r.boundary, r.date, r.text`

// columns is where reportColumns and the one after them are read to. Date is the
// caller's to set.
func (r *Report) columns(date *sql.NullInt64) []any {
	return []any{&r.ID, &r.Day, &r.Domain, &r.Part, &r.Submitter, &r.FileName, &r.From,
		&r.MessageID, &r.Boundary, date, &r.Text, &r.Gzip}
}

// Report is the report with this report-id. The error is [ErrNoReport] if there
// is none.
func (s *Store) Report(ctx context.Context, reportID string) (r Report, err error) {
	err = s.read(ctx, "reading report "+reportID, func(tx *sql.Tx) error {
		var date sql.NullInt64
		err := tx.QueryRow(`SELECT `+reportColumns+`, r.gzip
			FROM report r JOIN domain d ON d.id = r.domain WHERE r.report_id = +?`, reportID).Scan(r.columns(&date)...)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoReport
		}
		r.Date = timeOf(date)
		return err
	})
	return r, err
}
