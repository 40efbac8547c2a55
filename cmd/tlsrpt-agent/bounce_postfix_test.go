//go:build linux

package main

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestPostfixBounces: a real Postfix takes reports, finds out that the address
// does not exist, and returns them by LMTP to the running daemon.
func TestPostfixBounces(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	world := lab.New(t, root)
	https := startHTTPS(t, world)
	world.AddDomain(lab.Domain{Name: "gone.example.net", Receiver: lab.NoUsers})
	fine := world.AddDomain(lab.Domain{Name: "fine.example.net"})
	for _, domain := range []string{"one.example.org", "two.example.org", "three.example.org"} {
		world.AddDomain(lab.Domain{Name: domain, MX: "mx.fine.example.net", TLSRPT: lab.Asks("mailto:tls@gone.example.net")})
	}
	dir := t.TempDir()
	routes := installBounceRoutes(t, filepath.Dir(world.CAFile()))
	postfix := world.StartPostfix("recipient_delimiter = +", "transport_maps = regexp:"+routes)
	socket := filepath.Join(filepath.Dir(postfix.SocketPath()), "bounce.sock")
	config := writePostfixConfig(t, dir, world, https, postfix.SocketPath())
	edit(t, config, "[dkim]", fmt.Sprintf("bounce_delimiter = \"+\"\nbounce_socket = %q\nbounce_mode = \"0666\"\n[dkim]", socket))
	store := filepath.Join(dir, "tlsrpt.db")

	planInTurn(t, config, "one.example.org", "mailto:tls@gone.example.net", "mailto:tls@fine.example.net")
	stop := startDaemon(t, config) // it attempts the first one at once
	awaitDeliveries(t, config, "one.example.org gave-up", "one.example.org (pending|sent)")
	submitTo(t, config) // the second one
	if m := fine.WaitMessages(1)[0]; len(m.To) != 1 || m.To[0] != "tls@fine.example.net" || !strings.HasPrefix(m.From, "tls-reports+") {
		t.Errorf("the report went from %s to %s", m.From, m.To)
	}
	awaitDeliveries(t, config, "one.example.org gave-up", "one.example.org sent")

	// The next day.
	change(t, store, `UPDATE suppression SET failed = failed - 1`)
	countYesterday(t, store, "two.example.org")
	submitTo(t, config)
	awaitDeliveries(t, config, "one.example.org gave-up", "one.example.org sent", "two.example.org gave-up")
	if _, out, _ := runCommand(t, "suppressions", "-c", config); !strings.Contains(out, "tls@gone.example.net  suppressed") ||
		!strings.Contains(out, "bounced with status 5.1.1: smtp; 550 5.1.1 <tls@gone.example.net>: no such user") {
		t.Errorf("suppressions:\n%s", out)
	}

	// And the one after it.
	countYesterday(t, store, "three.example.org")
	submitTo(t, config)
	awaitDeliveries(t, config, "one.example.org gave-up", "one.example.org sent", "two.example.org gave-up", "three.example.org suppressed")
	stop()
	if log := postfix.Log(); strings.Contains(log, "status=deferred") {
		t.Errorf("a bounce had to wait")
	}
}

// installBounceRoutes copies the map of examples/postfix, and is its path as
// Postfix sees it.
func installBounceRoutes(t *testing.T, labDir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "postfix", "tlsrpt-bounces"))
	if err == nil {
		err = os.WriteFile(filepath.Join(labDir, "tlsrpt-bounces"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "/lab/tlsrpt-bounces"
}

func edit(t *testing.T, file, old, new string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(strings.Replace(string(text), old, new, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// countYesterday counts a session with domain.
func countYesterday(t *testing.T, path, domain string) {
	t.Helper()
	store, err := aggregator.Open(path, aggregator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	count := schema.Count{Day: schema.DayOf(time.Now()) - 1, Domain: domain, Success: 1,
		Policy: schema.Policy{Type: schema.NoPolicyFound, Domain: domain}.Text()}
	if err := store.Record(t.Context(), "test", nil, []schema.Count{count}); err != nil {
		t.Fatal(err)
	}
}

// planInTurn plans a report about yesterday to ruas one after the other.
func planInTurn(t *testing.T, config, domain string, ruas ...schema.RUA) {
	t.Helper()
	a := &app{configPath: config}
	up, err := a.setUp(orNew)
	if err != nil {
		t.Fatal(err)
	}
	defer up.close()
	if _, err := up.store.SubmissionSince(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	countYesterday(t, up.config.Store.Path, domain)
	day, now := schema.DayOf(time.Now())-1, time.Now()
	p, err := up.agent.Preview(t.Context(), domain, day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.store.Release(t.Context(), day+1, now.Add(-agent.DefaultMaxAge), now); err != nil {
		t.Fatal(err)
	}
	dd, err := up.store.DomainDayOf(t.Context(), day, domain)
	if err != nil {
		t.Fatal(err)
	}
	err = up.store.Plan(t.Context(), aggregator.Plan{
		DomainDay: dd, State: aggregator.StateReported, RUAs: ruas, InTurn: true,
		Report: &aggregator.Report{
			ID: p.ReportID, Day: day, Domain: domain, Submitter: p.Submitter, From: p.From, FileName: p.FileName,
			MessageID: p.MessageID, Boundary: p.Boundary, Date: p.Date, Text: p.Text, Gzip: p.Gzip,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// submitTo has everything planned and attempted that is due. The daemon beside it
// may be faster.
func submitTo(t *testing.T, config string) {
	t.Helper()
	if code, _, stderr := runCommand(t, "submit", "-c", config); code != exitOK {
		t.Errorf("submit: exit %d: %s", code, stderr)
	}
}

// awaitDeliveries waits until the deliveries are these, "domain state" in the order
// of their making, as regular expressions.
func awaitDeliveries(t *testing.T, config string, want ...string) {
	t.Helper()
	pattern := regexp.MustCompile("^" + strings.Join(want, ", ") + "$")
	var got []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		store, err := (&app{configPath: config}).openExisting()
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		err = store.Deliveries(t.Context(), aggregator.DeliveryFilter{}, func(d aggregator.Delivery) error {
			got = append(got, d.Domain+" "+string(d.State))
			return nil
		})
		store.Close()
		if err != nil {
			t.Fatal(err)
		}
		if pattern.MatchString(strings.Join(got, ", ")) {
			return
		}
	}
	t.Fatalf("deliveries %q, want %q", got, want)
}

// change does to a store what takes a day otherwise.
func change(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}
