package loggen_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/tail"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

// sizeEnv is the size of the log that benchmarks read, in MB of 2^20 bytes; 64
// where it is not set.
const sizeEnv = "TLSRPT_BENCH_LOG_MB"

// benchDir holds the log of the benchmarks.
var benchDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if benchDir != "" {
		_ = os.RemoveAll(benchDir) // it is a temporary folder
	}
	os.Exit(code)
}

// written is a log in a file, and what is in it.
type written struct {
	path  string
	stats loggen.Stats
	want  total
}

// total is the sessions of a log.
type total struct{ success, failure int64 }

// benchFile is the log that benchmarks read, written once.
var benchFile = sync.OnceValues(func() (w written, err error) {
	mb := 64
	if s := os.Getenv(sizeEnv); s != "" {
		if mb, err = strconv.Atoi(s); err != nil {
			return w, err
		}
	}
	if benchDir, err = os.MkdirTemp("", "tlsrpt-bench"); err != nil {
		return w, err
	}
	w.path = filepath.Join(benchDir, "mail.log")
	f, err := os.Create(w.path)
	if err != nil {
		return w, err
	}
	l := loggen.New(loggen.Options{})
	buf := make([]byte, 0, 2<<20)
	for l.Stats().Bytes < int64(mb)<<20 && err == nil {
		for buf = buf[:0]; len(buf) < 1<<20; {
			buf = l.Append(buf)
		}
		_, err = f.Write(buf)
	}
	_, err2 := f.Write(l.AppendRest(nil))
	w.stats = l.Stats()
	for k, n := range l.Sessions() {
		if k.Result == "" {
			w.want.success += n
		} else {
			w.want.failure += n
		}
	}
	// Pages that are still on their way to the disk would slow down whoever reads.
	return w, errors.Join(err, err2, f.Sync(), f.Close())
})

func benchLog(b *testing.B) written {
	w, err := benchFile()
	benchCheck(b, err)
	return w
}

