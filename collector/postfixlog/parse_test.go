package postfixlog

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// text is a session on one line.
func (s told) text() string {
	b, err := json.Marshal(s.Session)
	if err != nil {
		return err.Error()
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return err.Error()
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s %s", s.Time.Format("15:04:05.000000"), s.Domain, s.Outcome)
	for _, k := range []string{
		"Result", "Reason", "Finding", "MX", "IP", "Port", "Instance", "Host", "Match", "TLSLevel", "TLSActual",
		"Enforced", "Resumed", "Native", "NativeLost", "QueueID",
	} {
		if v := m[k]; v != "" && v != false && v != 0.0 {
			fmt.Fprintf(&out, " %s=%q", k, fmt.Sprint(v))
		}
	}
	if s.drop != "" {
		fmt.Fprintf(&out, " dropped=%s", s.drop)
	}
	return out.String()
}

func texts(all []told) []string {
	var out []string
	for _, s := range all {
		out = append(out, s.text())
	}
	return out
}

// TestGolden holds every session of every log against a golden file.
func TestGolden(t *testing.T) {
	for _, dir := range corpora(t) {
		name, ok := strings.CutPrefix(dir, "testdata/postfix-logs/")
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			all, _ := parseAll(Options{Instance: "*"}, readFile(t, filepath.Join(dir, "maillog")))
			got := strings.Join(texts(all), "\n") + "\n"
			golden := filepath.Join(dir, "sessions.golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(readFile(t, golden)); got != want {
				t.Errorf("sessions differ from %s; -update rewrites it:\n%s", golden, diffLines(got, want))
			}
		})
	}
}

// diffLines is the lines of which one side has more.
func diffLines(got, want string) string {
	n := make(map[string]int)
	for line := range strings.SplitSeq(got, "\n") {
		n[line]++
	}
	for line := range strings.SplitSeq(want, "\n") {
		n[line]--
	}
	var out []string
	for line, k := range n {
		if k > 0 {
			out = append(out, "+"+line)
		} else if k < 0 {
			out = append(out, "-"+line)
		}
	}
	slices.Sort(out)
	return strings.Join(out[:min(len(out), 30)], "\n")
}

// inPieces parses log cut after each line that cut is true for. At each cut
// another parser goes on from the state of the one before.
func inPieces(log []byte, cut func(line int) bool) []told {
	return piecesWith(Options{Instance: "*", Latest: latest, Location: time.UTC}, log, cut)
}

// piecesWith is inPieces with options.
func piecesWith(o Options, log []byte, cut func(line int) bool) []told {
	var all []told
	o.Dropped = func(s *Session, d Drop) { all = append(all, told{*s, d}) }
	emit := func(s *Session) { all = append(all, told{*s, ""}) }
	p := NewParser(o)
	var piece []byte
	n := 0
	for line := range bytes.Lines(log) {
		piece = append(piece, line...)
		if n++; cut(n) {
			p.Parse(piece, emit)
			state := p.State()
			p = NewParser(o)
			if err := p.Restore(state); err != nil {
				panic(err)
			}
			piece = piece[:0]
		}
	}
	p.Parse(piece, emit)
	p.Flush(latest().AddDate(1, 0, 0), emit)
	return all
}

// TestPieces cuts each log after every line, at random lines, and in two at
// each line: the sessions are those of the whole.
func TestPieces(t *testing.T) {
	for _, dir := range corpora(t) {
		log := readFile(t, filepath.Join(dir, "maillog"))
		all, _ := parseAll(Options{Instance: "*"}, log)
		want := texts(all)
		r := rand.New(rand.NewPCG(3, 4))
		cuts := map[string]func(int) bool{
			"each":   func(int) bool { return true },
			"random": func(int) bool { return r.IntN(10) == 0 },
		}
		for name, cut := range cuts {
			if got := texts(inPieces(log, cut)); !slices.Equal(got, want) {
				t.Errorf("%s: cut at %s lines:\n%s", dir, name, diffLines(strings.Join(got, "\n"), strings.Join(want, "\n")))
			}
		}
	}
	// All boundaries of one log that has everything in it, each on its own.
	log := readFile(t, "testdata/postfix-logs/3.7.11/loglevelrich/maillog")
	all, _ := parseAll(Options{Instance: "*"}, log)
	for at := range bytes.Count(log, []byte("\n")) {
		if got := texts(inPieces(log, func(n int) bool { return n == at })); !slices.Equal(got, texts(all)) {
			t.Fatalf("cut at line %d differs", at)
		}
	}
}

// processOf is the process that wrote a line of postlogd.
func processOf(line []byte) string {
	open, end := bytes.IndexByte(line, '['), bytes.Index(line, []byte("]: "))
	if open < 0 || end < open {
		return ""
	}
	return string(line[len("Nov 23 10:04:26 "):end])
}

// shuffle mixes the lines of different processes, and keeps the order within
// each.
func shuffle(r *rand.Rand, log []byte) []byte {
	queues := make(map[string][][]byte)
	var names []string
	for line := range bytes.Lines(log) {
		k := processOf(line)
		if queues[k] == nil {
			names = append(names, k)
		}
		queues[k] = append(queues[k], line)
	}
	var out []byte
	for len(names) > 0 {
		i := r.IntN(len(names))
		q := queues[names[i]]
		for n := 1 + r.IntN(3); n > 0 && len(q) > 0; n-- {
			out, q = append(out, q[0]...), q[1:]
		}
		if queues[names[i]] = q; len(q) == 0 {
			names = slices.Delete(names, i, i+1)
		}
	}
	return out
}

