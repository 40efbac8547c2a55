package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// postOffice takes mail, or says why not.
type postOffice struct {
	refuse error

	mu    sync.Mutex
	taken []submitter.Envelope
}

func (p *postOffice) Mail(_ context.Context, e submitter.Envelope, _ []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse == nil {
		p.taken = append(p.taken, e)
	}
	return p.refuse
}

// collect is what was taken since the last call.
func (p *postOffice) collect() []submitter.Envelope {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.taken
	p.taken = nil
	return taken
}

// notification is a DSN to an address with an ENVID, about one recipient.
func notification(to, id, rcpt, action, status string) string {
	return fmt.Sprintf(`From: MAILER-DAEMON@relay.example.net
To: <%s>
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b

It failed.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example.net
Original-Envelope-Id: %s

Final-Recipient: rfc822; %s
Action: %s
Status: %s
Diagnostic-Code: smtp; 550 %s no such user
--b--
`, to, id, rcpt, action, status, status)
}

// bouncing is an agent in a bubble that does not run, whose mail may come back.
type bouncing struct {
	*testing.T
	*Agent
	office *postOffice
}

func bounceBubble(t *testing.T, f func(b *bouncing)) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		b := &bouncing{T: t, office: new(postOffice)}
		s := &submitter.Submitter{Resolver: newWorld("dead.example", "fine.example"), Mail: b.office, ExternalDKIM: true, BounceDelimiter: "+"}
		var store *aggregator.Store
		b.Agent, store = countedAgent(t, path, s)
		defer store.Close()
		f(b)
	})
}

// day counts a session with each domain, lets the day pass, submits it, and is
// what was mailed, by recipient.
func (b *bouncing) day(domains ...string) map[string]submitter.Envelope {
	b.Helper()
	for _, d := range domains {
		check(b.T, b.Record(schema.Session{Domain: d, Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}}}}))
	}
	check(b.T, b.Flush(b.Context()))
	time.Sleep(24 * time.Hour)
	check(b.T, b.Submit(b.Context(), Submission{}, nil))
	mailed := map[string]submitter.Envelope{}
	for _, e := range b.office.collect() {
		mailed[e.To] = e
	}
	return mailed
}

// bounced brings a message.
func (b *bouncing) bounced(to, message string) {
	b.Helper()
	check(b.T, b.Bounced(b.Context(), to, strings.NewReader(message)))
}

// newest is the delivery that was made last about a domain.
func (b *bouncing) newest(domain string) (newest aggregator.Delivery) {
	b.Helper()
	check(b.T, b.store.Deliveries(b.Context(), aggregator.DeliveryFilter{Domain: domain}, func(d aggregator.Delivery) error {
		newest = d
		return nil
	}))
	return newest
}

// TestBouncedWeeks is the life of an address that does not exist: two days of
// bounces, a week of silence, one more refusal, a month of silence.
func TestBouncedWeeks(t *testing.T) {
	bounceBubble(t, func(b *bouncing) {
		var got []string
		for day := range 45 {
			mailed := b.day("dead.example", "fine.example")
			if _, ok := mailed["reports@fine.example"]; !ok {
				b.Fatalf("day %d: nothing was mailed to the address that works", day)
			}
			e, ok := mailed["reports@dead.example"]
			switch {
			case ok:
				got = append(got, fmt.Sprint(day))
				b.bounced(e.From, notification(e.From, "", e.To, "failed", "5.1.1"))
				if d := b.newest("dead.example"); d.State != aggregator.DeliveryGaveUp || !strings.Contains(d.LastError, "bounced with status 5.1.1: smtp; 550 5.1.1 no such user") {
					b.Errorf("day %d: %s %s", day, d.State, d.LastError)
				}
			default:
				if d := b.newest("dead.example"); d.State != aggregator.DeliverySuppressed || !strings.Contains(d.LastError, "reports@dead.example is suppressed until 2000-") {
					b.Errorf("day %d: %s %s", day, d.State, d.LastError)
				}
			}
		}
		if s := strings.Join(got, " "); s != "0 1 8 38" {
			b.Errorf("mailed on days %s, want 0 1 8 38", s)
		}
	})
}

