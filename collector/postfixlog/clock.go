package postfixlog

import (
	"bytes"
	"time"
)

// clock reads the times of prefixes, in nanoseconds since 1970.
type clock struct {
	location *time.Location
	latest   func() time.Time
	last     int64 // time of the line before, 0 before the first

	// What the line before said: most lines are of the same minute.
	minute   [len("Jan _2 15:04")]byte // if it had no year
	minuteAt int64                     // when that was; 0: not to be used again
	full     [len(fullMinute)]byte
	offset   string // that went with full
	fullAt   int64  // when that was; 0: not to be used again
}

const (
	second = int64(time.Second)
	day    = 24 * int64(time.Hour)
)

// read takes a time and the space after it off b. It knows "Nov 23 10:04:26",
// RFC 3339 (a fraction or none, an offset with or without colon, "Z") and
// "Mon 2026-11-23 10:26:41 UTC".
func (c *clock) read(b []byte) (at int64, rest []byte, ok bool) {
	switch {
	case len(b) < len("Jan _2 15:04:05 "):
		return 0, nil, false
	case b[0]-'0' < 10:
		at, rest, ok = c.readFull(b)
		if ok = ok && len(rest) > 0 && rest[0] == ' '; ok {
			rest = rest[1:]
		}
	case b[4]-'0' < 10 && b[5]-'0' < 10 && b[6]-'0' < 10:
		at, rest, ok = c.readWeekday(b)
	default:
		at, rest, ok = c.readTraditional(b)
	}
	if ok {
		c.last = at
	}
	return at, rest, ok
}

// readFull is readRFC3339, and remembers the minute and the offset.
func (c *clock) readFull(b []byte) (int64, []byte, bool) {
	if c.fullAt != 0 && len(b) >= len(c.full)+2 && string(b[:len(c.full)]) == string(c.full[:]) {
		s, ok := twoDigits(b[len(c.full):], 60)
		fraction, rest := readFraction(b[len(c.full)+2:])
		if ok && hasPrefix(rest, c.offset) {
			return c.fullAt + s*second + fraction, rest[len(c.offset):], true
		}
	}
	at, rest, ok := readRFC3339(b)
	if ok {
		s, _ := twoDigits(b[len(c.full):], 60)
		fraction, offset := readFraction(b[len(c.full)+2:])
		copy(c.full[:], b)
		c.fullAt = at - s*second - fraction
		if offset = offset[:len(offset)-len(rest)]; string(offset) != c.offset {
			c.offset = string(offset)
		}
	}
	return at, rest, ok
}

const fullMinute = "2006-01-02T15:04:"

// readRFC3339 reads "2026-11-23T10:25:45.944278+00:00".
func readRFC3339(b []byte) (int64, []byte, bool) {
	minute, ok := readFullMinute(b)
	if !ok {
		return 0, nil, false
	}
	at, rest, ok := readSeconds(b[len(fullMinute):])
	return minute + at, rest, ok
}

// readFullMinute reads "2026-11-23T10:25:" as if clocks showed UTC.
func readFullMinute(b []byte) (int64, bool) {
	if len(b) < len(fullMinute) || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	d, ok1 := readDate(b)
	h, ok2 := twoDigits(b[11:], 23)
	m, ok3 := twoDigits(b[14:], 59)
	return d*day + (h*3600+m*60)*second, ok1 && ok2 && ok3
}

// readSeconds reads "45.944278+00:00": what is to be added to the minute.
func readSeconds(b []byte) (int64, []byte, bool) {
	s, ok := twoDigits(b, 60)
	if !ok {
		return 0, nil, false
	}
	fraction, b := readFraction(b[2:])
	offset, b, ok := readOffset(b)
	return (s-offset)*second + fraction, b, ok
}

// readFraction reads ".944278" as nanoseconds; without a dot it is 0.
func readFraction(b []byte) (int64, []byte) {
	if len(b) == 0 || b[0] != '.' {
		return 0, b
	}
	b = b[1:]
	n, i := int64(0), 0
	for ; i < len(b) && b[i]-'0' < 10 && i < len(units)-1; i++ {
		n = n*10 + int64(b[i]-'0')
	}
	n *= units[i]
	for i < len(b) && b[i]-'0' < 10 {
		i++ // less than a nanosecond
	}
	return n, b[i:]
}

