package aggregator

import (
	"context"
	"database/sql"
	"encoding/binary"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// partLooking is the part of a domain-day that is there for looking only: what
// was imported without being asked to report it. No domain_day ever has this
// part, so nothing closes it, plans it, or takes it for a reason to send a
// supplement, and sessions that are to be reported may come before it or after.
const partLooking = -1

// RecordSpans implements collector.SpanSink.
func (s *Store) RecordSpans(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	return s.record(ctx, entry{source: source, cursor: cursor, counts: counts, spans: spans})
}

// RecordLooking is RecordSpans of counts that are for looking: [Store.Pending]
// lists them as not-sent, whatever becomes of their day, and no report ever has
// them.
func (s *Store) RecordLooking(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	return s.record(ctx, entry{source: source, cursor: cursor, counts: counts, spans: spans, looking: true})
}

// SourceSpan is a stretch of log that a source has read.
type SourceSpan struct {
	Source string
	schema.Span
}

// Spans lists what was read of logs, by source, instance, host and time.
func (s *Store) Spans(ctx context.Context) (spans []SourceSpan, err error) {
	err = s.read(ctx, "listing what was read of logs", func(tx *sql.Tx) error {
		rows, err := tx.Query(`SELECT source, instance, host, start, stop, first, last FROM counted
			ORDER BY source, instance, host, start`)
		spans, err = collect(rows, err, func(r *sql.Rows) (sp SourceSpan, err error) {
			var first, last []byte
			err = r.Scan(&sp.Source, &sp.Instance, &sp.Host, &sp.From, &sp.To, &first, &last)
			sp.First, sp.Last = unpackLines(first), unpackLines(last)
			return sp, err
		})
		return err
	})
	return spans, err
}

// addSpans adds to what source has read. What a span shares a second with becomes
// one with it.
func addSpans(tx *sql.Tx, source string, spans []schema.Span) error {
	for _, sp := range spans {
		rows, err := tx.Query(`DELETE FROM counted WHERE source = ? AND instance = ? AND host = ?
			AND start <= ? AND stop >= ? RETURNING start, stop, first, last`, source, sp.Instance, sp.Host, sp.To, sp.From)
		old, err := collect(rows, err, func(r *sql.Rows) (o schema.Span, err error) {
			var first, last []byte
			err = r.Scan(&o.From, &o.To, &first, &last)
			o.First, o.Last = unpackLines(first), unpackLines(last)
			return o, err
		})
		if err != nil {
			return err
		}
		for _, o := range old {
			sp = sp.Join(o)
		}
		if _, err := tx.Exec(`INSERT INTO counted (source, instance, host, start, stop, first, last) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			source, sp.Instance, sp.Host, sp.From, sp.To, packLines(sp.First), packLines(sp.Last)); err != nil {
			return err
		}
	}
	return nil
}

// packLines is 8 bytes per hash.
func packLines(lines []uint64) []byte {
	b := make([]byte, 0, 8*len(lines))
	for _, l := range lines {
		b = binary.BigEndian.AppendUint64(b, l)
	}
	return b
}

func unpackLines(b []byte) (lines []uint64) {
	for ; len(b) >= 8; b = b[8:] {
		lines = append(lines, binary.BigEndian.Uint64(b))
	}
	return lines
}

// pruneSpans forgets what was read of logs of the days before one: what it held
// of counts is deleted too.
func (s *Store) pruneSpans(ctx context.Context, before schema.Day) error {
	for n := int64(chunk); n == chunk; {
		err := s.write(ctx, "pruning", func(tx *sql.Tx) (err error) {
			n, err = affected(tx.Exec(`DELETE FROM counted WHERE (source, instance, host, start) IN (
				SELECT source, instance, host, start FROM counted WHERE stop < ? LIMIT ?)`, before.Start().Unix(), chunk))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
