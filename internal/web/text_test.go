package web

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestShow(t *testing.T) {
	for in, want := range map[string]string{
		"mx.example.com":            "mx.example.com",
		"":                          "",
		"a\x00b\x1b[31mc":           "a[U+0000]b[U+001B][31mc",
		"two\r\nlines":              "two[U+000D][U+000A]lines",
		"gpj.\u202eexe":             "gpj.[U+202E]exe",
		"\u2066x\u2069\u200b\ufeff": "[U+2066]x[U+2069][U+200B][U+FEFF]",
		"bad \xff utf-8":            "bad \uFFFD utf-8",
		"ünï":                       "ünï",
		strings.Repeat("x", 1000):   strings.Repeat("x", maxShown) + "… (1,000 bytes)",
	} {
		if got := show(in, maxShown); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

// FuzzShow: what is shown is printable, and not much longer than allowed.
func FuzzShow(f *testing.F) {
	for _, s := range []string{hostile, strings.Repeat("\x1b", 70000), "x", "\u202e\U000E0001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := show(s, maxShown)
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q is shown as %q", s, got)
		}
		if len(got) > maxShown*len("[U+10FFFF]")+40 {
			t.Errorf("%d bytes of %d are shown", len(got), len(s))
		}
	})
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := number(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for t2, want := range map[schema.Summary]string{
		{}:                               "–",
		{Success: 5}:                     "0 %",
		{Success: 1000000, Failure: 1}:   "< 0.01 %",
		{Success: 999, Failure: 1}:       "0.10 %",
		{Success: 1, Failure: 1}:         "50.0 %",
		{Success: 1, Failure: 1_000_000}: "> 99.9 %",
		{Failure: 3}:                     "100.0 %",
	} {
		if got := percent(t2); got != want {
			t.Errorf("%+v is %q, want %q", t2, got, want)
		}
	}
	now := testNow
	for d, want := range map[time.Duration]string{
		0: "just now", time.Second: "just now", 10 * time.Second: "in 10 s", -90 * time.Second: "1 min ago", 3 * time.Hour: "in 3 h",
		-50 * time.Hour: "2 d ago", 119 * time.Minute: "in 119 min",
	} {
		if got := about(now.Add(d), now); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}
