package web

import (
	"context"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Metrics counts what happens. No label has a value that a stranger chose, but for
// the domains of [Metrics.TopDomains].
type Metrics struct {
	// TopDomains is how many of the domains that fail now have a series of their
	// own. Zero: none.
	TopDomains int

	registry *prometheus.Registry
	commits  *prometheus.CounterVec
	seconds  prometheus.Histogram
	sessions *prometheus.CounterVec
	failures *prometheus.CounterVec
	attempts *prometheus.CounterVec
	lookups  *prometheus.CounterVec
}

// resultTypes are those that are ever counted: schema makes all others a
// validation-failure.
var resultTypes = []schema.ResultType{
	schema.StartTLSNotSupported, schema.CertificateHostMismatch, schema.CertificateExpired, schema.CertificateNotTrusted,
	schema.ValidationFailure, schema.TLSAInvalid, schema.DNSSECInvalid, schema.DANERequired,
	schema.STSPolicyFetchError, schema.STSPolicyInvalid, schema.STSWebPKIInvalid,
}

// attemptResults are the ways in which an attempt ends.
var attemptResults = []aggregator.DeliveryState{
	aggregator.DeliverySent, aggregator.DeliveryPending, aggregator.DeliveryGaveUp, aggregator.DeliveryExpired,
}

// NewMetrics makes Metrics. Every series is there from the start, at 0: what is not
// there cannot be told from what never happened.
func NewMetrics(version string) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tlsrpt_" + name, Help: help}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		commits:  counter("store_commits_total", "Batches of counts that sources handed to the store.", "result"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tlsrpt_store_commit_seconds", Help: "Time that a batch took to be on the disk.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10},
		}),
		sessions: counter("sessions_total", "Sessions that were stored.", "result"),
		failures: counter("failures_total", "Failure details that were stored, by result type; one session may have several.", "result_type"),
		attempts: counter("delivery_attempts_total", "Attempts to deliver a report, by what became of it; retry: it is repeated.", "scheme", "result"),
		lookups:  counter("lookups_total", "Look-ups of TLSRPT records.", "result"),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tlsrpt_build_info", Help: "1, with the version."}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(m.commits, m.seconds, m.sessions, m.failures, m.attempts, m.lookups, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, result := range []string{"ok", "error"} {
		m.commits.WithLabelValues(result)
	}
	for _, result := range []string{"success", "failure"} {
		m.sessions.WithLabelValues(result)
	}
	for _, t := range resultTypes {
		m.failures.WithLabelValues(string(t))
	}
	for _, result := range []string{"found", "none", "error"} {
		m.lookups.WithLabelValues(result)
	}
	for _, state := range attemptResults {
		for _, scheme := range []string{"https", "mailto"} {
			m.attempts.WithLabelValues(scheme, attemptResult(state))
		}
	}
	return m
}

func attemptResult(s aggregator.DeliveryState) string {
	if s == aggregator.DeliveryPending {
		return "retry"
	}
	return string(s)
}

// Committed takes note of a commit of counts.
func (m *Metrics) Committed(took time.Duration, counts []schema.Count, err error) {
	m.seconds.Observe(took.Seconds())
	if err != nil {
		m.commits.WithLabelValues("error").Inc()
		return
	}
	m.commits.WithLabelValues("ok").Inc()
	var sum schema.Summary
	for i := range counts {
		sum.Success += counts[i].Success
		sum.Failure += counts[i].Failure
		for _, d := range counts[i].Details {
			if t := d.Details.ResultType(); t.Known() {
				m.failures.WithLabelValues(string(t)).Add(float64(d.Sessions))
			}
		}
	}
	m.sessions.WithLabelValues("success").Add(float64(sum.Success))
	m.sessions.WithLabelValues("failure").Add(float64(sum.Failure))
}

// Attempted takes note of an attempt to deliver.
func (m *Metrics) Attempted(d aggregator.Delivery, o aggregator.Outcome) {
	scheme := "https"
	if strings.HasPrefix(string(d.RUA), "mailto:") {
		scheme = "mailto"
	}
	if slices.Contains(attemptResults, o.State) {
		m.attempts.WithLabelValues(scheme, attemptResult(o.State)).Inc()
	}
}

// LookedUp takes note of a look-up: "found", "none" or "error".
func (m *Metrics) LookedUp(result string) { m.lookups.WithLabelValues(result).Inc() }

// handler answers with all metrics.
func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: pageTimeout})
}

// state is a prometheus.Collector of what is read when it is asked for.
type state struct{ *Server }

