//go:build linux

// Command bench measures what the program takes, beside the floor of each figure:
// what the same work costs who does nothing else. "make bench" runs all of it.
//
//	go run ./internal/bench [-run REGEXP] [-json FILE] [-scale N] [-agent FILE]
//	go run ./internal/bench -send PATH -n 100000 -domains 1000 -failures 50 -fresh -rate 5000
//
// The second form is the load generator alone. It speaks to any collector of the
// datagram protocol of libtlsrpt.
//
// Everything runs on one machine: who sends and who receives share its
// processors. A figure is worth something beside another of the same run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/eventgen"
)

// result is what one case measured.
type result struct {
	Case    string   `json:"case"`
	Command string   `json:"command"` // that measures it again
	Figures []figure `json:"figures"`
}

// figure is one number.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// bench is one run of the program.
type bench struct {
	ctx   context.Context
	dir   string // for all that is written
	agent string // the program that is measured
	floor string // floor/recv.c, compiled
	scale int
}

// measurement is a case, and how it is measured.
type measurement struct {
	name string
	do   func(*bench) ([]figure, error)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pattern := flag.String("run", ".", "measure the cases that match `REGEXP`")
	out := flag.String("json", "", "write the results to `FILE`, one JSON object a line")
	scale := flag.Int("scale", 1, "divide the amounts by `N`, for a quick look")
	agent := flag.String("agent", "", "measure this `FILE` instead of building the program")
	send := flag.String("send", "", "only send datagrams, to the socket `PATH`")
	n := flag.Int("n", 100_000, "with -send: how many")
	domains := flag.Int("domains", 1, "with -send: of how many domains")
	failures := flag.Int("failures", 0, "with -send: how many of 1,000 are failures")
	var s eventgen.Sender
	flag.BoolVar(&s.Fresh, "fresh", false, "with -send: each from a socket of its own, as Postfix does")
	flag.IntVar(&s.Rate, "rate", 0, "with -send: how many a second, lost where the queue is full; 0: as fast as they are taken")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	if *send != "" {
		s.Path = *send
		return sendOnly(&s, eventgen.NewMixture(*domains, *failures), *n)
	}
	re, err := regexp.Compile(*pattern)
	if err != nil {
		return err
	}
	return measure(ctx, re, *out, *agent, max(*scale, 1))
}

// sendOnly is the load generator alone.
func sendOnly(s *eventgen.Sender, m *eventgen.Mixture, n int) error {
	start := time.Now()
	lost, err := s.Send(m, n)
	took := time.Since(start)
	if err == nil {
		fmt.Printf("%d sent in %.2f s, %.0f/s; the queue had no room for %d\n", n, took.Seconds(), float64(n)/took.Seconds(), lost)
	}
	return err
}

func measure(ctx context.Context, re *regexp.Regexp, out, agent string, scale int) (err error) {
	b := &bench{ctx: ctx, agent: agent, scale: scale}
	if b.dir, err = os.MkdirTemp("", "tlsrpt-bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.build(); err != nil {
		return err
	}
	var results *os.File
	if out != "" {
		if results, err = os.Create(out); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, results.Close()) }()
	}
	for _, m := range cases() {
		if !re.MatchString(m.name) {
			continue
		}
		figures, err := m.do(b)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		r := result{m.name, fmt.Sprintf("go run ./internal/bench -run '^%s$'", regexp.QuoteMeta(m.name)), figures}
		r.print()
		if results != nil {
			if err := json.NewEncoder(results).Encode(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// build makes the program, unless one was named, and the floor.
func (b *bench) build() error {
	if b.agent == "" {
		b.agent = filepath.Join(b.dir, "tlsrpt-agent")
		if err := b.command("go", "build", "-trimpath", "-o", b.agent, "./cmd/tlsrpt-agent"); err != nil {
			return err
		}
	}
	b.floor = filepath.Join(b.dir, "recv")
	return b.command("cc", "-O2", "-o", b.floor, "internal/bench/floor/recv.c")
}

func (b *bench) command(name string, args ...string) error {
	if out, err := exec.CommandContext(b.ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// print prints a row of the table.
func (r *result) print() {
	var b strings.Builder
	fmt.Fprintf(&b, "%-32s", r.Case)
	for _, f := range r.Figures {
		fmt.Fprintf(&b, "  %s %s", f.Name, strings.TrimSpace(format(f.Value)+" "+f.Unit))
	}
	fmt.Println(b.String())
}

// format has three digits that tell something.
func format(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func cases() []measurement {
	return slices.Concat(intakeCases(), logCases(), storeCases(), submitCases())
}
