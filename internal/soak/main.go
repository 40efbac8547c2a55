//go:build linux

// Command soak runs the program through a simulated week of mixed load, faults and
// restarts, and then accounts for every session: each that was sent is in exactly
// one report, or in a class that has a name.
//
//	go run ./internal/soak [-for 1h] [-days 7] [-seed N] -agent bin/tlsrpt-agent
//
// The program is the one that operators run, in processes of its own, with a
// datagram socket, two logs, one of which comes a day late, DNS, HTTPS and SMTP on
// loopback. Only the edges are accelerated: at the end of each simulated day all
// days and times of the store move back by a day, and what waits for its next
// attempt is due at once.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run() error {
	agent := flag.String("agent", "bin/tlsrpt-agent", "the program")
	length := flag.Duration("for", time.Hour, "how long all days take together")
	days := flag.Int("days", 7, "simulated days")
	seed := flag.Uint64("seed", 0, "of what happens; 0 is a random one")
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	s := &soak{ctx: ctx, dir: dir, agent: *agent, rand: rand.New(rand.NewPCG(*seed, 0)), did: map[string]int{}}
	slog.Info("soaking", "for", *length, "days", *days, "seed", *seed, "dir", dir)
	err = s.week(*days, *length/time.Duration(*days))
	if err != nil {
		return fmt.Errorf("%w (what is left is in %s)", err, dir)
	}
	return os.RemoveAll(dir)
}
