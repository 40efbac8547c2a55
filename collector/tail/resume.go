package tail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// open finds the file in which reading begins or goes on.
func (f *follower) open(u until) error {
	if f.anchor == nil {
		return f.begin(u)
	}
	return f.resume(u)
}

// begin decides where a new source begins.
func (f *follower) begin(u until) error {
	l, err := f.openLive()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && f.options.Follow {
			// All that will be there is new.
			if anchor, err := f.past(u); err == nil {
				f.anchor = anchor
			}
		}
		return err
	}
	var s spot
	if f.options.Follow && !f.options.FromStart {
		s, err = l.lastLine(u)
	}
	switch {
	case err != nil || s.offset > 0:
	case f.options.Follow:
		f.anchor, err = f.past(u)
	default: // what was rotated away is another import's business
		f.anchor = l.place(&s)
	}
	if err != nil {
		l.close()
		return err
	}
	f.enter(l, s)
	return nil
}

// past is the end of what was rotated away before now. It is the position of a
// log of which nothing was read: nothing in a file tells it then, and a file
// may have any name when it is looked for.
func (f *follower) past(u until) (*place, error) {
	p := new(place)
	files, err := list(f.options.Path)
	if err != nil {
		return nil, err
	}
	for i, e := range slices.Backward(files.files) {
		if files.isLive(i) || e.info.Size() == 0 {
			continue
		}
		p.Time = max(p.Time, e.info.ModTime().UnixNano())
		if end, err := endOf(u, e); end != nil || u.err() != nil {
			return end, err
		}
	}
	return p, nil
}

// endOf is the end of the file, or nil if there is none or it cannot be read.
func endOf(u until, e listed) (*place, error) {
	l, err := openListed(e)
	if err != nil {
		return nil, err
	}
	defer l.close()
	end, err := l.end(u)
	if err != nil || end == 0 {
		return nil, err
	}
	s, err := l.spotAt(u, end)
	if err != nil {
		return nil, err
	}
	return l.place(&s), nil
}

// openLive opens what the path leads to.
func (f *follower) openLive() (*logFile, error) {
	l, err := openLog(f.options.Path)
	if err != nil {
		return nil, err
	}
	link, err := os.Lstat(f.options.Path)
	if err != nil || link.Mode().Type() != fs.ModeSymlink {
		return l, nil
	}
	if l.target, err = filepath.EvalSymlinks(f.options.Path); err == nil {
		l.target, err = filepath.Abs(l.target)
	}
	if err != nil {
		l.target = ""
	}
	return l, nil
}

// openListed opens a rotated file that was listed.
func openListed(e listed) (*logFile, error) {
	l, err := openLog(e.name)
	if err == nil && !os.SameFile(l.info, e.info) {
		l.close()
		err = errUnstable
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errUnstable
	}
	return l, err
}

// openAt opens one of files.
func (f *follower) openAt(files *listing, i int) (l *logFile, err error) {
	if !files.isLive(i) {
		return openListed(files.files[i])
	}
	l, err = f.openLive()
	if err == nil && !os.SameFile(l.info, files.files[i].info) {
		l.close()
		err = errUnstable
	}
	return l, err
}

// unreadable says that a rotated file will never be read, as far as one can see.
func unreadable(err error) bool {
	return errors.Is(err, errFormat) || errors.Is(err, fs.ErrPermission)
}

// resume finds the file of the anchor, or the one to go on with where that is
// gone.
func (f *follower) resume(u until) error {
	files, err := list(f.options.Path, f.anchor.Name)
	if err != nil {
		return err
	}
	l, s, i, err := f.locate(u, files, f.anchor)
	if err != nil {
		return err
	}
	if l != nil {
		if l.gzip == nil && l.info.Size() < f.seen { // a copy, with less in it than the file had
			f.gap(noCopy, f.seen-l.info.Size())
		}
		f.enter(l, s)
		return nil
	}
	if l, err = f.openFrom(u, files, i); err != nil {
		return err
	}
	return f.restart(u, l)
}

