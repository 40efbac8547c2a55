//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
)

// soak is one run. One goroutine decides what happens; others only send.
type soak struct {
	ctx   context.Context
	dir   string
	agent string // the program
	rand  *rand.Rand

	world  *receiver.World
	daemon *exec.Cmd
	output *os.File // of all processes
	mta    *mta
	logs   []*maillog

	posts, mails int // that collect has seen
	ledger       ledger
	kills        []kill
	did          map[string]int
	faults       []string
}

// fault notes what must not have happened.
func (s *soak) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	slog.Error(text)
	s.faults = append(s.faults, text)
}

// week runs so many simulated days and balances the ledger.
func (s *soak) week(days int, length time.Duration) (err error) {
	s.ledger.reported = map[string]int64{}
	if err := s.startWorld(); err != nil {
		return err
	}
	defer s.world.Close()
	if s.output, err = os.Create(s.path("output")); err != nil {
		return err
	}
	defer s.output.Close()
	stopTraffic, err := s.startTraffic()
	if err != nil {
		return err
	}
	defer s.signal(syscall.SIGKILL)
	if err := s.importOld(); err != nil {
		return err
	}
	for day := range days {
		s.flaky()
		if err := s.day(length); err != nil {
			return errors.Join(err, stopTraffic())
		}
		slog.Info("a day has passed", "day", day+1, "reports", s.ledger.reports, "sent", s.mta.total(), "did", s.did)
	}
	if err := stopTraffic(); err != nil {
		return err
	}
	if err := s.end(); err != nil {
		return err
	}
	text, err := os.ReadFile(s.output.Name())
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "panic") || strings.Contains(line, "sessions are lost") || strings.Contains(line, "may be lost") {
			s.fault("the daemon said: %s", line)
		}
	}
	return s.balance()
}

