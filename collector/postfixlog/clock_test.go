package postfixlog

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Skipf("no time zone data: %v", err)
	}
	return l
}

// TestTimes reads the times of prefixes one after the other.
func TestTimes(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	good := func(latest, lines string, location *time.Location, want ...string) {
		t.Helper()
		limit, err := time.Parse(time.RFC3339, latest)
		if err != nil {
			t.Fatal(err)
		}
		c := clock{location: location, latest: func() time.Time { return limit }}
		for i, line := range strings.Split(lines, "|") {
			at, rest, ok := c.read([]byte(line + " out postfix/smtp[1]: x"))
			got := time.Unix(0, at).UTC().Format(time.RFC3339Nano)
			if !ok || got != want[i] || string(rest) != "out postfix/smtp[1]: x" {
				t.Errorf("%s: got %s %q %v, want %s", line, got, rest, ok, want[i])
			}
		}
	}
	utc := time.UTC
	const now = "2026-11-23T12:00:00Z"
	good(now, "Nov 23 10:04:26", utc, "2026-11-23T10:04:26Z")
	good(now, "Nov  3 10:04:26|Nov  3 10:04:59|Nov  3 10:05:00", utc, "2026-11-03T10:04:26Z", "2026-11-03T10:04:59Z", "2026-11-03T10:05:00Z")
	good(now, "Nov 23 10:04:26", berlin, "2026-11-23T09:04:26Z")
	good(now, "2026-11-23T10:25:45.944278+00:00", utc, "2026-11-23T10:25:45.944278Z")
	good(now, "2026-11-23T10:25:45+0100|2026-11-23T10:25:45Z|2026-11-23T00:25:45.1-05:30", berlin,
		"2026-11-23T09:25:45Z", "2026-11-23T10:25:45Z", "2026-11-23T05:55:45.1Z")
	good(now, "2024-02-29T23:59:60Z|2000-03-01T00:00:00Z|1970-01-01T00:00:00Z", utc, "2024-03-01T00:00:00Z", "2000-03-01T00:00:00Z", "1970-01-01T00:00:00Z")
	good(now, "Mon 2026-11-23 10:26:41 UTC|Mon 2026-11-23 10:26:41 CET", berlin, "2026-11-23T10:26:41Z", "2026-11-23T09:26:41Z")

	// The year.
	good("2027-01-01T00:30:00Z", "Dec 31 23:59:59|Jan  1 00:00:01|Dec 31 23:59:59", utc, "2026-12-31T23:59:59Z", "2027-01-01T00:00:01Z", "2026-12-31T23:59:59Z")
	good("2026-12-31T23:59:50Z", "Jan  1 00:00:10", utc, "2027-01-01T00:00:10Z") // the log's clock is ahead
	good("2026-12-31T23:59:50Z", "Jan  2 00:00:10", utc, "2026-01-02T00:00:10Z") // more than a day
	good("2026-01-01T00:30:00+01:00", "Dec 31 23:59:59|Jan  1 00:10:00", berlin, "2025-12-31T22:59:59Z", "2025-12-31T23:10:00Z")
	good(now, "Nov 25 10:00:00", utc, "2025-11-25T10:00:00Z")
	good("2027-01-10T00:00:00Z", "Feb 29 10:00:00", utc, "2024-02-29T10:00:00Z")
	good("2026-11-30T00:00:00Z", "2025-11-28T10:00:00Z|Nov 29 10:00:00|Dec  2 10:00:00|Jan  3 10:00:00", utc,
		"2025-11-28T10:00:00Z", "2025-11-29T10:00:00Z", "2025-12-02T10:00:00Z", "2026-01-03T10:00:00Z")
	good("2026-11-30T00:00:00Z", "2026-01-28T10:00:00Z|Oct  2 10:00:00", utc, "2026-01-28T10:00:00Z", "2026-10-02T10:00:00Z") // a long silence

	// The end of summer time: 02:00 to 02:59 comes twice.
	good("2026-10-26T00:00:00Z", "Oct 25 01:59:59|Oct 25 02:30:00|Oct 25 02:29:59|Oct 25 02:59:59|Oct 25 02:00:00|Oct 25 02:00:01|Oct 25 03:00:00", berlin,
		"2026-10-24T23:59:59Z", "2026-10-25T00:30:00Z", "2026-10-25T00:29:59Z", "2026-10-25T00:59:59Z",
		"2026-10-25T01:00:00Z", "2026-10-25T01:00:01Z", "2026-10-25T02:00:00Z")
	good("2026-03-30T00:00:00Z", "Mar 29 01:59:59|Mar 29 03:00:00", berlin, "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z")
}

// TestBadTimes refuses what is no time.
func TestBadTimes(t *testing.T) {
	c := clock{location: time.UTC, latest: latest}
	for _, line := range []string{
		"", "Nov 23", "Nov 23 10:04:26", "Nov 32 10:04:26 ", "Nov 00 10:04:26 ", "Foo 23 10:04:26 ", "Nov 23 24:04:26 ", "Nov 23 10:60:26 ",
		"Nov 23 10:04:61 ", "Nov-23 10:04:26 ", "Feb 30 10:04:26 ", "nov 23 10:04:26 ",
		"2026-13-23T10:25:45Z ", "2026-11-23 10:25:45Z ", "2026-11-23T10:25:45 ", "2026-11-23T10:25:45+1 ", "2026-11-23T10:25:45+01", "2026-11-23T10:25:45.5 x",
		"2326-11-23T10:25:45Z ", "1969-11-23T10:25:45Z ", "Mon 2026-11-23 10:26:41 ", "Mon 2026-11-23T10:26:41 UTC ", "Mon 2026/11/23 10:26:41 UTC ",
	} {
		if at, rest, ok := c.read([]byte(line)); ok {
			t.Errorf("%q is %s, rest %q", line, time.Unix(0, at).UTC(), rest)
		}
	}
}

