package agent

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// waiting stores n reports about domains of a day, each to one mailto rua, due
// now.
func waiting(t *testing.T, store *aggregator.Store, day schema.Day, n int, domain func(i int) string, rua func(i int) schema.RUA) {
	t.Helper()
	var counts []schema.Count
	for i := range n {
		policy := schema.Policy{Type: schema.NoPolicyFound, Domain: domain(i)}
		counts = append(counts, schema.Count{Day: day, Domain: domain(i), Policy: policy.Text(), Success: 1})
	}
	check(t, store.Record(t.Context(), "test", nil, counts))
	_, err := store.Release(t.Context(), day+1, time.Time{}, time.Now())
	check(t, err)
	var plans []aggregator.Plan
	for i := range n {
		dd, err := store.DomainDayOf(t.Context(), day, domain(i))
		check(t, err)
		id := schema.ReportID(day, domain(i), store.Token(day, domain(i), 0), "example.com")
		plans = append(plans, aggregator.Plan{DomainDay: dd, State: aggregator.StateReported, RUAs: []schema.RUA{rua(i)}, Report: &aggregator.Report{
			ID: id, Submitter: "example.com", FileName: "example.com!d!1!2!" + fmt.Sprint(i) + ".json.gz", From: "tls-reports@example.com",
			MessageID: fmt.Sprintf("%d@example.com", i), Boundary: "boundary", Date: time.Now(), Text: "text\n", Gzip: []byte{1},
		}})
	}
	for _, err := range store.PlanAll(t.Context(), plans) {
		check(t, err)
	}
}

// deadHost is a relay that hangs for one destination and serves the others.
type deadHost struct {
	*world
	hanging
	dead string
}

// TestDeadHost: a host where every attempt hangs until it times out, with 10,000
// reports waiting for it, delays no other.
func TestDeadHost(t *testing.T) {
	const dead, others = 10_000, 50
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		store, err := aggregator.Open(path, aggregator.Options{})
		check(t, err)
		relay := &deadHost{world: newWorld(), dead: "dead.example"}
		s := &submitter.Submitter{Resolver: relay.world, Mail: relay, ExternalDKIM: true}
		a, err := New(Options{Store: store, Contact: "tls-reports@example.com", Submitter: s})
		check(t, err)
		check(t, a.switchOn(t.Context()))
		waiting(t, store, day0-1, dead, func(i int) string { return fmt.Sprintf("d%d.example", i) },
			func(int) schema.RUA { return "mailto:tls@dead.example" })
		waiting(t, store, day0-2, others, func(i int) string { return fmt.Sprintf("o%d.example", i) },
			func(i int) schema.RUA { return schema.RUA(fmt.Sprintf("mailto:tls@o%d.example", i)) })
		began := time.Now()
		b := &bench{T: t, world: relay.world, Agent: a, store: store}
		stop := b.run()
		time.Sleep(5 * time.Minute)
		if n := relay.most.Load(); n != DefaultPerHost {
			t.Errorf("%d attempts at the dead host at once, want %d", n, DefaultPerHost)
		}
		stop()
		if len(relay.mails) != others {
			t.Errorf("%d of %d reports arrived beside it", len(relay.mails), others)
		}
		for _, m := range relay.mails {
			if waited := m.at.Sub(began); waited > 30*time.Second {
				t.Errorf("%s waited %s", m.to, waited)
			}
		}
		check(t, store.Close())
	})
}

// TestCancelUnderWay: what is cancelled while an attempt is under way is not
// tried again; if the attempt succeeds it was sent. Retrying then changes nothing.
func TestCancelUnderWay(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		cancel bool
		tries  int
		want   aggregator.DeliveryState
	}{
		"cancelled, and it succeeds": {nil, true, 1, aggregator.DeliverySent},
		"cancelled, and it fails":    {&submitterError{Temporary: true, Reply: "451 later"}, true, 1, aggregator.DeliveryCancelled},
		"retried, and it succeeds":   {nil, false, 1, aggregator.DeliverySent},
		"retried, and it fails":      {&submitterError{Temporary: true, Reply: "451 later"}, false, 2, aggregator.DeliverySent},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				b.session("example.org", false)
				b.slow = time.Minute
				b.refuse = func(_ string, attempt int) error {
					if attempt == 1 {
						return c.err
					}
					return nil
				}
				for b.tried("reports@example.org") == 0 {
					time.Sleep(20 * time.Second)
				}
				id := b.deliveries()[0].ID
				if c.cancel {
					check(b.T, b.store.CancelDelivery(b.Context(), id))
				} else {
					check(b.T, b.store.RetryDelivery(b.Context(), id, time.Now()))
				}
				time.Sleep(4 * time.Hour)
				if d := b.deliveries()[0]; d.State != c.want || b.tried("reports@example.org") != c.tries {
					b.Errorf("it is %s after %d attempts, want %s after %d", d.State, b.tried("reports@example.org"), c.want, c.tries)
				}
			}, "example.org")
		})
	}
}

// TestSupplements: what comes late again and again is reported again and again,
// each session once.
func TestSupplements(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "10:00")
		noon := time.Now()
		b.session("example.org", false)
		b.until(day0+1, "06:00")
		b.session("example.org", true, noon)
		b.until(day0+2, "06:00")
		b.session("example.org", false, noon)
		b.session("example.org", false, noon)
		b.until(day0+3, "06:00")
		b.want("example.org 2000-01-01 1/0", "example.org 2000-01-01 0/1", "example.org 2000-01-01 2/0")
		ids := map[string]bool{}
		for _, r := range b.reports(b.T) {
			ids[r.ReportID] = true
		}
		if len(ids) != 3 {
			b.Errorf("report-ids %v", ids)
		}
		b.session("example.org", false, noon) // after max_age nobody wants to know
		b.until(day0+5, "06:00")
		if got := len(b.reports(b.T)); got != 3 {
			b.Errorf("%d reports, want 3", got)
		}
	}, "example.org")
}

// TestWithdrawnRecord: who takes back the record before the day is planned gets
// nothing, though the mail server had seen it.
func TestWithdrawnRecord(t *testing.T) {
	bubble(t, func(b *bench) {
		s := schema.Session{Domain: "example.org", Record: b.records["example.org"],
			Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}}}}
		check(b.T, b.Record(s))
		b.until(day0, "23:00")
		b.mu.Lock()
		delete(b.records, "example.org")
		b.mu.Unlock()
		b.until(day0+2, "06:00")
		b.want()
		if got := b.state("example.org", day0); got != aggregator.StateNoRecord {
			b.Errorf("the day is %s", got)
		}
		if len(b.deliveries()) != 0 {
			b.Errorf("deliveries %v", b.ends())
		}
	}, "example.org")
}

// TestRetryAfterIsBounded: nobody puts a report off for longer than its 24 hours.
func TestRetryAfterIsBounded(t *testing.T) {
	bubble(t, func(b *bench) {
		b.session("example.org", false)
		b.refuse = func(string, int) error {
			return &submitterError{Temporary: true, RetryAfter: 20 * time.Hour}
		}
		b.until(day0+2, "12:00")
		if len(b.mails) != 3 { // at once, after 20 hours, and once more at the end
			b.Errorf("%d attempts", len(b.mails))
		}
		if d := b.deliveries()[0]; d.State != aggregator.DeliveryExpired || !strings.Contains(d.LastError, "submitter") {
			b.Errorf("it is %s: %s", d.State, d.LastError)
		}
	}, "example.org")
}
