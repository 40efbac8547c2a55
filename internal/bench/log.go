//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

const pflogsummSize = 100e6 // bytes of a log that pflogsumm reads, which takes its time

// logReading is a log that is imported.
type logReading struct {
	name    string
	size    int64
	domains int
}

var logReadings = []logReading{
	{"log/import", 1 << 30, 20_000},
	{"growth/10k", 2 << 30, 10_000},
	{"growth/100k", 2 << 30, 100_000},
	{"growth/1M", 2 << 30, 1_000_000},
}

func logCases() (all []measurement) {
	for _, l := range logReadings {
		all = append(all, measurement{l.name, l.measure})
	}
	return all
}

// measure has the agent read a log, between two readings of grep, whose faster one
// counts.
func (l logReading) measure(b *bench) ([]figure, error) {
	path, db := filepath.Join(b.dir, "mail.log"), filepath.Join(b.dir, "log.db")
	defer os.Remove(path)
	defer os.Remove(db)
	stats, err := writeLog(path, l.size/int64(b.scale), l.domains)
	if err != nil {
		return nil, err
	}
	before, err := b.grep(path, stats.Client)
	if err != nil {
		return nil, err
	}
	ours, err := b.spend("", b.agent, "import", "-c", os.DevNull, "--db", db, path)
	if err != nil {
		return nil, err
	}
	got, keys, err := counted(b, db)
	if err != nil {
		return nil, err
	}
	if int64(got) != stats.Sessions {
		return nil, fmt.Errorf("%d sessions were counted, %d written", got, stats.Sessions)
	}
	grep, err := b.grep(path, stats.Client)
	if err != nil {
		return nil, err
	}
	grep.took, grep.cpu = min(grep.took, before.took), min(grep.cpu, before.cpu)
	gb := float64(stats.Bytes) / 1e9
	figures := []figure{
		{"speed", gb * 1000 / ours.took.Seconds(), "MB/s"}, {"cpu", ours.cpu.Seconds() / gb, "s/GB"}, {"rss", ours.rss, "MB"},
		{"sessions", float64(stats.Sessions), ""}, {"keys", float64(keys), ""},
		{"grep-speed", gb * 1000 / grep.took.Seconds(), "MB/s"},
		{"x-grep", ours.took.Seconds() / grep.took.Seconds(), ""}, {"x-grep-cpu", ours.cpu.Seconds() / grep.cpu.Seconds(), ""},
	}
	if info, err := os.Stat(db); err == nil {
		figures = append(figures, figure{"store", float64(info.Size()) / 1e6, "MB"})
	}
	speed, err := b.pflogsumm(path)
	if errors.Is(err, exec.ErrNotFound) { // Debian package pflogsumm
		return figures, nil
	}
	return append(figures, figure{"pflogsumm-speed", speed / 1e6, "MB/s"}), err
}

// writeLog writes a log of at least size bytes.
func writeLog(path string, size int64, domains int) (stats loggen.Stats, err error) {
	f, err := os.Create(path)
	if err != nil {
		return stats, err
	}
	l := loggen.New(loggen.Options{Domains: domains, Start: time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)})
	buf := make([]byte, 0, 2<<20)
	for l.Stats().Bytes < size && err == nil {
		for buf = buf[:0]; len(buf) < 1<<20; {
			buf = l.Append(buf)
		}
		_, err = f.Write(buf)
	}
	_, err2 := f.Write(l.AppendRest(nil))
	// Pages that are still on their way to the disk would slow down whoever reads.
	return l.Stats(), errors.Join(err, err2, f.Sync(), f.Close())
}

// grep has grep count the lines of smtp(8): the best of three.
func (b *bench) grep(path string, want int64) (best spent, err error) {
	for i := range 3 {
		r, err := b.spend(strconv.FormatInt(want, 10)+"\n", "env", "LC_ALL=C", "grep", "-c", `postfix/smtp\[`, path)
		if err != nil {
			return best, err
		}
		if i == 0 {
			best = r
		}
		best.took, best.cpu = min(best.took, r.took), min(best.cpu, r.cpu)
	}
	return best, nil
}

// pflogsumm is how many bytes of the log pflogsumm reads in a second.
func (b *bench) pflogsumm(path string) (speed float64, err error) {
	program, err := exec.LookPath("pflogsumm")
	if err != nil {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, pflogsummSize))
	if err != nil {
		return 0, err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	part := filepath.Join(b.dir, "part.log")
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return 0, err
	}
	r, err := b.spend("", program, part)
	return float64(len(text)) / r.took.Seconds(), errors.Join(err, os.Remove(part))
}
