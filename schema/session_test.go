package schema_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// canonical is the canonical form of a session with one result.
func canonical(t *testing.T, domain string, r schema.Result) schema.Result {
	t.Helper()
	s, err := schema.Session{Domain: domain, Results: []schema.Result{r}}.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return s.Results[0]
}

func TestCanonicalPolicy(t *testing.T) {
	const hash = "1F850A337E6DB9C609C522D136A475638CC43E1ED424F8EEC8513D747D1D085D"
	for _, c := range []struct {
		why      string
		in, want schema.Policy
	}{
		{
			"TLSA records sorted, once, one space apart, in upper case",
			schema.Policy{Type: schema.TLSA, Domain: "MX1.Example.com.", Strings: []string{
				"3 1 1 " + hash, " 2  1\t1 8bd1 DA95 ", "3 1 1 " + strings.ToLower(hash), "",
			}},
			schema.Policy{Type: schema.TLSA, Domain: "mx1.example.com", Strings: []string{"2 1 1 8BD1DA95", "3 1 1 " + hash}},
		},
		{
			"mx patterns are for sts alone",
			schema.Policy{Type: schema.TLSA, Domain: "mx.example.com", MXHosts: []string{"mx.example.com"}},
			schema.Policy{Type: schema.TLSA, Domain: "mx.example.com"},
		},
		{
			"policy lines in their order, mx lines lowered, errors kept",
			schema.Policy{Type: schema.STS, Domain: "example.com", Strings: []string{
				"version:  STSv1", "mode: Enforce", "MX: *.Mail.Example.COM", "mx:", "", "max_age: 86400\r", "Mx\t: x", "no colon",
			}},
			schema.Policy{Type: schema.STS, Domain: "example.com", Strings: []string{
				"version: STSv1", "mode: Enforce", "MX: *.mail.example.com", "mx:", "max_age: 86400", "Mx : x", "no colon",
			}},
		},
		{
			"mx patterns in A-labels; what is none stays in the text only",
			schema.Policy{Type: schema.STS, MXHosts: []string{
				"*.B\u00fccher.Example.", " mx.example.com ", "", "*.", ".\u2603.example", "mx: mx.example.com", "192.0.2.1",
			}},
			schema.Policy{Type: schema.STS, Domain: "example.com", MXHosts: []string{"*.xn--bcher-kva.example", "mx.example.com"}},
		},
		{
			"nothing is defined for no-policy-found",
			schema.Policy{Type: schema.NoPolicyFound, Strings: []string{"x"}, MXHosts: []string{"mx.example.com"}},
			schema.Policy{Type: schema.NoPolicyFound, Domain: "example.com"},
		},
		{
			"a policy domain that is none",
			schema.Policy{Type: schema.TLSA, Domain: "[192.0.2.1]"},
			schema.Policy{Type: schema.TLSA, Domain: "example.com"},
		},
		{
			"invalid UTF-8, control characters, noncharacters",
			schema.Policy{Type: schema.STS, Strings: []string{"a\xff\x00b\ufffec\u202ed\x1b[2J\u00a0"}},
			schema.Policy{Type: schema.STS, Domain: "example.com", Strings: []string{"a\ufffd b\ufffdc d [2J"}},
		},
	} {
		if got := canonical(t, "Example.com", schema.Result{Policy: c.in}).Policy; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.why, got, c.want)
		}
	}
}

// Equal things must be one key.
func TestCanonicalPolicyText(t *testing.T) {
	records := []string{"3 1 1 AB01", "3 1 1 ab02", "2 0 2  CD 03", "3 1 1 AB01 "}
	want := canonical(t, "example.com", schema.Result{Policy: schema.Policy{Type: schema.TLSA, Strings: records}}).Policy.Text()
	for range records {
		records = append(records[1:], records[0])
		if got := canonical(t, "EXAMPLE.com.", schema.Result{Policy: schema.Policy{Type: schema.TLSA, Strings: records}}).Policy.Text(); got != want {
			t.Errorf("%q has the text\n%s, want\n%s", records, got, want)
		}
	}
	if want != `{"policy-type":"tlsa","policy-string":["2 0 2 CD03","3 1 1 AB01","3 1 1 AB02"],"policy-domain":"example.com"}` {
		t.Errorf("text %s", want)
	}
}

