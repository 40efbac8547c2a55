package collector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day schema.Day = 20_000

var errDisk = errors.New("disk full")

// sink adds up what is committed. fail, if it is set, is called before each
// commit, which fails with what it returns.
type sink struct {
	fail func(ctx context.Context) error

	mu      sync.Mutex
	totals  map[string]int64
	commits []time.Time
}

func (s *sink) Record(ctx context.Context, source string, cursor []byte, counts []schema.Count) error {
	if source != "test" || cursor != nil {
		return fmt.Errorf("source %q, cursor %q", source, cursor)
	}
	if s.fail != nil {
		if err := s.fail(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.totals == nil {
		s.totals = map[string]int64{}
	}
	s.commits = append(s.commits, time.Now())
	for _, c := range counts {
		p, err := c.Policy.Policy()
		if err != nil {
			return err
		}
		k := fmt.Sprintf("%v %s %q %s", c.Day, c.Domain, c.Record, p.Type)
		s.add(k+" success", c.Success)
		s.add(k+" failure", c.Failure)
		for _, d := range c.Details {
			f, err := d.Details.FailureDetails()
			if err != nil {
				return err
			}
			s.add(k+" "+string(f.ResultType)+f.FailureReasonCode, d.Sessions)
		}
	}
	return nil
}

func (s *sink) add(k string, n int64) {
	if n != 0 {
		s.totals[k] += n
	}
}

func (s *sink) check(t *testing.T, want map[string]int64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !maps.Equal(s.totals, want) {
		t.Errorf("committed:\n%v\nwant:\n%v", s.totals, want)
	}
}

// session is a success if it has no reasons, else a failure.
func session(domain string, reasons ...string) schema.Session {
	r := schema.Result{Policy: schema.Policy{Type: schema.NoPolicyFound, Domain: domain}, Failed: len(reasons) > 0}
	for _, code := range reasons {
		r.Details = append(r.Details, schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: code})
	}
	return schema.Session{Domain: domain, Record: "v=TLSRPTv1", Results: []schema.Result{r}}
}

// run runs c until stop, which returns its error.
func run(t *testing.T, c *Counter) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func TestCounts(t *testing.T) {
	var s sink
	c := NewCounter(&s, "test", CounterOptions{})
	stop := run(t, c)
	hot := c.Tally(day, session("a.example"))
	for range 5 {
		hot.Add()
	}
	c.Add(day, session("a.example", "x", "y"))
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	hot.Add() // a Tally outlives a commit
	c.Add(day, session("a.example", "x", "x"))
	c.Add(day+1, session("a.example"))
	two := session("b.example", "z")
	two.Results = append(two.Results, schema.Result{Policy: schema.Policy{Type: schema.TLSA, Domain: "mx.b.example"}})
	c.Add(day, two)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.check(t, map[string]int64{
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found success`:             6,
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found failure`:             2,
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found validation-failurex`: 2, // twice in one session is once
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found validation-failurey`: 1,
		`2024-10-05 a.example "v=TLSRPTv1" no-policy-found success`:             1,
		`2024-10-04 b.example "v=TLSRPTv1" no-policy-found failure`:             1,
		`2024-10-04 b.example "v=TLSRPTv1" no-policy-found validation-failurez`: 1,
		`2024-10-04 b.example "v=TLSRPTv1" tlsa success`:                        1,
	})
	want := Stats{Counted: 10, Committed: 10, Commits: 2}
	if got := c.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestCommitTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		start := time.Now()
		c := NewCounter(&s, "test", CounterOptions{MaxKeys: 3})
		stop := run(t, c)
		time.Sleep(10 * time.Second) // nothing to commit
		c.Add(day, session("a.example"))
		time.Sleep(900 * time.Millisecond)
		c.Add(day, session("b.example")) // goes with the first
		time.Sleep(10 * time.Second)
		for _, domain := range []string{"a.example", "b.example", "c.example"} {
			c.Add(day, session(domain)) // the third fills the batch
		}
		time.Sleep(time.Second / 2)
		c.Add(day, session("a.example"))
		if err := stop(); err != nil { // commits the rest at once
			t.Fatal(err)
		}
		var got []time.Duration
		for _, at := range s.commits {
			got = append(got, at.Sub(start))
		}
		want := []time.Duration{11 * time.Second, 20900 * time.Millisecond, 21400 * time.Millisecond}
		if !slices.Equal(got, want) {
			t.Errorf("commits at %v, want %v", got, want)
		}
	})
}