// TestShuffled mixes the lines of the processes: each session is told as before.
// With tlsproxy the order between processes is what sessions are joined by, and
// with a reload it is what the level is known by.
func TestShuffled(t *testing.T) {
	for _, dir := range corpora(t) {
		log := readFile(t, filepath.Join(dir, "maillog"))
		if bytes.Contains(log, []byte("/tlsproxy[")) || strings.Contains(dir, "loglevel0") {
			continue
		}
		key := func(all []told) []string {
			var out []string
			for _, s := range all {
				if s.Outcome == Plaintext || s.Resumed {
					continue // may come before the first TLS line, or before the fault
				}
				out = append(out, s.text())
			}
			slices.Sort(out)
			return out
		}
		all, _ := parseAll(Options{Instance: "*"}, log)
		want := key(all)
		for seed := range uint64(5) {
			mixed, _ := parseAll(Options{Instance: "*"}, shuffle(rand.New(rand.NewPCG(seed, 9)), log))
			if got := key(mixed); !slices.Equal(got, want) {
				t.Errorf("%s, seed %d:\n%s", dir, seed, diffLines(strings.Join(got, "\n"), strings.Join(want, "\n")))
			}
		}
	}
}

// TestFormats reads the same lines as different log daemons write them.
func TestFormats(t *testing.T) {
	type group struct {
		reference string
		others    []string
	}
	const dir = "testdata/log-formats/"
	for _, g := range []group{
		{"syslog-traditional.log", []string{"syslog-rfc3339-debian12-default.log", "syslog-rfc5424.log", "syslog-json.log"}},
		{"journald-short.log", []string{
			"journald-json.log", "journald-short-iso.log", "journald-short-iso-precise.log", "journald-with-unit.log",
		}},
	} {
		want := formatSessions(t, readFile(t, dir+g.reference), time.Second)
		if len(want) < 4 {
			t.Fatalf("%s: %d sessions", g.reference, len(want))
		}
		for _, name := range g.others {
			if got := formatSessions(t, readFile(t, dir+name), time.Second); !slices.Equal(got, want) {
				t.Errorf("%s:\n%s", name, diffLines(strings.Join(got, "\n"), strings.Join(want, "\n")))
			}
		}
	}
}

// TestWrapped puts logs of all formats into the lines of container runtimes.
func TestWrapped(t *testing.T) {
	for _, name := range []string{
		"docker-stdout-start-fg.log", "syslog-traditional.log", "syslog-rfc3339-debian12-default.log",
		"syslog-rfc5424.log", "syslog-json.log", "journald-json.log", "journald-with-unit.log",
	} {
		log := readFile(t, "testdata/log-formats/"+name)
		want := formatSessions(t, log, time.Second)
		if len(want) == 0 {
			t.Fatalf("%s: no session", name)
		}
		for runtime, wrap := range map[string]func([]byte) []byte{"docker": asDocker, "cri": asCRI} {
			if got := formatSessions(t, wrap(log), time.Second); !slices.Equal(got, want) {
				t.Errorf("%s in %s:\n%s", name, runtime, diffLines(strings.Join(got, "\n"), strings.Join(want, "\n")))
			}
		}
	}
}

// formatSessions is the sessions of a log, with times cut to what all formats
// have.
func formatSessions(t *testing.T, log []byte, unit time.Duration) []string {
	t.Helper()
	all, stats := parseAll(Options{}, log)
	if stats.NoPrefix > 0 {
		t.Errorf("%d lines without prefix", stats.NoPrefix)
	}
	for i := range all {
		all[i].Time = all[i].Time.Truncate(unit)
	}
	return texts(all)
}

func asDocker(log []byte) []byte {
	var out []byte
	for line := range bytes.Lines(log) {
		text, _ := json.Marshal(string(line))
		at := outerTime(line)
		out = fmt.Appendf(out, "{\"log\":%s,\"stream\":\"stdout\",\"time\":%q}\n", text, at)
	}
	return out
}

func asCRI(log []byte) []byte {
	var out []byte
	for line := range bytes.Lines(log) {
		out = fmt.Appendf(out, "%s stdout F %s", outerTime(line), line)
	}
	return out
}

// outerTime is when a container runtime got a line.
func outerTime(line []byte) string {
	if hasPrefix(line, "Nov 23 ") {
		return fmt.Sprintf("2026-11-23T%s.123456789Z", line[len("Nov 23 "):len("Nov 23 10:04:26")])
	}
	return "2026-11-23T10:00:00Z" // the line has a better one
}

// TestUnreadable counts lines without prefix, and makes nothing of them.
func TestUnreadable(t *testing.T) {
	for _, name := range []string{"journald-cat.log", "journald-export.log"} {
		all, stats := parseAll(Options{}, readFile(t, "testdata/log-formats/"+name))
		if len(all) > 0 || stats.Client > 0 {
			t.Errorf("%s: %d sessions, %d lines", name, len(all), stats.Client)
		}
		if name == "journald-cat.log" && stats.NoPrefix < 4 {
			t.Errorf("%s: NoPrefix is %d", name, stats.NoPrefix)
		}
	}
}