func TestCanonicalDetails(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		why      string
		in, want schema.FailureDetails
	}{
		{
			"names and addresses in one form, no count",
			schema.FailureDetails{
				ResultType: schema.CertificateExpired, FailedSessionCount: 7,
				SendingMTAIP: addr("::ffff:192.0.2.1"), ReceivingIP: addr("2001:db8::1%eth0"),
				ReceivingMXHostname: "MX.Example.com.", ReceivingMXHelo: "Mx.example.COM",
				AdditionalInformation: "https://example.com/?a#b", FailureReasonCode: " X\tY ",
			},
			schema.FailureDetails{
				ResultType: schema.CertificateExpired, SendingMTAIP: addr("192.0.2.1"), ReceivingIP: addr("2001:db8::1"),
				ReceivingMXHostname: "mx.example.com", ReceivingMXHelo: "mx.example.com",
				AdditionalInformation: "https://example.com/?a#b", FailureReasonCode: "X Y",
			},
		},
		{
			"an unknown type is a validation-failure",
			schema.FailureDetails{ResultType: "weird-type"},
			schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: "weird-type"},
		},
		{
			"and does not hide the reason",
			schema.FailureDetails{ResultType: "weird-type", FailureReasonCode: "reason"},
			schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: "reason"},
		},
		{
			"no type at all",
			schema.FailureDetails{},
			schema.FailureDetails{ResultType: schema.ValidationFailure},
		},
		{
			"additional information that is no URI is a reason",
			schema.FailureDetails{ResultType: schema.TLSAInvalid, AdditionalInformation: "This is text"},
			schema.FailureDetails{ResultType: schema.TLSAInvalid, FailureReasonCode: "This is text"},
		},
		{
			"if there is none",
			schema.FailureDetails{ResultType: schema.TLSAInvalid, AdditionalInformation: "This is text", FailureReasonCode: "reason"},
			schema.FailureDetails{ResultType: schema.TLSAInvalid, FailureReasonCode: "reason"},
		},
		{
			"an unspecified address is unknown",
			schema.FailureDetails{ResultType: schema.TLSAInvalid, SendingMTAIP: addr("0.0.0.0"), ReceivingIP: addr("::")},
			schema.FailureDetails{ResultType: schema.TLSAInvalid},
		},
		{
			"a name that is none stays as text",
			schema.FailureDetails{ResultType: schema.TLSAInvalid, ReceivingMXHostname: "[2001:DB8::1]", ReceivingMXHelo: "M\xffX"},
			schema.FailureDetails{ResultType: schema.TLSAInvalid, ReceivingMXHostname: "[2001:db8::1]", ReceivingMXHelo: "m\ufffdx"},
		},
	} {
		got := canonical(t, "example.com", schema.Result{Policy: sts, Details: []schema.FailureDetails{c.in}}).Details[0]
		if got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.why, got, c.want)
		}
	}
}

var sts = schema.Policy{Type: schema.STS}

func TestCanonicalHelo(t *testing.T) {
	for in, want := range map[string]string{
		"mx.example.com": "mx.example.com",
		"250-mx.example.com\r\n250-PIPELINING\r\n250 SMTPUTF8":           "mx.example.com",
		"250-MX.example.com Hello [192.0.2.1], 12:00:01\r\n250 STARTTLS": "mx.example.com",
		"250 mx.example.com at your service":                             "mx.example.com",
		"mx.example.com\n250 x":                                          "mx.example.com",
		"\r\n 250 mx.example.com.":                                       "mx.example.com",
		"250-mx.example.com":                                             "250-mx.example.com", // a name
		"250-250-mx.example.com\r\n250 x":                                "250-mx.example.com",
		"[192.0.2.1] hello":                                              "[192.0.2.1]",
		"B\u00dcCHER.example\u00a0x":                                     "xn--bcher-kva.example",
		"a\x01b c":                                                       "a",
		"250 ":                                                           "",
		"250-\r\n250 x":                                                  "",
		" ":                                                              "",
		strings.Repeat("x", 70) + strings.Repeat(" x", 100000): strings.Repeat("x", 70),
		strings.Repeat("\u00fc", 300):                          strings.Repeat("\u00fc", 127),
	} {
		d := schema.FailureDetails{ResultType: schema.TLSAInvalid, ReceivingMXHelo: in}
		if got := canonical(t, "example.com", schema.Result{Policy: sts, Details: []schema.FailureDetails{d}}).Details[0].ReceivingMXHelo; got != want {
			t.Errorf("%.60q is %q, want %q", in, got, want)
		}
	}
}

// One session is one failed session, however often it met one fault.
func TestCanonicalDetailsOnce(t *testing.T) {
	details := []schema.FailureDetails{
		{ResultType: schema.TLSAInvalid, ReceivingMXHostname: "MX.example.com"},
		{ResultType: schema.DNSSECInvalid},
		{ResultType: schema.TLSAInvalid, ReceivingMXHostname: "mx.example.com."},
	}
	got := canonical(t, "example.com", schema.Result{Policy: sts, Details: details}).Details
	if len(got) != 2 || got[0].ReceivingMXHostname != "mx.example.com" || got[1].ResultType != schema.DNSSECInvalid {
		t.Errorf("%+v", got)
	}
}

