package aggregator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var far = testNow.AddDate(1, 0, 0)

// dueDomains lists what is due at a time, page by page.
func dueDomains(t testing.TB, s *Store, at time.Time) (all []DomainDay) {
	t.Helper()
	var last DomainDay
	for {
		page, err := s.Due(context.Background(), at, 2, last)
		must(t, err)
		if all = append(all, page...); len(page) < 2 {
			return all
		}
		last = page[1]
	}
}

func TestRelease(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	today := success("example.com", 1)
	today.Day++
	old := failure("example.org", 4, schema.CertificateExpired)
	old.Day -= 5
	record(t, s, success("example.com", 10), failure("example.com", 2, schema.CertificateExpired), success("example.net", 1), today, old)

	if due := dueDomains(t, s, far); due != nil {
		t.Fatalf("due before Release: %v", due)
	}
	for i, want := range []int{2, 0} { // it is idempotent
		n, err := s.Release(ctx, testDay+1, testDay.Start(), testNow.Add(time.Duration(i)*time.Hour))
		if err != nil || n != want {
			t.Errorf("Release: %d, %v, want %d", n, err, want)
		}
	}
	if next, err := s.NextDue(ctx); err != nil || !next.Equal(testNow) {
		t.Errorf("NextDue: %v, %v, want %v", next, err, testNow)
	}
	due := dueDomains(t, s, testNow)
	if len(due) != 2 || len(dueDomains(t, s, testNow.Add(-time.Second))) != 0 {
		t.Fatalf("due: %v", due)
	}
	for _, dd := range due {
		want := schema.Summary{Success: 1}
		if dd.Domain == "example.com" {
			want = schema.Summary{Success: 10, Failure: 2}
		}
		if dd.Day != testDay || dd.State != StateOpen || dd.Part != 0 || !dd.Due.Equal(testNow) || dd.Totals != want {
			t.Errorf("%+v, want totals %v", dd, want)
		}
	}
	dd, err := s.DomainDayOf(ctx, old.Day, "example.org")
	if err != nil || dd.State != StateNotSent || total(t, s, dd).Failure != 4 {
		t.Errorf("%+v, %v, want it not-sent, with its counts", dd, err)
	}
	days, err := s.Days(ctx, 0, testDay+1)
	must(t, err)
	want := []DayTotals{
		{Day: old.Day, Closed: testNow, Domains: 1, Totals: schema.Summary{Failure: 4}},
		{Day: testDay, Closed: testNow, Domains: 2, Totals: schema.Summary{Success: 11, Failure: 2}},
	}
	if fmt.Sprint(days) != fmt.Sprint(want) {
		t.Errorf("days %v, want %v", days, want)
	}
	if dd := mustDomainDay(t, s, today.Day, "example.com"); dd.State != StateOpen || !dd.Due.IsZero() {
		t.Errorf("%+v, want it open", dd)
	}
}

func mustDomainDay(t testing.TB, s *Store, day schema.Day, domain string) DomainDay {
	t.Helper()
	dd, err := s.DomainDayOf(context.Background(), day, domain)
	must(t, err)
	return dd
}

// Release takes several transactions where there are many domains.
func TestReleaseMany(t *testing.T) {
	const many = 2*chunk + 7
	s := newStore(t)
	counts := make([]schema.Count, many)
	for i := range counts {
		counts[i] = success(fmt.Sprintf("domain-%d.example", i), 1)
	}
	record(t, s, counts...)
	// One was closed by sessions that came while Release was cut off.
	_, _, err := s.closeNext(context.Background(), 0, testDay+1, testNow)
	must(t, err)
	record(t, s, counts[0])
	n, err := s.Release(context.Background(), testDay+1, time.Time{}, testNow)
	if err != nil || n != many {
		t.Errorf("Release: %d, %v, want %d", n, err, many)
	}
	days, err := s.Days(context.Background(), testDay, testDay)
	if err != nil || len(days) != 1 || days[0].Domains != many || days[0].Totals.Success != many+1 {
		t.Errorf("days %+v, %v, want %d domains", days, err, many)
	}
	if dd := domainDay(t, s, "domain-0.example"); dd.Totals.Success != 2 || !dd.Due.Equal(testNow) {
		t.Errorf("%+v, want 2 sessions", dd)
	}
}

