package aggregator

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// suppressions is all there are.
func suppressions(t testing.TB, s *Store) (all []Suppression) {
	t.Helper()
	must(t, s.Suppressions(context.Background(), func(p Suppression) error {
		all = append(all, p)
		return nil
	}))
	return all
}

// TestSuppressionGrows: the life of an address, failure by failure.
func TestSuppressionGrows(t *testing.T) {
	at := func(day, hour int) time.Time {
		return (testDay + schema.Day(day)).Start().Add(time.Duration(hour) * time.Hour)
	}
	for _, c := range []struct {
		name string
		days [][2]int // day and hour of failures
		want string   // for how many days it is suppressed after each, "-": not
	}{
		{"once", [][2]int{{0, 1}}, "-"},
		{"twice a day", [][2]int{{0, 1}, {0, 23}}, "- -"},
		{"on two days", [][2]int{{0, 1}, {1, 1}}, "- 7"},
		{"late the first day, early the next", [][2]int{{0, 23}, {1, 0}}, "- 7"},
		{"again within the pause", [][2]int{{0, 1}, {1, 1}, {3, 1}, {7, 1}}, "- 7 7 7"},
		{"once the pause is over", [][2]int{{0, 1}, {1, 1}, {8, 1}, {38, 1}, {128, 1}, {493, 1}, {858, 1}}, "- 7 30 90 365 365 365"},
		{"a month after the pause", [][2]int{{0, 1}, {1, 1}, {38, 1}}, "- 7 30"},
		{"longer after the pause", [][2]int{{0, 1}, {1, 1}, {39, 1}, {40, 1}}, "- 7 - 7"},
		{"a month after the first", [][2]int{{0, 1}, {31, 0}}, "- 7"},
		{"longer after the first", [][2]int{{0, 1}, {31, 1}}, "- -"},
	} {
		var s Suppression
		var got string
		for i, d := range c.days {
			if next, ok := s.fail(at(d[0], d[1])); ok {
				s = next
			}
			if got += " "; i == 0 {
				got = ""
			}
			if s.Until.IsZero() {
				got += "-"
			} else {
				got += fmt.Sprint(int(s.Until.Sub(s.Since) / aDay))
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestSuppressed: bounces and refusals on two days suppress, other failures do
// not, and from then on no delivery to the address is made.
func TestSuppressed(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	const dead, full, alive = "mailto:dead%21@example.net", "mailto:full@example.net", "mailto:alive@example.net"
	day2 := testNow.Add(24 * time.Hour)

	record(t, s, success("one.example", 1), success("two.example", 1))
	release(t, s)
	for _, domain := range []string{"one.example", "two.example"} {
		must(t, s.Plan(ctx, reportPlan(s, domainDay(t, s, domain), dead, full, alive, "https://example.net/v1")))
	}
	byRUA := map[schema.RUA][]Delivery{}
	for _, d := range claim(t, s, testNow, Claim{}) {
		byRUA[d.RUA] = append(byRUA[d.RUA], d)
	}
	refused := func(d Delivery, noRecipient bool) Outcome {
		return Outcome{ID: d.ID, Lease: d.Lease, State: DeliveryGaveUp, Error: "refused", At: testNow, NoRecipient: noRecipient}
	}
	// Two refusals, and one that was settled already.
	o := refused(byRUA[dead][0], true)
	must(t, s.Settle(ctx, []Outcome{o, o, refused(byRUA[full][0], false), refused(byRUA["https://example.net/v1"][0], true)}))
	if got := suppressions(t, s); len(got) != 1 || got[0] != (Suppression{Address: "dead!@example.net", Failed: testDay + 1, Reason: "refused"}) {
		t.Fatalf("after a day: %+v", got)
	}
	if in, err := s.Suppressed(ctx, []schema.RUA{dead}, testNow); err != nil || len(in) > 0 {
		t.Errorf("suppressed after a day: %v, %v", in, err)
	}
	// A bounce the next day, which comes twice.
	for _, rua := range []schema.RUA{dead, full} {
		d := byRUA[rua][1]
		settleOne(t, s, outcome(d, DeliverySent))
		b := Bounce{ID: d.ID, Reason: "bounced", NoRecipient: rua == dead, At: day2}
		must(t, s.Bounce(ctx, b))
		if err := s.Bounce(ctx, b); err != ErrDone {
			t.Errorf("the second bounce of one: %v", err)
		}
	}
	in, err := s.Suppressed(ctx, []schema.RUA{dead, full, alive, "https://example.net/v1"}, day2)
	want := Suppression{Address: "dead!@example.net", Since: day2, Until: day2.Add(7 * aDay), Pauses: 1, Failed: testDay + 2, Reason: "bounced"}
	if err != nil || len(in) != 1 || in[dead] != want {
		t.Errorf("suppressed: %+v, %v", in, err)
	}
	if in, err := s.Suppressed(ctx, []schema.RUA{dead}, day2.Add(7*aDay)); err != nil || len(in) > 0 {
		t.Errorf("suppressed after the pause: %v, %v", in, err)
	}
}

func TestPlanWithheld(t *testing.T) {
	ctx := context.Background()
	const one, two, three = "mailto:1@a.example", "mailto:2@a.example", "mailto:3@a.example"
	for _, c := range []struct {
		ruas, withheld []schema.RUA
		inTurn         bool
		want           string // states, and whether one may be attempted now
	}{
		{[]schema.RUA{one, two, three}, nil, false, "pending! pending! pending!"},
		{[]schema.RUA{two, three}, []schema.RUA{one}, false, "pending! pending! suppressed"},
		{[]schema.RUA{two, three}, []schema.RUA{one}, true, "pending! pending suppressed"},
		{nil, []schema.RUA{one, two, three}, true, "suppressed suppressed suppressed"},
	} {
		s := newStore(t)
		record(t, s, success("example.org", 1))
		release(t, s)
		p := reportPlan(s, domainDay(t, s, "example.org"), c.ruas...)
		p.InTurn = c.inTurn
		for _, rua := range c.withheld {
			p.Withheld = append(p.Withheld, Withheld{rua, "why"})
		}
		must(t, s.Plan(ctx, p))
		var got string
		must(t, s.Deliveries(ctx, DeliveryFilter{}, func(d Delivery) error {
			got += " " + string(d.State)
			if !d.Next.IsZero() {
				got += "!"
			}
			withheld := slices.Contains(c.withheld, d.RUA)
			if (d.LastError == "why") != withheld || d.Done.IsZero() == withheld || (d.State == DeliverySuppressed) != withheld {
				t.Errorf("%+v", d)
			}
			return nil
		}))
		if got != " "+c.want {
			t.Errorf("%v, without %v, in turn %t: %q, want %q", c.ruas, c.withheld, c.inTurn, got, c.want)
		}
		if _, err := s.Report(ctx, p.Report.ID); err != nil {
			t.Errorf("the report is not kept: %v", err)
		}
	}
}

func TestSuppressByHand(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	for i := range pageRows + 10 {
		must(t, s.Suppress(ctx, fmt.Sprintf("a%04d@example.net", i), testNow, testNow.Add(aDay), "unwanted"))
	}
	must(t, s.Suppress(ctx, "a0000@example.net", testNow, Forever, "still unwanted"))
	all := suppressions(t, s)
	if len(all) != pageRows+10 || all[0] != (Suppression{Address: "a0000@example.net", Since: testNow, Until: Forever, Reason: "still unwanted"}) {
		t.Fatalf("%d, the first is %+v", len(all), all[0])
	}
	must(t, s.LiftSuppression(ctx, "a0000@example.net"))
	if err := s.LiftSuppression(ctx, "a0000@example.net"); err != ErrNoSuppression {
		t.Errorf("lifted twice: %v", err)
	}
	// A failure of mail that was under way does not cut the pause short.
	planned(t, s, "example.org", "mailto:a0001@example.net")
	d := claim(t, s, testNow, Claim{})[0]
	settleOne(t, s, Outcome{ID: d.ID, Lease: d.Lease, State: DeliveryGaveUp, At: testNow, NoRecipient: true})
	if got := suppressions(t, s)[0]; got.Until != testNow.Add(aDay) {
		t.Errorf("%+v", got)
	}
	// What is forgotten goes, what lasts stays.
	must(t, s.pruneSuppressions(ctx, testNow.Add(aDay+remembered)))
	if n := rows(t, s, "suppression"); n != pageRows+9 {
		t.Errorf("%d rows, want all to stay", n)
	}
	must(t, s.pruneSuppressions(ctx, testNow.Add(aDay+remembered+time.Second)))
	if n := rows(t, s, "suppression"); n != 0 {
		t.Errorf("%d rows, want none", n)
	}
}
