package agent

import (
	"testing"
	"time"
)

// TestClockSteps: a clock that goes back and forth by an hour, over midnight and over
// the closing of the day, loses no session and counts none twice. Those that it puts
// on a day that is closed go to a supplement.
func TestClockSteps(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "23:30")
		at := func(step time.Duration) { b.session("example.org", false, time.Now().Add(step)) }
		at(0)
		at(time.Hour)  // 00:30 of the next day
		at(-time.Hour) // 22:30
		b.until(day0+1, "00:05")
		at(0)
		at(-time.Hour) // before midnight, within the grace
		b.until(day0+1, "06:00")
		b.want("example.org 2000-01-01 3/0")
		at(-7 * time.Hour) // before midnight, the day is closed
		at(-7 * time.Hour)
		at(0)
		b.until(day0+2, "06:00")
		b.want("example.org 2000-01-01 3/0", "example.org 2000-01-01 2/0", "example.org 2000-01-02 3/0")
		at(-26 * time.Hour) // of a day that is closed, too
		at(23 * time.Hour)  // of the next day
		b.until(day0+3, "06:00")
		b.want("example.org 2000-01-01 3/0", "example.org 2000-01-01 2/0", "example.org 2000-01-02 3/0",
			"example.org 2000-01-02 1/0")
		b.until(day0+4, "06:00")
		b.want("example.org 2000-01-01 3/0", "example.org 2000-01-01 2/0", "example.org 2000-01-02 3/0",
			"example.org 2000-01-02 1/0", "example.org 2000-01-04 1/0")
	}, "example.org")
}

// TestClockBackAtRestart: an agent that starts with its clock an hour back, before
// the midnight that its store has seen, sends nothing a second time.
func TestClockBackAtRestart(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "12:00")
		b.session("example.org", false)
		b.until(day0+1, "06:00")
		b.want("example.org 2000-01-01 1/0")
		// To close the day again, as an agent would whose clock shows the evening
		// before and then midnight, finds it closed.
		for _, at := range []time.Time{(day0 + 1).Start().Add(-time.Hour), (day0 + 1).Start().Add(time.Hour)} {
			if _, err := b.store.Release(b.Context(), day0+1, time.Time{}, at); err != nil {
				b.Fatal(err)
			}
		}
		b.session("example.org", false, day0.Start().Add(time.Hour))
		if _, err := b.store.Release(b.Context(), day0+1, time.Time{}, day0.Start().Add(23*time.Hour)); err != nil {
			b.Fatal(err)
		}
		b.until(day0+2, "06:00")
		b.want("example.org 2000-01-01 1/0", "example.org 2000-01-01 1/0")
		b.until(day0+3, "06:00")
		b.want("example.org 2000-01-01 1/0", "example.org 2000-01-01 1/0")
	}, "example.org")
}
