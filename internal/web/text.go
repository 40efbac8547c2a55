package web

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// maxShown is how many characters of a stranger's string a page shows.
const maxShown = 300

// show is s as a page shows it: at most limit characters, and those that would
// move, hide or turn round text written as their code point. What html/template
// does on top makes it inert; this makes it honest.
func show(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if n++; n > limit {
			fmt.Fprintf(&b, "… (%s bytes)", number(int64(len(s))))
			break
		}
		if r == ' ' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "[U+%04X]", r)
		}
	}
	return b.String()
}

// showText is show for a text of several lines.
func showText(s string, limit int) string {
	s = strings.ToValidUTF8(s[:min(len(s), limit)], "\uFFFD")
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = show(strings.TrimSuffix(lines[i], "\r"), limit)
	}
	return strings.Join(lines, "\n")
}

// number is n with its digits in groups.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// percent is the share of failures, never "0 %" where there is one.
func percent(t schema.Summary) string {
	sessions := t.Success + t.Failure
	if sessions == 0 {
		return "–"
	}
	p := 100 * float64(t.Failure) / float64(sessions)
	switch {
	case t.Failure == 0:
		return "0 %"
	case p < 0.01:
		return "< 0.01 %"
	case p < 10:
		return strconv.FormatFloat(p, 'f', 2, 64) + " %"
	case t.Success > 0 && p > 99.9:
		return "> 99.9 %"
	}
	return strconv.FormatFloat(p, 'f', 1, 64) + " %"
}

// share is percent as a number, for charts and bars.
func share(t schema.Summary) string {
	if t.Success+t.Failure == 0 {
		return "0"
	}
	return strconv.FormatFloat(100*float64(t.Failure)/float64(t.Success+t.Failure), 'f', 3, 64)
}

// clock is a time as a page shows it, in UTC.
func clock(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// about is how far t is from now, in one unit.
func about(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := t.Sub(now)
	if d.Abs() < 5*time.Second {
		return "just now"
	}
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span is d in its largest unit.
func span(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}} {
		if d >= 2*u.unit || u.unit == time.Minute && d >= u.unit {
			return strconv.Itoa(int(d/u.unit)) + " " + u.name
		}
	}
	return strconv.Itoa(int(d/time.Second)) + " s"
}

// size is n bytes in a unit that suits it.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
