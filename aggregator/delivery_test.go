package aggregator

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// deliverTo plans a report with n deliveries to each host.
func deliverTo(t testing.TB, s *Store, n int, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		for i := range n {
			planned(t, s, fmt.Sprintf("domain-%d.%s", i, host), schema.RUA("mailto:a@"+host))
		}
	}
}

func claim(t testing.TB, s *Store, now time.Time, c Claim) []Delivery {
	t.Helper()
	if c.Lease == 0 {
		c.Lease = time.Minute
	}
	all, err := s.Claim(context.Background(), now, c)
	must(t, err)
	var claimed []Delivery
	for _, c := range all {
		claimed = append(claimed, c.Delivery)
	}
	return claimed
}

// outcome ends the attempt of d.
func outcome(d Delivery, state DeliveryState) Outcome {
	return Outcome{ID: d.ID, Lease: d.Lease, State: state, Next: testNow.Add(time.Hour), At: testNow.Add(time.Second)}
}

func settleOne(t testing.TB, s *Store, o Outcome) {
	t.Helper()
	must(t, s.Settle(context.Background(), []Outcome{o}))
}

// delivery is the one with this id.
func delivery(t testing.TB, s *Store, id int64) (found Delivery) {
	t.Helper()
	must(t, s.Deliveries(context.Background(), DeliveryFilter{}, func(d Delivery) error {
		if d.ID == id {
			found = d
		}
		return nil
	}))
	if found.ID != id {
		t.Fatalf("no delivery %d", id)
	}
	return found
}

func TestClaimAndSettle(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	deliverTo(t, s, 1, "a.example")
	if got := claim(t, s, testNow.Add(-time.Second), Claim{}); got != nil {
		t.Errorf("claimed before its time: %v", got)
	}
	if next, err := s.NextAttempt(ctx, DeliveryFilter{}); err != nil || !next.Equal(testNow) {
		t.Errorf("NextAttempt: %v, %v, want %v", next, err, testNow)
	}
	got := claim(t, s, testNow, Claim{})
	if len(got) != 1 {
		t.Fatalf("claimed %d, want 1", len(got))
	}
	d := got[0]
	if d.Attempts != 1 || !d.First.Equal(testNow) || d.Lease == 0 || d.Host != "a.example" || d.Day != testDay ||
		d.Domain != "domain-0.a.example" || d != delivery(t, s, d.ID) {
		t.Errorf("claimed %+v", d)
	}
	if again := claim(t, s, testNow.Add(59*time.Second), Claim{}); again != nil {
		t.Errorf("claimed twice: %v", again)
	}
	o := outcome(d, DeliveryPending)
	o.Error = "busy"
	settleOne(t, s, o)
	d = delivery(t, s, d.ID)
	if d.State != DeliveryPending || d.LastError != "busy" || d.Lease != 0 || !d.Next.Equal(o.Next) || !d.Done.IsZero() {
		t.Errorf("postponed %+v", d)
	}
	if got = claim(t, s, o.Next, Claim{}); len(got) != 1 || got[0].Attempts != 2 || !got[0].First.Equal(testNow) {
		t.Fatalf("claimed %+v for the second attempt", got)
	}
	o = outcome(got[0], DeliverySent)
	settleOne(t, s, o)
	d = delivery(t, s, d.ID)
	if d.State != DeliverySent || !d.Done.Equal(o.At) || !d.Next.IsZero() || d.Lease != 0 || d.LastError != "busy" {
		t.Errorf("sent %+v", d)
	}
	if got := claim(t, s, far, Claim{}); got != nil {
		t.Errorf("claimed after it was sent: %v", got)
	}
	if next, err := s.NextAttempt(ctx, DeliveryFilter{}); err != nil || !next.IsZero() {
		t.Errorf("NextAttempt: %v, %v, want none", next, err)
	}
}

