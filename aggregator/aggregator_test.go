package aggregator

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var _ collector.Sink = (*Store)(nil)

const testDay schema.Day = 20_000

// A quarter of an hour after testDay.
var testNow = (testDay + 1).Start().Add(15 * time.Minute)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		recordUntilKilled(path)
	}
	os.Exit(m.Run())
}

// newStore opens a store in a file of its own.
func newStore(t testing.TB) *Store {
	return openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{})
}

func openStore(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// must fails the test at once, for steps that prepare it.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// policyText is the policy of a domain in the n-th version.
func policyText(domain string, n int) schema.PolicyText {
	return schema.Policy{
		Type:    schema.STS,
		Strings: []string{"version: STSv1", "mode: enforce", "mx: mx.example.net", fmt.Sprintf("max_age: %d", 86400+n)},
		Domain:  domain,
		MXHosts: []string{"mx.example.net"},
	}.Text()
}

func detailsText(result schema.ResultType, mx string) schema.DetailsText {
	return schema.FailureDetails{ResultType: result, ReceivingMXHostname: mx}.Text()
}

// success counts n sessions of domain on testDay.
func success(domain string, n int64) schema.Count {
	return schema.Count{Day: testDay, Domain: domain, Policy: policyText(domain, 0), Success: n}
}

// failure counts n sessions of domain on testDay that failed in one way.
func failure(domain string, n int64, result schema.ResultType) schema.Count {
	return schema.Count{Day: testDay, Domain: domain, Policy: policyText(domain, 0), Failure: n,
		Details: []schema.DetailsCount{{Details: detailsText(result, "mx.example.net"), Sessions: n}}}
}

func record(t testing.TB, s *Store, counts ...schema.Count) {
	t.Helper()
	must(t, s.Record(context.Background(), "test", nil, counts))
}

// release lets everything up to testDay come due at testNow.
func release(t testing.TB, s *Store) {
	t.Helper()
	_, err := s.Release(context.Background(), testDay+1, time.Time{}, testNow)
	must(t, err)
}

func domainDay(t testing.TB, s *Store, domain string) DomainDay {
	t.Helper()
	dd, err := s.DomainDayOf(context.Background(), testDay, domain)
	must(t, err)
	return dd
}

// total is what is counted for a part of a domain-day.
func total(t testing.TB, s *Store, dd DomainDay) (sum schema.Summary) {
	t.Helper()
	results, err := s.Aggregate(context.Background(), dd)
	must(t, err)
	return (&schema.Report{Policies: results}).Totals()
}

// reportPlan is a plan to report dd to each rua.
func reportPlan(s *Store, dd DomainDay, ruas ...schema.RUA) Plan {
	return Plan{
		DomainDay: dd, State: StateReported, RUAs: ruas, First: testNow,
		Report: &Report{
			ID:        schema.ReportID(dd.Day, dd.Domain, s.Token(dd.Day, dd.Domain, dd.Part), "example.com"),
			Submitter: "example.com", FileName: "file.json.gz", From: "tls@example.com",
			MessageID: "id@example.com", Boundary: "boundary", Date: testNow, Text: "text", Gzip: []byte{1, 2, 0, 3},
		},
	}
}

// planned records a session of domain, releases its day and plans a report.
func planned(t testing.TB, s *Store, domain string, ruas ...schema.RUA) string {
	t.Helper()
	record(t, s, success(domain, 1))
	release(t, s)
	p := reportPlan(s, domainDay(t, s, domain), ruas...)
	must(t, s.Plan(context.Background(), p))
	return p.Report.ID
}

// rows is how many rows a table has.
func rows(t testing.TB, s *Store, table string) (n int) {
	t.Helper()
	must(t, s.readers.QueryRow(`SELECT count(*) FROM `+table).Scan(&n))
	return n
}
