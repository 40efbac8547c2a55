package tail

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const journald = "/lib/systemd/systemd-journald"

// startJournald starts a journald of our own, that sees other /run and /var/log
// than the rest of the system. It returns the directory of its journal, and what
// logs to it.
func startJournald(t *testing.T) (dir string, log func(message string)) {
	if os.Getuid() != 0 {
		t.Skip("a journald of our own needs root")
	}
	for _, program := range []string{journald, "/usr/bin/journalctl", "/usr/bin/mount"} {
		if !exists(program) {
			t.Skipf("there is no %s", program)
		}
	}
	cmd := exec.Command("sh", "-c", `
		mount -t tmpfs none /run && mount -t tmpfs none /var/log && mkdir -p /run/systemd /var/log/journal &&
		exec `+journald+` tailtest`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Skipf("no mount namespace is to be had: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	root := fmt.Sprintf("/proc/%d/root", cmd.Process.Pid)
	socket := root + "/run/systemd/journal.tailtest/dev-log"
	for !exists(socket) {
		select {
		case err := <-ended:
			ended <- err
			t.Skipf("journald does not run here: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	log = func(message string) {
		t.Helper()
		if _, err := fmt.Fprintf(conn, "<22>Nov 22 10:11:12 postfix/smtp[4711]: %s", message); err != nil {
			t.Fatal(err)
		}
	}
	return root + "/var/log/journal", log
}

// journalDir is the directory of the only journal in dir, once there is one.
func journalDir(t *testing.T, dir string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if names, _ := filepath.Glob(dir + "/*/system.journal"); len(names) == 1 {
			return filepath.Dir(names[0])
		}
	}
	t.Fatalf("no journal in %s", dir)
	return ""
}

// messages are those of JSON lines.
func messages(lines []string) (all []string) {
	for _, line := range lines {
		_, rest, _ := strings.Cut(line, `"MESSAGE":"`)
		message, _, _ := strings.Cut(rest, `"`)
		all = append(all, message)
	}
	return all
}

// TestJournald reads a real journal, and loses some of it.
func TestJournald(t *testing.T) {
	base, log := startJournald(t)
	var want []string
	write := func(n int) {
		for range n {
			message := fmt.Sprintf("message %d", len(want))
			log(message)
			want = append(want, message)
		}
	}
	write(5)
	dir := journalDir(t, base)
	open := func(fromStart bool, position []byte) *testTail {
		return openTail(t, Options{
			Journal: true, Follow: true, FromStart: fromStart, Identifiers: []string{"postfix/smtp"},
			Command: []string{"/usr/bin/journalctl", "--directory=" + dir},
		}, position)
	}
	r := open(true, nil)
	r.next(5)
	write(5)
	r.next(5)
	sameLines(t, messages(r.got), want)
	position := r.Position()
	r.mustClose()

	write(5)
	r = open(false, position)
	r.next(5)
	write(1)
	r.next(1)
	sameLines(t, messages(r.got), want[10:])
	if s := r.Stats(); s.Gaps != 0 || s.Restarts != 0 {
		t.Errorf("stats %+v, want no gap", s)
	}
	r.mustClose()

	// An entry that is gone: the one before it by number, of another journal.
	gone := strings.Replace(string(position), "s=", "s=0", 1)
	gone = strings.Replace(gone, gone[strings.Index(gone, "s=0"):strings.Index(gone, ";i=")], "s=00000000000000000000000000000001", 1)
	gone = gone[:strings.Index(gone, ";x=")] + `;x=1"}`
	r = open(false, []byte(gone))
	r.next(7) // it finds the place by the time
	sameLines(t, messages(r.got), want[9:])
	if s := r.Stats(); s.Gaps != 1 {
		t.Errorf("stats %+v, want a gap", s)
	}
	r.mustClose()

	// What is not followed ends; what begins at the end has nothing old.
	r = openTail(t, Options{Journal: true, Identifiers: []string{"postfix/smtp"}, Command: []string{"/usr/bin/journalctl", "--directory=" + dir}}, nil)
	r.rest()
	sameLines(t, messages(r.got), want)
	r = open(false, nil)
	during(func() {
		time.Sleep(300 * time.Millisecond) // until it has started
		write(1)
	}, func() { r.next(1) })
	sameLines(t, messages(r.got), want[len(want)-1:])
}
