package aggregator

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"pgregory.net/rapid"
)

// model is what must be true of sessions: each is waiting, was reported once, or
// belonged to a domain that nothing is owed to.
type model struct {
	stores   []*Store // on one file
	read     map[modelKey]DomainDay
	counted  map[modelKey]schema.Summary
	reported map[modelKey]schema.Summary
	ended    map[modelKey]bool // without a report
	closed   schema.Day        // days before it are
	commits  int
}

type modelKey struct {
	schema.Day
	domain string
}

func add(a, b schema.Summary) schema.Summary {
	return schema.Summary{Success: a.Success + b.Success, Failure: a.Failure + b.Failure}
}

func (m *model) store(t *rapid.T) *Store { return rapid.SampledFrom(m.stores).Draw(t, "store") }

func (m *model) key(t *rapid.T) modelKey {
	return modelKey{
		testDay + rapid.Custom(func(t *rapid.T) schema.Day { return schema.Day(rapid.IntRange(0, 2).Draw(t, "n")) }).Draw(t, "day"),
		fmt.Sprintf("domain-%d.example", rapid.IntRange(0, 2).Draw(t, "domain")),
	}
}

// record adds counts, some of which name the same policy twice.
func (m *model) record(t *rapid.T) {
	var counts []schema.Count
	for range rapid.IntRange(1, 6).Draw(t, "counts") {
		k := m.key(t)
		c := failure(k.domain, int64(rapid.IntRange(0, 3).Draw(t, "failed")), schema.CertificateExpired)
		c.Day, c.Policy = k.Day, policyText(k.domain, rapid.IntRange(0, 2).Draw(t, "policy"))
		c.Success = int64(rapid.IntRange(0, 3).Draw(t, "succeeded"))
		counts = append(counts, c)
		m.counted[k] = add(m.counted[k], schema.Summary{Success: c.Success, Failure: c.Failure})
	}
	m.commits++
	cursor := fmt.Append(nil, m.commits)
	if err := m.store(t).Record(context.Background(), "model", cursor, counts); err != nil {
		t.Fatal(err)
	}
}

func (m *model) release(t *rapid.T) {
	m.closed = max(m.closed, m.key(t).Day)
	if _, err := m.store(t).Release(context.Background(), m.closed, time.Time{}, testNow); err != nil {
		t.Fatal(err)
	}
}

// look reads a domain-day that is to be planned later.
func (m *model) look(t *rapid.T) {
	k := m.key(t)
	dd, err := m.store(t).DomainDayOf(context.Background(), k.Day, k.domain)
	if _, counted := m.counted[k]; (err == nil) != counted {
		t.Fatalf("%v: %v, counted: %t", k, err, counted)
	}
	if err == nil {
		m.read[k] = dd
	}
}

// plan ends a domain-day as it was read some time ago.
func (m *model) plan(t *rapid.T) {
	k := m.key(t)
	dd, ok := m.read[k]
	if !ok {
		return
	}
	s := m.store(t)
	results, err := s.Aggregate(context.Background(), dd)
	if err != nil {
		t.Fatal(err)
	}
	p := reportPlan(s, dd, "mailto:a@example.com")
	if rapid.IntRange(0, 3).Draw(t, "without record") == 0 {
		p = Plan{DomainDay: dd, State: StateNoRecord}
	}
	switch err := s.Plan(context.Background(), p); err {
	case ErrPlanned, ErrChanged, ErrNotClosed:
	case nil:
		m.ended[k] = p.State == StateNoRecord
		if !m.ended[k] {
			m.reported[k] = add(m.reported[k], (&schema.Report{Policies: results}).Totals())
		}
	default:
		t.Fatal(err)
	}
}

// check compares each domain-day with the model.
func (m *model) check(t *rapid.T) {
	ctx := context.Background()
	s := m.stores[0]
	if cursor, err := s.Cursor(ctx, "model"); err != nil || m.commits > 0 && string(cursor) != fmt.Sprint(m.commits) {
		t.Fatalf("position %s, %v, want %d", cursor, err, m.commits)
	}
	for k, want := range m.counted {
		dd, err := s.DomainDayOf(ctx, k.Day, k.domain)
		if err != nil {
			t.Fatal(err)
		}
		if dd.version >= 0 && dd.Totals != want {
			t.Fatalf("%v: totals %v, counted %v", k, dd.Totals, want)
		}
		if m.ended[k] != (dd.State == StateNoRecord) {
			t.Fatalf("%v is %s, ended without a report: %t", k, dd.State, m.ended[k])
		}
		got := m.reported[k]
		if !dd.State.Ended() {
			results, err := s.Aggregate(ctx, dd)
			if err != nil {
				t.Fatal(err)
			}
			got = add(got, (&schema.Report{Policies: results}).Totals())
		}
		if !m.ended[k] && got != want {
			t.Fatalf("%v: %v reported or waiting, %v counted", k, got, want)
		}
	}
}

// Whatever happens in whatever order, in two processes, no session is counted
// twice or lost.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprintf("%d.db", n))
		m := model{
			read: map[modelKey]DomainDay{}, counted: map[modelKey]schema.Summary{},
			reported: map[modelKey]schema.Summary{}, ended: map[modelKey]bool{},
		}
		for range 2 {
			s, err := Open(path, Options{})
			if err != nil {
				rt.Fatal(err)
			}
			defer s.Close()
			m.stores = append(m.stores, s)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"record": m.record, "release": m.release, "look": m.look, "plan": m.plan, "": m.check,
		})
	})
}
