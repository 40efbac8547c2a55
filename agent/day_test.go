package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// world is the network of a bubble: records, and a relay that takes mail. Real
// sockets would stop the bubble's clock.
type world struct {
	mu      sync.Mutex
	records map[string]string
	asked   map[string]int
	faults  map[string]error // by domain: of the look-up
	refuse  func(to string, attempt int) error
	slow    time.Duration  // how long each attempt takes
	tries   map[string]int // by recipient
	mails   []arrived
}

// arrived is one attempt to deliver, accepted or not.
type arrived struct {
	at       time.Time
	to       string
	raw      []byte
	accepted bool
}

func newWorld(domains ...string) *world {
	w := &world{records: map[string]string{}, asked: map[string]int{}, faults: map[string]error{}, tries: map[string]int{}}
	for _, d := range domains {
		w.records[d] = "v=TLSRPTv1; rua=mailto:reports@" + d
	}
	return w
}

var errPanic = errors.New("panic")

func (w *world) LookupTXT(_ context.Context, name string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	domain := strings.TrimPrefix(name, "_smtp._tls.")
	w.asked[domain]++
	switch err := w.faults[domain]; {
	case err == errPanic:
		panic("a hostile record")
	case err != nil:
		return nil, err
	}
	if txt, ok := w.records[domain]; ok {
		return []string{txt}, nil
	}
	return nil, resolve.ErrNotFound
}

// unreachable is a network in which no host can be reached. The system's resolver
// would leave traces of one bubble for the next to stumble over.
type unreachable struct{}

func (unreachable) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, syscall.EHOSTUNREACH
}

func (w *world) Mail(_ context.Context, e submitter.Envelope, message []byte) error {
	to := e.To
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries[to]++
	try := w.tries[to]
	if w.slow > 0 {
		w.mu.Unlock()
		time.Sleep(w.slow)
		w.mu.Lock()
	}
	var err error
	if w.refuse != nil {
		err = w.refuse(to, try)
	}
	w.mails = append(w.mails, arrived{time.Now(), to, bytes.Clone(message), err == nil})
	return err
}

// reports is what was accepted, in the order of arrival.
func (w *world) reports(t *testing.T) (reports []*schema.Report) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.mails {
		if m.accepted {
			reports = append(reports, readReport(t, m.raw))
		}
	}
	return reports
}

// readReport takes the report out of a message.
func readReport(t *testing.T, raw []byte) *schema.Report {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	check(t, err)
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	check(t, err)
	parts := multipart.NewReader(m.Body, params["boundary"])
	_, err = parts.NextPart()
	check(t, err)
	part, err := parts.NextPart()
	check(t, err)
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, part))
	check(t, err)
	text, err := io.ReadAll(z)
	check(t, err)
	r, err := schema.Decode(text)
	check(t, err)
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// day0 is the day on which every bubble begins.
var day0, _ = schema.ParseDay("2000-01-01")

// bench is an agent in a bubble, on a real store.
type bench struct {
	*testing.T
	*world
	*Agent
	store *aggregator.Store
	path  string
	end   func()

	rarely bool // see restartRarely
}

// bubble runs f in a bubble whose clock stands at midnight of day0.
func bubble(t *testing.T, f func(b *bench), domains ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, world: newWorld(domains...), path: path}
		b.start(Options{})
		f(b)
		b.stop()
	})
}

// start opens the store and runs an agent on it.
func (b *bench) start(o Options) {
	b.Helper()
	var err error
	b.store, err = aggregator.Open(b.path, aggregator.Options{Spread: 4 * time.Hour})
	check(b.T, err)
	o.Store, o.Contact = b.store, "tls-reports@example.com"
	if o.Grace == 0 {
		o.Grace = 15 * time.Minute
	}
	o.Submitter = &submitter.Submitter{Resolver: b.world, Mail: b.world, ExternalDKIM: true, Dialer: unreachable{}}
	b.Agent, err = New(o)
	check(b.T, err)
	if b.rarely {
		b.Agent.pause = 20 * time.Minute
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- b.Agent.Run(ctx) }()
	b.end = func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		check(b.T, b.store.Close())
	}
}

// stop ends the agent and closes the store, once.
func (b *bench) stop() {
	if b.end != nil {
		b.end()
		b.end = nil
	}
}

// until sleeps until a time of a day, such as "00:14".
func (b *bench) until(d schema.Day, clock string) {
	b.Helper()
	at, err := time.Parse("15:04", clock)
	check(b.T, err)
	target := d.Start().Add(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute)
	if time.Until(target) <= 0 {
		b.Fatalf("%s is past", target)
	}
	time.Sleep(time.Until(target))
	synctest.Wait()
}

