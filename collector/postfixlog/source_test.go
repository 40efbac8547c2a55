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

	"github.com/tlsrpt-agent/tlsrpt-agent/collector/tail"
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