func TestCanonicalBounds(t *testing.T) {
	huge := strings.Repeat("\u2603x", 1<<18)
	many := func(s string, n int) []string { return slices.Repeat([]string{s}, n) }
	distinct := make([]string, 1000)
	for i := range distinct {
		distinct[i] = fmt.Sprintf("3 1 1 %0512X", i)
	}
	for _, p := range []schema.Policy{
		{Type: schema.STS, Strings: []string{huge, huge}, MXHosts: many("mx.example.com", 1000)},
		{Type: schema.STS, Strings: many("x", 1<<18)},
		{Type: schema.STS, Strings: many(strings.Repeat(`"\`, 100), 1<<10)},
		{Type: schema.TLSA, Strings: distinct},
	} {
		c := canonical(t, "example.com", schema.Result{Policy: p}).Policy
		if n := len(c.Text()); n > 80<<10 || len(c.Strings) == 0 || len(c.MXHosts) > 100 {
			t.Errorf("%s: text of %d bytes, %d strings, %d hosts", p.Type, n, len(c.Strings), len(c.MXHosts))
		}
	}
	// The cut must not depend on the order of the records.
	want := canonical(t, "example.com", schema.Result{Policy: schema.Policy{Type: schema.TLSA, Strings: distinct}}).Policy.Text()
	slices.Reverse(distinct)
	if got := canonical(t, "example.com", schema.Result{Policy: schema.Policy{Type: schema.TLSA, Strings: distinct}}).Policy.Text(); got != want {
		t.Error("the order of TLSA records decides which are kept")
	}
	d := schema.FailureDetails{ResultType: schema.ResultType(huge), ReceivingMXHostname: huge, ReceivingMXHelo: huge, FailureReasonCode: huge, AdditionalInformation: "https://example.com/" + strings.Repeat("x", 300)}
	c := canonical(t, "example.com", schema.Result{Policy: sts, Details: []schema.FailureDetails{d}}).Details[0]
	for _, s := range []string{c.ReceivingMXHostname, c.ReceivingMXHelo, c.FailureReasonCode} {
		if len(s) < 253 || len(s) > 255 {
			t.Errorf("field of %d bytes", len(s))
		}
	}
	// A letter that is longer in lower case must not undo the cut.
	d.ReceivingMXHostname = strings.Repeat("\u023a", 127) + "!"
	if c := canonical(t, "example.com", schema.Result{Policy: sts, Details: []schema.FailureDetails{d}}).Details[0]; len(c.ReceivingMXHostname) > 255 {
		t.Errorf("host name of %d bytes", len(c.ReceivingMXHostname))
	}
	if c.AdditionalInformation != "" {
		t.Errorf("a part of a URI leads elsewhere: %q", c.AdditionalInformation)
	}
}

func TestCanonicalSession(t *testing.T) {
	when := time.Now()
	in := schema.Session{Time: when, Domain: "B\u00dcCHER.example.", Record: " v=TLSRPTv1;\trua=mailto:a@example.com", Results: []schema.Result{{Policy: sts, Failed: true}}}
	got, err := in.Canonical()
	want := schema.Session{Time: when, Domain: "xn--bcher-kva.example", Record: "v=TLSRPTv1; rua=mailto:a@example.com", Results: []schema.Result{
		{Policy: schema.Policy{Type: schema.STS, Domain: "xn--bcher-kva.example"}, Failed: true},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	in.Record = "v=TLSRPTv1;rua=mailto:" + strings.Repeat("x", 8<<10)
	if got, _ := in.Canonical(); got.Record != "" {
		t.Errorf("a part of a record may lead elsewhere: %.40q", got.Record)
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for why, s := range map[string]schema.Session{
		"no domain":       {Results: []schema.Result{{Policy: sts}}},
		"an address":      {Domain: "[192.0.2.1]", Results: []schema.Result{{Policy: sts}}},
		"no policy":       {Domain: "example.com"},
		"17 policies":     {Domain: "example.com", Results: slices.Repeat([]schema.Result{{Policy: sts}}, 17)},
		"no policy type":  {Domain: "example.com", Results: []schema.Result{{}}},
		"an unknown type": {Domain: "example.com", Results: []schema.Result{{Policy: sts}, {Policy: schema.Policy{Type: "x"}}}},
		"65 details":      {Domain: "example.com", Results: []schema.Result{{Policy: sts, Details: make([]schema.FailureDetails, 65)}}},
	} {
		if c, err := s.Canonical(); !errors.Is(err, schema.ErrSession) || !reflect.DeepEqual(c, schema.Session{}) {
			t.Errorf("%s: %+v, %v", why, c, err)
		}
	}
}

func TestCanonicalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkCanonical(t, anySession.Draw(t, "session")) })
}

// checkCanonical holds what must be true of every session.
func checkCanonical(t interface {
	Errorf(string, ...any)
}, s schema.Session) {
	before := fmt.Sprintf("%+v", s)
	c, err := s.Canonical()
	if err != nil {
		if !errors.Is(err, schema.ErrSession) || !reflect.DeepEqual(c, schema.Session{}) {
			t.Errorf("%+v, %v", c, err)
		}
		return
	}
	again, err := c.Canonical()
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("canonical form of\n%+v is\n%+v, %v", c, again, err)
	}
	checkTexts(t, c)
	checkReport(t, reportOf(c))
	// Nothing of c may be reached from s.
	after := fmt.Sprintf("%+v", c)
	scribble(s)
	if now := fmt.Sprintf("%+v", c); now != after {
		t.Errorf("a change of %s changes its canonical form", before)
	}
}

// checkTexts holds that the texts of policies and details lose nothing.
func checkTexts(t interface {
	Errorf(string, ...any)
}, c schema.Session) {
	for _, r := range c.Results {
		if p, err := r.Policy.Text().Policy(); err != nil || !reflect.DeepEqual(p, r.Policy) {
			t.Errorf("policy %q reads back as %q, %v", r.Policy, p, err)
		}
		for _, d := range r.Details {
			if f, err := d.Text().FailureDetails(); err != nil || f != d {
				t.Errorf("details %q read back as %q, %v", d, f, err)
			}
		}
	}
}

// scribble overwrites all that the slices of s hold.
func scribble(s schema.Session) {
	for i, r := range s.Results {
		for j := range r.Policy.Strings {
			r.Policy.Strings[j] = "scribble"
		}
		for j := range r.Policy.MXHosts {
			r.Policy.MXHosts[j] = "scribble"
		}
		for j := range r.Details {
			r.Details[j] = schema.FailureDetails{FailureReasonCode: "scribble"}
		}
		s.Results[i] = schema.Result{}
	}
}

func TestTextErrors(t *testing.T) {
	if p, err := schema.PolicyText("{").Policy(); err == nil || !reflect.DeepEqual(p, schema.Policy{}) {
		t.Errorf("%+v, %v", p, err)
	}
	if d, err := schema.DetailsText("{").FailureDetails(); err == nil || d != (schema.FailureDetails{}) {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestResultWords(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range resultTypes {
		w := r.Words()
		if !r.Known() || w == "" || w == string(r) || seen[w] {
			t.Errorf("%s in words is %q", r, w)
		}
		seen[w] = true
	}
	if r := schema.ResultType("Testing"); r.Known() || r.Words() != "Testing" {
		t.Errorf("%s is known, or %q", r, r.Words())
	}
}

func BenchmarkCanonical(b *testing.B) {
	success := schema.Session{Domain: "example.com", Record: "v=TLSRPTv1;rua=mailto:a@example.com", Results: []schema.Result{{Policy: schema.Policy{
		Type: schema.STS, Domain: "example.com", MXHosts: []string{"*.mail.example.com"},
		Strings: []string{"version: STSv1", "mode: enforce", "mx: *.mail.example.com", "max_age: 86400"},
	}}}}
	dane := schema.Session{Domain: "example.com", Results: []schema.Result{{Policy: schema.Policy{
		Type: schema.TLSA, Domain: "mx.example.com", Strings: []string{"3 1 1 1F850A337E6DB9C609C522D136A475638CC43E1ED424F8EEC8513D747D1D085D"},
	}}}}
	failure := success
	failure.Results = []schema.Result{{Policy: success.Results[0].Policy, Failed: true, Details: []schema.FailureDetails{{
		ResultType: schema.CertificateExpired, SendingMTAIP: netip.MustParseAddr("192.0.2.1"), ReceivingMXHostname: "mx.mail.example.com",
		ReceivingMXHelo: "250-mx.mail.example.com\r\n250-PIPELINING", ReceivingIP: netip.MustParseAddr("2001:db8::1"),
	}}}}
	for name, s := range map[string]schema.Session{"sts": success, "tlsa": dane, "failure": failure} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Canonical(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/text", func(b *testing.B) {
			b.ReportAllocs()
			c, _ := s.Canonical()
			for b.Loop() {
				_ = c.Results[0].Policy.Text()
				for _, d := range c.Results[0].Details {
					_ = d.Text()
				}
			}
		})
	}
}