// units is how many nanoseconds the last of so many digits counts.
var units = [...]int64{1e9, 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 1e2, 10, 1}

// readOffset reads "Z", "+01:00" or "+0100" as seconds.
func readOffset(b []byte) (int64, []byte, bool) {
	if len(b) > 0 && b[0] == 'Z' {
		return 0, b[1:], true
	}
	if len(b) < len("+0000") || b[0] != '+' && b[0] != '-' {
		return 0, nil, false
	}
	negative := b[0] == '-'
	h, ok := twoDigits(b[1:], 23)
	b = b[3:]
	if b[0] == ':' {
		b = b[1:]
	}
	m, ok2 := twoDigits(b, 59)
	if !ok || !ok2 {
		return 0, nil, false
	}
	offset := h*3600 + m*60
	if negative {
		offset = -offset
	}
	return offset, b[2:], true
}

// readWeekday reads "Mon 2026-11-23 10:26:41 CET ". The zone is Location's:
// journalctl prints local time, and abbreviations of zones are not unique.
func (c *clock) readWeekday(b []byte) (int64, []byte, bool) {
	const before, clockAt = len("Mon "), len("Mon 2006-01-02 ")
	const end = len("Mon 2006-01-02 15:04:05 ")
	if len(b) <= end || b[3] != ' ' || b[clockAt-1] != ' ' || b[end-1] != ' ' {
		return 0, nil, false
	}
	d, ok := readDate(b[before:])
	t, ok2 := readTimeOfDay(b[clockAt:])
	zone, rest, ok3 := bytes.Cut(b[end:], []byte(" "))
	if !ok || !ok2 || !ok3 {
		return 0, nil, false
	}
	at := d*day + t*second
	if string(zone) != "UTC" && string(zone) != "GMT" {
		at = c.local(time.Unix(0, at).UTC())
	}
	return at, rest, true
}

// readTraditional reads "Nov 23 10:04:26 ".
func (c *clock) readTraditional(b []byte) (int64, []byte, bool) {
	const end = len("Jan _2 15:04:05")
	s, ok := twoDigits(b[end-2:], 60)
	if !ok || b[end-3] != ':' || b[end] != ' ' {
		return 0, nil, false
	}
	if c.minuteAt != 0 && bytes.Equal(b[:len(c.minute)], c.minute[:]) {
		return c.minuteAt + s*second, b[end+1:], true
	}
	minute, unique, ok := c.readMinute(b)
	if !ok {
		return 0, nil, false
	}
	copy(c.minute[:], b)
	if c.minuteAt = minute; !unique {
		c.minuteAt = 0
	}
	return minute + s*second, b[end+1:], true
}

// readMinute reads "Nov 23 10:04" and finds the year. unique says that the
// minute came once only.
func (c *clock) readMinute(b []byte) (minute int64, unique, ok bool) {
	month := monthOf(b)
	if b[4] == ' ' {
		b = append([]byte{'0'}, b[5:12]...)
	} else {
		b = b[4:]
	}
	d, ok1 := twoDigits(b, 31)
	h, ok2 := twoDigits(b[3:], 23)
	m, ok3 := twoDigits(b[6:], 59)
	if month == 0 || d == 0 || !ok1 || !ok2 || !ok3 || b[2] != ' ' || b[5] != ':' {
		return 0, false, false
	}
	year, ok := c.year(month, int(d))
	if !ok {
		return 0, false, false
	}
	wall := time.Date(year, month, int(d), int(h), int(m), 0, 0, time.UTC)
	return c.local(wall), !c.ambiguous(wall), true
}

// year is the latest one that puts a day of the year at most one day into the
// future. A log that goes on at New Year, and one whose February has 29 days,
// are so too.
//
// A log of more than a year would go back at its beginning: where the year
// before continues the line before, it is that.
func (c *clock) year(month time.Month, d int) (int, bool) {
	limit := c.latest().Add(24 * time.Hour)
	for year := limit.In(c.location).Year(); year > limit.Year()-9; year-- {
		t := time.Date(year, month, d, 0, 0, 0, 0, c.location)
		if t.After(limit) || t.Day() != d {
			continue
		}
		before := time.Date(year-1, month, d, 0, 0, 0, 0, c.location)
		if before.Day() == d && c.continues(before) && !c.continues(t) {
			return year - 1, true
		}
		return year, true
	}
	return 0, false
}