func TestSettleIgnoresLostLease(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 1, "a.example")
	settleOne(t, s, Outcome{ID: 1, State: DeliveryGaveUp}) // lease 0 is no lease
	first := claim(t, s, testNow, Claim{Lease: 1500 * time.Millisecond})[0]
	if got := claim(t, s, testNow.Add(1500*time.Millisecond), Claim{}); got != nil {
		t.Fatalf("claimed before the lease ended: %v", got)
	}
	late := testNow.Add(2 * time.Second)
	second := claim(t, s, late, Claim{})[0]
	if second.ID != first.ID || second.Lease == first.Lease || second.Attempts != 2 || !second.First.Equal(testNow) {
		t.Fatalf("claimed %+v after %+v", second, first)
	}
	settleOne(t, s, outcome(first, DeliveryGaveUp))
	if d := delivery(t, s, first.ID); d != second {
		t.Errorf("a lost lease changed %+v to %+v", second, d)
	}
	settleOne(t, s, outcome(second, DeliverySent))
	settleOne(t, s, outcome(second, DeliveryGaveUp)) // a second time
	if d := delivery(t, s, first.ID); d.State != DeliverySent {
		t.Errorf("%+v, want it sent", d)
	}
}

// An outcome that comes after the end of the lease counts as long as nobody else
// has claimed the delivery.
func TestSettleAfterLease(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 1, "a.example")
	d := claim(t, s, testNow, Claim{Lease: time.Second})[0]
	o := outcome(d, DeliverySent)
	o.At = testNow.Add(time.Hour)
	settleOne(t, s, o)
	if d := delivery(t, s, d.ID); d.State != DeliverySent {
		t.Errorf("%+v, want it sent", d)
	}
}

func TestClaimPerHost(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 10, "a.example")
	deliverTo(t, s, 3, "b.example", "c.example")
	hosts := func(all []Delivery) (hosts []string) {
		for _, d := range all {
			hosts = append(hosts, d.Host)
		}
		slices.Sort(hosts)
		return hosts
	}
	want := func(got []Delivery, want ...string) {
		t.Helper()
		if !slices.Equal(hosts(got), want) {
			t.Errorf("hosts %v, want %v", hosts(got), want)
		}
	}
	first := claim(t, s, testNow, Claim{PerHost: 2, Max: 4})
	want(first, "a.example", "a.example", "b.example", "c.example")
	second := claim(t, openStore(t, s.path, Options{}), testNow, Claim{PerHost: 2})
	want(second, "b.example", "c.example")
	want(claim(t, s, testNow, Claim{PerHost: 2}))
	for _, d := range first {
		if d.Host == "a.example" {
			settleOne(t, s, outcome(d, DeliverySent))
			break
		}
	}
	want(claim(t, s, testNow, Claim{PerHost: 2}), "a.example")
	// Leases that ended bind nobody.
	want(claim(t, s, testNow.Add(time.Hour), Claim{PerHost: 1}), "a.example", "b.example", "c.example")
	if got := claim(t, newStore(t), testNow, Claim{}); got != nil {
		t.Errorf("claimed from an empty store: %v", got)
	}
}

// A host with many deliveries, or many of them under way, hides no other host.
func TestClaimIsFair(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 200, "a.example")
	var others []string
	for i := range 70 {
		others = append(others, fmt.Sprintf("host-%02d.example", i))
	}
	deliverTo(t, s, 2, others...)
	seen := map[string]int{}
	// The second process begins with the same hosts.
	for _, s := range []*Store{s, openStore(t, s.path, Options{})} {
		for _, d := range claim(t, s, testNow, Claim{PerHost: 1}) {
			seen[d.Host]++
		}
	}
	if len(seen) != 71 {
		t.Errorf("%d hosts had their turn in two claims, want 71", len(seen))
	}
	for host, n := range seen {
		if n != 1 {
			t.Errorf("%s had %d turns, want 1", host, n)
		}
	}
}

func TestClaimGoesRound(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 4, "a.example", "b.example", "c.example")
	var turns []string
	for range 6 {
		for _, d := range claim(t, s, testNow, Claim{Max: 2}) {
			turns = append(turns, d.Host[:1])
		}
	}
	if got := fmt.Sprint(turns); got != "[a b c a b c a b c a b c]" {
		t.Errorf("turns %v", got)
	}
}

func TestClaimFilter(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 3, "a.example", "b.example")
	domain := "domain-1.b.example"
	if got := claim(t, s, testNow, Claim{Filter: DeliveryFilter{Domain: domain, State: DeliverySent}}); len(got) != 1 || got[0].Domain != domain {
		t.Errorf("claimed %v, want that of %s", got, domain)
	}
	if got := claim(t, s, testNow, Claim{Filter: DeliveryFilter{Day: testDay + 1}}); got != nil {
		t.Errorf("claimed %v of another day", got)
	}
	if got := claim(t, s, testNow, Claim{Filter: DeliveryFilter{Day: testDay}}); len(got) != 5 {
		t.Errorf("claimed %d of the day, want 5", len(got))
	}
}

