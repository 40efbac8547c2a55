package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
)

// sessionLines is the two lines of each session from one number to before another,
// seven a second, with 20 domains, in a form with whole seconds or with fractions.
func sessionLines(from, to int, at time.Time, form string) string {
	return sessionLinesWith(20, from, to, at, form)
}

func sessionLinesWith(domains, from, to int, at time.Time, form string) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		domain := fmt.Sprintf("d%d.example", n%domains)
		prefix := fmt.Sprintf("%s out postfix/smtp[%d]: ", at.Add(time.Duration(n)*150*time.Millisecond).Format(form), 1000+n%50)
		fmt.Fprintf(&b, "%sTrusted TLS connection established to mx.%s[192.0.2.9]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\n", prefix, domain)
		fmt.Fprintf(&b, "%s%07X: to=<bob@%s>, relay=mx.%s[192.0.2.9]:25, delay=0.1, delays=0/0/0.1/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)\n", prefix, 0x4000000+n, domain, domain)
	}
	return b.String()
}

const fractions = "2006-01-02T15:04:05.000000Z07:00"

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// importConfig is a configuration that follows a log, which need not exist.
func importConfig(t *testing.T, dir string) string {
	return writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"[web]\nlisten = \"\"\n[store]\npath = %q\n[dns]\nservers = [\"127.0.0.1:1\"]\n[[source.postfix_log]]\npath = %q\n",
		filepath.Join(dir, "tlsrpt.db"), filepath.Join(dir, "mail.log")))
}

// importNow imports files, which must work, and returns its summary.
func importNow(t *testing.T, config string, files ...string) (s importSummary) {
	t.Helper()
	code, out, errs := runCommand(t, append([]string{"import", "-c", config, "--json"}, files...)...)
	if code != exitOK {
		t.Fatalf("import: %s", errs)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// pendingSessions is all that is pending, by state.
func pendingSessions(t *testing.T, config string) map[aggregator.State]int64 {
	t.Helper()
	got := map[aggregator.State]int64{}
	code, out, errs := runCommand(t, "pending", "-c", config, "--json")
	if code != exitOK {
		t.Fatalf("pending: %s", errs)
	}
	for line := range strings.Lines(out) {
		var p pendingLine
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		got[p.State] += p.Success + p.Failure
	}
	return got
}

// TestImportKilled kills imports at random instants, of which some come after a
// commit and before the end. The last one ends with each session counted once.
func TestImportKilled(t *testing.T) {
	const sessions = 140_000 // each with a domain of its own: commits are made on the way
	dir := t.TempDir()
	config := importConfig(t, dir)
	day := time.Now().UTC().AddDate(0, 0, -2).Truncate(24 * time.Hour)
	one := writeFile(t, filepath.Join(dir, "one"), sessionLinesWith(sessions, 0, sessions*2/3, day, fractions))
	two := writeFile(t, filepath.Join(dir, "two"), sessionLinesWith(sessions, sessions*2/3, sessions, day, fractions))
	partial := map[int]bool{} // what kills left in the store
	for wait := time.Duration(0); killImport(t, wait+rand.N(400*time.Millisecond), "-c", config, two, one); wait += 250 * time.Millisecond {
		if n, _ := tallies(t, filepath.Join(dir, "tlsrpt.db")); n > 0 && n < sessions {
			partial[n] = true
		}
	}
	importNow(t, config, one, two)
	if n, sum := tallies(t, filepath.Join(dir, "tlsrpt.db")); n != sessions || sum != sessions {
		t.Errorf("%d sessions with %d domains, want %d; kills left %v", sum, n, sessions, partial)
	}
	if len(partial) == 0 {
		t.Error("no import was killed between two commits")
	}
	t.Logf("kills left %v of %d", partial, sessions)
}

// tallies is how many rows a store has of what was counted, and how many sessions.
func tallies(t *testing.T, path string) (n, sessions int) {
	t.Helper()
	db, err := sql.Open("sqlite3", path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(`SELECT count(*), coalesce(sum(success + failure), 0) FROM tally`).Scan(&n, &sessions); err != nil {
		return 0, 0 // it was killed before the store was made
	}
	return n, sessions
}

// killImport kills an import after some time, and reports whether it still ran.
func killImport(t *testing.T, after time.Duration, args ...string) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonEnv+"=import "+strings.Join(args, " "))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(after, func() { _ = cmd.Process.Kill() }).Stop()
	return cmd.Wait() != nil
}

// TestImportBesideSource imports a log before, while and after the daemon follows
// it. Each session is counted once, and what the daemon counted is reported.
func TestImportBesideSource(t *testing.T) {
	for name, form := range map[string]string{"whole seconds": time.Stamp, "fractions": fractions} {
		t.Run(name, func(t *testing.T) { importBesideSource(t, form) })
	}
}

func importBesideSource(t *testing.T, form string) {
	dir := t.TempDir()
	config, log := importConfig(t, dir), filepath.Join(dir, "mail.log")
	now := time.Now().Add(-time.Hour).Truncate(time.Second)
	writeFile(t, log, sessionLines(0, 100, now, form))
	append := func(from, to int) {
		t.Helper()
		f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = io.WriteString(f, sessionLines(from, to, now, form))
		}
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	stop := followLog(t, config)
	append(100, 203) // the second of session 100 is that of session 99 too
	awaitSessions(t, config, aggregator.StateOpen, 103)
	if s := importNow(t, config, log); s.Sessions != 100 || s.Counted != 103 {
		t.Errorf("while the daemon runs: %d counted, %d counted before", s.Sessions, s.Counted)
	}
	stop()
	append(203, 300) // nobody reads; the daemon will
	copied := writeFile(t, filepath.Join(dir, "copy"), sessionLines(50, 300, now, form))
	if s := importNow(t, config, copied); s.Sessions != 0 || s.Counted != 250 {
		t.Errorf("while nobody reads: %d counted, %d counted before", s.Sessions, s.Counted)
	}
	stop = followLog(t, config)
	awaitSessions(t, config, aggregator.StateOpen, 200)
	stop()
	if got := pendingSessions(t, config); got[aggregator.StateNotSent] != 100 || got[aggregator.StateOpen] != 200 {
		t.Errorf("counted in the end: %v", got)
	}
}

// TestImportBesideBeginning imports a session that was in progress when a source
// began. The source has seen too little of it to count it, and import leaves it out:
// it cannot know that.
func TestImportBesideBeginning(t *testing.T) {
	dir := t.TempDir()
	config, log := importConfig(t, dir), filepath.Join(dir, "mail.log")
	now := time.Now()
	established, _, _ := strings.Cut(sessionLines(0, 1, now, fractions), "\n")
	writeFile(t, log, established+"\n")
	stop := followLog(t, config)
	_, sent, _ := strings.Cut(sessionLines(0, 1, now, fractions), "\n")
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, sent+sessionLines(1, 2, now, fractions)); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	awaitSessions(t, config, aggregator.StateOpen, 1)
	stop()
	if s := importNow(t, config, log); s.Sessions != 0 || s.Counted != 2 {
		t.Errorf("imported %d, counted before %d", s.Sessions, s.Counted)
	}
	if got := pendingSessions(t, config); got[aggregator.StateOpen] != 1 || len(got) != 1 {
		t.Errorf("counted in the end: %v", got)
	}
}

