package schema

import (
	"fmt"
	"time"
)

// Day is one UTC day, counted from 1970-01-01. RFC 8460, section 4.1, makes it
// the period of a report.
type Day int32

const secondsPerDay = 24 * 60 * 60

// DayOf is the UTC day that t lies in.
func DayOf(t time.Time) Day {
	s := t.Unix()
	if s < 0 {
		s -= secondsPerDay - 1 // round towards the past, not towards zero
	}
	return Day(s / secondsPerDay)
}

// ParseDay reads the form "2026-11-22".
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, fmt.Errorf("schema: malformed day %q: want the form 2026-11-22", s)
	}
	return DayOf(t), nil
}

// Start is the first second of d, 00:00:00 UTC.
func (d Day) Start() time.Time { return time.Unix(int64(d)*secondsPerDay, 0).UTC() }

// End is the last second of d, 23:59:59 UTC.
//
// RFC 8460, section 4.1, speaks of 00:00 to 24:00. The example in Appendix B,
// Google and Microsoft end at 23:59:59, others at the next midnight, which some
// receivers take for a second day. The last second is what we send.
func (d Day) End() time.Time { return d.Start().Add((secondsPerDay - 1) * time.Second) }

// String is the form "2026-11-22".
func (d Day) String() string { return d.Start().Format(time.DateOnly) }

// MarshalText writes the form of [Day.String].
func (d Day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form of [ParseDay].
func (d *Day) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDay(string(text))
	return err
}
