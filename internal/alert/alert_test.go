package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const testDay schema.Day = 20779 // 2026-11-22

var testNow = testDay.Start().Add(12 * time.Hour)

// seen is sessions of a domain.
func seen(day schema.Day, domain string, success, failure int64) schema.Count {
	c := schema.Count{Day: day, Domain: domain, Success: success, Failure: failure}
	if failure > 0 {
		c.Details = []schema.DetailsCount{{Details: schema.FailureDetails{ResultType: schema.CertificateExpired, FailureReasonCode: `"x`}.Text(), Sessions: failure}}
	}
	return c
}

func TestWindow(t *testing.T) {
	w := NewWindow(time.Hour)
	at := func(d time.Duration, counts ...schema.Count) { w.Record(testNow.Add(d), counts) }
	want := func(d time.Duration, least int64, want string) {
		t.Helper()
		var got []string
		for _, r := range w.Rates(testNow.Add(d), least) {
			got = append(got, fmt.Sprintf("%s %d/%d %.2f %v", r.Domain, r.Failure, r.Sessions(), r.Share(), r.Results))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("after %s: %s, want %s", d, got, want)
		}
	}
	want(0, 1, "")
	at(0, seen(testDay, "a.example", 9, 1), seen(testDay, "b.example", 100, 0))
	at(5*time.Minute, seen(testDay-1, "old.example", 0, 50)) // from a log of yesterday
	want(5*time.Minute, 1, "a.example 1/10 0.10 map[certificate-expired:1]")
	at(20*time.Minute, seen(testDay, "a.example", 0, 10), seen(testDay, "b.example", 0, 50))
	want(20*time.Minute, 1, "b.example 50/150 0.33 map[certificate-expired:50], a.example 11/20 0.55 map[certificate-expired:11]")
	want(20*time.Minute, 100, "b.example 50/150 0.33 map[certificate-expired:50]")
	want(65*time.Minute, 1, "b.example 50/50 1.00 map[certificate-expired:50], a.example 10/10 1.00 map[certificate-expired:10]")
	want(3*time.Hour, 1, "")
	at(3*time.Hour, seen(testDay, "a.example", 1, 1))
	want(3*time.Hour, 1, "a.example 1/2 0.50 map[certificate-expired:1]")
}

// Memory has a bound, and what has no room is counted.
func TestWindowFull(t *testing.T) {
	w := NewWindow(time.Hour)
	var counts []schema.Count
	for i := range maxSlotDomains + 7 {
		counts = append(counts, seen(testDay, fmt.Sprintf("d%d.example", i), 0, 1))
	}
	w.Record(testNow, counts)
	if got := w.Unlisted(); got != 7 {
		t.Errorf("%d sessions had no room, want 7", got)
	}
	if got := len(w.Rates(testNow, 1)); got != maxFailing {
		t.Errorf("%d domains are listed, want %d", got, maxFailing)
	}
}

// hook keeps what it is told.
type hook struct {
	mu      sync.Mutex
	notices []Notice
}

func (h *hook) Notify(_ context.Context, n Notice) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notices = append(h.notices, n)
	return nil
}

// take is what it was told since the last call.
func (h *hook) take() []Notice {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.notices
	h.notices = nil
	return n
}

// TestAlerter: a domain that fails is told of once, again after the pause, and
// when it recovers.
func TestAlerter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour) // away from midnight: what is of another day does not count
		h := &hook{}
		w := NewWindow(time.Hour)
		a := New(Options{Window: w, Threshold: 0.2, MinSessions: 20, Pause: 3 * time.Hour, Hooks: []Hook{h}})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { a.Run(ctx); close(done) }()
		record := func(success, failure int64) {
			now := time.Now()
			w.Record(now, []schema.Count{seen(schema.DayOf(now), "bad.example", success, failure), seen(schema.DayOf(now), "few.example", 0, 4)})
		}
		heard := func(want ...Status) {
			t.Helper()
			time.Sleep(2 * interval)
			synctest.Wait()
			var got []Status
			for _, n := range h.take() {
				for _, a := range n.Alerts {
					if got = append(got, a.Status); a.Domain != "bad.example" {
						t.Errorf("told of %s", a.Domain)
					}
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("at %s heard %v, want %v", time.Now(), got, want)
			}
		}
		record(100, 24)
		heard()
		record(0, 10)
		heard(Failing)
		record(0, 10)
		heard()
		time.Sleep(time.Hour + 20*time.Minute)
		heard() // it is over, but a pause has not passed
		record(0, 30)
		heard()
		time.Sleep(90 * time.Minute)
		record(0, 30)
		heard()
		time.Sleep(10 * time.Minute)
		heard(Failing)
		time.Sleep(4 * time.Hour)
		heard(Recovered)
		stop()
		<-done
	})
}

