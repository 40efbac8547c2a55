package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// fakeDNS is a resolver without a socket, for bubbles: a listener that waits
// would stop their clock.
type fakeDNS struct {
	ttl  time.Duration
	mu   sync.Mutex
	txts map[string]string // by name; a domain without one has none
	down map[string]bool
	n    map[string]int           // queries by name
	gate map[string]chan struct{} // a look-up waits for it
}

func newFakeDNS(domains ...string) *fakeDNS {
	d := &fakeDNS{ttl: time.Minute, txts: map[string]string{}, down: map[string]bool{}, n: map[string]int{}, gate: map[string]chan struct{}{}}
	for _, domain := range domains {
		d.txts["_smtp._tls."+domain] = "v=TLSRPTv1; rua=mailto:tls@example.org"
		d.txts["_mta-sts."+domain] = "v=STSv1; id=1"
	}
	return d
}

var errDown = errors.New("no answer")

func (d *fakeDNS) Lookup(ctx context.Context, name string, qtype uint16) (resolve.Answer, error) {
	d.mu.Lock()
	gate := d.gate[name]
	d.n[name]++
	d.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return resolve.Answer{}, context.Cause(ctx)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := resolve.Answer{Name: dns.Fqdn(name), TTL: d.ttl}
	switch txt, ok := d.txts[name]; {
	case d.down[name]:
		return resolve.Answer{}, errDown
	case qtype == dns.TypeTXT && ok:
		a.Records = []dns.RR{&dns.TXT{Txt: []string{txt}}}
		return a, nil
	}
	return a, resolve.ErrNotFound
}

func (d *fakeDNS) Bogus(context.Context, string, uint16) bool { return false }

func (d *fakeDNS) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, resolve.ErrNotFound
}

func (d *fakeDNS) set(name, txt string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.txts[name] = txt; txt == "" {
		delete(d.txts, name)
	}
}

func (d *fakeDNS) fail(name string, down bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down[name] = down
}

// hold has look-ups of a name wait for gate.
func (d *fakeDNS) hold(name string, gate chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gate[name] = gate
}

func (d *fakeDNS) asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n[name]
}

// stsBubble is a Finder in a bubble, whose fetches are played.
type stsBubble struct {
	*testing.T
	*Finder
	dns *fakeDNS

	mu      sync.Mutex
	policy  STSPolicy
	failing map[string]bool // domains whose fetches fail; "" is all
	fetches int
	reports []schema.Session
}

func inBubble(t *testing.T, test func(b *stsBubble), domains ...string) {
	synctest.Test(t, func(t *testing.T) {
		b := &stsBubble{T: t, dns: newFakeDNS(domains...), failing: map[string]bool{}}
		b.policy = STSPolicy{Mode: Enforce, MaxAge: 10 * 24 * time.Hour, MX: []string{"mx.example.com"}, Lines: []string{"mode: enforce"}}
		b.Finder = New(Options{Resolver: b.dns, MTASTS: true, Report: b.report})
		b.Finder.fetch = b.play
		defer b.Close()
		test(b)
	})
}

func (b *stsBubble) report(s schema.Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, s)
}

func (b *stsBubble) play(_ context.Context, domain string) (STSPolicy, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fetches++
	if b.failing[""] || b.failing[domain] {
		return STSPolicy{}, &FetchError{schema.STSPolicyFetchError, "http-404", errors.New("gone")}
	}
	return b.policy, nil
}

func (b *stsBubble) setFailing(domain string, failing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing[domain] = failing
}

// find is the answer for domain now.
func (b *stsBubble) find(domain string) (Answer, error) {
	b.Helper()
	a, err := b.Find(domain, "")
	if err == ErrPending {
		synctest.Wait()
		a, err = b.Find(domain, "")
	}
	if err == ErrPending {
		b.Fatal("still pending")
	}
	return a, err
}

// want finds that example.com has a policy or none, and was fetched so often.
func (b *stsBubble) want(what string, policy bool, fetches int) {
	b.Helper()
	a, err := b.find("example.com")
	if err != nil || (a.STS != nil) != policy || b.fetches != fetches {
		b.Errorf("%s: policy %+v, %v, %d fetches; want one %t, %d", what, a.STS, err, b.fetches, policy, fetches)
	}
	if kind := a.Policy.Type; (kind == schema.STS) != policy {
		b.Errorf("%s: what applied is %s", what, kind)
	}
}

const day = 24 * time.Hour

func TestPolicyIsKept(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.want("at first", true, 1)
		time.Sleep(day - time.Second)
		b.want("before a day", true, 1)
		time.Sleep(time.Minute + time.Second)
		b.want("after a day", true, 2)
		time.Sleep(time.Hour)
		b.dns.set("_mta-sts.example.com", "v=STSv1; id=2")
		b.want("another id", true, 3)
		b.want("the same id", true, 3)

		b.policy.MaxAge = 2 * time.Hour
		b.dns.set("_mta-sts.example.com", "v=STSv1; id=3")
		time.Sleep(2 * time.Minute)
		b.want("a short max_age", true, 4)
		time.Sleep(time.Hour - 2*time.Minute)
		b.want("before half of it", true, 4)
		time.Sleep(4 * time.Minute)
		b.want("after half of it", true, 5)
	}, "example.com")
}

