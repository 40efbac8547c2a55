package libtlsrpt

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// BenchmarkDecode is what a datagram costs that is not in the cache.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"success-none", "success-tlsa", "success-sts", "failure"} {
		datagram := load(name, 0)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(datagram); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// load is one datagram for domain n, as Postfix sends it.
func load(kind string, n int) []byte {
	policies := map[string]string{
		"success-none": `{"policy-type":9,"policy-domain": "d%[1]d.example.com","t":0,"f":0}`,
		"success-tlsa": `{"policy-type":1,"policy-domain": "mx.d%[1]d.example.com","policy-string":[` +
			`"3 1 1 1F850A337E6DB9C609C522D136A475638CC43E1ED424F8EEC8513D747D%06[1]X",` +
			`"2 1 1 8BD1DA95272F7FA4FFB24137FC0ED03AAE67E5C4D8B3C50734E1050A7920B922"],"t":0,"f":0}`,
		"success-sts": `{"policy-type":2,"policy-domain": "d%[1]d.example.com","policy-string":[` +
			`"version: STSv1","mode: enforce","mx: mx.d%[1]d.example.com","max_age: 86400"],"mx-host":["mx.d%[1]d.example.com"],"t":0,"f":0}`,
		"failure": `{"policy-type":9,"policy-domain": "d%[1]d.example.com","failure-details":[{"c":204,"s": "192.0.2.1",` +
			`"n": "mx.d%[1]d.example.com","h": "250-mx.d%[1]d.example.com\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 8BITMIME",` +
			`"r": "198.51.100.7"}],"t":1,"f":1}`,
	}
	return fmt.Appendf(nil, `{"dpv": "1","d": "d%d.example.com","pr": "v=TLSRPTv1; rua=mailto:tlsrpt@d%[1]d.example.com","policies":[%s]}`,
		n, fmt.Sprintf(policies[kind], n))
}

// mixture is datagrams for so many domains, of which 40 % have DANE, 40 %
// MTA-STS, and 5 % of the sessions fail.
func mixture(domains int) [][]byte {
	kinds := []string{"success-tlsa", "success-sts", "success-tlsa", "success-sts", "success-none"}
	all := make([][]byte, domains)
	for i := range all {
		kind := kinds[i%len(kinds)]
		if i%20 == 19 {
			kind = "failure"
		}
		all[i] = load(kind, i)
	}
	return all
}

// discard is a sink that costs nothing.
type discard struct{ sessions atomic.Int64 }

func (d *discard) Record(_ context.Context, _ string, _ []byte, counts []schema.Count) error {
	for _, c := range counts {
		d.sessions.Add(c.Success + c.Failure)
	}
	return nil
}

// BenchmarkReceive is the way of a datagram from a sender that waits where the
// queue is full to a sink that does nothing. cpu-s/100k is of this process,
// the sender included: BenchmarkReceiver has what reading alone takes.
func BenchmarkReceive(b *testing.B) {
	for _, domains := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("domains=%d", domains), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "s")
			source, err := Listen(Options{Path: path})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			var sink discard
			go func() { done <- source.Run(ctx, &sink) }()
			datagrams := mixture(domains)
			conn := dial(b, path)
			before := cpu(process)
			for i := 0; b.Loop(); i++ {
				if _, err := conn.Write(datagrams[i%len(datagrams)]); err != nil {
					b.Fatal(err)
				}
			}
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			report(b, cpu(process)-before, b.N)
			if got := sink.sessions.Load(); got != int64(b.N) {
				b.Errorf("%d sessions of %d reached the sink", got, b.N)
			}
			b.ReportMetric(float64(source.Stats().CacheHits)/float64(b.N), "hits/op")
		})
	}
}

// BenchmarkReceiver compares the two ways to read a socket. cpu-s/100k is of the
// thread that reads, so without the sender.
func BenchmarkReceiver(b *testing.B) {
	for name, make := range receivers {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "s")
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				b.Fatal(err)
			}
			recv, err := make(socket)
			if err != nil {
				b.Fatal(err)
			}
			wait := startSender(dial(b, path), load("success-tlsa", 1))
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			before, got := cpu(thread), 0
			each := func([]byte) { got++ }
			b.ResetTimer()
			for got < b.N {
				if err := recv.burst(each); err != nil {
					b.Fatal(err)
				}
			}
			report(b, cpu(thread)-before, got)
			socket.Close()
			wait()
		})
	}
}

// startSender sends datagram until conn has no listener any more.
func startSender(conn *net.UnixConn, datagram []byte) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := conn.Write(datagram); err != nil {
				return
			}
		}
	}()
	return func() { <-done }
}

const (
	process = syscall.RUSAGE_SELF
	thread  = 1 // RUSAGE_THREAD of Linux
)

// cpu is what the process or the thread has used of the processors.
func cpu(who int) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func report(b *testing.B, used time.Duration, datagrams int) {
	b.ReportMetric(used.Seconds()/float64(datagrams)*100_000, "cpu-s/100k")
	b.ReportMetric(float64(datagrams)/b.Elapsed().Seconds(), "datagrams/s")
}

// dial is a sender to the socket at path.
func dial(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
