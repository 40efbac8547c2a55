package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/health"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// golden compares got with the file, or writes it under -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says; \"go test ./internal/web -update\" writes it anew", path)
	}
}

// small is a server of a store with a few domains and days, whose figures are the
// same each time.
func small(t testing.TB) *Server {
	t.Helper()
	store := fill(t, filling{domains: 60, full: 60, days: 3, today: testDay})
	return newServer(t, options(store, testNow), testNow)
}

var pages = map[string]string{
	"overview": "/", "domains": "/domains", "by-name": "/domains?sort=name&day=2026-11-21", "search": "/domains?q=0004",
	"domain": "/domains/" + name(0), "healthy": "/domains/" + name(1), "report": "/domains/" + name(0) + "/2026-11-21",
	"deliveries": "/deliveries", "pending": "/deliveries?state=pending", "suppressions": "/suppressions", "missing": "/domains/nowhere.example", "bad": "/deliveries?state=x",
}

// TestPages compares the text of each page: what a screen reader would say.
func TestPages(t *testing.T) {
	s := small(t)
	for name, path := range pages {
		w := get(s, path)
		text := fmt.Sprintf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), textOf(t, w.Body))
		// The store stamps what ends with the time of this run.
		text = regexp.MustCompile(`(?m)^Store: .*$`).ReplaceAllString(text, "Store: SIZE")
		golden(t, name+".txt", []byte(text))
	}
}

// textOf is the text of a page, an element a line, links with where they lead.
func textOf(t testing.TB, r io.Reader) string {
	t.Helper()
	var b strings.Builder
	z := html.NewTokenizer(r)
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); err != io.EOF {
				t.Fatal(err)
			}
			return b.String()
		case html.TextToken:
			if text := strings.TrimSpace(string(z.Text())); text != "" {
				fmt.Fprintln(&b, text)
			}
		case html.StartTagToken:
			token := z.Token()
			for _, a := range token.Attr {
				if token.Data == "a" && a.Key == "href" {
					fmt.Fprintf(&b, "-> %s\n", a.Val)
				}
			}
		}
	}
}

// TestHostile: what strangers chose makes no element and no attribute, on no page.
func TestHostile(t *testing.T) {
	store := fill(t, filling{domains: 2, full: 2, days: 2, today: testDay})
	long := strings.Repeat("<b>\x1b[2J\u202e&\"'", 8<<10)
	o := options(hostileStore{store, long}, testNow)
	m := healthy(testNow)
	m.sources[0].Err, m.sources[0].Running = errors.New(long), false
	m.report.Problems = []health.Problem{{Part: "source", Reason: long}}
	o.Monitor = m
	s := newServer(t, o, testNow)
	for _, path := range []string{"/", "/domains", "/domains/" + name(0), "/domains/" + name(0) + "/2026-11-21", "/deliveries", "/suppressions",
		"/domains?q=%3Cscript%3E%22'", "/domains?after=%3Cscript%3E", "/deliveries?domain=%3Cscript%3E", "/domains/%3Cscript%3E", "/%3Cscript%3E"} {
		w := get(s, path)
		if w.Body.Len() > 256<<10 {
			t.Errorf("%s has %d bytes", path, w.Body.Len())
		}
		checkElements(t, path, w.Body.Bytes())
	}
	for _, path := range []string{"/metrics", "/readyz"} {
		body := get(s, path).Body.String()
		if i := strings.IndexFunc(body, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x202e && path == "/metrics" }); i >= 0 {
			t.Errorf("%s: control character in %q", path, body[max(0, i-50):i+1])
		}
	}
}

// hostileStore has whatever a stranger could have put into a field, and more. Only
// the name of a domain is as short as the store has it, and a state is a state.
type hostileStore struct {
	Store
	text string
}

func (h hostileStore) KnownDomain(context.Context, string) (string, time.Time, error) {
	return h.text, testNow, nil
}

