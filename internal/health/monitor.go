package health

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const (
	interval = 15 * time.Second // between two checks
	patience = 10 * time.Second // that the store has to answer
	idle     = time.Minute      // without a commit, after which writing is tried

	// stuck is how long deliveries may be overdue while none is attempted, and
	// domain-days while none is planned.
	stuck = 30 * time.Minute
)

// Store is what the monitor asks of the store. An aggregator.Store is one.
type Store interface {
	Overview(ctx context.Context) (aggregator.Overview, error)
	CheckWritable(ctx context.Context) error
}

// Options of a Monitor. Only Store is required.
type Options struct {
	Store Store

	// Silent is how long a source may see no session. Zero: for ever.
	Silent time.Duration

	// Relay says whether the relay refuses report mail, so that all of it waits, and
	// what it said. Nil: it does not.
	Relay func() (refuses bool, reason string)

	// Submits says that reports are sent; else nothing can be overdue. Nil: none are.
	Submits func() bool

	// Committed hears of each commit; nil: nobody does. counts must not be kept.
	Committed func(took time.Duration, counts []schema.Count, err error)

	// Logger hears when a problem begins and ends. Nil discards.
	Logger *slog.Logger
}

// Problem is something that keeps the agent from its work.
type Problem struct {
	Part   string `json:"part"` // "store", "source", "planning", "deliveries" or "relay"
	Reason string `json:"reason"`

	// Restart says that a new start may help: the process does not answer, or lost
	// a source. A full disk is no reason to drop what memory holds.
	Restart bool `json:"restart"`
}

// Report is the outcome of a check.
type Report struct {
	At       time.Time `json:"time"`
	Problems []Problem `json:"problems"` // [] where there is none
}

// Alive is false if a new start may help.
func (r Report) Alive() bool {
	return !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Restart })
}

// Ready is false if there is any problem.
func (r Report) Ready() bool { return len(r.Problems) == 0 }

// Monitor is made by New. Its methods are safe for concurrent use.
type Monitor struct {
	o       Options
	sources []*watched

	mu          sync.Mutex
	report      Report
	begun       time.Time
	lastCommit  time.Time // the newest one that succeeded
	commitErr   error     // of the newest commit
	lastAttempt time.Time // of a delivery
}

// New makes a Monitor. Its first report is that all is well.
func New(o Options) *Monitor {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	now := time.Now()
	return &Monitor{o: o, begun: now, report: Report{At: now, Problems: []Problem{}}}
}

// Watch is source, under watch. Call it before Run.
func (m *Monitor) Watch(source collector.Source) collector.Source {
	w := &watched{Source: source, monitor: m}
	w.state.Name, w.state.Since = source.Name(), m.begun
	m.sources = append(m.sources, w)
	if native, ok := source.(collector.Native); ok {
		return watchedNative{w, native}
	}
	return w
}

// Sources is how each source does.
func (m *Monitor) Sources() []Source {
	all := make([]Source, len(m.sources))
	for i, w := range m.sources {
		all[i] = w.snapshot()
	}
	return all
}

func (m *Monitor) committed(took time.Duration, counts []schema.Count, err error) {
	m.mu.Lock()
	if m.commitErr = err; err == nil {
		m.lastCommit = time.Now()
	}
	m.mu.Unlock()
	if m.o.Committed != nil {
		m.o.Committed(took, counts, err)
	}
}

// Attempted takes note of an attempt to deliver.
func (m *Monitor) Attempted() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastAttempt = time.Now()
}

func asked(f func() bool) bool { return f != nil && f() }

// Report is the newest report.
func (m *Monitor) Report() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.report
}

// stale is how old the newest report may be: checks that hang are no checks.
const stale = 2*interval + patience

// Alive is false if the newest report says so, or if there is none of late.
func (m *Monitor) Alive() bool {
	r := m.Report()
	return r.Alive() && time.Since(r.At) < stale
}

