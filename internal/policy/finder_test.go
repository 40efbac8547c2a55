package policy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestFindDANE(t *testing.T) {
	z := daneWorld(t)
	f := start(t, Options{Resolver: z.resolver(), DANE: true})
	check := func(domain, mx string, kind schema.PolicyType, policyDomain string, half bool) {
		t.Helper()
		a, err := find(t, f, domain, mx)
		if err != nil || a.Policy.Type != kind || a.Policy.Domain != policyDomain || (a.TLSA != nil && a.TLSA.Half) != half {
			t.Errorf("%s by %s: %s, TLSA %+v, %v", domain, mx, a.Policy.Text(), a.TLSA, err)
		}
		checkCanonical(t, a.Policy)
	}
	check("example.net", "mail.example.net", schema.TLSA, "mail.example.net", false)
	check("Example.NET.", "ALIAS.example.net.", schema.TLSA, "mail.example.net", false)
	check("example.net", "plain.example.net", schema.NoPolicyFound, "example.net", false)
	check("example.net", "mx.example.com", schema.NoPolicyFound, "example.net", false)
	check("bare.example.net", "bare.example.net", schema.TLSA, "bare.example.net", false)
	check("example.com", "mail.example.net", schema.NoPolicyFound, "example.com", true)
	check("null.example.net", "mail.example.net", schema.NoPolicyFound, "null.example.net", false)

	// A host that is no MX of the domain has nothing to do with its policy.
	if a, err := f.Find("example.com", "bare.example.net"); err != nil || a.TLSA != nil {
		t.Errorf("%+v, %v", a, err)
	}
	a, err := f.Find("example.com", "[192.0.2.1]")
	if err != nil || a.TLSA != nil || !a.MXKnown || !slices.Equal(a.MX, []string{"mail.example.net"}) {
		t.Errorf("%+v, %v", a, err)
	}
	if has, known := a.HasMX("mail.example.net"); !has || !known {
		t.Error("an MX is none")
	}
	if has, known := a.HasMX("relay.example.org"); has || !known {
		t.Error("a relay is an MX")
	}
	if n := z.asked("mail.example.net. A"); n != 2 { // once as the end of an alias
		t.Errorf("the host of two domains was asked for %d times, want once, and once as an alias", n)
	}
}

// Without an answer nobody knows what applied: Postfix would not deliver.
func TestFindDANEUnknown(t *testing.T) {
	z := daneWorld(t)
	z.fail("_25._tcp.mail.example.net.", true)
	f := start(t, Options{Resolver: z.resolver(), DANE: true})
	if a, err := find(t, f, "example.net", "mail.example.net"); !errors.Is(err, ErrUnknown) || !a.MXKnown {
		t.Errorf("%+v, %v; want ErrUnknown", a, err)
	}
	if a, err := find(t, f, "example.net", "plain.example.net"); err != nil || a.Policy.Type != schema.NoPolicyFound {
		t.Errorf("another host: %+v, %v", a, err)
	}
	z.fail("example.com.", true)
	if a, err := find(t, f, "example.com", "mail.example.net"); !errors.Is(err, ErrUnknown) || a.MXKnown {
		t.Errorf("no MX: %+v, %v; want ErrUnknown", a, err)
	}
	z.fail("_smtp._tls.bare.example.net.", true)
	if a, err := find(t, f, "bare.example.net", "bare.example.net"); !errors.Is(err, ErrUnknown) || a.MXKnown {
		t.Errorf("no record: %+v, %v; want ErrUnknown", a, err)
	}
}

