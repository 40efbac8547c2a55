package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// daemonEnv tells a copy of the test binary that it is the daemon: it holds the
// arguments of the program.
const daemonEnv = "TLSRPT_TEST_DAEMON"

// logWriter is a Postfix that writes a log and the program that rotates it.
type logWriter struct {
	t       *testing.T
	path    string
	file    *os.File
	pid, n  int
	domains map[string]int64 // sessions that were written whole
}

func newLogWriter(t *testing.T, path string) *logWriter {
	w := &logWriter{t: t, path: path, domains: map[string]int64{}}
	w.open()
	return w
}

func (w *logWriter) open() {
	w.t.Helper()
	var err error
	if w.file, err = os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// session writes the two lines of one session; between a pause lets others in.
func (w *logWriter) session() {
	w.t.Helper()
	w.n++
	w.pid = 1000 + w.n%50
	domain := fmt.Sprintf("d%d.example", w.n%20)
	w.write("Trusted TLS connection established to mx.%s[192.0.2.9]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)", domain)
	w.write("%07X: to=<bob@%s>, relay=mx.%s[192.0.2.9]:25, delay=0.1, delays=0/0/0.1/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)", 0x4000000+w.n, domain, domain)
	w.domains[domain]++
}

// write writes a line in two pieces, as a busy syslog may.
func (w *logWriter) write(format string, args ...any) {
	w.t.Helper()
	line := fmt.Sprintf("%s out postfix/smtp[%d]: %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000+00:00"), w.pid, fmt.Sprintf(format, args...))
	cut := rand.IntN(len(line))
	for _, piece := range []string{line[:cut], line[cut:]} {
		if _, err := w.file.WriteString(piece); err != nil {
			w.t.Fatal(err)
		}
	}
}

// rotate renames the log, as logrotate does, and compresses the one before.
func (w *logWriter) rotate() {
	w.t.Helper()
	if _, err := os.Stat(w.path + ".1"); err == nil {
		if out, err := exec.Command("sh", "-c", `i=2; while [ -e "$0.$i.gz" ]; do i=$((i+1)); done
			while [ $i -gt 2 ]; do j=$((i-1)); mv "$0.$j.gz" "$0.$i.gz"; i=$j; done
			gzip -c "$0.1" > "$0.2.gz" && rm "$0.1"`, w.path).CombinedOutput(); err != nil {
			w.t.Fatalf("%v: %s", err, out)
		}
	}
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		w.t.Fatal(err)
	}
	w.session() // the writer has yet to reopen the log
	w.file.Close()
	w.open()
}

// TestLogChaos kills the daemon at random instants while a log is written and
// rotated. Each session is counted exactly once.
func TestLogChaos(t *testing.T) {
	const rounds = 30
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	w := newLogWriter(t, filepath.Join(dir, "mail.log"))
	text := fmt.Sprintf("[store]\npath = %q\n[dns]\nservers = [\"127.0.0.1:1\"]\n[[source.postfix_log]]\npath = %q\n",
		filepath.Join(dir, "tlsrpt.db"), w.path)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	kills := 0
	for round := range rounds {
		stop := startProcess(t, config)
		if round == 0 {
			w.domains = map[string]int64{} // a new source begins at the end
		}
		for range 20 + rand.IntN(60) {
			w.session()
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		}
		if rand.IntN(3) == 0 {
			w.rotate()
		}
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		stop(os.Kill)
		kills++
		w.session() // while nobody reads
	}
	want := int64(0)
	for _, n := range w.domains {
		want += n
	}
	stop := startProcess(t, config)
	got := map[string]int64{}
	for deadline := time.Now().Add(60 * time.Second); sum(got) < want && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got = countedDomains(t, config)
	}
	stop(os.Interrupt)
	got = countedDomains(t, config)
	for domain, n := range w.domains {
		if got[domain] != n {
			t.Errorf("%s: %d sessions counted, %d written", domain, got[domain], n)
		}
	}
	t.Logf("%d sessions over %d kills", want, kills)
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// countedDomains is the sessions that are pending, by domain.
func countedDomains(t *testing.T, config string) map[string]int64 {
	t.Helper()
	got := map[string]int64{}
	_, out, _ := runCommand(t, "pending", "-c", config, "--json")
	for line := range strings.Lines(out) {
		var p pendingLine
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		got[p.Domain] += p.Success + p.Failure
	}
	return got
}

// startProcess starts the daemon as a process of its own and waits until it
// reads. The function that it returns ends it by a signal.
func startProcess(t *testing.T, config string) (stop func(os.Signal)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonEnv+"=run -c "+config)
	var errs syncBuffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !bytes.Contains([]byte(errs.String()), []byte("msg=collecting")); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not start: %s", errs.String())
		}
	}
	return func(sig os.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if strings.Contains(errs.String(), "panic") || strings.Contains(errs.String(), "level=ERROR") {
			t.Errorf("the daemon said: %s", errs.String())
		}
	}
}
