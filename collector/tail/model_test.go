package tail

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// model is a log that is rotated at random, and its reader, that is restarted at
// random from a position that it had stored with the lines before it.
type model struct {
	*testLog
	reader   *testTail
	stored   []string // lines
	position []byte   // after them
	dates    bool     // rotated files have dates, else numbers
	day      int      // of the last rotation
	moved    bool     // the program writes to a file that was renamed
}

func newModel(t *rapid.T, dir string) *model {
	m := &model{testLog: &testLog{t: t, path: filepath.Join(dir, "mail.log")}}
	m.dates = rapid.Bool().Draw(t, "dates")
	m.reopen()
	if rapid.Bool().Draw(t, "older") { // than the reader: not its business
		m.write("older\n")
		m.rotate()
	}
	m.reader = m.follow(nil)
	m.position = m.reader.Position()
	return m
}

func (m *model) close() {
	m.reader.Close()
	m.testLog.close()
}

// rotated is the name that the log gets when it is rotated now.
func (m *model) rotated() string {
	if m.dates {
		m.day++
		return fmt.Sprintf("%s-202611%02d", m.path, m.day)
	}
	m.shift()
	return m.path + ".1"
}

func (m *model) rotate() {
	m.must(os.Rename(m.path, m.rotated()))
	m.reopen()
}

// actions are what may happen, each at any time at which it has a meaning.
func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"write": func(t *rapid.T) {
			m.complete()
			m.lines(rapid.IntRange(1, 40).Draw(t, "lines"))
		},
		"partial": func(*rapid.T) {
			m.complete()
			m.partial()
		},
		"rename": func(t *rapid.T) {
			m.settle()
			m.must(os.Rename(m.path, m.rotated()))
			m.moved = true
			if rapid.Bool().Draw(t, "create") {
				m.must(os.WriteFile(m.path, nil, 0o600))
			}
		},
		"reopen":       func(*rapid.T) { m.settle() },
		"copytruncate": func(*rapid.T) { m.settle(); m.copyAway() },
		"compress":     func(t *rapid.T) { m.settle(); m.compressOne(t) },
		"read":         func(*rapid.T) { m.reader.step() },
		"read all":     func(*rapid.T) { m.reader.drain(); m.check() },
		"store":        func(*rapid.T) { m.store() },
		"restart":      func(*rapid.T) { m.restart() },
	}
}

// settle ends what the program was about.
func (m *model) settle() {
	m.complete()
	if m.moved {
		m.reopen()
		m.moved = false
	}
}

func (m *model) copyAway() {
	text, err := os.ReadFile(m.path)
	m.must(err)
	if len(text) == 0 {
		return
	}
	m.must(os.WriteFile(m.rotated(), text, 0o600))
	m.must(os.Truncate(m.path, 0))
}

func (m *model) compressOne(t *rapid.T) {
	names, err := filepath.Glob(m.path + "?*[0-9]")
	m.must(err)
	if len(names) > 0 {
		m.compress(rapid.SampledFrom(names).Draw(t, "name"))
	}
}

// check holds that what was read is a beginning of what was written.
func (m *model) check() {
	got := m.reader.got
	sameLines(m.t, got, m.want[:min(len(got), len(m.want))])
}

func (m *model) store() {
	m.stored = m.reader.got[:len(m.reader.got):len(m.reader.got)]
	m.position = m.reader.Position()
}

func (m *model) restart() {
	m.reader.mustClose()
	m.reader = m.follow(m.position)
	m.reader.got = m.stored
}

// TestModel holds that each line is read exactly once and in order, whatever
// happens in whatever order.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		m := newModel(rt, dir)
		defer m.close()
		rt.Repeat(m.actions())
		m.settle()
		m.lines(1)
		sameLines(rt, m.reader.drain().got, m.want)
		if s := m.reader.Stats(); s.Gaps != 0 || s.Lost != 0 || s.Unreadable != 0 || s.Cut != 0 || s.Lag != 0 {
			rt.Fatalf("stats %+v", s)
		}
		m.restart() // from what was stored last
		sameLines(rt, m.reader.drain().got, m.want)
	})
}