// Without DANE an MX record that cannot be had leaves the policy known.
func TestFindWithoutDANE(t *testing.T) {
	z := daneWorld(t)
	z.fail("example.com.", true)
	f := start(t, Options{Resolver: z.resolver()})
	a, err := find(t, f, "example.com", "mail.example.net")
	if _, known := a.HasMX("mail.example.net"); err != nil || known || a.Policy.Type != schema.NoPolicyFound {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := find(t, f, "example.net", "mail.example.net"); err != nil || a.TLSA != nil || a.Policy.Type != schema.NoPolicyFound {
		t.Errorf("%+v, %v", a, err)
	}
	if n := z.asked("_25._tcp.mail.example.net. TLSA"); n != 0 {
		t.Errorf("%d look-ups of TLSA records that do not matter", n)
	}
}

// Nobody is asked for more where no report is owed.
func TestFindWithoutRecord(t *testing.T) {
	w := newSTSWorld(t, says(policyText))
	o := w.options()
	o.DANE = true
	for _, record := range []string{`"v=spf1 -all"`, `"v=TLSRPTv1; rua="`} {
		w.dns.set(t, `_smtp._tls.example.com. TXT `+record)
		a, err := find(t, start(t, o), "example.com", "mail.example.com")
		if err != nil || a.Record != "" || a.Policy.Text() != `{"policy-type":"no-policy-found","policy-domain":"example.com"}` || a.MXKnown {
			t.Errorf("%s: %+v, %v", record, a, err)
		}
	}
	if n := w.dns.asked("example.com. MX") + w.dns.asked("_mta-sts.example.com. TXT"); n != 0 || w.host.fetched.Load() != 0 {
		t.Errorf("%d look-ups, %d fetches", n, w.host.fetched.Load())
	}
}

func TestFindSTS(t *testing.T) {
	w := newSTSWorld(t, says(policyText))
	w.dns.set(t, `_mta-sts.example.com. CNAME _mta-sts.example.org.`, `_mta-sts.example.org. TXT "v=STSv1; id=1"`) // RFC 8461, section 3.1
	f := start(t, w.options())
	a, err := find(t, f, "example.com", "mail.example.com")
	if err != nil || a.STS == nil || a.Policy.Text() != a.STS.Policy.Text() || a.Policy.Type != schema.STS || a.Policy.Domain != "example.com" {
		t.Errorf("%+v, %v", a, err)
	}
	checkCanonical(t, a.Policy)
	if !a.STS.Matches("mail.example.com") || a.STS.Matches("mail.example.org") || a.STS.Mode != Enforce {
		t.Errorf("%+v", a.STS)
	}
	if a, err := f.Find("example.com", ""); err != nil || a.STS == nil || w.host.fetched.Load() != 1 {
		t.Errorf("%+v, %v after %d fetches", a, err, w.host.fetched.Load())
	}
}

// RFC 8461, section 2: MTA-STS never overrides DANE.
func TestDANEGoesFirst(t *testing.T) {
	w := newSTSWorld(t, says(policyText))
	w.dns.sign("example.com.")
	w.dns.set(t, `example.com. MX 10 mail.example.com.`, `example.com. MX 20 a.example.net.`, `example.com. MX 30 b.example.com.`,
		`mail.example.com. A 192.0.2.1`, `_25._tcp.mail.example.com. TLSA 3 1 1 `+sum256,
		`a.example.net. A 192.0.2.1`,
		`b.example.com. A 192.0.2.1`, `_25._tcp.b.example.com. TLSA 3 1 99 00`)
	o := w.options()
	o.DANE = true
	f := start(t, o)
	for mx, want := range map[string]schema.PolicyType{"mail.example.com": schema.TLSA, "a.example.net": schema.STS, "b.example.com": schema.STS} {
		a, err := find(t, f, "example.com", mx)
		if err != nil || a.Policy.Type != want || a.STS == nil || (a.TLSA != nil) != (mx != "a.example.net") {
			t.Errorf("%s: %s, STS %+v, TLSA %+v, %v; want %s", mx, a.Policy.Text(), a.STS, a.TLSA, err, want)
		}
	}
}

func TestFindByDaemon(t *testing.T) {
	z := daneWorld(t)
	answer := "NOTFOUND "
	var mu sync.Mutex
	daemon := serveSocketmap(t, "QUERYwithTLSRPT", func(string) string { mu.Lock(); defer mu.Unlock(); return answer })
	for _, c := range []struct {
		answer string
		mx     string
		want   schema.PolicyType
		err    error
	}{
		{"NOTFOUND ", "mail.example.net", schema.TLSA, nil}, // as main.cf says
		{"NOTFOUND ", "plain.example.net", schema.NoPolicyFound, nil},
		{"OK " + stsAnswer, "mail.example.net", schema.STS, nil}, // Postfix looks for no TLSA records then
		{"OK secure match=mail.example.net", "mail.example.net", schema.NoPolicyFound, nil},
		{"OK dane-only", "mail.example.net", schema.TLSA, nil},
		{"OK dane-only", "plain.example.net", "", ErrUnknown}, // Postfix delivers nothing
		{"OK dane", "plain.example.net", schema.NoPolicyFound, nil},
		{"OK may", "mail.example.net", schema.NoPolicyFound, nil},
		{"TEMP", "mail.example.net", "", ErrUnknown},
		{"OK secure policy_type=nonsense", "mail.example.net", "", ErrUnknown},
	} {
		mu.Lock()
		answer = c.answer
		mu.Unlock()
		f := start(t, Options{Resolver: z.resolver(), DANE: true, Socketmap: daemon})
		a, err := find(t, f, "example.net", c.mx)
		if !errors.Is(err, c.err) || err == nil && a.Policy.Type != c.want {
			t.Errorf("%q, %s: %s, %v; want %q, %v", c.answer, c.mx, a.Policy.Text(), err, c.want, c.err)
		}
	}
	if n := z.asked("_mta-sts.example.net. TXT"); n != 0 {
		t.Errorf("%d look-ups of MTA-STS: the daemon knows better", n)
	}
}

// Where a daemon says that a policy applied, and not which, its text is fetched.
func TestTextBesideDaemon(t *testing.T) {
	testing := strings.Replace(policyText, "enforce", "testing", 1)
	for name, c := range map[string]struct {
		answer, served string
		want           string // policy type and number of lines, or an error
		fetch          bool   // whether a failed fetch is reported
	}{
		"bare":                   {"OK secure match=mail.example.com", policyText, "sts 5", false},
		"with its own":           {"OK " + stsAnswer, testing, "sts 5", false},
		"none":                   {"NOTFOUND ", policyText, "no-policy-found 0", false},
		"DANE":                   {"OK dane-only", policyText, "unknown", false},
		"tested by now":          {"OK secure match=mail.example.com", testing, "no-policy-found 0", false},
		"cannot be fetched":      {"OK secure match=mail.example.com", "", "no-policy-found 0", true},
		"nor can one of nothing": {"NOTFOUND ", "", "no-policy-found 0", true},
	} {
		w := newSTSWorld(t, says(c.served))
		daemon := serveSocketmap(t, "QUERYwithTLSRPT", func(string) string { return c.answer })
		o := w.options()
		o.Socketmap = daemon
		var reported atomic.Int64
		o.Report = func(schema.Session) { reported.Add(1) }
		a, err := find(t, start(t, o), "example.com", "mail.example.com")
		got := fmt.Sprint(a.Policy.Type, " ", len(a.Policy.Strings))
		if errors.Is(err, ErrUnknown) {
			got = "unknown"
		}
		if got != c.want || (reported.Load() == 1) != c.fetch {
			t.Errorf("%s: %s, %v, %d failures reported; want %s", name, got, err, reported.Load(), c.want)
		}
	}
}

func TestFindBadNames(t *testing.T) {
	f := start(t, Options{Resolver: newFakeDNS()})
	for _, domain := range []string{"", ".", "[192.0.2.1]", "192.0.2.1", "a..b", strings.Repeat("a.", 200), "a b"} {
		if a, err := f.Find(domain, "mx.example.com"); !errors.Is(err, schema.ErrDomain) {
			t.Errorf("%q: %+v, %v; want ErrDomain", domain, a, err)
		}
	}
	if st := f.Stats(); st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}

// A real failure, from the server to what is counted.
func TestReport(t *testing.T) {
	w := newSTSWorld(t, http.NotFound)
	reports := make(chan schema.Session, 10)
	o := w.options()
	o.Report = func(s schema.Session) { reports <- s }
	a, err := find(t, start(t, o), "example.com", "mail.example.com")
	if err != nil || a.STS != nil || a.Policy.Type != schema.NoPolicyFound {
		t.Errorf("%+v, %v; want no policy", a, err)
	}
	if len(reports) != 1 {
		t.Fatalf("%d reports", len(reports))
	}
	s, err := (<-reports).Canonical()
	if err != nil || s.Results[0].Details[0].FailureReasonCode != "http-404" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestAnswersExpire(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		0:              time.Minute, // at least
		time.Second:    time.Minute,
		10 * time.Hour: 10 * time.Hour,
		240 * day:      day, // at most
	} {
		inBubble(t, func(b *stsBubble) {
			b.dns.ttl = ttl
			b.Finder.sts = false
			b.find("example.com")
			time.Sleep(want - time.Second)
			b.find("example.com")
			if n := b.dns.asked("_smtp._tls.example.com"); n != 1 {
				b.Errorf("TTL %s: asked %d times within %s", ttl, n, want)
			}
			time.Sleep(time.Second)
			b.find("example.com")
			if n := b.dns.asked("_smtp._tls.example.com"); n != 2 {
				b.Errorf("TTL %s: asked %d times after %s", ttl, n, want)
			}
		}, "example.com")
	}
}

func TestAbsenceIsKept(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{0: absenceTTL, time.Hour: time.Hour} {
		inBubble(t, func(b *stsBubble) {
			b.dns.ttl = ttl
			b.find("example.com")
			time.Sleep(want - time.Second)
			b.find("example.com")
			if n := b.dns.asked("_smtp._tls.example.com"); n != 1 {
				b.Errorf("TTL %s: asked %d times within %s", ttl, n, want)
			}
		})
	}
}

func TestFaultsAreKeptForAMinute(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.dns.fail("_smtp._tls.example.com", true)
		for range 3 {
			if _, err := b.find("example.com"); !errors.Is(err, ErrUnknown) {
				b.Errorf("%v, want ErrUnknown", err)
			}
		}
		b.dns.fail("_smtp._tls.example.com", false)
		if n := b.dns.asked("_smtp._tls.example.com"); n != 1 {
			b.Errorf("asked %d times, want 1", n)
		}
		time.Sleep(time.Minute)
		b.want("a minute later", true, 1)
	}, "example.com")
}

