package main

import (
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	good := func(s string, want time.Duration, form string) {
		t.Helper()
		var d duration
		if err := d.UnmarshalText([]byte(s)); err != nil || d.Duration != want || d.String() != form {
			t.Errorf("%q is %s (%v), want %s", s, d, err, form)
		}
	}
	bad := func(s string) {
		t.Helper()
		var d duration
		if err := d.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q is %s, want an error", s, d)
		}
	}
	good("90s", 90*time.Second, "1m30s")
	good("15m", 15*time.Minute, "15m")
	good("4h", 4*time.Hour, "4h")
	good("72h", 3*day, "3d")
	good("30d", 30*day, "30d")
	good("1d12h", 36*time.Hour, "36h")
	good("0s", 0, "0s")
	bad("")
	bad("30")
	bad("d")
	bad("-1d")
	bad("-4h")
	bad("1d-25h")
	bad("99999999d")
	bad("4 hours")
}

func TestConfig(t *testing.T) {
	good := func(text string) {
		t.Helper()
		if _, err := parseConfig("f.toml", []byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	bad := func(text, want string) {
		t.Helper()
		_, err := parseConfig("f.toml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	good("")
	good("[store]\nkeep = \"30d\"")
	good("[[source.libtlsrpt]]\nsocket = \"/a\"\n[[source.libtlsrpt]]\nsocket = \"/b\"\nmode = \"0222\"")
	good("[web]\nlisten = \"\"")
	good("[web]\nlisten = \"[::1]:8460\"\nmetrics_top_domains = 20")
	good("[web]\nlisten = \"0.0.0.0:8460\"\ntoken_file = \"/t\"")
	good("[alerts]\nthreshold = 0.5\nexec = [\"/bin/true\", \"-x\"]\nwebhook = \"http://192.0.2.1/hook\"")
	bad("[store]\nkeep = 30", `"30"`)
	bad("[web]\nlisten = \"0.0.0.0:8460\"", "needs web.token_file")
	bad("[web]\nlisten = \":8460\"", "needs web.token_file")
	bad("[web]\nlisten = \"mail.example.com:8460\"", "needs web.token_file")
	bad("[web]\nlisten = \"127.0.0.1\"", "web.listen")
	bad("[web]\nmetrics_top_domains = 1000", "between 0 and 100")
	bad("[alerts]\nthreshold = 5.0", "between 0 and 1")
	bad("[alerts]\nmin_sessions = 0", "less than 1")
	bad("[alerts]\nwindow = \"30d\"", "alerts.window")
	bad("[alerts]\nexec = [\"mail\"]", "absolute path")
	bad("[alerts]\nwebhook = \"hook\"", "alerts.webhook")
	bad("[store]\nkeep = \"a month\"", "f.toml:2")
	bad("[store]\nkeep = \"a month\"", "a month")
	bad("[nonsense]", `f.toml:1: unknown setting "nonsense"`)
	bad("[store]\n\npaht = \"x\"", `f.toml:3: unknown setting "store.paht"`)
	bad("[store", "f.toml:1")
	bad("[submit]\nper_host = 0", "submit.per_host")
	bad("[dns]\nparallel = 0", "dns.parallel")
	bad("[dns]\nservers = [\"dns.example\"]", "dns.servers")
	bad("[store]\nkeep = \"1d\"", "store.keep")
	bad("[submit]\nmax_age = \"0s\"", "submit.max_age")
	bad("[submit]\nspread = \"400d\"", "submit.spread")
	good("[dns]\nservers = [\"192.0.2.1\", \"192.0.2.1:5353\", \"[2001:db8::1]:53\", \"2001:db8::1\"]")
	bad("[https]\non_certificate_error = \"ignore\"", "on_certificate_error")
	bad("[[source.libtlsrpt]]\nmode = \"0660\"", "socket: not set")
	bad("[[source.libtlsrpt]]\nsocket = \"/a\"\nmode = \"rw\"", "octal")
}

// TestPrintable: nothing that a stranger wrote moves a cursor or forges a line.
func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"plain":                   "plain",
		"ünïcode":                 "ünïcode",
		"a\x1b[31mred\x07":        "a?[31mred?",
		"two\nlines\r":            "two?lines?",
		"\xff\xfe":                "?",
		"right\u202eto\u202cleft": "right?to?left",
	} {
		if got := printable(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
