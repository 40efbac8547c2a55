package schema_test

import (
	"reflect"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestSpan(t *testing.T) {
	s := schema.Span{From: 100, To: 100}
	s.Note(100, 1)
	s.See(101)
	s.Note(102, 2)
	s.Note(102, 3)
	for _, c := range []struct {
		at   int64
		line uint64
		want bool
	}{
		{99, 1, false},
		{100, 1, true},
		{100, 9, false}, // of the first second, before what was read
		{101, 9, true},  // within
		{102, 2, true},
		{102, 3, true},
		{102, 9, false}, // of the last second, after what was read
		{103, 2, false},
	} {
		if got := s.Covers(c.at, c.line); got != c.want {
			t.Errorf("Covers(%d, %d) = %t", c.at, c.line, got)
		}
	}
	s.See(98) // a line of another process
	if s.Covers(98, 1) || !s.Covers(100, 9) {
		t.Errorf("grown at its beginning: %+v", s)
	}
}

func TestSpanFull(t *testing.T) {
	s := schema.Span{From: 100, To: 100}
	for i := range schema.MaxSpanLines + 10 {
		s.Note(100, uint64(i))
	}
	if !s.Covers(100, 1<<60) || len(s.First) > schema.MaxSpanLines {
		t.Errorf("%d lines are remembered, and another one of the second is not covered", len(s.First))
	}
}

func TestSpanJoin(t *testing.T) {
	a := schema.Span{From: 1, To: 5, First: []uint64{1}, Last: []uint64{2, 3}}
	for _, c := range []struct{ b, want schema.Span }{
		{schema.Span{From: 5, To: 9, First: []uint64{4}, Last: []uint64{6}}, schema.Span{From: 1, To: 9, First: []uint64{1}, Last: []uint64{6}}},
		{schema.Span{From: 5, To: 5, First: []uint64{3, 4}, Last: []uint64{3, 4}}, schema.Span{From: 1, To: 5, First: []uint64{1}, Last: []uint64{2, 3, 4}}},
		{schema.Span{From: 0, To: 1, First: []uint64{7}}, schema.Span{From: 0, To: 5, First: []uint64{7}, Last: []uint64{2, 3}}},
		{schema.Span{From: 2, To: 3}, a},
	} {
		if got := a.Join(c.b); !reflect.DeepEqual(got, c.want) {
			t.Errorf("joined with %+v: %+v, want %+v", c.b, got, c.want)
		}
		if got := c.b.Join(a); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v joined the other way: %+v, want %+v", c.b, got, c.want)
		}
	}
}

func TestLogHost(t *testing.T) {
	for in, want := range map[string]string{"mx1": "mx1", "MX1.example.com": "mx1", "192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "": ""} {
		if got := schema.LogHost(in); got != want {
			t.Errorf("LogHost(%q) = %q, want %q", in, got, want)
		}
	}
}