// However many ask, a domain is looked up once at a time.
func TestSingleFlight(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		const name = "_smtp._tls.example.com"
		gate := make(chan struct{})
		b.dns.hold(name, gate)
		for i := range 1000 {
			if _, err := b.Find("example.com", fmt.Sprintf("mx%d.example.com", i)); err != ErrPending {
				b.Fatal(err)
			}
		}
		synctest.Wait()
		if n := b.dns.asked(name); n != 1 {
			b.Errorf("asked %d times", n)
		}
		if st := b.Stats(); st.Waiting != 1 || st.Dropped != 1000-maxJobHosts {
			b.Errorf("%+v", st)
		}
		close(gate)
		if err := b.Wait(b.Context()); err != nil {
			b.Error(err)
		}
		b.want("then", true, 1)
	}, "example.com")
}

func TestQueueIsBounded(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		const more = 100
		gate := make(chan struct{})
		domains := names(defaultWorkers + maxQueue + more)
		for _, d := range domains[:defaultWorkers] { // each holds a worker
			b.dns.hold("_smtp._tls."+d, gate)
			b.Find(d, "")
		}
		synctest.Wait()
		for _, d := range domains[defaultWorkers:] {
			if _, err := b.Find(d, ""); err != ErrPending {
				b.Fatal(err)
			}
		}
		if st := b.Stats(); st.Dropped != more || st.Waiting != defaultWorkers+maxQueue {
			b.Errorf("%+v", st)
		}
		close(gate)
		if err := b.Wait(b.Context()); err != nil {
			b.Error(err)
		}
		if st := b.Stats(); st.LookedUp != defaultWorkers+maxQueue || st.Waiting != 0 {
			b.Errorf("%+v", st)
		}
		// What was dropped is looked up when it is asked for again.
		if _, err := b.find(domains[len(domains)-1]); err != nil {
			b.Error(err)
		}
	})
}

