package aggregator

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// fileOfVersion makes a store as version of the schema had it, filled by sql.
func fileOfVersion(t *testing.T, version int, sql string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "tlsrpt.db")
	must(t, makeFile(path))
	db := openPool(path, writerDSN, 1)
	defer db.Close()
	all, err := migrations()
	must(t, err)
	for _, text := range append(all[:version:version], sql,
		fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version)) {
		_, err := db.Exec(text)
		must(t, err)
	}
	return path
}

// TestMigrateDeliveries: what version 1 stored is delivered on and counted.
func TestMigrateDeliveries(t *testing.T) {
	path := fileOfVersion(t, 1, fmt.Sprintf(`
		INSERT INTO meta VALUES ('secret', x'%064d');
		INSERT INTO domain (id, used, name) VALUES (1, %[2]d, 'example.com');
		INSERT INTO report VALUES (1, 1, %[2]d, 0, 0, 'id@example.com', 'example.com', 'f', 'tls@example.com', 'm', 'b', 't', x'01');
		INSERT INTO delivery (report, host, rua, state, created, next, done) VALUES
			(1, 'a.example', 'mailto:x@a.example', 1, 0, NULL, %[3]d),
			(1, 'b.example', 'mailto:x@b.example', 0, 0, 1, NULL),
			(1, 'c.example', 'mailto:x@c.example', 2, 0, NULL, %[3]d)`,
		0, testDay, testNow.Unix()))
	s := openStore(t, path, Options{})
	for host, want := range map[string]int64{"a.example": 1, "b.example": 0, "c.example": 0} {
		n, err := s.HandedOver(context.Background(), schema.DayOf(testNow), host)
		must(t, err)
		if n != want {
			t.Errorf("%s was handed %d reports, want %d", host, n, want)
		}
	}
	got := claim(t, s, testNow, Claim{})
	if len(got) != 1 || got[0].RUA != "mailto:x@b.example" || got[0].Copy {
		t.Errorf("claimed %+v", got)
	}
}

// planChoice plans a report about example.com.
func planChoice(t *testing.T, s *Store, change func(*Plan)) {
	t.Helper()
	record(t, s, success("example.com", 1))
	release(t, s)
	p := reportPlan(s, domainDay(t, s, "example.com"))
	change(&p)
	must(t, s.Plan(context.Background(), p))
}

// ends is "rua state reason" of all deliveries.
func ends(t *testing.T, s *Store) (all []string) {
	t.Helper()
	must(t, s.Deliveries(context.Background(), DeliveryFilter{}, func(d Delivery) error {
		all = append(all, fmt.Sprintf("%s %s %s", d.RUA.Host(), d.State, d.LastError))
		return nil
	}))
	return all
}

// TestWithheld: a rua that the settings leave out is never attempted, is not
// given a turn, and says why.
func TestWithheld(t *testing.T) {
	s := newStore(t)
	planChoice(t, s, func(p *Plan) {
		p.RUAs, p.InTurn = []schema.RUA{"mailto:1@a.example"}, true
		p.Withheld = []Withheld{{"mailto:2@b.example", "left out"}}
	})
	d := claim(t, s, far, Claim{})
	if len(d) != 1 || d[0].RUA.Host() != "a.example" {
		t.Fatalf("claimed %v", d)
	}
	settleOne(t, s, outcome(d[0], DeliveryGaveUp))
	if got := claim(t, s, far, Claim{}); got != nil {
		t.Errorf("claimed %v", got)
	}
	if got := fmt.Sprint(ends(t, s)); got != "[a.example gave-up  b.example suppressed left out]" {
		t.Errorf("deliveries %s", got)
	}
	wantPending(t, s, PendingFilter{})
}

