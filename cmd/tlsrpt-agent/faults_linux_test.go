package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/eventgen"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
)

var chaosLock = flag.Duration("chaos.lock", 11*time.Second, "how long another process locks the store; more than 10 s has commits fail")

// faulty is a daemon with a socket to which faults happen, and what was sent to it.
type faulty struct {
	*testing.T
	config, store, socket string
	daemon                *process
	sent                  map[string]int64
	n                     int
}

func newFaulty(t *testing.T, storeDir string) *faulty {
	t.Helper()
	dir := t.TempDir()
	f := &faulty{
		T: t, config: filepath.Join(dir, "config.toml"), store: filepath.Join(storeDir, "tlsrpt.db"),
		socket: filepath.Join(dir, "s"), sent: map[string]int64{},
	}
	text := fmt.Sprintf("[store]\npath = %q\n[web]\nlisten = \"\"\n[[source.libtlsrpt]]\nsocket = %q\n", f.store, f.socket)
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.daemon = startProcess(t, f.config)
	return f
}

// send sends so many sessions, and waits where the queue is full.
func (f *faulty) send(n int) {
	f.Helper()
	conn, err := net.Dial("unixgram", f.socket)
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close()
	kinds := []eventgen.Kind{eventgen.STS, eventgen.TLSA, eventgen.Failure, eventgen.None}
	for range n {
		f.n++
		d := f.n % 50
		if _, err := conn.Write(eventgen.Datagram(kinds[f.n%len(kinds)], d)); err != nil {
			f.Fatal(err)
		}
		f.sent[fmt.Sprintf("d%d.example.com", d)]++
	}
}

// counted is the sessions that the store has, by domain.
func (f *faulty) counted() map[string]int64 {
	f.Helper()
	code, out, errs := runCommand(f.T, "pending", "-c", f.config, "--json")
	if code != 0 {
		f.Fatalf("pending: %s", errs)
	}
	got := map[string]int64{}
	for d := json.NewDecoder(bytes.NewReader([]byte(out))); d.More(); {
		var p pendingLine
		if err := d.Decode(&p); err != nil {
			f.Fatal(err)
		}
		got[p.Domain] += p.Success + p.Failure
	}
	return got
}

// await waits until all that was sent is in the store.
func (f *faulty) await() {
	f.Helper()
	waitFor(f.T, "all that was sent", func() bool { return total(f.counted()) >= total(f.sent) })
}

// compare stops the daemon and compares what was counted with what was sent.
func (f *faulty) compare() {
	f.Helper()
	f.daemon.stop(syscall.SIGTERM)
	got := f.counted()
	for domain, n := range f.sent {
		if got[domain] != n {
			f.Errorf("%s: %d sessions counted, %d sent", domain, got[domain], n)
		}
	}
}

func total(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// says waits until the daemon has said something.
func (f *faulty) says(text string) {
	f.Helper()
	waitFor(f.T, fmt.Sprintf("the daemon to say %q", text), func() bool { return strings.Contains(f.daemon.errs.String(), text) })
}

// TestTerminatedUnderLoad: on SIGTERM, with every processor busy and many senders,
// each session that a sender got rid of is counted. All others know that they
// failed.
func TestTerminatedUnderLoad(t *testing.T) {
	f := newFaulty(t, t.TempDir())
	var stop atomic.Bool
	var busy, senders sync.WaitGroup
	for range 2 * runtime.NumCPU() {
		busy.Go(func() {
			for !stop.Load() {
			}
		})
	}
	defer busy.Wait()
	defer stop.Store(true)
	var sent [8][50]int64
	var all atomic.Int64
	for s := range sent {
		senders.Go(func() {
			for i := 0; ; i++ {
				conn, err := net.Dial("unixgram", f.socket)
				if err != nil {
					return
				}
				_, err = conn.Write(eventgen.Datagram(eventgen.Failure, i%50))
				conn.Close()
				if err != nil {
					return
				}
				sent[s][i%50]++
				all.Add(1)
			}
		})
	}
	waitFor(t, "load", func() bool { return all.Load() > 20_000 })
	f.daemon.signal(syscall.SIGTERM)
	senders.Wait()
	for i := range 50 {
		for s := range sent {
			f.sent[fmt.Sprintf("d%d.example.com", i)] += sent[s][i]
		}
	}
	f.compare() // a second signal changes nothing
}

// TestKilledWhileReceiving: a process that is killed takes with it what came within
// the last second and its commit, and nothing is counted twice.
func TestKilledWhileReceiving(t *testing.T) {
	f := newFaulty(t, t.TempDir())
	for range *chaosRounds {
		f.send(2000)
		f.await()
		before := total(f.sent)
		f.send(500) // may be lost
		time.Sleep(time.Duration(f.n%1300) * time.Millisecond)
		f.daemon.stop(os.Kill)
		got := f.counted()
		if n := total(got); n < before || n > total(f.sent) {
			t.Errorf("%d sessions counted, want %d to %d", n, before, total(f.sent))
		}
		f.sent = got
		f.daemon = startProcess(t, f.config)
	}
	f.compare()
}

// TestLockedStore: another process locks the store for long. Receiving goes on,
// reading too, and all is counted.
func TestLockedStore(t *testing.T) {
	t.Parallel() // it waits most of the time
	f := newFaulty(t, t.TempDir())
	f.daemon.expect("msg=unhealthy part=store")
	f.send(1000)
	f.await()
	db, err := sql.Open("sqlite3", "file:"+f.store+"?_txlock=immediate&_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	f.send(3000)
	if n := total(f.counted()); n != 1000 {
		t.Errorf("%d sessions can be read while the store is locked, want 1000", n)
	}
	time.Sleep(*chaosLock)
	if *chaosLock > 10*time.Second {
		f.says("commit failed, its counts are kept")
	}
	f.send(3000)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.await()
	f.compare()
}

// TestSuspended: a process that stands still loses what its queue has no room for,
// and who sends that knows it. It counts all the rest.
func TestSuspended(t *testing.T) {
	f := newFaulty(t, t.TempDir())
	f.send(100)
	f.daemon.signal(syscall.SIGSTOP)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	refused := 0
	for i := range 2000 {
		err := unix.Sendto(fd, eventgen.Datagram(eventgen.None, i%50), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: f.socket})
		switch {
		case err == nil:
			f.sent[fmt.Sprintf("d%d.example.com", i%50)]++
		case errors.Is(err, unix.EAGAIN):
			refused++
		default:
			t.Fatal(err)
		}
	}
	f.daemon.signal(syscall.SIGCONT)
	f.send(100)
	f.await()
	f.compare()
	if refused == 0 {
		t.Skip("the queue had room for all of them")
	}
}

// TestOutOfFiles: without file descriptors the daemon goes on to count, and does
// the rest once there are some again.
func TestOutOfFiles(t *testing.T) {
	f := newFaulty(t, t.TempDir())
	f.send(1000)
	f.await()
	limit := func(n uint64) {
		t.Helper()
		if err := unix.Prlimit(f.daemon.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: 1024}, nil); err != nil {
			t.Skip(err)
		}
	}
	limit(0)
	f.send(5000)
	f.await()
	if err := os.Remove(f.socket); err != nil {
		t.Fatal(err)
	}
	f.says("too many open files")
	limit(1024)
	f.says("the socket was made anew")
	f.send(1000)
	f.await()
	f.daemon.expect("no session can be received")
	f.compare()
}