// session records one session with domain, at t or now.
func (b *bench) session(domain string, failed bool, t ...time.Time) {
	b.Helper()
	s := schema.Session{Domain: domain, Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}, Failed: failed}}}
	if failed {
		s.Results[0].Details = []schema.FailureDetails{{ResultType: schema.CertificateExpired}}
	}
	if len(t) > 0 {
		s.Time = t[0]
	}
	check(b.T, b.Record(s))
}

// want compares the reports that arrived so far, "domain day success/failure".
func (b *bench) want(want ...string) {
	b.Helper()
	got := []string{}
	for _, r := range b.reports(b.T) {
		total := r.Totals()
		got = append(got, fmt.Sprintf("%s %s %d/%d", r.Policies[0].Policy.Domain, r.DateRange.Start.Format(time.DateOnly), total.Success, total.Failure))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.Errorf("reports %q, want %q", got, want)
	}
}

// states is "domain rua-state attempts" of all deliveries.
func (b *bench) states() (s []string) {
	b.Helper()
	check(b.T, b.store.Deliveries(b.Context(), aggregator.DeliveryFilter{}, func(d aggregator.Delivery) error {
		s = append(s, fmt.Sprintf("%s %s", d.Domain, d.State))
		return nil
	}))
	return s
}

// state is what became of a domain-day.
func (b *bench) state(domain string, d schema.Day) aggregator.State {
	b.Helper()
	dd, err := b.store.DomainDayOf(b.Context(), d, domain)
	check(b.T, err)
	return dd.State
}

func TestDay(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "12:00")
		b.session("example.org", false)
		b.session("Example.ORG.", true)
		b.session("example.net", false) // asks for nothing
		b.until(day0, "23:59")
		b.session("example.org", false)
		b.until(day0+1, "00:14")
		b.want() // within the grace
		b.until(day0+1, "04:16")
		b.want("example.org 2000-01-01 2/1")
		if got := b.state("example.net", day0); got != aggregator.StateNoRecord {
			b.Errorf("a domain without record is %s", got)
		}
		first := b.mails[0].at
		if open, close := (day0 + 1).Start().Add(15*time.Minute), (day0 + 1).Start().Add(4*time.Hour+16*time.Minute); first.Before(open) || first.After(close) {
			b.Errorf("sent at %s, not within the spread", first)
		}
		b.session("example.org", false)
		b.until(day0+2, "12:00")
		b.want("example.org 2000-01-01 2/1", "example.org 2000-01-02 1/0")
		b.until(day0+4, "12:00")
		b.want("example.org 2000-01-01 2/1", "example.org 2000-01-02 1/0")
	}, "example.org")
}

// TestSpread: many domains are not looked up and mailed at the same moment.
func TestSpread(t *testing.T) {
	domains := make([]string, 40)
	for i := range domains {
		domains[i] = fmt.Sprintf("d%d.example", i)
	}
	bubble(t, func(b *bench) {
		for _, d := range domains {
			b.session(d, false)
		}
		b.until(day0+1, "06:00")
		if len(b.mails) != len(domains) {
			b.Fatalf("%d mails, want %d", len(b.mails), len(domains))
		}
		hours := map[int]int{}
		for _, m := range b.mails {
			hours[m.at.Hour()]++
		}
		if len(hours) < 4 {
			b.Errorf("all reports within the hours %v", hours)
		}
	}, domains...)
}

func TestMissedDays(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "12:00")
		b.session("example.org", false)
		b.stop()
		time.Sleep(40 * time.Hour) // over the run of the next day
		b.start(Options{})
		b.session("example.org", true)
		time.Sleep(5 * time.Hour)
		b.want("example.org 2000-01-01 1/0")
		b.stop()
		time.Sleep(10 * 24 * time.Hour) // too long
		b.start(Options{})
		time.Sleep(24 * time.Hour)
		b.want("example.org 2000-01-01 1/0")
		if got := b.state("example.org", day0+2); got != aggregator.StateNotSent {
			b.Errorf("a day of long ago is %s", got)
		}
	}, "example.org")
}

func TestNotSentFromBeforeSwitchedOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, world: newWorld("example.org"), path: path}
		store, err := aggregator.Open(path, aggregator.Options{})
		check(t, err)
		silent, err := New(Options{Store: store})
		check(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- silent.Run(ctx) }()
		b.Agent = silent
		b.session("example.org", false)
		b.until(day0+1, "12:00")
		b.session("example.org", false)
		stop()
		check(t, <-done)
		check(t, store.Close())
		b.start(Options{})
		b.until(day0+3, "12:00")
		b.want("example.org 2000-01-02 1/0")
		b.stop()
	})
}

