package submitter

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update rewrites it):\n%s", path, got)
	}
}

const (
	from     = "tls-reports@example.net"
	domain   = "example.com"
	reportID = "2026-11-22.example.com.0a1b2c3d4e5f6a7b@example.net"
)

var (
	day  = schema.DayOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	made = time.Date(2026, 11, 23, 1, 2, 3, 456, time.UTC)
)

// report has two policies and several failures.
func report() *schema.Report {
	fail := func(t schema.ResultType, mx string, n int64) schema.FailureDetails {
		return schema.FailureDetails{
			ResultType: t, ReceivingMXHostname: mx, FailedSessionCount: n,
			SendingMTAIP: netip.MustParseAddr("2001:db8::25"), ReceivingIP: netip.MustParseAddr("192.0.2.25"),
		}
	}
	return &schema.Report{
		OrganizationName: "Example Inc.",
		DateRange:        day.Range(),
		ContactInfo:      from,
		ReportID:         reportID,
		Policies: []schema.PolicyResult{
			{
				Policy: schema.Policy{
					Type: schema.STS, Domain: domain, MXHosts: []string{"*.mail.example.com"},
					Strings: []string{"version: STSv1", "mode: testing", "mx: *.mail.example.com", "max_age: 86400"},
				},
				Summary: schema.Summary{Success: 5326, Failure: 303},
				FailureDetails: []schema.FailureDetails{
					fail(schema.CertificateExpired, "mx1.mail.example.com", 100),
					fail(schema.StartTLSNotSupported, "mx2.mail.example.com", 199),
					fail(schema.StartTLSNotSupported, "mx3.mail.example.com", 1),
					fail(schema.ValidationFailure, "mx-backup.mail.example.com", 3),
				},
			},
			{
				Policy:  schema.Policy{Type: schema.TLSA, Domain: "mx1.mail.example.com", Strings: []string{"3 1 1 " + strings.Repeat("AB", 32)}},
				Summary: schema.Summary{Success: 1},
			},
		},
	}
}

