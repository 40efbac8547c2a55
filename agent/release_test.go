package agent

import (
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestReleasing: when a day is submitted follows from the schedule alone.
func TestReleasing(t *testing.T) {
	const form = "2006-01-02 15:04"
	d, err := schema.ParseDay("2026-11-21") // a Saturday
	check(t, err)
	for _, c := range []struct {
		schedule string
		grace    time.Duration
		want     string
	}{
		{"15 0 * * *", 15 * time.Minute, "2026-11-22 00:15"},
		{"0 6 * * *", 15 * time.Minute, "2026-11-22 06:00"},
		{"0 0 * * *", 15 * time.Minute, "2026-11-22 00:15"}, // inside the grace: waits for its end
		{"0 0 * * *", 0, "2026-11-22 00:00"},
		{"30 * * * *", 45 * time.Minute, "2026-11-22 00:45"},
		{"0 4 * * 1", 15 * time.Minute, "2026-11-23 04:00"}, // Mondays only
		{"@daily", 15 * time.Minute, "2026-11-22 00:15"},
	} {
		schedule, err := ParseSchedule(c.schedule)
		check(t, err)
		a := &Agent{schedule: schedule, o: Options{Grace: c.grace, MaxAge: DefaultMaxAge}}
		at := a.releasing(d)
		if got := at.UTC().Format(form); got != c.want {
			t.Errorf("%q with a grace of %s: %s, want %s", c.schedule, c.grace, got, c.want)
		}
		if got := a.lastReleasable(at); got < d {
			t.Errorf("%q: at %s the last day is %s, want %s", c.schedule, at, got, d)
		}
		if got := a.lastReleasable(at.Add(-time.Second)); got >= d {
			t.Errorf("%q: before %s the last day is %s already", c.schedule, at, got)
		}
	}
}

func TestParseSchedule(t *testing.T) {
	for _, s := range []string{"", "often", "* * * *", "60 0 * * *", "0 0 0 * * *", "0 0 30 2 *", "@every 5s", "TZ=Asia/Tokyo 15 0 * * *"} {
		if _, err := ParseSchedule(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// TestSchedule: the clock of a schedule is UTC, wherever the machine is.
func TestScheduleInUTC(t *testing.T) {
	local := time.Local
	defer func() { time.Local = local }()
	time.Local = time.FixedZone("far", 9*60*60)
	schedule, err := ParseSchedule("15 0 * * *")
	check(t, err)
	next := schedule.Next(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	if want := time.Date(2026, 11, 22, 0, 15, 0, 0, time.UTC); !next.Equal(want) {
		t.Errorf("next run %s, want %s", next, want)
	}
}

func TestBackoff(t *testing.T) {
	last := time.Duration(0)
	for attempt := 1; attempt <= 40; attempt++ {
		d := backoff(attempt)
		if d < 4*time.Minute || d > 5*time.Hour {
			t.Errorf("backoff after attempt %d is %s", attempt, d)
		}
		if attempt == 7 && d < last {
			t.Errorf("it does not grow: %s after %s", d, last)
		}
		if attempt == 1 {
			last = d
		}
	}
}

func TestOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("an agent without a store")
	}
	for _, c := range []struct {
		contact, from string
		ok            bool
	}{
		{"tls@example.com", "", true},
		{"tls@Example.COM", "reports@example.com", true},
		{"", "", false},
		{"example.com", "", false},
		{"TLS <tls@example.com>", "", false},
		{"tls@example.com", "tls@example.net", false},
	} {
		o := Options{Contact: c.contact, From: c.from}
		if err := o.setIdentity(); (err == nil) != c.ok {
			t.Errorf("contact %q, from %q: %v", c.contact, c.from, err)
		}
	}
}
