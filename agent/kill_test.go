package agent

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

var killRounds = flag.Int("chaos.rounds", 60, "processes that TestKill starts")

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
	counting, counted := make(chan struct{}), make(chan error, 1)
	go func() { counted <- countLate(store, counting) }()
	err = a.Submit(context.Background(), Submission{}, nil)
	close(counting)
	if err := errors.Join(err, <-counted); err != nil {
		return err
	}
	return store.Close()
}

// lateDomains are those of countLate.
const lateDomains = 5

// countLate counts one session of each of a few domains, again and again, on a day
// that is over, with how many it counted for its position.
func countLate(store *aggregator.Store, stop <-chan struct{}) error {
	ctx := context.Background()
	text, err := store.Cursor(ctx, "late")
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(text)) // 0 before the first
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
		n++
		var counts []schema.Count
		for i := range lateDomains {
			domain := fmt.Sprintf("late%d.example", i)
			policy := schema.Policy{Type: schema.NoPolicyFound, Domain: domain}
			counts = append(counts, schema.Count{Day: schema.DayOf(time.Now()) - 2, Domain: domain, Policy: policy.Text(), Success: 1})
		}
		if err := store.Record(ctx, "late", strconv.AppendInt(nil, int64(n), 10), counts); err != nil {
			return err
		}
	}
}

// TestKill kills a process at random instants, over counting, closing, planning and
// delivering, until all is done. Each domain then has its report, under one
// report-id, with exact counts; domains that were counted all the while have
// supplements, too, and together they are exact.
func TestKill(t *testing.T) {
	rounds := *killRounds
	domains := max(400, 7*rounds) // enough to do
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
	submitRest(t, world, path)
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
	for i := range lateDomains {
		domain := fmt.Sprintf("late%d.example", i)
		world.Publish(domain, "v=TLSRPTv1; rua=mailto:tls@"+domain)
	}
	check(t, store.Record(t.Context(), "test", nil, counts))
	check(t, store.Close())
}

// submitRest submits what was counted last.
func submitRest(t *testing.T, world *receiver.World, path string) {
	t.Helper()
	store, err := aggregator.Open(path, aggregator.Options{})
	check(t, err)
	defer store.Close()
	relay, err := submitter.ParseRelay("smtp://"+world.SMTP.Addr(), "", submitter.RelayOptions{HELO: "out.example.com"})
	check(t, err)
	a, err := New(Options{
		Store: store, Contact: "tls-reports@example.com",
		Submitter: &submitter.Submitter{Resolver: &resolve.Resolver{Servers: []string{world.Zone.Addr()}}, Mail: relay, ExternalDKIM: true},
	})
	check(t, err)
	check(t, a.Submit(t.Context(), Submission{}, nil))
}

// checkLate compares the reports about a domain of countLate, all parts of them,
// with the position.
func checkLate(t *testing.T, store *aggregator.Store, sessions map[string]int64) {
	t.Helper()
	text, err := store.Cursor(t.Context(), "late")
	check(t, err)
	n, err := strconv.ParseInt(string(text), 10, 64)
	check(t, err)
	for i := range lateDomains {
		if got := sessions[fmt.Sprintf("late%d.example", i)]; got != n {
			t.Errorf("late%d.example: %d sessions reported, %d counted", i, got, n)
		}
	}
	t.Logf("%d sessions of each late domain", n)
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
	late, parts := map[string]int64{}, map[string]bool{}
	for _, r := range world.Reports() {
		if strings.HasPrefix(r.Domain, "late") {
			if !parts[r.ReportID] {
				parts[r.ReportID] = true
				late[r.Domain] += r.Sessions.Success
			}
			continue
		}
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
	checkLate(t, store, late)
	check(t, store.Deliveries(t.Context(), aggregator.DeliveryFilter{}, func(d aggregator.Delivery) error {
		if d.State != aggregator.DeliverySent {
			t.Errorf("delivery to %s is %s after %d attempts: %s", d.RUA, d.State, d.Attempts, d.LastError)
		}
		return nil
	}))
}