// Two processes that claim at once never get the same delivery.
func TestClaimTogether(t *testing.T) {
	s := newStore(t)
	const hosts, each = 8, 20
	for i := range hosts {
		deliverTo(t, s, each, fmt.Sprintf("host-%d.example", i))
	}
	claimed := make([][]Claimed, 2)
	var wg sync.WaitGroup
	for i, s := range []*Store{s, openStore(t, s.path, Options{})} {
		wg.Go(func() {
			for {
				got, err := s.Claim(context.Background(), testNow, Claim{Max: 3, Lease: time.Hour})
				if err != nil {
					t.Error(err)
				}
				if len(got) == 0 {
					return
				}
				claimed[i] = append(claimed[i], got...)
			}
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for _, d := range slices.Concat(claimed...) {
		if seen[d.ID] {
			t.Errorf("delivery %d was claimed twice", d.ID)
		}
		seen[d.ID] = true
	}
	if len(seen) != hosts*each {
		t.Errorf("%d deliveries were claimed, want %d", len(seen), hosts*each)
	}
}

func TestInTurn(t *testing.T) {
	ctx := context.Background()
	ruas := []schema.RUA{"mailto:1@a.example", "mailto:2@b.example", "mailto:3@c.example"}
	plan := func() *Store {
		s := newStore(t)
		record(t, s, success("example.com", 1))
		release(t, s)
		p := reportPlan(s, domainDay(t, s, "example.com"), ruas...)
		p.InTurn = true
		must(t, s.Plan(ctx, p))
		return s
	}
	states := func(s *Store) (states []string) {
		must(t, s.Deliveries(ctx, DeliveryFilter{}, func(d Delivery) error {
			states = append(states, string(d.State))
			return nil
		}))
		return states
	}
	only := func(s *Store, rua schema.RUA) Delivery {
		t.Helper()
		got := claim(t, s, testNow.Add(time.Second), Claim{})
		if len(got) != 1 || got[0].RUA != rua {
			t.Fatalf("claimed %v, want %s alone", got, rua)
		}
		return got[0]
	}
	s := plan()
	settleOne(t, s, outcome(only(s, ruas[0]), DeliveryPending))
	if got := claim(t, s, testNow.Add(time.Second), Claim{}); got != nil {
		t.Errorf("claimed %v while the first rua is tried", got)
	}
	first := claim(t, s, testNow.Add(time.Hour), Claim{})[0]
	settleOne(t, s, outcome(first, DeliveryGaveUp))
	settleOne(t, s, outcome(only(s, ruas[1]), DeliverySent))
	if got := fmt.Sprint(states(s)); got != "[gave-up sent suppressed]" {
		t.Errorf("states %v", got)
	}

	s = plan()
	must(t, s.CancelDelivery(ctx, 2)) // not its turn, so nobody's
	d := only(s, ruas[0])
	must(t, s.CancelDelivery(ctx, d.ID))
	if got := fmt.Sprint(states(s)); got != "[cancelled cancelled pending]" {
		t.Errorf("states %v", got)
	}
	if next, err := s.NextAttempt(ctx, DeliveryFilter{}); err != nil || next.IsZero() {
		t.Errorf("the third rua has no turn: %v, %v", next, err)
	}
}

func TestCancelAndRetry(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	deliverTo(t, s, 1, "a.example")
	const id = 1
	for name, err := range map[string]error{"cancel": s.CancelDelivery(ctx, 99), "retry": s.RetryDelivery(ctx, 99, testNow)} {
		if err != ErrNoDelivery {
			t.Errorf("%s: %v, want %v", name, err, ErrNoDelivery)
		}
	}
	must(t, s.CancelDelivery(ctx, id))
	if d := delivery(t, s, id); d.State != DeliveryCancelled || d.Done.IsZero() || !d.Next.IsZero() {
		t.Errorf("cancelled %+v", d)
	}
	if err := s.CancelDelivery(ctx, id); err != ErrDone {
		t.Errorf("cancelling again: %v, want %v", err, ErrDone)
	}
	if got := claim(t, s, far, Claim{}); got != nil {
		t.Errorf("claimed %v after it was cancelled", got)
	}
	later := testNow.Add(time.Hour)
	must(t, s.RetryDelivery(ctx, id, later))
	if d := delivery(t, s, id); d.State != DeliveryPending || !d.Next.Equal(later) || !d.Done.IsZero() {
		t.Errorf("retried %+v", d)
	}

	// An attempt under way is left alone; if it was cancelled and succeeds, it was sent.
	d := claim(t, s, later, Claim{})[0]
	must(t, s.RetryDelivery(ctx, id, later))
	if got := delivery(t, s, id); got != d {
		t.Errorf("retrying changed %+v to %+v", d, got)
	}
	must(t, s.CancelDelivery(ctx, id))
	settleOne(t, s, outcome(d, DeliveryPending))
	if got := delivery(t, s, id); got.State != DeliveryCancelled {
		t.Errorf("an attempt that failed changed it to %+v", got)
	}
	settleOne(t, s, outcome(d, DeliverySent))
	if got := delivery(t, s, id); got.State != DeliverySent {
		t.Errorf("%+v, want it sent", got)
	}
	if err := s.RetryDelivery(ctx, id, later); err != ErrDone {
		t.Errorf("retrying what was sent: %v, want %v", err, ErrDone)
	}
}

func TestRetryEnded(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 1, "a.example")
	d := claim(t, s, testNow, Claim{})[0]
	settleOne(t, s, outcome(d, DeliveryExpired))
	later := testNow.Add(48 * time.Hour)
	must(t, s.RetryDelivery(context.Background(), d.ID, later))
	got := claim(t, s, later, Claim{})
	if len(got) != 1 || got[0].Attempts != 2 || !got[0].First.Equal(later) {
		t.Errorf("claimed %+v, want a new first attempt", got)
	}
	// An attempt that was cut off may be retried before its lease ends by itself.
	must(t, s.RetryDelivery(context.Background(), d.ID, later.Add(2*time.Minute)))
	if got := claim(t, s, later.Add(2*time.Minute), Claim{}); len(got) != 1 || got[0].Attempts != 3 {
		t.Errorf("claimed %+v, want the third attempt", got)
	}
}

func TestDeliveries(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	const many = pageRows + 20
	var counts []schema.Count
	for i := range many {
		counts = append(counts, success(fmt.Sprintf("domain-%d.example", i), 1))
	}
	record(t, s, counts...)
	release(t, s)
	for _, dd := range dueDomains(t, s, testNow) {
		must(t, s.Plan(ctx, reportPlan(s, dd, "mailto:a@a.example")))
	}
	sent := claim(t, s, testNow, Claim{Max: 7})
	for _, d := range sent {
		settleOne(t, s, outcome(d, DeliverySent))
	}
	for _, c := range []struct {
		DeliveryFilter
		want int
	}{
		{DeliveryFilter{}, many},
		{DeliveryFilter{Day: testDay}, many},
		{DeliveryFilter{Day: testDay + 1}, 0},
		{DeliveryFilter{Domain: "domain-9.example"}, 1},
		{DeliveryFilter{Domain: "domain.example"}, 0},
		{DeliveryFilter{State: DeliverySent}, 7},
		{DeliveryFilter{State: DeliverySent, Domain: sent[0].Domain, Day: testDay}, 1},
		{DeliveryFilter{State: DeliveryPending}, many - 7},
	} {
		n, last := 0, int64(0)
		must(t, s.Deliveries(ctx, c.DeliveryFilter, func(d Delivery) error {
			if d.ID <= last {
				t.Fatalf("delivery %d after %d", d.ID, last)
			}
			n, last = n+1, d.ID
			return nil
		}))
		if n != c.want {
			t.Errorf("%+v: %d deliveries, want %d", c.DeliveryFilter, n, c.want)
		}
	}
	calls := 0
	if err := s.Deliveries(ctx, DeliveryFilter{}, func(Delivery) error { calls++; return ErrDone }); err != ErrDone || calls != 1 {
		t.Errorf("Deliveries: %v after %d calls, want that of the callback after 1", err, calls)
	}
}
