package libtlsrpt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// sink adds up sessions by domain, policy and result. before, if it is set, is
// called ahead of each commit, which fails with what it returns.
type sink struct {
	before func() error

	mu     sync.Mutex
	totals map[string]int64
	days   map[schema.Day]bool
}

func (s *sink) Record(_ context.Context, source string, _ []byte, counts []schema.Count) error {
	if s.before != nil {
		if err := s.before(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.totals == nil {
		s.totals, s.days = map[string]int64{}, map[schema.Day]bool{}
	}
	for _, c := range counts {
		p, err := c.Policy.Policy()
		if err != nil {
			return err
		}
		s.days[c.Day] = true
		key := fmt.Sprintf("%s %s %s ", c.Domain, p.Type, p.Domain)
		s.totals[key+"success"] += c.Success
		s.totals[key+"failure"] += c.Failure
		for _, d := range c.Details {
			f, err := d.Details.FailureDetails()
			if err != nil {
				return err
			}
			s.totals[key+string(f.ResultType)] += d.Sessions
		}
	}
	return nil
}

func (s *sink) check(t *testing.T, want map[string]int64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range []map[string]int64{s.totals, want} {
		maps.DeleteFunc(m, func(_ string, n int64) bool { return n == 0 })
	}
	if maps.Equal(s.totals, want) {
		return
	}
	for k := range want {
		if s.totals[k] != want[k] {
			t.Errorf("%s: %d, want %d", k, s.totals[k], want[k])
		}
	}
	for k := range s.totals {
		if _, ok := want[k]; !ok {
			t.Errorf("%s: %d, want none", k, s.totals[k])
		}
	}
}

// expect adds to want what datagram must be counted as, by way of encoding/json.
func expect(t *testing.T, want map[string]int64, datagram []byte) {
	t.Helper()
	var d struct {
		D        string
		Policies []struct {
			Type    int    `json:"policy-type"`
			Domain  string `json:"policy-domain"`
			Details []struct {
				C int
				S string
			} `json:"failure-details"`
			F int
		}
	}
	if err := json.Unmarshal(datagram, &d); err != nil {
		t.Fatal(err)
	}
	types := map[int]string{1: "tlsa", 2: "sts", 9: "no-policy-found"}
	codes := map[int]string{
		201: "starttls-not-supported", 202: "certificate-host-mismatch", 203: "certificate-not-trusted",
		204: "certificate-expired", 205: "validation-failure", 301: "sts-policy-fetch-error",
		302: "sts-policy-invalid", 303: "sts-webpki-invalid", 304: "tlsa-invalid",
		305: "dnssec-invalid", 306: "dane-required",
	}
	name := func(s string) string {
		return strings.TrimSuffix(strings.ToLower(strings.ReplaceAll(s, "Bücher", "xn--bcher-kva")), ".")
	}
	for _, p := range d.Policies {
		domain := name(p.Domain)
		if domain == "" {
			domain = name(d.D)
		}
		key := fmt.Sprintf("%s %s %s ", name(d.D), types[p.Type], domain)
		want[key+"success"] += int64(1 - p.F)
		want[key+"failure"] += int64(p.F)
		for _, f := range p.Details {
			want[key+codes[f.C]]++
		}
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(activatedChild) != "" {
		os.Exit(runActivatedChild())
	}
	goleak.VerifyTestMain(m)
}

// TestCapturedAreCounted sends all that was ever captured, twice, from a new
// socket each, as the library does.
func TestCapturedAreCounted(t *testing.T) {
	var s sink
	h := start(t, &s, Options{})
	want := map[string]int64{}
	names, datagrams := captured(t)
	sent, refused := int64(0), int64(0)
	for range 2 {
		for _, name := range names {
			h.send(datagrams[name])
			sent++
			if strings.HasPrefix(name, "13-") || strings.HasPrefix(name, "14-") {
				refused++ // an empty domain, an unknown policy type
				continue
			}
			expect(t, want, datagrams[name])
		}
	}
	h.mustStop()
	s.check(t, want)
	st := h.Stats()
	if st.Received != sent || st.Malformed != refused || st.Counted != sent-refused {
		t.Errorf("stats %+v, sent %d, %d of them malformed", st, sent, refused)
	}
	if st.Faults["domain"] != 2 || st.Faults["value"] != 2 {
		t.Errorf("faults %v, want 2 domains and 2 values", st.Faults)
	}
	if st.CacheHits < sent/4 {
		t.Errorf("%d cache hits of %d", st.CacheHits, sent)
	}
	if st.Counter.Counted != st.Counted || st.Counter.Committed != st.Counted || st.Counter.Lost != 0 {
		t.Errorf("counter %+v, want all %d committed", st.Counter, st.Counted)
	}
}

// sized is a datagram of so many bytes.
func sized(size int) []byte {
	head := `{"dpv": "1","d": "example.com","pr": "`
	tail := `","policies":[{"policy-type":9,"t":0,"f":0}]}`
	return []byte(head + strings.Repeat("x", size-len(head)-len(tail)) + tail)
}

// TestSizes sends up to what Linux lets anyone send, and one beyond our buffer.
func TestSizes(t *testing.T) {
	var s sink
	var log bytes.Buffer
	h := start(t, &s, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	sizes := []int{100, 1000, 4096, 16 << 10, 60_205, 65_205, 70_205, 120_205, 160_205, 200_205, 212_960}
	for _, size := range sizes {
		h.send(sized(size))
	}
	h.send([]byte{}) // an empty datagram is one
	conn := dial(t, h.path)
	if err := conn.SetWriteBuffer(2 * maxDatagram); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Write(sized(maxDatagram + 1))
	big := int64(1)
	if err != nil {
		t.Logf("a datagram beyond the buffer cannot be sent here: %v", err)
		big = 0
	}
	h.send(sized(100))
	h.mustStop()
	n := int64(len(sizes) + 1)
	s.check(t, map[string]int64{"example.com no-policy-found example.com success": n})
	st := h.Stats()
	if st.Counted != n || st.Truncated != big || st.Malformed != 1+big {
		t.Errorf("stats %+v, want %d counted, %d truncated, 1 empty", st, n, big)
	}
	if big == 1 && !strings.Contains(log.String(), "more than 262144 bytes") {
		t.Errorf("the truncated datagram is not logged:\n%s", &log)
	}
}

func TestMalformedFlood(t *testing.T) {
	var s sink
	var log bytes.Buffer
	h := start(t, &s, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var flood [][]byte
	want := map[string]int64{}
	for len(flood) < 2000 {
		for _, c := range malformed {
			if len(c.datagram) < 200_000 { // what can be sent
				flood = append(flood, []byte(c.datagram))
				want[string(c.class)]++
			}
		}
	}
	h.send(flood...)
	h.send([]byte(policy(okPolicy)))
	h.mustStop()
	s.check(t, map[string]int64{"example.com no-policy-found example.com success": 1})
	st := h.Stats()
	if st.Malformed != int64(len(flood)) || st.Counted != 1 {
		t.Errorf("stats %+v, sent %d malformed", st, len(flood))
	}
	for class, n := range st.Faults {
		if n != want[class] {
			t.Errorf("%d of class %s, want %d", n, class, want[class])
		}
	}
	lines := strings.Count(log.String(), "a datagram is not counted")
	if lines != sampleLimit || log.Len() > 5000 {
		t.Errorf("%d lines are logged, %d bytes, want %d lines:\n%s", lines, log.Len(), sampleLimit, &log)
	}
}

// TestPanicIsContained makes up a defect in decoding.
func TestPanicIsContained(t *testing.T) {
	source, err := Listen(Options{Path: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	source.decode = func(d []byte) (schema.Session, error) {
		if bytes.Contains(d, []byte("evil")) {
			panic("made up")
		}
		return Decode(d)
	}
	if _, err := source.safeDecode([]byte("evil")); !errors.Is(err, ErrDatagram) || !strings.Contains(err.Error(), "made up") {
		t.Errorf("error %v", err)
	}
	if _, err := source.safeDecode([]byte(policy(okPolicy))); err != nil {
		t.Errorf("a good datagram: %v", err)
	}
}

func TestSendingIP(t *testing.T) {
	detail := func(ip string) []byte {
		return []byte(failing(`{"c":204,"s":"` + ip + `","r":"10.0.0.1"}`))
	}
	public := netip.MustParseAddr("203.0.113.5")
	for _, c := range []struct {
		sent string
		ours netip.Addr
		want netip.Addr
	}{
		{"192.0.2.10", public, netip.MustParseAddr("192.0.2.10")},
		{"10.1.2.3", public, public},
		{"::ffff:192.168.0.1", public, public},
		{"fe80::1%eth0", public, public},
		{"10.1.2.3", netip.Addr{}, netip.Addr{}},
		{"", public, netip.Addr{}}, // unknown stays unknown
	} {
		var got schema.FailureDetails
		sink := recordFunc(func(counts []schema.Count) (err error) {
			got, err = counts[0].Details[0].Details.FailureDetails()
			return err
		})
		source, err := Listen(Options{Path: filepath.Join(t.TempDir(), "s"), SendingIP: c.ours})
		if err != nil {
			t.Fatal(err)
		}
		path := strings.TrimPrefix(source.Name(), "libtlsrpt:")
		if _, err := dial(t, path).Write(detail(c.sent)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what was sent before is counted all the same
		if err := source.Run(ctx, sink); err != nil {
			t.Fatal(err)
		}
		if got.SendingMTAIP != c.want || got.ReceivingIP != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("%q: %+v, want %v", c.sent, got, c.want)
		}
	}
}

type recordFunc func([]schema.Count) error

func (f recordFunc) Record(_ context.Context, _ string, _ []byte, counts []schema.Count) error {
	return f(counts)
}

// TestShutdownDrains fills the queue of the socket before anyone reads it.
func TestShutdownDrains(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	source, err := Listen(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	conn, n := dial(t, path), int64(0)
	if err := conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for n < 1000 { // until the queue is full
		if _, err := conn.Write([]byte(policy(okPolicy))); err != nil {
			break
		}
		n++
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var s sink
	if err := source.Run(ctx, &s); err != nil {
		t.Fatal(err)
	}
	s.check(t, map[string]int64{"example.com no-policy-found example.com success": n})
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is still there: %v", err)
	}
}

// TestShutdownUnderLoad ends a source while many send to it, each datagram from a
// socket of its own: what a sender got rid of is counted, and all else was refused.
func TestShutdownUnderLoad(t *testing.T) {
	for range 20 {
		var s sink
		h := start(t, &s, Options{})
		var sent atomic.Int64
		var senders sync.WaitGroup
		for range 8 {
			senders.Go(func() {
				for {
					conn, err := net.Dial("unixgram", h.path)
					if err != nil {
						return
					}
					_, err = conn.Write([]byte(policy(okPolicy)))
					conn.Close()
					if err != nil {
						return
					}
					sent.Add(1)
				}
			})
		}
		for h.Stats().Received < 1000 {
			time.Sleep(time.Millisecond)
		}
		h.mustStop()
		senders.Wait()
		s.check(t, map[string]int64{"example.com no-policy-found example.com success": sent.Load()})
	}
}

// TestShutdownAfterEmpty: empty datagrams do not hide what comes after them.
func TestShutdownAfterEmpty(t *testing.T) {
	for _, plain := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := bind(Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		conn := dial(t, path)
		for _, d := range []string{"", "", "a", "", "b", ""} {
			if _, err := conn.Write([]byte(d)); err != nil {
				t.Fatal(err)
			}
		}
		var recv receiver = newPlainReceiver(l.conn)
		if !plain {
			if recv, err = newReceiver(l.conn); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.conn.CloseRead(); err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := recv.rest(func(d []byte) { got = append(got, string(d)) }); err != nil {
			t.Fatal(err)
		}
		if want := []string{"", "", "a", "", "b"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestSinkFails sends through an outage of the sink, and loses nothing.
func TestSinkFails(t *testing.T) {
	failures := 3
	s := sink{before: func() error {
		if failures--; failures >= 0 {
			return errors.New("disk full")
		}
		return nil
	}}
	h := start(t, &s, Options{})
	want := map[string]int64{}
	for i := range 3000 {
		d := load("success-sts", i%700)
		h.send(d)
		expect(t, want, d)
	}
	h.mustStop()
	s.check(t, want)
	if st := h.Stats(); st.Counter.Failed != 3 || st.Counter.Lost != 0 {
		t.Errorf("counter %+v, want 3 failed commits and no loss", st.Counter)
	}
}

// TestSinkBlocks sends more than all queues hold while the sink stands still. It
// would not end if receiving waited for it.
func TestSinkBlocks(t *testing.T) {
	release := make(chan struct{})
	blocked := make(chan struct{})
	var once sync.Once
	s := sink{before: func() error {
		once.Do(func() { close(blocked) })
		<-release
		return nil
	}}
	h := start(t, &s, Options{})
	h.send([]byte(policy(okPolicy)))
	<-blocked
	big, n := sized(100_000), int64(100) // 10 MB
	for range n {
		h.send(big)
	}
	h.await(n + 1)
	close(release)
	h.mustStop()
	s.check(t, map[string]int64{"example.com no-policy-found example.com success": n + 1})
}

// TestSocketError closes the socket under a source that runs.
func TestSocketError(t *testing.T) {
	var s sink
	source, err := Listen(Options{Path: filepath.Join(t.TempDir(), "s"), Name: "here"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- source.Run(t.Context(), &s) }()
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "here") {
		t.Errorf("error %v, want a closed socket of here", err)
	}
}

// TestDayOfReceipt holds that sessions belong to the day they arrive on.
func TestDayOfReceipt(t *testing.T) {
	before := schema.DayOf(time.Now())
	var s sink
	h := start(t, &s, Options{})
	h.send([]byte(policy(okPolicy)))
	h.mustStop()
	after := schema.DayOf(time.Now())
	if len(s.days) != 1 || !s.days[before] && !s.days[after] {
		t.Errorf("days %v, want %v", s.days, before)
	}
}