// TestWithheldAlone: a report may be made and not be sent at all.
func TestWithheldAlone(t *testing.T) {
	s := newStore(t)
	planChoice(t, s, func(p *Plan) { p.Withheld = []Withheld{{"mailto:2@b.example", "dry run"}} })
	if got := claim(t, s, far, Claim{}); got != nil {
		t.Errorf("claimed %v", got)
	}
	d := delivery(t, s, 1)
	if d.State != DeliverySuppressed || d.Done.IsZero() || !d.Next.IsZero() {
		t.Errorf("delivery %+v", d)
	}
	must(t, s.RetryDelivery(context.Background(), 1, testNow)) // the operator may insist
	if got := claim(t, s, testNow, Claim{}); len(got) != 1 {
		t.Errorf("claimed %v, want the one that was retried", got)
	}
}

// TestCopy: the copy of the operator neither passes a turn nor is the report's
// delivery.
func TestCopy(t *testing.T) {
	const byCopy, first, second = 0, 1, 2
	for _, c := range []struct {
		name   string
		settle []int // in this order
		end    DeliveryState
		want   string
		left   int // pending tallies
	}{
		{"copy sent first", []int{byCopy}, DeliverySent, "[a.example pending  b.example pending  ops.example sent ]", 1},
		{"copy gave up first", []int{byCopy}, DeliveryGaveUp, "[a.example pending  b.example pending  ops.example gave-up ]", 1},
		{"first rua sent", []int{first}, DeliverySent, "[a.example sent  b.example suppressed another rua took the report ops.example pending ]", 0},
		{"first rua gave up, the copy waits", []int{first, second}, DeliveryGaveUp, "[a.example gave-up  b.example gave-up  ops.example pending ]", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			planChoice(t, s, func(p *Plan) {
				p.RUAs, p.InTurn = []schema.RUA{"mailto:1@a.example", "mailto:2@b.example"}, true
				p.Copy = "mailto:tls@ops.example"
			})
			hosts := map[int]string{byCopy: "ops.example", first: "a.example", second: "b.example"}
			waiting := map[string]Delivery{}
			for _, step := range c.settle {
				for _, d := range claim(t, s, testNow.Add(time.Second), Claim{}) {
					waiting[d.Host] = d
				}
				d, ok := waiting[hosts[step]]
				if !ok || d.Copy != (step == byCopy) {
					t.Fatalf("%s was not claimed: %v", hosts[step], waiting)
				}
				settleOne(t, s, outcome(d, c.end))
			}
			if got := fmt.Sprint(ends(t, s)); got != c.want {
				t.Errorf("deliveries %s, want %s", got, c.want)
			}
			if got := len(pendingLines(t, s, PendingFilter{})); got != c.left {
				t.Errorf("%d pending, want %d", got, c.left)
			}
		})
	}
}

// TestDeliveredByOne: a report is delivered when one rua took it (RFC 8460,
// section 3), though others are still tried.
func TestDeliveredByOne(t *testing.T) {
	s := newStore(t)
	planChoice(t, s, func(p *Plan) { p.RUAs = []schema.RUA{"mailto:1@a.example", "mailto:2@b.example"} })
	if got := len(pendingLines(t, s, PendingFilter{})); got != 1 {
		t.Errorf("%d pending, want 1", got)
	}
	settleOne(t, s, outcome(claim(t, s, testNow, Claim{Max: 1})[0], DeliverySent))
	if got := len(pendingLines(t, s, PendingFilter{})); got != 0 {
		t.Errorf("%d pending, want none", got)
	}
	if got := claim(t, s, testNow, Claim{}); len(got) != 1 {
		t.Errorf("claimed %v, want the other rua", got)
	}
}