// Run checks again and again until ctx ends. seen hears of each report; it may be
// nil.
func (m *Monitor) Run(ctx context.Context, seen func(Report)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		r := m.Check(ctx)
		if ctx.Err() == nil && seen != nil {
			seen(r)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Check looks at everything now.
func (m *Monitor) Check(ctx context.Context) Report {
	r := Report{At: time.Now().UTC().Truncate(time.Second), Problems: []Problem{}}
	r.Problems = append(r.Problems, m.checkSources(r.At)...)
	r.Problems = append(r.Problems, m.checkStore(ctx, r.At)...)
	r.Problems = append(r.Problems, m.checkRelay()...)
	if ctx.Err() != nil {
		return m.Report()
	}
	m.mu.Lock()
	before := m.report
	m.report = r
	m.mu.Unlock()
	m.tell(before, r)
	return r
}

// tell logs what began and what ended.
func (m *Monitor) tell(before, now Report) {
	same := func(p Problem) func(Problem) bool {
		return func(q Problem) bool { return p.Part == q.Part && p.Restart == q.Restart }
	}
	for _, p := range now.Problems {
		if !slices.ContainsFunc(before.Problems, same(p)) {
			m.o.Logger.Error("unhealthy", "part", p.Part, "reason", p.Reason)
		}
	}
	for _, p := range before.Problems {
		if !slices.ContainsFunc(now.Problems, same(p)) {
			m.o.Logger.Info("healthy again", "part", p.Part)
		}
	}
}

func (m *Monitor) checkSources(now time.Time) (found []Problem) {
	for _, s := range m.Sources() {
		last := s.Last
		if last.IsZero() {
			last = m.begun
		}
		switch {
		case s.Err != nil:
			found = append(found, Problem{"source", fmt.Sprintf("%s stopped: %v", s.Name, s.Err), true})
		case m.o.Silent > 0 && now.Sub(last) > m.o.Silent:
			found = append(found, Problem{"source", fmt.Sprintf("%s saw no session for %s", s.Name, now.Sub(last).Round(time.Minute)), false})
		}
	}
	return found
}

// checkStore reads, and writes unless a source did so within the minute.
func (m *Monitor) checkStore(ctx context.Context, now time.Time) (found []Problem) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o, err := m.o.Store.Overview(ctx)
	if err != nil {
		return []Problem{{"store", "it cannot be read: " + err.Error(), ctx.Err() != nil}}
	}
	m.mu.Lock()
	last, commitErr, attempt := m.lastCommit, m.commitErr, m.lastAttempt
	m.mu.Unlock()
	if commitErr != nil || now.Sub(last) > idle {
		if err := m.o.Store.CheckWritable(ctx); err != nil {
			found = append(found, Problem{"store", "it cannot be written: " + err.Error(), false})
		} else {
			m.mu.Lock()
			m.lastCommit = now
			m.mu.Unlock()
		}
	}
	if !asked(m.o.Submits) {
		return found
	}
	if attempt.Before(m.begun) {
		attempt = m.begun
	}
	overdue := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) > stuck }
	if overdue(o.Attempt) && now.Sub(attempt) > stuck {
		found = append(found, Problem{"deliveries", fmt.Sprintf("one is due since %s and none was attempted since", schema.Timestamp{Time: o.Attempt}), true})
	}
	if overdue(o.Due) && now.Sub(m.begun) > stuck {
		found = append(found, Problem{"planning", fmt.Sprintf("a report is due since %s and not made", schema.Timestamp{Time: o.Due}), false})
	}
	return found
}

func (m *Monitor) checkRelay() []Problem {
	if refuses, reason := m.relay(); refuses {
		return []Problem{{"relay", "it refuses report mail, which waits: " + reason, false}}
	}
	return nil
}

func (m *Monitor) relay() (refuses bool, reason string) {
	if m.o.Relay == nil {
		return false, ""
	}
	return m.o.Relay()
}

// RelayRefuses reports whether the relay refuses report mail now.
func (m *Monitor) RelayRefuses() bool {
	refuses, _ := m.relay()
	return refuses
}
