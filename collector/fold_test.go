package collector

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// different is a session of a domain with a policy and two reasons of its own.
func different(domain string, i int) schema.Session {
	s := session(domain, fmt.Sprintf("x%d", i), fmt.Sprintf("y%d", i))
	s.Results[0].Policy = schema.Policy{Type: schema.STS, Domain: domain, Strings: []string{fmt.Sprintf("mx: mx%d.example", i)}}
	return s
}

// TestFold: sessions with one domain that all differ are counted, all of them, and
// leave room for others.
func TestFold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := 1
		s := sink{fail: func(context.Context) error {
			if fail--; fail >= 0 {
				return errDisk
			}
			return nil
		}}
		c := NewCounter(&s, "test", CounterOptions{MaxKeys: 1 << 20, MaxHeld: 20_000})
		const n = 50_000
		first := c.Tally(day, different("attacked.example", 0))
		for i := range n {
			c.Add(day, different("attacked.example", i))
			if i%10 == 0 {
				c.Add(day, different(fmt.Sprintf("d%d.example", i/1000), i))
			}
		}
		first.Add() // known, so it is not folded
		if c.batch.keys > 20_000 {
			t.Errorf("%d keys", c.batch.keys)
		}
		stop := run(t, c)
		time.Sleep(5 * time.Second) // the first commit fails
		c.Add(day, different("attacked.example", n))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		st := c.Stats()
		if st.Counted != n+n/10+2 || st.Committed != st.Counted || st.Lost != 0 || st.Folded != n-maxPolicies {
			t.Errorf("stats %+v", st)
		}
		const at = `2024-10-04 attacked.example "v=TLSRPTv1" sts `
		if got := s.totals[at+"failure"]; got != n+2 {
			t.Errorf("%d failures of the attacked domain, want %d", got, n+2)
		}
		var details int64
		for k, v := range s.totals {
			if rest, ok := strings.CutPrefix(k, at+"validation-failure"); ok {
				details += v
				if rest == "" && v != n-maxDetails/2 {
					t.Errorf("%d sessions with folded details", v)
				}
			}
		}
		// Two details of a session are one once they are folded.
		if want := int64(2*(n+2) - (n - maxDetails/2)); details != want {
			t.Errorf("%d details, want %d", details, want)
		}
		for i := range 50 {
			if got := s.totals[fmt.Sprintf(`2024-10-04 d%d.example "v=TLSRPTv1" sts failure`, i)]; got != 100 {
				t.Errorf("d%d.example: %d failures, want 100", i, got)
			}
		}
	})
}