// TestHandedOver counts mail that was taken on a day, also where the delivery
// failed later, and nothing else.
func TestHandedOver(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	planChoice(t, s, func(p *Plan) {
		p.RUAs = []schema.RUA{"mailto:1@a.example", "mailto:2@a.example", "mailto:3@a.example", "https://a.example/"}
	})
	at := (testDay + 3).Start()
	for i, d := range claim(t, s, testNow, Claim{}) {
		o := outcome(d, DeliverySent)
		o.At = at
		switch {
		case d.RUA == "mailto:2@a.example":
			o.At = at.Add(-time.Second)
		case d.RUA == "mailto:3@a.example":
			o.State = DeliveryGaveUp
		case i > 4:
			t.Fatal("too many")
		}
		settleOne(t, s, o)
	}
	_, err := s.writer.Exec(`UPDATE delivery SET state = ? WHERE rua = 'mailto:1@a.example'`, DeliveryGaveUp) // as a bounce does
	must(t, err)
	for day, want := range map[schema.Day]int64{testDay + 2: 1, testDay + 3: 1, testDay + 4: 0} {
		n, err := s.HandedOver(ctx, day, "a.example")
		must(t, err)
		if n != want {
			t.Errorf("%d were handed over on %s, want %d", n, day, want)
		}
	}
}

func TestSessions(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	mixed := failure("example.com", 2, schema.CertificateExpired)
	mixed.Success = 3
	record(t, s, mixed)
	want := func(n int64) {
		t.Helper()
		if got, err := s.Sessions(ctx, testDay, "example.com"); err != nil || got != n {
			t.Errorf("%d sessions (%v), want %d", got, err, n)
		}
	}
	want(5) // open
	release(t, s)
	want(5)
	record(t, s, success("example.com", 1)) // late
	want(6)
	must(t, s.Plan(ctx, Plan{DomainDay: domainDay(t, s, "example.com"), State: StateOwnReports}))
	want(6) // the tallies are gone
	if n := rows(t, s, "tally"); n != 0 {
		t.Errorf("%d tallies are left", n)
	}
	if got, err := s.Sessions(ctx, testDay, "example.net"); err != nil || got != 0 {
		t.Errorf("an unknown domain: %d, %v", got, err)
	}
}

// TestHold: what is held comes due later, and nothing is taken to fail.
func TestHold(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	record(t, s, success("example.com", 1))
	release(t, s)
	dd := domainDay(t, s, "example.com")
	until := testNow.Add(24 * time.Hour)
	must(t, s.Hold(ctx, dd, until))
	got := domainDay(t, s, "example.com")
	if !got.Due.Equal(until) || !got.Failing.IsZero() || got.State != StateOpen {
		t.Errorf("held as %+v", got)
	}
	must(t, s.Plan(ctx, Plan{DomainDay: got, State: StateOwnReports}))
	must(t, s.Hold(ctx, got, until))
	if got := domainDay(t, s, "example.com"); !got.Due.IsZero() {
		t.Errorf("what has ended comes due at %s", got.Due)
	}
}

// TestClaimBegun: only what was attempted before is claimed.
func TestClaimBegun(t *testing.T) {
	s := newStore(t)
	deliverTo(t, s, 2, "a.example")
	begun := Claim{Filter: DeliveryFilter{Begun: true}}
	if got := claim(t, s, testNow, begun); got != nil {
		t.Errorf("claimed %v", got)
	}
	d := claim(t, s, testNow, Claim{Max: 1})[0]
	settleOne(t, s, outcome(d, DeliveryPending))
	if got := claim(t, s, far, begun); len(got) != 1 || got[0].ID != d.ID {
		t.Errorf("claimed %v, want %d", got, d.ID)
	}
}

// TestNextAttemptFiltered: what waits for one scheme says nothing of the other.
func TestNextAttemptFiltered(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	planChoice(t, s, func(p *Plan) { p.RUAs = []schema.RUA{"mailto:1@a.example"} })
	for scheme, want := range map[string]time.Time{"mailto": testNow, "https": {}} {
		next, err := s.NextAttempt(ctx, DeliveryFilter{Scheme: scheme})
		if err != nil || !next.Equal(want) {
			t.Errorf("%s: %s (%v), want %s", scheme, next, err, want)
		}
	}
}
