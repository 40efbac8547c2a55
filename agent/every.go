package agent

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// pause bounds the time between two looks at the store. Commands of other
// processes change it too, and this is how long they may go unnoticed.
const pause = time.Minute

// rest is the least time between two looks. What a step began may be under way
// still, and be due as long.
const rest = time.Second

// step does all the work there is, and says when there will be more: the zero
// time means that it does not know.
type step func(ctx context.Context) (next time.Time, err error)

// every repeats a step until ctx ends: when it said there would be work, when
// kick is signalled, and at the latest after a pause. A step that fails is
// repeated: its work is in the store, and every step may be done again.
func (a *Agent) every(ctx context.Context, name string, do step, kick <-chan struct{}) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for ctx.Err() == nil {
		next, err := do(ctx)
		if err != nil && ctx.Err() == nil {
			a.log.Error("step failed, it will be repeated", "step", name, "error", err)
			next = time.Time{}
		}
		wait := a.pause
		if !next.IsZero() {
			wait = min(max(time.Until(next), rest), a.pause)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-kick:
		case <-timer.C:
		}
	}
}

// signal tells the reader of c that there is work, unless it knows already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// guarded calls f and makes an error of a panic: what one domain sent may not
// stop the reports of the others.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("agent: panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}
