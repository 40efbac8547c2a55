//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/eventgen"
)

// intake is datagrams on their way to a collector.
type intake struct {
	name      string
	datagrams int
	domains   int
	failures  int // of 1,000
	fresh     bool
	rate      int           // 0: as fast as they are taken
	lasting   time.Duration // with rate, instead of datagrams
	queue     int           // net.unix.max_dgram_qlen of a namespace; 0: that of the machine
}

// The budgets: docs/performance.md.
var intakes = []intake{
	{name: "intake/hot", datagrams: 3_000_000, domains: 1},
	{name: "intake/100k", datagrams: 500_000, domains: 100_000, failures: 50},
	{name: "intake/100k-fresh", datagrams: 500_000, domains: 100_000, failures: 50, fresh: true},
	{name: "intake/loss-hot-12k-q10", domains: 1, fresh: true, rate: 12_000, lasting: 12 * time.Second, queue: 10},
	{name: "intake/loss-100k-12k-q10", domains: 100_000, failures: 50, fresh: true, rate: 12_000, lasting: 12 * time.Second, queue: 10},
	{name: "intake/loss-100k-12k-q512", domains: 100_000, failures: 50, fresh: true, rate: 12_000, lasting: 12 * time.Second, queue: 512},
	{name: "intake/loss-100k-50k-q512", domains: 100_000, failures: 50, fresh: true, rate: 50_000, lasting: 12 * time.Second, queue: 512},
}

func intakeCases() (all []measurement) {
	for _, in := range intakes {
		all = append(all, measurement{in.name, in.measure})
	}
	return all
}

// measure sends the same load to a bare receiver and to the agent.
func (in intake) measure(b *bench) ([]figure, error) {
	n := in.datagrams
	if in.rate > 0 {
		n = int(in.lasting.Seconds() * float64(in.rate))
	}
	n /= b.scale
	bare, err := in.floor(b, n)
	if err != nil {
		return nil, fmt.Errorf("bare receiver: %w", err)
	}
	ours, err := in.agent(b, n)
	if err != nil {
		return nil, err
	}
	if ours.got != n-ours.lost {
		return nil, fmt.Errorf("%d datagrams were counted, %d sent", ours.got, n-ours.lost)
	}
	figures := []figure{
		{"cpu", ours.cpuPer100k(), "s/100k"}, {"bare-cpu", bare.cpuPer100k(), "s/100k"},
		{"x-bare-cpu", ours.cpu.Seconds() / bare.cpu.Seconds(), ""}, {"rss", ours.rss, "MB"},
	}
	if in.rate > 0 {
		return append(figures, figure{"lost", ours.lostPercent(), "%"}, figure{"bare-lost", bare.lostPercent(), "%"}), nil
	}
	return append(figures,
		figure{"rate", float64(n) / ours.took.Seconds(), "/s"}, figure{"bare-rate", float64(n) / bare.took.Seconds(), "/s"},
		figure{"store", ours.store, "MB"}), nil
}

// reception is how a receiver took a load.
type reception struct {
	spent
	sent, lost, got int
	store           float64 // MB
}

func (r reception) cpuPer100k() float64  { return r.cpu.Seconds() / float64(r.got) * 100_000 }
func (r reception) lostPercent() float64 { return 100 * float64(r.lost) / float64(r.sent) }

// floor has the bare receiver take n datagrams.
func (in intake) floor(b *bench, n int) (r reception, err error) {
	socket := filepath.Join(b.dir, "floor.sock")
	var out bytes.Buffer
	cmd := exec.CommandContext(b.ctx, b.floor, socket)
	cmd.Stdout = &out
	if r, err = in.feed(cmd, socket, n); err != nil {
		return r, err
	}
	r.got, err = strconv.Atoi(strings.TrimSpace(out.String()))
	return r, errors.Join(err, os.Remove(socket))
}

// agent has the agent take n datagrams, and counts what is in its store.
func (in intake) agent(b *bench, n int) (r reception, err error) {
	dir, err := os.MkdirTemp(b.dir, "agent")
	if err != nil {
		return r, err
	}
	socket, db := filepath.Join(dir, "s"), filepath.Join(dir, "tlsrpt.db")
	var log bytes.Buffer
	cmd := exec.CommandContext(b.ctx, b.agent, "run", "-c", b.config(), "--db", db, "--socket", socket, "--log-level", "error")
	cmd.Stderr = &log
	if r, err = in.feed(cmd, socket, n); err != nil {
		return r, fmt.Errorf("%w\n%s", err, log.String())
	}
	if info, err := os.Stat(db); err == nil {
		r.store = float64(info.Size()) / 1e6
	}
	r.got, _, err = counted(b, db)
	return r, err
}

// feed runs a receiver, sends it n datagrams, and ends it.
func (in intake) feed(cmd *exec.Cmd, socket string, n int) (r reception, err error) {
	if in.queue > 0 {
		inNamespace(cmd, in.queue)
	}
	m := eventgen.NewMixture(in.domains, in.failures)
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer cmd.Process.Kill()
	peak := watchPeak(cmd.Process.Pid)
	if err := await(socket); err != nil {
		return r, err
	}
	s := eventgen.Sender{Path: socket, Fresh: in.fresh, Rate: in.rate}
	start := time.Now()
	if r.lost, err = s.Send(m, n); err != nil {
		return r, err
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return r, err
	}
	if err := cmd.Wait(); err != nil {
		return r, err
	}
	r.sent, r.took = n, time.Since(start)
	r.use(cmd.ProcessState, peak)
	return r, nil
}

// inNamespace has cmd run in a network namespace of its own, in which the queues
// of sockets have a length of their own. It takes root.
func inNamespace(cmd *exec.Cmd, queue int) {
	script := fmt.Sprintf("echo %d > /proc/sys/net/unix/max_dgram_qlen && exec \"$@\"", queue)
	cmd.Args = append([]string{"sh", "-c", script, "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
}

// await returns once someone listens on socket.
func await(socket string) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unixgram", socket)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// counted is how many sessions a store holds, and of how many domains and policies.
func counted(b *bench, db string) (n, keys int, err error) {
	cmd := exec.CommandContext(b.ctx, b.agent, "pending", "-c", os.DevNull, "--db", db, "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var p struct{ Success, Failure int }
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return 0, 0, err
		}
		n += p.Success + p.Failure
		keys++
	}
	return n, keys, cmd.Wait()
}
