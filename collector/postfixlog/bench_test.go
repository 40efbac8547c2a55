package postfixlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
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
	domains, pid, offset int
	r                    *rand.Rand
}

func newReplacer(r *rand.Rand, domains, round int) *replacer {
	return &replacer{domains: domains, pid: round % 200, offset: r.IntN(domains), r: r}
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
	fmt.Fprintf(b, "%d", 1000+g.pid*7+int(line[end-1]-'0'))
	rest := line[end:]
	if hasPrefix(rest, "]: 4j") {
		b.WriteString("]: 4j")
		rest = rest[len("]: 4j"):]
		fmt.Fprintf(b, "%04d", g.offset%10000)
		rest = rest[4:]
	}
	name := fmt.Sprintf(".d%d.example.", g.offset%g.domains)
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
