package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

const (
	// httpsSlots and mailSlots bound how many attempts are under way at once.
	// Each kind has its own: a relay that hangs holds up no upload, and
	// destinations that hang hold up no mail.
	httpsSlots = 256
	mailSlots  = 32

	// lease is how long a claimed delivery belongs to its claimant. It is longer
	// than an attempt can take, so that no other process starts a second one.
	lease = submitter.AttemptTimeout + 5*time.Minute

	// settling is how long results wait for others to share a transaction. The
	// next delivery to their hosts waits as long.
	settling = 10 * time.Millisecond
)

// delivery attempts the deliveries that come due, in a lane for each kind of
// destination.
type delivery []*deliverer

// newDelivery makes the lanes for the deliveries that which selects; none for a
// dry run, which sends nothing of what waits either. seen is told of each outcome
// before it is stored; it may be nil.
func (a *Agent) newDelivery(which aggregator.DeliveryFilter, seen func(aggregator.Delivery, aggregator.Outcome)) delivery {
	if a.o.DryRun {
		return nil
	}
	var mu sync.Mutex
	told := func(d aggregator.Delivery, o aggregator.Outcome) {
		if seen != nil {
			mu.Lock()
			defer mu.Unlock()
			seen(d, o)
		}
	}
	lane := func(scheme string, slots int, relay *relay) *deliverer {
		which.Scheme = scheme
		return &deliverer{
			agent: a, which: which, slots: slots, relay: relay, seen: told,
			wake: make(chan struct{}, 1), results: make(chan result, slots),
		}
	}
	return delivery{lane("https", httpsSlots, nil), lane("mailto", mailSlots, a.relay)}
}

// wake tells of the deliveries of a plan.
func (d delivery) wake(p *aggregator.Plan) {
	for _, lane := range d {
		takes := func(rua schema.RUA) bool { return rua.Scheme() == lane.which.Scheme }
		if slices.ContainsFunc(p.RUAs, takes) || takes(p.Copy) {
			signal(lane.wake)
		}
	}
}

// run attempts what is due until ctx ends, or, once over is closed, until nothing
// is due. A nil over never is.
func (d delivery) run(ctx context.Context, over <-chan struct{}) error {
	var wg sync.WaitGroup
	var errs errorList
	for _, lane := range d {
		wg.Go(func() { errs.add(lane.run(ctx, over)) })
	}
	wg.Wait()
	return errs.join()
}

// deliverer is one lane. One goroutine owns it.
type deliverer struct {
	agent *Agent
	which aggregator.DeliveryFilter
	slots int
	relay *relay // nil: each destination is reached by itself
	seen  func(aggregator.Delivery, aggregator.Outcome)
	wake  chan struct{}

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
	began    time.Time
	probe    bool // it was to try the relay
}

// run is delivery.run of one lane. When ctx ends, attempts under way are given
// time to finish, because one that is cut off may have been accepted.
func (d *deliverer) run(ctx context.Context, over <-chan struct{}) error {
	attempts, stop := lingering(ctx, shutdown)
	defer stop()
	once, ended, timer := over != nil, ctx.Done(), time.NewTimer(pause)
	defer timer.Stop()
	for turn, last := true, false; ; {
		if turn {
			// Storing outcomes comes first: it frees the places of their hosts.
			wait, err := d.turn(ctx, attempts)
			if err != nil && once {
				return err
			}
			if err != nil && ctx.Err() == nil {
				d.agent.log.Error("delivering, it will be repeated", "error", err)
			}
			timer.Reset(wait)
			if d.busy+len(d.outcomes) == 0 && (last || ctx.Err() != nil) {
				return nil
			}
		}
		turn = true
		select {
		case r := <-d.results:
			d.add(r)
			turn = d.busy == 0 || d.sated && d.busy <= d.slots/2
		case <-d.ripe:
		case <-d.wake:
		case <-timer.C:
		case <-over:
			over, last = nil, true
		case <-ended:
			ended = nil
		}
	}
}

