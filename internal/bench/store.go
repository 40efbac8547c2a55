//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func storeCases() []measurement {
	return []measurement{{"store/30d-100k", measureStore}}
}

// measureStore asks a store of 30 days, of 100,000 domains each, and starts the
// daemon with it.
func measureStore(b *bench) (figures []figure, err error) {
	const days, domains = 30, 100_000
	db := filepath.Join(b.dir, "full.db")
	if err := fillStore(b.ctx, db, days, domains/b.scale, "mailto:tlsrpt@example.org"); err != nil {
		return nil, err
	}
	if info, err := os.Stat(db); err == nil {
		figures = append(figures, figure{"store", float64(info.Size()) / 1e6, "MB"})
	}
	yesterday := (schema.DayOf(time.Now()) - 1).String()
	for _, q := range []struct {
		name string
		args []string
	}{
		{"one-domain", []string{"pending", "d7.example.net", "--json"}},
		{"one-day", []string{"pending", "--day", yesterday, "--json"}},
		{"report", []string{"report", "d7.example.net", "--day", yesterday}},
		{"deliveries", []string{"deliveries", "--json"}},
	} {
		r, err := b.spend("", b.agent, append(q.args, "-c", b.config(), "--db", db)...)
		if err != nil {
			return nil, err
		}
		figures = append(figures, figure{q.name, r.took.Seconds(), "s"}, figure{q.name + "-rss", r.rss, "MB"})
	}
	ready, r, err := b.start(db)
	return append(figures, figure{"start", ready.Seconds(), "s"}, figure{"start-rss", r.rss, "MB"}), errors.Join(err, os.Remove(db))
}

// config is a file with what reports need, for who sends none. Nobody looks at the
// dashboard, whose port may be taken.
func (b *bench) config() string {
	path := filepath.Join(b.dir, "config.toml")
	const text = "[organization]\nname = \"Example\"\ncontact = \"tls-reports@example.com\"\n" +
		"[dkim]\nexternal = true\n[submit]\ndry_run = true\n[web]\nlisten = \"\"\n"
	_ = os.WriteFile(path, []byte(text), 0o600) // who reads it says what is wrong
	return path
}

// start starts the daemon and ends it once it listens.
func (b *bench) start(db string) (ready time.Duration, s spent, err error) {
	socket := filepath.Join(b.dir, "start.sock")
	cmd := exec.CommandContext(b.ctx, b.agent, "run", "-c", b.config(), "--db", db, "--socket", socket, "--log-level", "error")
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, s, err
	}
	defer cmd.Process.Kill()
	peak := watchPeak(cmd.Process.Pid)
	if err := await(socket); err != nil {
		return 0, s, err
	}
	ready = time.Since(start)
	err = errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	s.use(cmd.ProcessState, peak)
	return ready, s, err
}

// fillStore makes a store in which so many domains have sessions on each of the
// last days, today not among them. Each rua is a form that the number of a domain
// goes into, if it has a verb.
func fillStore(ctx context.Context, db string, days, domains int, record string) (err error) {
	store, err := aggregator.Open(db, aggregator.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	// Only what ends after this is reported.
	if _, err := store.SubmissionSince(ctx, time.Now().AddDate(0, 0, -days-2)); err != nil {
		return err
	}
	counts := make([]schema.Count, domains)
	for i := range counts {
		domain := fmt.Sprintf("d%d.example.net", i)
		counts[i] = schema.Count{
			Domain: domain, Record: "v=TLSRPTv1; rua=" + record, Success: 9,
			Policy: schema.Policy{Type: schema.NoPolicyFound, Domain: domain}.Text(),
		}
	}
	today := schema.DayOf(time.Now())
	for day := today - schema.Day(days); day < today; day++ {
		for i := range counts {
			counts[i].Day = day
		}
		if err := store.Record(ctx, "bench", nil, counts); err != nil {
			return err
		}
	}
	return nil
}
