//go:build unix

package submitter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command writes a shell script that stands for sendmail; it runs in dir.
func command(t *testing.T, script string) (m *Sendmail, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "sendmail")
	writeFile(t, path, "#!/bin/sh\ncd '"+dir+"'\n"+script+"\n", 0o755)
	m, err := NewSendmail(path)
	if err != nil {
		t.Fatal(err)
	}
	return m, dir
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSendmail(t *testing.T) {
	t.Setenv("SECRET", "not for others")
	m, dir := command(t, `printf '%s\n' "$@" >arguments; cat >message; env >environment`)
	s := &Submitter{Mail: m, ExternalDKIM: true, Timeout: 20 * time.Second}
	if err := s.Submit(t.Context(), parcel(t), "mailto:"+mailbox, ""); err != nil {
		t.Fatal(err)
	}
	want, err := new(parcel(t)).Message(mailbox)
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, dir, "message"); got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("message %q", got)
	}
	if got := readFile(t, dir, "arguments"); got != "-i\n-f\n"+from+"\n--\n"+mailbox+"\n" {
		t.Errorf("arguments %q", got)
	}
	if got := readFile(t, dir, "environment"); strings.Contains(got, "SECRET") || !strings.Contains(got, "PATH=/usr/sbin:") {
		t.Errorf("environment %q", got)
	}
}

// Nothing of an envelope is read by a shell, or taken for an option.
func TestSendmailArguments(t *testing.T) {
	m, dir := command(t, `printf '%s\n' "$@" >arguments`)
	for _, e := range []Envelope{
		{From: "-bs", To: "-bi"},
		{From: "", To: "$(touch x)@example.com"},
		{From: "a@example.net", To: "`touch x`;touch x|touch x&"},
	} {
		if err := m.Mail(t.Context(), e, []byte("x\r\n")); err != nil {
			t.Fatal(err)
		}
		sender := e.From
		if sender == "" {
			sender = "<>"
		}
		if got := readFile(t, dir, "arguments"); got != "-i\n-f\n"+sender+"\n--\n"+e.To+"\n" {
			t.Errorf("arguments %q", got)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a shell ran what a stranger wrote")
	}
}

// -N and -R are options of DSN to Postfix; to Exim they are dangerous.
func TestSendmailDSN(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"postfix/sendmail", "postfix/postconf", "postfix/sendmail.postfix", "exim/exim4", "both/exim4", "both/postconf", "lone/sendmail"} {
		os.MkdirAll(filepath.Dir(path(name)), 0o755)
		writeFile(t, path(name), "#!/bin/sh\n", 0o755)
	}
	for link, target := range map[string]string{"exim/sendmail": "exim4", "both/sendmail": "exim4", "lib": "postfix/sendmail", "alternative": "postfix/sendmail.postfix"} {
		if err := os.Symlink(target, path(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, dsn := range map[string]bool{
		"postfix/sendmail": true, "lib": true, "alternative": true,
		"exim/sendmail": false, "both/sendmail": false, "lone/sendmail": false,
	} {
		m, err := NewSendmail(path(name))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(m.arguments(Envelope{From: from, To: mailbox, ID: "d1"}), " ")
		want := "-i -f " + from + " -- " + mailbox
		if dsn {
			want = "-i -f " + from + " -V d1 -N failure -R hdrs -- " + mailbox
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if got := strings.Join(m.arguments(Envelope{From: from, To: mailbox}), " "); strings.Contains(got, "-N") {
			t.Errorf("%s without an id: %s", name, got)
		}
	}
}

func TestSendmailRefusals(t *testing.T) {
	for code := range 80 {
		if code == 0 {
			continue
		}
		m, _ := command(t, fmt.Sprintf("cat >/dev/null; printf 'no\\033[1m\\nspace' >&2; exit %d", code))
		err := m.Mail(t.Context(), Envelope{From: from, To: mailbox}, []byte("x\r\n"))
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.Temporary || !e.Ours || e.Reply != "no?[1m space" || !strings.Contains(e.Error(), fmt.Sprint("exit code ", code)) {
			t.Errorf("%d: %#v", code, err)
		}
		if named := strings.Contains(e.Error(), "(EX_"); named != (code >= 64 && code <= 78) {
			t.Errorf("%d: %v", code, e)
		}
	}
}

// A command that hangs is killed with what it started, one that babbles is cut
// short, and one that does not read is no fault.
func TestHostileSendmail(t *testing.T) {
	fault := func(script string) (e *Error, dir string) {
		t.Helper()
		m, dir := command(t, script)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		go func() { // the deadline passes once the command runs
			for ctx.Err() == nil {
				if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
					cancel()
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		err := m.Mail(ctx, Envelope{From: from, To: mailbox}, bytes.Repeat([]byte("x\r\n"), 1<<18))
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.Temporary || !e.Ours || !errors.Is(err, context.Canceled) || len(e.Reply) > maxReply {
			t.Errorf("%s: %#v, want the end of the context, as a fault of ours", script, err)
		}
		return e, dir
	}
	_, dir := fault("sleep 1000 & echo $! >pid; touch ready; sleep 1000")
	pid, err := strconv.Atoi(strings.TrimSpace(readFile(t, dir, "pid")))
	if err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pid)
	fault("trap '' TERM INT HUP; touch ready; while :; do sleep 1; done")
	fault("touch ready; while :; do echo and so on; done")

	m, _ := command(t, "exit 0")
	if err := m.Mail(t.Context(), Envelope{From: from, To: mailbox}, bytes.Repeat([]byte("x\r\n"), 1<<20)); err != nil {
		t.Errorf("it took the message unread: %v", err)
	}
}

// awaitGone waits until there is no process pid, or a zombie that nobody reaps.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for range 1000 {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, state, ok := strings.Cut(string(stat), ") "); ok && state[0] == 'Z' {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d lives on", pid)
}

// What stays behind after success is the command's own business.
func TestSendmailLeavesSomethingRunning(t *testing.T) {
	m, _ := command(t, "cat >/dev/null; sleep 1 & exit 0")
	if err := m.Mail(t.Context(), Envelope{From: from, To: mailbox}, []byte("x\r\n")); err != nil {
		t.Error(err)
	}
}

func TestNewSendmail(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "sendmail"), "", 0o644)
	for _, path := range []string{"sendmail", dir, filepath.Join(dir, "sendmail"), filepath.Join(dir, "nothing")} {
		if m, err := NewSendmail(path); !errors.Is(err, ErrSendmail) {
			t.Errorf("%s: %v, %v", path, m, err)
		}
	}
	usual := sendmailPaths
	defer func() { sendmailPaths = usual }()
	sendmailPaths = []string{filepath.Join(dir, "nothing"), filepath.Join(dir, "lib")}
	if _, err := NewSendmail(""); !errors.Is(err, ErrSendmail) || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("%v, want to hear of the usual place", err)
	}
	writeFile(t, filepath.Join(dir, "lib"), "#!/bin/sh\n", 0o755)
	if m, err := NewSendmail(""); err != nil || m.String() != sendmailPaths[1] {
		t.Errorf("%v, %v", m, err)
	}
	// It goes away while the agent runs.
	m, err := NewSendmail("")
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(sendmailPaths[1])
	err = m.Mail(t.Context(), Envelope{From: from, To: mailbox}, nil)
	if e, ok := errors.AsType[*Error](err); !ok || !e.Ours || !e.Temporary {
		t.Errorf("%#v, want a fault of ours", err)
	}
}
