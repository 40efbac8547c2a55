package aggregator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestOverview counts what waits, by day and state.
func TestOverview(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	o, err := s.Overview(ctx)
	must(t, err)
	if len(o.Waiting)+len(o.Pending) > 0 || len(o.Deliveries) != len(deliveryStates) || !o.Closed.IsZero() || !o.Due.IsZero() || !o.Attempt.IsZero() {
		t.Errorf("an empty store: %+v", o)
	}
	record(t, s, success("a.example", 1), success("b.example", 1), failure("c.example", 2, schema.CertificateExpired))
	release(t, s)
	planned(t, s, "a.example", "mailto:x@host.example", "https://host.example/1", "https://host.example/2")
	for _, state := range []DeliveryState{DeliverySent, DeliveryGaveUp} {
		d := claim(t, s, testNow, Claim{Max: 1, PerHost: 9})[0]
		settleOne(t, s, outcome(d, state))
	}
	o, err = s.Overview(ctx)
	must(t, err)
	want := map[DeliveryState]int64{DeliveryPending: 1, DeliverySent: 1, DeliveryGaveUp: 1, DeliveryExpired: 0, DeliverySuppressed: 0, DeliveryCancelled: 0}
	if fmt.Sprint(o.Deliveries) != fmt.Sprint(want) {
		t.Errorf("deliveries %v, want %v", o.Deliveries, want)
	}
	if o.Waiting[testDay] != 2 || o.Pending[testDay] != 1 || o.Closed.IsZero() || o.Due.IsZero() || o.Attempt.IsZero() {
		t.Errorf("%+v", o)
	}
}

// totals is "domain success/failure state" of each.
func totals(all []DomainTotals) string {
	var b []string
	for _, t := range all {
		b = append(b, fmt.Sprintf("%s %d/%d %s", t.Domain, t.Totals.Success, t.Totals.Failure, t.State))
	}
	return strings.Join(b, ", ")
}

// TestOpenDay: an open day is counted over all policies, and what was recorded
// for looking is not of it.
func TestOpenDay(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	record(t, s, success("a.example", 5), failure("b.example", 2, schema.CertificateExpired), failure("c.example", 7, schema.DANERequired), success("c.example", 1))
	look(t, s, success("d.example", 100))
	days, err := s.OpenDays(ctx)
	must(t, err)
	if !slices.Equal(days, []schema.Day{testDay}) {
		t.Errorf("open days %v", days)
	}
	o, err := s.CountOpenDay(ctx, testDay)
	must(t, err)
	if o.Domains != 3 || o.Totals != (schema.Summary{Success: 6, Failure: 9}) {
		t.Errorf("%+v", o)
	}
	worst, err := s.OpenFailing(ctx, o, DomainTotals{}, 1)
	must(t, err)
	next, err := s.OpenFailing(ctx, o, worst[0], 9)
	must(t, err)
	if got, want := totals(append(worst, next...)), "c.example 1/7 open, b.example 0/2 open"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	all, err := s.TotalsOf(ctx, testDay, []string{"b.example", "nowhere.example", "d.example"})
	must(t, err)
	if got, want := totals(all), "b.example 0/2 open, nowhere.example 0/0 , d.example 0/0 "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	release(t, s)
	if days, err = s.OpenDays(ctx); err != nil || len(days) > 0 {
		t.Errorf("open days after the release: %v (%v)", days, err)
	}
}

// TestOpenDayPages: what does not fit into one transaction is counted all the same.
func TestOpenDayPages(t *testing.T) {
	const n = overviewRows + 11
	s, ctx := newStore(t), context.Background()
	counts := make([]schema.Count, n)
	for i := range counts {
		counts[i] = success(fmt.Sprintf("d%d.example", i), 1)
	}
	counts[n/2] = failure(counts[n/2].Domain, 3, schema.CertificateExpired)
	counts[n-1] = failure(counts[n-1].Domain, 4, schema.CertificateExpired)
	record(t, s, counts...)
	o, err := s.CountOpenDay(ctx, testDay)
	must(t, err)
	failing, err := s.OpenFailing(ctx, o, DomainTotals{}, 10)
	must(t, err)
	if o.Domains != n || o.Totals != (schema.Summary{Success: n - 2, Failure: 7}) || len(failing) != 2 || failing[0].Totals.Failure != 4 {
		t.Errorf("%d domains, %+v, failing %s", o.Domains, o.Totals, totals(failing))
	}
	seen := map[string]bool{}
	must(t, s.Names(ctx, func(page []string) error {
		for _, name := range page {
			seen[name] = true
		}
		return nil
	}))
	if len(seen) != n {
		t.Errorf("%d names, want %d", len(seen), n)
	}
}

