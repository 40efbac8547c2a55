package agent

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// killEnv tells a copy of the test binary that it is the process to be killed:
// "store resolver relay".
const killEnv = "TLSRPT_TEST_KILL"

func TestMain(m *testing.M) {
	if args := os.Getenv(killEnv); args != "" {
		if err := submitAll(strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// submitAll is what the process to be killed does: all that is due.
func submitAll(args []string) error {
	store, err := aggregator.Open(args[0], aggregator.Options{})
	if err != nil {
		return err
	}
	relay, err := submitter.ParseRelay("smtp://"+args[2], "", submitter.RelayOptions{HELO: "out.example.com"})
	if err != nil {
		return err
	}
	a, err := New(Options{
		Store: store, Contact: "tls-reports@example.com",
		Submitter: &submitter.Submitter{Resolver: &resolve.Resolver{Servers: args[1:2]}, Mail: relay, ExternalDKIM: true},
	})
	if err != nil {
		return err
	}
	if err := a.Submit(context.Background(), Submission{}, nil); err != nil {
		return err
	}
	return store.Close()
}

// TestKill kills the submitting process at random instants, over closing,
// planning and delivering, until all is done. Each domain then has its report,
// under one report-id, with exact counts.
func TestKill(t *testing.T) {
	const domains, rounds = 400, 60
	world, err := receiver.Start(receiver.Options{})
	check(t, err)
	defer world.Close()
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	fill(t, path, world, domains)
	kills := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killEnv+"="+strings.Join([]string{path, world.Zone.Addr(), world.SMTP.Addr()}, " "))
		out := &strings.Builder{}
		cmd.Stderr = out
		check(t, cmd.Start())
		last := round == rounds-1
		if !last {
			delay := 10*time.Millisecond + rand.N(60*time.Millisecond)
			timer := time.AfterFunc(delay, func() { cmd.Process.Kill() })
			defer timer.Stop()
		}
		if err := cmd.Wait(); err != nil {
			if kills++; last || out.Len() > 0 {
				t.Fatalf("round %d: %v: %s", round, err, out)
			}
		}
		passLease(t, path)
	}
	if kills == 0 {
		t.Fatal("no process was killed before it was done")
	}
	t.Logf("%d of %d processes killed", kills, rounds)
	checkArrived(t, world, path, domains)
}

// fill counts sessions of the day before yesterday: i+1 with the i-th domain.
func fill(t *testing.T, path string, world *receiver.World, domains int) {
	t.Helper()
	store, err := aggregator.Open(path, aggregator.Options{})
	check(t, err)
	_, err = store.SubmissionSince(t.Context(), time.Now())
	check(t, err)
	var counts []schema.Count
	for i := range domains {
		domain := fmt.Sprintf("d%d.example", i)
		world.Publish(domain, "v=TLSRPTv1; rua=mailto:tls@"+domain)
		policy := schema.Policy{Type: schema.NoPolicyFound, Domain: domain}
		counts = append(counts, schema.Count{Day: schema.DayOf(time.Now()) - 2, Domain: domain, Policy: policy.Text(), Success: int64(i + 1)})
	}
	check(t, store.Record(t.Context(), "test", nil, counts))
	check(t, store.Close())
}

// passLease makes the leases of killed processes end, as time would.
func passLease(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path+"?_busy_timeout=5000")
	check(t, err)
	defer db.Close()
	_, err = db.Exec(`UPDATE delivery SET next = 1 WHERE state = 0 AND lease <> 0`)
	check(t, err)
}

func checkArrived(t *testing.T, world *receiver.World, path string, domains int) {
	t.Helper()
	ids, twice := map[string]string{}, 0
	for _, r := range world.Reports() {
		if id, ok := ids[r.Domain]; ok {
			if twice++; id != r.ReportID {
				t.Errorf("%s got the reports %s and %s", r.Domain, id, r.ReportID)
			}
		}
		ids[r.Domain] = r.ReportID
		var i int
		if _, err := fmt.Sscanf(r.Domain, "d%d.example", &i); err != nil || r.Sessions.Success != int64(i+1) {
			t.Errorf("%s: %d sessions", r.Domain, r.Sessions.Success)
		}
	}
	t.Logf("%d reports arrived twice, their acknowledgement was lost", twice)
	if len(ids) != domains {
		t.Errorf("%d of %d domains got a report", len(ids), domains)
	}
	store, err := aggregator.Open(path, aggregator.Options{})
	check(t, err)
	defer store.Close()
	check(t, store.Deliveries(t.Context(), aggregator.DeliveryFilter{}, func(d aggregator.Delivery) error {
		if d.State != aggregator.DeliverySent {
			t.Errorf("delivery to %s is %s after %d attempts: %s", d.RUA, d.State, d.Attempts, d.LastError)
		}
		return nil
	}))
}