// TestReadOnlyFileSystem: what is received while the store cannot be written is
// kept, and counted when it can be again. To start there is an error that says so.
func TestReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	if !lab.InNamespace(t) {
		return
	}
	dir := t.TempDir()
	mount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, "size=8m"); err != nil {
			t.Fatal(err)
		}
	}
	mount(0)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	f := newFaulty(t, dir)
	f.send(1000)
	f.await()
	f.daemon.stop(syscall.SIGTERM)
	mount(syscall.MS_REMOUNT | syscall.MS_RDONLY)
	if code, _, errs := runCommand(t, "run", "-c", f.config); code != exitFailure || !strings.Contains(errs, "read-only") {
		t.Errorf("on a read-only file system: exit %d: %s", code, errs)
	}
	mount(syscall.MS_REMOUNT)
	f.daemon = startProcess(t, f.config)
	f.send(1000)
	f.await()
	f.compare()
}

// TestCorruptedPage: a store with pages that are none ends nothing. What is received
// is kept, and the daemon says what is wrong, until someone puts another file there.
func TestCorruptedPage(t *testing.T) {
	f := newFaulty(t, t.TempDir())
	f.send(5000)
	f.await()
	f.daemon.stop(syscall.SIGTERM)
	file, err := os.OpenFile(f.store, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// All but the first pages, which hold the schema.
	for at := int64(4096 * 20); at < info.Size(); at += 4096 {
		if _, err := file.WriteAt(bytes.Repeat([]byte{0xa5}, 4096), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	d := startProcess(t, f.config)
	f.daemon = d
	f.send(100)
	f.says("database disk image is malformed")
	d.signal(os.Kill)
	_ = d.cmd.Wait()
	if strings.Contains(d.errs.String(), "panic") {
		t.Error(d.errs.String())
	}
}

// TestFullDisk: what is received while the disk of the store is full is kept, and
// counted when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if !lab.InNamespace(t) {
		return
	}
	dir := smallDisk(t)
	f := newFaulty(t, dir)
	f.daemon.expect("msg=unhealthy part=store")
	f.send(500)
	f.await()
	filler := filepath.Join(dir, "filler")
	for range 3 {
		var err error
		file, openErr := os.Create(filler)
		if openErr != nil {
			t.Fatal(openErr)
		}
		for piece := make([]byte, 4096); err == nil; {
			_, err = file.Write(piece)
		}
		file.Close()
		before := total(f.counted())
		failed := strings.Count(f.daemon.errs.String(), "database or disk is full")
		for strings.Count(f.daemon.errs.String(), "database or disk is full") == failed {
			f.send(500) // as long as there is room within the write-ahead log
			time.Sleep(100 * time.Millisecond)
		}
		f.send(2000)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		f.await()
		if total(f.counted()) == before {
			t.Error("nothing was counted")
		}
	}
	f.compare()
}
