package loggen_test

import (
	"bytes"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

func options() postfixlog.Options {
	return postfixlog.Options{Location: time.UTC, Latest: func() time.Time {
		return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	}}
}

// write is a log of n lines, and the rest.
func write(l *loggen.Log, n int) (b []byte) {
	for range n {
		b = l.Append(b)
	}
	return l.AppendRest(b)
}

// TestSessions: the parser finds the sessions that the log knows of, no other
// ones, in every format and with few processes or many.
func TestSessions(t *testing.T) {
	for _, o := range []loggen.Options{
		{Seed: 1}, {Seed: 2, Traditional: true}, {Seed: 3, Processes: 1}, {Seed: 4, Processes: 2000}, {Seed: 5, Domains: 1, Processes: 1}, {Seed: 6, Domains: 3, Processes: 2},
	} {
		t.Run(fmt.Sprint(o.Seed), func(t *testing.T) {
			l := loggen.New(o)
			text := write(l, 40_000)
			got := make(map[loggen.Key]int64)
			p := postfixlog.NewParser(options())
			p.Parse(text, func(s *postfixlog.Session) { got[loggen.Key{Domain: s.Domain, Result: s.Result}]++ })
			want := l.Sessions()
			for k := range maps.Keys(want) {
				if got[k] != want[k] {
					t.Fatalf("%v: %d sessions found, %d written; %+v", k, got[k], want[k], p.Stats())
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d keys found, %d written", len(got), len(want))
			}
			if st := p.Stats(); st.Dropped[postfixlog.DropUnjoined] > 0 || st.Client != l.Stats().Client || st.Lines != l.Stats().Lines {
				t.Errorf("%+v, the log has %+v", st, l.Stats())
			}
		})
	}
}

// TestRealistic holds a log to what makes it like those of relays.
func TestRealistic(t *testing.T) {
	l := loggen.New(loggen.Options{})
	text := write(l, 200_000)
	domains := make(map[string]bool)
	for k := range l.Sessions() {
		domains[k.Domain] = true
	}
	st := l.Stats()
	share := float64(st.Client) / float64(st.Lines)
	if share < 0.35 || share > 0.45 || len(domains) < 8_000 {
		t.Errorf("%d domains, %.0f %% of the lines are of smtp(8)", len(domains), 100*share)
	}
	if int64(len(text)) != st.Bytes || int64(bytes.Count(text, []byte("\n"))) != st.Lines {
		t.Errorf("%d bytes, %+v", len(text), st)
	}
}

// TestSame: equal options give equal logs, and another seed another one.
func TestSame(t *testing.T) {
	a, b := write(loggen.New(loggen.Options{Seed: 7}), 1000), write(loggen.New(loggen.Options{Seed: 7}), 1000)
	if !bytes.Equal(a, b) {
		t.Error("the same options give two logs")
	}
	if c := write(loggen.New(loggen.Options{Seed: 8}), 1000); bytes.Equal(a, c) {
		t.Error("two seeds give the same log")
	}
}

// TestMX: a name that is none of the log's has no MX.
func TestMX(t *testing.T) {
	if got := loggen.MX("x-8.example"); got != "mx.x-8.example" {
		t.Errorf("x-8.example: %q", got)
	}
	if got := loggen.MX("example"); got != "" {
		t.Errorf("example: %q", got)
	}
}
