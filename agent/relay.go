package agent

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

const (
	firstRelayPause = time.Minute
	lastRelayPause  = 30 * time.Minute
)

// relay is what is known of the way that all mail takes. Once it refuses for a
// reason that is ours (relaying denied, a wrong password, nobody answers), every
// delivery would fail alike: so mail rests, and what waits is not attempted, so
// that its 24 hours do not begin. After the pause one delivery is tried, one that
// was tried before if there is any. While that fails too the pauses grow.
//
// A refusal of one message alone, say for its size, costs the others one pause:
// the delivery that is tried next is another one.
type relay struct {
	log *slog.Logger

	mu        sync.Mutex
	pauses    int       // in a row; 0: mail is sent
	until     time.Time // end of the present one
	probing   bool      // the one delivery is under way
	recovered time.Time // when mail was last found to be sent again
	faults    int64     // attempts that met a fault of ours
	reason    string    // of the newest
}

// admission says how many deliveries may be claimed, and what it means to them.
type admission struct {
	max   int
	probe bool          // the one of max is to try the relay
	wait  time.Duration // where max is 0: for how long, at most
}

// admit is how many of most deliveries may be claimed at now. Who is admitted to
// probe has to say how it ended, by ended or by unused. A nil relay admits all.
func (r *relay) admit(now time.Time, most int) admission {
	if r == nil {
		return admission{max: most}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.pauses == 0 || most == 0:
		return admission{max: most}
	case now.Before(r.until):
		return admission{wait: r.until.Sub(now)}
	case r.probing:
		return admission{wait: lastRelayPause} // its end wakes the lane
	}
	r.probing = true
	return admission{max: 1, probe: true}
}

// unused says that there was nothing to probe with.
func (r *relay) unused(probe bool) {
	if probe {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.probing = false
	}
}

// ended takes note of how an attempt ended that began at a time.
func (r *relay) ended(err error, began time.Time, probe bool) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	fault := isOurs(err)
	if fault {
		r.faults++
		r.reason = err.Error()
	}
	switch {
	case probe && fault, fault && r.pauses == 0 && !began.Before(r.recovered):
		// What was under way when the pause began says nothing new.
		r.probing = false
		r.pauses++
		r.until = now.Add(relayPause(r.pauses))
		r.log.Error("the relay refuses, all mail waits", "until", r.until, "error", r.reason)
	case probe:
		r.probing, r.pauses, r.recovered = false, 0, now
		r.log.Info("the relay takes mail again")
	}
}

// relayPause is how long mail rests the n-th time in a row: doubled each time, a
// fifth longer or shorter.
func relayPause(n int) time.Duration {
	d := lastRelayPause
	if n < 6 {
		d = min(firstRelayPause<<(n-1), lastRelayPause)
	}
	return d + time.Duration((rand.Float64()-0.5)*0.4*float64(d))
}

// isOurs reports whether err is a fault of our own settings or relay.
func isOurs(err error) bool {
	e, ok := errors.AsType[*submitter.Error](err)
	return ok && e.Ours
}

// RelayStats is how mail fares.
type RelayStats struct {
	// Paused says that the relay refuses and all mail waits, until Until or for as
	// long as the delivery that tries it is under way.
	Paused bool
	Until  time.Time

	// Faults counts attempts that failed by a fault of our own, and Reason is the
	// newest.
	Faults int64
	Reason string
}

func (r *relay) stats() RelayStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := RelayStats{Paused: r.pauses > 0, Faults: r.faults, Reason: r.reason}
	if s.Paused {
		s.Until = r.until
	}
	return s
}

// Stats is numbers for an operator, since the agent was made.
type Stats struct {
	Relay RelayStats

	// Unarchived counts reports that could not be written to Options.Archive.
	Unarchived int64
}

// Stats reads the numbers.
func (a *Agent) Stats() Stats {
	return Stats{Relay: a.relay.stats(), Unarchived: a.archive.failures()}
}
