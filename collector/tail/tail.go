package tail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// MaxLine is the longest line, in bytes without its newline. A longer line of
	// a file or a reader is cut there; one of the journal is left out, since half
	// a JSON object is worth nothing.
	MaxLine = 64 << 10

	// MaxChunk bounds what Next returns at once.
	MaxChunk = readSize + MaxLine

	// MaxPosition bounds what Position returns.
	MaxPosition = 64 << 10

	readSize = 256 << 10 // fits the second-level cache, where larger ones do not
)

// ErrPosition means that a position cannot be used: it is damaged, of a newer
// version, or of another kind of log. Nobody knows then what was read before:
// starting anew, with a nil position, is the operator's decision.
var ErrPosition = errors.New("tail: unusable position")

// Options says what is read. Exactly one of Path, Journal and Reader is set.
type Options struct {
	// Path of a file, which need not exist yet if it is followed. It may be a
	// symbolic link, which is resolved anew each time that the file is looked for.
	// After a restart, rotated files are looked for in its directory, and in that of
	// the file that it leads to, by the names that logrotate and Postfix give them.
	Path string

	// Journal reads systemd's journal, as lines of JSON.
	Journal     bool
	Units       []string // only of these units; none is all
	Identifiers []string // only of these syslog identifiers; none is all
	Command     []string // that prints the journal, and its first arguments; nil is journalctl

	// Reader is read to its end. It has no positions.
	Reader io.Reader

	// FromStart makes a new source of a log that is followed begin with what is
	// there. It begins at the end otherwise. What is not followed is always read
	// from its start.
	FromStart bool

	// Follow waits at the end for more. Otherwise the end is io.EOF.
	Follow bool

	// Poll is how often a file is looked at although nothing reported a change;
	// 0 is a second.
	Poll time.Duration

	// Quiet is how long nobody may have written to a file that was rotated, before
	// reading goes on in the next one: most programs write to the old file until
	// they are told to reopen it. After 30 times as long it is left in any case.
	// 0 is two seconds.
	Quiet time.Duration

	// Logger takes what an operator should know; nil discards.
	Logger *slog.Logger
}

// Tail is a log that is being read. Its methods are for one goroutine, but Close
// and Stats are for any.
type Tail struct {
	source  source
	numbers *numbers

	closed  chan struct{}
	closing sync.Once
	busy    sync.Mutex // held by Next, and by Close when it waits for Next
}

// source is a kind of log.
type source interface {
	// next is Tail.Next.
	next(until) ([]byte, error)

	// position is Tail.Position.
	position() *position

	// lag is Stats.Lag. It may be called at any time.
	lag() int64

	// close is called once, and nothing after it.
	close() error
}

// Open opens a log at position, which Position returned; nil is a new source.
// What an operator may mend, such as a file that does not exist or may not be
// read, is no error if the log is followed: Next waits for it.
func Open(o Options, position []byte) (*Tail, error) {
	o.Poll = cmp.Or(o.Poll, time.Second)
	o.Quiet = cmp.Or(o.Quiet, 2*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Command == nil {
		o.Command = []string{"journalctl"}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	at, err := decodePosition(position)
	if err != nil {
		return nil, err
	}
	t := &Tail{numbers: new(numbers), closed: make(chan struct{})}
	u := until{context.Background(), t.closed}
	switch {
	case at.Place != nil && o.Path == "", at.Cursor != "" && !o.Journal:
		return nil, fmt.Errorf("%w: it is of another kind of log", ErrPosition)
	case o.Reader != nil:
		t.source = newReader(o.Reader, t.numbers)
	case o.Journal:
		t.source = newJournal(o, at.Cursor, t.numbers)
	default:
		t.source, err = newFollower(u, o, at.Place, t.numbers)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (o *Options) check() error {
	n := 0
	for _, set := range []bool{o.Path != "", o.Journal, o.Reader != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return errors.New("tail: want one of a path, the journal and a reader")
	}
	if o.Path == "" {
		return nil
	}
	info, err := os.Stat(o.Path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("tail: %s is not a regular file", o.Path)
	case err != nil && !o.Follow:
		return fmt.Errorf("tail: %w", err)
	}
	return nil
}

// Next returns the next lines: at least one, all of them whole, each with its
// newline, as they are, but for NUL bytes at the beginning of a line, which are
// the holes of a file that was truncated under its writer, and within a line.
// The last line of a file that is finished may lack its newline: it gets one.
// The chunk is valid until the next call.
//
// Next waits until there is a line. The error is that of ctx, fs.ErrClosed after
// Close, or io.EOF at the end of a log that is not followed. After an error of ctx
// nothing is lost: call Next again.
func (t *Tail) Next(ctx context.Context) ([]byte, error) {
	t.busy.Lock()
	defer t.busy.Unlock()
	u := until{ctx, t.closed}
	if err := u.err(); err != nil {
		return nil, err
	}
	return t.source.next(u)
}

// Position is where the lines end that Next has returned so far, in a form of
// its own, of at most MaxPosition bytes. It is nil if there is nothing to say,
// which is so for a Reader, and for a new source that could not be opened yet.
func (t *Tail) Position() []byte { return t.source.position().encode() }

// Close ends Next and frees what the Tail holds. It may be called again. A Read
// of Options.Reader that has begun is not ended by it.
func (t *Tail) Close() (err error) {
	t.closing.Do(func() {
		close(t.closed)
		t.busy.Lock()
		defer t.busy.Unlock()
		err = t.source.close()
	})
	return err
}

// until is what ends a wait: the context of a call of Next, or Close.
type until struct {
	ctx    context.Context
	closed <-chan struct{}
}

// err is nil as long as neither has happened.
func (u until) err() error {
	select {
	case <-u.closed:
		return fs.ErrClosed
	default:
	}
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	return nil
}

// sleep waits for d, or for done if that is sooner.
func (u until) sleep(d time.Duration, done <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	case <-u.closed:
	case <-u.ctx.Done():
	}
	return u.err()
}
