package postfixlog

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// corpora are the directories of real logs, each with what the servers saw.
// POSTFIXLOG_CORPORA names a directory of more, VERSION/PROFILE.
func corpora(t testing.TB) []string {
	t.Helper()
	dirs, err := filepath.Glob("testdata/postfix-logs/*/*/maillog")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no corpora: %v", err)
	}
	if more := os.Getenv("POSTFIXLOG_CORPORA"); more != "" {
		found, _ := filepath.Glob(filepath.Join(more, "*/*/maillog"))
		dirs = append(dirs, found...)
	}
	for i := range dirs {
		dirs[i] = filepath.Dir(dirs[i])
	}
	return dirs
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// latest is when the corpora were made, as far as the year goes.
func latest() time.Time { return time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC) }

// told is a session and why it was dropped, if it was.
type told struct {
	Session
	drop Drop
}

// parseAll reads a whole log. The sessions include those that were dropped.
func parseAll(o Options, log []byte) ([]told, Stats) {
	var all []told
	if o.Latest == nil {
		o.Latest, o.Location = latest, time.UTC
	}
	o.Dropped = func(s *Session, d Drop) { all = append(all, told{*s, d}) }
	p := NewParser(o)
	emit := func(s *Session) { all = append(all, told{*s, ""}) }
	p.Parse(log, emit)
	p.Flush(latest().AddDate(1, 0, 0), emit)
	return all, p.Stats()
}

// kept is those that were handed on.
func kept(all []told) []Session {
	var s []Session
	for _, t := range all {
		if t.drop == "" {
			s = append(s, t.Session)
		}
	}
	return s
}

// tally counts sessions by "address outcome".
type tally map[string]int

