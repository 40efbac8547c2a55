package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// ErrNoSubmitter means that the agent was made without a Submitter, so nothing
// can be sent.
var ErrNoSubmitter = errors.New("agent: no submitter")

// Submission selects what [Agent.Submit] submits.
type Submission struct {
	Day    schema.Day // 0: every closed day
	Domain string     // "": every domain; else A-labels, lower case, no final dot
}

// selects reports whether s selects the report about a domain and a day.
func (s Submission) selects(day schema.Day, domain string) bool {
	return (s.Day == 0 || s.Day == day) && (s.Domain == "" || s.Domain == domain)
}

// Submit plans and delivers closed days now, without waiting for the schedule
// or for the random time of a domain, and returns when every delivery that is
// due was attempted once. seen is told of each attempt; it may be nil. What was
// recorded before is stored first. It may run beside an agent of another process
// on the same store. The error names domains whose record could not be looked up.
func (a *Agent) Submit(ctx context.Context, s Submission, seen func(aggregator.Delivery, aggregator.Outcome)) error {
	if a.submitter == nil {
		return ErrNoSubmitter
	}
	now := time.Now()
	closed := a.lastClosed(now)
	if s.Day > closed {
		return fmt.Errorf("agent: %s is not over: it closes at %s", s.Day, schema.Timestamp{Time: a.closing(s.Day)})
	}
	if err := errors.Join(a.switchOn(ctx), a.Flush(ctx)); err != nil {
		return err
	}
	// What is not selected keeps to the schedule.
	due := a.releasing(closed)
	if due.Before(now) {
		due = now
	}
	if err := a.releaseUpTo(ctx, closed, now, due); err != nil {
		return err
	}
	d := a.newDelivery(aggregator.DeliveryFilter{Day: s.Day, Domain: s.Domain}, seen)
	p := a.newPlanning(ctx, s, d.wake)
	planned := make(chan struct{})
	var planErr error
	go func() {
		defer close(planned)
		// Every domain-day that waits is due before then, whatever its random time.
		err := p.upTo(ctx, now.AddDate(1, 0, 0))
		planErr = errors.Join(err, p.end())
	}()
	err := d.run(ctx, planned)
	<-planned
	return errors.Join(planErr, err)
}

// Preview is the report about a domain and a day exactly as it would be sent
// now, or as it was sent. A day that is not over is previewed as far as it went.
// The error is aggregator.ErrNoData where nothing was counted, or [ErrOptions]
// without a contact.
func (a *Agent) Preview(ctx context.Context, domain string, day schema.Day) (submitter.Parcel, error) {
	d, err := a.store.DomainDayOf(ctx, day, domain)
	if err != nil {
		return submitter.Parcel{}, err
	}
	if d.State == aggregator.StateReported {
		r, err := a.store.ReportOf(ctx, d)
		if err != nil {
			return submitter.Parcel{}, err
		}
		return parcel(r), nil
	}
	if a.o.Contact == "" {
		return submitter.Parcel{}, fmt.Errorf("%w: no contact", ErrOptions)
	}
	report, err := a.report(ctx, d)
	if err != nil {
		return submitter.Parcel{}, err
	}
	if len(report.Policies) == 0 { // nothing was owed, and only totals were kept
		return submitter.Parcel{}, aggregator.ErrNoData
	}
	return a.pack(ctx, d, report)
}

// DryRun makes the reports that [Agent.Submit] would send, and passes each to
// made with its destinations. Nothing is sent and the store stays as it is. The
// error joins those of single domains; the others are made all the same.
func (a *Agent) DryRun(ctx context.Context, s Submission, made func(submitter.Parcel, []schema.RUA) error) error {
	if a.submitter == nil {
		return ErrNoSubmitter
	}
	now := time.Now()
	closed, last := a.lastClosed(now), aggregator.Pending{}
	var errs []error
	err := a.store.Pending(ctx, aggregator.PendingFilter{Day: s.Day, Domain: s.Domain}, func(p aggregator.Pending) error {
		same := p.Day == last.Day && p.Domain == last.Domain && p.Part == last.Part // one more policy of the same
		last = p
		waits := p.State == aggregator.StateOpen || p.State == aggregator.StateLate
		if same || !waits || p.Day > closed || p.Day.End().Before(now.Add(-a.o.MaxAge)) {
			return nil
		}
		if err := a.dryRunOne(ctx, p.Day, p.Domain, made); err != nil {
			errs = append(errs, fmt.Errorf("%s of %s: %w", p.Domain, p.Day, err))
		}
		return ctx.Err()
	})
	return errors.Join(append(errs, err)...)
}

func (a *Agent) dryRunOne(ctx context.Context, day schema.Day, domain string, made func(submitter.Parcel, []schema.RUA) error) error {
	d, err := a.store.DomainDayOf(ctx, day, domain)
	if err != nil {
		return err
	}
	plan, err := a.decideSafely(ctx, d)
	if err != nil || plan.Report == nil {
		return err
	}
	return made(parcel(*plan.Report), plan.RUAs)
}
