package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// hostile is what a stranger would like to have shown: markup, terminal controls,
// a text that runs backwards.
const hostile = "<script>alert(1)</script>\x1b[31m\"'><img src=x onerror=alert(2)>\u202egpj.exe\x07\r\n{{.}}"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// filling says what a store is filled with.
type filling struct {
	domains int // that are counted on each day
	full    int // of domains: with policies and failure details
	days    int // before today
	today   schema.Day
}

// name is that of the n-th domain.
func name(n int) string { return fmt.Sprintf("domain-%06d.example", n) }

// fill makes a store. All of the full domains go through its own methods, day by
// day; the days of the others are made of them by SQL, in a minute less.
func fill(t testing.TB, f filling) *aggregator.Store {
	t.Helper()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "store.db")
	store, err := aggregator.Open(path, aggregator.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	r := rand.New(rand.NewPCG(1, 2))
	for day := f.today - schema.Day(f.days); day <= f.today; day++ {
		n := f.full
		if day == f.today {
			n = f.domains
		}
		var counts []schema.Count
		for i := range n {
			counts = append(counts, count(r, day, i))
		}
		must(t, store.Record(ctx, "test", nil, counts))
	}
	now := f.today.Start().Add(time.Hour)
	_, err = store.Release(ctx, f.today, (f.today - 40).Start(), now)
	must(t, err)
	planAll(t, store, f, now)
	if f.full > 0 {
		must(t, store.Suppress(ctx, "gone@"+name(7), now, now.AddDate(0, 0, 14), "550 5.1.1 no such user"))
	}
	must(t, store.Close())
	multiply(t, path, f)
	store, err = aggregator.Open(path, aggregator.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	return store
}

// count is the sessions of the n-th domain on a day. One in twenty domains fails,
// and the first in every way there is.
func count(r *rand.Rand, day schema.Day, n int) schema.Count {
	domain := name(n)
	p := schema.Policy{Type: schema.NoPolicyFound}
	switch n % 5 {
	case 0, 1:
		p = schema.Policy{Type: schema.TLSA, Domain: "mx." + domain, Strings: []string{fmt.Sprintf("3 1 1 %064X", n)}}
	case 2, 3:
		p = schema.Policy{Type: schema.STS, MXHosts: []string{"*.mail." + domain}, Strings: []string{
			"version: STSv1", "mode: enforce", "mx: *.mail." + domain, "max_age: 604800"}}
	}
	s := schema.Session{Domain: domain, Record: "v=TLSRPTv1; rua=mailto:tls-reports@" + domain, Results: []schema.Result{{Policy: p}}}
	if n == 0 {
		s.Record += ", https://reports.example.com/" + hostile
	}
	failed := n%20 == 0
	if failed {
		s.Results[0].Failed = true
		s.Results[0].Details = []schema.FailureDetails{{ResultType: resultTypes[r.IntN(4)], ReceivingMXHostname: "mx." + domain,
			ReceivingMXHelo: "mx." + domain, ReceivingIP: netip.MustParseAddr("192.0.2.7"), SendingMTAIP: netip.MustParseAddr("198.51.100.1"),
			FailureReasonCode: "certificate has expired"}}
		if n == 0 {
			s.Results[0].Details[0].FailureReasonCode = hostile
			s.Results[0].Details[0].ReceivingMXHelo = hostile
		}
	}
	s, err := s.Canonical()
	if err != nil {
		panic(err)
	}
	c := schema.Count{Day: day, Domain: s.Domain, Record: s.Record, Policy: s.Results[0].Policy.Text(), Success: 1 + r.Int64N(200)}
	if failed {
		c.Failure = 1 + r.Int64N(40)
		c.Details = []schema.DetailsCount{{Details: s.Results[0].Details[0].Text(), Sessions: c.Failure}}
	}
	return c
}

// planAll ends the domain-days of the full domains: every second one gets a
// report, whose deliveries are in every state.
func planAll(t testing.TB, store *aggregator.Store, f filling, now time.Time) {
	t.Helper()
	ctx := context.Background()
	var all []aggregator.DomainDay
	for more := true; more; {
		var after aggregator.DomainDay
		if len(all) > 0 {
			after = all[len(all)-1]
		}
		due, err := store.Due(ctx, now, 500, after)
		must(t, err)
		all = append(all, due...)
		more = len(due) > 0
	}
	// The store's order is a secret of its own, and another one each time.
	slices.SortFunc(all, func(a, b aggregator.DomainDay) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Domain, b.Domain))
	})
	var plans []aggregator.Plan
	for i, dd := range all {
		p := aggregator.Plan{DomainDay: dd, State: aggregator.StateNoRecord}
		if i%2 == 0 {
			id := fmt.Sprintf("%s.%s.%d@example.com", dd.Day, dd.Domain, dd.Part)
			p.State = aggregator.StateReported
			p.RUAs = []schema.RUA{schema.RUA("mailto:tls-reports@" + dd.Domain)}
			p.Report = &aggregator.Report{ID: id, Submitter: "example.com", FileName: "example.com!" + dd.Domain + "!1!2!x.json.gz",
				From: "tls@example.com", MessageID: id, Boundary: "b", Date: now, Text: "text", Gzip: zip(`{"organization-name":"Example"}`)}
		}
		plans = append(plans, p)
	}
	for chunk := range slices.Chunk(plans, 500) {
		for _, err := range store.PlanAll(ctx, chunk) {
			must(t, err)
		}
	}
	settleAll(t, store, now)
}

// settleAll attempts the deliveries: most are sent.
func settleAll(t testing.TB, store *aggregator.Store, now time.Time) {
	t.Helper()
	ctx := context.Background()
	for {
		claimed, err := store.Claim(ctx, time.Now(), aggregator.Claim{Max: 64, PerHost: 1 << 20, Lease: time.Hour})
		must(t, err)
		if len(claimed) == 0 {
			return
		}
		var outcomes []aggregator.Outcome
		for _, d := range claimed {
			o := aggregator.Outcome{ID: d.ID, Lease: d.Lease, State: aggregator.DeliverySent, At: now}
			switch d.ID % 40 {
			case 7:
				o.State, o.Error = aggregator.DeliveryGaveUp, "submitter: "+string(d.RUA)+": 550 5.1.1 no such user here"
			case 8:
				o.State, o.Error = aggregator.DeliveryExpired, "submitter: "+string(d.RUA)+": dial tcp 192.0.2.1:443: i/o timeout"
			case 9:
				o.State, o.Next, o.Error = aggregator.DeliveryPending, now.AddDate(1, 0, 0), "submitter: 451 4.7.1 "+hostile
			}
			outcomes = append(outcomes, o)
		}
		must(t, store.Settle(ctx, outcomes))
	}
}

func zip(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.Bytes()
}

// multiply gives every domain of today the days before, as closing and planning
// leave them where nothing is owed.
func multiply(t testing.TB, path string, f filling) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	defer db.Close()
	for _, q := range []string{
		`INSERT INTO domain_day (day, domain, state, success, failure)
			SELECT day.day, d.id, 3, 1 + abs(random()) % 200, CASE WHEN abs(random()) % 20 = 0 THEN 1 + abs(random()) % 20 ELSE 0 END
			FROM day CROSS JOIN domain d WHERE true ON CONFLICT DO NOTHING`,
		`UPDATE day SET (domains, success, failure) = (SELECT count(*), sum(success), sum(failure) FROM domain_day dd WHERE dd.day = day.day)`,
	} {
		_, err := db.Exec(q)
		must(t, err)
	}
}
