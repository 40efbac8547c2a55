package tail

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// rotated is what the name of a rotated file says about its age.
type rotated struct {
	style  style
	digits string // of the number or the date, without zeros before it
	packed bool   // it is compressed
}

type style int

const (
	unknown  style = iota
	numbered       // mail.log.1 is newer than mail.log.2
	dated          // mail.log-20261122 is newer than mail.log-20261121
)

// packings are the suffixes of compressed files.
var packings = []string{".gz", ".xz", ".zst", ".bz2", ".lz4", ".Z"}

// maxNumbered is the number of digits that a number, not a date, may have.
const maxNumbered = 5

// parseRotated reads the name of a file that was rotated away from base:
// base.1, base.2.gz, base-20261122, base.20261122-101112.gz, and, as logrotate's
// "extension" makes them from mail.log, mail-20261122.log and mail.1.log.
func parseRotated(base, name string) (r rotated, ok bool) {
	for _, p := range packings {
		if cut, found := strings.CutSuffix(name, p); found && cut != base {
			name, r.packed = cut, true
			break
		}
	}
	mark, ok := cutMark(base, name)
	if !ok || len(mark) < 2 || !strings.ContainsRune(".-_", rune(mark[0])) {
		return rotated{}, false
	}
	r.style = numbered
	r.digits, ok = digits(mark[1:])
	if len(r.digits) > maxNumbered {
		r.style = dated
	} else if mark[0] != '.' {
		return rotated{}, false // mail-2.log is likely another log
	}
	r.digits = strings.TrimLeft(r.digits, "0")
	return r, ok
}

// cutMark is what was added to base to make name of it.
func cutMark(base, name string) (string, bool) {
	if mark, ok := strings.CutPrefix(name, base); ok {
		return mark, true
	}
	ext := filepath.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	if ext == "" || stem == "" || !strings.HasPrefix(name, stem) {
		return "", false
	}
	return strings.CutSuffix(name[len(stem):], ext)
}

// digits are those of a number or a date such as 2026-11-22T10:11:12.
func digits(mark string) (string, bool) {
	var b strings.Builder
	for i, c := range []byte(mark) {
		switch {
		case '0' <= c && c <= '9':
			b.WriteByte(c)
		case i == 0, i == len(mark)-1, !strings.ContainsRune("-_.:T", rune(c)):
			return "", false
		}
	}
	return b.String(), true
}

// listed is a file of a log.
type listed struct {
	name string
	info fs.FileInfo
	age  rotated
	base string // that the name of a rotated file begins with
}

// listing is the files of a log, the oldest first.
type listing struct {
	files []listed
	live  bool // the last of files is what the path leads to
}

func (l *listing) isLive(i int) bool { return l.live && i == len(l.files)-1 }

// index is which of the files info is of, or -1.
func (l *listing) index(info fs.FileInfo) int {
	return slices.IndexFunc(l.files, func(f listed) bool { return os.SameFile(f.info, info) })
}

// filled is which of the files, from i on, is the first with something in it, or
// -1.
func (l *listing) filled(i int) int {
	for ; i < len(l.files); i++ {
		if l.files[i].info.Size() > 0 {
			return i
		}
	}
	return -1
}

// equal says whether two listings were made with no rotation between them.
func (l *listing) equal(o *listing) bool {
	return l.live == o.live && slices.EqualFunc(l.files, o.files, func(a, b listed) bool {
		return a.name == b.name && os.SameFile(a.info, b.info)
	})
}

// errUnstable means that files were renamed all the time.
var errUnstable = errors.New("tail: the files are just being rotated")

// list finds the files of the log at path, and those that were rotated away from
// it or from one of others, which are real files that path led to. The listing is
// as of one instant, although rotating takes several steps.
func list(path string, others ...string) (*listing, error) {
	before, err := scan(path, others)
	for range 20 {
		if err != nil {
			return nil, err
		}
		var now *listing
		if now, err = scan(path, others); err == nil && now.equal(before) {
			return now, nil
		}
		before = now
	}
	return nil, errUnstable
}