// TestRetry: a relay that is down for most of a day gets the same message again
// and again, and takes it once.
func TestRetry(t *testing.T) {
	bubble(t, func(b *bench) {
		b.session("example.org", false)
		b.until(day0+1, "00:00")
		up := time.Now().Add(26 * time.Hour)
		b.refuse = func(string, int) error {
			if time.Now().Before(up) {
				return &submitter.Error{Temporary: true, Reply: "451 4.3.0 try later"}
			}
			return nil
		}
		b.until(day0+2, "12:00")
		if len(b.mails) < 8 || len(b.mails) > 20 {
			b.Errorf("%d attempts in 24 hours", len(b.mails))
		}
		for i, m := range b.mails {
			if !bytes.Equal(m.raw, b.mails[0].raw) {
				b.Errorf("attempt %d sent another message", i+1)
			}
		}
		if got := b.states(); !slices.Equal(got, []string{"example.org expired"}) && !slices.Equal(got, []string{"example.org sent"}) {
			b.Errorf("deliveries %q", got)
		}
		span := b.mails[len(b.mails)-1].at.Sub(b.mails[0].at)
		if span > lifetime+time.Minute {
			b.Errorf("the last attempt was %s after the first", span)
		}
	}, "example.org")
}

func TestExpiry(t *testing.T) {
	bubble(t, func(b *bench) {
		b.session("example.org", false)
		b.refuse = func(string, int) error { return &submitter.Error{Temporary: true, Reply: "451 4.3.0 try later"} }
		b.until(day0+3, "00:00")
		if got := b.states(); !slices.Equal(got, []string{"example.org expired"}) {
			b.Errorf("deliveries %q, want one expired", got)
		}
		if span := b.mails[len(b.mails)-1].at.Sub(b.mails[0].at); span < lifetime || span > lifetime+time.Minute {
			b.Errorf("the last attempt was %s after the first, want %s", span, lifetime)
		}
	}, "example.org")
}

func TestRetryAfter(t *testing.T) {
	bubble(t, func(b *bench) {
		b.session("example.org", false)
		b.refuse = func(_ string, attempt int) error {
			if attempt == 1 {
				return &submitter.Error{Temporary: true, RetryAfter: 3 * time.Hour}
			}
			return nil
		}
		b.until(day0+1, "12:00")
		b.want("example.org 2000-01-01 1/0")
		if wait := b.mails[1].at.Sub(b.mails[0].at); wait < 3*time.Hour || wait > 3*time.Hour+time.Minute {
			b.Errorf("tried again after %s, was told 3h", wait)
		}
	}, "example.org")
}

func TestGiveUp(t *testing.T) {
	bubble(t, func(b *bench) {
		b.session("example.org", false)
		b.refuse = func(string, int) error { return &submitter.Error{Reply: "550 5.1.1 no such user"} }
		b.until(day0+2, "00:00")
		if got := b.states(); len(b.mails) != 1 || !slices.Equal(got, []string{"example.org gave-up"}) {
			b.Errorf("%d attempts, deliveries %q", len(b.mails), got)
		}
	}, "example.org")
}

// TestHostileDomain: a domain whose look-up panics, fails or is malformed delays
// and stops nobody else.
func TestHostileDomain(t *testing.T) {
	bubble(t, func(b *bench) {
		b.records["twice.example"] = "v=TLSRPTv1; rua=mailto:a@twice.example,mailto:a@twice.example"
		b.records["noscheme.example"] = "v=TLSRPTv1; rua=a@noscheme.example"
		b.records["newline.example"] = "v=TLSRPTv1; rua=mailto:a%0Ab@newline.example"
		b.records["glob.example"] = "v=TLSRPTv1; rua=https://glob.example/[1-50]"
		b.faults["panic.example"] = errPanic
		b.faults["servfail.example"] = errors.New("SERVFAIL")
		for _, d := range []string{"panic.example", "servfail.example", "twice.example", "noscheme.example", "newline.example", "glob.example", "example.org"} {
			b.session(d, false)
		}
		b.until(day0+1, "05:00")
		b.want("example.org 2000-01-01 1/0", "twice.example 2000-01-01 1/0")
		b.until(day0+1, "23:00")
		for d, want := range map[string]aggregator.State{
			"panic.example": aggregator.StateExpired, "servfail.example": aggregator.StateExpired,
			"noscheme.example": aggregator.StateNoRecord, "newline.example": aggregator.StateNoRecord,
		} {
			if got := b.state(d, day0); got != want {
				b.Errorf("%s is %s, want %s", d, got, want)
			}
		}
	}, "example.org")
}

