//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// spent is what a process took.
type spent struct {
	took time.Duration // from its start, or that of its load, to its end
	cpu  time.Duration
	rss  float64 // MB, the most that it had
}

func (s *spent) use(p *os.ProcessState, peak *peak) {
	s.cpu = p.UserTime() + p.SystemTime()
	s.rss = float64(peak.kb.Load()) * 1024 / 1e6
}

// spend runs a program and says what it took. Unless want is "" that must be its
// output.
func (b *bench) spend(want, name string, args ...string) (s spent, err error) {
	var out, log strings.Builder
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return s, err
	}
	peak := watchPeak(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		return s, fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, log.String())
	}
	s.took = time.Since(start)
	if want != "" && out.String() != want {
		return s, fmt.Errorf("%s said %.200q, want %q", filepath.Base(name), out.String(), want)
	}
	s.use(cmd.ProcessState, peak)
	return s, nil
}

// peak is the most memory that a process had when it was last looked at. What the
// kernel says in the end would count the memory of this process too, which it was
// forked from.
type peak struct{ kb atomic.Int64 }

// watchPeak looks until the process ends.
func watchPeak(pid int) *peak {
	p := new(peak)
	go func() {
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, text, ok := bytes.Cut(status, []byte("VmHWM:"))
			if err != nil || !ok { // a process that has ended has none
				return
			}
			text, _, _ = bytes.Cut(text, []byte("kB"))
			if kb, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil {
				p.kb.Store(kb)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return p
}

// ownCPU is what this process used of the processors.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
