package postfixlog

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// FuzzPrefix reads two lines of any format. Parsing them is deterministic, leads
// to at most one session per line, and goes on from a state between them. What a
// container runtime wraps is read as it is, if it has a time of its own.
func FuzzPrefix(f *testing.F) {
	files, _ := filepath.Glob("testdata/log-formats/*.log")
	for _, name := range files {
		lines := bytes.Split(readFile(f, name), []byte("\n"))
		for i := range len(lines) - 1 {
			f.Add(lines[i], lines[i+1])
		}
	}
	f.Add(asDocker([]byte("Nov 23 10:00:00 out postfix/smtp[1]: x\n")), asCRI([]byte("Nov 23 10:00:00 out postfix/smtp[1]: x\n")))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		checkLog(t, slices.Concat(a, []byte("\n"), b, []byte("\n")))
	})
}

// FuzzLine reads messages of smtp(8) and tlsproxy(8): each line of the input is
// one. A line that begins with '1' to '9' is of that process, others are of
// process 1; one that begins with 'p' is of tlsproxy, with 'q' of qmgr.
func FuzzLine(f *testing.F) {
	for _, dir := range corpora(f) {
		log := readFile(f, filepath.Join(dir, "maillog"))
		var window [][]byte
		for line := range bytes.Lines(log) {
			if i := bytes.Index(line, []byte("]: ")); i > 0 && bytes.Contains(line[:i], []byte("/smtp[")) {
				window = append(window, line[i+3:])
			} else if i > 0 && bytes.Contains(line[:i], []byte("/tlsproxy[")) {
				window = append(window, slices.Concat([]byte("p"), line[i+3:]))
			}
			if len(window) == 4 {
				f.Add(bytes.Join(window, nil))
				window = window[2:]
			}
		}
	}
	f.Fuzz(func(t *testing.T, messages []byte) {
		var log []byte
		for line := range bytes.Lines(bytes.TrimSuffix(messages, []byte("\n"))) {
			log = append(log, "Nov 23 10:00:00 out postfix/"...)
			tag := []byte("smtp[1]: ")
			switch c := line[0]; {
			case c == 'p':
				tag, line = []byte("tlsproxy[5]: "), line[1:]
			case c == 'q':
				tag, line = []byte("qmgr[6]: "), line[1:]
			case c >= '1' && c <= '9' && len(line) > 1 && line[1] == ' ':
				tag, line = []byte("smtp["+string(rune(c))+"]: "), line[2:]
			}
			log = append(append(log, tag...), line...)
		}
		checkLog(t, append(log, '\n'))
	})
}

// checkLog holds what is true of any log.
func checkLog(t *testing.T, log []byte) {
	t.Helper()
	o := Options{Instance: "*", ReportPlaintext: true, Latest: latest, Location: time.UTC}
	all, stats := parseAll(o, log)
	if again, _ := parseAll(o, log); !slices.Equal(texts(all), texts(again)) {
		t.Fatalf("parsed twice, %q and %q", texts(all), texts(again))
	}
	if n := int64(len(kept(all))); n != stats.Sessions || n > stats.Lines {
		t.Fatalf("%d sessions, %+v", n, stats)
	}
	for _, s := range kept(all) {
		if s.Domain == "" || s.Outcome != NoSession && (!s.IP.IsValid() || s.Port != smtpPort) || s.Outcome == Failed && s.Result == "" {
			t.Fatalf("incomplete: %+v", s)
		}
	}
	checkPlain(t, log)
	ways := map[string]func(int) bool{"each": func(int) bool { return true }, "odd": func(n int) bool { return n%2 == 1 }}
	for name, cut := range ways {
		if got := texts(piecesWith(o, log, cut)); !slices.Equal(got, texts(all)) {
			t.Fatalf("cut at %s lines:\ngot  %q\nwant %q", name, got, texts(all))
		}
	}
}
