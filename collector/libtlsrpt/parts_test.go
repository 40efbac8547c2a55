package libtlsrpt

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
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

func TestCache(t *testing.T) {
	counter := collector.NewCounter(nil, "test", collector.CounterOptions{})
	c := newCache()
	add := func(i int) {
		datagram := load("success-tlsa", i)
		s, err := Decode(datagram)
		if err != nil {
			t.Fatal(err)
		}
		d := c.digest(datagram)
		if c.get(1, d) == nil {
			c.put(d, counter.Tally(1, s))
		}
	}
	has := func(i int) bool {
		d := c.digest(load("success-tlsa", i))
		return c.young[d] != nil || c.old[d] != nil
	}
	total := func() (n int) {
		seen := map[*collector.Tally]bool{}
		for _, half := range []map[digest]*collector.Tally{c.young, c.old} {
			for _, tally := range half {
				if !seen[tally] {
					n += cacheOverhead + tally.Size()
				}
				seen[tally] = true
			}
		}
		return n
	}
	last := 40_000
	for i := range last {
		add(i)
		if i%100 == 0 {
			add(0) // used all the time
		}
		if i%4000 == 0 {
			if n := total(); n > maxCache {
				t.Fatalf("%d bytes after %d datagrams", n, i)
			}
		}
	}
	if !has(0) || !has(last-1) || has(1) {
		t.Errorf("first %t, last %t, second %t, want the second gone", has(0), has(last-1), has(1))
	}
	if n := total(); n < maxCache/2 {
		t.Errorf("only %d bytes are in use", n)
	}
	if c.get(2, c.digest(load("success-tlsa", 0))) != nil || total() != 0 {
		t.Error("a Tally of one day is used on another")
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