// TestDays counts days as package time does.
func TestDays(t *testing.T) {
	for d := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC); d.Year() < 2120; d = d.AddDate(0, 0, 1) {
		if got := daysSince1970(int64(d.Year()), int64(d.Month()), int64(d.Day())); got != d.Unix()/86400 {
			t.Fatalf("%s: day %d", d, got)
		}
	}
}

// TestPrefixes takes the prefix off lines of each kind.
func TestPrefixes(t *testing.T) {
	const m = "Trusted TLS connection established to mx.example.com[192.0.2.1]:25: x"
	const to = "4jY1xQ00Dlz6X7y: to=<bob@example.com>" + relay + fields
	check := func(instance, format string) {
		t.Helper()
		log := fmt.Sprintf(format, m) + "\n" + fmt.Sprintf(format, to) + "\r\n"
		all, _ := parseAll(Options{}, []byte(log))
		if instance == "" && len(all) == 0 {
			return
		}
		if len(all) != 1 || all[0].Instance != instance || all[0].Host != "out" && all[0].Host != "" || all[0].Domain != "example.com" || !all[0].Time.Equal(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v", format, all)
		}
	}
	check("postfix", "Nov 23 10:00:00 out postfix/smtp[1]: %s")
	check("postfix/relay", "Nov 23 10:00:00 out postfix/relay/smtp[1]: %s")
	check("postfix", "Nov 23 10:00:00 <mail.info> out postfix/smtp[1]: %s")
	check("postfix", "Nov 23 10:00:00 postfix/smtp[1]: %s")
	check("postfix", "2026-11-23T10:00:00Z postfix/smtp[1]: %s")
	check("postfix", "<22>Nov 23 10:00:00 out postfix/smtp[1]: %s")
	check("postfix", "<22>1 2026-11-23T10:00:00Z out postfix/smtp 1 - - %s")
	check("postfix", `<22>1 2026-11-23T10:00:00Z out postfix 1 - [a b="]\""][c] %s`)
	check("postfix", `{"host":"out","@timestamp":"2026-11-23T10:00:00Z","pid":1,"program":"postfix/smtp","nested":{"a":["]",{}]},"message":"%s"}`)
	check("postfix", `{"MESSAGE":"%s","_PID":"1","SYSLOG_IDENTIFIER":"postfix/smtp","__REALTIME_TIMESTAMP":"1795428000000000","x":null}`)
	check("postfix", `{"log":"2026-11-23T10:00:00+00:00 out postfix/smtp[1]: %s\n","stream":"stdout","time":"2026-11-23T11:00:00Z"}`)
	check("", "Nov 23 10:00:00 out postfix-out/smtp[1]: %s")
	check("", "Nov 23 10:00:00 out postfixed/smtp[1]: %s")
	check("", "Nov 23 10:00:00 out smtp[1]: %s")
	check("", "Nov 23 10:00:00 out postfix/smtpd[1]: %s")
	check("", "Nov 23 10:00:00 out postfix/smtp[]: %s")
	check("", "Nov 23 10:00:00 out postfix/smtp[1] %s")
	check("", "<22>1 2026-11-23T10:00:00Z out postfix/smtpd 1 - - %s")
	check("", `{"host":"out","time":"2026-11-23T10:00:00Z","pid":1,"program":"postfix/smtp","message":"%s"`)
	check("", `{"host":"out","time":"yesterday","pid":1,"program":"postfix/smtp","message":"%s"}`)
	check("", `<22>1 2026-11-23T10:00:00Z out postfix 1 - [a b="] %s`)

	// journald writes what is not UTF-8 as bytes.
	bytesOf := strings.Trim(strings.ReplaceAll(fmt.Sprint([]byte(m)), " ", ","), "")
	line := `{"MESSAGE":%s,"SYSLOG_PID":"1","SYSLOG_IDENTIFIER":"postfix/smtp","__REALTIME_TIMESTAMP":"1795428000000000","_HOSTNAME":"out"}`
	all, _ := parseAll(Options{}, fmt.Appendf(nil, line+"\n"+line, bytesOf, `"`+to+`"`))
	if len(all) != 1 || all[0].Outcome != Trusted {
		t.Errorf("array of bytes: %+v", all)
	}
	all, _ = parseAll(Options{}, []byte(fmt.Sprintf(line+"\n", `"`+m+`"`)+
		fmt.Sprintf(line, `"`+strings.Replace(to, "example.com>", `b\u00fccher.example.com\u003e`, 1)+`"`)))
	if len(all) != 1 || all[0].Domain != "xn--bcher-kva.example.com" {
		t.Errorf("escapes: %+v", all)
	}
}