func (a tally) diff(b tally) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if a[k] != b[k] {
			out = append(out, fmt.Sprintf("%s: got %d, want %d", k, a[k], b[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[k]; !ok {
			out = append(out, fmt.Sprintf("%s: got 0, want %d", k, b[k]))
		}
	}
	return strings.Join(out, "\n")
}

// connection is a TCP connection as the server saw it.
type connection struct {
	MX, IP string
	TLS    string
	Events []string
}

func (c connection) has(event string) bool { return slices.Contains(c.Events, event) }

// outcome is how its TLS negotiation ended, "" if there was none.
func (c connection) outcome() string {
	switch {
	case c.has("tls-ok"):
		return "tls"
	case slices.ContainsFunc(c.Events, func(e string) bool {
		return e == "drop" || e == "rst" || e == "garbage" || e == "stall" || strings.HasPrefix(e, "tls-fail") || strings.HasPrefix(e, "exc")
	}):
		return "failed"
	case c.has("mail"):
		return "plaintext"
	case c.has("ehlo") || c.has("helo"):
		return "refused"
	}
	return ""
}

func readTruth(t testing.TB, path string) tally {
	t.Helper()
	want := make(tally)
	scan := bufio.NewScanner(bytes.NewReader(readFile(t, path)))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var c connection
		if err := json.Unmarshal(scan.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if o := c.outcome(); o != "" {
			want[c.IP+" "+o]++
		}
	}
	return want
}

// outcomeOf is the outcome of a session in the words of connection.outcome.
func outcomeOf(s told) string {
	switch {
	case s.Outcome.established():
		return "tls"
	case s.Outcome == NoSession:
		return ""
	}
	return s.Outcome.String()
}

// TestTruth holds the sessions of each log against what the servers saw: for
// each address and outcome as many as there were.
func TestTruth(t *testing.T) {
	for _, dir := range corpora(t) {
		t.Run(strings.TrimPrefix(dir, "testdata/postfix-logs/"), func(t *testing.T) {
			all, stats := parseAll(Options{Instance: "*", ReportPlaintext: true}, readFile(t, filepath.Join(dir, "maillog")))
			got := make(tally)
			for _, s := range all {
				if o := outcomeOf(s); o != "" && s.IP.IsValid() {
					got[s.IP.String()+" "+o]++
				}
			}
			want := readTruth(t, filepath.Join(dir, "truth.jsonl"))
			if filepath.Base(dir) == "loglevel0" && !strings.Contains(dir, "/3.11") {
				// Before "tls=", nobody can tell TLS from plaintext, so none of
				// it is told.
				used := func(k string, _ int) bool { return strings.HasSuffix(k, " tls") || strings.HasSuffix(k, " plaintext") }
				for _, s := range kept(all) {
					if used(" "+outcomeOf(told{Session: s}), 0) && s.Result == "" {
						t.Errorf("told without proof: %+v", s)
					}
				}
				maps.DeleteFunc(got, used)
				maps.DeleteFunc(want, used)
			}
			if filepath.Base(dir) == "loglevel0" {
				delete(want, "192.0.2.86 tls") // lost after the handshake: no line
			}
			if d := got.diff(want); d != "" {
				t.Errorf("sessions differ:\n%s\n%+v", d, stats)
			}
		})
	}
}

// TestKept holds the sessions that are handed on against what the servers saw: at
// whatever log level, none has another outcome than there was.
func TestKept(t *testing.T) {
	for _, dir := range corpora(t) {
		want := readTruth(t, filepath.Join(dir, "truth.jsonl"))
		all, _ := parseAll(Options{Instance: "*", ReportPlaintext: true}, readFile(t, filepath.Join(dir, "maillog")))
		got := make(tally)
		for _, s := range kept(all) {
			if o := outcomeOf(told{Session: s}); o != "" {
				got[s.IP.String()+" "+o]++
			}
		}
		for k, n := range got {
			if n > want[k] {
				t.Errorf("%s: %s: told %d, there were %d", dir, k, n, want[k])
			}
		}
	}
}

// TestDomains holds the recipient domain of each session against the one that
// has the MX.
func TestDomains(t *testing.T) {
	special := map[string]string{
		"mx1.provider.example":   "hosted-",
		"mx.dane-ok.example.net": "",
		"mx1.plain.example":      "plain-",
		"mx2.plain.example":      "plain-",
		"mx1.pool.example":       "pool-",
		"mx2.pool.example":       "pool-",
	}
	for _, dir := range corpora(t) {
		all, _ := parseAll(Options{Instance: "*"}, readFile(t, filepath.Join(dir, "maillog")))
		hosts := readHosts(t, filepath.Join(dir, "truth.jsonl"))
		for _, s := range kept(all) {
			mx := cmp.Or(s.MX, hosts[s.IP.String()])
			if prefix, ok := special[mx]; ok && strings.HasPrefix(s.Domain, prefix) || strings.HasPrefix(mx, "relay.") {
				continue
			}
			if _, domain, _ := strings.Cut(mx, "."); domain != s.Domain {
				t.Errorf("%s: domain %s, want %s: %+v", dir, s.Domain, domain, s)
			}
		}
		if len(kept(all)) == 0 {
			t.Errorf("%s: no session", dir)
		}
	}
}

// readHosts is the name of each address.
func readHosts(t testing.TB, path string) map[string]string {
	t.Helper()
	hosts := make(map[string]string)
	for line := range bytes.Lines(readFile(t, path)) {
		var c connection
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		hosts[c.IP] = c.MX
	}
	return hosts
}

// scenario is an entry of expected.json.
type scenario struct {
	Scenario, Domain string
	Log37            tally `json:"log_3_7"`
	Log310           tally `json:"log_3_10"`
	Log311           tally `json:"log_3_11"`
}

// domain is whom the mail of a scenario went to.
func (s scenario) domain(all []scenario) string {
	name, of, _ := strings.Cut(s.Scenario, "--")
	switch {
	case s.Domain != "":
		return s.Domain
	case name == "tls12-twice" && strings.Contains(of, "dane"):
		return of + ".example.net"
	case name == "tls12-twice":
		return of + ".example.com"
	}
	if d, ok := map[string]string{
		"suspended": "sec-mismatch", "multi-rcpt": "may-trusted", "multi-rcpt-60": "may-trusted",
		"serial3-may": "may-trusted", "serial3-untrusted": "may-untrusted", "serial3-sec": "sec-ok",
		"serial3-sec-expired": "sec-expired", "idn-utf8": "xn--bcher-kva",
	}[name]; ok {
		return d + ".example.com"
	}
	for _, other := range all {
		if name == "tlsrequired-no" && other.Scenario == of {
			return other.Domain
		}
	}
	return ""
}

// summary is a session in the words of expected.json.
func (s told) summary() string {
	var b string
	switch {
	case s.drop == DropFallback:
		return "plaintext-fallback"
	case s.Outcome == Plaintext:
		return "plaintext"
	case s.Outcome == Failed:
		b = "handshake-failed"
	case s.Outcome == Refused:
		b = "no-starttls"
	case s.Outcome == NoSession:
		b = "no-session"
	default:
		name := s.Outcome.String()
		b = "tls-" + strings.ToUpper(name[:1]) + name[1:]
	}
	if s.Result != "" {
		b += " => " + string(s.Result)
	}
	return b
}

// policyFailures is where expected.json has less than the log: the line names
// the policy's own failure.
var policyFailures = map[string]string{
	"sts-fetcherr-secure.example.com": "sts-policy-fetch-error",
	"sts-webpki.example.com":          "sts-webpki-invalid",
	"sts-invalid.example.com":         "sts-policy-invalid",
}

// TestExpected holds outcome and result of each scenario against expected.json.
func TestExpected(t *testing.T) {
	var all []scenario
	if err := json.Unmarshal(readFile(t, "testdata/postfix-logs/expected.json"), &all); err != nil {
		t.Fatal(err)
	}
	for dir, log := range map[string]func(scenario) tally{
		"3.7.11":  func(s scenario) tally { return s.Log37 },
		"3.10.13": func(s scenario) tally { return s.Log310 },
		"3.11.7":  func(s scenario) tally { return s.Log311 },
	} {
		want := make(tally)
		for _, s := range all {
			domain := s.domain(all)
			for k, n := range log(s) {
				if f := policyFailures[domain]; f != "" && strings.HasSuffix(k, " => validation-failure") {
					k = "tls-Untrusted => " + f
				}
				if domain != "" {
					want[domain+" "+k] += n
				}
			}
		}
		got := make(tally)
		sessions, _ := parseAll(Options{}, readFile(t, filepath.Join("testdata/postfix-logs", dir, "base/maillog")))
		for _, s := range sessions {
			if !strings.HasPrefix(s.Domain, "hosted-") || s.Domain == "hosted-sts.example.com" {
				got[s.Domain+" "+s.summary()]++
			}
		}
		if d := got.diff(want); d != "" {
			t.Errorf("%s:\n%s", dir, d)
		}
	}
}

// TestDatagrams holds the sessions that libtlsrpt has, by the log, against the
// datagrams that it sent in the same run.
func TestDatagrams(t *testing.T) {
	const others = "../libtlsrpt/testdata/postfix/"
	for run, sent := range map[string]struct {
		file  string
		kinds int // at least, lest the comparison is of nothing
	}{
		"3.10.13/base":   {others + "3.10.13-base.jsonl", 50},
		"3.11.7/base":    {others + "3.11.7-base.jsonl", 50},
		"3.11.7/refused": {"testdata/postfix-logs/3.11.7/refused/datagrams.jsonl", 20},
	} {
		want := make(tally)
		for line := range bytes.Lines(readFile(t, sent.file)) {
			var d struct {
				Datagram struct {
					D        string
					Policies []struct{ F int }
				}
			}
			if err := json.Unmarshal(line, &d); err != nil {
				t.Fatal(err)
			}
			want[fmt.Sprint(d.Datagram.D, " failed ", d.Datagram.Policies[0].F == 1)]++
		}
		all, stats := parseAll(Options{ReportPlaintext: true}, readFile(t, filepath.Join("testdata/postfix-logs", run, "maillog")))
		got := make(tally)
		for _, s := range all {
			if s.Native {
				got[fmt.Sprint(s.Domain, " failed ", s.Result != "")]++
			}
		}
		if d := got.diff(want); d != "" || len(want) < sent.kinds || len(stats.NativeLost) > 0 {
			t.Errorf("%s: %d datagrams, %v lost:\n%s", run, len(want), stats.NativeLost, d)
		}
	}
}
