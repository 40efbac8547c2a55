package postfixlog

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// plainReader reads logs as simply as it can be done: it remembers nothing of one
// line for the next, and splits prefixes word by word. Parse must read the same.
type plainReader struct {
	*Parser
	t testing.TB
}

var plainForm = regexp.MustCompile(`(?s)^([^\[]*)\[([0-9]{1,10})\]: (.*)$`)

func (p plainReader) read(b []byte) {
	p.stats.Lines++
	p.clock.minuteAt, p.clock.fullAt = 0, 0
	p.names = newNames()
	clear(p.busy[:])
	b = bytes.TrimSuffix(b, []byte("\r"))
	m := plainForm.FindSubmatch(b)
	_, _, wrapped := unwrapCRI(b)
	if m == nil || b[0] == '{' || b[0] == '<' || b[0]-'0' < 10 && wrapped || programOf(m[1]) == other {
		p.line(b, wrapping{})
		return
	}
	prog, message := programOf(m[1]), m[3]
	if !p.sieve.matters(prog, message) || prog == qmgr && isRemoval(message) && !p.mayBeOwn(message) {
		p.checkIgnored(prog, message)
		return
	}
	at, rest, ok := p.clock.read(b)
	start := len(b) - len(rest)
	if !ok || start > len(m[1]) {
		if !ok {
			p.stats.NoPrefix++
		}
		return
	}
	words := strings.Split(string(m[1][start:]), " ")
	key := fmt.Sprintf("%s[%s", strings.Join(words[max(0, len(words)-2):], " "), m[2])
	p.entry(entry{at: at, program: prog, key: []byte(key), message: message})
}

// checkIgnored holds that a message that does not matter changes nothing.
func (p plainReader) checkIgnored(prog program, message []byte) {
	m := p.mta("host", "postfix")
	*m.logs("postfix") = true
	before := fmt.Sprint(p.own.order, m.ended, *m.logs("postfix"))
	p.serviceLine(entry{at: 1, program: prog, key: []byte("host postfix/x[1"), message: message})
	if after := fmt.Sprint(p.own.order, m.ended, *m.logs("postfix")); after != before {
		p.t.Fatalf("%q matters", message)
	}
	delete(p.mtas, "host postfix")
}

// plainly is parseAll by a plainReader.
func plainly(t testing.TB, o Options, log []byte) ([]told, Stats) {
	var all []told
	o.Dropped = func(s *Session, d Drop) { all = append(all, told{*s, d}) }
	p := plainReader{NewParser(o), t}
	emit := func(s *Session) { all = append(all, told{*s, ""}) }
	p.emit = emit
	for line := range bytes.Lines(log) {
		p.read(bytes.TrimSuffix(line, []byte("\n")))
	}
	p.Flush(latest().AddDate(1, 0, 0), emit)
	return all, p.Stats()
}

// checkPlain holds that a log is read as the plain way reads it.
func checkPlain(t testing.TB, log []byte) {
	t.Helper()
	o := Options{
		Instance: "*", ReportPlaintext: true, Latest: latest, Location: time.UTC,
		Senders: []string{"alice@sender.example", "alice@example.org"},
	}
	got, gotStats := parseAll(o, log)
	want, wantStats := plainly(t, o, log)
	if got, want := texts(got), texts(want); !slices.Equal(got, want) {
		t.Fatalf("read and read plainly:\n%s", diffLines(strings.Join(got, "\n"), strings.Join(want, "\n")))
	}
	if fmt.Sprint(gotStats) != fmt.Sprint(wantStats) {
		t.Fatalf("%+v, read plainly %+v", gotStats, wantStats)
	}
}

// TestPlain reads every log there is in both ways.
func TestPlain(t *testing.T) {
	names, _ := filepath.Glob("testdata/log-formats/*.log")
	for _, dir := range corpora(t) {
		names = append(names, filepath.Join(dir, "maillog"))
	}
	for _, name := range names {
		log := readFile(t, name)
		checkPlain(t, log)
		checkPlain(t, asCRI(log))
		checkPlain(t, asDocker(log))
	}
}

// TestPlainAfterSilence: a process that was forgotten as idle, at its own next
// line, has its session all the same.
func TestPlainAfterSilence(t *testing.T) {
	var log []byte
	for _, minute := range []int{0, 1, 30, 31, 50} {
		log = fmt.Appendf(log, "2026-11-23T10:%02d:00.5+01:00 out postfix/smtp[1234]: Trusted TLS connection established to mx.example.com[192.0.2.1]:25: x\n", minute)
		log = fmt.Appendf(log, "2026-11-23T10:%02d:01.5+01:00 out postfix/smtp[1234]: 4jY1xQ00Dlz%02d7y: to=<bob@example.com>, relay=mx.example.com[192.0.2.1]:25, "+
			"delay=0.1, delays=0/0/0.09/0.04, dsn=2.0.0, status=sent (250 ok)\n", minute, minute)
	}
	checkPlain(t, log)
	if all, _ := parseAll(Options{}, log); len(kept(all)) != 5 || kept(all)[2].Outcome != Trusted {
		t.Errorf("%q", texts(all))
	}
}