// RFC 8461, section 3.3: a policy in memory is good until its max_age is over.
func TestPolicyOutlivesItsSource(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.want("at first", true, 1)
		b.setFailing("", true)
		time.Sleep(day + time.Minute)
		b.want("not to be fetched", true, 2)
		b.dns.fail("_mta-sts.example.com", true)
		time.Sleep(day)
		b.want("DNS is down", true, 2)
		b.dns.fail("_mta-sts.example.com", false)
		b.dns.set("_mta-sts.example.com", "")
		time.Sleep(day)
		b.want("no record", true, 2)
		b.dns.set("_mta-sts.example.com", "v=STSv1; broken")
		time.Sleep(7*day - 2*time.Minute)
		b.want("just before max_age", true, 2)
		time.Sleep(3 * time.Minute)
		b.want("just after max_age", false, 2)

		b.dns.fail("_mta-sts.example.com", true)
		time.Sleep(day)
		if a, err := b.find("example.com"); !errors.Is(err, ErrUnknown) || !errors.Is(err, errDown) {
			t.Errorf("%+v, %v; want ErrUnknown", a, err)
		}
	}, "example.com")
}

func TestModeNone(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.policy = STSPolicy{Mode: None, MaxAge: 10 * day, Lines: []string{"mode: none"}}
		b.want("none", false, 1)
		b.setFailing("", true)
		time.Sleep(2 * day)
		b.want("none, and not to be fetched", false, 2)
		if len(b.reports) > 0 {
			t.Errorf("%d failures are reported, RFC 8461, section 6, wants none", len(b.reports))
		}
		time.Sleep(9 * day)
		b.want("forgotten", false, 3)
		if len(b.reports) != 1 {
			t.Errorf("%d failures are reported, want 1", len(b.reports))
		}
	}, "example.com")
}

func TestTestingMode(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.policy.Mode = Testing
		b.want("testing", true, 1)
		if a, _ := b.find("example.com"); a.STS.Mode != Testing || !a.STS.Matches("mx.example.com") || a.STS.Matches("other.example.com") {
			t.Errorf("%+v", a.STS)
		}
	}, "example.com")
}

func TestMaxAgeZero(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.policy.MaxAge = 0
		b.want("at first", true, 1)
		time.Sleep(2 * time.Minute)
		b.want("later", true, 2)
		b.setFailing("", true)
		time.Sleep(2 * time.Minute)
		b.want("not to be fetched", false, 3)
	}, "example.com")
}

// A host that fails is not asked again and again, and each time counts once.
func TestRetries(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.setFailing("", true)
		start := time.Now()
		var at []string
		for seen := 0; time.Since(start) < 4*time.Hour; time.Sleep(30 * time.Second) {
			b.find("example.com")
			if b.fetches > seen {
				seen = b.fetches
				at = append(at, time.Since(start).Truncate(time.Minute).String())
			}
		}
		want := []string{"0s", "5m0s", "15m0s", "35m0s", "1h15m0s", "2h15m0s", "3h15m0s"}
		if !slices.Equal(at, want) {
			t.Errorf("attempts at %s, want %s", at, want)
		}
		if len(b.reports) != b.fetches {
			t.Errorf("%d failures are reported of %d attempts", len(b.reports), b.fetches)
		}
		b.setFailing("", false)
		time.Sleep(time.Hour)
		b.want("it is back", true, len(want)+1)
	}, "example.com")
}

// Another id is another policy: it need not wait (RFC 8461, section 3.3).
func TestNewIDEndsTheWait(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.setFailing("", true)
		b.want("at first", false, 1)
		time.Sleep(time.Minute)
		b.want("a minute later", false, 1)
		b.setFailing("", false)
		b.dns.set("_mta-sts.example.com", "v=STSv1; id=2")
		time.Sleep(time.Minute)
		b.want("another id", true, 2)
	}, "example.com")
}

// A TTL longer than the wait must not keep a failure.
func TestFailureDoesNotWaitForDNS(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.dns.ttl = day
		b.setFailing("", true)
		b.want("at first", false, 1)
		b.setFailing("", false)
		time.Sleep(5*time.Minute + time.Second)
		b.want("after five minutes", true, 2)
	}, "example.com")
}

