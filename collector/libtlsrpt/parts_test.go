package libtlsrpt

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestQueueOrder puts and takes at once, and gets all in order.
func TestQueueOrder(t *testing.T) {
	q := newQueue()
	const n = 100_000
	go func() {
		for i := range n {
			q.put(7, binary.AppendUvarint(nil, uint64(i)), i%2 == 1)
		}
		q.close()
	}()
	next := 0
	var c chunk
	for q.take(&c) {
		start := 0
		for _, s := range c.spans {
			got, _ := binary.Uvarint(c.bytes[start:s.end])
			if got != uint64(next) || s.truncated != (next%2 == 1) || s.day != 7 {
				t.Fatalf("datagram %d is %d, %+v", next, got, s)
			}
			start = s.end
			next++
		}
		c.reset()
	}
	if next != n {
		t.Errorf("took %d of %d", next, n)
	}
}

// TestQueueIsBounded holds that put waits for take once the queue is full.
func TestQueueIsBounded(t *testing.T) {
	for size, n := range map[int]int{0: 100_000, 300: 10_000, 200_000: 20} {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue()
			put := 0
			go func() {
				for put < n {
					q.put(0, make([]byte, size), false)
					put++
				}
				q.close()
			}()
			synctest.Wait()
			if want := maxQueued/(size+spanSize) + 1; put != want {
				t.Errorf("%d datagrams of %d bytes are queued, want %d", put, size, want)
			}
			var c chunk
			took := 0
			for q.take(&c) {
				took += len(c.spans)
				c.reset()
			}
			if took != n {
				t.Errorf("took %d", took)
			}
		})
	}
}

// nowhere is a sink that commits nothing in particular.
type nowhere struct{}

func (nowhere) Record(context.Context, string, []byte, []schema.Count) error { return nil }

// TestCache: a place is used again on its day, until a commit, and the cache does
// not grow without bounds.
func TestCache(t *testing.T) {
	counter := collector.NewCounter(nowhere{}, "test", collector.CounterOptions{})
	c := newCache()
	again := func(day schema.Day, i int) bool {
		datagram := load("success-tlsa", i)
		d := c.digest(datagram)
		if c.again(counter, day, d) {
			return true
		}
		s, err := Decode(datagram)
		if err != nil {
			t.Fatal(err)
		}
		c.put(d, counter.Add(day, s))
		return false
	}
	check := func(what string, day schema.Day, i int, want bool) {
		t.Helper()
		if again(day, i) != want {
			t.Errorf("%s: %t", what, !want)
		}
	}
	check("the first", 1, 0, false)
	check("another", 1, 1, false)
	check("the same", 1, 0, true)
	check("on another day", 2, 0, false)
	check("there again", 2, 0, true)
	if err := counter.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after a commit", 2, 0, false)
	check("once more", 2, 0, true)
	for i := range maxCache + 10 {
		again(2, i)
		if len(c.places) > maxCache {
			t.Fatalf("%d places", len(c.places))
		}
	}
	if got := counter.Stats().Counted; got != 7+maxCache+10 {
		t.Errorf("%d sessions are counted", got)
	}
}

// TestCacheForgetsTheLost: what there was no room for is not counted later.
func TestCacheForgetsTheLost(t *testing.T) {
	counter := collector.NewCounter(nowhere{}, "test", collector.CounterOptions{MaxHeld: 1})
	c := newCache()
	for i := range 2 {
		s, err := Decode(load("success-tlsa", i))
		if err != nil {
			t.Fatal(err)
		}
		c.put(c.digest(load("success-tlsa", i)), counter.Add(0, s))
	}
	if len(c.places) != 1 || counter.Stats().Lost != 1 {
		t.Errorf("%d places, stats %+v", len(c.places), counter.Stats())
	}
}

func TestCacheTakes(t *testing.T) {
	c := newCache()
	for datagram, want := range map[string]bool{
		string(load("success-sts", 1)): true,
		string(load("failure", 1)):     false,
		string(sized(maxCached)):       true,
		string(sized(maxCached + 1)):   false,
	} {
		if got := c.takes([]byte(datagram)); got != want {
			t.Errorf("%.100s: %t", datagram, got)
		}
	}
}

func TestSampler(t *testing.T) {
	var s sampler
	now := time.Unix(1_000_000, 0)
	run := func(n int) (allowed, suppressed string) {
		for range n {
			if sup, ok := s.allow(now); ok {
				allowed += "x"
				suppressed += fmt.Sprint(sup, " ")
			}
		}
		return allowed, suppressed
	}
	for _, c := range []struct {
		after               time.Duration
		n                   int
		allowed, suppressed string
	}{
		{0, 12, "xxxxx", "0 0 0 0 0 "},
		{59 * time.Second, 3, "", ""},
		{time.Second, 2, "xx", "10 0 "},
		{time.Hour, 6, "xxxxx", "0 0 0 0 0 "},
	} {
		now = now.Add(c.after)
		if a, sup := run(c.n); a != c.allowed || sup != c.suppressed {
			t.Errorf("after %v: %s, suppressed %s, want %s, %s", c.after, a, sup, c.allowed, c.suppressed)
		}
	}
}
