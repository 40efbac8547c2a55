package schema_test

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestDayOf(t *testing.T) {
	for _, c := range []struct {
		when string
		want schema.Day
	}{
		{"1970-01-01T00:00:00Z", 0},
		{"1970-01-01T23:59:59Z", 0},
		{"1970-01-02T00:00:00Z", 1},
		{"1969-12-31T23:59:59Z", -1},
		{"1969-12-31T00:00:00Z", -1},
		{"1969-12-30T23:59:59.999999999Z", -2},
		{"2026-11-22T23:30:00-01:00", 20780}, // the day after, in UTC
		{"2026-11-23T00:30:00+01:00", 20779},
	} {
		when, err := time.Parse(time.RFC3339Nano, c.when)
		if err != nil {
			t.Fatal(err)
		}
		if d := schema.DayOf(when); d != c.want {
			t.Errorf("DayOf(%s) = %d, want %d", c.when, d, c.want)
		}
	}
}

func TestDayProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := schema.Day(rapid.Int32().Draw(t, "day"))
		if got := schema.DayOf(d.Start()); got != d {
			t.Errorf("start of day %d is on %d", d, got)
		}
		if got := schema.DayOf(d.End()); got != d {
			t.Errorf("end of day %d is on %d", d, got)
		}
		if got := d.End().Sub(d.Start()); got != 24*time.Hour-time.Second {
			t.Errorf("day %d lasts %v", d, got)
		}
	})
}

func TestDayText(t *testing.T) {
	first, _ := schema.ParseDay("0001-01-01")
	last, _ := schema.ParseDay("9999-12-31")
	rapid.Check(t, func(t *rapid.T) {
		d := schema.Day(rapid.Int32Range(int32(first), int32(last)).Draw(t, "day"))
		text, err := json.Marshal(d)
		if err != nil || string(text) != `"`+d.String()+`"` {
			t.Fatalf("%d is %s, %v", d, text, err)
		}
		var again schema.Day
		if err := json.Unmarshal(text, &again); err != nil || again != d {
			t.Errorf("%s is day %d, %v; want %d", text, again, err, d)
		}
	})
	for _, s := range []string{"", "2026-11-31", "2026-1-1", "26-01-01", "2026-11-22T00:00:00Z", " 2026-11-22"} {
		if d, err := schema.ParseDay(s); err == nil {
			t.Errorf("ParseDay(%q) = %v", s, d)
		}
	}
}