// continues reports whether the day t may be that of the line after the last.
func (c *clock) continues(t time.Time) bool {
	gap := t.UnixNano() - c.last
	return c.last != 0 && gap > -2*day && gap < 7*day
}

// local is when clocks of Location show what wall shows. Where they did so
// twice, at the end of summer time, it is the first time, unless the log is
// beyond that already.
func (c *clock) local(wall time.Time) int64 {
	early, late := c.both(wall)
	// Lines of several processes may be a little out of order.
	const slack = 2 * int64(time.Minute)
	if c.last > early+slack && c.last <= late+day {
		return late
	}
	return early
}

// ambiguous reports whether clocks of Location showed wall twice.
func (c *clock) ambiguous(wall time.Time) bool {
	early, late := c.both(wall)
	return early != late
}

// both is the first and the last time that clocks of Location show wall.
func (c *clock) both(wall time.Time) (early, late int64) {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, c.location)
	early, late = t.UnixNano(), t.UnixNano()
	for _, hours := range [...]time.Duration{-2, -1, 1, 2} {
		other := t.Add(hours * time.Hour)
		_, a := t.Zone()
		_, b := other.Zone()
		shifted := t.Add(time.Duration(a-b) * time.Second)
		if sameClock(t, shifted) {
			early, late = min(early, shifted.UnixNano()), max(late, shifted.UnixNano())
		}
	}
	return early, late
}

// sameClock reports whether a clock shows the same at both times.
func sameClock(a, b time.Time) bool {
	return a.Day() == b.Day() && a.Hour() == b.Hour() && a.Minute() == b.Minute()
}

// readDate reads "2026-11-23" as days since 1970.
func readDate(b []byte) (int64, bool) {
	century, ok1 := twoDigits(b, 21)
	years, ok2 := twoDigits(b[2:], 99)
	month, ok3 := twoDigits(b[5:], 12)
	d, ok4 := twoDigits(b[8:], 31)
	year := century*100 + years
	if !ok1 || !ok2 || !ok3 || !ok4 || b[4] != '-' || b[7] != '-' || year < 1970 || month == 0 || d == 0 {
		return 0, false
	}
	return daysSince1970(year, month, d), true
}

// daysSince1970 counts from 1 March of the year 0, so that the leap day is the
// last of a year.
func daysSince1970(year, month, d int64) int64 {
	if month -= 3; month < 0 {
		month += 12
		year--
	}
	const toMarch1970 = 719468
	return year*365 + year/4 - year/100 + year/400 + (month*153+2)/5 + d - 1 - toMarch1970
}

// readTimeOfDay reads "10:25:45" as seconds. A leap second is the next one.
func readTimeOfDay(b []byte) (int64, bool) {
	h, ok1 := twoDigits(b, 23)
	m, ok2 := twoDigits(b[3:], 59)
	s, ok3 := twoDigits(b[6:], 60)
	return h*3600 + m*60 + s, ok1 && ok2 && ok3 && b[2] == ':' && b[5] == ':'
}

// twoDigits reads a number of two digits that is at most limit.
func twoDigits(b []byte, limit int64) (int64, bool) {
	if len(b) < 2 || b[0]-'0' > 9 || b[1]-'0' > 9 {
		return 0, false
	}
	n := int64(b[0]-'0')*10 + int64(b[1]-'0')
	return n, n <= limit
}

const months = "JanFebMarAprMayJunJulAugSepOctNovDec"

// monthOf is the month whose name b begins with, 0 if it is none.
func monthOf(b []byte) time.Month {
	if len(b) < 4 || b[3] != ' ' {
		return 0
	}
	for i := 0; i < len(months); i += 3 {
		if string(b[:3]) == months[i:i+3] {
			return time.Month(i/3 + 1)
		}
	}
	return 0
}
