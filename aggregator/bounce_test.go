package aggregator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// sent plans a report about domain to ruas, in turn, and is the first delivery,
// which was sent.
func sent(t testing.TB, s *Store, domain string, ruas ...schema.RUA) Delivery {
	t.Helper()
	record(t, s, success(domain, 1))
	release(t, s)
	p := reportPlan(s, domainDay(t, s, domain), ruas...)
	p.InTurn = true
	must(t, s.Plan(context.Background(), p))
	d := claim(t, s, testNow, Claim{})
	if len(d) != 1 || d[0].RUA != ruas[0] {
		t.Fatalf("claimed %v", d)
	}
	settleOne(t, s, outcome(d[0], DeliverySent))
	return delivery(t, s, d[0].ID)
}

// ended is the states of all deliveries, by id.
func ended(t testing.TB, s *Store) string {
	t.Helper()
	var all []string
	must(t, s.Deliveries(context.Background(), DeliveryFilter{}, func(d Delivery) error {
		all = append(all, string(d.State))
		return nil
	}))
	return strings.Join(all, " ")
}

func TestBounceToken(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	d := sent(t, s, "example.org", "mailto:1@a.example", "mailto:2@b.example")
	token := s.BounceToken(d.ID, d.RUA)
	for _, good := range []string{token, strings.ToUpper(token)} {
		if got, err := s.DeliveryOf(ctx, good); err != nil || got != d {
			t.Errorf("%s: %+v, %v", good, got, err)
		}
	}
	if longest := s.BounceToken(1<<63-1, d.RUA); len(longest) != MaxBounceToken {
		t.Errorf("%s has %d bytes, want %d", longest, len(longest), MaxBounceToken)
	}
	other := newStore(t)
	sent(t, other, "example.org", "mailto:1@a.example", "mailto:2@b.example")
	forged := map[string]string{
		"nothing":                  "",
		"the id alone":             token[tokenMAC:],
		"no id":                    token[:tokenMAC],
		"a guess":                  "aaaaaaaaaaaaaaaa1",
		"of another delivery":      token[:tokenMAC] + "2",
		"of another rua":           s.BounceToken(d.ID, "mailto:2@b.example"),
		"of another store":         other.BounceToken(d.ID, d.RUA),
		"more behind":              token + "0",
		"a zero before the id":     token[:tokenMAC] + "0" + token[tokenMAC:],
		"a sign before the id":     token[:tokenMAC] + "+" + token[tokenMAC:],
		"an id that is too large":  token[:tokenMAC] + strings.Repeat("z", 13),
		"a negative id":            token[:tokenMAC] + "-1",
		"a space":                  " " + token,
		"a NUL":                    token + "\x00",
		"much":                     strings.Repeat(token, 10000),
		"of one that is not there": s.BounceToken(99, d.RUA),
	}
	for i := range len(token) {
		forged[fmt.Sprintf("without byte %d", i)] = token[:i] + token[i+1:]
		for bit := range 8 {
			flipped := []byte(token)
			if flipped[i] ^= 1 << bit; !strings.EqualFold(string(flipped), token) {
				forged[fmt.Sprintf("bit %d of byte %d", bit, i)] = string(flipped)
			}
		}
	}
	for name, token := range forged {
		if got, err := s.DeliveryOf(ctx, token); err != ErrNoDelivery || got != (Delivery{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	must(t, s.Prune(ctx, testDay+1))
	if _, err := s.DeliveryOf(ctx, token); err != ErrNoDelivery {
		t.Errorf("after it was pruned: %v", err)
	}
}

func TestBounce(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	d := sent(t, s, "example.org", "mailto:1@a.example", "mailto:2@b.example", "mailto:3@c.example")
	at := testNow.Add(time.Hour)
	bounce := func(id int64, want error) {
		t.Helper()
		if err := s.Bounce(ctx, Bounce{ID: id, Reason: "no such user", At: at}); !errors.Is(err, want) {
			t.Fatalf("bounce of %d: %v, want %v", id, err, want)
		}
	}
	if got := ended(t, s); got != "sent suppressed suppressed" {
		t.Fatalf("states %q", got)
	}
	bounce(99, ErrNoDelivery)
	bounce(2, ErrDone)
	bounce(d.ID, nil)
	got := delivery(t, s, d.ID)
	if got.State != DeliveryGaveUp || got.LastError != "no such user" || !got.Done.Equal(at) {
		t.Errorf("%+v", got)
	}
	bounce(d.ID, ErrDone)

	second := claim(t, s, at, Claim{})
	if len(second) != 1 || second[0].RUA != "mailto:2@b.example" {
		t.Fatalf("the next one is %+v", second)
	}
	bounce(second[0].ID, ErrUnderWay) // it comes back before its outcome is stored
	settleOne(t, s, outcome(second[0], DeliverySent))
	if got := ended(t, s); got != "gave-up sent suppressed" {
		t.Errorf("states %q", got)
	}
	bounce(second[0].ID, nil)
	third := claim(t, s, at, Claim{})
	if len(third) != 1 || third[0].RUA != "mailto:3@c.example" {
		t.Fatalf("the last one is %+v", third)
	}
	settleOne(t, s, outcome(third[0], DeliverySent))
	bounce(third[0].ID, nil)
	if got := ended(t, s); got != "gave-up gave-up gave-up" {
		t.Errorf("states %q", got)
	}
}

// TestBounceOfOthers: what another rua took, what has a reason of its own not to
// be sent, and what is too old is not sent for a bounce.
func TestBounceOfOthers(t *testing.T) {
	ctx := context.Background()
	const a, b, c = "mailto:1@a.example", "mailto:2@b.example", "mailto:3@c.example"
	at := testNow.Add(time.Hour)

	s := newStore(t) // the operator sent it to the second one, too
	d := sent(t, s, "example.org", a, b, c)
	must(t, s.RetryDelivery(ctx, 2, testNow))
	settleOne(t, s, outcome(claim(t, s, testNow, Claim{})[0], DeliverySent))
	must(t, s.Bounce(ctx, Bounce{ID: d.ID, At: at}))
	if got := ended(t, s); got != "gave-up sent suppressed" {
		t.Errorf("taken by another: %q", got)
	}

	s = newStore(t) // the second one is a suppressed address
	record(t, s, success("example.org", 1))
	release(t, s)
	p := reportPlan(s, domainDay(t, s, "example.org"), a, c)
	p.InTurn, p.Withheld = true, []Withheld{{b, "suppressed until then"}}
	must(t, s.Plan(ctx, p))
	settleOne(t, s, outcome(claim(t, s, testNow, Claim{})[0], DeliverySent))
	must(t, s.Bounce(ctx, Bounce{ID: 1, At: at}))
	if got := ended(t, s); got != "gave-up pending suppressed" {
		t.Errorf("a suppressed address: %q", got)
	}

	s = newStore(t) // the report has become old
	d = sent(t, s, "example.org", a, b)
	must(t, s.Bounce(ctx, Bounce{ID: d.ID, At: at, Oldest: testDay.End().Add(time.Second)}))
	if got := ended(t, s); got != "gave-up suppressed" {
		t.Errorf("too old: %q", got)
	}

	s = newStore(t) // it never was sent
	deliverTo(t, s, 1, "a.example")
	if err := s.Bounce(ctx, Bounce{ID: 1, At: at}); err != ErrDone {
		t.Errorf("a bounce of what was not sent: %v", err)
	}
	must(t, s.CancelDelivery(ctx, 1))
	if err := s.Bounce(ctx, Bounce{ID: 1, At: at}); err != ErrDone || ended(t, s) != "cancelled" {
		t.Errorf("a bounce of what was cancelled: %v, %s", err, ended(t, s))
	}
}