func TestBarText(t *testing.T) {
	text := sessionLines(0, 10_000, time.Now(), fractions)
	p, err := postfixlog.OpenPast(writeFile(t, filepath.Join(t.TempDir(), "log"), text), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	begin := barText([]*postfixlog.Past{p})
	for err == nil {
		_, err = p.Next(t.Context())
	}
	end := barText([]*postfixlog.Past{p})
	if !strings.HasPrefix(begin, "[ ") || !strings.Contains(end, "=] 100%") || len(begin) != len(end) {
		t.Errorf("%q, then %q", begin, end)
	}
	if isTerminal(&bytes.Buffer{}) {
		t.Error("what is no terminal is taken for one")
	}
}

// followLog runs the daemon until stop.
func followLog(t *testing.T, config string) (stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonEnv+"=run -c "+config)
	var errs syncBuffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	source := (&postfixLogConfig{Path: filepath.Join(filepath.Dir(config), "mail.log"), Instance: defaultInstance}).name()
	awaitTrue(t, func() bool {
		store, err := aggregator.Open(filepath.Join(filepath.Dir(config), "tlsrpt.db"), aggregator.Options{})
		if err != nil {
			return false
		}
		defer store.Close()
		cursor, err := store.Cursor(t.Context(), source)
		return err == nil && cursor != nil && strings.Contains(errs.String(), "msg=collecting")
	})
	return func() {
		t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
	}
}

func awaitSessions(t *testing.T, config string, state aggregator.State, n int64) {
	t.Helper()
	awaitTrue(t, func() bool { return pendingSessions(t, config)[state] >= n })
}

func awaitTrue(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}