func notice(domain string) Notice {
	return Notice{Version: 1, Time: schema.Timestamp{Time: testNow}, Window: "1h", Alerts: []Alert{{
		Domain: domain, Status: Failing, Since: schema.Timestamp{Time: testNow}, Sessions: 40, Failures: 30, Rate: 0.75,
		Results: map[schema.ResultType]int64{schema.CertificateExpired: 30}}}}
}

const wantNotice = `{"version":1,"time":"2026-11-22T12:00:00Z","window":"1h","alerts":[{"domain":"a.example","status":"failing","since":"2026-11-22T12:00:00Z","sessions":40,"failures":30,"rate":0.75,"results":{"certificate-expired":30}}]}`

func TestExec(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	if err := (Exec{"/bin/sh", "-c", `cat > "$1"; printf %s "$2" >> "$1"`, "sh", out, "; $(touch /nowhere)"}).Notify(t.Context(), notice("a.example")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil || string(got) != wantNotice+"\n; $(touch /nowhere)" {
		t.Errorf("got %s (%v)", got, err)
	}
	err = Exec{"/bin/sh", "-c", `printf 'no mail\033[2J' >&2; exit 3`}.Notify(t.Context(), notice("a.example"))
	if err == nil || !strings.Contains(err.Error(), `exit status 3: "no mail\x1b[2J"`) {
		t.Errorf("a program that fails: %v", err)
	}
	if err := (Exec{"/nowhere/program"}).Notify(t.Context(), notice("a.example")); err == nil {
		t.Error("a program that is not there is no error")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := (Exec{"/bin/sh", "-c", "sleep 60"}).Notify(ctx, notice("a.example")); err == nil {
		t.Error("a program that does not end is no error")
	}
}

func TestWebhook(t *testing.T) {
	var got, kind string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, kind = string(b), r.Method+" "+r.Header.Get("Content-Type")
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/full":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	if err := Webhook(srv.URL+"/ok").Notify(t.Context(), notice("a.example")); err != nil {
		t.Error(err)
	}
	if got != wantNotice || kind != "POST application/json" {
		t.Errorf("%s: %s", kind, got)
	}
	for _, path := range []string{"/away", "/full"} {
		if err := Webhook(srv.URL+path).Notify(t.Context(), notice("a.example")); err == nil {
			t.Errorf("%s is no error", path)
		}
	}
	srv.Close()
	err := Webhook(srv.URL+"/secret-of-the-url").Notify(t.Context(), notice("a.example"))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a server that is gone: %v", err)
	}
}

// Names of strangers stay within the JSON.
func TestNoticeHostile(t *testing.T) {
	n := notice("\x1b[2J\"};<script>\u202e\n")
	text, err := json.Marshal(n)
	if err != nil || strings.ContainsAny(string(text), "\x1b\n<") {
		t.Errorf("%q (%v)", text, err)
	}
}

// TestWindowCopies: a window lasts an hour, and the texts of counts are parts of
// much longer ones.
func TestWindowCopies(t *testing.T) {
	w := NewWindow(time.Hour)
	now := time.Now()
	c := schema.Count{
		Day: schema.DayOf(now), Domain: "a.example", Failure: 1,
		Details: []schema.DetailsCount{{Details: schema.FailureDetails{ResultType: schema.CertificateExpired}.Text(), Sessions: 1}},
	}
	w.Record(now, []schema.Count{c})
	rates := w.Rates(now, 0)
	if len(rates) != 1 || rates[0].Domain != c.Domain || rates[0].Results[schema.CertificateExpired] != 1 {
		t.Fatalf("rates %v", rates)
	}
	if unsafe.StringData(rates[0].Domain) == unsafe.StringData(c.Domain) {
		t.Error("the domain is not a copy")
	}
	for result := range rates[0].Results {
		if unsafe.StringData(string(result)) == unsafe.StringData(string(c.Details[0].Details.ResultType())) {
			t.Error("the result type is not a copy")
		}
	}
}
