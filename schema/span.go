package schema

import (
	"net/netip"
	"slices"
	"strings"
)

// Span is a stretch of the log of one mail server that was counted. The logs of a
// server come in several forms, of which some have whole seconds only. So a span
// has whole seconds, and in its first and its last second, which may have been
// read in part, the lines that ended a session tell what was counted.
type Span struct {
	// Instance is the name that the server logs under. "*" is any.
	Instance string

	// Host is the machine, as by [LogHost]. "" is any.
	Host string

	// From and To are the Unix seconds of the first and the last line that was
	// read.
	From, To int64

	// First and Last are hashes of the lines that ended a session in the seconds
	// From and To. Where there are [MaxSpanLines] or more, the whole second counts
	// as read.
	First, Last []uint64
}

// MaxSpanLines bounds what a Span remembers of a second.
const MaxSpanLines = 1024

// See makes the second at part of s, which must have had one before.
func (s *Span) See(at int64) {
	if at < s.From {
		s.From, s.First = at, nil
	}
	if at > s.To {
		s.To, s.Last = at, nil
	}
}

// Note makes a line that ended a session part of s.
func (s *Span) Note(at int64, line uint64) {
	s.See(at)
	if at == s.From && len(s.First) < MaxSpanLines {
		s.First = append(s.First, line)
	}
	if at == s.To && len(s.Last) < MaxSpanLines {
		s.Last = append(s.Last, line)
	}
}

// Join is the span that reaches over s and o, which are of one server and share a
// second.
func (s Span) Join(o Span) Span {
	switch {
	case o.From < s.From:
		s.From, s.First = o.From, o.First
	case o.From == s.From:
		s.First = union(s.First, o.First)
	}
	switch {
	case o.To > s.To:
		s.To, s.Last = o.To, o.Last
	case o.To == s.To:
		s.Last = union(s.Last, o.Last)
	}
	return s
}

// union is sorted and bounded.
func union(a, b []uint64) []uint64 {
	all := slices.Concat(a, b)
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), MaxSpanLines)]
}

// Covers reports whether the session that a line ended was counted. What is
// uncertain was.
func (s *Span) Covers(at int64, line uint64) bool {
	switch {
	case at < s.From || at > s.To:
		return false
	case at == s.From && at == s.To:
		return known(s.First, line) || known(s.Last, line)
	case at == s.From:
		return known(s.First, line)
	case at == s.To:
		return known(s.Last, line)
	}
	return true
}

func known(lines []uint64, line uint64) bool {
	return len(lines) >= MaxSpanLines || slices.Contains(lines, line)
}

// Of reports whether s is of the log of a server.
func (s *Span) Of(instance, host string) bool {
	return (s.Instance == "*" || s.Instance == instance) && (s.Host == "" || s.Host == host)
}

// LogHost is the name of a machine as spans have it: one syslog writes the full
// name where another one writes its first label.
func LogHost(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return name
	}
	name, _, _ = strings.Cut(name, ".")
	return strings.ToLower(name)
}