func TestCloseEndsLookups(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.dns.hold("_smtp._tls.example.com", make(chan struct{}))
		b.Find("example.com", "")
		for _, d := range names(100) {
			b.Find(d, "")
		}
		waited := make(chan error)
		go func() { waited <- b.Wait(b.Context()) }()
		synctest.Wait()
		b.Close()
		if err := <-waited; err != ErrClosed {
			b.Errorf("Wait: %v, want ErrClosed", err)
		}
		if _, err := b.Find("example.com", ""); err != ErrClosed {
			b.Errorf("Find: %v, want ErrClosed", err)
		}
		b.Close()
	}, "example.com")
}

func TestWaitEndsWithContext(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		if err := b.Wait(b.Context()); err != nil {
			b.Errorf("nothing to do: %v", err)
		}
	})
	w := newSTSWorld(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f := start(t, w.options())
	f.Find("example.com", "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Wait(ctx); !errors.Is(err, ctx.Err()) || err == nil {
		t.Errorf("%v, want %v", err, ctx.Err())
	}
}

// A defect must not end the process, nor the look-ups of others.
func TestPanic(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.Finder.report = func(schema.Session) { panic("a defect") }
		b.setFailing("", true)
		if a, err := b.find("example.com"); !errors.Is(err, ErrUnknown) {
			b.Errorf("%+v, %v; want ErrUnknown", a, err)
		}
		b.setFailing("", false)
		time.Sleep(time.Minute)
		b.want("later", true, 2)
	}, "example.com")
}

