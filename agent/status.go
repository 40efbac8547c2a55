package agent

import "time"

// NextRun is when days are closed and submitted next, after now.
func (a *Agent) NextRun(now time.Time) time.Time {
	next := a.schedule.Next(now)
	// A run inside the grace waits for its end.
	if r := a.releasing(a.lastReleasable(now) + 1); r.After(now) && r.Before(next) {
		return r
	}
	return next
}
