package postfixlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// generate makes a log of at least size bytes out of the real lines of a log:
// the same deliveries over and over, of other domains, processes and messages,
// and as many lines of other programs as a relay has. It is the same each time.
func generate(real []byte, size, domains int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	lines := bytes.SplitAfter(real, []byte("\n"))
	var b bytes.Buffer
	b.Grow(size + 1<<16)
	for round := 0; b.Len() < size; round++ {
		replacer := newReplacer(r, domains, round)
		for _, line := range lines {
			if spared(line) {
				continue
			}
			replacer.write(&b, line)
			if b.Len() >= size {
				break
			}
		}
	}
	return b.Bytes()
}

// replacer makes a round of the log differ from the others.
type replacer struct {
	pid, offset int
}

// newReplacer is that of a round. The real log has about 100 domains.
func newReplacer(r *rand.Rand, domains, round int) *replacer {
	return &replacer{pid: round % 20, offset: r.IntN(domains / 100)}
}

// spared reports whether a line is one of those of smtpd that a relay has fewer
// of: the real logs have a client for each message.
func spared(line []byte) bool {
	return bytes.Contains(line, []byte("/smtpd[")) && !bytes.Contains(line, []byte(": client="))
}

// write writes line with other names in place of example.com and example.net,
// another pid and another queue id.
func (g *replacer) write(b *bytes.Buffer, line []byte) {
	open := bytes.IndexByte(line, '[')
	end := bytes.Index(line, []byte("]: "))
	if open < 0 || end < open {
		return
	}
	b.Write(line[:open+1])
	pid, _ := leadingNumber(line[open+1:])
	fmt.Fprintf(b, "%d", pid+g.pid*100000)
	rest := line[end:]
	if hasPrefix(rest, "]: 4j") {
		b.WriteString("]: 4j")
		rest = rest[len("]: 4j"):]
		fmt.Fprintf(b, "%04d", g.offset%10000)
		rest = rest[4:]
	}
	name := fmt.Sprintf(".d%d.example.", g.offset)
	for {
		i := bytes.Index(rest, []byte(".example."))
		if i < 0 {
			break
		}
		b.Write(rest[:i])
		b.WriteString(name)
		rest = rest[i+len(".example."):]
	}
	b.Write(rest)
}

func benchLog(b testing.TB, size int) []byte {
	return generate(readFile(b, "testdata/postfix-logs/3.7.11/base/maillog"), size, 20000)
}

// BenchmarkParse reads a realistic log in chunks of 1 MiB.
func BenchmarkParse(b *testing.B) {
	log := benchLog(b, 64<<20)
	lines := bytes.Count(log, []byte("\n"))
	p := NewParser(Options{Latest: latest})
	sessions := 0
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := log; len(rest) > 0; {
			n := min(len(rest), 1<<20)
			if i := bytes.LastIndexByte(rest[:n], '\n'); i >= 0 {
				n = i + 1
			}
			p.Parse(rest[:n], func(*Session) { sessions++ })
			rest = rest[n:]
		}
	}
	if sessions == 0 {
		b.Fatal("no session")
	}
	b.ReportMetric(float64(sessions)/float64(b.N)/float64(lines), "sessions/line")
	b.ReportMetric(float64(p.Stats().Client)/float64(p.Stats().Lines), "clientlines/line")
}

// TestGenerate holds the generated log to what makes it realistic.
func TestGenerate(t *testing.T) {
	log := benchLog(t, 8<<20)
	all, stats := parseAll(Options{}, log)
	domains := make(map[string]bool)
	for _, s := range kept(all) {
		domains[s.Domain] = true
	}
	share := float64(stats.Client) / float64(stats.Lines)
	if len(domains) < 1000 || share < 0.35 || share > 0.5 || stats.Dropped[DropUnjoined] > 0 {
		t.Errorf("%d domains, %.0f %% of the lines are of clients, %+v", len(domains), 100*share, stats)
	}
}

// TestNoGarbage reads the lines of other programs, and those of a session,
// without an allocation: but for the queue id of a session.
func TestNoGarbage(t *testing.T) {
	p := NewParser(Options{Latest: latest, Location: time.UTC, Senders: []string{"tls-reports@example.org"}})
	measure := func(name string, log []byte, want float64) {
		t.Helper()
		parse := func() { p.Parse(log, func(*Session) {}) }
		parse()
		if got := testing.AllocsPerRun(100, parse); got > want {
			t.Errorf("%s: %.0f allocations, want at most %.0f", name, got, want)
		}
	}
	measure("others", lateScript(
		"smtpd[1]: connect from localhost[127.0.0.1]", "cleanup[1]: 4jY1xQ00Dlz6X7y: message-id=<x@example.com>",
		"qmgr[1]: 4jY1xQ00Dlz6X7y: from=<alice@example.org>, size=1, nrcpt=1 (queue active)", "qmgr[1]: 4jY1xQ00Dlz6X7y: removed",
		"/usr/sbin/cron[1]: x"), 0)
	measure("a session", lateScript(trusted, sent), 1)
	measure("a failure", lateScript("smtp[1]: server certificate verification failed for mx.example.com[192.0.2.1]:25: certificate has expired",
		untrust, "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+notVer), 1)
}