// turn stores outcomes and claims what idle workers can take. It says how long
// nothing more is due.
func (d *deliverer) turn(ctx, attempts context.Context) (time.Duration, error) {
	for len(d.results) > 0 { // they came during the turn before
		d.add(<-d.results)
	}
	if ctx.Err() != nil {
		return d.agent.pause, d.settle()
	}
	ended, busy := len(d.outcomes), d.busy
	for d.sated = true; d.sated; {
		wait, err := d.claim(ctx, attempts)
		if err != nil || wait > 0 {
			return min(max(wait, rest), d.agent.pause), err
		}
	}
	if ended > 0 || d.busy > busy {
		return rest, nil // what comes next is asked for once there is nothing else to do
	}
	next, err := d.agent.store.NextAttempt(ctx, d.which)
	if err != nil || next.IsZero() {
		return d.agent.pause, err
	}
	return min(max(time.Until(next), rest), d.agent.pause), nil
}

// claim stores outcomes, which frees the places of their hosts, and starts an
// attempt for each delivery that idle workers can take. While the relay lets
// nothing through it says for how long.
func (d *deliverer) claim(ctx, attempts context.Context) (wait time.Duration, err error) {
	now := time.Now()
	may := d.relay.admit(now, min(d.slots-d.busy, aggregator.MaxClaim))
	if d.sated = may.max > 0; !d.sated {
		return may.wait, d.settle()
	}
	c := aggregator.Claim{Outcomes: d.outcomes, Max: may.max, PerHost: d.agent.o.PerHost, Lease: lease, Filter: d.which}
	c.Filter.Begun = may.probe // its 24 hours have begun already
	claimed, err := d.agent.store.Claim(ctx, now, c)
	if err == nil && may.probe && len(claimed) == 0 {
		c.Outcomes, c.Filter.Begun = nil, false
		claimed, err = d.agent.store.Claim(ctx, now, c)
	}
	if len(claimed) == 0 {
		d.relay.unused(may.probe)
	}
	if err != nil {
		// What keeps deliveries from being claimed may not keep outcomes.
		return d.agent.pause, errors.Join(err, d.settle())
	}
	d.settled()
	for _, delivery := range claimed {
		go func() {
			err := d.agent.attempt(attempts, delivery)
			d.results <- result{delivery.Delivery, err, now, may.probe}
		}()
	}
	d.busy += len(claimed)
	d.sated = len(claimed) == c.Max
	return 0, nil
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
func (a *Agent) attempt(ctx context.Context, d aggregator.Claimed) error {
	report := d.Report
	if report == nil {
		r, err := a.store.Report(ctx, d.ReportID)
		if err != nil {
			return &submitter.Error{RUA: d.RUA, Temporary: true, Err: fmt.Errorf("reading report %s: %w", d.ReportID, err)}
		}
		report = &r
	}
	return a.submitter.Submit(ctx, parcel(*report), d.RUA, a.store.BounceToken(d.ID, d.RUA))
}

// outcome says what becomes of a delivery after an attempt that ended with err.
func outcome(d aggregator.Delivery, err error, now time.Time) aggregator.Outcome {
	o := aggregator.Outcome{ID: d.ID, Lease: d.Lease, At: now}
	switch {
	case err == nil:
		o.State = aggregator.DeliverySent
		return o
	case !submitter.IsTemporary(err) && !isOurs(err):
		o.State, o.Error = aggregator.DeliveryGaveUp, err.Error()
		if e, ok := errors.AsType[*submitter.Error](err); ok {
			o.NoRecipient = e.NoSuchRecipient && !e.Ours
		}
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

// add notes how an attempt ended, to be stored with others.
func (d *deliverer) add(r result) {
	d.busy--
	d.relay.ended(r.err, r.began, r.probe)
	o := outcome(r.delivery, r.err, time.Now())
	if len(d.outcomes) == 0 {
		d.ripe = time.After(settling)
	}
	d.outcomes = append(d.outcomes, o)
	d.agent.log.Info("delivery attempted", "id", o.ID, "domain", r.delivery.Domain, "day", r.delivery.Day,
		"rua", r.delivery.RUA, "attempt", r.delivery.Attempts, "state", o.State, "error", o.Error)
	d.seen(r.delivery, o)
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
	d.settled()
	return nil
}

// settled notes that the outcomes are stored.
func (d *deliverer) settled() { d.outcomes, d.ripe = d.outcomes[:0], nil }
