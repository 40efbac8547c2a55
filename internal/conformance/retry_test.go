package conformance_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// greylisting is a domain's DNS and a relay that takes nothing yet.
type greylisting struct {
	mu       sync.Mutex
	attempts []time.Time
}

func (g *greylisting) LookupTXT(context.Context, string) ([]string, error) {
	return []string{"v=TLSRPTv1; rua=mailto:a@example.org"}, nil
}

func (g *greylisting) Mail(context.Context, submitter.Envelope, []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.attempts = append(g.attempts, time.Now())
	return &submitter.Error{Temporary: true, Reply: "451 4.7.1 greylisted"}
}

// TestRule70And71 runs an agent for two days of a bubble's time.
func TestRule70And71(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		store, err := aggregator.Open(path, aggregator.Options{})
		check(t, err)
		g := &greylisting{}
		a, err := agent.New(agent.Options{
			Store: store, Contact: "tls-reports@example.com",
			Submitter: &submitter.Submitter{Resolver: g, Mail: g, ExternalDKIM: true},
		})
		check(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()
		check(t, a.Record(schema.Session{Domain: "example.org", Results: []schema.Result{{Policy: policies[schema.NoPolicyFound]}}}))
		time.Sleep(50 * time.Hour)
		cancel()
		check(t, <-ended)
		check(t, store.Close())
		checkAttempts(t, g.attempts)
	})
}

func checkAttempts(t *testing.T, at []time.Time) {
	t.Helper()
	if len(at) < 8 || len(at) > 20 {
		t.Fatalf("%d attempts", len(at))
	}
	if span := at[len(at)-1].Sub(at[0]); span < 24*time.Hour || span > 24*time.Hour+time.Minute {
		t.Errorf("the last attempt was %s after the first", span)
	}
	// Jitter may shorten a wait, but not to that of two attempts earlier.
	for i := 3; i < 7; i++ {
		if early, late := at[i-2].Sub(at[i-3]), at[i].Sub(at[i-1]); late <= early {
			t.Errorf("waited %s, then %s", early, late)
		}
	}
}
