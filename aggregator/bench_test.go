package aggregator

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// load makes sessions of many domains: 40 % DANE, 40 % MTA-STS, 20 % without a
// policy, one in twenty failed; policies of about 320 bytes as a datagram.
type load struct {
	rand    *rand.Rand
	domains int
}

func (l load) session() schema.Session {
	n := l.rand.IntN(l.domains)
	domain := fmt.Sprintf("domain-%06d.example", n)
	s := schema.Session{Domain: domain, Record: "v=TLSRPTv1; rua=mailto:tls-reports@" + domain}
	p := schema.Policy{Type: schema.NoPolicyFound}
	fault := schema.StartTLSNotSupported
	switch n % 5 {
	case 0, 1:
		p = schema.Policy{Type: schema.TLSA, Domain: "mx." + domain, Strings: []string{fmt.Sprintf("3 1 1 %064X", n)}}
		fault = schema.CertificateExpired
	case 2, 3:
		p = schema.Policy{Type: schema.STS, MXHosts: []string{"*.mail." + domain}, Strings: []string{
			"version: STSv1", "mode: enforce", "mx: *.mail." + domain, "max_age: 604800"}}
		fault = schema.CertificateHostMismatch
	}
	r := schema.Result{Policy: p}
	if l.rand.IntN(20) == 0 {
		r.Failed = true
		r.Details = []schema.FailureDetails{{ResultType: fault, ReceivingMXHostname: "mx." + domain}}
	}
	s.Results = []schema.Result{r}
	c, err := s.Canonical()
	if err != nil {
		panic(err)
	}
	return c
}

func (l load) counts(day schema.Day, n int) []schema.Count {
	counts := make([]schema.Count, n)
	for i := range counts {
		s := l.session()
		r := s.Results[0]
		counts[i] = schema.Count{Day: day, Domain: s.Domain, Record: s.Record, Policy: r.Policy.Text(), Success: 1}
		if r.Failed {
			counts[i].Success, counts[i].Failure = 0, 1
			counts[i].Details = []schema.DetailsCount{{Details: r.Details[0].Text(), Sessions: 1}}
		}
	}
	return counts
}

// BenchmarkRecord counts 500,000 sessions of 100,000 domains in batches of
// 10,000, so that one in five is the first of its domain. It then repeats the
// batches: the steady state.
func BenchmarkRecord(b *testing.B) {
	const batch, batches = 10_000, 50
	l := load{rand.New(rand.NewPCG(1, 2)), 100_000}
	all := make([][]schema.Count, batches)
	for i := range all {
		all[i] = l.counts(testDay, batch)
	}
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "store.db")
		s, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		for _, pass := range []string{"first", "steady"} {
			start, cpu := time.Now(), cpuTime()
			for _, counts := range all {
				if err := s.Record(context.Background(), "bench", []byte("position"), counts); err != nil {
					b.Fatal(err)
				}
			}
			n := float64(batch * batches)
			b.ReportMetric(n/time.Since(start).Seconds(), pass+"-counts/s")
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/n, pass+"-cpu-µs/count")
		}
		if err := s.Close(); err != nil { // moves the log into the file
			b.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/1e6, "MB")
	}
}

// cpuTime is what this process used of the processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkClaim takes and settles 20,000 deliveries on 50 hosts.
func BenchmarkClaim(b *testing.B) {
	const domains, hosts = 20_000, 50
	ctx := context.Background()
	for b.Loop() {
		b.StopTimer()
		s := newStore(b)
		counts := make([]schema.Count, domains)
		for i := range counts {
			counts[i] = success(fmt.Sprintf("domain-%d.example", i), 1)
		}
		record(b, s, counts...)
		release(b, s)
		must(b, s.write(ctx, "planning", func(tx *sql.Tx) error { // at once, or it takes most of the time
			for i := range counts {
				dd := DomainDay{Day: testDay, Domain: counts[i].Domain}
				p := reportPlan(s, dd, schema.RUA(fmt.Sprintf("mailto:a@host-%d.example", i%hosts)))
				if err := addReport(tx, &p, s.keys.domain(dd.Domain), testNow); err != nil {
					return err
				}
			}
			return nil
		}))
		b.StartTimer()
		claimed := 0
		for start := time.Now(); ; b.ReportMetric(float64(claimed)/time.Since(start).Seconds(), "deliveries/s") {
			got := claim(b, s, testNow, Claim{PerHost: 2})
			if len(got) == 0 {
				break
			}
			claimed += len(got)
			outcomes := make([]Outcome, len(got))
			for i, d := range got {
				outcomes[i] = outcome(d, DeliverySent)
			}
			must(b, s.Settle(ctx, outcomes))
		}
		if claimed != domains {
			b.Fatalf("%d deliveries, want %d", claimed, domains)
		}
	}
}
