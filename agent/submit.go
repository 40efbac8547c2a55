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
// due was attempted once. seen is told of each attempt; it may be nil. It may
// run beside an agent of another process on the same store.
func (a *Agent) Submit(ctx context.Context, s Submission, seen func(aggregator.Delivery, aggregator.Outcome)) error {
	if a.submitter == nil {
		return ErrNoSubmitter
	}
	now := time.Now()
	closed := a.lastClosed(now)
	if s.Day > closed {
		return fmt.Errorf("agent: %s is not over: it closes at %s", s.Day, schema.Timestamp{Time: a.closing(s.Day)})
	}
	if _, err := a.releaseUpTo(ctx, closed, now); err != nil {
		return err
	}
	// Every domain-day that waits is due before then, whatever its random time.
	if err := a.plan(ctx, now.AddDate(1, 0, 0), s); err != nil {
		return err
	}
	d := &deliverer{agent: a, which: aggregator.DeliveryFilter{Day: s.Day, Domain: s.Domain}, seen: seen}
	return d.run(ctx)
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
// made with its destinations. Nothing is sent and the store stays as it is.
func (a *Agent) DryRun(ctx context.Context, s Submission, made func(submitter.Parcel, []schema.RUA) error) error {
	if a.submitter == nil {
		return ErrNoSubmitter
	}
	closed, last := a.lastClosed(time.Now()), aggregator.Pending{}
	return a.store.Pending(ctx, aggregator.PendingFilter{Day: s.Day, Domain: s.Domain}, func(p aggregator.Pending) error {
		same := p.Day == last.Day && p.Domain == last.Domain && p.Part == last.Part // one more policy of the same
		last = p
		if same || p.Day > closed || p.State != aggregator.StateOpen && p.State != aggregator.StateLate {
			return nil
		}
		d, err := a.store.DomainDayOf(ctx, p.Day, p.Domain)
		if err != nil {
			return err
		}
		plan, err := a.decide(ctx, d)
		if err != nil || plan.Report == nil {
			return err
		}
		return made(parcel(*plan.Report), plan.RUAs)
	})
}
