package tail

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ledger is where readerChild puts lines together with the position after them,
// as a store would: the lines that count are the first Length bytes.
type ledger struct {
	Position []byte
	Length   int64
}

func readLedger(dir string) (l ledger, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "ledger"))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	return l, err
}

func (l ledger) write(dir string) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "ledger")
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// readerChild copies a log to a file until it is killed.
func readerChild() int {
	if err := copyLog(os.Getenv("TAIL_TEST_PATH")); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

func copyLog(path string) error {
	dir := filepath.Dir(path)
	l, err := readLedger(dir)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(dir, "out"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := out.Truncate(l.Length); err != nil {
		return err
	}
	r, err := Open(Options{Path: path, Follow: true, FromStart: true, Quiet: 5 * time.Millisecond}, l.Position)
	if err != nil {
		return err
	}
	defer r.Close()
	l.Position = r.Position()
	if err := l.write(dir); err != nil {
		return err
	}
	for {
		chunk, err := r.Next(context.Background())
		if err != nil {
			return err
		}
		if _, err := out.WriteAt(chunk, l.Length); err != nil {
			return err
		}
		l.Length += int64(len(chunk))
		l.Position = r.Position()
		if err := l.write(dir); err != nil {
			return err
		}
	}
}

// chaos writes and rotates until stop is closed.
func chaos(l *testLog, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(1, 2))
	for {
		select {
		case <-stop:
			return
		default:
		}
		l.lines(random.IntN(200))
		switch random.IntN(8) {
		case 0:
			l.rename()
			l.lines(random.IntN(5))
			l.reopen()
		case 1:
			l.copyTruncate()
		case 2:
			if name := l.path + ".2"; exists(name) {
				l.compress(name)
			}
		case 3:
			l.partial()
			time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond)
			l.complete()
		default:
			time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
		}
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// TestKilled kills the reader again and again while its log is written and
// rotated.
func TestKilled(t *testing.T) {
	l := newLog(t)
	end := startReader(t, l.path)
	awaitLedger(t, filepath.Dir(l.path), func(ledger) bool { return true }) // a source that is not known begins anew
	end()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		chaos(l, stop)
	}()
	kills := 50
	if testing.Short() {
		kills = 5
	}
	for range kills {
		end := startReader(t, l.path)
		time.Sleep(time.Duration(20+rand.IntN(60)) * time.Millisecond)
		end()
	}
	close(stop)
	<-done
	defer startReader(t, l.path)()
	want := strings.Join(l.want, "\n") + "\n"
	state := awaitLedger(t, filepath.Dir(l.path), func(s ledger) bool { return s.Length >= int64(len(want)) })
	got, err := os.ReadFile(filepath.Join(filepath.Dir(l.path), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d lines, %d rotations, %d kills", l.n, l.files, kills)
	sameLines(t, strings.Split(string(got[:state.Length]), "\n"), strings.Split(want, "\n"))
}

// awaitLedger waits for what is stored to be as wanted, or for a minute.
func awaitLedger(t *testing.T, dir string, wanted func(ledger) bool) (l ledger) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		var err error
		if l, err = readLedger(dir); err != nil {
			t.Fatal(err)
		}
		if l.Position != nil && wanted(l) {
			return l
		}
	}
	return l
}

// startReader starts readerChild, for end to kill.
func startReader(t *testing.T, path string) (end func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TAIL_TEST_CHILD=reader", "TAIL_TEST_PATH="+path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		cmd.Process.Kill()
		if err := cmd.Wait(); cmd.ProcessState.Exited() {
			t.Fatalf("the reader ended by itself: %v", err)
		}
	}
}
