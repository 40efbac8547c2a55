package web

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/alert"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/health"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

var update = flag.Bool("update", false, "write golden files anew")

// monitor is a Monitor that says what it is told to.
type monitor struct {
	report  health.Report
	sources []health.Source
	refuses bool
}

func (m *monitor) Report() health.Report    { return m.report }
func (m *monitor) Alive() bool              { return m.report.Alive() }
func (m *monitor) Sources() []health.Source { return m.sources }
func (m *monitor) RelayRefuses() bool       { return m.refuses }

// testDay and testNow are what the clock of a test server shows.
const testDay schema.Day = 20779 // 2026-11-22

var testNow = testDay.Start().Add(14*time.Hour + 5*time.Minute)

// healthy is a monitor of two sources that do well.
func healthy(now time.Time) *monitor {
	return &monitor{
		report: health.Report{At: now, Problems: []health.Problem{}},
		sources: []health.Source{
			{Name: "libtlsrpt:/var/spool/postfix/run/tlsrpt/tlsrpt.sock", Running: true, Last: now.Add(-3 * time.Second),
				Received: 1234567, Counted: 1234560, Malformed: map[string]int64{"syntax": 7, "bounds": 0}, Folded: 12},
			{Name: "postfix_log:/var/log/mail.log:postfix", Running: true, Last: now.Add(-3 * time.Minute), Received: 99, Counted: 5, Lag: 4096,
				NativeLost: 3, Dropped: map[string]int64{"unjoined": 2}},
		},
	}
}

// options are those of a server whose clock shows now.
func options(store Store, now time.Time) Options {
	window := alert.NewWindow(time.Hour)
	window.Record(now, []schema.Count{
		{Day: schema.DayOf(now), Domain: name(20), Success: 10, Failure: 30, Details: []schema.DetailsCount{
			{Details: schema.FailureDetails{ResultType: schema.CertificateExpired}.Text(), Sessions: 30}}},
		{Day: schema.DayOf(now), Domain: name(1), Success: 1000},
	})
	return Options{
		Store: store, Monitor: healthy(now), Metrics: NewMetrics("1.2.3"), Version: "1.2.3", Keep: 30 * 24 * time.Hour,
		Alerter: alert.New(alert.Options{Window: window, Threshold: 0.1, MinSessions: 20, Pause: time.Hour}),
		NextRun: func(now time.Time) time.Time { return now.Add(10*time.Hour + 10*time.Minute) },
		Preview: func(_ context.Context, domain string, day schema.Day) (submitter.Parcel, error) {
			if day > testDay && domain == name(3) {
				return submitter.Parcel{}, aggregator.ErrNoData
			}
			return submitter.Parcel{Domain: domain, ReportID: "2026-11-22.x." + domain + "@example.com", Submitter: "example.com",
				FileName: "example.com!" + domain + "!1!2!x.json.gz", Gzip: zip("{\n  \"organization-name\": \"" + hostile + "\"\n}\n")}, nil
		},
		Message: func(p submitter.Parcel, to schema.RUA) ([]byte, error) {
			return []byte("To: " + to.Address() + "\r\nTLS-Report-Domain: " + p.Domain + "\r\n\r\n"), nil
		},
	}
}

func newServer(t testing.TB, o Options, now time.Time) *Server {
	t.Helper()
	s, err := New(o)
	must(t, err)
	s.now = func() time.Time { return now }
	return s
}

// get is the answer to a request from this host.
func get(s http.Handler, url string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8460"+url, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}
