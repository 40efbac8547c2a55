package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
)

// denied is what a relay says to everybody whom it does not know.
var denied = &submitterError{Temporary: true, Ours: true, Reply: "554 5.7.1 relay access denied"}

// TestRelayPause: while the relay refuses, one delivery at a time finds out
// whether it still does; the others are not attempted, and all arrive once it
// takes mail again.
func TestRelayPause(t *testing.T) {
	var domains []string
	for i := range 200 {
		domains = append(domains, fmt.Sprintf("d%d.example", i))
	}
	bubble(t, func(b *bench) {
		b.restartRarely(Options{})
		up := (day0 + 3).Start().Add(6 * time.Hour) // two days and more
		b.refuse = func(string, int) error {
			if time.Now().Before(up) {
				return denied
			}
			return nil
		}
		for _, d := range domains {
			b.session(d, false)
		}
		b.until(day0+2, "00:00")
		s := b.Stats().Relay
		if !s.Paused || time.Until(s.Until) > 40*time.Minute || s.Faults == 0 || s.Reason == "" {
			b.Errorf("stats %+v", s)
		}
		var begun int
		for _, d := range b.deliveries() {
			if d.Attempts > 0 {
				begun++
			}
			if d.State != aggregator.DeliveryPending {
				b.Errorf("%s is %s: %s", d.Domain, d.State, d.LastError)
			}
		}
		// A day of pauses of half an hour has fifty of them, and those that were
		// tried once are tried again first.
		b.mu.Lock()
		mails := slices.Clone(b.mails)
		b.mu.Unlock()
		if n := len(mails); n < 30 || n > 100 || begun > 20 {
			b.Errorf("%d attempts in a day, of %d deliveries", n, begun)
		}
		for i := 5; i < len(mails); i++ { // the pauses have grown by then
			if gap := mails[i].at.Sub(mails[i-1].at); gap < 10*time.Minute {
				b.Errorf("attempt %d came %s after the one before", i, gap)
			}
		}
		b.until(day0+3, "12:00")
		if s := b.Stats().Relay; s.Paused {
			b.Errorf("still paused: %+v", s)
		}
		sent, late := 0, 0
		for _, d := range b.deliveries() {
			switch {
			case d.State == aggregator.DeliverySent:
				sent++
			case d.State == aggregator.DeliveryExpired && d.Done.Sub(d.First) >= lifetime:
				late++ // it was tried when the relay refused, and again a day later
			default:
				b.Errorf("%s is %s: %s", d.Domain, d.State, d.LastError)
			}
		}
		if sent < len(domains)-60 || sent+late != len(domains) {
			b.Errorf("%d sent, %d expired", sent, late)
		}
	}, domains...)
}

// TestRelayPauseIsForMail: uploads go on, and a refusal by a destination is none
// of the relay.
func TestRelayPauseIsForMail(t *testing.T) {
	bubble(t, func(b *bench) {
		b.refuse = func(to string, _ int) error {
			return &submitterError{Temporary: true, Reply: "451 4.7.1 greylisted"}
		}
		b.session("example.org", false)
		b.until(day0+1, "06:00")
		if s := b.Stats().Relay; s.Paused || s.Faults != 0 {
			b.Errorf("a greylisting destination: %+v", s)
		}
		b.mu.Lock()
		b.refuse = func(string, int) error { return denied }
		b.mu.Unlock()
		b.until(day0+1, "20:00")
		if s := b.Stats().Relay; !s.Paused {
			b.Errorf("not paused: %+v", s)
		}
		b.mu.Lock()
		b.records["example.org"] = "v=TLSRPTv1; rua=https://nobody.example/v1"
		b.mu.Unlock()
		b.session("example.org", false)
		b.until(day0+2, "06:00")
		for _, d := range b.deliveries() {
			if d.RUA.Scheme() == "https" && d.Attempts == 0 {
				b.Errorf("an upload waits for the relay: %+v", d)
			}
		}
	}, "example.org")
}

// TestRelayStates: who may go when.
func TestRelayStates(t *testing.T) {
	r := &relay{log: slog.New(slog.DiscardHandler)}
	now := time.Now()
	if a := r.admit(now, 7); a.max != 7 || a.probe {
		t.Errorf("without a fault: %+v", a)
	}
	r.ended(errors.New("refused by the destination"), now, false)
	r.ended(denied, now, false)
	if a := r.admit(now, 7); a.max != 0 || a.wait <= 0 {
		t.Errorf("in the pause: %+v", a)
	}
	first := r.stats().Until
	r.ended(denied, now, false) // was under way
	r.ended(nil, now, false)    // this one too
	if s := r.stats(); !s.Until.Equal(first) || !s.Paused || s.Faults != 2 {
		t.Errorf("attempts that were under way changed the pause: %+v", s)
	}
	after := first.Add(time.Second)
	if a := r.admit(after, 7); a.max != 1 || !a.probe {
		t.Errorf("after the pause: %+v", a)
	}
	if a := r.admit(after, 7); a.max != 0 {
		t.Errorf("beside the probe: %+v", a)
	}
	r.unused(true)
	if a := r.admit(after, 7); a.max != 1 || !a.probe {
		t.Errorf("after a probe that was not needed: %+v", a)
	}
	r.ended(denied, after, true)
	if s := r.stats(); !s.Until.After(first) {
		t.Errorf("the second pause is not longer: %s after %s", s.Until, first)
	}
	if a := r.admit(r.stats().Until, 7); !a.probe {
		t.Errorf("after the second pause: %+v", a)
	}
	r.ended(nil, after, true)
	if a := r.admit(now, 7); a.max != 7 || r.stats().Paused {
		t.Errorf("after success: %+v", a)
	}
	r.ended(denied, now, false)
	if r.stats().Paused {
		t.Error("an attempt from before mail was sent again began another pause")
	}
}

// TestRelayPauseGrows from a minute to half an hour, with jitter.
func TestRelayPauseGrows(t *testing.T) {
	for n, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 6: 30 * time.Minute, 1000: 30 * time.Minute} {
		seen := map[time.Duration]bool{}
		for range 20 {
			d := relayPause(n)
			if seen[d] = true; d < want*8/10 || d > want*12/10 {
				t.Errorf("pause %d is %s, want about %s", n, d, want)
			}
		}
		if len(seen) < 2 {
			t.Errorf("pause %d is always the same", n)
		}
	}
}
