// Package collector says what a source of sessions is, and gathers what
// sources see into counts for a store.
package collector

import (
	"context"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Sink takes the counts of a source. Its only implementation that lasts is
// aggregator.Store.
type Sink interface {
	// Record adds counts and stores the position of source, all or nothing:
	// after an error none of it happened and the same call may be made again.
	// cursor is opaque, at most 1 MiB; nil leaves the stored position as it is.
	// counts may name the same day, domain and policy more than once. Its texts
	// are parts of longer ones: who keeps one keeps a copy.
	Record(ctx context.Context, source string, cursor []byte, counts []schema.Count) error
}

// SpanSink is a Sink that remembers which stretches of logs were counted, so that
// the same log is not counted a second time from another file. A source of log
// lines uses it where the Sink that it is given is one.
type SpanSink interface {
	Sink

	// RecordSpans is Record, and in the same transaction adds spans to what source
	// has read. A span that shares a second with one that it has read of the same
	// instance and host continues it.
	RecordSpans(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error
}

// Native is a Source of sessions that a mail server itself told of, with the
// record that it saw: only those with domains that ask for reports.
type Native interface {
	Source

	// Native does nothing.
	Native()
}

// Source is where sessions come from.
type Source interface {
	// Name tells a source apart from all others of a store, across restarts.
	Name() string

	// Run hands what the source sees to sink until ctx ends. It then hands over
	// what it still holds and returns nil. An error means that the source cannot
	// go on.
	Run(ctx context.Context, sink Sink) error
}
