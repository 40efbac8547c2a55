package agent

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/libtlsrpt"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var cardinality = flag.Int("cardinality.sessions", 200_000, "sessions of TestCardinality")

// Bounds on what an attack by cardinality may cost.
const (
	mostHeap     = 128 << 20
	mostDatabase = 32 << 20
)

const (
	attacked  = "attacked.example"
	bystanders = 1000 // domains
)

// attack is one session with a policy, an MX host, an EHLO name and a reason that
// no other session has.
func attack(r *rand.Rand) []byte {
	return fmt.Appendf(nil, `{"dpv":"1","d":%q,"pr":"v=TLSRPTv1;rua=mailto:tls@%[1]s","policies":[{"policy-type":2,"policy-domain":%[1]q,`+
		`"policy-string":["version: STSv1","mode: enforce","mx: mx%[2]d.example","max_age: 86400"],"mx-host":["mx%[2]d.example"],`+
		`"failure-details":[{"c":%[3]d,"s":"192.0.2.1","n":"mx%[2]d.example","h":"250-helo%[2]d.example\r\n250 SIZE","r":"198.51.100.%[4]d","f":"reason %[2]d"}],"t":1,"f":1}]}`,
		attacked, r.Uint64(), 201+r.IntN(5), r.IntN(256))
}

// TestCardinality attacks with sessions that are all different, among those of
// others. Memory, database and report stay within their bounds, and the counts of
// all domains are exact.
func TestCardinality(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	store, err := aggregator.Open(path, aggregator.Options{})
	check(t, err)
	socket := filepath.Join(t.TempDir(), "s")
	source, err := libtlsrpt.Listen(libtlsrpt.Options{Path: socket})
	check(t, err)
	a, err := New(Options{Store: store, Sources: []collector.Source{source}, Contact: "tls-reports@example.com"})
	check(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()

	conn, err := net.Dial("unixgram", socket)
	check(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	want, heap := map[string]int64{}, uint64(0)
	day, start := schema.DayOf(time.Now()), time.Now()
	for i := range *cardinality {
		domain, datagram := attacked, attack(r)
		if i%10 == 0 {
			domain = fmt.Sprintf("d%d.example", i/10%bystanders)
			datagram = fmt.Appendf(nil, `{"dpv":"1","d":%q,"pr":"v=TLSRPTv1;rua=mailto:tls@%[1]s","policies":[{"policy-type":9,"policy-domain":%[1]q,"t":0,"f":0}]}`, domain)
		}
		_, err := conn.Write(datagram)
		check(t, err)
		want[domain]++
		if i%10_000 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap = max(heap, m.HeapInuse)
		}
	}
	took := time.Since(start)
	stop()
	check(t, <-done)
	stats := source.Stats()
	t.Logf("%d sessions, %.0f a second; heap %d MB; counter %+v", *cardinality, float64(*cardinality)/took.Seconds(), heap>>20, stats.Counter)
	if heap > mostHeap {
		t.Errorf("the heap grew to %d MB", heap>>20)
	}
	if schema.DayOf(time.Now()) != day {
		t.Skip("midnight came between")
	}
	for domain, n := range want {
		d, err := store.DomainDayOf(t.Context(), day, domain)
		check(t, err)
		policies, err := store.Aggregate(t.Context(), d)
		check(t, err)
		total := (&schema.Report{Policies: policies}).Totals()
		if got := total.Success + total.Failure; got != n {
			t.Errorf("%s: %d sessions, want %d", domain, got, n)
		}
	}
	parcel, err := a.Preview(t.Context(), attacked, day)
	check(t, err)
	if faults := schema.ValidateJSON(parcel.Gzip); len(faults) > 0 {
		t.Errorf("the report has faults: %v", faults)
	}
	report, err := schema.Decode(parcel.Gzip)
	check(t, err)
	if got := report.Totals().Failure; got != want[attacked] {
		t.Errorf("the report has %d failures, want %d", got, want[attacked])
	}
	check(t, store.Close())
	info, err := os.Stat(path)
	check(t, err)
	t.Logf("database %d KB, report %d KB packed, %d policies", info.Size()>>10, len(parcel.Gzip)>>10, len(report.Policies))
	if info.Size() > mostDatabase {
		t.Errorf("the database has %d bytes", info.Size())
	}
}
