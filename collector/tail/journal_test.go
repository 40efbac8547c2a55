package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// journalctlChild is a journalctl that prints the entries of a file. Its last
// argument but those of the agent is the directory of that file; in it, "die" is
// the number of lines after which it dies, once.
func journalctlChild() int {
	i := slices.IndexFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "--") })
	dir, args := os.Args[i-1], os.Args[i:]
	f, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	fmt.Fprintln(f, strings.Join(args, " "))
	f.Close()
	limit := -1
	if text, err := os.ReadFile(filepath.Join(dir, "die")); err == nil {
		limit, _ = strconv.Atoi(string(text))
		os.Remove(filepath.Join(dir, "die"))
	}
	cursor := ""
	for _, a := range args {
		if c, ok := strings.CutPrefix(a, "--cursor="); ok {
			cursor = c
		}
	}
	if cursor == "refused" {
		fmt.Fprintln(os.Stderr, "Failed to seek to cursor: Invalid argument")
		return 1
	}
	done := 0
	if slices.Contains(args, "--lines=0") {
		done = len(entries(dir))
	}
	os.WriteFile(filepath.Join(dir, "seen"), nil, 0o600)
	for {
		for ; done < len(entries(dir)); done++ {
			e := entries(dir)[done]
			if cursorOf(e) < cursor { // they grow here
				continue
			}
			if limit == 0 {
				os.Stdout.Write(e[:len(e)/2])
				fmt.Fprintln(os.Stderr, "made up")
				return 3
			}
			limit--
			os.Stdout.Write(e)
		}
		if !slices.Contains(args, "--follow") {
			return 0
		}
		if os.Getppid() == 1 {
			return 1
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func entries(dir string) (lines [][]byte) {
	text, _ := os.ReadFile(filepath.Join(dir, "journal"))
	lines = slices.Collect(bytes.Lines(text))
	if n := len(lines); n > 0 && !bytes.HasSuffix(lines[n-1], []byte("\n")) {
		lines = lines[:n-1]
	}
	return lines
}

// testJournal is a journal for journalctlChild.
type testJournal struct {
	t    *testing.T
	dir  string
	n    int
	want []string
	logs logBuffer
}

func newTestJournal(t *testing.T) *testJournal {
	t.Setenv("TAIL_TEST_CHILD", "journalctl")
	return &testJournal{t: t, dir: t.TempDir()}
}

func (j *testJournal) must(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

func (j *testJournal) add(n int, message string) {
	j.t.Helper()
	f, err := os.OpenFile(filepath.Join(j.dir, "journal"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	j.must(err)
	defer f.Close()
	for range n {
		j.n++
		line := fmt.Sprintf(`{"MESSAGE":"%s \"__CURSOR\":\"no\"","__CURSOR":"s=1;i=%06d","_PID":"%d"}`, message, j.n, j.n)
		_, err := fmt.Fprintln(f, line)
		j.must(err)
		j.want = append(j.want, line)
	}
}

func (j *testJournal) die(after int) {
	j.t.Helper()
	j.must(os.WriteFile(filepath.Join(j.dir, "die"), []byte(strconv.Itoa(after)), 0o600))
}

func (j *testJournal) open(o Options, position []byte) *testTail {
	j.t.Helper()
	self, err := os.Executable()
	j.must(err)
	o.Journal, o.Command, o.Logger = true, []string{self, j.dir}, j.logs.logger()
	return openTail(j.t, o, position)
}

// await waits for a file.
func (j *testJournal) await(name string) {
	j.t.Helper()
	for end := time.Now().Add(time.Minute); !exists(filepath.Join(j.dir, name)); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			j.t.Fatalf("%s was not made", name)
		}
	}
}

// calls are the arguments of each start.
func (j *testJournal) calls() []string {
	j.t.Helper()
	text, err := os.ReadFile(filepath.Join(j.dir, "calls"))
	j.must(err)
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func TestJournal(t *testing.T) {
	j := newTestJournal(t)
	j.add(5, "a")
	o := Options{Follow: true, FromStart: true, Units: []string{"postfix@-.service"}, Identifiers: []string{"postfix/smtp", "postfix/tlsproxy"}}
	r := j.open(o, nil)
	if p := r.Position(); p != nil {
		t.Errorf("position %s before anything", p)
	}
	r.next(5)
	position := r.Position()
	j.add(3, "b")
	r.next(3)
	sameLines(t, r.got, j.want)
	r.mustClose()
	again := j.open(o, position)
	again.next(3)
	j.add(1, "c")
	again.next(1)
	sameLines(t, append(r.got[:5:5], again.got...), j.want)
	if s := again.Stats(); s.Gaps != 0 || s.Restarts != 0 {
		t.Errorf("stats %+v", s)
	}
	always := "--output=json --quiet --no-pager --follow "
	filters := " --unit=postfix@-.service --identifier=postfix/smtp --identifier=postfix/tlsproxy"
	sameLines(t, j.calls(), []string{
		always + "--no-tail" + filters,
		always + "--no-tail --cursor=s=1;i=000005" + filters,
	})
}

// TestJournalFromNow begins at the end.
func TestJournalFromNow(t *testing.T) {
	j := newTestJournal(t)
	j.add(5, "a")
	r := j.open(Options{Follow: true}, nil)
	j.want = nil
	during(func() {
		j.await("seen") // the five
		j.add(2, "b")
	}, func() { r.next(2) })
	sameLines(t, r.got, j.want)
	if call := j.calls()[0]; !strings.HasSuffix(call, "--lines=0") {
		t.Errorf("called with %s", call)
	}
}

// TestJournalDies starts the command again, at the right entry.
func TestJournalDies(t *testing.T) {
	j := newTestJournal(t)
	j.add(10, "a")
	j.die(4)
	r := j.open(Options{Follow: true, FromStart: true}, nil)
	r.next(4)
	j.die(6) // of which one is known
	r.next(6)
	j.add(10, "b")
	r.next(10)
	sameLines(t, r.got, j.want)
	if s := r.Stats(); s.Restarts == 0 || s.Gaps != 0 {
		t.Errorf("stats %+v, want a restart without a gap", s)
	}
	if logs := j.logs.String(); !strings.Contains(logs, "exit status 3: made up") || !strings.Contains(logs, "can be read again") {
		t.Errorf("the log does not say so:\n%s", logs)
	}
}

// TestJournalVacuumed goes on where the entry of the position is gone.
func TestJournalVacuumed(t *testing.T) {
	j := newTestJournal(t)
	j.add(10, "a")
	r := j.open(Options{Follow: true, FromStart: true}, []byte(`{"version":1,"cursor":"s=1;i=000001x"}`))
	r.next(9)
	sameLines(t, r.got, j.want[1:])
	if s := r.Stats(); s.Gaps != 1 || !strings.Contains(j.logs.String(), "entries of the journal are lost") {
		t.Errorf("stats %+v, want a gap:\n%s", s, &j.logs)
	}
	refused := j.open(Options{Follow: true}, []byte(`{"version":1,"cursor":"refused"}`))
	refused.next(10)
	sameLines(t, refused.got, j.want)
	if s := refused.Stats(); s.Gaps != 1 {
		t.Errorf("stats %+v, want a gap", s)
	}
	position := refused.Position()
	refused.mustClose()
	j.add(1, "b")
	after := j.open(Options{Follow: true}, position)
	after.next(1)
	sameLines(t, after.got, j.want[10:])
}

// TestJournalLongLine leaves out what is too long to be held.
func TestJournalLongLine(t *testing.T) {
	j := newTestJournal(t)
	j.add(1, "a")
	j.add(2, strings.Repeat("x", 3*MaxLine))
	j.add(1, "b")
	r := j.open(Options{}, nil)
	r.rest()
	sameLines(t, r.got, []string{j.want[0], j.want[3]})
	if s := r.Stats(); s.Cut != 2 {
		t.Errorf("stats %+v, want 2 lines cut", s)
	}
}

// TestJournalImport reads a journal to its end, or says why not.
func TestJournalImport(t *testing.T) {
	j := newTestJournal(t)
	j.add(100, "a")
	r := j.open(Options{}, nil)
	r.rest()
	sameLines(t, r.got, j.want)
	if call := j.calls()[0]; strings.Contains(call, "--follow") {
		t.Errorf("called with %s", call)
	}
	j.die(50)
	r = j.open(Options{}, nil)
	var err error
	for err == nil {
		_, err = r.Next(t.Context())
	}
	if err == io.EOF || !strings.Contains(err.Error(), "exit status 3: made up") {
		t.Errorf("error %v", err)
	}
	r = openTail(t, Options{Journal: true, Command: []string{"/nonexistent/journalctl"}}, nil)
	if _, err := r.Next(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