func parcel(t testing.TB) Parcel {
	t.Helper()
	p, err := Pack(report(), domain, from, made, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// records is a TXTResolver that knows some names.
type records map[string][]string

func (r records) LookupTXT(_ context.Context, name string) ([]string, error) {
	if txts, ok := r[name]; ok {
		return txts, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// lookupFunc is a TXTResolver.
type lookupFunc func() ([]string, error)

func (f lookupFunc) LookupTXT(context.Context, string) ([]string, error) { return f() }

// outbox is a Mailer that keeps what it gets, or refuses it with err.
type outbox struct {
	mu       sync.Mutex
	err      error
	from, to []string
	messages [][]byte
}

func (o *outbox) Mail(_ context.Context, e Envelope, message []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.from, o.to, o.messages = append(o.from, e.From), append(o.to, e.To), append(o.messages, message)
	return o.err
}

func TestDiscover(t *testing.T) {
	const record = "v=TLSRPTv1; rua=mailto:tls@example.com,https://example.com/tls"
	s := &Submitter{Resolver: records{"_smtp._tls.example.com": {"v=spf1 -all", record}}}
	for _, name := range []string{"example.com", "EXAMPLE.COM."} {
		text, rec, err := s.Discover(t.Context(), name)
		want := []schema.RUA{"mailto:tls@example.com", "https://example.com/tls"}
		if err != nil || text != record || !slices.Equal(rec.RUA, want) {
			t.Errorf("%s: %q, %q, %v", name, text, rec.RUA, err)
		}
	}
}

func TestDiscoverFailure(t *testing.T) {
	discover := func(txts []string, fault error) error {
		s := &Submitter{Resolver: lookupFunc(func() ([]string, error) { return txts, fault })}
		_, _, err := s.Discover(t.Context(), domain)
		return err
	}
	permanent := func(want error, txts ...string) {
		t.Helper()
		if err := discover(txts, nil); !errors.Is(err, want) || IsTemporary(err) {
			t.Errorf("%q: %v, want %v", txts, err, want)
		}
	}
	temporary := func(fault error) {
		t.Helper()
		if err := discover(nil, fault); !IsTemporary(err) || !IsTemporary(fmt.Errorf("planning: %w", err)) {
			t.Errorf("%v: %v, want a temporary error", fault, err)
		}
	}
	permanent(schema.ErrNoRecord)
	permanent(schema.ErrNoRecord, "v=spf1 -all")
	permanent(schema.ErrManyRecords, "v=TLSRPTv1; rua=mailto:a@example.com", "v=TLSRPTv1; rua=mailto:b@example.com")
	permanent(schema.ErrRecord, "v=TLSRPTv1; rua=a@example.com")                   // no scheme
	permanent(schema.ErrRecord, "v=TLSRPTv1; rua=mailto:a@example.com\r\nBcc: b")  // a new line
	permanent(schema.ErrRecord, "v=TLSRPTv1; rua=mailto:a%0d%0aBcc:b@example.com") // the same, hidden
	permanent(schema.ErrRecord, "v=TLSRPTv1; rua=mailto:nobody")                   // no address
	temporary(errors.New("SERVFAIL"))
	temporary(context.DeadlineExceeded)
	temporary(&net.DNSError{Err: "server misbehaving", IsTemporary: true})

	if err := discover(nil, &net.DNSError{IsNotFound: true}); !errors.Is(err, schema.ErrNoRecord) {
		t.Errorf("%v, want %v", err, schema.ErrNoRecord)
	}
	if _, _, err := new(Submitter).Discover(t.Context(), "not a domain"); !errors.Is(err, schema.ErrDomain) || IsTemporary(err) {
		t.Errorf("%v, want %v", err, schema.ErrDomain)
	}
	s := &Submitter{Resolver: lookupFunc(func() ([]string, error) { panic("boom") })}
	if _, _, err := s.Discover(t.Context(), domain); !IsTemporary(err) {
		t.Errorf("after a panic: %v, want a temporary error", err)
	}
}

// What crashed another reporter, for everybody, for days.
func TestHostileRecords(t *testing.T) {
	text := "v=TLSRPTv1; rua=mailto:a@example.com,mailto:a@example.com,MAILTO:a@example.com," +
		"a@example.com,mailto:a@example.com%0Ab,mailto:b@example.com?subject=x%0d%0aBcc:c@example.com,ftp://example.com/,https://u:p@example.com/"
	out := new(outbox)
	s := &Submitter{Resolver: records{"_smtp._tls.example.com": {text}}, Mail: out, ExternalDKIM: true}
	_, rec, err := s.Discover(t.Context(), domain)
	if err != nil {
		t.Fatal(err)
	}
	for _, rua := range rec.RUA {
		if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
			t.Errorf("%s: %v", rua, err)
		}
	}
	if want := []string{"a@example.com", "b@example.com"}; !slices.Equal(out.to, want) {
		t.Errorf("mailed to %q, want %q", out.to, want)
	}
	for _, msg := range out.messages {
		if m := parse(t, msg); m.Header.Get("Bcc") != "" || m.Header.Get("Subject") == "x" {
			t.Errorf("a record wrote into the header: %v", m.Header)
		}
	}
}

func TestBadPolicyType(t *testing.T) {
	r := report()
	r.Policies[0].Policy.Type = "9"
	if _, err := Pack(r, domain, from, made, ""); err == nil {
		t.Error("a policy type that no receiver knows is packed")
	}
}

func TestSubmitMail(t *testing.T) {
	out := new(outbox)
	key := newTestKey(t, RSA)
	s := &Submitter{Mail: out, Keys: []*Key{key}}
	if err := s.Submit(t.Context(), parcel(t), "mailto:a%21b@example.com", ""); err != nil {
		t.Fatal(err)
	}
	if out.from[0] != from || out.to[0] != "a!b@example.com" {
		t.Errorf("envelope %s -> %s", out.from[0], out.to[0])
	}
	verify(t, out.messages[0], key)
}

func TestSubmitRefusals(t *testing.T) {
	const rua = "mailto:tls@example.com"
	good := parcel(t)
	foreign, err := GenerateKey(Ed25519, "example.org", "tlsrpt")
	if err != nil {
		t.Fatal(err)
	}
	bad := func(what string, s *Submitter, p Parcel, rua schema.RUA, want error) {
		t.Helper()
		err := s.Submit(t.Context(), p, rua, "")
		e, ok := errors.AsType[*Error](err)
		if !ok || e.RUA != rua || IsTemporary(err) || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v for good", what, err, want)
		}
	}
	// What is wrong with our own settings may be mended, and the report sent then.
	ours := func(what string, s *Submitter, want error) {
		t.Helper()
		err := s.Submit(t.Context(), good, rua, "")
		e, ok := errors.AsType[*Error](err)
		if !ok || e.RUA != rua || !e.Ours || !IsTemporary(err) || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v for now", what, err, want)
		}
	}
	ours("no mail", &Submitter{ExternalDKIM: true}, ErrNoTransport)
	ours("no signer", &Submitter{Mail: new(outbox)}, ErrNoTransport)
	ours("foreign key", &Submitter{Mail: new(outbox), Keys: []*Key{foreign}}, ErrKey)
	able := &Submitter{Mail: new(outbox), ExternalDKIM: true}
	bad("unknown scheme", able, good, "ftp://example.com/", schema.ErrRUA)
	bad("no scheme", able, good, "tls@example.com", schema.ErrRUA)
	bad("no destination", able, good, "", schema.ErrRUA)
	bad("not canonical", able, good, "MAILTO:tls@example.com", schema.ErrRUA)
	bad("empty parcel", able, Parcel{}, rua, ErrParcel)
}

type panicking struct{}

func (panicking) Mail(context.Context, Envelope, []byte) error { panic("boom") }

func TestSubmitSurvivesMailer(t *testing.T) {
	const rua = "mailto:tls@example.com"
	s := &Submitter{Mail: panicking{}, ExternalDKIM: true}
	if err := s.Submit(t.Context(), parcel(t), rua, ""); !IsTemporary(err) || !strings.Contains(err.Error(), "boom") {
		t.Errorf("%v, want a temporary error", err)
	}
	s.Mail = &outbox{err: errors.New("queue full\r\nfor now")}
	err := s.Submit(t.Context(), parcel(t), rua, "")
	if want := "submitter: mailto:tls@example.com: queue full for now"; !IsTemporary(err) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	s.Mail = &outbox{err: fmt.Errorf("wrapped: %w", &Error{Reply: "550 5.1.1 no such user"})}
	if err := s.Submit(t.Context(), parcel(t), rua, ""); IsTemporary(err) || !strings.Contains(err.Error(), "5.1.1") {
		t.Errorf("%v, want a permanent error", err)
	}
}

func TestIsTemporary(t *testing.T) {
	later, never := &Error{Temporary: true}, &Error{}
	good := func(err error) {
		t.Helper()
		if !IsTemporary(err) {
			t.Errorf("%#v is permanent", err)
		}
	}
	bad := func(err error) {
		t.Helper()
		if IsTemporary(err) {
			t.Errorf("%#v is temporary", err)
		}
	}
	good(later)
	good(fmt.Errorf("a: %w", fmt.Errorf("b: %w", later)))
	good(errors.Join(never, fmt.Errorf("a: %w", later))) // one is enough
	good(fmt.Errorf("%w and %w", never, later))
	good(fmt.Errorf("a: %w", context.Canceled))
	good(fmt.Errorf("a: %w", context.DeadlineExceeded))
	bad(nil)
	bad(never)
	bad(fmt.Errorf("a: %w", never))
	bad(errors.Join(never, schema.ErrNoRecord))
	bad(errors.New("anything"))
	bad(&Error{Err: context.Canceled}) // who makes an Error has judged its cause
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"  a\t b\r\n\n c ":        "a b c",
		"h\u00e9\x00\x1b[31m\xff": "h???[31m?",
		strings.Repeat("x", 20):   "xxxxxxx...",
		strings.Repeat("x", 10):   "xxxxxxxxxx",
	} {
		if got := printable(in, 10); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