// descriptions of what state collects.
var (
	sourceUp        = describe("source_up", "Whether the source runs.", "source")
	sourceReceived  = describe("source_received_total", "Datagrams or log lines.", "source")
	sourceCounted   = describe("source_sessions_total", "Sessions that were counted.", "source")
	sourceMalformed = describe("source_malformed_total", "Datagrams that were refused.", "source", "class")
	sourceDropped   = describe("source_dropped_total", "Sessions of a log that were not counted.", "source", "reason")
	sourceLost      = describe("source_lost_sessions_total", "Sessions that no room was left for while the store took none.", "source")
	sourceFolded    = describe("source_folded_total", "Sessions that lost their strings to a bound before they reached the store.", "source")
	sourceNative    = describe("source_native_lost_total", "Events that Postfix says it could not hand to a socket.", "source")
	sourceLag       = describe("source_lag_bytes", "Bytes of a log that are still to be read.", "source")
	sourceMissing   = describe("source_missing_bytes_total", "Bytes of a log that are known to be gone.", "source")
	sourceGaps      = describe("source_gaps_total", "Times that lines of a log may be gone: a file was removed, cut or unreadable.", "source")
	sourceLast      = describe("source_last_session_timestamp_seconds", "When the newest sessions were stored; 0: none since the start.", "source")

	storeUp     = describe("store_up", "Whether the store could be read just now.")
	storeFolded = describe("store_folded_total", "Sessions or details that lost their strings to a bound.")
	storeBytes  = describe("store_bytes", "Size of the database file.")
	storeWAL    = describe("store_wal_bytes", "Size of the write-ahead log.")

	daysWaiting = describe("reports_waiting", "Reports that are to be made.")
	deliveries  = describe("deliveries", "Deliveries in the store.", "state")
	suppressed  = describe("suppressed_addresses", "Addresses that no report is mailed to for now, because mail to them bounced.")
	lastRun     = describe("last_run_timestamp_seconds", "When a day was last closed; 0: never.")
	nextRun     = describe("next_run_timestamp_seconds", "When days are submitted next; 0: submission is off.")
	relay       = describe("relay_refusing", "Whether the relay refused the newest attempts.")
	problem     = describe("problem", "Whether something keeps the agent from its work.", "part")

	failingNow  = describe("failing_domains", "Domains whose failures within the window are an alert.")
	windowLost  = describe("window_unlisted_sessions_total", "Sessions that had no room in the window of the alerts.")
	notices     = describe("alert_notices_total", "Notices that hooks were given.", "result")
	domainRatio = describe("domain_failure_ratio", "Share of failed sessions within the window, of the domains with most failures.", "domain")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tlsrpt_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector. It describes nothing in advance.
func (state) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s state) Collect(out chan<- prometheus.Metric) {
	emit := func(d *prometheus.Desc, v float64, labels ...string) {
		kind := prometheus.GaugeValue
		if strings.Contains(d.String(), `_total"`) {
			kind = prometheus.CounterValue
		}
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	s.collectSources(emit)
	s.collectStore(emit)
	s.collectAlerts(emit)
	emit(relay, truth(s.o.Monitor.RelayRefuses()))
	found := map[string]bool{}
	for _, p := range s.o.Monitor.Report().Problems {
		found[p.Part] = true
	}
	for _, part := range []string{"store", "source", "planning", "deliveries", "relay"} {
		emit(problem, truth(found[part]), part)
	}
	next := 0.0
	if s.o.NextRun != nil {
		next = unix(s.o.NextRun(s.now()))
	}
	emit(nextRun, next)
}

type emitter func(d *prometheus.Desc, v float64, labels ...string)

func (s state) collectSources(emit emitter) {
	for _, src := range s.o.Monitor.Sources() {
		emit(sourceUp, truth(src.Running), src.Name)
		emit(sourceReceived, float64(src.Received), src.Name)
		emit(sourceCounted, float64(src.Counted), src.Name)
		emit(sourceLost, float64(src.Lost), src.Name)
		emit(sourceFolded, float64(src.Folded), src.Name)
		emit(sourceNative, float64(src.NativeLost), src.Name)
		emit(sourceLag, float64(src.Lag), src.Name)
		emit(sourceMissing, float64(src.Missing), src.Name)
		emit(sourceGaps, float64(src.Gaps), src.Name)
		emit(sourceLast, unix(src.Last), src.Name)
		for class, n := range src.Malformed {
			emit(sourceMalformed, float64(n), src.Name, class)
		}
		for reason, n := range src.Dropped {
			emit(sourceDropped, float64(n), src.Name, reason)
		}
	}
}

func (s state) collectStore(emit emitter) {
	ctx, cancel := context.WithTimeout(context.Background(), pageTimeout)
	defer cancel()
	o, err := s.o.Store.Overview(ctx)
	var stats aggregator.Stats
	if err == nil {
		stats, err = s.o.Store.Stats(ctx)
	}
	held := 0
	if err == nil {
		held, err = s.inForce(ctx)
	}
	emit(storeUp, truth(err == nil))
	if err != nil {
		return // a gap says more than a zero
	}
	emit(storeFolded, float64(stats.Folded))
	emit(storeBytes, float64(stats.Size))
	emit(storeWAL, float64(stats.Log))
	emit(daysWaiting, float64(stats.Waiting))
	emit(suppressed, float64(held))
	emit(lastRun, unix(o.Closed))
	for state, n := range o.Deliveries {
		emit(deliveries, float64(n), string(state))
	}
}

func (s state) collectAlerts(emit emitter) {
	if s.o.Alerter == nil {
		return
	}
	listed := s.o.Alerter.Listed(s.now())
	emit(failingNow, float64(len(listed)))
	emit(windowLost, float64(s.o.Alerter.Window().Unlisted()))
	sent, failed := s.o.Alerter.Stats()
	emit(notices, float64(sent-failed), "ok")
	emit(notices, float64(failed), "error")
	if s.o.Metrics.TopDomains == 0 {
		return
	}
	top := s.o.Alerter.Window().Rates(s.now(), 1)
	for _, r := range top[:min(len(top), s.o.Metrics.TopDomains)] {
		emit(domainRatio, r.Share(), r.Domain)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix is t in seconds, 0 for the zero time.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