// TestManyBytes fills a batch with a few long policies.
func TestManyBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		c := NewCounter(&s, "test", CounterOptions{Interval: time.Hour})
		stop := run(t, c)
		long := session("a.example")
		long.Results[0].Policy.Strings = []string{strings.Repeat("x", 60<<10)}
		for i := range maxKeyBytes/(60<<10) + 1 {
			long.Domain = fmt.Sprintf("d%d.example", i)
			c.Add(day, long)
		}
		synctest.Wait()
		if got := c.Stats().Commits; got != 1 {
			t.Errorf("%d commits, want 1 before the hour is over", got)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFailedCommitsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 4
		s := sink{fail: func(context.Context) error {
			if failures--; failures >= 0 {
				return errDisk
			}
			return nil
		}}
		var log bytes.Buffer
		c := NewCounter(&s, "test", CounterOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		stop := run(t, c)
		start := time.Now()
		tally := c.Tally(day, session("a.example", "x"))
		tally.Add()
		time.Sleep(1050 * time.Millisecond) // failed once
		tally.Add()
		c.Add(day, session("b.example"))
		time.Sleep(time.Minute)
		tally.Add()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		// 1 s of waiting, then 100, 200, 400 and 800 ms of backoff.
		if got, want := s.commits[0].Sub(start), 2500*time.Millisecond; got != want {
			t.Errorf("first commit after %v, want %v", got, want)
		}
		s.check(t, map[string]int64{
			`2024-10-04 a.example "v=TLSRPTv1" no-policy-found failure`:             3,
			`2024-10-04 a.example "v=TLSRPTv1" no-policy-found validation-failurex`: 3,
			`2024-10-04 b.example "v=TLSRPTv1" no-policy-found success`:             1,
		})
		want := Stats{Counted: 4, Committed: 4, Commits: 2, Failed: 4}
		if got := c.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		if got := strings.Count(log.String(), "disk full"); got != 4 {
			t.Errorf("%d failures are logged, want 4:\n%s", got, &log)
		}
		if !strings.Contains(log.String(), "commits work again") {
			t.Errorf("the end of the failures is not logged:\n%s", &log)
		}
	})
}

func TestAddDoesNotWaitForSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := sink{fail: func(context.Context) error { <-release; return nil }}
		c := NewCounter(&s, "test", CounterOptions{MaxKeys: 1})
		stop := run(t, c)
		c.Add(day, session("a.example"))
		synctest.Wait()
		for range 1000 {
			c.Add(day, session("a.example")) // a deadlock of the bubble if it waited
		}
		if st := c.Stats(); st.Counted != 1001 || st.Committed != 0 {
			t.Errorf("stats %+v while the sink is busy", st)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush beside a busy sink: %v", err)
		}
		close(release)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		s.check(t, map[string]int64{`2024-10-04 a.example "v=TLSRPTv1" no-policy-found success`: 1001})
	})
}

// TestBehind: who adds is to wait while a full batch waits for a commit that works.
func TestBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan error)
		s := sink{fail: func(context.Context) error { return <-release }}
		c := NewCounter(&s, "test", CounterOptions{MaxKeys: 2})
		stop := run(t, c)
		check := func(when string, want bool) {
			t.Helper()
			synctest.Wait()
			if got := c.Behind(); got != want {
				t.Errorf("%s: %t", when, got)
			}
		}
		add := func(domains ...string) {
			for _, d := range domains {
				c.Add(day, session(d))
			}
		}
		add("a.example", "b.example")
		check("one batch is full and with the sink", false)
		add("c.example")
		check("the next has room", false)
		add("d.example")
		check("the next is full", true)
		release <- nil
		check("the next is with the sink", false)
		add("e.example", "f.example")
		check("and the next full", true)
		release <- errDisk
		check("a commit failed", false)
		time.Sleep(time.Second) // it is tried again
		add("g.example", "h.example")
		check("commits fail", false)
		close(release)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		check("at the end", false)
	})
}

