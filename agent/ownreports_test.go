package agent

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// loop is a Postfix 3.10.0 to 3.10.3 before the mail domains of the ruas: each
// report mail makes sessions with its mail domain, which the agent is told of.
type loop struct {
	*bench
	mu    sync.Mutex
	after map[string][]time.Duration // by mail domain: when a mail makes a session
	fails map[string]bool
}

func (l *loop) handedOver(to string, _ int) error {
	domain := schema.AddressDomain(to)
	for _, wait := range l.after[domain] {
		time.AfterFunc(wait, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.session(domain, l.fails[domain])
		})
	}
	return nil
}

// plain is one session at once; the others are how Postfix goes on.
var (
	plain      = []time.Duration{0}
	greylists  = []time.Duration{0, 6 * time.Minute}
	handshakes = []time.Duration{0, 5 * time.Minute} // then in plaintext, which is no session
)

// TestOwnReports is a week of each kind of domain: one mail of a user on the
// first day and no more, and one every day; with the guard and without.
func TestOwnReports(t *testing.T) {
	const week = 7
	kinds := map[string][]time.Duration{"plain": plain, "greylists": greylists, "handshakes": handshakes}
	for _, c := range []struct {
		name       string
		counts     bool
		once       int // reported days of who got one mail of a user, at least
		mostOfOnce int
	}{
		{"without the guard the loop goes on", false, week, week},
		{"the guard ends it after the first report", true, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				b.restartRarely(Options{CountsReports: c.counts})
				l := &loop{bench: b, after: map[string][]time.Duration{}, fails: map[string]bool{}}
				for kind, after := range kinds {
					for _, d := range []string{kind + ".once.example", kind + ".daily.example"} {
						b.records[d] = "v=TLSRPTv1; rua=mailto:reports@" + d
						l.after[d], l.fails[d] = after, kind == "handshakes"
					}
				}
				b.refuse = l.handedOver
				for day := range schema.Day(week) {
					b.until(day0+day, "15:00")
					l.mu.Lock()
					for kind := range kinds {
						if b.session(kind+".daily.example", false); day == 0 {
							b.session(kind+".once.example", false)
						}
					}
					l.mu.Unlock()
				}
				b.until(day0+week+2, "12:00")
				for kind := range kinds {
					if n := b.reportedDays(kind+".once.example", day0+week); n < c.once || n > c.mostOfOnce {
						b.Errorf("%s, one mail: %d days were reported, want %d", kind, n, c.once)
					}
					if n := b.reportedDays(kind+".daily.example", day0+week); n != week {
						b.Errorf("%s, one mail a day: %d days were reported, want %d", kind, n, week)
					}
				}
			})
		})
	}
}

// reportedDays is how many days before one there is a report about domain of.
func (b *bench) reportedDays(domain string, before schema.Day) int {
	b.Helper()
	days := map[time.Time]int{}
	for _, r := range b.reports(b.T) {
		if start := r.DateRange.Start.Time; r.Policies[0].Policy.Domain == domain && start.Before(before.Start()) {
			if days[start]++; days[start] > 1 {
				b.Errorf("%s: %d reports about %s", domain, days[start], start)
			}
		}
	}
	return len(days)
}

// TestOwnReportsHeld: a held day is decided by the next, stays visible
// meanwhile, and survives a restart and a submission by hand.
func TestOwnReportsHeld(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restartRarely(Options{CountsReports: true})
		l := &loop{bench: b, after: map[string][]time.Duration{"example.org": plain}}
		b.refuse = l.handedOver
		b.session("example.org", false)
		b.until(day0+2, "06:00")
		b.want("example.org 2000-01-01 1/0")
		if got := b.state("example.org", day0+1); got != aggregator.StateOpen {
			b.Errorf("the day of the report is %s, want it held", got)
		}
		state, reason, err := b.Verdict(b.Context(), "example.org", day0+1)
		if err != nil || state != aggregator.StateOpen || reason == "" {
			b.Errorf("the verdict is %q %q (%v)", state, reason, err)
		}
		var drafts []string
		check(b.T, b.DryRun(b.Context(), Submission{}, func(d Draft) error {
			drafts = append(drafts, fmt.Sprintf("%s %s %t", d.Domain, d.State, d.Parcel != nil))
			return nil
		}))
		if fmt.Sprint(drafts) != "[example.org open false]" {
			b.Errorf("drafts %q", drafts)
		}
		check(b.T, b.Submit(b.Context(), Submission{}, nil))
		b.restartRarely(Options{CountsReports: true})
		b.until(day0+2, "12:00")
		b.want("example.org 2000-01-01 1/0")
		b.until(day0+3, "12:00")
		b.want("example.org 2000-01-01 1/0")
		if got := b.state("example.org", day0+1); got != aggregator.StateOwnReports {
			b.Errorf("the day of the report is %s, want %s", got, aggregator.StateOwnReports)
		}
	}, "example.org")
}

