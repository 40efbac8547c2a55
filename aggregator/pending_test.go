package aggregator

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// pendingLines is each pending row in one string.
func pendingLines(t testing.TB, s *Store, filter PendingFilter) map[string]bool {
	t.Helper()
	lines := map[string]bool{}
	must(t, s.Pending(context.Background(), filter, func(p Pending) error {
		line := fmt.Sprint(int(p.Day-testDay), " ", p.Domain, "/", p.Part, " ", p.Policy.Type, " ", p.Success, "+", p.Failure, " ", p.Results, " ", p.State)
		if lines[line] {
			t.Errorf("twice: %s", line)
		}
		lines[line] = true
		return nil
	}))
	return lines
}

func wantPending(t testing.TB, s *Store, filter PendingFilter, want ...string) {
	t.Helper()
	wanted := map[string]bool{}
	for _, line := range want {
		wanted[line] = true
	}
	if got := pendingLines(t, s, filter); !maps.Equal(got, wanted) {
		t.Errorf("pending %v\nwant %v", got, wanted)
	}
}

func TestPending(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	wantPending(t, s, PendingFilter{})

	mixed := failure("example.com", 2, schema.CertificateExpired)
	mixed.Success = 10
	mixed.Details = append(mixed.Details,
		schema.DetailsCount{Details: detailsText(schema.CertificateExpired, "mx2.example.net"), Sessions: 1},
		schema.DetailsCount{Details: detailsText(schema.CertificateNotTrusted, "mx.example.net"), Sessions: 1})
	none := success("example.com", 3)
	none.Policy = schema.Policy{Type: schema.NoPolicyFound, Domain: "example.com"}.Text()
	tomorrow := success("example.com", 1)
	tomorrow.Day++
	record(t, s, mixed, none, tomorrow, success("example.net", 1))
	sts := "0 example.com/0 sts 10+2 map[certificate-expired:3 certificate-not-trusted:1] "
	nopolicy := "0 example.com/0 no-policy-found 3+0 map[] "
	next, net := "1 example.com/0 sts 1+0 map[] open", "0 example.net/0 sts 1+0 map[] open"
	wantPending(t, s, PendingFilter{}, sts+"open", nopolicy+"open", next, net)
	wantPending(t, s, PendingFilter{Domain: "example.com"}, sts+"open", nopolicy+"open", next)
	wantPending(t, s, PendingFilter{Day: testDay}, sts+"open", nopolicy+"open", net)
	wantPending(t, s, PendingFilter{Day: testDay + 1, Domain: "example.com"}, next)
	wantPending(t, s, PendingFilter{Day: testDay + 1, Domain: "example.net"})
	wantPending(t, s, PendingFilter{Day: testDay + 2})

	// Reported, and pending as long as a delivery is.
	release(t, s)
	must(t, s.Plan(ctx, reportPlan(s, domainDay(t, s, "example.com"), "mailto:a@example.com")))
	must(t, s.Plan(ctx, Plan{DomainDay: domainDay(t, s, "example.net"), State: StateNoRecord}))
	wantPending(t, s, PendingFilter{}, sts+"reported", nopolicy+"reported", next)
	settleOne(t, s, outcome(claim(t, s, testNow, Claim{})[0], DeliveryGaveUp))
	wantPending(t, s, PendingFilter{}, next)

	// The supplement of a report that was delivered.
	record(t, s, success("example.com", 7))
	wantPending(t, s, PendingFilter{}, next, "0 example.com/1 sts 7+0 map[] late")
	_, err := s.Release(ctx, testDay+1, far, testNow)
	must(t, err)
	wantPending(t, s, PendingFilter{}, next, "0 example.com/1 sts 7+0 map[] not-sent")
}