// scan is list without its last promise.
func scan(path string, others []string) (*listing, error) {
	l := new(listing)
	live, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	bases := append(slices.Clone(others), path)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		bases = append(bases, target)
	}
	slices.Sort(bases)
	for _, base := range slices.Compact(bases) {
		if base == "" {
			continue
		}
		if err := l.addRotated(base, live); err != nil {
			return nil, err
		}
		l.add(listed{name: base, base: base}, live)
	}
	l.sort()
	l.dropPacked()
	if live != nil {
		// It is the newest, whatever its name.
		l.files, l.live = append(l.files, listed{name: path, info: live}), true
	}
	return l, nil
}

// addRotated adds what was rotated away from base.
func (l *listing) addRotated(base string, live fs.FileInfo) error {
	dir, file := filepath.Split(base)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil // a directory that cannot be listed may still have the log itself
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if age, ok := parseRotated(file, e.Name()); ok {
			l.add(listed{name: dir + e.Name(), age: age, base: base}, live)
		}
	}
	return nil
}

// add adds a regular file that is not there yet by another name, and not live.
func (l *listing) add(f listed, live fs.FileInfo) {
	info, err := os.Stat(f.name)
	if err != nil || !info.Mode().IsRegular() || l.index(info) >= 0 || live != nil && os.SameFile(info, live) {
		return // if it was renamed meanwhile, the next scan finds it
	}
	f.info = info
	l.files = append(l.files, f)
}

// sort goes by the names if all are of one style, else by the times.
func (l *listing) sort() {
	order := byTime
	if !slices.ContainsFunc(l.files, func(f listed) bool { return !alike(f, l.files[0]) }) {
		order = byName
	}
	slices.SortStableFunc(l.files, order)
}

// alike says whether the names of two files say which is newer.
func alike(a, b listed) bool {
	return a.base == b.base && a.age.style == b.age.style && a.age.style != unknown &&
		(a.age.style == numbered || len(a.age.digits) == len(b.age.digits))
}

func byName(a, b listed) int {
	c := cmp.Or(cmp.Compare(len(a.age.digits), len(b.age.digits)), cmp.Compare(a.age.digits, b.age.digits))
	if a.age.style == numbered {
		c = -c
	}
	return c
}

func byTime(a, b listed) int {
	return cmp.Or(byTimeOnly(a, b), cmp.Compare(a.name, b.name))
}

func byTimeOnly(a, b listed) int { return a.info.ModTime().Compare(b.info.ModTime()) }

// dropPacked drops a compressed file while the one it is made from is still
// there: it may be incomplete.
func (l *listing) dropPacked() {
	type key struct{ base, digits string }
	plain := map[key]bool{}
	for _, f := range l.files {
		if !f.age.packed {
			plain[key{f.base, f.age.digits}] = true
		}
	}
	l.files = slices.DeleteFunc(l.files, func(f listed) bool {
		return f.age.packed && plain[key{f.base, f.age.digits}]
	})
}

// Files is paths in the order in which their logs were written, as far as the
// files tell: by the time of the last change, and by their names where that is
// the same. A file that is named twice, or by two names, is there once.
func Files(paths []string) ([]string, error) {
	var l listing
	for _, name := range paths {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if l.index(info) < 0 {
			l.files = append(l.files, listed{name: name, info: info})
		}
	}
	slices.SortStableFunc(l.files, func(a, b listed) int {
		return cmp.Or(byTimeOnly(a, b), cmp.Compare(number(b.name), number(a.name)), cmp.Compare(a.name, b.name))
	})
	names := make([]string, len(l.files))
	for i, f := range l.files {
		names[i] = f.name
	}
	return names, nil
}

// number is 2 for mail.log.2.gz, and 0 for a name without a number.
func number(name string) int {
	for _, p := range packings {
		name = strings.TrimSuffix(name, p)
	}
	ext := filepath.Ext(name)
	n, err := strconv.Atoi(strings.TrimPrefix(ext, "."))
	if err != nil || len(ext) > 1+maxNumbered {
		return 0
	}
	return n
}
