package aggregator

import (
	"context"
	"database/sql"
	"encoding/binary"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// partLooking stands for all parts of a domain-day that are there for looking
// only: what was imported without being asked to report it. They are below 0, one
// for each source, so that what came of one can be forgotten. No domain_day ever
// has such a part, so nothing closes it, plans it, or takes it for a reason to
// send a supplement, and sessions that are to be reported may come before or after.
const partLooking = -1

// lookingPart is the part of a source. By chance, one in 2^31, two share one: to
// forget one is then to forget both.
func (k keys) lookingPart(source string) int { return -1 - int(k.id('l', source)>>32) }

// ofPart is the condition that a tally is of a part, with one argument, or of any
// that is there for looking.
func ofPart(part int) string {
	if part < 0 {
		return `t.part < 0 AND ? < 0`
	}
	return `t.part = +?`
}

// RecordSpans implements collector.SpanSink.
func (s *Store) RecordSpans(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	return s.record(ctx, entry{source: source, cursor: cursor, counts: counts, spans: spans})
}

// RecordLooking is RecordSpans of counts that are for looking: [Store.Pending]
// lists them as not-sent, whatever becomes of their day, and no report ever has
// them.
func (s *Store) RecordLooking(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	return s.record(ctx, entry{source: source, cursor: cursor, counts: counts, spans: spans, part: s.keys.lookingPart(source)})
}

// ForgetLooking undoes all that [Store.RecordLooking] recorded of source: counts,
// spans and position.
func (s *Store) ForgetLooking(ctx context.Context, source string) error {
	return s.write(ctx, "forgetting "+source, func(tx *sql.Tx) error {
		part := s.keys.lookingPart(source)
		for _, q := range []string{
			`DELETE FROM tally WHERE part = ?1`, `DELETE FROM tally_detail WHERE part = ?1`,
			`DELETE FROM counted WHERE source = ?2`, `DELETE FROM imported WHERE source = ?2`, `DELETE FROM source WHERE name = ?2`,
		} {
			if _, err := tx.Exec(q, part, source); err != nil {
				return err
			}
		}
		return nil
	})
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
