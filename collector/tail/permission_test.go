package tail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deniedChild reads a log whose directory it may not enter for a while. It is not
// root, whom nothing is denied.
func deniedChild() int {
	path := os.Getenv("TAIL_TEST_PATH")
	var logs logBuffer
	r, err := Open(Options{Path: path, Follow: true, FromStart: true, Quiet: 1, Poll: time.Millisecond, Logger: logs.logger()}, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer r.Close()
	said := false
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		chunk, err := r.Next(ctx)
		cancel()
		os.Stdout.Write(chunk)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			fmt.Println(err)
			return 1
		}
		if !said && strings.Contains(logs.String(), "permission denied") {
			said = true
			fmt.Println("denied")
		}
		if strings.Contains(string(chunk), "last") {
			return 0
		}
	}
}

func TestPermission(t *testing.T) {
	dir, err := os.MkdirTemp("", "tail") // every part of t.TempDir may be closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, from := range []string{"start", "rotation"} {
		l := &testLog{t: t, path: filepath.Join(dir, from, "mail.log")}
		closed := filepath.Dir(l.path)
		l.must(os.Chmod(dir, 0o755))
		l.must(os.Mkdir(closed, 0o755))
		l.reopen()
		defer l.close()
		l.must(l.file.Chmod(0o644))
		l.lines(3)
		if from == "start" {
			l.must(os.Chmod(closed, 0))
		}
		out, wait := startUnprivileged(t, "denied", l.path)
		if from == "rotation" {
			out.await(l.want[2])
			l.must(os.Chmod(closed, 0))
		}
		if os.Getuid() != 0 { // the writer needs the right as well
			out.await("denied")
			l.must(os.Chmod(closed, 0o755))
		}
		l.lines(3) // it has the file open
		l.rename()
		l.reopen()
		l.must(l.file.Chmod(0o644))
		l.lines(3)
		if os.Getuid() == 0 {
			out.await("denied")
			l.must(os.Chmod(closed, 0o755))
		}
		l.write("last\n")
		wait()
		want := strings.Join(append(l.want, "last"), "\n")
		if got := strings.TrimSpace(strings.Replace(out.String(), "denied\n", "", 1)); from == "rotation" && got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", from, got, want)
		} else if from == "start" && !strings.HasSuffix(want, got) {
			t.Errorf("%s: got\n%s\nwant the end of\n%s", from, got, want)
		}
	}
}

// startUnprivileged starts this program as a child of the name, and as nobody if
// it is root's.
func startUnprivileged(t *testing.T, name, path string) (out *output, wait func()) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // nobody may not enter the build's directory
		exe := filepath.Join(filepath.Dir(filepath.Dir(path)), "self")
		text, err := os.ReadFile(self)
		if err == nil {
			err = os.WriteFile(exe, text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		self = exe
	}
	out = &output{t: t}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TAIL_TEST_CHILD="+name, "TAIL_TEST_PATH="+path)
	cmd.Stdout, cmd.Stderr = out, out
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timeout := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	return out, func() {
		t.Helper()
		defer timeout.Stop()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// output is what a child prints.
type output struct {
	logBuffer
	t *testing.T
}

func (o *output) await(text string) {
	o.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(o.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			o.t.Fatalf("the child does not print %q:\n%s", text, o)
		}
	}
}