// restart goes on in l, since the file of the anchor is gone.
func (f *follower) restart(u until, l *logFile) error {
	var s spot
	kin, _, err := l.match(u, f.anchor)
	if err == nil && kin == shorter {
		// A crash of the system took the last of what had been written. What is
		// there now was counted, but for what came between crash and start.
		s, err = l.lastLine(u)
	}
	if err != nil {
		l.close()
		return err
	}
	if f.anchor.Offset > 0 {
		f.gap(noCopy, max(0, f.seen-f.anchor.Offset))
	}
	f.anchor = &place{Time: f.anchor.Time}
	f.anchor.Device, f.anchor.Inode = inode(l.info)
	f.enter(l, s)
	return nil
}

const noCopy = "the file was truncated or removed, and there is no copy of its end"

// gap counts that something may be missing, of which so many bytes are known to
// be.
func (f *follower) gap(why string, lost int64) {
	f.numbers.gaps.Add(1)
	f.numbers.lost.Add(lost)
	f.options.Logger.Warn("lines of the log may be lost: "+why, "path", f.options.Path, "bytes known to be lost", lost)
}

// locate opens the file that p is in. Where there is none, i is which of files to
// go on with.
func (f *follower) locate(u until, files *listing, p *place) (l *logFile, s spot, i int, err error) {
	if p.Offset == 0 {
		return nil, s, f.after(files, p), nil
	}
	begins := -1 // the newest file that begins like that of p
	for _, i := range candidates(files, p) {
		l, err := f.openAt(files, i)
		if unreadable(err) && !files.isLive(i) {
			continue
		}
		if err != nil {
			return nil, s, 0, err
		}
		kin, s, err := l.match(u, p)
		if err == nil && kin == same {
			return l, s, i, nil
		}
		l.close()
		if err != nil {
			return nil, s, 0, err
		}
		if kin == shorter {
			begins = max(begins, i)
		}
	}
	switch {
	case begins >= 0 && files.isLive(begins):
		return nil, s, begins, nil
	case begins >= 0: // a copy made before the rest of it was read
		return nil, s, begins + 1, nil
	}
	return nil, s, f.after(files, p), nil
}

// candidates is which of files to look for p in: the one of its inode, then from
// the newest to the oldest.
func candidates(files *listing, p *place) []int {
	var first, rest []int
	for i, e := range slices.Backward(files.files) {
		if p.has(e.info) {
			first = append(first, i)
		} else {
			rest = append(rest, i)
		}
	}
	return append(first, rest...)
}

// has says that info is of the inode of p. It may be another file by now.
func (p *place) has(info fs.FileInfo) bool {
	device, number := inode(info)
	return number != 0 && device == p.Device && number == p.Inode
}

// after is which of files is the first that was written to after p, as far as
// inodes and times tell. The live file always was.
func (f *follower) after(files *listing, p *place) int {
	for i, e := range files.files {
		if p.Offset == 0 && p.has(e.info) || e.info.ModTime().UnixNano() > p.Time || files.isLive(i) {
			return i
		}
	}
	return len(files.files)
}

// openFrom opens the first of files, from i on, that has something in it, or is
// live. Those that cannot be read are passed over.
func (f *follower) openFrom(u until, files *listing, i int) (*logFile, error) {
	var passed []error
	for ; i < len(files.files); i++ {
		live := files.isLive(i)
		if files.files[i].info.Size() == 0 && !live {
			continue
		}
		l, err := f.openAt(files, i)
		if err == nil && l.gzip != nil && !live {
			err = l.probe(u)
		}
		switch {
		case err == errEmpty:
			continue
		case unreadable(err) && !live:
			passed = append(passed, err)
			continue
		case err == nil:
			f.pass(passed...)
		}
		return l, err
	}
	return nil, fmt.Errorf("tail: %s: %w", f.options.Path, fs.ErrNotExist)
}

// pass counts files that could not be read.
func (f *follower) pass(why ...error) {
	for _, err := range why {
		f.numbers.unreadable.Add(1)
		f.options.Logger.Warn("a rotated file is passed over, its lines are lost", "path", f.options.Path, "error", err)
	}
}