func (h hostileStore) Counted(context.Context, string, schema.Day) ([]schema.PolicyResult, error) {
	return []schema.PolicyResult{{
		Policy:  schema.Policy{Type: schema.PolicyType(h.text), Domain: h.text, Strings: []string{h.text, h.text}, MXHosts: []string{h.text}},
		Summary: schema.Summary{Failure: 1},
		FailureDetails: []schema.FailureDetails{{ResultType: schema.ResultType(h.text), ReceivingMXHostname: h.text,
			ReceivingMXHelo: h.text + "x", AdditionalInformation: "javascript:" + h.text, FailureReasonCode: h.text, FailedSessionCount: 1}},
	}}, nil
}

func (h hostileStore) DeliveryPage(context.Context, aggregator.DeliveryFilter, int64, int) ([]aggregator.Delivery, int64, error) {
	return []aggregator.Delivery{{ID: 1, Domain: h.text[:250], RUA: schema.RUA("javascript:" + h.text), State: aggregator.DeliveryGaveUp, LastError: h.text}}, 0, nil
}

func (h hostileStore) TotalsOf(_ context.Context, _ schema.Day, domains []string) ([]aggregator.DomainTotals, error) {
	return []aggregator.DomainTotals{{Domain: h.text[:250], State: aggregator.StateOpen}}, nil
}

func (h hostileStore) Failing(context.Context, schema.Day, aggregator.DomainTotals, int) ([]aggregator.DomainTotals, error) {
	return []aggregator.DomainTotals{{Domain: h.text[:250], State: aggregator.StateOpen, Totals: schema.Summary{Failure: 1}}}, nil
}

func (h hostileStore) Suppressions(_ context.Context, f func(aggregator.Suppression) error) error {
	return f(aggregator.Suppression{Address: h.text, Reason: h.text, Until: testNow.Add(time.Hour)})
}

// checkElements finds elements and attributes that no template has.
func checkElements(t *testing.T, path string, page []byte) {
	t.Helper()
	z := html.NewTokenizer(bytes.NewReader(page))
	for z.Next() != html.ErrorToken {
		token := z.Token()
		if token.Type == html.TextToken {
			if i := strings.IndexFunc(token.Data, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x202e }); i >= 0 {
				t.Errorf("%s: control character in %.80q", path, token.Data[i:])
			}
			continue
		}
		switch token.Data {
		case "b", "img", "iframe", "style", "object", "base":
			t.Errorf("%s has an element %s", path, token.Data)
		}
		for _, a := range token.Attr {
			value := strings.ToLower(strings.TrimSpace(a.Val))
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style":
				t.Errorf("%s has an attribute %s=%q", path, a.Key, a.Val)
			case (a.Key == "href" || a.Key == "src" || a.Key == "action") && !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "#"):
				t.Errorf("%s leads to %.80q", path, a.Val)
			case token.Data == "script" && a.Key == "src" && !strings.HasPrefix(value, "/assets/"):
				t.Errorf("%s runs %q", path, a.Val)
			}
		}
	}
}

// TestPaging reaches every domain once, by each order, and every delivery.
func TestPaging(t *testing.T) {
	s := newServer(t, options(fill(t, filling{domains: 180, full: 180, days: 1, today: testDay}), testNow), testNow)
	link := regexp.MustCompile(`<a href="(/domains/domain-[^"]*)">`)
	next := regexp.MustCompile(`href="([^"]*)" rel="next"`)
	for _, path := range []string{"/domains", "/domains?sort=name", "/domains?day=2026-11-21", "/domains?day=2026-11-21&sort=name", "/domains?q=domain", "/domains?q=domain&sort=name"} {
		seen, pages, failures := map[string]bool{}, 0, 0
		for at := path; at != ""; pages++ {
			w := get(s, at)
			body := w.Body.String()
			for _, m := range link.FindAllStringSubmatch(body, -1) {
				if seen[m[1]] {
					t.Errorf("%s: %s is there twice", path, m[1])
				}
				seen[m[1]] = true
			}
			failures += strings.Count(body, `<rect class="fill"`) - strings.Count(body, `width="0" height="6"/></svg>`)
			at = ""
			if m := next.FindStringSubmatch(body); m != nil {
				at = html.UnescapeString(m[1])
			}
			if pages > 20 {
				t.Fatalf("%s has no last page", path)
			}
		}
		if len(seen) != 180 {
			t.Errorf("%s: %d domains on %d pages, want 180", path, len(seen), pages)
		}
		if failures < 9 {
			t.Errorf("%s: %d domains failed, want 9 or more", path, failures)
		}
	}
	ids := regexp.MustCompile(`<td class="n">(\d+)</td>\s*<td class="w">2026`)
	seen := map[string]bool{}
	for at := "/deliveries"; at != ""; {
		body := get(s, at).Body.String()
		for _, m := range ids.FindAllStringSubmatch(body, -1) {
			seen[m[1]] = true
		}
		at = ""
		if m := next.FindStringSubmatch(body); m != nil {
			at = html.UnescapeString(m[1])
		}
	}
	if len(seen) != 90 {
		t.Errorf("%d deliveries, want 90", len(seen))
	}
}