// startTraffic starts the daemon and all that sends to it.
func (s *soak) startTraffic() (stop func() error, err error) {
	s.mta = &mta{path: s.path("s"), sent: map[string]int64{}}
	for i, name := range []string{"mail.log", "late.log"} {
		now := func() time.Time { return time.Now().UTC().AddDate(0, 0, -i) }
		l, err := newMaillog(s.path(name), s.rand.Uint64(), now)
		if err != nil {
			return nil, err
		}
		s.logs = append(s.logs, l)
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	// A source that has no position yet begins at the end of its log.
	for _, l := range s.logs {
		if err := s.until("the first position", func() (bool, error) {
			p, err := s.positionOf(l.path)
			return p.Inode != 0 || p.Offset == 0, err
		}); err != nil {
			return nil, err
		}
	}
	time.Sleep(2 * time.Second)
	ended := make(chan struct{})
	var sending sync.WaitGroup
	errs := make([]error, len(s.logs))
	for i, l := range s.logs {
		r := s.newRand()
		sending.Go(func() { errs[i] = l.run(r, 400, ended) })
	}
	for range 2 {
		r := s.newRand()
		sending.Go(func() { s.mta.run(r, 500, ended) })
	}
	return sync.OnceValue(func() error {
		close(ended)
		sending.Wait()
		return errors.Join(append(errs, s.mta.err)...)
	}), nil
}

func (s *soak) newRand() *rand.Rand { return rand.New(rand.NewPCG(s.rand.Uint64(), 1)) }

// importOld imports a log of long ago, too old to be reported. Its beginning proves
// less than the rest, since lines are missing before it: how many sessions that
// costs is seen in a store of its own.
func (s *soak) importOld() error {
	text := loggen.New(loggen.Options{Seed: s.rand.Uint64(), Domains: logDomains, Start: time.Now().UTC().AddDate(0, 0, -9)})
	var b []byte
	for range 5000 {
		b = text.Append(b)
	}
	b = text.AppendRest(b)
	if err := os.WriteFile(s.path("old.log"), b, 0o600); err != nil {
		return err
	}
	s.ledger.imported, s.ledger.uncertain = text, map[string]int64{}
	for k, n := range text.Sessions() {
		s.ledger.uncertain[k.Domain] += n
	}
	apart := []string{"--db", s.path("apart.db"), "-c", s.path("config.toml")}
	if err := s.command(append(apart, "import", "--report", s.path("old.log"))...); err != nil {
		return err
	}
	out, err := exec.CommandContext(s.ctx, s.agent, append(apart, "pending", "--json")...).Output()
	if err != nil {
		return fmt.Errorf("pending: %w", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var line struct {
			Domain           string
			Success, Failure int64
		}
		if err := d.Decode(&line); err != nil {
			return err
		}
		s.ledger.uncertain[line.Domain] -= line.Success + line.Failure
	}
	return s.command("-c", s.path("config.toml"), "import", "--report", s.path("old.log"))
}

// day is one simulated day: load, and in it the submission of the day before.
func (s *soak) day(length time.Duration) error {
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := s.event(); err != nil {
			return err
		}
		time.Sleep(time.Duration(s.rand.IntN(1500)) * time.Millisecond)
	}
	if err := s.settle(); err != nil {
		return err
	}
	return s.passDay()
}

// event is something that happens.
func (s *soak) event() error {
	events := []struct {
		name string
		do   func() error
	}{
		{"submit", s.submit}, {"submit", s.submit}, {"submit killed", s.submitKilled},
		{"SIGTERM", func() error { return s.restart(syscall.SIGTERM) }},
		{"kill -9", s.kill}, {"kill -9 of a reader of logs", s.killQuiet},
		{"SIGHUP", func() error { return s.signal(syscall.SIGHUP) }},
		{"rotate", s.rotate}, {"rotate", s.rotate},
		{"stop and go", s.pause},
		{"lock", func() error { return s.lock(time.Duration(s.rand.IntN(1500)) * time.Millisecond) }},
		{"socket file removed", s.removeSocket},
	}
	e := events[s.rand.IntN(len(events))]
	s.did[e.name]++
	if err := e.do(); err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	return nil
}

// start starts the daemon and waits until it collects.
func (s *soak) start() error {
	info, err := s.output.Stat()
	if err != nil {
		return err
	}
	s.daemon = exec.Command(s.agent, "run", "-c", s.path("config.toml"))
	s.daemon.Stdout, s.daemon.Stderr = s.output, s.output
	if err := s.daemon.Start(); err != nil {
		return err
	}
	return s.until("the daemon to start", func() (bool, error) {
		text, err := os.ReadFile(s.output.Name())
		return bytes.Contains(text[info.Size():], []byte("msg=submitting")), err
	})
}

func (s *soak) signal(sig syscall.Signal) error { return s.daemon.Process.Signal(sig) }

// stop ends the daemon.
func (s *soak) stop(sig syscall.Signal) error {
	if err := s.signal(sig); err != nil {
		return err
	}
	if err := s.daemon.Wait(); err != nil && sig == syscall.SIGTERM {
		s.fault("the daemon ended with %v", err)
	}
	return nil
}

func (s *soak) restart(sig syscall.Signal) error {
	if err := s.stop(sig); err != nil {
		return err
	}
	if err := s.hurry(true); err != nil { // who had leases is dead
		return err
	}
	time.Sleep(time.Duration(s.rand.IntN(500)) * time.Millisecond)
	return s.start()
}

// kill is what was sent shortly before a process was killed: to a domain of its own.
type kill struct {
	domain     string
	sent, safe int64 // safe: a batch before the end
}

// maxBatch is how long what was received may wait for its commit, a second, and how
// long that may take here.
const maxBatch = 3 * time.Second

// kill kills the daemon while it receives. Only sessions of the last moment may be
// lost, so all others are of other domains, and committed by then.
func (s *soak) kill() error {
	s.mta.gate.Lock()
	defer s.mta.gate.Unlock()
	time.Sleep(maxBatch)
	k := kill{domain: fmt.Sprintf("kill%d.example", len(s.kills))}
	s.publish(k.domain, s.rand.IntN(2) == 0)
	datagram := fmt.Appendf(nil, `{"dpv":"1","d":%q,"pr":"v=TLSRPTv1;rua=mailto:tls@%[1]s","policies":[{"policy-type":9,"policy-domain":%[1]q,"t":0,"f":0}]}`, k.domain)
	var at []time.Time
	for end := time.Now().Add(time.Duration(s.rand.IntN(5000)) * time.Millisecond); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if s.mta.send(k.domain, datagram) {
			at = append(at, time.Now())
		}
	}
	killed := time.Now()
	for _, t := range at {
		k.sent++
		if killed.Sub(t) > maxBatch {
			k.safe++
		}
	}
	s.kills = append(s.kills, k)
	return s.restart(syscall.SIGKILL)
}