func TestSpread(t *testing.T) {
	const domains, spread = 400, 4 * time.Hour
	path := t.TempDir() + "/store.db"
	s := openStore(t, path, Options{Spread: spread})
	var counts []schema.Count
	for i := range domains {
		counts = append(counts, success(fmt.Sprintf("domain-%d.example", i), 1))
		counts = append(counts, counts[len(counts)-1])
		counts[len(counts)-1].Day++
	}
	record(t, s, counts...)
	_, err := s.Release(context.Background(), testDay+2, time.Time{}, testNow)
	must(t, err)
	quarters, moved := [4]int{}, 0
	other := openStore(t, path, Options{Spread: spread})
	for i := range domains {
		name := fmt.Sprintf("domain-%d.example", i)
		dd, next := mustDomainDay(t, s, testDay, name), mustDomainDay(t, other, testDay+1, name)
		delay := dd.Due.Sub(testNow)
		if delay < 0 || delay >= spread {
			t.Fatalf("%s is due after %v, want less than %v", name, delay, spread)
		}
		quarters[delay/time.Hour]++
		if !dd.Due.Equal(next.Due) {
			moved++
		}
		if delay != other.keys.delay(testDay, other.keys.domain(name), spread) {
			t.Errorf("another process has another delay for %s", name)
		}
	}
	for i, n := range quarters {
		if n < domains/8 {
			t.Errorf("%d domains are due in hour %d of 4, want about %d", n, i, domains/4)
		}
	}
	if moved < domains/2 {
		t.Errorf("only %d domains have another time on the next day", moved)
	}
	due := dueDomains(t, s, far)
	if len(due) != 2*domains {
		t.Fatalf("%d are due, want %d", len(due), 2*domains)
	}
	for i := 1; i < len(due); i++ {
		if due[i].Due.Before(due[i-1].Due) {
			t.Fatal("Due is not in order")
		}
	}
}

func TestToken(t *testing.T) {
	s := newStore(t)
	seen := map[string]bool{}
	for _, token := range []string{
		s.Token(testDay, "example.com", 0), s.Token(testDay, "example.com", 1), s.Token(testDay+1, "example.com", 0),
		s.Token(testDay, "example.net", 0), newStore(t).Token(testDay, "example.com", 0),
	} {
		if len(token) != 16 || seen[token] {
			t.Errorf("token %q is not 16 characters, or not of its own", token)
		}
		seen[token] = true
	}
	if !seen[s.Token(testDay, "example.com", 0)] {
		t.Error("a token is another one when asked for again")
	}
}

func TestPlanReport(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	record(t, s, success("example.com", 3))
	release(t, s)
	p := reportPlan(s, domainDay(t, s, "example.com"), "mailto:a@example.com", "https://b.example.net/x")
	p.Record = "v=TLSRPTv1; rua=mailto:a@example.com,https://b.example.net/x"
	must(t, s.Plan(ctx, p))
	if err := s.Plan(ctx, p); !errors.Is(err, ErrPlanned) {
		t.Errorf("planning again: %v, want %v", err, ErrPlanned)
	}
	got, err := s.Report(ctx, p.Report.ID)
	want := *p.Report
	want.Day, want.Domain = testDay, "example.com"
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("report %v, %v\nwant %v", got, err, want)
	}
	if _, err := s.Report(ctx, "another"); err != ErrNoReport {
		t.Errorf("another report: %v, want %v", err, ErrNoReport)
	}
	dd := domainDay(t, s, "example.com")
	if dd.State != StateReported || dd.Record != p.Record || !dd.Due.IsZero() || total(t, s, dd).Success != 3 {
		t.Errorf("%+v", dd)
	}
	if due := dueDomains(t, s, far); due != nil {
		t.Errorf("due after it was planned: %v", due)
	}
	var hosts []string
	must(t, s.Deliveries(ctx, DeliveryFilter{}, func(d Delivery) error {
		if d.State != DeliveryPending || d.Attempts != 0 || d.ReportID != p.Report.ID || !d.Next.Equal(testNow) || d.Domain != "example.com" {
			t.Errorf("delivery %+v", d)
		}
		hosts = append(hosts, d.Host)
		return nil
	}))
	if fmt.Sprint(hosts) != "[example.com b.example.net]" {
		t.Errorf("hosts %v", hosts)
	}
}

