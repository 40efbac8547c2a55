package aggregator

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestRecord(t *testing.T) {
	s := newStore(t)
	none := schema.Policy{Type: schema.NoPolicyFound, Domain: "example.com"}
	mixed := failure("example.com", 2, schema.CertificateExpired)
	mixed.Success = 5
	mixed.Details = append(mixed.Details, schema.DetailsCount{Details: detailsText(schema.CertificateExpired, "mx2.example.net"), Sessions: 1})
	record(t, s, mixed, success("example.net", 7))
	record(t, s, success("example.com", 10), success("example.com", 100),
		failure("example.com", 1, schema.CertificateExpired), failure("example.com", 1, schema.CertificateNotTrusted),
		schema.Count{Day: testDay, Domain: "example.com", Policy: none.Text(), Success: 3},
		schema.Count{Day: testDay + 1, Domain: "example.com", Policy: none.Text(), Success: 9})

	got, err := s.Aggregate(context.Background(), domainDay(t, s, "example.com"))
	must(t, err)
	sts, err := policyText("example.com", 0).Policy()
	must(t, err)
	failed := func(result schema.ResultType, mx string, n int64) schema.FailureDetails {
		return schema.FailureDetails{ResultType: result, ReceivingMXHostname: mx, FailedSessionCount: n}
	}
	want := []schema.PolicyResult{
		{Policy: none, Summary: schema.Summary{Success: 3}},
		{Policy: sts, Summary: schema.Summary{Success: 115, Failure: 4}, FailureDetails: []schema.FailureDetails{
			failed(schema.CertificateExpired, "mx.example.net", 3),
			failed(schema.CertificateExpired, "mx2.example.net", 1),
			failed(schema.CertificateNotTrusted, "mx.example.net", 1),
		}},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Equal texts are one row, whatever refers to them.
func TestRecordKeepsTextsOnce(t *testing.T) {
	s := newStore(t)
	shared := policyText("example.org", 0)
	var counts []schema.Count
	for i := range 50 {
		c := failure(fmt.Sprintf("domain-%d.example", i), 1, schema.CertificateExpired)
		c.Policy, c.Day = shared, testDay+schema.Day(i%3)
		counts = append(counts, c)
	}
	record(t, s, counts...)
	record(t, s, counts...)
	for table, want := range map[string]int{"policy": 1, "detail": 1, "domain": 50, "tally": 50, "tally_detail": 50} {
		if n := rows(t, s, table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
}

func TestRecordIsAtomic(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	must(t, s.Record(ctx, "log", []byte("1"), []schema.Count{success("example.com", 1)}))
	bad := []schema.Count{success("example.com", 1), success("example.net", 1), success("example.org", -1)}
	bad[2].Day++ // so that it comes last
	for i := range bad {
		bad[i].Record = "v=TLSRPTv1; rua=mailto:a@example.com"
	}
	if err := s.Record(ctx, "log", []byte("2"), bad); err == nil {
		t.Fatal("a negative number was recorded")
	}
	if got := total(t, s, domainDay(t, s, "example.com")); got.Success != 1 {
		t.Errorf("%d sessions, want 1", got.Success)
	}
	if _, err := s.DomainDayOf(ctx, testDay, "example.net"); err != ErrNoData {
		t.Errorf("example.net: %v, want %v", err, ErrNoData)
	}
	if cursor, err := s.Cursor(ctx, "log"); err != nil || string(cursor) != "1" {
		t.Errorf("position %q, %v, want 1", cursor, err)
	}
	// What was remembered about records was not stored either.
	must(t, s.Record(ctx, "log", []byte("2"), bad[:1]))
	if got := domainDay(t, s, "example.com").Record; got != bad[0].Record {
		t.Errorf("record %q, want %q", got, bad[0].Record)
	}
}

func TestCursor(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	want := func(source, cursor string, isNil bool) {
		t.Helper()
		if got, err := s.Cursor(ctx, source); err != nil || string(got) != cursor || (got == nil) != isNil {
			t.Errorf("position of %s: %q, %v, want %q", source, got, err, cursor)
		}
	}
	want("a", "", true)
	must(t, s.Record(ctx, "a", []byte("x\x00y"), nil))
	must(t, s.Record(ctx, "b", []byte{}, nil))
	want("a", "x\x00y", false)
	want("b", "", false)
	must(t, s.Record(ctx, "a", nil, []schema.Count{success("example.com", 1)}))
	want("a", "x\x00y", false)

	must(t, s.Record(ctx, "a", bytes.Repeat([]byte("x"), 1<<20), nil))
	if err := s.Record(ctx, "a", bytes.Repeat([]byte("x"), 1<<20+1), nil); err == nil {
		t.Error("a position of more than 1 MiB was stored")
	}
}

func TestRecordFoldsPolicies(t *testing.T) {
	for _, batch := range []int{1, 7, 200} { // counts per transaction
		s := newStore(t)
		var counts []schema.Count
		for i := range 100 {
			c := failure("example.com", 1, schema.CertificateExpired)
			c.Success, c.Policy = 2, policyText("example.com", i)
			counts = append(counts, c)
		}
		for range 2 { // what is known stays what it was
			for part := range slices.Chunk(counts, batch) {
				record(t, s, part...)
			}
		}
		results, err := s.Aggregate(context.Background(), domainDay(t, s, "example.com"))
		must(t, err)
		if len(results) != maxPolicies+1 {
			t.Fatalf("batches of %d: %d policies, want %d", batch, len(results), maxPolicies+1)
		}
		for _, r := range results {
			if r.Policy.Strings != nil {
				continue
			}
			want := schema.Policy{Type: schema.STS, Domain: "example.com"}
			n := int64(2 * (100 - maxPolicies))
			if r.Policy.Text() != want.Text() || r.Summary != (schema.Summary{Success: 2 * n, Failure: n}) ||
				len(r.FailureDetails) != 1 || r.FailureDetails[0].FailedSessionCount != n {
				t.Errorf("batches of %d: folded %+v, want %d failures", batch, r, n)
			}
		}
		if got := total(t, s, domainDay(t, s, "example.com")); got != (schema.Summary{Success: 400, Failure: 200}) {
			t.Errorf("batches of %d: %+v", batch, got)
		}
		if stats, err := s.Stats(context.Background()); err != nil || stats.Folded != 2*3*(100-maxPolicies) {
			t.Errorf("batches of %d: %d folded, %v, want %d", batch, stats.Folded, err, 2*3*(100-maxPolicies))
		}
	}
}

func TestRecordFoldsDetails(t *testing.T) {
	s := newStore(t)
	const many = 600
	var counts []schema.Count
	for i := range many {
		c := failure("example.com", 1, schema.CertificateExpired)
		c.Details[0].Details = detailsText(schema.CertificateExpired, fmt.Sprintf("mx-%d.example.net", i))
		counts = append(counts, c)
	}
	for part := range slices.Chunk(counts, 50) {
		record(t, s, part...)
	}
	record(t, s, counts...)
	results, err := s.Aggregate(context.Background(), domainDay(t, s, "example.com"))
	must(t, err)
	details := results[0].FailureDetails
	if len(details) != maxDetails+1 {
		t.Fatalf("%d details, want %d", len(details), maxDetails+1)
	}
	folded := schema.FailureDetails{ResultType: schema.CertificateExpired, FailedSessionCount: 2 * (many - maxDetails)}
	if !slices.Contains(details, folded) {
		t.Errorf("no %+v", folded)
	}
	if results[0].Summary.Failure != 2*many {
		t.Errorf("%d failures, want %d", results[0].Summary.Failure, 2*many)
	}
	// The bound is per domain-day and part.
	other := failure("example.com", 1, schema.CertificateExpired)
	other.Day++
	record(t, s, other)
	if n := rows(t, s, fmt.Sprintf("tally_detail WHERE day = %d", testDay+1)); n != 1 {
		t.Errorf("%d details on the next day, want 1", n)
	}
}

func TestRecordText(t *testing.T) {
	s := newStore(t)
	const first, second = "v=TLSRPTv1; rua=mailto:a@example.com", "v=TLSRPTv1;rua=https://example.com/\x02"
	want := func(text string) {
		t.Helper()
		dd := domainDay(t, s, "example.com")
		if dd.Record != text || time.Since(dd.RecordSeen) > time.Minute && text != "" {
			t.Errorf("record %q seen %v, want %q", dd.Record, dd.RecordSeen, text)
		}
	}
	c := success("example.com", 1)
	c.Day = schema.DayOf(time.Now())
	yesterday := c
	yesterday.Day--
	at := func(c schema.Count, text string) schema.Count {
		c.Record = text
		return c
	}
	record(t, s, success("example.com", 1))
	want("")
	record(t, s, at(c, first), at(c, first))
	want(first)
	record(t, s, at(c, ""))
	want(first)
	record(t, s, at(c, second))
	want(second)
	record(t, s, at(yesterday, first)) // older than what is known
	want(second)
}

func TestRecordMarksAreBounded(t *testing.T) {
	var m recordMarks
	const hour = 3600
	for i := range int64(2 * maxRecordMarks) {
		m.fresh(i, "text", hour)
		if len(m.young)+len(m.old) > maxRecordMarks {
			t.Fatalf("%d marks after %d domains, want at most %d", len(m.young)+len(m.old), i, maxRecordMarks)
		}
	}
	last := int64(2*maxRecordMarks - 1)
	if !m.fresh(last, "text", hour) || m.fresh(last, "other", hour) || !m.fresh(last, "other", 2*hour-1) || m.fresh(last, "other", 2*hour) {
		t.Error("a mark is fresh for another text, or not for an hour")
	}
}

func TestPack(t *testing.T) {
	for _, text := range []string{
		"", "plain", "v=TLSRPTv1; rua=mailto:a@example.com", "\x01", "\x02", "a\x02b", "\x01\x02", "v=TLSRPTv1;rua=https://\x11",
		string(policyText("example.com", 1)), string(detailsText(schema.CertificateExpired, "mx.example.com")),
		string(schema.Policy{Type: schema.TLSA, Domain: "mx.example.com", Strings: []string{"3 1 1 AB", "3 1 1 CD"}}.Text()),
	} {
		if got := unpack(pack(text)); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func FuzzPack(f *testing.F) {
	for _, w := range words {
		f.Add(w + "x" + w)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := unpack(pack(text)); got != text {
			t.Errorf("%q became %q", text, got)
		}
		if len(pack(text)) > len(text)+1 {
			t.Errorf("%q grew to %q", text, pack(text))
		}
	})
}

// The words are part of the file's format, and each must stand for itself.
func TestWords(t *testing.T) {
	seen := map[string]bool{}
	for i := 0; i < len(words); i += 2 {
		code, word := words[i], words[i+1]
		if len(code) != 1 || code >= " " || code == verbatim || seen[code] || seen[word] {
			t.Errorf("%q for %q is not a byte of its own", code, word)
		}
		seen[code], seen[word] = true, true
	}
}

// TestAggregateSuccessDetails: a session may succeed after a fault, which is
// reported all the same.
func TestAggregateSuccessDetails(t *testing.T) {
	s := newStore(t)
	c := failure("example.com", 2, schema.CertificateExpired)
	c.Success, c.Failure = 2, 0
	record(t, s, c)
	results, err := s.Aggregate(context.Background(), domainDay(t, s, "example.com"))
	must(t, err)
	if len(results) != 1 || results[0].Summary != (schema.Summary{Success: 2}) ||
		len(results[0].FailureDetails) != 1 || results[0].FailureDetails[0].FailedSessionCount != 2 {
		t.Errorf("%+v", results)
	}
}
