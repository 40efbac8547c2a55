package tail

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// patience is how many times Options.Quiet a rotated file may be written to
// beside the next one.
const patience = 30

// confirm is called when data, the first bytes of a file, were read, if it was
// opened some time before. What was in it earlier may meanwhile have been copied
// and truncated, which nothing in it tells. It leaves the file then, for open.
func (f *follower) confirm(u until, data []byte) error {
	files, err := list(f.options.Path, f.anchor.Name)
	if err != nil {
		return err
	}
	first, err := f.following(u, files, f.anchor)
	if err != nil {
		return err
	}
	here := files.index(f.file.info)
	if here < 0 { // it was removed: is there a copy?
		var s spot
		s.advance(data)
		l, _, i, err := f.locate(u, files, f.file.place(&s))
		if err != nil {
			return err
		}
		if l != nil {
			l.close()
			here = i
		}
	}
	if here >= 0 && here != first {
		f.leave()
	}
	return nil
}

// following is which of files is the first with something in it after p, or -1.
func (f *follower) following(u until, files *listing, p *place) (int, error) {
	l, _, i, err := f.locate(u, files, p)
	if l != nil {
		l.close()
		i++
	}
	return files.filled(i), err
}

// atEnd decides what to do where nothing follows but rest, an incomplete line.
func (f *follower) atEnd(u until, rest []byte) ([]byte, error) {
	live, err := os.Stat(f.options.Path)
	if err == nil && os.SameFile(live, f.file.info) {
		f.live = time.Now()
		f.turnBack()
		f.recovered()
		return f.pause(rest)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file := f.file
	files, i, err := f.successor(u)
	switch {
	case err != nil || f.file != file:
		return nil, err
	case i < 0:
		return f.pause(rest)
	case f.turned.IsZero():
		return nil, f.turn(files, i)
	case !f.settled(files.files[i]):
		return nil, errWait
	case f.at.offset == 0 && len(rest) == 0: // it is empty: as in confirm
		f.leave()
		return nil, nil
	case len(rest) > 0 && f.file.damage == nil:
		chunk, _ := f.take(rest, true)
		return chunk, nil
	}
	return nil, f.move(u, files, i)
}

// pause is the end for now.
func (f *follower) pause(rest []byte) ([]byte, error) {
	switch {
	case f.options.Follow:
		return nil, errWait
	case f.file.damage != nil:
		return nil, f.file.damage
	case len(rest) > 0:
		chunk, _ := f.take(rest, true)
		return chunk, nil
	}
	return nil, io.EOF
}

// turn notes that files[i] follows the file that is read. The file is then read
// once more: what was written before it was renamed may have come after it was
// read.
func (f *follower) turn(files *listing, i int) error {
	l, err := f.openAt(files, i)
	if err != nil && !unreadable(err) {
		return err
	}
	f.turned, f.coming = time.Now(), l
	removed := files.index(f.file.info) < 0 && f.double == nil
	f.missed = removed && !(files.isLive(i) && time.Since(f.live) <= 2*f.options.Poll)
	return nil
}

// turnBack forgets what turn noted.
func (f *follower) turnBack() {
	f.coming.close()
	f.turned, f.coming, f.missed = time.Time{}, nil, false
}

// successor is which of files follows the one that is read, or -1 if there is
// nothing in any that does.
func (f *follower) successor(u until) (files *listing, next int, err error) {
	files, err = list(f.options.Path, f.file.target)
	if err != nil {
		return nil, 0, err
	}
	i := files.index(f.file.info)
	if i < 0 && f.double != nil {
		i = files.index(f.double)
	}
	if i < 0 {
		if i, err = f.substitute(u, files); err != nil {
			return nil, 0, err
		}
	}
	return files, files.filled(i + 1), nil
}

// substitute is which of files has taken the place of the one that is read, which
// was removed: a compressed copy, as a rule. Where there is none it is the last
// that is older.
func (f *follower) substitute(u until, files *listing) (int, error) {
	l, s, i, err := f.locate(u, files, f.file.place(&f.at))
	switch {
	case err != nil:
		return 0, err
	case l == nil:
		return i - 1, nil
	case files.isLive(i): // someone put a copy in its place, which grows now
		f.numbers.rotations.Add(1)
		f.enter(l, s)
		return i, nil
	}
	f.double = l.info
	l.close()
	return i, nil
}

// settled says that nobody writes to the file any more, since there is another
// one to write to.
func (f *follower) settled(next listed) bool {
	quiet := f.options.Quiet
	switch {
	case !f.options.Follow:
		return true
	case next.info.ModTime().Sub(f.file.info.ModTime()) >= patience*quiet:
		return true // it was quiet all the while; both times are of one clock
	case time.Since(f.turned) >= patience*quiet:
		return true
	}
	return time.Since(f.turned) >= quiet && time.Since(f.grew) >= quiet
}

// move goes on at the beginning of the next file.
func (f *follower) move(u until, files *listing, i int) (err error) {
	l := f.coming
	if l != nil && files.index(l.info) < 0 { // it was removed
		f.coming = nil
	} else if l, err = f.openFrom(u, files, i); err != nil {
		return err
	}
	if f.file.damage != nil {
		f.pass(f.file.damage)
	}
	if f.missed {
		f.gap("the log was rotated several times, and a file that was not read may be gone", 0)
	}
	if f.at.offset > 0 {
		f.anchor = f.file.place(&f.at)
	}
	f.numbers.rotations.Add(1)
	f.enter(l, spot{})
	f.sure = true
	return nil
}