// TestRecordSeenEarlier: where the DNS fails for hours, the record that the mail
// server saw stands in.
func TestRecordSeenEarlier(t *testing.T) {
	bubble(t, func(b *bench) {
		b.faults["example.org"] = errors.New("SERVFAIL")
		s := schema.Session{Domain: "example.org", Record: "v=TLSRPTv1; rua=mailto:seen@example.org",
			Results: []schema.Result{{Policy: schema.Policy{Type: schema.NoPolicyFound}}}}
		check(b.T, b.Record(s))
		b.until(day0+1, "06:10")
		b.want() // the look-up is still retried
		b.until(day0+1, "20:00")
		b.want("example.org 2000-01-01 1/0")
		if len(b.mails) > 0 && b.mails[0].to != "seen@example.org" {
			b.Errorf("sent to %s", b.mails[0].to)
		}
	})
}

// TestLateSession: what comes after the report goes into a supplement, once.
func TestLateSession(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "10:00")
		noon := time.Now()
		b.session("example.org", false)
		b.until(day0+1, "06:00")
		b.session("example.org", true, noon)
		b.until(day0+1, "12:00")
		b.want("example.org 2000-01-01 1/0") // waits for the next run
		b.until(day0+2, "06:00")
		b.want("example.org 2000-01-01 1/0", "example.org 2000-01-01 0/1")
		r := b.reports(b.T)
		if len(r) == 2 && r[0].ReportID == r[1].ReportID {
			b.Errorf("the supplement has the id of the report, %s", r[0].ReportID)
		}
		if !bytes.Contains(b.mails[1].raw, []byte(r[0].ReportID)) {
			b.Error("the supplement does not name the report it adds to")
		}
	}, "example.org")
}

// TestSubmit: by hand, closed days go out at once, open ones do not.
func TestSubmit(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "12:00")
		b.session("example.org", false)
		b.session("example.net", false)
		time.Sleep(2 * time.Second)
		check(b.T, b.Submit(b.Context(), Submission{}, nil))
		b.want()
		if err := b.Submit(b.Context(), Submission{Day: day0}, nil); err == nil {
			b.Error("a day that is not over was submitted")
		}
		b.stop() // or the daemon may be quicker
		time.Sleep(13 * time.Hour)
		store, err := aggregator.Open(b.path, aggregator.Options{Spread: 4 * time.Hour})
		check(b.T, err)
		byHand, err := New(Options{Store: store, Contact: "tls-reports@example.com", Submitter: b.submitter})
		check(b.T, err)
		var seen []string
		check(b.T, byHand.Submit(b.Context(), Submission{Domain: "example.org"}, func(d aggregator.Delivery, o aggregator.Outcome) {
			seen = append(seen, d.Domain+" "+string(o.State))
		}))
		if !slices.Equal(seen, []string{"example.org sent"}) {
			b.Errorf("seen %q", seen)
		}
		check(b.T, store.Close())
		b.want("example.org 2000-01-01 1/0")
		b.start(Options{})
		b.until(day0+1, "12:00")
		b.want("example.org 2000-01-01 1/0", "example.net 2000-01-01 1/0")
	}, "example.org", "example.net")
}

// TestPreview: the preview of a day that is over is byte for byte what is sent.
func TestPreview(t *testing.T) {
	bubble(t, func(b *bench) {
		b.until(day0, "12:00")
		b.session("example.org", true)
		b.until(day0+1, "00:01")
		before, err := b.Preview(b.Context(), "example.org", day0)
		check(b.T, err)
		b.until(day0+1, "06:00")
		after, err := b.Preview(b.Context(), "example.org", day0)
		check(b.T, err)
		if before.ReportID != after.ReportID || !bytes.Equal(before.Gzip, after.Gzip) {
			b.Error("the preview differs from the report")
		}
		if sent := b.reports(b.T); len(sent) != 1 || sent[0].ReportID != before.ReportID {
			b.Errorf("sent %d reports", len(sent))
		}
		if _, err := b.Preview(b.Context(), "example.com", day0); !errors.Is(err, aggregator.ErrNoData) {
			b.Errorf("preview of an unknown domain: %v", err)
		}
	}, "example.org")
}
