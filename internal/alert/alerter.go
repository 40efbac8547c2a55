package alert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const (
	interval = 15 * time.Second // between two looks at the window
	maxBatch = 100              // domains of one notice; the others follow in the next
)

// Options say when an operator is told, and how.
type Options struct {
	Window *Window

	Threshold   float64       // share of failures from which a domain is failing, above 0 to 1
	MinSessions int64         // that the window must have of a domain
	Pause       time.Duration // before the same domain is told again

	// Hooks carry notices. Without any the domains are listed all the same.
	Hooks []Hook

	Logger *slog.Logger // nil discards
}

// Alert is one domain in a notice.
type Alert struct {
	Domain   string                      `json:"domain"`
	Status   Status                      `json:"status"`
	Since    schema.Timestamp            `json:"since"`
	Sessions int64                       `json:"sessions"`
	Failures int64                       `json:"failures"`
	Rate     float64                     `json:"rate"`
	Results  map[schema.ResultType]int64 `json:"results"`
}

// Status says what happened to a domain.
type Status string

const (
	// Failing: its rate is at the threshold or above.
	Failing Status = "failing"
	// Recovered: it was failing, and is below or has too few sessions to tell.
	Recovered Status = "recovered"
)

// Notice is what hooks get, as JSON.
type Notice struct {
	Version int              `json:"version"` // 1
	Time    schema.Timestamp `json:"time"`
	Window  string           `json:"window"` // such as "1h" or "1h30m"
	Alerts  []Alert          `json:"alerts"`
}

// Hook carries a notice to the operator.
type Hook interface {
	Notify(ctx context.Context, n Notice) error
}

// Alerter is made by New.
type Alerter struct {
	o Options

	mu     sync.Mutex
	state  map[string]*told
	failed int64 // notices that a hook did not take
	sent   int64
}

// told is a domain that is failing.
type told struct {
	since, at time.Time // at: of the newest notice; the zero time: none yet
	rate      Rate
}

// New makes an Alerter.
func New(o Options) *Alerter {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Alerter{o: o, state: map[string]*told{}}
}

// Run looks and tells until ctx ends.
func (a *Alerter) Run(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.notify(ctx, a.look(time.Now()))
		}
	}
}

// look finds out what there is to tell.
func (a *Alerter) look(now time.Time) (alerts []Alert) {
	failing := map[string]bool{}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.o.Window.Rates(now, a.o.MinSessions) {
		if r.Share() < a.o.Threshold {
			continue
		}
		failing[r.Domain] = true
		t := a.state[r.Domain]
		if t == nil {
			t = &told{since: now}
			a.state[r.Domain] = t
		}
		t.rate = r
		if (t.at.IsZero() || now.Sub(t.at) >= a.o.Pause) && len(alerts) < maxBatch {
			t.at = now
			alerts = append(alerts, alertOf(r, Failing, t.since))
		}
	}
	for domain, t := range a.state {
		// A domain at the edge must not be told of each time that it crosses.
		if failing[domain] || now.Sub(t.at) < a.o.Pause || len(alerts) == maxBatch {
			continue
		}
		delete(a.state, domain)
		if !t.at.IsZero() {
			alerts = append(alerts, alertOf(t.rate, Recovered, t.since))
		}
	}
	slices.SortFunc(alerts, func(x, y Alert) int {
		return cmp.Or(cmp.Compare(x.Status, y.Status), cmp.Compare(y.Failures, x.Failures), cmp.Compare(x.Domain, y.Domain))
	})
	return alerts
}

func alertOf(r Rate, s Status, since time.Time) Alert {
	return Alert{r.Domain, s, schema.Timestamp{Time: since}, r.Sessions(), r.Failure, r.Share(), r.Results}
}

// notify tells every hook. One that fails is told again only with the next
// notice of the domain: it may be what is broken.
func (a *Alerter) notify(ctx context.Context, alerts []Alert) {
	if len(alerts) == 0 {
		return
	}
	for _, alert := range alerts {
		a.o.Logger.Warn("domain "+string(alert.Status), "domain", alert.Domain, "sessions", alert.Sessions, "failures", alert.Failures)
	}
	n := Notice{Version: 1, Time: schema.Timestamp{Time: time.Now()}, Window: a.o.Window.String(), Alerts: alerts}
	var errs []error
	for _, hook := range a.o.Hooks {
		errs = append(errs, hook.Notify(ctx, n))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, err := range errs {
		if a.sent++; err != nil {
			a.failed++
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.o.Logger.Error("an alert hook failed", "error", err)
	}
}

// Stats says how many notices hooks were given, and how many of them failed.
func (a *Alerter) Stats() (sent, failed int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sent, a.failed
}

// Listed is what fails now, most failures first.
func (a *Alerter) Listed(now time.Time) []Rate {
	return slices.DeleteFunc(a.o.Window.Rates(now, a.o.MinSessions), func(r Rate) bool { return r.Share() < a.o.Threshold })
}

// Window is what the alerter looks at.
func (a *Alerter) Window() *Window { return a.o.Window }

// Describe says when a domain is listed.
func (a *Alerter) Describe() string {
	return fmt.Sprintf("at least %.4g %% of %d sessions or more within %s", 100*a.o.Threshold, a.o.MinSessions, a.o.Window)
}
