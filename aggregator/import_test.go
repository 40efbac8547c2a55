package aggregator

import (
	"context"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var _ collector.SpanSink = (*Store)(nil)

// span is what was read of the log of a host.
func span(host string, from, to int64, first, last []uint64) schema.Span {
	return schema.Span{Instance: "postfix", Host: host, From: from, To: to, First: first, Last: last}
}

func read(t testing.TB, s *Store, source string, spans ...schema.Span) {
	t.Helper()
	must(t, s.RecordSpans(context.Background(), source, nil, nil, spans))
}

func TestSpans(t *testing.T) {
	out := schema.Span{Instance: "postfix-out", Host: "a", From: 15, To: 16}
	for name, c := range map[string]struct{ add, want []schema.Span }{
		"grows":         {[]schema.Span{span("a", 10, 20, []uint64{1}, []uint64{2}), span("a", 10, 25, nil, []uint64{3})}, []schema.Span{span("a", 10, 25, []uint64{1}, []uint64{3})}},
		"goes on":       {[]schema.Span{span("a", 10, 20, []uint64{1}, []uint64{2}), span("a", 20, 20, []uint64{3}, []uint64{3})}, []schema.Span{span("a", 10, 20, []uint64{1}, []uint64{2, 3})}},
		"gap":           {[]schema.Span{span("a", 10, 20, nil, nil), span("a", 21, 30, nil, nil)}, []schema.Span{span("a", 10, 20, nil, nil), span("a", 21, 30, nil, nil)}},
		"fills a gap":   {[]schema.Span{span("a", 10, 20, nil, nil), span("a", 30, 40, nil, nil), span("a", 20, 30, nil, nil)}, []schema.Span{span("a", 10, 40, nil, nil)}},
		"within":        {[]schema.Span{span("a", 10, 20, nil, nil), span("a", 12, 13, []uint64{1}, nil)}, []schema.Span{span("a", 10, 20, nil, nil)}},
		"two hosts":     {[]schema.Span{span("a", 10, 20, nil, nil), span("b", 15, 25, nil, nil)}, []schema.Span{span("a", 10, 20, nil, nil), span("b", 15, 25, nil, nil)}},
		"two instances": {[]schema.Span{span("a", 10, 20, nil, nil), out}, []schema.Span{span("a", 10, 20, nil, nil), out}},
	} {
		s := newStore(t)
		read(t, s, "other", span("a", 1, 100, nil, nil))
		for _, sp := range c.add {
			read(t, s, "source", sp)
		}
		all, err := s.Spans(t.Context())
		must(t, err)
		var got []schema.Span
		for _, sp := range all {
			if sp.Source == "source" {
				got = append(got, sp.Span)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%+v, want\n%+v", name, got, c.want)
		}
		if len(all) != len(got)+1 {
			t.Errorf("%s: the span of another source is gone", name)
		}
	}
}

// Spans, position and counts are recorded together or not at all.
func TestSpansAtomic(t *testing.T) {
	s := newStore(t)
	bad := success("example.com", 1)
	bad.Success = -1
	err := s.RecordSpans(t.Context(), "source", []byte("position"), []schema.Count{bad}, []schema.Span{span("a", 1, 2, nil, nil)})
	cursor, cerr := s.Cursor(t.Context(), "source")
	must(t, cerr)
	if err == nil || cursor != nil || rows(t, s, "counted") != 0 {
		t.Errorf("error %v, position %q, %d spans", err, cursor, rows(t, s, "counted"))
	}
}

func TestPruneSpans(t *testing.T) {
	s := newStore(t)
	start := testDay.Start().Unix()
	read(t, s, "old", span("a", start-10, start-1, nil, nil))
	read(t, s, "kept", span("a", start-10, start, nil, nil))
	must(t, s.Prune(t.Context(), testDay))
	if all, err := s.Spans(t.Context()); err != nil || len(all) != 1 || all[0].Source != "kept" {
		t.Errorf("%+v, %v", all, err)
	}
}

func look(t testing.TB, s *Store, counts ...schema.Count) {
	t.Helper()
	must(t, s.RecordLooking(context.Background(), "import", nil, counts, nil))
}

// pendingOf is the sessions of a domain that are pending, by state.
func pendingStates(t testing.TB, s *Store, domain string) map[State]int64 {
	t.Helper()
	got := map[State]int64{}
	must(t, s.Pending(context.Background(), PendingFilter{Domain: domain}, func(p Pending) error {
		got[p.State] += p.Success + p.Failure
		return nil
	}))
	return got
}

// TestLooking imports before, between and after all that happens to a domain-day.
// What was counted live is reported, exactly, and what was imported never is.
func TestLooking(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	const domain = "example.com"
	look(t, s, success(domain, 1000), failure(domain, 100, schema.CertificateExpired))
	if n, err := s.Release(ctx, testDay+1, time.Time{}, testNow); err != nil || n != 0 {
		t.Fatalf("%d domain-days with nothing to report came due, %v", n, err)
	}
	record(t, s, success(domain, 3)) // late, of a day that is closed
	look(t, s, success(domain, 1000))
	release(t, s)
	dd := domainDay(t, s, domain)
	if got := total(t, s, dd); got != (schema.Summary{Success: 3}) || dd.Totals != got {
		t.Fatalf("%+v is to be reported of %+v", got, dd.Totals)
	}
	must(t, s.Plan(ctx, reportPlan(s, dd, "mailto:a@example.com")))
	look(t, s, success(domain, 1000))
	release(t, s)
	if due, err := s.Due(ctx, testNow.AddDate(1, 0, 0), 10, DomainDay{}); err != nil || len(due) != 0 {
		t.Errorf("an import makes a supplement due: %+v, %v", due, err)
	}
	record(t, s, success(domain, 2)) // a supplement
	release(t, s)
	if got := total(t, s, domainDay(t, s, domain)); got.Success != 2 {
		t.Errorf("the supplement has %+v", got)
	}
	want := map[State]int64{StateNotSent: 3100, StateReported: 3, StateLate: 2}
	if got := pendingStates(t, s, domain); !reflect.DeepEqual(got, want) {
		t.Errorf("pending %v, want %v", got, want)
	}
	days, err := s.Days(ctx, testDay, testDay)
	must(t, err)
	if len(days) != 1 || days[0].Totals.Success != 5 || days[0].Domains != 1 {
		t.Errorf("totals of the day: %+v", days)
	}
}

// What is there for looking only can be looked at, and not planned.
func TestLookingAlone(t *testing.T) {
	s := newStore(t)
	look(t, s, success("example.com", 7))
	dd := domainDay(t, s, "example.com")
	if dd.State != StateNotSent || total(t, s, dd).Success != 7 {
		t.Errorf("%+v", dd)
	}
	release(t, s)
	if err := s.Plan(t.Context(), reportPlan(s, dd, "mailto:a@example.com")); err != ErrNotClosed {
		t.Errorf("planned: %v", err)
	}
	since, err := s.SubmissionSince(t.Context(), testNow)
	must(t, err)
	if since.Unix() != 0 {
		t.Errorf("an import is taken for sessions of before submission was on: %v", since)
	}
	must(t, s.Prune(t.Context(), testDay+1))
	if rows(t, s, "tally") != 0 {
		t.Error("not pruned")
	}
}

// What one source brought for looking is forgotten, and nothing else. What
// several brought is listed and aggregated as one.
func TestForgetLooking(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	const domain = "example.com"
	must(t, s.RecordLooking(ctx, "a", []byte("position"), []schema.Count{success(domain, 3), failure(domain, 1, schema.CertificateExpired)},
		[]schema.Span{span("a", 1, 2, nil, nil)}))
	must(t, s.RecordLooking(ctx, "b", []byte("position"), []schema.Count{success(domain, 4), failure(domain, 1, schema.CertificateExpired)}, nil))
	record(t, s, success(domain, 10))
	rows := 0
	must(t, s.Pending(ctx, PendingFilter{}, func(p Pending) error {
		if rows++; p.State == StateNotSent && (p.Part != -1 || p.Success != 7 || p.Failure != 2 || p.Results[schema.CertificateExpired] != 2) {
			t.Errorf("%+v", p)
		}
		return nil
	}))
	if rows != 2 {
		t.Errorf("%d rows, want one for looking and one that is open", rows)
	}
	must(t, s.ForgetLooking(ctx, "a"))
	if got, want := pendingStates(t, s, domain), (map[State]int64{StateNotSent: 5, StateOpen: 10}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	a, err := s.Cursor(ctx, "a")
	must(t, err)
	b, err := s.Cursor(ctx, "b")
	must(t, err)
	spans, err := s.Spans(ctx)
	must(t, err)
	if a != nil || b == nil || len(spans) != 0 {
		t.Errorf("positions %q, %q, spans %v", a, b, spans)
	}
}

// A row of another program's database counts once, and again by what it grows.
func TestRecordImported(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	const domain = "example.com"
	row := func(key string, succeeded, failed int64) Imported {
		c := failure(domain, failed, schema.CertificateExpired)
		c.Success = succeeded
		return Imported{key, c}
	}
	for i, step := range []struct {
		row     Imported
		counted int64
		open    int64
	}{
		{row("1", 2, 1), 3, 3},
		{row("1", 2, 1), 0, 3},
		{row("1", 3, 2), 2, 5},
		{row("1", 1, 1), 0, 5}, // it shrank
		{row("1", 3, 2), 0, 5},
		{row("2", 3, 2), 5, 10},
	} {
		counts, err := s.RecordImported(ctx, "db", []Imported{step.row}, false)
		must(t, err)
		var n int64
		for _, c := range counts {
			n += c.Success + c.Failure
		}
		if open := pendingStates(t, s, domain)[StateOpen]; n != step.counted || open != step.open {
			t.Errorf("step %d: %d counted, %d in all; want %d, %d", i, n, open, step.counted, step.open)
		}
	}
	counts, err := s.RecordImported(ctx, "look", []Imported{row("1", 1, 1)}, true)
	must(t, err)
	if len(counts) != 1 || len(counts[0].Details) != 1 || pendingStates(t, s, domain)[StateNotSent] != 2 {
		t.Errorf("for looking: %+v", counts)
	}
	must(t, s.ForgetLooking(ctx, "look"))
	if _, looking := pendingStates(t, s, domain)[StateNotSent]; looking || rows(t, s, "imported") != 4 {
		t.Errorf("not forgotten: %d rows", rows(t, s, "imported"))
	}
	must(t, s.Prune(ctx, testDay+1))
	if rows(t, s, "imported") != 0 {
		t.Error("not pruned")
	}
}

// Spans outlive the process.
func TestSpansReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path, Options{})
	read(t, s, "source", span("a", 1, 2, []uint64{1 << 63}, nil))
	must(t, s.Close())
	all, err := openStore(t, path, Options{}).Spans(t.Context())
	must(t, err)
	if want := []SourceSpan{{"source", span("a", 1, 2, []uint64{1 << 63}, nil)}}; !reflect.DeepEqual(all, want) {
		t.Errorf("%+v", all)
	}
}
