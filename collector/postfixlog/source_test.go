package postfixlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/tail"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestVerdict: the outcome and the policy come from the same evidence.
func TestVerdict(t *testing.T) {
	tlsa := schema.Policy{Type: schema.TLSA, Domain: "mx.example.org", Strings: []string{"3 1 1 AB"}}
	sts := schema.Policy{Type: schema.STS, Domain: "example.org", Strings: []string{"version: STSv1"}}
	nothing := policy.Answer{Record: "v=TLSRPTv1; rua=mailto:a@example.org", Policy: schema.Policy{Type: schema.NoPolicyFound, Domain: "example.org"}}
	enforcesSTS, enforcesDANE, half := nothing, nothing, nothing
	enforcesSTS.Policy, enforcesSTS.STS = sts, &policy.STS{Policy: sts, Mode: policy.Enforce}
	testing := enforcesSTS
	testing.STS = &policy.STS{Policy: sts, Mode: policy.Testing}
	enforcesDANE.Policy, enforcesDANE.TLSA = tlsa, &policy.TLSA{Policy: tlsa, Usable: true}
	half.TLSA = &policy.TLSA{Policy: tlsa, Usable: true, Half: true}
	elsewhere := nothing
	elsewhere.MX, elsewhere.MXKnown = []string{"mx2.example.org"}, true
	unknown := fmt.Errorf("%w: SERVFAIL", policy.ErrUnknown)
	bogus := nothing
	bogus.Bogus = true

	for name, c := range map[string]struct {
		session Session
		answer  policy.Answer
		err     error
		want    string // "policy-type success", "policy-type result-type", or a Drop
	}{
		"may":                       {Session{Outcome: Trusted}, nothing, nil, "no-policy-found success"},
		"may, nobody asked":         {Session{Outcome: Untrusted}, policy.Answer{}, nil, "no-policy-found success"},
		"untrusted is no sts":       {Session{Outcome: Untrusted}, enforcesSTS, nil, "no-policy-found success"},
		"testing mode at may":       {Session{Outcome: Trusted}, testing, nil, "no-policy-found success"},
		"untrusted is no dane":      {Session{Outcome: Untrusted}, enforcesDANE, nil, "no-policy-found success"},
		"anonymous":                 {Session{Outcome: Anonymous}, enforcesDANE, nil, "no-policy-found success"},
		"half-dane":                 {Session{Outcome: Trusted}, half, nil, "tlsa success"},
		"verified sts":              {Session{Outcome: Verified, Enforced: true}, enforcesSTS, nil, "sts success"},
		"verified dane":             {Session{Outcome: Verified, Enforced: true}, enforcesDANE, nil, "tlsa success"},
		"verified by local policy":  {Session{Outcome: Verified, Enforced: true}, nothing, nil, "no-policy-found success"},
		"verified, DNS down":        {Session{Outcome: Verified, Enforced: true}, nothing, unknown, "policy-unknown"},
		"may, DNS down":             {Session{Outcome: Trusted}, nothing, unknown, "no-policy-found success"},
		"expired under sts":         {Session{Outcome: Untrusted, Enforced: true, Result: schema.CertificateExpired}, enforcesSTS, nil, "sts certificate-expired"},
		"refused under sts":         {Session{Outcome: Refused, Result: schema.StartTLSNotSupported}, enforcesSTS, nil, "sts starttls-not-supported"},
		"handshake failed":          {Session{Outcome: Failed, Result: schema.ValidationFailure}, nothing, nil, "no-policy-found validation-failure"},
		"3.11 says may":             {Session{Outcome: Trusted, TLSLevel: "may"}, enforcesSTS, nil, "no-policy-found success"},
		"3.11 says may, failed":     {Session{Outcome: Failed, TLSLevel: "may", Result: schema.ValidationFailure}, enforcesSTS, nil, "no-policy-found validation-failure"},
		"3.11 says secure":          {Session{Outcome: Verified, TLSLevel: "secure"}, enforcesSTS, nil, "sts success"},
		"3.11 says halfdane":        {Session{Outcome: Trusted, TLSLevel: "halfdane"}, half, nil, "tlsa success"},
		"matched a TLSA record":     {Session{Outcome: Verified, Enforced: true, Match: MatchDANE}, enforcesDANE, unknown, "tlsa success"},
		"DANE required":             {Session{Outcome: NoSession, Result: schema.DANERequired}, nothing, nil, "tlsa dane-required"},
		"TLSA records are bogus":    {Session{Outcome: NoSession, Result: schema.DNSSECInvalid}, bogus, unknown, "tlsa dnssec-invalid"},
		"SERVFAIL, ours or theirs":  {Session{Outcome: NoSession, Result: schema.DNSSECInvalid}, nothing, nil, "ambiguous"},
		"a relay":                   {Session{Outcome: Trusted}, elsewhere, nil, "not-mx"},
		"tlsproxy knows no MX name": {Session{Outcome: Failed, MX: "-", Result: schema.ValidationFailure}, elsewhere, nil, "no-policy-found validation-failure"},
	} {
		s := c.session
		s.Domain = "example.org"
		switch s.MX {
		case "":
			s.MX = "mx.example.org"
		case "-":
			s.MX = ""
		}
		v, drop := verdict(&s, c.answer, c.err)
		got := string(drop)
		if drop == "" {
			r := v.Results[0]
			got = string(r.Policy.Type) + " success"
			if r.Failed {
				got = string(r.Policy.Type) + " " + string(r.Details[0].ResultType)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// ledger is a sink that fails now and then, and remembers position and counts
// together, as a store does.
type ledger struct {
	mu     sync.Mutex
	calls  int
	fail   func(call int) bool
	cursor []byte
	counts map[string]int64 // "day domain policy success/failure" of sessions
	commit func()
}

var errDisk = errors.New("disk full")

func (l *ledger) Record(_ context.Context, _ string, cursor []byte, counts []schema.Count) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.fail != nil && l.fail(l.calls) {
		return errDisk
	}
	if cursor == nil {
		return errors.New("no position")
	}
	l.cursor = slices.Clone(cursor)
	for _, c := range counts {
		l.counts[fmt.Sprintf("%s %s %s success", c.Day, c.Domain, c.Policy)] += c.Success
		l.counts[fmt.Sprintf("%s %s %s failure", c.Day, c.Domain, c.Policy)] += c.Failure
	}
	if l.commit != nil {
		l.commit()
	}
	return nil
}

// readAll counts a finished log from the ledger's position on.
func readAll(t *testing.T, path string, l *ledger) {
	t.Helper()
	s, err := Open(SourceOptions{
		Name: "test", Tail: tail.Options{Path: path}, Cursor: l.cursor,
		Log: Options{Location: time.UTC, Latest: func() time.Time { return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), l); err != nil {
		t.Fatal(err)
	}
}

// TestSource counts a log of a real Postfix in one go, and again with a disk that
// fails at every second commit: the counts are the same.
func TestSource(t *testing.T) {
	const path = "testdata/postfix-logs/3.7.11/base/maillog"
	whole := &ledger{counts: map[string]int64{}}
	readAll(t, path, whole)
	if len(whole.counts) < 50 {
		t.Fatalf("only %d counts", len(whole.counts))
	}
	flaky := &ledger{counts: map[string]int64{}, fail: func(call int) bool { return call%2 == 1 }}
	readAll(t, path, flaky)
	if !maps.Equal(whole.counts, flaky.counts) {
		t.Errorf("with a failing disk:\n%v\nwant\n%v", flaky.counts, whole.counts)
	}
	before := maps.Clone(whole.counts)
	readAll(t, path, whole) // from its end: nothing is counted twice
	if !maps.Equal(whole.counts, before) {
		t.Errorf("read again from its position: %v", whole.counts)
	}
}

// TestSourceRestarts cuts a log in two at many places, reads the first part to
// its end, and the whole from the stored position.
func TestSourceRestarts(t *testing.T) {
	text, err := os.ReadFile("testdata/postfix-logs/3.7.11/base/maillog")
	if err != nil {
		t.Fatal(err)
	}
	whole := &ledger{counts: map[string]int64{}}
	readAll(t, "testdata/postfix-logs/3.7.11/base/maillog", whole)
	for cut := 1000; cut < len(text); cut += len(text) / 12 {
		path := filepath.Join(t.TempDir(), "maillog")
		grown := &ledger{counts: map[string]int64{}}
		followTo(t, path, text[:cut], grown)
		followTo(t, path, text, grown)
		if !maps.Equal(grown.counts, whole.counts) {
			t.Errorf("cut at %d:\n%v\nwant\n%v", cut, grown.counts, whole.counts)
		}
	}
}

// followTo writes a log and follows it until all of it is committed.
func followTo(t *testing.T, path string, text []byte, l *ledger) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(SourceOptions{
		Name: "test", Tail: tail.Options{Path: path, Follow: true, FromStart: true, Poll: 5 * time.Millisecond}, Cursor: l.cursor,
		Log: Options{Location: time.UTC, Latest: func() time.Time { return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	rest := int64(len(text) - bytes.LastIndexByte(text, '\n') - 1) // of a line that is not whole
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	for deadline := time.Now().Add(20 * time.Second); s.Stats().Tail.Lag > rest || s.Stats().Parser.Lines == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the log is not read")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestSourceOverlaps commits again and again while it reads, to a disk that fails
// now and then: what is counted is what the log has.
func TestSourceOverlaps(t *testing.T) {
	log := loggen.New(loggen.Options{Seed: 1, Domains: 2000})
	path := writeLog(t, log, 60_000)
	for name, fail := range map[string]func(int) bool{
		"never":   nil,
		"seldom":  func(call int) bool { return call%7 == 3 },
		"at last": func(call int) bool { return call > 20 && call < 22 },
	} {
		l := &ledger{counts: map[string]int64{}, fail: fail}
		s := openLog(t, path, 100)
		if err := s.Run(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if l.calls < 20 {
			t.Errorf("%s: only %d commits", name, l.calls)
		}
		l.check(t, name, log)
	}
}

// TestSourceReadsAhead blocks a commit: reading goes on for another batch and no
// further. The commit then fails, and nothing is lost.
func TestSourceReadsAhead(t *testing.T) {
	log := loggen.New(loggen.Options{Seed: 2, Domains: 2000})
	path := writeLog(t, log, 60_000)
	blocked, release := make(chan struct{}), make(chan struct{})
	l := &ledger{counts: map[string]int64{}, fail: func(call int) bool {
		if call != 3 {
			return false
		}
		close(blocked)
		<-release
		return true
	}}
	s := openLog(t, path, 500) // several chunks
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context(), l) }()
	<-blocked
	at := s.Stats().Counted
	for deadline := time.Now().Add(10 * time.Second); s.Stats().Counted == at; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("reading waits for the commit")
		}
	}
	time.Sleep(50 * time.Millisecond) // it would be at the end
	if n := s.Stats().Counted; n >= log.Stats().Sessions/2 {
		t.Errorf("%d of %d sessions are counted while a commit is under way", n, log.Stats().Sessions)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.check(t, "read ahead", log)
}

// TestSourceOfLateLog rests within sessions of a log whose lines come days after
// they were written: none is given up as if it had waited so long.
func TestSourceOfLateLog(t *testing.T) {
	log := loggen.New(loggen.Options{Seed: 3, Domains: 20, Start: time.Now().UTC().AddDate(0, 0, -3)})
	s := openLog(t, writeLog(t, log, 0), 1000)
	s.sink = &positioned{Sink: &ledger{counts: map[string]int64{}}}
	s.counter = collector.NewCounter(s.sink, s.name, collector.CounterOptions{})
	defer s.tail.Close()
	idle := func() {
		g := new(gathered)
		s.idle(g)
		s.count(t.Context(), g)
	}
	idle() // nothing was read yet
	parse := func(text []byte) {
		p := new(portion)
		s.parser.sieve.sift(&p.sifted, text)
		g := new(gathered)
		s.parse(p, g)
		s.count(t.Context(), g)
	}
	for range 2000 {
		parse(log.Append(nil))
		idle()
	}
	parse(log.AppendRest(nil))
	if got, want := s.counter.Stats().Counted, log.Stats().Sessions; got != want {
		t.Errorf("%d of %d sessions are counted", got, want)
	}
	s.readAt = time.Now().Add(-2 * time.Hour)
	parse(log.Append(nil))
	for range 20 {
		parse(log.Append(nil))
	}
	s.readAt = time.Now().Add(-2 * time.Hour)
	idle()
	if n := len(s.parser.processes); n > 0 {
		t.Errorf("%d processes are not forgotten after two hours of silence", n)
	}
}

// writeLog is the path of a file with lines of log, and those that end what was
// begun.
func writeLog(t *testing.T, log *loggen.Log, lines int) string {
	t.Helper()
	var text []byte
	for range lines {
		text = log.Append(text)
	}
	path := filepath.Join(t.TempDir(), "maillog")
	if err := os.WriteFile(path, log.AppendRest(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// openLog opens a finished log, for batches of so many keys.
func openLog(t *testing.T, path string, keys int64) *Source {
	t.Helper()
	s, err := Open(SourceOptions{Name: "test", Tail: tail.Options{Path: path}, Log: Options{Location: time.UTC}})
	if err != nil {
		t.Fatal(err)
	}
	s.batchKeys = keys
	return s
}

// check compares what is in the ledger with what is in a log.
func (l *ledger) check(t *testing.T, name string, log *loggen.Log) {
	t.Helper()
	want := map[string]int64{}
	day := schema.DayOf(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC))
	for k, n := range log.Sessions() {
		text := schema.Policy{Type: schema.NoPolicyFound, Domain: k.Domain}.Text()
		which := "success"
		if k.Result != "" {
			which = "failure"
		}
		want[fmt.Sprintf("%s %s %s %s", day, k.Domain, text, which)] += n
	}
	got := maps.Clone(l.counts)
	maps.DeleteFunc(got, func(_ string, n int64) bool { return n == 0 })
	if !maps.Equal(got, want) {
		t.Errorf("%s: %d kinds of sessions counted, %d written, or not as many of each", name, len(got), len(want))
	}
}

// TestTallies: what is remembered of sessions changes no count.
func TestTallies(t *testing.T) {
	session := func(domain string, p schema.Policy, details ...schema.FailureDetails) schema.Session {
		return schema.Session{
			Time: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Domain: domain,
			Results: []schema.Result{{Policy: p, Failed: len(details) > 0, Details: details}},
		}
	}
	none := schema.Policy{Type: schema.NoPolicyFound, Domain: "example.org"}
	expired := schema.FailureDetails{ResultType: schema.CertificateExpired, ReceivingMXHostname: "mx.example.org"}
	late := session("example.org", none)
	late.Time = late.Time.AddDate(0, 0, 1)
	recorded := session("example.org", none)
	recorded.Record = "v=TLSRPTv1; rua=mailto:a@example.org"
	elsewhere := expired
	elsewhere.ReceivingMXHostname = "mx2.example.org"
	all := []schema.Session{
		session("example.org", none), late, recorded, session("example.org", none, expired), session("example.org", none, elsewhere),
		session("example.net", schema.Policy{Type: schema.NoPolicyFound, Domain: "example.net"}),
		session("example.org", schema.Policy{Type: schema.STS, Domain: "example.org", Strings: []string{"version: STSv1"}}),
		session("example.org", schema.Policy{Type: schema.STS, Domain: "example.org", Strings: []string{"version: STSv1"}}, expired),
		session("example.org", schema.Policy{Type: schema.TLSA, Domain: "mx.example.org"}),
	}
	plain, remembered := &ledger{counts: map[string]int64{}}, &ledger{counts: map[string]int64{}}
	direct := collector.NewCounter(&positioned{Sink: plain, cursor: []byte("x"), taken: make(chan struct{}, 9)}, "test", collector.CounterOptions{})
	through := collector.NewCounter(&positioned{Sink: remembered, cursor: []byte("x"), taken: make(chan struct{}, 9)}, "test", collector.CounterOptions{})
	known, names := newTallies(), newNames()
	add := func(s schema.Session) bool { return known.add(through, s, names.recipient([]byte(s.Domain))) }
	for range 3 {
		for i, s := range all {
			c, err := s.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			for range i + 1 {
				direct.Add(schema.DayOf(c.Time), c)
				if !add(s) {
					t.Fatalf("not counted: %+v", s)
				}
			}
		}
		if known.fresh.Load() < int64(len(all)) {
			t.Errorf("%d keys, want at least %d", known.fresh.Load(), len(all))
		}
		if err := errors.Join(direct.Flush(t.Context()), through.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
		known.next()
	}
	if !maps.Equal(plain.counts, remembered.counts) || len(plain.counts) < len(all) {
		t.Errorf("counted:\n%v\nwant\n%v", remembered.counts, plain.counts)
	}
	if add(session("..", none)) {
		t.Error("a session without domain is counted")
	}
	const strangers = 2 * maxTallyBytes / tallyKeySize
	none.Domain = "hot.example.com"
	hot := session(none.Domain, none)
	of := names.recipient([]byte(none.Domain))
	for i := range strangers {
		domain := fmt.Sprintf("d%d.example.com", i)
		add(session(domain, schema.Policy{Type: schema.NoPolicyFound, Domain: domain}))
		if got := known.success(schema.DayOf(hot.Time), of, hot.Record); got != (i > 0) {
			t.Fatalf("a session is known: %v, after %d of strangers", got, i)
		}
		if i == 0 {
			add(hot)
		}
	}
	known.forgetOld()
	known.bytes = maxTallyBytes // and what is asked for now makes the young generation the old one
	if !known.success(schema.DayOf(hot.Time), of, hot.Record) {
		t.Fatal("a session is forgotten as it is asked for")
	}
	if n := len(known.young.successes) + len(known.old.successes); known.bytes > maxTallyBytes || n == 0 || n >= strangers {
		t.Errorf("%d sessions remembered, %d bytes", n, known.bytes)
	}
}

// TestRipe holds how long counts wait for their commit: longer where a log is far
// ahead.
func TestRipe(t *testing.T) {
	for _, c := range []struct {
		age    time.Duration
		behind bool
		want   bool
	}{
		{0, false, false},
		{commitInterval, false, true},
		{commitInterval, true, false},
		{catchUpInterval, true, true},
	} {
		s := &Source{since: time.Now().Add(-c.age), behind: c.behind, batchKeys: commitKeys}
		if got := s.ripe(); got != c.want {
			t.Errorf("after %v, far behind %v: %v", c.age, c.behind, got)
		}
	}
	s := &Source{since: time.Now(), behind: true, batchKeys: 1}
	if s.known.fresh.Store(1); !s.ripe() {
		t.Error("a full batch waits")
	}
}
