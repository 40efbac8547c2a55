package health

import (
	"context"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/libtlsrpt"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Source is how a source of sessions does.
type Source struct {
	Name    string
	Running bool
	Err     error     // why it stopped; nil while it runs
	Since   time.Time // of Running
	Last    time.Time // when its newest sessions reached the store; the zero time: none did

	Received  int64            // datagrams or lines
	Counted   int64            // sessions
	Lost      int64            // sessions that no room was left for
	Folded    int64            // sessions, of Counted, that lost their strings to a bound
	Lag       int64            // bytes of a log that are still to be read
	Malformed map[string]int64 // datagrams that were refused, by class
	Dropped   map[string]int64 // sessions of a log that were not counted, by reason

	// NativeLost is how many events Postfix says that it could not hand to a
	// socket; Missing is bytes of a log that are known to be gone, and Gaps how
	// often lines of it may be, as a file was removed, cut or unreadable.
	NativeLost, Missing, Gaps int64
}

// watched is a source under watch. It is a collector.Source itself.
type watched struct {
	collector.Source
	monitor *Monitor

	mu    sync.Mutex
	state Source
}

// watchedNative is a watched source that is a collector.Native.
type watchedNative struct {
	*watched
	native collector.Native
}

// Native implements [collector.Native].
func (w watchedNative) Native() { w.native.Native() }

// Run runs the source and takes note of its end.
func (w *watched) Run(ctx context.Context, sink collector.Sink) error {
	w.note(func(s *Source) { s.Running, s.Since = true, time.Now() })
	var over collector.Sink = &watchedSink{sink, w}
	if spans, ok := sink.(collector.SpanSink); ok {
		over = &watchedSpanSink{watchedSink{sink, w}, spans}
	}
	err := w.Source.Run(ctx, over)
	w.note(func(s *Source) { s.Running, s.Err, s.Since = false, err, time.Now() })
	return err
}

func (w *watched) note(f func(*Source)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.state)
}

// snapshot is the state with the source's own numbers.
func (w *watched) snapshot() Source {
	w.mu.Lock()
	s := w.state
	w.mu.Unlock()
	switch source := w.Source.(type) {
	case *libtlsrpt.Source:
		st := source.Stats()
		s.Received, s.Counted, s.Malformed = st.Received, st.Counted, st.Faults
		s.Lost, s.Folded = st.Counter.Lost, st.Counter.Folded
	case *postfixlog.Source:
		st := source.Stats()
		s.Received, s.Counted, s.Folded = st.Parser.Lines, st.Counted, st.Folded
		s.Lag, s.Missing, s.Gaps = st.Tail.Lag, st.Tail.Lost, st.Tail.Gaps+st.Tail.Unreadable
		s.Dropped = map[string]int64{}
		for _, dropped := range []map[postfixlog.Drop]int64{st.Parser.Dropped, st.Dropped} {
			for why, n := range dropped {
				s.Dropped[string(why)] += n
			}
		}
		for _, n := range st.Parser.NativeLost {
			s.NativeLost += n
		}
	}
	return s
}

// watchedSink passes on what a source counts, and takes note of it.
type watchedSink struct {
	collector.Sink
	source *watched
}

func (s *watchedSink) Record(ctx context.Context, source string, cursor []byte, counts []schema.Count) error {
	return s.commit(counts, func() error { return s.Sink.Record(ctx, source, cursor, counts) })
}

// commit notes how a commit of counts ended.
func (s *watchedSink) commit(counts []schema.Count, do func() error) error {
	begun := time.Now()
	err := do()
	s.source.monitor.committed(time.Since(begun), counts, err)
	if err == nil && len(counts) > 0 {
		s.source.note(func(state *Source) { state.Last = time.Now() })
	}
	return err
}

// watchedSpanSink is a watchedSink over a store that remembers what was read.
type watchedSpanSink struct {
	watchedSink
	spans collector.SpanSink
}

func (s *watchedSpanSink) RecordSpans(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	return s.commit(counts, func() error { return s.spans.RecordSpans(ctx, source, cursor, counts, spans) })
}
