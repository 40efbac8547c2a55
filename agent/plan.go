package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

const (
	// planners bounds how many domains are planned at once. Each may wait for
	// the DNS; how many questions are asked at once is the resolver's setting.
	planners = 32

	// patience is how long the look-up of a record is retried before the record
	// that was seen last stands in for it.
	patience = 6 * time.Hour

	// freshness is how old the record that stands in may be.
	freshness = 48 * time.Hour

	// planGroup bounds how many plans share a transaction.
	planGroup = 256

	// planDeadline bounds the look-up and the making of one report.
	planDeadline = time.Minute
)

// planDue plans every domain that is due. Domains are isolated: what one of
// them published or sent can postpone only its own report.
func (a *Agent) planDue(ctx context.Context) (time.Time, error) {
	if err := a.plan(ctx, time.Now(), Submission{}); err != nil {
		return time.Time{}, err
	}
	return a.store.NextDue(ctx)
}

// page is how many domain-days are read at once: memory does not grow with the
// number of domains.
const page = 512

// plan plans the domain-days that are due at now and that s selects. An error is
// the store's: it says nothing about a domain.
func (a *Agent) plan(ctx context.Context, now time.Time, s Submission) error {
	work, plans := make(chan aggregator.DomainDay), make(chan aggregator.Plan)
	var deciding, storing sync.WaitGroup
	for range planners {
		deciding.Go(func() {
			for d := range work {
				a.planOne(ctx, d, plans)
			}
		})
	}
	var storeErr error
	storing.Go(func() { storeErr = a.storePlans(ctx, plans) })
	readErr := a.eachDue(ctx, now, func(d aggregator.DomainDay) {
		if s.selects(d.Day, d.Domain) {
			work <- d
		}
	})
	close(work)
	deciding.Wait()
	close(plans)
	storing.Wait()
	return errors.Join(readErr, storeErr)
}

// eachDue calls f for each domain-day that is due at now, until ctx ends.
func (a *Agent) eachDue(ctx context.Context, now time.Time, f func(aggregator.DomainDay)) error {
	var last aggregator.DomainDay
	for {
		due, err := a.store.Due(ctx, now, page, last)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, d := range due {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f(d)
		}
		last = due[len(due)-1]
	}
}

// planOne decides what becomes of one domain-day. What cannot be decided yet is
// put off.
func (a *Agent) planOne(ctx context.Context, d aggregator.DomainDay, plans chan<- aggregator.Plan) {
	var p aggregator.Plan
	err := guarded(func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, planDeadline)
		defer cancel()
		p, err = a.decide(ctx, d)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return // shutting down: the domain-day stays due
	case err != nil && (d.Failing.IsZero() || time.Since(d.Failing) < lifetime):
		a.postpone(ctx, d, err)
		return
	case err != nil:
		a.log.Error("planning given up", "domain", d.Domain, "day", d.Day, "error", err)
		p = aggregator.Plan{DomainDay: d, State: aggregator.StateExpired}
	}
	plans <- p
}

// storePlans stores plans in groups, each as large as it grew while the one
// before was stored.
func (a *Agent) storePlans(ctx context.Context, plans <-chan aggregator.Plan) error {
	var failed error
	for p := range plans {
		group := []aggregator.Plan{p}
		for more := true; more && len(group) < planGroup; {
			select {
			case p, ok := <-plans:
				if more = ok; ok {
					group = append(group, p)
				}
			default:
				more = false
			}
		}
		for i, err := range a.store.PlanAll(ctx, group) {
			p := &group[i]
			switch {
			case errors.Is(err, aggregator.ErrPlanned), errors.Is(err, aggregator.ErrChanged):
				continue // by another process, or there is more to report: it comes up again if it is due
			case err != nil:
				failed = err
				continue
			}
			a.log.Info("planned", "domain", p.DomainDay.Domain, "day", p.DomainDay.Day, "state", p.State, "destinations", len(p.RUAs))
			if p.Report != nil {
				signal(a.planned)
			}
		}
	}
	return failed
}