func benchCheck(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// meter measures what b.ReportAllocs cannot: per line, and the best reading, which
// others on the same processors disturbed least. So grep is measured too.
type meter struct {
	n       int
	best    cost
	mallocs uint64
}

// readings is how many there are at least.
const readings = 3

func (m *meter) measure(f func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, cpu := time.Now(), cpuTime()
	f()
	one := cost{time.Since(start), cpuTime() - cpu}
	runtime.ReadMemStats(&after)
	if m.n == 0 {
		m.best = one
	}
	m.best = m.best.best(one)
	m.mallocs += after.Mallocs - before.Mallocs
	m.n++
}

// report reports on the readings of w.
func (m *meter) report(b *testing.B, w written) {
	b.ReportMetric(float64(w.stats.Bytes)/1e6/m.best.took.Seconds(), "best-MB/s")
	b.ReportMetric(float64(w.stats.Sessions)/m.best.took.Seconds(), "sessions/s")
	b.ReportMetric(m.best.cpu.Seconds()/float64(w.stats.Bytes)*1e9, "cpu-s/GB")
	b.ReportMetric(float64(m.mallocs)/float64(m.n)/float64(w.stats.Lines), "allocs/line")
}

// BenchmarkParser reads the log without a store.
func BenchmarkParser(b *testing.B) {
	w := benchLog(b)
	b.SetBytes(w.stats.Bytes)
	var m meter
	for b.Loop() {
		m.measure(func() { parse(b, w) })
	}
	for m.n < readings {
		m.measure(func() { parse(b, w) })
	}
	m.report(b, w)
}

func parse(b *testing.B, w written) {
	t, err := tail.Open(tail.Options{Path: w.path}, nil)
	benchCheck(b, err)
	defer t.Close()
	p := postfixlog.NewParser(benchOptions())
	var sessions int64
	for {
		chunk, err := t.Next(b.Context())
		if err == io.EOF {
			break
		}
		benchCheck(b, err)
		p.Parse(chunk, func(*postfixlog.Session) { sessions++ })
	}
	if sessions != w.stats.Sessions {
		b.Fatalf("%d sessions found, %d written", sessions, w.stats.Sessions)
	}
}

// BenchmarkLogSource reads the log into a store, as the daemon does: positions
// and counts are committed along the way. Beside it, in the same run, grep and
// pflogsumm read it.
func BenchmarkLogSource(b *testing.B) {
	w := benchLog(b)
	before := grep(b, w)
	b.SetBytes(w.stats.Bytes)
	var m meter
	for b.Loop() {
		b.StopTimer()
		m.readInto(b, w, b.StartTimer, b.StopTimer)
		b.StartTimer()
	}
	for m.n < readings {
		m.readInto(b, w, func() {}, func() {})
	}
	m.report(b, w)
	b.ReportMetric(peakRSS(b), "peak-MB")
	g := before.best(grep(b, w))
	b.ReportMetric(float64(w.stats.Bytes)/1e6/g.took.Seconds(), "grep-MB/s")
	b.ReportMetric(m.best.took.Seconds()/g.took.Seconds(), "x-grep")
	b.ReportMetric(m.best.cpu.Seconds()/g.cpu.Seconds(), "x-grep-cpu")
	if speed, ok := pflogsumm(b, w); ok {
		b.ReportMetric(speed/1e6, "pflogsumm-MB/s")
		b.ReportMetric(float64(w.stats.Bytes)/m.best.took.Seconds()/speed, "x-pflogsumm-speed")
	}
}

// benchOptions are those of a daemon that reports.
func benchOptions() postfixlog.Options {
	o := options()
	o.Senders = []string{"tls-reports@sender.example"}
	return o
}

// readInto measures how the log is counted in a new store, between calls of start
// and stop.
func (m *meter) readInto(b *testing.B, w written, start, stop func()) {
	store, err := aggregator.Open(filepath.Join(b.TempDir(), "tlsrpt.db"), aggregator.Options{})
	benchCheck(b, err)
	runtime.GC()
	m.measure(func() {
		start()
		defer stop()
		s, err := postfixlog.Open(postfixlog.SourceOptions{Name: "bench", Tail: tail.Options{Path: w.path}, Log: benchOptions()})
		benchCheck(b, err)
		benchCheck(b, s.Run(b.Context(), store))
	})
	checkStore(b, w, store)
	benchCheck(b, store.Close())
}

// checkStore compares what was counted with what was written.
func checkStore(b *testing.B, w written, store *aggregator.Store) {
	var got total
	benchCheck(b, store.Pending(b.Context(), aggregator.PendingFilter{}, func(p aggregator.Pending) error {
		got.success += p.Success
		got.failure += p.Failure
		return nil
	}))
	if got != w.want {
		b.Fatalf("%+v in the store, %+v written", got, w.want)
	}
}

// cpuTime is what this process used of the processors.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakRSS is the most memory this process ever had, in MB.
func peakRSS(b *testing.B) float64 {
	var u unix.Rusage
	benchCheck(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return float64(u.Maxrss) * 1024 / 1e6
}

// cost is what reading the log took: where others use the processors too, cpu
// tells more.
type cost struct{ took, cpu time.Duration }

func (c cost) best(d cost) cost { return cost{min(c.took, d.took), min(c.cpu, d.cpu)} }

// grep is what it costs grep to count the lines of smtp(8): the best of three.
func grep(b *testing.B, w written) (c cost) {
	for i := range 3 {
		start := time.Now()
		cmd := exec.Command("grep", "-c", `postfix/smtp\[`, w.path)
		cmd.Env = append(os.Environ(), "LC_ALL=C") // its fastest
		out, err := cmd.Output()
		benchCheck(b, err)
		one := cost{time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
		if i == 0 {
			c = one
		}
		c = c.best(one)
		if n := strings.TrimSpace(string(out)); n != strconv.FormatInt(w.stats.Client, 10) {
			b.Fatalf("grep found %s lines, %d written", n, w.stats.Client)
		}
	}
	return c
}

// pflogsumm is how many bytes a second pflogsumm reads, of the first 100 MB. It
// is false if it is not installed (Debian package pflogsumm).
func pflogsumm(b *testing.B, w written) (speed float64, ok bool) {
	path, err := exec.LookPath("pflogsumm")
	if err != nil {
		b.Log("pflogsumm is not installed")
		return 0, false
	}
	f, err := os.Open(w.path)
	benchCheck(b, err)
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 100e6))
	benchCheck(b, err)
	part := filepath.Join(b.TempDir(), "part")
	benchCheck(b, os.WriteFile(part, text[:bytes.LastIndexByte(text, '\n')+1], 0o600))
	start := time.Now()
	out, err := exec.Command(path, part).CombinedOutput()
	benchCheck(b, err)
	if !bytes.Contains(out, []byte("delivered")) {
		b.Fatalf("pflogsumm said: %s", out)
	}
	return float64(len(text)) / time.Since(start).Seconds(), true
}
