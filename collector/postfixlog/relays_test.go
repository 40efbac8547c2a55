package postfixlog

import (
	"slices"
	"strings"
	"testing"
)

// TestRelays drops the sessions with hosts that the settings name.
func TestRelays(t *testing.T) {
	log := script(trusted, sent, seen, "smtp[9]: 4jY1xQ00Dlz6X7z: to=<eve@example.net>, relay=mx.seen.example[192.0.2.99]:25"+fields)
	const both = "example.com trusted|example.net trusted"
	for list, want := range map[string]string{
		"":                       both,
		"mx.other.example":       both,
		"MX.Example.com":         "example.com trusted dropped:relay|example.net trusted",
		"192.0.2.99":             "example.com trusted|example.net trusted dropped:relay",
		"[192.0.2.99]":           "example.com trusted|example.net trusted dropped:relay",
		"2001:db8::/32 10.0.0.1": both,
		"192.0.2.0/24":           "example.com trusted dropped:relay|example.net trusted dropped:relay",
	} {
		r, err := ParseRelays(strings.Fields(list))
		if err != nil {
			t.Errorf("%q: %v", list, err)
			continue
		}
		all, _ := parseAll(Options{Relays: r}, log)
		got := briefs(all)
		slices.Sort(got)
		if strings.Join(got, "|") != want {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
	for _, bad := range []string{"", "192.0.2.0/99", "a b", "relay.example:25"} {
		if _, err := ParseRelays([]string{bad}); err == nil {
			t.Errorf("%q is taken for a relay", bad)
		}
	}
}