func TestPlanWithoutReport(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		State
		tallies int // left
	}{{StateNoRecord, 0}, {StateExpired, 0}, {StateExcluded, 0}, {StateNotSent, 1}} {
		s := newStore(t)
		record(t, s, failure("example.com", 3, schema.CertificateExpired))
		release(t, s)
		dd := domainDay(t, s, "example.com")
		must(t, s.Plan(ctx, Plan{DomainDay: dd, State: c.State}))
		// Sessions that come yet are only added up: nothing is owed for them.
		record(t, s, success("example.com", 4))
		got := domainDay(t, s, "example.com")
		if got.State != c.State || got.Totals != (schema.Summary{Success: 4, Failure: 3}) || got.Part != 0 {
			t.Errorf("%s: %+v", c.State, got)
		}
		if n, m := rows(t, s, "tally"), rows(t, s, "tally_detail"); n != c.tallies || m != c.tallies {
			t.Errorf("%s: %d tallies and %d details are left, want %d each", c.State, n, m, c.tallies)
		}
		release(t, s)
		if due := dueDomains(t, s, far); due != nil {
			t.Errorf("%s: due again: %v", c.State, due)
		}
		days, err := s.Days(ctx, testDay, testDay)
		if err != nil || len(days) != 1 || days[0].Domains != 1 || days[0].Totals != got.Totals {
			t.Errorf("%s: days %+v, %v", c.State, days, err)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	record(t, s, success("example.com", 1))
	dd := domainDay(t, s, "example.com")
	if err := s.Plan(ctx, Plan{DomainDay: dd, State: StateNoRecord}); err != ErrNotClosed {
		t.Errorf("planning an open day: %v, want %v", err, ErrNotClosed)
	}
	if err := s.Plan(ctx, Plan{DomainDay: DomainDay{Day: testDay, Domain: "example.net"}, State: StateNoRecord}); err != ErrNoData {
		t.Errorf("planning what was not counted: %v, want %v", err, ErrNoData)
	}
	release(t, s)
	dd = domainDay(t, s, "example.com")
	withReport := reportPlan(s, dd, "mailto:a@example.com")
	for _, p := range []Plan{
		{DomainDay: dd},
		{DomainDay: dd, State: StateOpen},
		{DomainDay: dd, State: StateLate},
		{DomainDay: dd, State: StateReported},
		{DomainDay: dd, State: StateReported, Report: withReport.Report},
		{DomainDay: dd, State: StateNoRecord, Report: withReport.Report},
	} {
		if err := s.Plan(ctx, p); err == nil {
			t.Errorf("state %q, report %v: planned", p.State, p.Report)
		}
	}
	// All or nothing: the second rua leads nowhere.
	if err := s.Plan(ctx, reportPlan(s, dd, "mailto:a@example.com", "")); err == nil {
		t.Error("planned a delivery to no host")
	}
	if domainDay(t, s, "example.com").State != StateOpen || rows(t, s, "report") != 0 || rows(t, s, "delivery") != 0 {
		t.Error("a plan that was refused left something")
	}
}

// A session that is recorded while a report is being made is in that report,
// because the plan is made again, or in the next one.
func TestPlanChanged(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	record(t, s, success("example.com", 1))
	release(t, s)
	dd := domainDay(t, s, "example.com")
	record(t, s, success("example.com", 1))
	if err := s.Plan(ctx, reportPlan(s, dd, "mailto:a@example.com")); err != ErrChanged {
		t.Fatalf("Plan: %v, want %v", err, ErrChanged)
	}
	dd = domainDay(t, s, "example.com")
	if got := total(t, s, dd); got.Success != 2 || dd.Totals.Success != 2 {
		t.Errorf("%d sessions, totals %d, want 2", got.Success, dd.Totals.Success)
	}
	must(t, s.Plan(ctx, reportPlan(s, dd, "mailto:a@example.com")))
}

// Sessions that come after the report are counted once, in a supplement.
func TestSupplements(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	planned(t, s, "example.com", "mailto:a@example.com")
	for part := 1; part <= 3; part++ {
		record(t, s, success("example.com", 10), failure("example.com", 1, schema.CertificateExpired))
		record(t, s, success("example.com", 5))
		dd := domainDay(t, s, "example.com")
		if dd.State != StateLate || dd.Part != part || !dd.Due.IsZero() {
			t.Fatalf("%+v, want part %d late", dd, part)
		}
		if due := dueDomains(t, s, far); due != nil {
			t.Fatalf("late sessions are due before the next Release: %v", due)
		}
		release(t, s)
		due := dueDomains(t, s, testNow)
		if len(due) != 1 || due[0].State != StateLate || due[0].Part != part {
			t.Fatalf("due: %+v, want part %d", due, part)
		}
		if got := total(t, s, due[0]); got != (schema.Summary{Success: 15, Failure: 1}) {
			t.Errorf("part %d: %+v", part, got)
		}
		must(t, s.Plan(ctx, reportPlan(s, due[0], "mailto:a@example.com")))
	}
	if dd := domainDay(t, s, "example.com"); dd.Totals != (schema.Summary{Success: 46, Failure: 3}) {
		t.Errorf("totals %+v", dd.Totals)
	}
	// What comes when the day is too old is kept, but not sent.
	record(t, s, success("example.com", 1))
	n, err := s.Release(ctx, testDay+1, (testDay + 3).Start(), testNow)
	if dd := domainDay(t, s, "example.com"); err != nil || n != 0 || dd.State != StateNotSent || dd.Part != 4 {
		t.Errorf("Release: %d, %v; %+v, want it not-sent", n, err, dd)
	}
}

// The first sessions of a domain may come after its day was closed.
func TestLateDomain(t *testing.T) {
	s := newStore(t)
	record(t, s, success("example.com", 1))
	release(t, s)
	record(t, s, success("example.net", 2), success("example.net", 3))
	dd := domainDay(t, s, "example.net")
	if dd.State != StateOpen || dd.Part != 0 || !dd.Due.IsZero() || dd.Totals.Success != 5 {
		t.Errorf("%+v", dd)
	}
	release(t, s)
	if dd := domainDay(t, s, "example.net"); !dd.Due.Equal(testNow) {
		t.Errorf("%+v, want it due", dd)
	}
	days, err := s.Days(context.Background(), testDay, testDay)
	if err != nil || days[0].Domains != 2 || days[0].Totals.Success != 6 {
		t.Errorf("days %+v, %v", days, err)
	}
}

// Of two processes that plan the same domain-day one wins.
func TestPlanTogether(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	stores := []*Store{s, openStore(t, s.path, Options{})}
	const domains = 20
	for i := range domains {
		record(t, s, success(fmt.Sprintf("domain-%d.example", i), 1))
	}
	release(t, s)
	results := make(chan error)
	due := dueDomains(t, s, testNow) // before either begins to plan
	for _, s := range stores {
		go func() {
			for _, dd := range due {
				results <- s.Plan(ctx, reportPlan(s, dd, "mailto:a@example.com"))
			}
		}()
	}
	won := 0
	for range 2 * domains {
		switch err := <-results; err {
		case nil:
			won++
		case ErrPlanned:
		default:
			t.Errorf("Plan: %v", err)
		}
	}
	if won != domains || rows(t, s, "report") != domains || rows(t, s, "delivery") != domains {
		t.Errorf("%d plans won, %d reports, %d deliveries, want %d", won, rows(t, s, "report"), rows(t, s, "delivery"), domains)
	}
}

func TestPostpone(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	record(t, s, success("example.com", 1))
	release(t, s)
	dd := domainDay(t, s, "example.com")
	dd.Failing = testNow
	must(t, s.Postpone(ctx, dd, testNow.Add(time.Hour)))
	dd = domainDay(t, s, "example.com")
	if !dd.Failing.Equal(testNow) || !dd.Due.Equal(testNow.Add(time.Hour)) {
		t.Errorf("%+v", dd)
	}
	dd.Failing = testNow.Add(time.Hour) // the first one counts
	must(t, s.Postpone(ctx, dd, testNow.Add(2*time.Hour)))
	release(t, s) // keeps the time
	if dd = domainDay(t, s, "example.com"); !dd.Failing.Equal(testNow) || !dd.Due.Equal(testNow.Add(2*time.Hour)) {
		t.Errorf("%+v", dd)
	}
	must(t, s.Plan(ctx, Plan{DomainDay: dd, State: StateExpired}))
	must(t, s.Postpone(ctx, dd, testNow))
	if dd = domainDay(t, s, "example.com"); dd.State != StateExpired || !dd.Due.IsZero() || !dd.Failing.IsZero() {
		t.Errorf("%+v, want it ended", dd)
	}
}

func TestSubmissionSince(t *testing.T) {
	counted := newStore(t)
	record(t, counted, success("example.com", 1))
	for _, c := range []struct {
		*Store
		want time.Time
	}{{counted, testNow}, {newStore(t), time.Unix(0, 0)}} {
		for i := range 3 {
			since, err := c.SubmissionSince(context.Background(), testNow.Add(time.Duration(i)*time.Hour))
			if err != nil || !since.Equal(c.want) {
				t.Errorf("since %v, %v, want %v", since, err, c.want)
			}
			record(t, c.Store, success("example.com", 1))
		}
	}
}

func TestNewest(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	if _, err := s.NewestDay(ctx, "example.com"); err != ErrNoData {
		t.Errorf("newest day of nothing: %v, want %v", err, ErrNoData)
	}
	newer := success("example.net", 1)
	newer.Day += 3
	record(t, s, newer)
	id := planned(t, s, "example.com", "mailto:a@example.com")
	if day, err := s.NewestDay(ctx, "example.com"); err != nil || day != testDay {
		t.Errorf("newest day %v, %v, want %v", day, err, testDay)
	}
	dd := domainDay(t, s, "example.com")
	if r, err := s.ReportOf(ctx, dd); err != nil || r.ID != id {
		t.Errorf("report %q, %v, want %q", r.ID, err, id)
	}
	dd.Part++
	if _, err := s.ReportOf(ctx, dd); err != ErrNoReport {
		t.Errorf("report of another part: %v, want %v", err, ErrNoReport)
	}
}

// What fails of one plan leaves those beside it as they are.
func TestPlanAll(t *testing.T) {
	s := newStore(t)
	var plans []Plan
	for _, domain := range []string{"a.example", "b.example", "c.example", "d.example"} {
		record(t, s, success(domain, 1))
	}
	release(t, s)
	for _, domain := range []string{"a.example", "b.example", "c.example", "d.example"} {
		plans = append(plans, reportPlan(s, domainDay(t, s, domain), schema.RUA("mailto:tls@"+domain)))
	}
	plans[1].Report.ID = plans[0].Report.ID // no two reports may share one
	plans[2].RUAs = nil
	errs := s.PlanAll(context.Background(), plans)
	if errs[0] != nil || errs[1] == nil || errs[2] == nil || errs[3] != nil {
		t.Errorf("errors %v", errs)
	}
	for domain, want := range map[string]State{
		"a.example": StateReported, "b.example": StateOpen, "c.example": StateOpen, "d.example": StateReported,
	} {
		if got := domainDay(t, s, domain).State; got != want {
			t.Errorf("%s is %s, want %s", domain, got, want)
		}
	}
	if n := rows(t, s, "delivery"); n != 2 {
		t.Errorf("%d deliveries, want 2", n)
	}
}