// killQuiet kills the daemon while only logs are written.
func (s *soak) killQuiet() error {
	s.mta.gate.Lock()
	defer s.mta.gate.Unlock()
	time.Sleep(maxBatch)
	return s.restart(syscall.SIGKILL)
}

// pause has the daemon stand still, its queue full, for a moment.
func (s *soak) pause() error {
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(time.Duration(s.rand.IntN(1000)) * time.Millisecond)
	return s.signal(syscall.SIGCONT)
}

// rotate rotates a log, which removes the oldest of its files. It waits until that
// was read.
func (s *soak) rotate() error {
	l := s.logs[s.rand.IntN(len(s.logs))]
	return s.until("the end of "+l.path+".2", func() (bool, error) {
		p, err := s.positionOf(l.path)
		if err != nil || !l.isAmongNewest(p.Inode) {
			return false, err
		}
		return true, l.rotate()
	})
}

// removeSocket removes the socket file and waits for the new one. What is sent
// meanwhile is refused.
func (s *soak) removeSocket() error {
	if err := os.Remove(s.mta.path); err != nil {
		return err
	}
	return s.until("the socket file", func() (bool, error) {
		_, err := os.Stat(s.mta.path)
		return err == nil, nil
	})
}

// command runs the program to its end.
func (s *soak) command(args ...string) error {
	out, err := exec.CommandContext(s.ctx, s.agent, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return nil
}

// submit submits beside the daemon. It fails where a record could not be looked up
// or a report was not taken, as some are not.
func (s *soak) submit() error {
	cmd := exec.CommandContext(s.ctx, s.agent, "submit", "-c", s.path("config.toml"))
	out, err := cmd.CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == 1 && !bytes.Contains(out, []byte("panic")) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// submitKilled kills a submission, whose leases then have to be waited for.
func (s *soak) submitKilled() error {
	cmd := exec.Command(s.agent, "submit", "-c", s.path("config.toml"))
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(time.Duration(20+s.rand.IntN(400)) * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return s.restart(syscall.SIGTERM) // so that all leases are those of the dead
}

// settle submits until nothing waits any more that can be done today.
func (s *soak) settle() error {
	for range 60 {
		if err := errors.Join(s.hurry(false), s.submit()); err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond) // attempts of the daemon under way
		n, err := s.waiting()
		if err != nil {
			return err
		}
		if n == 0 {
			s.collect()
			return nil
		}
	}
	s.fault("reports still wait after 60 attempts")
	return s.restart(syscall.SIGTERM)
}

// end has everything counted, stops the daemon, and lets the days pass that the
// last reports need.
func (s *soak) end() error {
	for _, l := range s.logs {
		if err := l.finish(); err != nil {
			return err
		}
		want, err := l.end()
		if err != nil {
			return err
		}
		if err := s.until("the end of "+l.path, func() (bool, error) {
			p, err := s.positionOf(l.path)
			return p == want, err
		}); err != nil {
			return err
		}
	}
	if err := s.stop(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.hurry(true); err != nil {
		return err
	}
	for range 4 {
		if err := s.passDay(); err != nil {
			return err
		}
		if err := s.settle(); err != nil {
			return err
		}
	}
	return nil
}

// until waits until ok.
func (s *soak) until(what string, ok func() (bool, error)) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if done, err := ok(); err != nil || done {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s did not come within a minute", what)
		}
	}
}