// TestRefusedDays: a relay that says at RCPT that the address does not exist
// suppresses it too; one that refuses for another reason never does.
func TestRefusedDays(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse *submitter.Error
		want   aggregator.DeliveryState // on the third day
	}{
		{"no such recipient", &submitter.Error{NoSuchRecipient: true, Reply: "550 5.1.1 no such user"}, aggregator.DeliverySuppressed},
		{"given up for another reason", &submitter.Error{Reply: "550 5.7.1 no"}, aggregator.DeliveryGaveUp},
		{"our own fault", &submitter.Error{Temporary: true, NoSuchRecipient: true, Ours: true, Reply: "550 5.1.1 no"}, aggregator.DeliveryPending},
		{"for now", &submitter.Error{Temporary: true, NoSuchRecipient: true, Reply: "450 4.1.1 no"}, aggregator.DeliveryPending},
	} {
		t.Run(c.name, func(t *testing.T) {
			bounceBubble(t, func(b *bouncing) {
				b.office.refuse = c.refuse
				for range 3 {
					b.day("dead.example")
				}
				if d := b.newest("dead.example"); d.State != c.want {
					b.Errorf("%s: %s, want %s", d.State, d.LastError, c.want)
				}
			})
		})
	}
}

// TestBouncedRules: what a message may do to a delivery that was sent, and to the
// one next to it: nothing.
func TestBouncedRules(t *testing.T) {
	const dead = "reports@dead.example"
	bounceBubble(t, func(b *bouncing) {
		for _, c := range []struct {
			name    string
			message func(e, other submitter.Envelope) (to, message string)
			want    aggregator.DeliveryState
			counts  bool // towards a suppression
		}{
			{"the address names it", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "failed", "5.1.1")
			}, aggregator.DeliveryGaveUp, true},
			{"in upper case", func(e, _ submitter.Envelope) (string, string) {
				return strings.ToUpper(e.From), notification("", "", strings.ToUpper(dead), "failed", "5.1.1")
			}, aggregator.DeliveryGaveUp, true},
			{"the ENVID names it", func(e, _ submitter.Envelope) (string, string) {
				return "tls-reports@example.com", notification("", e.ID, dead, "failed", "5.1.1")
			}, aggregator.DeliveryGaveUp, true},
			{"To names it", func(e, _ submitter.Envelope) (string, string) {
				return "tls-reports@example.com", notification(e.From, "", dead, "failed", "5.1.1")
			}, aggregator.DeliveryGaveUp, true},
			{"disabled", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "failed", "5.2.1")
			}, aggregator.DeliveryGaveUp, true},
			{"refused for content", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "failed", "5.7.1")
			}, aggregator.DeliveryGaveUp, false},
			{"mailbox full", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "failed", "5.2.2")
			}, aggregator.DeliveryGaveUp, false},
			{"our address", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "failed", "5.1.8")
			}, aggregator.DeliveryGaveUp, false},
			{"expired in the relay's queue", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "failed", "4.4.1")
			}, aggregator.DeliveryGaveUp, false},
			{"delayed", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "delayed", "4.4.1")
			}, aggregator.DeliverySent, false},
			{"relayed", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", dead, "relayed", "2.0.0")
			}, aggregator.DeliverySent, false},
			{"about somebody else", func(e, _ submitter.Envelope) (string, string) {
				return e.From, notification("", "", "reports@fine.example", "failed", "5.1.1")
			}, aggregator.DeliverySent, false},
			{"a vacation notice", func(e, _ submitter.Envelope) (string, string) {
				return e.From, "To: " + e.From + "\n\nI am away. 550 5.1.1\n"
			}, aggregator.DeliverySent, false},
			{"it names no delivery", func(submitter.Envelope, submitter.Envelope) (string, string) {
				return "tls-reports@example.com", notification("tls-reports@example.com", "", dead, "failed", "5.1.1")
			}, aggregator.DeliverySent, false},
			{"it names another delivery", func(_, other submitter.Envelope) (string, string) {
				return other.From, notification(other.From, other.ID, dead, "failed", "5.1.1")
			}, aggregator.DeliverySent, false},
			{"a forged token", func(e, _ submitter.Envelope) (string, string) {
				forged := strings.Replace(e.From, "+", "+a", 1)
				return forged, notification(forged, "a"+e.ID[1:]+"a", dead, "failed", "5.1.1")
			}, aggregator.DeliverySent, false},
		} {
			mailed := b.day("dead.example", "fine.example")
			to, message := c.message(mailed[dead], mailed["reports@fine.example"])
			b.bounced(to, message)
			b.bounced(to, message)
			if d := b.newest("dead.example"); d.State != c.want {
				b.Errorf("%s: %s %s, want %s", c.name, d.State, d.LastError, c.want)
			}
			if d := b.newest("fine.example"); d.State != aggregator.DeliverySent {
				b.Errorf("%s: the other delivery is %s", c.name, d.State)
			}
			counted := 0
			check(b.T, b.store.Suppressions(b.Context(), func(s aggregator.Suppression) error {
				counted++
				return b.store.LiftSuppression(b.Context(), s.Address)
			}))
			if counted == 1 != c.counts {
				b.Errorf("%s: %d addresses counted, want one: %t", c.name, counted, c.counts)
			}
		}
	})
}

