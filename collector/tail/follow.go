package tail

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// follower reads a file that is followed by its name.
//
// Reading is stateless: each read begins a little before the offset, and what is
// there must be what was there before. Where it is not, after an error, and after
// a restart, the anchor is looked for by content in all files of the log. So there
// is one way out of each kind of trouble.
type follower struct {
	options Options
	numbers *numbers
	lines   splitter
	watcher *watcher // nil: it is not followed
	buf     []byte   // tailSize bytes before the offset, and a read

	// anchor is where reading goes on if there is no file. nil is a new source
	// that has not seen its file yet.
	anchor *place

	file   *logFile    // nil: none is open
	at     spot        // in file
	seen   int64       // where file ended when it was last looked at
	double fs.FileInfo // of a copy of file, which was removed; nil if there is none
	sure   bool        // file was entered by the last step

	grew   time.Time // when something was last read of file
	live   time.Time // when file was last seen to be what the path leads to
	turned time.Time // when another file was first seen to follow file; zero if none does
	coming *logFile  // that other file, which may be removed before file is left; nil if it cannot be read
	missed bool      // there may have been one between the two

	trouble string // what was last logged

	mu   sync.Mutex // of what lag needs
	mark mark
}

// mark is where reading is, for lag.
type mark struct {
	file   *os.File // nil: nowhere, or in a compressed file
	offset int64
}

// errWait means that there is nothing to read at present.
var errWait = errors.New("tail: nothing to read")

func newFollower(u until, o Options, at *place, n *numbers) (*follower, error) {
	f := &follower{
		options: o, numbers: n, lines: splitter{numbers: n, max: MaxLine},
		anchor: at,
		buf:    make([]byte, tailSize+readSize),
	}
	if o.Follow {
		f.watcher = newWatcher(o.Logger)
		f.watcher.watch(o.Path)
	}
	// The end of a log at which a new source begins is that of now.
	err := f.open(u)
	if err = f.excuse(u, err); err == errWait {
		err = nil
	}
	if err != nil {
		f.close()
	}
	return f, err
}

func (f *follower) close() error {
	f.coming.close()
	f.file.close()
	if f.watcher == nil {
		return nil
	}
	return f.watcher.close()
}

func (f *follower) position() *position {
	if f.file != nil && f.at.offset > 0 {
		_ = f.file.refresh() // an old time is better than none
		return &position{Place: f.file.place(&f.at)}
	}
	return &position{Place: f.anchor}
}

func (f *follower) lag() (bytes int64) {
	f.mu.Lock()
	m := f.mark
	f.mu.Unlock()
	live, err := os.Stat(f.options.Path)
	if err == nil {
		bytes = live.Size()
	}
	if m.file == nil {
		return bytes
	}
	info, err := m.file.Stat()
	if err != nil {
		return bytes // it was closed just now
	}
	if live != nil && os.SameFile(live, info) {
		bytes = 0
	}
	return bytes + max(0, info.Size()-m.offset)
}

func (f *follower) next(u until) ([]byte, error) {
	for {
		chunk, err := f.step(u)
		if len(chunk) > 0 {
			return chunk, nil
		}
		if err = f.excuse(u, err); err == errWait {
			err = f.wait(u)
		}
		if err != nil {
			return nil, err
		}
		if err := u.err(); err != nil {
			return nil, err
		}
	}
}

// excuse turns an error that may go away into errWait, and tells the operator
// about it once.
func (f *follower) excuse(u until, err error) error {
	if err == nil || err == errWait || err == io.EOF {
		return err
	}
	if end := u.err(); end != nil {
		return end // whatever is wrong with the log: that may pass
	}
	if err == errUnstable {
		return errWait
	}
	if !f.options.Follow {
		return err
	}
	if why := err.Error(); why != f.trouble {
		f.trouble = why
		f.options.Logger.Warn("the log cannot be read now, waiting", "path", f.options.Path, "error", err)
	}
	return errWait
}

func (f *follower) wait(u until) error {
	if f.watcher == nil {
		return u.sleep(pace, nil)
	}
	f.watcher.watch(f.options.Path)
	if f.file != nil && f.file.target != "" {
		f.watcher.watch(f.file.target)
	}
	d := f.options.Poll
	if !f.turned.IsZero() {
		d = min(d, f.options.Quiet)
	}
	return f.watcher.wait(u, d)
}

// step reads once. It may return neither a chunk nor an error.
func (f *follower) step(u until) ([]byte, error) {
	sure := f.sure || f.file == nil
	f.sure = false
	if f.file == nil {
		if err := f.open(u); err != nil {
			return nil, err
		}
	}
	data, end, err := f.file.read(u, f.buf, &f.at)
	switch {
	case err == nil:
	case err == errChanged:
		f.numbers.truncations.Add(1)
		f.drop()
		return nil, nil
	default:
		if u.err() == nil {
			f.drop()
		}
		return nil, err
	}
	if f.at.offset == 0 && !sure && len(data) > 0 {
		if err := f.confirm(u, data); err != nil || f.file == nil {
			return nil, err
		}
	}
	chunk, used := f.take(data, false)
	if end {
		_ = f.file.refresh() // an old time is better than none
		f.seen = f.at.offset + int64(len(data)-used)
	}
	if used > 0 || !end {
		return chunk, nil
	}
	return f.atEnd(u, data)
}

// take takes a chunk from data, which follows f.at.
func (f *follower) take(data []byte, final bool) (chunk []byte, used int) {
	f.lines.inside = f.at.inside
	chunk, used = f.lines.take(data, final)
	if used == 0 {
		return nil, 0
	}
	f.at.advance(data[:used])
	f.at.inside = f.lines.inside
	f.grew = time.Now()
	f.seen = max(f.seen, f.at.offset+int64(len(data)-used))
	f.setMark()
	return chunk, used
}

func (f *follower) setMark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mark = mark{}
	if f.file.gzip == nil {
		f.mark = mark{f.file.f, f.at.offset}
	}
}

// enter goes on at s in l.
func (f *follower) enter(l *logFile, s spot) {
	if f.file != l {
		f.leave()
	}
	f.file, f.at = l, s
	f.seen, f.grew, f.live, f.double = s.offset, time.Now(), time.Time{}, nil
	f.turnBack()
	f.setMark()
	f.recovered()
}

func (f *follower) recovered() {
	if f.trouble != "" {
		f.trouble = ""
		f.options.Logger.Info("the log can be read again", "path", f.options.Path)
	}
}

// drop closes the file, for open to look for it again.
func (f *follower) drop() {
	seen := f.seen
	if f.at.offset > 0 {
		f.anchor = f.file.place(&f.at)
	} else {
		seen = 0
	}
	f.leave()
	f.seen = seen // what is missing of it is lost
}

// leave closes the file, if one is open.
func (f *follower) leave() {
	f.turnBack()
	f.file.close()
	f.file, f.at, f.seen = nil, spot{}, 0
}