func TestFailureAsSession(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.setFailing("", true)
		b.want("failing", false, 1)
		if len(b.reports) != 1 {
			t.Fatalf("%d failures, want 1", len(b.reports))
		}
		s, err := b.reports[0].Canonical()
		if err != nil || len(s.Results) != 1 || s.Domain != "example.com" || s.Record != "v=TLSRPTv1; rua=mailto:tls@example.org" || !s.Time.Equal(time.Now()) {
			t.Fatalf("%+v, %v", s, err)
		}
		r := s.Results[0]
		const policy = `{"policy-type":"sts","policy-domain":"example.com"}`
		const details = `{"result-type":"sts-policy-fetch-error","failure-reason-code":"http-404"}`
		if !r.Failed || string(r.Policy.Text()) != policy || len(r.Details) != 1 || string(r.Details[0].Text()) != details {
			t.Errorf("%+v", r)
		}
	}, "example.com")
}

// names are many domains.
func names(n int) (domains []string) {
	for i := range n {
		domains = append(domains, fmt.Sprintf("d%d.example.com", i))
	}
	return domains
}

// An outage of ours is no failure of theirs, and while it lasts nobody knows
// what the policies are.
func TestOutageIsNotReported(t *testing.T) {
	domains := names(20)
	inBubble(t, func(b *stsBubble) {
		b.setFailing("", true)
		unknown := 0
		for _, d := range domains {
			if _, err := b.find(d); errors.Is(err, ErrUnknown) {
				unknown++
			}
		}
		if len(b.reports) != fewFailures || unknown != len(domains)-fewFailures {
			t.Errorf("%d of %d failures are reported, %d policies unknown", len(b.reports), b.fetches, unknown)
		}
		if st := b.Stats(); st.Fetches != 20 || st.FetchFailures != 20 || st.Suppressed != 18 {
			t.Errorf("%+v", st)
		}
		// Not even later, when it is not yet time to try again.
		time.Sleep(2 * time.Minute)
		if _, err := b.find(domains[19]); !errors.Is(err, ErrUnknown) || b.fetches != 20 {
			t.Errorf("%v after %d fetches, want ErrUnknown", err, b.fetches)
		}
		b.setFailing("", false)
		time.Sleep(10 * time.Minute)
		if a, err := b.find(domains[19]); err != nil || a.STS == nil {
			t.Errorf("%+v, %v after the outage", a.STS, err)
		}
	}, domains...)
}

// An outage that begins late is seen within minutes, though all was well before.
func TestLateOutage(t *testing.T) {
	domains := names(60)
	inBubble(t, func(b *stsBubble) {
		for _, d := range domains[:40] {
			b.find(d)
		}
		time.Sleep(time.Hour)
		b.setFailing("", true)
		for _, d := range domains[40:] {
			b.find(d)
		}
		if b.fetches != 60 || len(b.reports) != fewFailures {
			t.Errorf("%d of %d failures are reported", len(b.reports), b.fetches-40)
		}
		for range 12 { // the first ones that failed fail again
			time.Sleep(10 * time.Minute)
			b.find(domains[40])
			b.find(domains[41])
		}
		if b.fetches < 68 || len(b.reports) != fewFailures {
			t.Errorf("%d of %d failures are reported", len(b.reports), b.fetches-40)
		}
	}, domains...)
}

// A port that is closed to us is seen over a day, however rarely it is tried.
func TestClosedPort(t *testing.T) {
	domains := names(20)
	inBubble(t, func(b *stsBubble) {
		b.setFailing("", true)
		for _, d := range domains {
			b.find(d)
			time.Sleep(time.Hour)
		}
		for _, d := range domains { // a day later
			b.find(d)
			time.Sleep(time.Hour)
		}
		if len(b.reports) != fewFailures {
			t.Errorf("%d of %d failures are reported", len(b.reports), b.fetches)
		}
	}, domains...)
}

// Some that fail among many that do not are to blame themselves, however often
// they are tried.
func TestFailuresAmongSuccesses(t *testing.T) {
	domains := names(20)
	inBubble(t, func(b *stsBubble) {
		for _, d := range domains[:7] {
			b.setFailing(d, true)
		}
		slices.Reverse(domains) // those that fail come last
		for range 4 {
			for _, d := range domains {
				b.find(d)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(9 * time.Minute)
		for _, d := range domains {
			b.find(d)
		}
		if len(b.reports) != 14 || b.Stats().Suppressed != 0 {
			t.Errorf("%d failures are reported, %+v; want 14", len(b.reports), b.Stats())
		}
	}, domains...)
}

func TestImportReportsNothing(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.Finder.report = nil
		b.setFailing("", true)
		b.want("failing", false, 1)
		if st := b.Stats(); st.FetchFailures != 1 || st.Suppressed != 0 {
			t.Errorf("%+v", st)
		}
	}, "example.com")
}

func TestAttemptsForget(t *testing.T) {
	var a attempts
	now := time.Now()
	for i := range 3 * maxOutcomes {
		a.add(attempt{now, fmt.Sprint(i), i < 2*maxOutcomes, now})
	}
	if a.outage(now, now) {
		t.Error("what was long ago counts")
	}
	a = attempts{}
	for range maxOutcomes {
		a.add(attempt{now, "example.com", true, now})
	}
	if a.outage(now, now) {
		t.Error("one domain is most")
	}
}
