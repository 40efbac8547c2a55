package agent

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// danes records a session with domain held against the DANE policy of base, and
// one against its MTA-STS policy.
func (b *bench) danes(domain, base string) {
	b.Helper()
	check(b.T, b.Record(schema.Session{Domain: domain, Results: []schema.Result{
		{Policy: schema.Policy{Type: schema.TLSA, Domain: base, Strings: []string{"3 1 1 AB"}}, Failed: true,
			Details: []schema.FailureDetails{{ResultType: schema.CertificateExpired}}},
		{Policy: schema.Policy{Type: schema.STS, Domain: domain}},
	}}))
}

// TestMXHostReports: the TLSA base domain gets a report of the DANE sessions of
// all its domains, if it has a record; each domain's report is as before.
func TestMXHostReports(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restart(Options{MXHostReports: true})
		b.records["mx.example.net"] = "v=TLSRPTv1; rua=mailto:reports@mx.example.net"
		b.danes("a.example", "mx.example.net")
		b.danes("b.example", "MX.example.net.")
		b.danes("own.example", "own.example") // once, not twice
		b.danes("c.example", "silent.example.net")
		b.until(day0+1, "06:00")
		b.want("a.example 2000-01-01 1/1", "b.example 2000-01-01 1/1", "c.example 2000-01-01 1/1",
			"mx.example.net 2000-01-01 0/2", "own.example 2000-01-01 1/1")
		for _, r := range b.reports(b.T) {
			if r.Policies[0].Policy.Domain != "mx.example.net" || len(r.Policies) != 1 {
				continue
			}
			p := r.Policies[0]
			if p.Policy.Type != schema.TLSA || !slices.Equal(p.Policy.Strings, []string{"3 1 1 AB"}) ||
				len(p.FailureDetails) != 1 || p.FailureDetails[0].FailedSessionCount != 2 {
				b.Errorf("the report about the MX host has %+v", p)
			}
		}
		if got := b.state("silent.example.net", day0); got != aggregator.StateNoRecord {
			b.Errorf("an MX host without record is %s", got)
		}
	}, "a.example", "b.example", "c.example", "own.example")
}

// TestMXHostTold: an MX host whose destinations are those of all its domains has
// been told by their reports.
func TestMXHostTold(t *testing.T) {
	const shared, other = "v=TLSRPTv1; rua=mailto:tls@example.net,mailto:tls2@example.net", "v=TLSRPTv1; rua=mailto:tls@example.net"
	for _, c := range []struct {
		name     string
		a, b, mx string
		own      bool // the host has a session of its own
		want     aggregator.State
	}{
		{"the same", shared, "v=TLSRPTv1; rua=mailto:tls2@example.net,mailto:tls@example.net", shared, false, aggregator.StateExcluded},
		{"one of two", shared, other, shared, false, aggregator.StateReported},
		{"a domain without record", shared, "", shared, false, aggregator.StateReported},
		{"sessions of its own", shared, shared, shared, true, aggregator.StateReported},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				b.restart(Options{MXHostReports: true})
				for d, record := range map[string]string{"a.example": c.a, "b.example": c.b, "mx.example": c.mx} {
					if record != "" {
						b.records[d] = record
					}
				}
				b.danes("a.example", "mx.example")
				b.danes("b.example", "mx.example")
				if c.own {
					b.danes("mx.example", "mx.example")
				}
				b.until(day0+1, "06:00")
				if got := b.state("mx.example", day0); got != c.want {
					b.Errorf("the MX host is %s, want %s", got, c.want)
				}
			})
		})
	}
}

// fakeSource hands over one count, with a span where it can.
type fakeSource struct{ count schema.Count }

func (fakeSource) Name() string { return "fake" }
func (s fakeSource) Run(ctx context.Context, sink collector.Sink) error {
	spans, ok := sink.(collector.SpanSink)
	if !ok {
		return errors.New("the sink remembers no spans")
	}
	return spans.RecordSpans(ctx, "fake", []byte{1}, []schema.Count{s.count}, nil)
}

type nativeSource struct{ fakeSource }

func (nativeSource) Native() {}

// TestMXHostsOfSources: what a log source counts goes to the MX host too, with
// its position; what a mail server itself told of does not.
func TestMXHostsOfSources(t *testing.T) {
	policy := schema.Policy{Type: schema.TLSA, Domain: "mx.example"}
	count := schema.Count{Day: day0, Domain: "a.example", Record: "v=TLSRPTv1; rua=mailto:a@a.example", Policy: policy.Text(), Success: 3}
	for name, c := range map[string]struct {
		source collector.Source
		on     bool
		want   int64
	}{
		"log":    {fakeSource{count}, true, 3},
		"native": {nativeSource{fakeSource{count}}, true, 0},
		"off":    {fakeSource{count}, false, 0},
	} {
		bubble(t, func(b *bench) {
			b.restart(Options{Sources: []collector.Source{c.source}, MXHostReports: c.on})
			b.until(day0, "00:01")
			for d, want := range map[string]int64{"a.example": 3, "mx.example": c.want} {
				if got, err := b.store.Sessions(b.Context(), day0, d); err != nil || got != want {
					b.Errorf("%s: %d sessions of %s (%v), want %d", name, got, d, err, want)
				}
			}
			if cursor, err := b.store.Cursor(b.Context(), "fake"); err != nil || len(cursor) != 1 {
				b.Errorf("%s: position %v (%v)", name, cursor, err)
			}
			if dd, err := b.store.DomainDayOf(b.Context(), day0, "mx.example"); err == nil && dd.Record != "" {
				b.Errorf("%s: the record of another domain is that of the MX host: %q", name, dd.Record)
			}
		})
	}
}
