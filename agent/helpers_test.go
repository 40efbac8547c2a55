package agent

import (
	"context"
	"fmt"
	"io"
	"log"
	"slices"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

type submitterError = submitter.Error

// restart goes on with other options.
func (b *bench) restart(o Options) {
	b.Helper()
	b.stop()
	b.start(o)
}

// restartRarely is restart of an agent that looks at the store less often: what
// it does itself it knows of, and a test of weeks takes a tenth of the time.
func (b *bench) restartRarely(o Options) {
	b.Helper()
	b.stop()
	b.rarely = true
	b.start(o)
}

// deliveries is all of them, by id.
func (b *bench) deliveries() (all []aggregator.Delivery) {
	b.Helper()
	check(b.T, b.store.Deliveries(b.Context(), aggregator.DeliveryFilter{}, func(d aggregator.Delivery) error {
		all = append(all, d)
		return nil
	}))
	return all
}

// ends is "domain rua state reason" of all deliveries.
func (b *bench) ends() (s []string) {
	b.Helper()
	for _, d := range b.deliveries() {
		s = append(s, fmt.Sprintf("%s %s %s %s", d.Domain, d.RUA, d.State, d.LastError))
	}
	return s
}

// equalSorted reports whether a and b are equal but for their order.
func equalSorted(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// run runs the agent until stop is called.
func (b *bench) run() (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- b.Agent.Run(ctx) }()
	return func() {
		b.Helper()
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// tried is how many attempts there were at a recipient.
func (w *world) tried(to string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tries[to]
}

// Mail hangs for the host that is dead.
func (d *deadHost) Mail(ctx context.Context, e submitter.Envelope, message []byte) error {
	if schema.AddressDomain(e.To) == d.dead {
		return d.hanging.Mail(ctx, e, message)
	}
	return d.world.Mail(ctx, e, message)
}

// discardLog is where an HTTP server may complain.
func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