// postpone puts off a domain-day that could not be decided. The look-up is
// retried until it is too late for a report.
func (a *Agent) postpone(ctx context.Context, d aggregator.DomainDay, cause error) {
	now := time.Now()
	failing := d.Failing
	if failing.IsZero() {
		failing = now
	}
	until := now.Add(backoff(1 + int(now.Sub(failing)/(10*time.Minute))))
	if end := failing.Add(patience); now.Before(end) && end.Before(until) {
		until = end // when another record may stand in
	}
	a.log.Warn("planning postponed", "domain", d.Domain, "day", d.Day, "until", until, "error", cause)
	d.Failing = failing
	if err := a.store.Postpone(ctx, d, until); err != nil {
		a.log.Error("postponing, it will be planned again", "domain", d.Domain, "day", d.Day, "error", err)
	}
}

// decide looks up who wants the report of d and makes it. An error means that
// nothing could be decided yet.
func (a *Agent) decide(ctx context.Context, d aggregator.DomainDay) (aggregator.Plan, error) {
	p := aggregator.Plan{DomainDay: d}
	rec, err := a.record(ctx, d, &p.Record)
	switch {
	case errors.Is(err, errExpired):
		p.State = aggregator.StateExpired
		return p, nil
	case submitter.IsTemporary(err):
		return p, err
	case err != nil:
		a.log.Debug("no report is owed", "domain", d.Domain, "day", d.Day, "reason", err)
		p.State = aggregator.StateNoRecord
		return p, nil
	}
	report, err := a.report(ctx, d)
	if err != nil {
		return p, err
	}
	parcel, err := a.pack(ctx, d, report)
	if err != nil {
		return p, err
	}
	p.State, p.RUAs, p.Report = aggregator.StateReported, rec.RUA, stored(d, parcel)
	return p, nil
}

// errExpired means that no record could be looked up while it still mattered.
var errExpired = errors.New("agent: no TLSRPT record could be looked up in time")

// record is the TLSRPT record that the report of d goes by: the one of now, or,
// once look-ups have failed for long, the newest that was seen. text is set to
// what a look-up found.
func (a *Agent) record(ctx context.Context, d aggregator.DomainDay, text *string) (schema.Record, error) {
	found, rec, err := a.submitter.Discover(ctx, d.Domain)
	if !submitter.IsTemporary(err) {
		*text = found
		return rec, err
	}
	now := time.Now()
	if d.Failing.IsZero() || now.Sub(d.Failing) < patience {
		return schema.Record{}, err
	}
	if d.Record == "" || now.Sub(d.RecordSeen) > freshness {
		return schema.Record{}, fmt.Errorf("%w: %w", errExpired, err)
	}
	return schema.ParseRecord(d.Record)
}

// report is the report about d as it would be sent.
func (a *Agent) report(ctx context.Context, d aggregator.DomainDay) (*schema.Report, error) {
	policies, err := a.store.Aggregate(ctx, d)
	if err != nil {
		return nil, err
	}
	r := &schema.Report{
		OrganizationName: a.o.Organization,
		DateRange:        d.Day.Range(),
		ContactInfo:      a.o.Contact,
		Policies:         policies,
	}
	r.ReportID = schema.ReportID(d.Day, d.Domain, a.store.Token(d.Day, d.Domain, d.Part), r.Submitter())
	return r, nil
}

// pack makes the parcel of a report. A supplement names the report it adds to.
func (a *Agent) pack(ctx context.Context, d aggregator.DomainDay, r *schema.Report) (submitter.Parcel, error) {
	var adds string
	if d.Part > 0 {
		adds = schema.ReportID(d.Day, d.Domain, a.store.Token(d.Day, d.Domain, 0), r.Submitter())
	}
	return submitter.Pack(r, d.Domain, a.o.From, time.Now(), adds)
}

// stored is a parcel as the store keeps it.
func stored(d aggregator.DomainDay, p submitter.Parcel) *aggregator.Report {
	return &aggregator.Report{
		ID: p.ReportID, Day: d.Day, Domain: d.Domain, Part: d.Part,
		Submitter: p.Submitter, From: p.From, FileName: p.FileName,
		MessageID: p.MessageID, Boundary: p.Boundary, Date: p.Date,
		Text: p.Text, Gzip: p.Gzip,
	}
}

// parcel is a stored report as it is sent.
func parcel(r aggregator.Report) submitter.Parcel {
	return submitter.Parcel{
		ReportID: r.ID, Domain: r.Domain, Submitter: r.Submitter, From: r.From, FileName: r.FileName,
		MessageID: r.MessageID, Boundary: r.Boundary, Date: r.Date,
		Text: r.Text, Gzip: r.Gzip,
	}
}