// TestBouncedLater: what cannot be stored, or read, or is too fast comes again.
func TestBouncedLater(t *testing.T) {
	bounceBubble(t, func(b *bouncing) {
		e := b.day("dead.example")["reports@dead.example"]
		message := notification("", "", e.To, "failed", "5.1.1")
		broken := io.MultiReader(strings.NewReader(message[:100]), iotest.ErrReader(io.ErrClosedPipe))
		if err := b.Bounced(b.Context(), e.From, broken); !errors.Is(err, io.ErrClosedPipe) {
			b.Errorf("a message that breaks off: %v", err)
		}
		check(b.T, b.store.Close())
		if err := b.Bounced(b.Context(), e.From, strings.NewReader(message)); !errors.Is(err, aggregator.ErrClosed) {
			b.Errorf("without a store: %v", err)
		}
	})
	bounceBubble(t, func(b *bouncing) {
		b.day() // the domain is planned, and its attempt is under way
		check(b.T, b.Record(schema.Session{Domain: "dead.example", Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}}}}))
		check(b.T, b.Flush(b.Context()))
		time.Sleep(24 * time.Hour)
		during := errors.New("never called")
		b.submitter.Mail = mailerFunc(func(e submitter.Envelope) {
			during = b.Bounced(b.Context(), e.From, strings.NewReader(notification("", "", e.To, "failed", "5.1.1")))
		})
		check(b.T, b.Submit(b.Context(), Submission{}, nil))
		if !errors.Is(during, aggregator.ErrUnderWay) {
			b.Errorf("a bounce during the attempt: %v", during)
		}
	})
}

type mailerFunc func(submitter.Envelope)

func (f mailerFunc) Mail(_ context.Context, e submitter.Envelope, _ []byte) error {
	f(e)
	return nil
}

func TestTakesBounces(t *testing.T) {
	store, err := aggregator.Open(filepath.Join(t.TempDir(), "tlsrpt.db"), aggregator.Options{})
	check(t, err)
	defer store.Close()
	a, err := New(Options{
		Store: store, Submitter: &submitter.Submitter{BounceDelimiter: "+"},
		Contact: "people@example.com", From: "tls-reports@example.com",
	})
	check(t, err)
	for address, want := range map[string]bool{
		"tls-reports@example.com":       true,
		"TLS-Reports+abc1@EXAMPLE.com":  true,
		"people@example.com":            true,
		"people+abc1@example.com":       false,
		"postmaster@example.com":        false,
		"tls-reports@example.org":       false,
		"tls-reports@sub.example.com":   false,
		"":                              false,
		"tls-reports+a@b+c@example.com": false,
	} {
		if a.TakesBounces(address) != want {
			t.Errorf("%q: %t", address, !want)
		}
	}
	_, err = New(Options{Store: store, Submitter: &submitter.Submitter{BounceDelimiter: "+"}, Contact: strings.Repeat("a", 35) + "@example.com"})
	if !errors.Is(err, ErrOptions) || !errors.Is(err, submitter.ErrDelimiter) {
		t.Errorf("a local part that is too long: %v", err)
	}
}

// TestDryRunSuppressed: a dry run names no destination that nothing is sent to.
func TestDryRunSuppressed(t *testing.T) {
	bounceBubble(t, func(b *bouncing) {
		check(b.T, b.store.Suppress(b.Context(), "reports@dead.example", time.Now(), aggregator.Forever, "unwanted"))
		for _, d := range []string{"dead.example", "fine.example"} {
			check(b.T, b.Record(schema.Session{Domain: d, Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}}}}))
		}
		check(b.T, b.Flush(b.Context()))
		time.Sleep(24 * time.Hour)
		var got []schema.RUA
		check(b.T, b.DryRun(b.Context(), Submission{}, func(d Draft) error {
			got = append(got, d.RUAs...)
			return nil
		}))
		if len(got) != 1 || got[0] != "mailto:reports@fine.example" {
			b.Errorf("destinations %q", got)
		}
		check(b.T, b.Submit(b.Context(), Submission{}, nil))
		if d := b.newest("dead.example"); d.State != aggregator.DeliverySuppressed || !strings.HasSuffix(d.LastError, "is suppressed until it is lifted: unwanted") {
			b.Errorf("%s %s", d.State, d.LastError)
		}
	})
}
