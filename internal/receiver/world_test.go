package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"
)

func startWorld(t *testing.T) *World {
	t.Helper()
	w, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// publishKeys makes the keys of the fixture known in the zone of w.
func publishKeys(w *World, f *fixture) {
	for name, text := range f.records {
		w.Zone.SetTXT(name, text)
	}
}

func (w *World) sendMail(t *testing.T, f *fixture) error {
	t.Helper()
	c := dialPlain(t, w.SMTP)
	return c.SendMail("tls-reports@example.com", []string{"tlsrpt@example.org"}, bytes.NewReader(f.message()))
}

// sendPost sends the fixture to w. It is signed for the time at which it goes.
func (w *World) sendPost(t *testing.T, f *fixture) *http.Response {
	t.Helper()
	f.url = w.URL("/v1?a=b")
	f.params = f.swap(f.params, fmt.Sprint(arrival.Unix()), fmt.Sprint(time.Now().Unix()))
	p := f.post()
	req, err := http.NewRequestWithContext(t.Context(), p.Method, p.URL, bytes.NewReader(p.Body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = p.Header
	resp, err := client(t, w.HTTPS).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestWorld(t *testing.T) {
	w := startWorld(t)
	f := newFixture(t)
	publishKeys(w, f)
	w.Publish("example.org", "v=TLSRPTv1; rua=mailto:tlsrpt@example.org,"+w.URL("/v1"))
	if got := answers(t, w.Zone, "udp", "_smtp._tls.example.org", dns.TypeTXT); len(got) != 1 || !strings.Contains(got[0], "https://reports.example.org:") {
		t.Errorf("published %q", got)
	}
	if got := answers(t, w.Zone, "udp", "reports.example.net", dns.TypeA); !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("reports.example.net is at %q", got)
	}
	w.Publish("example.org", "")
	if got := answers(t, w.Zone, "udp", "_smtp._tls.example.org", dns.TypeTXT); !slices.Equal(got, []string{"NXDOMAIN"}) {
		t.Errorf("after taking it away: %q", got)
	}

	w.HTTPS.Script("/v1", HTTPReply{Status: 503})
	w.SMTP.Script(AtDATA, "tlsrpt@example.org", &smtp.SMTPError{Code: 451, Message: "later"})
	if resp := w.sendPost(t, newFixture(t)); resp.StatusCode != 503 {
		t.Errorf("the script: %s", resp.Status)
	}
	if err := w.sendMail(t, f); err == nil {
		t.Error("the script accepted the mail")
	}
	if n := len(w.Reports()); n != 0 {
		t.Errorf("%d reports, none was accepted", n)
	}
	if resp := w.sendPost(t, newFixture(t)); resp.StatusCode != 201 {
		t.Errorf("the report: %s", resp.Status)
	}
	if err := w.sendMail(t, f); err != nil {
		t.Error(err)
	}
	reports, err := w.Wait(t.Context(), 2)
	if err != nil || len(reports) != 2 || reports[0].Via != "https" || reports[1].Via != "mailto" {
		t.Fatalf("got %+v, %v", reports, err)
	}
	for _, r := range reports {
		checkGood(t, r)
		if len(r.Signatures) == 0 {
			t.Errorf("by %s: no signature", r.Via)
		}
	}
}

func TestWorldFindsOneIDForTwoReports(t *testing.T) {
	w := startWorld(t)
	for _, name := range []string{"Example Inc.", "Example Inc.", "Example Ltd."} {
		f := newFixture(t)
		f.replace("Example Inc.", name)
		publishKeys(w, f)
		if err := w.sendMail(t, f); err != nil {
			t.Fatal(err)
		}
	}
	reports := w.Reports()
	checkGood(t, reports[0])
	checkGood(t, reports[1]) // the same once more
	wantProblem(t, reports[2], "is that of another report")
}

func TestWorldWaitEnds(t *testing.T) {
	w := startWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrNoProgress)
	if reports, err := w.Wait(ctx, 1); len(reports) != 0 || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %d reports, %v", len(reports), err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

func TestWorldWaitsForBoth(t *testing.T) {
	w := startWorld(t)
	f := newFixture(t)
	publishKeys(w, f)
	type result struct {
		n   int
		err error
	}
	waited := make(chan result)
	go func() {
		reports, err := w.Wait(t.Context(), 2)
		waited <- result{len(reports), err}
	}()
	if err := w.sendMail(t, f); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-waited:
		t.Fatalf("one report was %d, %v", r.n, r.err)
	default:
	}
	if resp := w.sendPost(t, newFixture(t)); resp.StatusCode != 201 {
		t.Errorf("the report: %s", resp.Status)
	}
	if r := <-waited; r.n != 2 || r.err != nil {
		t.Errorf("got %d reports, %v", r.n, r.err)
	}
}

func TestWorldHosts(t *testing.T) {
	w, err := Start(Options{Hosts: []string{"tlsrpt.example.net"}, SMTP: SMTPOptions{User: "u", Password: "p"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if url := w.URL("/x"); !strings.HasPrefix(url, "https://tlsrpt.example.net:") || !strings.HasSuffix(url, "/x") {
		t.Errorf("URL is %q", url)
	}
	if _, err := Start(Options{SMTP: SMTPOptions{Implicit: true}}); err == nil {
		t.Error("impossible options were accepted") // and nothing may leak: see TestMain
	}
}

// goleak in TestMain would find what is left: this leaves as much as possible.
func TestWorldCloseEndsAll(t *testing.T) {
	w := startWorld(t)
	c := dialPlain(t, w.SMTP)
	resp := send(t, client(t, w.HTTPS), w.URL("/"), "x")
	if resp.StatusCode != 201 {
		t.Errorf("answer %s", resp.Status)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Noop(); err == nil {
		t.Error("SMTP is still there")
	}
	if _, err := ask(w.Zone, "tcp", "example.org", dns.TypeTXT); err == nil {
		t.Error("DNS is still there")
	}
	if n := len(w.Reports()); n != 1 {
		t.Errorf("%d reports after Close, want 1", n)
	}
}