// Many ask at once, for the same and for other things, while answers expire.
func TestConcurrentFind(t *testing.T) {
	z := daneWorld(t)
	f := start(t, Options{Resolver: z.resolver(), DANE: true, MTASTS: true, Workers: 4})
	f.fetch = nil // nobody has a record
	want := map[string]schema.PolicyType{
		"mail.example.net": schema.TLSA, "plain.example.net": schema.NoPolicyFound, "alias.example.net": schema.TLSA,
		"mx.example.com": schema.NoPolicyFound, "six.example.net": schema.TLSA, "relay.example.org": schema.NoPolicyFound,
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 300 {
				for mx, kind := range want {
					a, err := f.Find("example.net", mx)
					for err == ErrPending {
						if err := f.Wait(t.Context()); err != nil {
							t.Error(err)
						}
						a, err = f.Find("example.net", mx)
					}
					if err != nil || a.Policy.Type != kind {
						t.Errorf("%s: %s, %v; want %s", mx, a.Policy.Text(), err, kind)
					}
				}
				if i == 0 {
					f.forget("example.net", "mail.example.net")
				}
			}
		})
	}
	wg.Wait()
}

// forget lets an answer expire.
func (f *Finder) forget(domain, host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d, ok := f.domains.get(domain); ok {
		expired := *d
		expired.fresh = time.Time{}
		f.domains.put(domain, &expired)
	}
	f.hosts.put(host, &hostFacts{})
}

// What is in memory is not much larger than it is said to be.
func TestMemory(t *testing.T) {
	const domains = 20_000
	inBubble(t, func(b *stsBubble) {
		before := heap()
		for _, d := range names(domains) {
			b.dns.set("_smtp._tls."+d, "v=TLSRPTv1; rua=mailto:tls-reports@"+d)
			b.dns.set("_mta-sts."+d, "v=STSv1; id=1")
			b.find(d)
			b.dns.set("_smtp._tls."+d, "")
			b.dns.set("_mta-sts."+d, "")
			b.dns.mu.Lock()
			clear(b.dns.n)
			b.dns.mu.Unlock()
		}
		used := heap() - before
		st := b.Stats()
		b.Logf("%d domains: %d bytes in memory, said to be %d", st.Domains, used, st.Bytes)
		if st.Domains != domains || used > int64(st.Bytes) || int64(st.Bytes) > 2*used {
			b.Errorf("%d domains take %d bytes, said to be %d", st.Domains, used, st.Bytes)
		}
	})
}

// heap is how much memory is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A domain whose texts are as long as can be has room, and pushes out others.
func TestLargeFacts(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.policy.Lines = slices.Repeat([]string{strings.Repeat("x", 1000)}, 60)
		for _, d := range names(2000) {
			b.dns.set("_smtp._tls."+d, "v=TLSRPTv1; rua=mailto:tls@example.org")
			b.dns.set("_mta-sts."+d, "v=STSv1; id=1")
			if a, err := b.find(d); err != nil || a.STS == nil {
				b.Fatalf("%+v, %v", a, err)
			}
		}
		if st := b.Stats(); st.Bytes > maxDomainBytes || st.Domains < 500 || st.Domains > 1000 {
			b.Errorf("%d domains, %d bytes", st.Domains, st.Bytes)
		}
	})
}
