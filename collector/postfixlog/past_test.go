package postfixlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const pastLog = "testdata/postfix-logs/3.7.11/base/maillog"

// spanLedger is a ledger that takes spans. Those of one server follow each other.
type spanLedger struct {
	ledger
	spans []schema.Span
}

func (l *spanLedger) RecordSpans(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	if err := l.Record(ctx, source, cursor, counts); err != nil {
		return err
	}
	for _, sp := range spans {
		if n := len(l.spans); n > 0 && l.spans[n-1].Host == sp.Host && sp.From <= l.spans[n-1].To {
			l.spans[n-1] = l.spans[n-1].Join(sp)
		} else {
			l.spans = append(l.spans, sp)
		}
	}
	return nil
}

// writePast writes a log, compressed where its name says so.
func writePast(t *testing.T, name string, text []byte) string {
	t.Helper()
	var b bytes.Buffer
	b.Write(text)
	if strings.HasSuffix(name, ".gz") {
		b.Reset()
		z := gzip.NewWriter(&b)
		z.Write(text)
		z.Close()
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readPast reads a log from where l left off, without what counted covers.
func readPast(t *testing.T, path string, l *spanLedger, after *Source, counted []schema.Span) *Source {
	t.Helper()
	p, err := OpenPast(path, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	latest := func() time.Time { return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) }
	s, err := Open(SourceOptions{
		Name: "import", Past: p, After: after, Counted: counted, Cursor: l.cursor,
		Log: Options{Location: time.UTC, Latest: latest},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	return s
}

func newSpanLedger() *spanLedger { return &spanLedger{ledger: ledger{counts: map[string]int64{}}} }

// TestPastCut cuts a log, whose times are whole seconds, at many places: also
// within a second and within a line. The first part, then the whole log: by its
// position, and as another file of which only the spans are known.
func TestPastCut(t *testing.T) {
	text, err := os.ReadFile(pastLog)
	if err != nil {
		t.Fatal(err)
	}
	whole := newSpanLedger()
	readPast(t, writePast(t, "mail.log.gz", text), whole, nil, nil)
	if len(whole.counts) < 50 || len(whole.spans) != 1 {
		t.Fatalf("%d counts, spans %+v", len(whole.counts), whole.spans)
	}
	for cut := 1000; cut < len(text); cut += len(text) / 40 {
		grown := newSpanLedger()
		readPast(t, writePast(t, "mail.log", text[:cut]), grown, nil, nil)
		first := maps.Clone(grown.counts)
		spans := slices.Clone(grown.spans)
		readPast(t, writePast(t, "mail.log.1.gz", text), grown, nil, nil)
		if !maps.Equal(grown.counts, whole.counts) {
			t.Errorf("cut at %d, by its position:\n%v\nwant\n%v", cut, grown.counts, whole.counts)
		}
		other := newSpanLedger()
		other.counts = first
		readPast(t, writePast(t, "other.log", text), other, nil, spans)
		if !maps.Equal(other.counts, whole.counts) {
			t.Errorf("cut at %d, by spans:\n%v\nwant\n%v", cut, other.counts, whole.counts)
		}
	}
}

// TestPastParts reads a log that was rotated, also within a delivery.
func TestPastParts(t *testing.T) {
	text, err := os.ReadFile(pastLog)
	if err != nil {
		t.Fatal(err)
	}
	whole := newSpanLedger()
	readPast(t, pastLog, whole, nil, nil)
	lines := bytes.SplitAfter(text, []byte("\n"))
	for cut := 100; cut < len(lines); cut += 97 {
		one, two := newSpanLedger(), newSpanLedger()
		before := readPast(t, writePast(t, "mail.log.1", bytes.Join(lines[:cut], nil)), one, nil, nil)
		two.counts = one.counts
		readPast(t, writePast(t, "mail.log", bytes.Join(lines[cut:], nil)), two, before, one.spans)
		if !maps.Equal(two.counts, whole.counts) {
			t.Errorf("rotated after line %d:\n%v\nwant\n%v", cut, two.counts, whole.counts)
		}
	}
}

// A log is known by what is in it, and another one that begins alike is another.
func TestPastContinues(t *testing.T) {
	text, err := os.ReadFile(pastLog)
	if err != nil {
		t.Fatal(err)
	}
	l := newSpanLedger()
	readPast(t, writePast(t, "mail.log", text[:50_000]), l, nil, nil)
	changed := bytes.Replace(text, []byte("postfix/qmgr"), []byte("postfix/qqqq"), 1)
	for name, c := range map[string]struct {
		text []byte
		want bool
	}{
		"same": {text[:50_000], true}, "grown": {text, true}, "changed": {changed, false}, "shorter": {text[:20_000], false},
	} {
		p, err := OpenPast(writePast(t, "mail.log.gz", c.text), time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Continues(l.cursor)
		if got != c.want || err != nil {
			t.Errorf("%s: %t, %v", name, got, err)
		}
		if !got {
			if rest, err := p.Next(t.Context()); err != nil || !bytes.HasPrefix(text, rest[:500]) {
				t.Errorf("%s: it does not begin anew, %v", name, err)
			}
		}
		p.Close()
	}
}

func TestPastBad(t *testing.T) {
	for name, path := range map[string]string{
		"missing": "testdata/missing", "directory": "testdata",
		"no gzip": writePast(t, "a", []byte("\x1f\x8bno gzip file at all")),
	} {
		if _, err := OpenPast(path, nil); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	p, err := OpenPast(writePast(t, "empty", nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Next(t.Context()); err != io.EOF || !p.First.IsZero() {
		t.Errorf("of an empty file: %v, %v", err, p.First)
	}
}
