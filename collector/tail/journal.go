package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Waits before the command is started again, after it died: they double.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 30 * time.Second
)

// journal reads what journalctl prints.
//
// It begins at the cursor, not after it: the entry of the cursor comes first then,
// and is left out. If another one comes first, the journal no longer has that
// entry, and what was between the two is lost. With --after-cursor journalctl
// would leave out that other entry, and say nothing.
type journal struct {
	options Options
	numbers *numbers
	cursor  string // of the last line that was returned; "" if there is none

	child   *child // nil: none runs
	lost    bool   // the journal refused the cursor
	backoff time.Duration
	trouble string // what was last logged
}

func newJournal(o Options, cursor string, n *numbers) *journal {
	return &journal{options: o, numbers: n, cursor: cursor}
}

func (j *journal) position() *position { return &position{Cursor: j.cursor} }
func (j *journal) lag() int64          { return 0 }

func (j *journal) close() error {
	if j.child != nil {
		j.child.stop()
	}
	return nil
}

func (j *journal) next(u until) ([]byte, error) {
	for {
		if err := u.err(); err != nil {
			return nil, err
		}
		if j.child == nil {
			if err := j.start(u); err != nil {
				return nil, err
			}
			continue
		}
		chunk, err := j.child.stream.next(u, false)
		if err == nil {
			chunk = j.accept(chunk)
		} else if err = j.ended(u, err); err != nil {
			return nil, err
		}
		if len(chunk) > 0 {
			return chunk, nil
		}
	}
}

// accept is what of chunk is new.
func (j *journal) accept(chunk []byte) []byte {
	if j.child.stream.lines.inside {
		return nil // half an object
	}
	if want := j.child.first; want != "" {
		j.child.first = ""
		line := chunk[:bytes.IndexByte(chunk, '\n')+1]
		if cursorOf(line) == want {
			chunk = chunk[len(line):]
		} else {
			j.gap()
		}
	}
	if len(chunk) == 0 {
		return nil
	}
	j.backoff = 0
	if j.trouble != "" {
		j.trouble = ""
		j.options.Logger.Info("the journal can be read again")
	}
	last := chunk[bytes.LastIndexByte(chunk[:len(chunk)-1], '\n')+1:]
	if c := cursorOf(last); c != "" {
		j.cursor = c
	}
	return chunk
}

var cursorKey = []byte(`"__CURSOR":"`)

// cursorOf is the cursor of an entry. Within a string the quotes of the key would
// be escaped, so it can only be where it should be.
func cursorOf(line []byte) string {
	_, rest, _ := bytes.Cut(line, cursorKey)
	c, _, _ := bytes.Cut(rest, []byte(`"`))
	if !validCursor(string(c)) {
		return ""
	}
	return string(c)
}

// gap counts that entries are missing.
func (j *journal) gap() {
	j.numbers.gaps.Add(1)
	j.options.Logger.Warn("some entries of the journal are lost: it no longer has the last one that was read, "+
		"so it goes on with the oldest after that", "cursor", j.cursor)
}

// arguments are those of journalctl.
func (j *journal) arguments() []string {
	args := []string{"--output=json", "--quiet", "--no-pager"}
	if j.options.Follow {
		args = append(args, "--follow")
	}
	switch {
	case j.cursor != "" && !j.lost:
		args = append(args, "--no-tail", "--cursor="+j.cursor)
	case j.options.FromStart || j.lost || !j.options.Follow:
		args = append(args, "--no-tail")
	default:
		args = append(args, "--lines=0")
	}
	for _, unit := range j.options.Units {
		args = append(args, "--unit="+unit)
	}
	for _, identifier := range j.options.Identifiers {
		args = append(args, "--identifier="+identifier)
	}
	return args
}

// start starts the command, after the backoff.
func (j *journal) start(u until) error {
	if j.backoff > 0 {
		if err := u.sleep(j.backoff, nil); err != nil {
			return err
		}
	}
	child, err := startChild(j.options.Command, j.arguments(), j.numbers)
	if err != nil {
		return j.failed(err)
	}
	if j.cursor != "" && !j.lost {
		child.first = j.cursor
	}
	j.child, j.lost = child, false
	return nil
}

// ended is called with the error of the stream. It returns nil if the command is
// to be started again.
func (j *journal) ended(u until, err error) error {
	if u.err() != nil {
		return err
	}
	child := j.child
	j.child = nil
	why := child.stop()
	if err == io.EOF && why == nil && !j.options.Follow {
		return io.EOF
	}
	j.numbers.restarts.Add(1)
	if child.first != "" && strings.Contains(child.stderr.String(), "seek to cursor") {
		j.lost = true
		j.gap()
		return nil
	}
	if why == nil {
		why = errors.New("it ended")
	}
	return j.failed(fmt.Errorf("tail: %s: %w%s", j.options.Command[0], why, child.stderr.suffix()))
}

// failed is err if the journal is not followed. Otherwise it logs err, once, and
// makes the next start wait longer.
func (j *journal) failed(err error) error {
	if !j.options.Follow {
		return err
	}
	j.backoff = min(max(2*j.backoff, firstBackoff), lastBackoff)
	if why := err.Error(); why != j.trouble {
		j.trouble = why
		j.options.Logger.Warn("the journal cannot be read now, trying again", "error", err)
	}
	return nil
}

// child is a command that prints the journal.
type child struct {
	cmd    *exec.Cmd
	out    *os.File
	stream *stream
	stderr excerpt
	first  string // cursor of the first line; "" if any is welcome
}

// drainTime is how long a process that the command left behind may hold its
// output.
const drainTime = time.Second

func startChild(command, args []string, n *numbers) (*child, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("tail: %w", err)
	}
	c := &child{out: r}
	c.cmd = exec.Command(command[0], append(command[1:len(command):len(command)], args...)...)
	c.cmd.Stdout, c.cmd.Stderr = w, &c.stderr
	c.cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0")
	c.cmd.WaitDelay = drainTime
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("tail: %w", err)
	}
	c.stream = newStream(r, n)
	return c, nil
}

// stop ends the command. The error is how it ended; by itself, if it had closed
// its output.
func (c *child) stop() error {
	c.out.Close()
	c.stream.feed.stop()
	var grace time.Duration
	if c.stream.err != nil {
		grace = drainTime
	}
	kill := func() { _ = c.cmd.Process.Kill() } // it may have ended already
	defer time.AfterFunc(grace, kill).Stop()
	return c.cmd.Wait()
}

// excerpt keeps the first of what is written to it.
type excerpt struct {
	mu   sync.Mutex
	text []byte
}

const excerptSize = 500

func (e *excerpt) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text = append(e.text, p[:min(len(p), excerptSize-len(e.text))]...)
	return len(p), nil
}

func (e *excerpt) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.TrimSpace(string(e.text))
}

// suffix is what was written, for the end of a message.
func (e *excerpt) suffix() string {
	if s := e.String(); s != "" {
		return ": " + s
	}
	return ""
}
