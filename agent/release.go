package agent

import (
	"context"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// closing is when day d closes: its end and the grace for late sessions.
func (a *Agent) closing(d schema.Day) time.Time {
	return (d + 1).Start().Add(a.o.Grace)
}

// releasing is when day d is to be submitted: at the first run of the schedule
// after the day's end, but not before it closes. It follows from the schedule
// alone, so that a run that the agent slept through is made up for at start.
func (a *Agent) releasing(d schema.Day) time.Time {
	run := a.schedule.Next((d + 1).Start().Add(-time.Second))
	if close := a.closing(d); run.Before(close) {
		return close
	}
	return run
}

// lastReleasable is the newest day that is to be submitted at now or before.
func (a *Agent) lastReleasable(now time.Time) schema.Day {
	d := schema.DayOf(now) - 1
	// A schedule may skip days, months even; no day that is too old is looked for.
	for limit := d - schema.Day(a.o.MaxAge/(24*time.Hour)) - 1; d > limit; d-- {
		if !a.releasing(d).After(now) {
			return d
		}
	}
	return d
}

// lastClosed is the newest day that is closed at now.
func (a *Agent) lastClosed(now time.Time) schema.Day {
	d := schema.DayOf(now) - 1
	if a.closing(d).After(now) {
		return d - 1
	}
	return d
}

// releaser is the step that closes days and lets their domains come due, each at
// its own random time (RFC 8460, section 4.1). It acts at start, to catch up,
// and at each run of the schedule.
func (a *Agent) releaser() step {
	var next time.Time
	return func(ctx context.Context) (time.Time, error) {
		now := time.Now()
		if now.Before(next) {
			return next, nil
		}
		day := a.lastReleasable(now)
		if err := a.releaseUpTo(ctx, day, now, now); err != nil {
			return time.Time{}, err
		}
		next = a.schedule.Next(now)
		if r := a.releasing(day + 1); r.Before(next) {
			next = r // a run inside the grace waits for its end
		}
		return next, nil
	}
}

// pruning is the time between two prunes.
const pruning = 24 * time.Hour

// pruner is the step that deletes what is no longer kept.
func (a *Agent) pruner() step {
	var next time.Time
	return func(ctx context.Context) (time.Time, error) {
		now := time.Now()
		if a.o.Keep == 0 || now.Before(next) {
			return next, nil
		}
		if err := a.store.Prune(ctx, schema.DayOf(now.Add(-a.o.Keep))); err != nil {
			return time.Time{}, err
		}
		next = now.Add(pruning)
		return next, nil
	}
}

// oldest is when a day must have ended at the earliest to be sent at now.
func (a *Agent) oldest(ctx context.Context, now time.Time) (time.Time, error) {
	since, err := a.store.SubmissionSince(ctx, now)
	if oldest := now.Add(-a.o.MaxAge); since.Before(oldest) {
		return oldest, err
	}
	return since, err
}

// releaseUpTo closes day and all before it. Their domains come due from a time
// on.
func (a *Agent) releaseUpTo(ctx context.Context, day schema.Day, now, due time.Time) error {
	oldest, err := a.oldest(ctx, now)
	if err != nil {
		return err
	}
	n, err := a.store.Release(ctx, day+1, oldest, due)
	if err != nil {
		return err
	}
	if n > 0 {
		a.log.Info("day released", "day", day, "domains", n)
		signal(a.released)
	}
	return nil
}
