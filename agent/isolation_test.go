package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// hanging is a relay that takes what it is given and never answers.
type hanging struct{ now, most atomic.Int64 }

func (h *hanging) Mail(ctx context.Context, _ submitter.Envelope, _ []byte) error {
	n := h.now.Add(1)
	defer h.now.Add(-1)
	for m := h.most.Load(); n > m && !h.most.CompareAndSwap(m, n); m = h.most.Load() {
	}
	<-ctx.Done()
	return &submitter.Error{Temporary: true, Err: ctx.Err()}
}

// slow is a resolver that takes its time with the domains of one label.
type slow struct{ *world }

func (s slow) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if name == "_smtp._tls.slow.example" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.world.LookupTXT(ctx, name)
}

// countedAgent is an agent in a bubble that does not run, with a session for
// each domain yesterday.
func countedAgent(t *testing.T, path string, s *submitter.Submitter, domains ...string) (*Agent, *aggregator.Store) {
	t.Helper()
	store, err := aggregator.Open(path, aggregator.Options{})
	check(t, err)
	a, err := New(Options{Store: store, Contact: "tls-reports@example.com", Submitter: s})
	check(t, err)
	check(t, a.switchOn(t.Context()))
	for _, d := range domains {
		check(t, a.Record(schema.Session{Domain: d, Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}}}}))
	}
	check(t, a.Flush(t.Context()))
	time.Sleep(25 * time.Hour)
	return a, store
}

// TestHangingRelay: the attempts under way have a bound whatever the relay does.
func TestHangingRelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		var domains []string
		for i := range 3 * mailSlots {
			domains = append(domains, fmt.Sprintf("d%d.example", i))
		}
		w, relay := newWorld(domains...), &hanging{}
		a, store := countedAgent(t, path, &submitter.Submitter{Resolver: w, Mail: relay, ExternalDKIM: true}, domains...)
		check(t, a.Submit(t.Context(), Submission{}, nil))
		if got := relay.most.Load(); got != mailSlots {
			t.Errorf("%d attempts at once, want %d", got, mailSlots)
		}
		check(t, store.Close())
	})
}

// TestSlowDomain: while one look-up takes its time the report of another domain
// is on its way, and the command says what was put off.
func TestSlowDomain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("example.org")
		a, store := countedAgent(t, path, &submitter.Submitter{Resolver: slow{w}, Mail: w, ExternalDKIM: true}, "slow.example", "example.org")
		began := time.Now()
		err := a.Submit(t.Context(), Submission{}, nil)
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a look-up that failed was not told: %v", err)
		}
		if len(w.mails) != 1 {
			t.Fatalf("%d mails, want 1", len(w.mails))
		}
		if waited := w.mails[0].at.Sub(began); waited > time.Second {
			t.Errorf("the report of another domain waited %s", waited)
		}
		check(t, store.Close())
	})
}

// TestOwnFault: a fault of our own settings does not end deliveries.
func TestOwnFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("example.org")
		a, store := countedAgent(t, path, &submitter.Submitter{Resolver: w}, "example.org")
		check(t, a.Submit(t.Context(), Submission{}, nil))
		check(t, store.Deliveries(t.Context(), aggregator.DeliveryFilter{}, func(d aggregator.Delivery) error {
			if d.State != aggregator.DeliveryPending {
				t.Errorf("the delivery is %s: %s", d.State, d.LastError)
			}
			return nil
		}))
		check(t, store.Close())
	})
}

// TestRecordBounds: what comes after the end, or from the future, is refused.
func TestRecordBounds(t *testing.T) {
	bubble(t, func(b *bench) {
		s := schema.Session{Domain: "example.org", Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}}}}
		s.Time = time.Now().AddDate(0, 0, 2)
		if err := b.Record(s); !errors.Is(err, schema.ErrSession) {
			t.Errorf("a session of the day after tomorrow: %v", err)
		}
		b.stop()
		s.Time = time.Time{}
		if err := b.Record(s); !errors.Is(err, ErrStopped) {
			t.Errorf("a session after the end: %v", err)
		}
	})
}

// TestPruneWithoutSubmitter: an agent that only counts forgets too.
func TestPruneWithoutSubmitter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		store, err := aggregator.Open(path, aggregator.Options{})
		check(t, err)
		a, err := New(Options{Store: store, Keep: 10 * 24 * time.Hour})
		check(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		b := &bench{T: t, Agent: a}
		b.session("example.org", false)
		time.Sleep(9 * 24 * time.Hour)
		if _, err := store.NewestDay(ctx, "example.org"); err != nil {
			t.Errorf("after nine days: %v", err)
		}
		time.Sleep(4 * 24 * time.Hour)
		if day, err := store.NewestDay(ctx, "example.org"); !errors.Is(err, aggregator.ErrNoData) {
			t.Errorf("after two weeks %s is still there (%v)", day, err)
		}
		stop()
		check(t, <-done)
		check(t, store.Close())
		if _, err := New(Options{Store: store, Keep: 24 * time.Hour}); !errors.Is(err, ErrOptions) {
			t.Errorf("days that are forgotten before they are submitted: %v", err)
		}
	})
}

// TestSubmitOne: what is submitted by hand leaves the others to the schedule.
func TestSubmitOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("example.org", "example.net")
		a, store := countedAgent(t, path, &submitter.Submitter{Resolver: w, Mail: w, ExternalDKIM: true}, "example.org", "example.net")
		var err error
		a.schedule, err = ParseSchedule("0 23 * * *")
		check(t, err)
		check(t, a.Submit(t.Context(), Submission{Domain: "example.org"}, nil))
		if len(w.mails) != 1 || w.mails[0].to != "reports@example.org" {
			t.Errorf("%d mails", len(w.mails))
		}
		due, err := store.NextDue(t.Context())
		check(t, err)
		if want := (day0 + 1).Start().Add(23 * time.Hour); !due.Equal(want) {
			t.Errorf("the other domain is due at %s, want %s", due, want)
		}
		check(t, store.Close())
	})
}

// TestSlowDomainOfDaemon: a look-up that is under way is waited for, not asked
// after again and again. In a bubble whoever never rests stops the clock.
func TestSlowDomainOfDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("example.org")
		a, store := countedAgent(t, path, &submitter.Submitter{Resolver: slow{w}, Mail: w, ExternalDKIM: true}, "slow.example", "example.org")
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		check(t, a.Run(ctx))
		if len(w.mails) != 1 {
			t.Errorf("%d mails, want 1", len(w.mails))
		}
		check(t, store.Close())
	})
}
