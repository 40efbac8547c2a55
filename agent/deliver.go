package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

const (
	// deliverers bounds how many attempts are under way at once.
	deliverers = aggregator.MaxClaim

	// lease is how long a claimed delivery belongs to its claimant. It is longer
	// than an attempt can take, so that no other process starts a second one.
	lease = submitter.AttemptTimeout + 5*time.Minute

	// settling is how long results wait for others to share a transaction. The
	// next delivery to their hosts waits as long.
	settling = 10 * time.Millisecond
)

// deliverer attempts the deliveries that come due. One goroutine owns it.
type deliverer struct {
	agent *Agent
	which aggregator.DeliveryFilter // zero: all

	// wake tells of new deliveries. Nil: the deliverer ends when nothing is due.
	wake <-chan struct{}

	// seen is told of each outcome before it is stored. May be nil.
	seen func(aggregator.Delivery, aggregator.Outcome)

	busy     int  // attempts under way
	sated    bool // the last claim took all that idle workers could
	results  chan result
	outcomes []aggregator.Outcome // not yet stored
	ripe     <-chan time.Time     // when to store them
}

// result is a delivery and how its attempt ended.
type result struct {
	delivery aggregator.Delivery
	err      error
}

// run attempts what is due until ctx ends; attempts under way are then given
// time to finish, because one that is cut off may have been accepted.
func (d *deliverer) run(ctx context.Context) error {
	attempts, stop := lingering(ctx, shutdown)
	defer stop()
	d.results = make(chan result, deliverers)
	ended, timer := ctx.Done(), time.NewTimer(0)
	defer timer.Stop()
	for turn := true; ; {
		if turn {
			// Storing outcomes comes first: it frees the places of their hosts.
			if err := d.settle(); err != nil {
				if d.wake == nil {
					return err
				}
				d.agent.log.Error("storing the outcome of deliveries, it will be repeated", "error", err)
			}
			if ctx.Err() == nil {
				timer.Reset(d.claim(ctx, attempts))
			}
		}
		if d.busy+len(d.outcomes) == 0 && (d.wake == nil || ctx.Err() != nil) {
			return nil
		}
		turn = true
		select {
		case r := <-d.results:
			d.busy--
			d.add(r)
			turn = d.busy == 0 || d.sated && d.busy <= deliverers/2
		case <-d.ripe:
		case <-d.wake:
		case <-timer.C:
		case <-ended:
			ended = nil
		}
	}
}

// claim starts an attempt for each delivery that idle workers can take, and says
// how long nothing more is due.
func (d *deliverer) claim(ctx, attempts context.Context) time.Duration {
	c := aggregator.Claim{Max: deliverers - d.busy, PerHost: d.agent.o.PerHost, Lease: lease, Filter: d.which}
	claimed, err := d.agent.store.Claim(ctx, time.Now(), c)
	if err != nil {
		d.agent.log.Error("claiming deliveries, it will be repeated", "error", err)
		return pause
	}
	for _, delivery := range claimed {
		go func() { d.results <- result{delivery, d.agent.attempt(attempts, delivery)} }()
	}
	d.busy += len(claimed)
	d.sated = len(claimed) == c.Max
	next, err := d.agent.store.NextAttempt(ctx)
	if err != nil || next.IsZero() {
		return pause
	}
	return min(max(time.Until(next), time.Second), pause)
}

// lingering is a context that ends d after ctx.
func lingering(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(d, cancel)
	})
	return out, func() { stop(); cancel() }
}

// attempt tries once to deliver d. The error is the submitter's.
func (a *Agent) attempt(ctx context.Context, d aggregator.Delivery) error {
	r, err := a.store.Report(ctx, d.ReportID)
	if err != nil {
		return &submitter.Error{RUA: d.RUA, Temporary: true, Err: fmt.Errorf("reading report %s: %w", d.ReportID, err)}
	}
	return a.submitter.Submit(ctx, parcel(r), d.RUA)
}

// outcome says what becomes of a delivery after an attempt that ended with err.
func outcome(d aggregator.Delivery, err error, now time.Time) aggregator.Outcome {
	o := aggregator.Outcome{ID: d.ID, Lease: d.Lease, At: now}
	switch {
	case err == nil:
		o.State = aggregator.DeliverySent
		return o
	case !submitter.IsTemporary(err):
		o.State, o.Error = aggregator.DeliveryGaveUp, err.Error()
		return o
	}
	o.Error = err.Error()
	end := d.First.Add(lifetime)
	if !now.Before(end) {
		o.State = aggregator.DeliveryExpired
		return o
	}
	o.State = aggregator.DeliveryPending
	wait := backoff(d.Attempts)
	if e, ok := errors.AsType[*submitter.Error](err); ok {
		wait = max(wait, e.RetryAfter)
	}
	o.Next = now.Add(wait)
	if o.Next.After(end) {
		o.Next = end // one last attempt
	}
	return o
}

// add notes the outcome of an attempt, to be stored with others.
func (d *deliverer) add(r result) {
	o := outcome(r.delivery, r.err, time.Now())
	if len(d.outcomes) == 0 {
		d.ripe = time.After(settling)
	}
	d.outcomes = append(d.outcomes, o)
	d.agent.log.Info("delivery attempted", "id", o.ID, "domain", r.delivery.Domain, "day", r.delivery.Day,
		"rua", r.delivery.RUA, "attempt", r.delivery.Attempts, "state", o.State, "error", o.Error)
	if d.seen != nil {
		d.seen(r.delivery, o)
	}
}

// settle stores the outcomes. It goes on while the agent shuts down: an outcome
// that is lost is a report that is sent twice. After an error they are kept for
// the next call.
func (d *deliverer) settle() error {
	if len(d.outcomes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdown)
	defer cancel()
	if err := d.agent.store.Settle(ctx, d.outcomes); err != nil {
		d.ripe = time.After(time.Second)
		return fmt.Errorf("agent: storing the outcome of %d deliveries: %w", len(d.outcomes), err)
	}
	d.outcomes, d.ripe = d.outcomes[:0], nil
	return nil
}