// TestFailing pages through the domains that failed on a closed day.
func TestFailing(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	counts := []schema.Count{success("fine.example", 9)}
	for i := range 10 {
		counts = append(counts, failure(fmt.Sprintf("d%d.example", i), int64(1+i/2), schema.CertificateExpired))
	}
	record(t, s, counts...)
	release(t, s)
	var all []DomainTotals
	for last := (DomainTotals{}); ; last = all[len(all)-1] {
		page, err := s.Failing(ctx, testDay, last, 3)
		must(t, err)
		if all = append(all, page...); len(page) == 0 {
			break
		}
	}
	sorted := slices.IsSortedFunc(all, func(a, b DomainTotals) int { return int(b.Totals.Failure - a.Totals.Failure) })
	if len(all) != 10 || !sorted || strings.Contains(totals(all), "fine") {
		t.Error(totals(all))
	}
}

// TestOverviewIndexes: the pages that many rows lie behind are read by an index.
func TestOverviewIndexes(t *testing.T) {
	s := newStore(t)
	for query, index := range map[string]string{
		`SELECT domain FROM domain_day WHERE day = 1 AND failure > 0 AND (failure, domain) < (5, 5) ORDER BY failure DESC, domain DESC LIMIT 5`: "domain_day_failing",
		`SELECT id FROM delivery v WHERE v.id < 9 AND v.state = 3 AND v.state > 1 ORDER BY v.id DESC LIMIT 5`:                                   "delivery_unsent",
		`SELECT count(*) FROM delivery WHERE state = 0`:                                                                                         "delivery_",
	} {
		if plan := queryPlan(t, s, query); !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s is read by\n%s", query, plan)
		}
	}
}

// queryPlan is how SQLite would run a query.
func queryPlan(t *testing.T, s *Store, query string) (plan string) {
	t.Helper()
	rows, err := s.readers.Query(`EXPLAIN QUERY PLAN ` + query)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		must(t, rows.Scan(&id, &parent, &unused, &detail))
		plan += detail + "\n"
	}
	must(t, rows.Err())
	return plan
}

// TestHistory: closed days by their totals, an open one by what is counted.
func TestHistory(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	record(t, s, success("a.example", 5), success("b.example", 1))
	release(t, s)
	today := failure("a.example", 2, schema.CertificateExpired)
	today.Day = testDay + 1
	record(t, s, today)
	days, err := s.History(ctx, "a.example", testDay-5, testDay+5)
	must(t, err)
	if len(days) != 2 || days[0].Day != testDay || days[0].Totals.Success != 5 || days[1].Totals.Failure != 2 || days[1].State != StateOpen {
		t.Errorf("%+v", days)
	}
	policies, err := s.Counted(ctx, "a.example", testDay+1)
	must(t, err)
	if len(policies) != 1 || len(policies[0].FailureDetails) != 1 || policies[0].FailureDetails[0].FailedSessionCount != 2 {
		t.Errorf("%+v", policies)
	}
	if _, _, err := s.KnownDomain(ctx, "nowhere.example"); err != ErrNoData {
		t.Errorf("an unknown domain: %v", err)
	}
}

// TestDeliveryPage pages through deliveries, newest first.
func TestDeliveryPage(t *testing.T) {
	s, ctx := newStore(t), context.Background()
	deliverTo(t, s, 7, "one.example", "two.example")
	all := func(f DeliveryFilter) (ids []int64) {
		t.Helper()
		for before := int64(0); ; {
			page, next, err := s.DeliveryPage(ctx, f, before, 3)
			must(t, err)
			for _, d := range page {
				ids = append(ids, d.ID)
			}
			if before = next; next == 0 {
				return ids
			}
		}
	}
	ids := all(DeliveryFilter{})
	if len(ids) != rows(t, s, "delivery") || !slices.IsSortedFunc(ids, func(a, b int64) int { return int(b - a) }) {
		t.Errorf("%v", ids)
	}
	settleOne(t, s, outcome(claim(t, s, testNow.Add(time.Hour), Claim{Max: 1, PerHost: 9})[0], DeliveryGaveUp))
	for state, want := range map[DeliveryState]int{DeliveryGaveUp: 1, DeliveryPending: len(ids) - 1, DeliverySent: 0} {
		if got := all(DeliveryFilter{State: state}); len(got) != want {
			t.Errorf("%s: %v, want %d", state, got, want)
		}
	}
}

func TestCheckWritable(t *testing.T) {
	s := newStore(t)
	must(t, s.CheckWritable(context.Background()))
	must(t, s.CheckWritable(context.Background()))
	must(t, s.Close())
	if err := s.CheckWritable(context.Background()); err != ErrClosed {
		t.Errorf("a closed store: %v", err)
	}
}

// BenchmarkCountOpenDay counts an open day of 100,000 domains, one in twenty of
// which failed.
func BenchmarkCountOpenDay(b *testing.B) {
	s, ctx := newStore(b), context.Background()
	counts := make([]schema.Count, 100_000)
	for i := range counts {
		counts[i] = success(fmt.Sprintf("domain-%06d.example", i), 1)
		if i%20 == 0 {
			counts[i] = failure(fmt.Sprintf("domain-%06d.example", i), 1, schema.CertificateExpired)
		}
	}
	record(b, s, counts...)
	begun := cpuTime()
	for b.Loop() {
		if _, err := s.CountOpenDay(ctx, testDay); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime()-begun).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}