// Failing domains come first.
func TestFailingFirst(t *testing.T) {
	s := small(t)
	for _, day := range []string{"2026-11-22", "2026-11-21"} {
		body := get(s, "/domains?day="+day).Body.String()
		first, rest := strings.Index(body, name(20)), strings.Index(body, name(1))
		if first < 0 || rest < 0 || first > rest {
			t.Errorf("%s: a domain that failed is at %d, one that did not at %d", day, first, rest)
		}
	}
}

func TestDownloads(t *testing.T) {
	s := small(t)
	base := "/domains/" + name(0) + "/2026-11-21/"
	w := get(s, base+"report.json")
	if w.Header().Get("Content-Type") != "application/json" || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment") || !strings.Contains(w.Body.String(), "organization-name") {
		t.Errorf("%v: %s", w.Header(), w.Body)
	}
	w = get(s, base+"report.eml")
	if w.Header().Get("Content-Type") != "message/rfc822" || !strings.Contains(w.Body.String(), "To: tls-reports@"+name(0)) {
		t.Errorf("%v: %s", w.Header(), w.Body)
	}
	for path, want := range map[string]int{
		"/domains/" + name(0) + "/yesterday": 400, "/domains/" + name(0) + "/2026-13-01/report.json": 400, "/domains/..%2f..%2fetc/2026-11-21": 400,
		"/assets/..%2fserver.go": 404, "/assets/nothing": 404, "/nothing": 404, "/deliveries?before=x": 400, "/domains?after=f.x.y": 400,
	} {
		if w := get(s, path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	s.o.Preview = nil
	if w := get(s, base+"report.json"); w.Code != http.StatusBadRequest {
		t.Errorf("without a contact: %d", w.Code)
	}
}

// TestProbes: what is wrong is said, and a fault that a new start does not mend
// leaves the process alive.
func TestProbes(t *testing.T) {
	for _, c := range []struct {
		problems      []health.Problem
		health, ready int
	}{
		{[]health.Problem{}, 200, 200},
		{[]health.Problem{{Part: "store", Reason: "disk full"}}, 200, 503},
		{[]health.Problem{{Part: "source", Reason: "stopped", Restart: true}}, 503, 503},
	} {
		m := healthy(testNow)
		m.report.Problems = c.problems
		s := empty(t, func(o *Options) { o.Monitor = m })
		for path, want := range map[string]int{"/healthz": c.health, "/readyz": c.ready} {
			w := get(s, path)
			if w.Code != want {
				t.Errorf("%s with %v: %d, want %d", path, c.problems, w.Code, want)
			}
			for _, p := range c.problems {
				if !strings.Contains(w.Body.String(), p.Reason) {
					t.Errorf("%s does not say %q: %s", path, p.Reason, w.Body)
				}
			}
		}
		if body := get(s, "/").Body.String(); strings.Contains(body, "Needs attention") != (len(c.problems) > 0) {
			t.Errorf("the overview with %v", c.problems)
		}
	}
}