// TestOwnReportsElsewhere: two domains whose reports go to each other do not keep
// each other going, and one whose reports go by HTTPS is reported at once.
func TestOwnReportsElsewhere(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restartRarely(Options{CountsReports: true})
		b.records["a.example"] = "v=TLSRPTv1; rua=mailto:tls@b.example"
		b.records["b.example"] = "v=TLSRPTv1; rua=mailto:tls@a.example"
		b.records["c.example"] = "v=TLSRPTv1; rua=mailto:tls@elsewhere.example"
		l := &loop{bench: b, after: map[string][]time.Duration{"a.example": plain, "b.example": plain}}
		b.refuse = l.handedOver
		b.session("a.example", false)
		for day := range schema.Day(3) {
			b.session("c.example", false)
			b.until(day0+day+1, "06:00")
			if got := b.state("c.example", day0+day); got != aggregator.StateReported {
				b.Errorf("day %d of a domain without report mail is %s", day, got)
			}
		}
		b.until(day0+5, "12:00")
		b.want("a.example 2000-01-01 1/0", "c.example 2000-01-01 1/0", "c.example 2000-01-02 1/0", "c.example 2000-01-03 1/0")
	})
}

// TestOwnReportsStubborn: a domain where every report is three or four sessions
// is reported once more, and then no more: two reports explain the second day.
// One where every retry for days is a session goes on, which needs the transport
// of examples/postfix.
func TestOwnReportsStubborn(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restartRarely(Options{CountsReports: true})
		l := &loop{bench: b, after: map[string][]time.Duration{}}
		b.refuse = l.handedOver
		want := map[int]int{3: 2, 4: 2, 25: 6}
		for n := range want {
			d := fmt.Sprintf("n%d.example", n)
			b.records[d] = "v=TLSRPTv1; rua=mailto:reports@" + d
			for i := range n {
				l.after[d] = append(l.after[d], time.Duration(i)*20*time.Minute)
			}
			b.session(d, false)
		}
		b.until(day0+6, "12:00")
		for n, want := range want {
			if got := b.reportedDays(fmt.Sprintf("n%d.example", n), day0+6); got != want {
				b.Errorf("%d sessions a report: %d reports, want %d", n, got, want)
			}
		}
	})
}

// TestOwnReportsProvider: a domain to which the reports about many go is reported
// every other day at least, though reports explain all it has.
func TestOwnReportsProvider(t *testing.T) {
	const customers = 20
	bubble(t, func(b *bench) {
		b.restartRarely(Options{CountsReports: true})
		l := &loop{bench: b, after: map[string][]time.Duration{"provider.example": plain}}
		b.refuse = l.handedOver
		b.records["provider.example"] = "v=TLSRPTv1; rua=mailto:tls@provider.example"
		for day := range schema.Day(4) {
			b.until(day0+day, "15:00")
			l.mu.Lock()
			for i := range customers {
				d := fmt.Sprintf("d%d.example", i)
				b.records[d] = "v=TLSRPTv1; rua=mailto:tls@provider.example"
				b.session(d, false)
			}
			b.session("provider.example", false) // of a user
			l.mu.Unlock()
		}
		b.until(day0+6, "12:00")
		days := map[time.Time]bool{}
		for _, r := range b.reports(b.T) {
			if r.Policies[0].Policy.Domain == "provider.example" {
				days[r.DateRange.Start.Time] = true
			}
		}
		if len(days) < 2 {
			b.Errorf("%d days of 4 were reported", len(days))
		}
	})
}
