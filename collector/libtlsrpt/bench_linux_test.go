package libtlsrpt

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
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