// TestPlace counts again where a session was counted, until its commit.
func TestPlace(t *testing.T) {
	var s sink
	c := NewCounter(&s, "test", CounterOptions{})
	failure := session("a.example", "x", "y")
	failure.Results = append(failure.Results, schema.Result{Policy: schema.Policy{Type: schema.TLSA, Domain: "mx.a.example"}})
	failed, succeeded := c.Add(day, failure), c.Add(day, session("a.example"))
	for range 2 {
		if !c.Again(&failed) || !c.Again(&succeeded) || failed.Lost() {
			t.Error("a place is not known")
		}
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Add(day, session("b.example"))
	if c.Again(&failed) || c.Again(&succeeded) || c.Again(&Place{}) {
		t.Error("a place outlives its commit")
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.check(t, map[string]int64{
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found success`:             3,
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found failure`:             3,
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found validation-failurex`: 3,
		`2024-10-04 a.example "v=TLSRPTv1" no-policy-found validation-failurey`: 3,
		`2024-10-04 a.example "v=TLSRPTv1" tlsa success`:                        3,
		`2024-10-04 b.example "v=TLSRPTv1" no-policy-found success`:             1,
	})
}

// TestNewestRecord: the record that came last is that of its domain, and none is
// no news.
func TestNewestRecord(t *testing.T) {
	var s sink
	c := NewCounter(&s, "test", CounterOptions{})
	for _, record := range []string{"old", "new", ""} {
		a := session("a.example")
		a.Record = record
		c.Add(day, a)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.check(t, map[string]int64{`2024-10-04 a.example "new" no-policy-found success`: 3})
}

func TestBoundOnHeldKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		s := sink{fail: func(context.Context) error {
			if broken {
				return errDisk
			}
			return nil
		}}
		var log bytes.Buffer
		c := NewCounter(&s, "test", CounterOptions{MaxHeld: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		c.Add(day, session("a.example", "x")) // two keys
		if err := c.Flush(t.Context()); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		c.Add(day, session("b.example"))
		c.Add(day, session("c.example", "x")) // one too many, nothing of it counts
		c.Add(day, session("c.example"))
		for range 100 {
			c.Add(day, session("d.example"))
			c.Add(day, session("a.example", "y"))
		}
		// What is known goes on being counted, a new pairing of known keys too.
		c.Add(day, session("a.example"))
		c.Add(day, session("a.example", "x"))
		time.Sleep(lossLogInterval)
		c.Add(day, session("d.example"))
		broken = false
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Add(day, session("d.example")) // there is room again
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.check(t, map[string]int64{
			`2024-10-04 a.example "v=TLSRPTv1" no-policy-found success`:             1,
			`2024-10-04 a.example "v=TLSRPTv1" no-policy-found failure`:             2,
			`2024-10-04 a.example "v=TLSRPTv1" no-policy-found validation-failurex`: 2,
			`2024-10-04 b.example "v=TLSRPTv1" no-policy-found success`:             1,
			`2024-10-04 c.example "v=TLSRPTv1" no-policy-found success`:             1,
			`2024-10-04 d.example "v=TLSRPTv1" no-policy-found success`:             1,
		})
		want := Stats{Counted: 6, Committed: 6, Lost: 202, Commits: 2, Failed: 1}
		if got := c.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		if got := strings.Count(log.String(), "sessions are lost"); got != 2 {
			t.Errorf("losses are logged %d times, want once a minute:\n%s", got, &log)
		}
	})
}

// TestBoundKnowsWhatIsWithTheSink holds the keys of a batch that is being
// committed known while the bound is reached.
func TestBoundKnowsWhatIsWithTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := sink{fail: func(context.Context) error { <-release; return nil }}
		c := NewCounter(&s, "test", CounterOptions{MaxHeld: 2})
		stop := run(t, c)
		c.Add(day, session("a.example", "x"))
		time.Sleep(2 * time.Second)
		c.Add(day, session("a.example", "x"))
		c.Add(day, session("b.example"))
		close(release)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if st := c.Stats(); st.Committed != 2 || st.Lost != 1 {
			t.Errorf("stats %+v, want 2 committed and 1 lost", st)
		}
	})
}

func TestBoundOnHeldBytes(t *testing.T) {
	c := NewCounter(&sink{}, "test", CounterOptions{})
	long := session("a.example")
	long.Results[0].Policy.Strings = []string{strings.Repeat("x", 60<<10)}
	for i := range 2 * maxHeldBytes / (60 << 10) {
		long.Domain = fmt.Sprintf("d%d.example", i)
		c.Add(day, long)
	}
	if got := c.batch.bytes; got > maxHeldBytes+100<<10 {
		t.Errorf("%d bytes are held", got)
	}
	if st := c.Stats(); st.Lost == 0 || st.Counted == 0 {
		t.Errorf("stats %+v, want some counted and some lost", st)
	}
}

func TestLossAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{fail: func(context.Context) error { return errDisk }}
		c := NewCounter(&s, "test", CounterOptions{Grace: 3 * time.Second})
		stop := run(t, c)
		for range 7 {
			c.Add(day, session("a.example"))
		}
		start := time.Now()
		err := stop()
		if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "7 sessions") {
			t.Errorf("error %v, want 7 sessions lost for want of disk", err)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("gave up after %v", got)
		}
		if st := c.Stats(); st.Lost != 7 || st.Committed != 0 {
			t.Errorf("stats %+v, want 7 lost", st)
		}
	})
}

// takes is a sink whose commits take so long, unless they are cut off.
func takes(duration func() time.Duration) sink {
	return sink{fail: func(ctx context.Context) error {
		select {
		case <-time.After(duration()):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

// TestEndDoesNotCutOffCommit: a commit under way at the end of Run's context has a
// moment more.
func TestEndDoesNotCutOffCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := takes(func() time.Duration { return patience / 2 })
		c := NewCounter(&s, "test", CounterOptions{})
		stop := run(t, c)
		c.Add(day, session("a.example"))
		time.Sleep(1100 * time.Millisecond) // the commit is under way
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		want := Stats{Counted: 1, Committed: 1, Commits: 1}
		if got := c.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
	})
}

// TestEndRepeatsSlowCommit: one that gets nowhere is repeated, and has the grace
// for itself.
func TestEndRepeatsSlowCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		commits := 0
		s := takes(func() time.Duration {
			if commits++; commits == 1 {
				return time.Hour // at nice 19 beside a busy machine
			}
			return 59 * time.Second
		})
		c := NewCounter(&s, "test", CounterOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		stop := run(t, c)
		c.Add(day, session("a.example"))
		time.Sleep(2 * time.Second)
		c.Add(day, session("a.example"))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		want := Stats{Counted: 2, Committed: 2, Commits: 1, Failed: 1}
		if got := c.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		if log.Len() > 0 {
			t.Errorf("nothing is wrong, but the log says:\n%s", &log)
		}
	})
}

// held is a Counter that an outage left with so many domains, each with two
// sessions, a failure with two policies and a success.
func held(t *testing.T, s *sink, domains int) *Counter {
	c := NewCounter(s, "test", CounterOptions{MaxKeys: 10})
	for i := range domains {
		failure := session(fmt.Sprintf("d%d.example", i), "x")
		failure.Results = append(failure.Results, schema.Result{Policy: schema.Policy{Type: schema.TLSA, Domain: "mx.example"}})
		c.Add(day, failure)
		c.Add(day, session(failure.Domain))
	}
	return c
}

// TestLastCommitsInPieces: each has the grace for itself, so that none is given up
// as long as they work, however long all of them take.
func TestLastCommitsInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := takes(func() time.Duration { return 50 * time.Second })
		c := held(t, &s, 20) // 60 keys
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		want := Stats{Counted: 40, Committed: 40, Commits: 7} // no domain is cut in two: 9 keys each
		if got := c.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		totals := map[string]int64{}
		for i := range 20 {
			d := fmt.Sprintf(`2024-10-04 d%d.example "v=TLSRPTv1" `, i)
			totals[d+"no-policy-found success"], totals[d+"no-policy-found failure"] = 1, 1
			totals[d+"no-policy-found validation-failurex"], totals[d+"tlsa success"] = 1, 1
		}
		s.check(t, totals)
		if b := c.spare; b != nil {
			t.Errorf("what an outage has blown up is kept: %d keys", b.keys)
		}
	})
}

// TestLossInPieces: what the last commits could not take is counted, to the session.
func TestLossInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commits := 0
		s := sink{fail: func(context.Context) error {
			if commits++; commits > 3 {
				return errDisk
			}
			return nil
		}}
		c := held(t, &s, 20)
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := c.Run(ctx)
		if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), " 22 sessions") {
			t.Errorf("error %v, want 22 sessions lost for want of disk", err)
		}
		if got := time.Since(start); got != time.Minute {
			t.Errorf("gave up after %v", got)
		}
		st := c.Stats()
		if st.Counted != 40 || st.Committed != 18 || st.Lost != 22 || st.Commits != 3 {
			t.Errorf("stats %+v, want 18 committed and 22 lost", st)
		}
		if c.batch.keys != 0 || c.batch.bytes != 0 {
			t.Errorf("%d keys, %d bytes are held", c.batch.keys, c.batch.bytes)
		}
	})
}

// TestPieceThatFails: it is tried again with what was added meanwhile, and no
// piece that worked is.
func TestPieceThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commits := 0
		s := sink{fail: func(context.Context) error {
			if commits++; commits == 3 {
				return errDisk
			}
			return nil
		}}
		c := held(t, &s, 20)
		bytes := c.batch.bytes
		stop := run(t, c)
		time.Sleep(2 * time.Second)
		if st := c.Stats(); st.Committed != 40 || st.Failed != 1 {
			t.Errorf("stats %+v, want 40 committed after a failure", st)
		}
		if c.batch.sessions != 0 || c.batch.keys != 0 || c.batch.bytes != 0 || bytes == 0 {
			t.Errorf("%d sessions, %d keys, %d bytes are held", c.batch.sessions, c.batch.keys, c.batch.bytes)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := s.totals[`2024-10-04 d7.example "v=TLSRPTv1" tlsa success`]; n != 1 || len(s.totals) != 80 {
			t.Errorf("%d totals, of d7.example %d", len(s.totals), n)
		}
	})
}

// TestConcurrent adds from several goroutines to a sink that fails every other
// time, and loses nothing.
func TestConcurrent(t *testing.T) {
	n := 0
	s := sink{fail: func(context.Context) error {
		if n++; n%2 == 1 {
			return errDisk
		}
		return nil
	}}
	c := NewCounter(&s, "test", CounterOptions{MaxKeys: 10, Interval: time.Millisecond})
	stop := run(t, c)
	var adders sync.WaitGroup
	const each = 5000
	for g := range 4 {
		adders.Go(func() {
			var tallies []*Tally
			for i := range 20 {
				tallies = append(tallies, c.Tally(day, session(fmt.Sprintf("d%d.example", i))))
			}
			for i := range each {
				tallies[(i+g)%20].Add()
				if i%500 == 0 {
					_ = c.Flush(t.Context()) // may fail; the counts are kept
				}
			}
		})
	}
	adders.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	for i := range 20 {
		want[fmt.Sprintf(`2024-10-04 d%d.example "v=TLSRPTv1" no-policy-found success`, i)] = 4 * each / 20
	}
	s.check(t, want)
}

// TestLostTally holds that what was given up is not committed after all.
func TestLostTally(t *testing.T) {
	var s sink
	c := NewCounter(&s, "test", CounterOptions{})
	kept := c.Tally(day, session("a.example"))
	kept.Add()
	if err := c.abandon(errDisk); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	kept.Add()
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.check(t, map[string]int64{`2024-10-04 a.example "v=TLSRPTv1" no-policy-found success`: 1})
}

// TestTallySize compares what Tallies say of themselves with the heap.
func TestTallySize(t *testing.T) {
	c := NewCounter(&sink{}, "test", CounterOptions{})
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	keep := make([]*Tally, 10_000)
	before := heap()
	said := int64(0)
	for i := range keep {
		s := session(fmt.Sprintf("d%d.example", i), "x", "y")
		s.Results[0].Policy.Strings = []string{strings.Repeat("x", i%500)}
		keep[i] = c.Tally(day, s)
		said += int64(keep[i].Size())
	}
	real := heap() - before
	if said < real*3/4 || said > real*2 {
		t.Errorf("they say %d bytes, the heap has grown by %d", said, real)
	}
	runtime.KeepAlive(keep)
}

func BenchmarkTallyAdd(b *testing.B) {
	c := NewCounter(&sink{}, "test", CounterOptions{})
	t := c.Tally(day, session("a.example"))
	b.ReportAllocs()
	for b.Loop() {
		t.Add()
	}
}

func BenchmarkAdd(b *testing.B) {
	c := NewCounter(&sink{}, "test", CounterOptions{})
	s := session("a.example")
	b.ReportAllocs()
	for b.Loop() {
		c.Add(day, s)
	}
}
