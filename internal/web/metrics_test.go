package web

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ours is the lines of our own metrics, those that no run changes.
func ours(body string) string {
	var b strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "tlsrpt_") {
			b.WriteString(line)
		}
	}
	return regexp.MustCompile(`(?m)^(tlsrpt_store_(wal_)?bytes |tlsrpt_build_info.*goversion=").*`).ReplaceAllString(b.String(), "${1}…")
}

func TestMetrics(t *testing.T) {
	s := small(t)
	golden(t, "metrics-start.txt", []byte(ours(get(s, "/metrics").Body.String())))
	m := s.o.Metrics
	m.Committed(7*time.Millisecond, []schema.Count{{Success: 3, Failure: 2, Details: []schema.DetailsCount{
		{Details: schema.FailureDetails{ResultType: schema.DANERequired}.Text(), Sessions: 2},
		{Details: schema.FailureDetails{ResultType: hostile}.Text(), Sessions: 2}}}}, nil)
	m.Committed(time.Second, []schema.Count{{Success: 100}}, errors.New("disk full"))
	m.Attempted(aggregator.Delivery{RUA: "mailto:a@example.com"}, aggregator.Outcome{State: aggregator.DeliveryPending})
	m.Attempted(aggregator.Delivery{RUA: "https://example.com/"}, aggregator.Outcome{State: aggregator.DeliverySent})
	m.LookedUp("none")
	m.TopDomains = 1
	golden(t, "metrics.txt", []byte(ours(get(s, "/metrics").Body.String())))
}

// TestMetricsLint: names and helps are as Prometheus wants them.
func TestMetricsLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(small(t).o.Metrics.registry)
	must(t, err)
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "tlsrpt_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// No domain is a label unless that is asked for.
func TestMetricsNoDomains(t *testing.T) {
	if body := get(small(t), "/metrics").Body.String(); strings.Contains(body, ".example") {
		t.Error("a domain is in the metrics")
	}
}