func TestPendingPages(t *testing.T) {
	const many = 2*pageRows + 5
	s := newStore(t)
	var counts []schema.Count
	for i := range many {
		counts = append(counts, success(fmt.Sprintf("domain-%d.example", i/2), 1))
		counts[i].Policy = policyText(counts[i].Domain, i)
	}
	record(t, s, counts...)
	n := 0
	must(t, s.Pending(context.Background(), PendingFilter{}, func(p Pending) error {
		if n++; n == pageRows { // no transaction is open here
			must(t, s.Checkpoint(context.Background()))
		}
		return nil
	}))
	if n != many {
		t.Errorf("%d rows, want %d", n, many)
	}
	calls := 0
	err := s.Pending(context.Background(), PendingFilter{}, func(Pending) error { calls++; return ErrDone })
	if err != ErrDone || calls != 1 {
		t.Errorf("Pending: %v after %d calls, want that of the callback after 1", err, calls)
	}
}

func TestPrune(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	other := openStore(t, s.path, Options{})
	const text = "v=TLSRPTv1; rua=mailto:a@example.com"
	old := failure("example.com", 1, schema.CertificateExpired)
	old.Record = text
	record(t, s, old)
	planned(t, s, "settled.example", "mailto:a@example.com")
	settleOne(t, s, outcome(claim(t, s, testNow, Claim{})[0], DeliverySent))
	pending := planned(t, s, "pending.example", "mailto:a@example.com")
	recent := success("recent.example", 1)
	recent.Day += 20
	record(t, s, recent)

	must(t, other.Prune(ctx, testDay+20))
	wantPending(t, s, PendingFilter{}, "20 recent.example/0 sts 1+0 map[] open")
	for table, want := range map[string]int{
		"tally": 1, "tally_detail": 0, "domain_day": 0, "day": 0, "policy": 1, "detail": 0,
		"domain": 2, "report": 1, "delivery": 1,
	} {
		if n := rows(t, s, table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
	// What is still to be delivered stays deliverable.
	d := claim(t, s, testNow, Claim{})
	if len(d) != 1 || d[0].Domain != "pending.example" || d[0].ReportID != pending {
		t.Errorf("claimed %+v", d)
	}
	if _, err := s.Report(ctx, pending); err != nil {
		t.Error(err)
	}
	// A process that knew what another one pruned counts on as if it were new.
	old.Day += 20
	record(t, s, old)
	dd := mustDomainDay(t, s, old.Day, "example.com")
	if got := total(t, s, dd); got.Failure != 1 || dd.Record != text {
		t.Errorf("%+v, record %q", got, dd.Record)
	}
	settleOne(t, s, outcome(d[0], DeliverySent))
	must(t, s.Prune(ctx, testDay+20))
	if n, m := rows(t, s, "report"), rows(t, s, "domain"); n != 0 || m != 2 {
		t.Errorf("%d reports and %d domains are left, want 0 and 2", n, m)
	}
}

// A text that is used every day is never pruned, although it is not written
// again every day.
func TestPruneKeepsWhatIsUsed(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	for i := range schema.Day(40) {
		c := failure("example.com", 1, schema.CertificateExpired)
		c.Day += i
		record(t, s, c)
		must(t, s.Prune(ctx, c.Day-2))
		for d := max(testDay, c.Day-2); d <= c.Day; d++ {
			results, err := s.Aggregate(ctx, mustDomainDay(t, s, d, "example.com"))
			must(t, err)
			if len(results) != 1 || len(results[0].FailureDetails) != 1 {
				t.Fatalf("day %d of %d: %+v", d-testDay, i, results)
			}
		}
	}
	if n := rows(t, s, "tally"); n != 3 {
		t.Errorf("%d days are left, want 3", n)
	}
}

func TestPruneMany(t *testing.T) {
	const many = chunk + 10
	s := newStore(t)
	var counts []schema.Count
	for i := range many {
		counts = append(counts, success(fmt.Sprintf("domain-%d.example", i), 1))
	}
	record(t, s, counts...)
	release(t, s)
	must(t, s.Prune(context.Background(), testDay+30))
	for _, table := range []string{"tally", "domain_day", "day", "policy", "domain"} {
		if n := rows(t, s, table); n != 0 {
			t.Errorf("%s has %d rows, want none", table, n)
		}
	}
	if n, err := s.Release(context.Background(), testDay+1, time.Time{}, testNow); n != 0 || err != nil {
		t.Errorf("Release: %d, %v", n, err)
	}
}
