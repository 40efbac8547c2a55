package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

// daemonEnv tells a copy of the test binary that it is the daemon: it holds the
// arguments of the program.
const daemonEnv = "TLSRPT_TEST_DAEMON"

// process runs a copy of the program.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	errs syncBuffer
	may  []string // that it may complain of
}

// expect has stop put up with a complaint.
func (d *process) expect(complaint string) { d.may = append(d.may, complaint) }

// startProcess starts the program as a process of its own and waits until it
// collects.
func startProcess(t *testing.T, config string) *process {
	t.Helper()
	d := &process{t: t, cmd: exec.Command(os.Args[0])}
	d.cmd.Env = append(os.Environ(), daemonEnv+"=run -c "+config)
	d.cmd.Stderr = &d.errs
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() }) // it has ended, if all is well
	waitFor(t, "the daemon to start", func() bool { return strings.Contains(d.errs.String(), "msg=collecting") })
	return d
}

func (d *process) signal(sig os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatalf("%v: %s", err, d.errs.String())
	}
}

// stop ends the daemon by a signal. It may have complained about commits that
// failed and a store that cannot be written, and about nothing else.
func (d *process) stop(sig os.Signal) {
	d.t.Helper()
	d.signal(sig)
	err := d.cmd.Wait()
	if sig == syscall.SIGTERM && err != nil {
		d.t.Errorf("the daemon ended with %v", err)
	}
	for line := range strings.Lines(d.errs.String()) {
		bad := strings.Contains(line, "panic") || strings.Contains(line, "level=ERROR")
		for _, may := range append(d.may, "commit failed", "msg=unhealthy part=store") {
			bad = bad && !strings.Contains(line, may)
		}
		if bad {
			d.t.Errorf("the daemon said: %s", line)
		}
	}
}

// waitFor waits until ok is true.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s took a minute", what)
		}
	}
}

// countedSessions is the sessions that are pending.
func countedSessions(t *testing.T, config string) map[loggen.Key]int64 {
	t.Helper()
	got := map[loggen.Key]int64{}
	code, out, errs := runCommand(t, "pending", "-c", config, "--json")
	if code != 0 {
		t.Fatalf("pending: %s", errs)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(out)))
	for d.More() {
		var p pendingLine
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Success > 0 {
			got[loggen.Key{Domain: p.Domain}] += p.Success
		}
		for result, n := range p.Results {
			got[loggen.Key{Domain: p.Domain, Result: result}] += n
			p.Failure -= n
		}
		if p.Failure != 0 {
			t.Errorf("%s: %d failures more than details", p.Domain, p.Failure)
		}
	}
	return got
}

func sum(m map[loggen.Key]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}
