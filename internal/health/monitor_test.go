package health

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// store is a Store that does what it is told to.
type store struct {
	overview aggregator.Overview
	read     error
	write    error
	hangs    bool
	writes   int
}

func (s *store) Overview(ctx context.Context) (aggregator.Overview, error) {
	if s.hangs {
		<-ctx.Done()
		return aggregator.Overview{}, ctx.Err()
	}
	return s.overview, s.read
}

func (s *store) CheckWritable(context.Context) error { s.writes++; return s.write }

// Record makes store a sink.
func (s *store) Record(context.Context, string, []byte, []schema.Count) error { return s.write }

func (s *store) RecordSpans(context.Context, string, []byte, []schema.Count, []schema.Span) error {
	return s.write
}

// source is a source that sends what it is given.
type source struct {
	counts chan []schema.Count
	end    error
}

func (*source) Name() string { return "test" }

func (s *source) Run(ctx context.Context, sink collector.Sink) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case c, ok := <-s.counts:
			if !ok {
				return s.end
			}
			if _, ok := sink.(collector.SpanSink); !ok {
				return errors.New("the sink lost its spans")
			}
			_ = sink.Record(ctx, "test", nil, c)
		}
	}
}

// world is a monitor of a store and a source, in a bubble.
type world struct {
	*testing.T
	*Monitor
	store   *store
	source  *source
	refusal string
}

func inBubble(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, store: &store{}, source: &source{counts: make(chan []schema.Count)}}
		yes := func() bool { return true }
		w.Monitor = New(Options{Store: w.store, Silent: 24 * time.Hour, Submits: yes,
			Relay: func() (bool, string) { return w.refusal != "", w.refusal }})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		watched := w.Watch(w.source)
		go func() { done <- watched.Run(ctx, w.store) }()
		synctest.Wait()
		test(w)
		stop()
		<-done
	})
}

// want checks now, and wants these parts to have a problem.
func (w *world) want(alive bool, parts string) {
	w.Helper()
	r := w.Check(w.Context())
	var got []string
	for _, p := range r.Problems {
		got = append(got, p.Part)
	}
	if s := strings.Join(got, " "); s != parts || r.Alive() != alive || r.Ready() != (parts == "") {
		w.Errorf("problems %+v, alive %t; want %q, alive %t", r.Problems, r.Alive(), parts, alive)
	}
}

func (w *world) send() {
	w.source.counts <- []schema.Count{{Success: 1}}
	synctest.Wait()
}

func TestSilent(t *testing.T) {
	inBubble(t, func(w *world) {
		w.want(true, "")
		time.Sleep(25 * time.Hour)
		w.want(true, "source")
		w.send()
		w.want(true, "")
		if s := w.Sources()[0]; !s.Running || !s.Last.Equal(time.Now()) {
			w.Errorf("%+v", s)
		}
	})
}

func TestStopped(t *testing.T) {
	inBubble(t, func(w *world) {
		w.source.end = errors.New("the socket is gone")
		close(w.source.counts)
		synctest.Wait()
		w.want(false, "source")
		if s := w.Sources()[0]; s.Running || s.Err == nil {
			w.Errorf("%+v", s)
		}
	})
}

func TestUnwritable(t *testing.T) {
	inBubble(t, func(w *world) {
		w.send()
		w.want(true, "")
		if w.store.writes != 0 {
			w.Error("it writes although a source did so just now")
		}
		w.store.write = errors.New("disk full")
		w.want(true, "") // nobody has noticed
		w.send()
		w.want(true, "store")
		w.store.write = nil
		w.want(true, "")
		w.send()
		time.Sleep(2 * idle)
		w.store.write = errors.New("disk full")
		w.want(true, "store")
		w.store.write, w.store.read = nil, errors.New("malformed")
		w.want(true, "store")
		w.store.hangs = true
		w.want(false, "store")
	})
}

func TestStuck(t *testing.T) {
	inBubble(t, func(w *world) {
		w.store.overview.Attempt = time.Now()
		w.want(true, "")
		time.Sleep(stuck + time.Minute)
		w.want(false, "deliveries")
		w.Attempted()
		w.want(true, "") // they are many, and go on
		w.store.overview.Attempt = time.Time{}
		w.store.overview.Due = time.Now().Add(-2 * stuck)
		w.want(true, "planning")
	})
}

func TestRelay(t *testing.T) {
	inBubble(t, func(w *world) {
		w.want(true, "")
		w.refusal = "530 relaying denied"
		w.want(true, "relay")
		if !w.RelayRefuses() {
			w.Error("the relay does not refuse")
		}
		w.refusal = ""
		w.want(true, "")
	})
}

// Alive needs a report of late.
func TestStale(t *testing.T) {
	inBubble(t, func(w *world) {
		w.Check(w.Context())
		if !w.Alive() {
			w.Error("not alive after a check")
		}
		time.Sleep(stale + time.Second)
		if w.Alive() {
			w.Error("alive although nobody checks")
		}
	})
}

// nativeSource is what an MTA itself tells.
type nativeSource struct{ source }

func (*nativeSource) Native() {}

// A watched source is as native as it was.
func TestNative(t *testing.T) {
	m := New(Options{Store: &store{}})
	if _, ok := m.Watch(&nativeSource{}).(collector.Native); !ok {
		t.Error("a native source is not native any more")
	}
	if _, ok := m.Watch(&source{}).(collector.Native); ok {
		t.Error("a source became native")
	}
}
