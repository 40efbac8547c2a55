package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestDomainPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, domain string
		want            bool
	}{
		{"example.com", "example.com", true},
		{"Example.COM.", "example.com", true},             // the form of the DNS
		{"example.com", "sub.example.com", false},         // that domain alone
		{"example.com", "notexample.com", false},          //
		{"*.example.com", "sub.example.com", true},        //
		{"*.example.com", "a.b.example.com", true},        // however deep
		{"*.example.com", "example.com", false},           // not itself
		{"*.example.com", "notexample.com", false},        // labels, not letters
		{"*.EXAMPLE.com", "sub.example.com", true},        //
		{"bücher.example", "xn--bcher-kva.example", true}, // U-labels
		{"*.bücher.example", "a.xn--bcher-kva.example", true},
		{"*", "anything.example", true},
	} {
		p, err := parseDomainPattern(c.pattern)
		check(t, err)
		if got := p.matches(c.domain); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.domain, got)
		}
	}
	for _, bad := range []string{"", "*.", "*example.com", "a.*.com", "*.*.com", "192.0.2.1", "a b", "a@example.com", "**"} {
		if _, err := parseDomainPattern(bad); !errors.Is(err, ErrPattern) {
			t.Errorf("%q: %v, want %v", bad, err, ErrPattern)
		}
	}
}

func TestRUAPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, rua string
		want         bool
	}{
		{"a@example.com", "mailto:a@example.com", true},
		{"A@Example.com", "mailto:a@example.com", true},
		{"a@example.com", "mailto:A@example.com", true},
		{"mailto:a@example.com", "mailto:a@example.com", true},
		{"a@example.com", "mailto:b@example.com", false},
		{"a@example.com", "mailto:a@sub.example.com", false},
		{"*@example.com", "mailto:b@example.com", true},
		{"*@example.com", "mailto:b@sub.example.com", false},
		{"*@*.example.com", "mailto:b@sub.example.com", true},
		{"*@*.example.com", "mailto:b@example.com", false},
		{"*@*", "mailto:b@example.com", true},
		{"*@*", "https://example.com/", false}, // mail alone
		{"*@example.com", "https://example.com/", false},
		{"a@bücher.example", "mailto:a@xn--bcher-kva.example", true},
		{"a!b@example.com", "mailto:a%21b@example.com", true}, // percent-encoded in a rua
		{"https://example.com", "https://example.com/any/path?q=1", true},
		{"https://example.com", "https://example.com:8443/", true}, // no port: every one
		{"https://example.com:8443", "https://example.com:8443/x", true},
		{"https://example.com:443/*", "https://example.com/x", true},
		{"https://example.com:443/*", "https://example.com:8443/x", false},
		{"https://example.com/", "https://example.com/", true},
		{"https://example.com/", "https://example.com/x", false},
		{"https://example.com/v1", "https://example.com/v1", true},
		{"https://example.com/v1", "https://example.com/v1/x", false},
		{"https://example.com/v1*", "https://example.com/v1/x", true},
		{"https://example.com/V1/*", "https://example.com/v1/x", true},
		{"https://example.com/v1/*", "https://example.com/v2/x", false},
		{"https://example.com/v1?key=*", "https://example.com/v1?key=7", true},
		{"https://example.com/*", "https://sub.example.com/", false},
		{"https://*.example.com/*", "https://sub.example.com/x", true},
		{"https://*.example.com/*", "https://example.com/x", false},
		{"https://*.example.com", "https://a.b.example.com/", true},
		{"HTTPS://*", "https://example.net/x", true},
		{"https://*/v1/*", "https://example.net/v1/x", true},
		{"https://*/v1/*", "https://example.net/v2/x", false},
		{"https://*:8443/*", "https://example.net:8443/x", true},
		{"https://*:8443/*", "https://example.net/x", false},
		{"https://192.0.2.1/*", "https://192.0.2.1/x", true},
		{"https://[2001:db8::1]/*", "https://[2001:db8::1]/x", true},
		{"https://example.com/*", "mailto:a@example.com", false},
	} {
		p, err := parseRUAPattern(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		rua, err := schema.ParseRUA(c.rua)
		check(t, err)
		if got := p.matches(rua); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.rua, got)
		}
	}
	for _, bad := range []string{
		"", "example.com", "@example.com", "a@", "a*@example.com", "a@b@example.com", "*", // no address
		"https:", "https://", "https:///x", "https://*example.com", "https://a.*.com/", "https://a/*/b", "https://u@example.com/",
		"ftp://example.com", "http://example.com/", "mailto:", "mailto:a@example.com,b@example.com",
	} {
		if _, err := parseRUAPattern(bad); !errors.Is(err, ErrPattern) {
			t.Errorf("%q: %v, want %v", bad, err, ErrPattern)
		}
	}
}

// FuzzRUAPattern: what can be read as a pattern without a wildcard and is a rua
// leaves out that rua.
func FuzzRUAPattern(f *testing.F) {
	for _, s := range []string{"mailto:a@example.com", "https://example.com/v1", "https://*.example.com/*", "*@*", "mailto:a%21b@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseRUAPattern(s)
		if err != nil {
			return
		}
		rua, err := schema.ParseRUA(s)
		if err != nil || strings.ContainsAny(s, "*%#?") {
			return
		}
		if !p.matches(rua) {
			t.Errorf("%q does not match %q", s, rua)
		}
	})
}

// TestChoice: each setting ends domain-days as excluded, and says so.
func TestChoice(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restart(Options{Choice: Choice{
			OnlyDomains:    []string{"*.example", "other.test", "*.other.test"},
			ExcludeDomains: []string{"*.left.example"},
			ExcludeRUA:     []string{"*@no.example", "https://*.no.example/*"},
			MinSessions:    2, OnlyFailures: true,
		}})
		b.records["no.example"] = "v=TLSRPTv1; rua=mailto:a@no.example,https://x.no.example/v1"
		b.records["part.example"] = "v=TLSRPTv1; rua=mailto:a@no.example,mailto:a@part.example"
		for _, d := range []string{"yes.example", "a.left.example", "only.test", "no.example", "part.example", "few.example", "fine.example"} {
			b.session(d, d != "fine.example")
			if d != "few.example" {
				b.session(d, false)
			}
		}
		b.until(day0+1, "06:00")
		b.want("part.example 2000-01-01 1/1", "yes.example 2000-01-01 1/1")
		for d, want := range map[string]aggregator.State{
			"yes.example": aggregator.StateReported, "part.example": aggregator.StateReported,
			"a.left.example": aggregator.StateExcluded, "only.test": aggregator.StateExcluded, "no.example": aggregator.StateExcluded,
			"few.example": aggregator.StateExcluded, "fine.example": aggregator.StateExcluded,
		} {
			if got := b.state(d, day0); got != want {
				b.Errorf("%s is %s, want %s", d, got, want)
			}
		}
		for _, d := range []string{"a.left.example", "only.test", "few.example", "fine.example"} {
			if b.asked[d] > 0 {
				b.Errorf("the record of %s was looked up", d)
			}
		}
		want := []string{"part.example mailto:a@no.example suppressed submit.exclude_rua has *@no.example",
			"part.example mailto:a@part.example sent ", "yes.example mailto:reports@yes.example sent "}
		if got := b.ends(); !equalSorted(got, want) {
			b.Errorf("deliveries %q, want %q", got, want)
		}
	}, "yes.example", "a.left.example", "only.test", "few.example", "fine.example")
}

// TestVerdict: what is excluded is so before its day is planned, and after.
func TestVerdict(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restart(Options{Choice: Choice{MinSessions: 2}})
		b.session("few.example", false)
		b.session("yes.example", false)
		b.session("yes.example", false)
		check(b.T, b.Flush(b.Context()))
		for _, at := range []string{"12:00", "06:00"} {
			day := day0
			if at == "06:00" {
				day++
			}
			b.until(day, at)
			for d, want := range map[string]aggregator.State{"few.example": aggregator.StateExcluded, "yes.example": ""} {
				if got, _, err := b.Verdict(b.Context(), d, day0); err != nil || got != want {
					b.Errorf("%s at %s is %q (%v), want %q", d, at, got, err, want)
				}
			}
		}
		if _, _, err := b.Verdict(b.Context(), "nobody.example", day0); !errors.Is(err, aggregator.ErrNoData) {
			b.Errorf("an unknown domain: %v", err)
		}
	}, "few.example", "yes.example")
}

// TestDryRunSetting: reports are made and kept, and none is sent, nor a copy.
func TestDryRunSetting(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restart(Options{DryRun: true, BCC: "ops@example.com"})
		b.session("example.org", false)
		b.until(day0+2, "06:00")
		b.want()
		if got := b.ends(); !equalSorted(got, []string{"example.org mailto:reports@example.org suppressed submit.dry_run"}) {
			b.Errorf("deliveries %q", got)
		}
		if got := b.state("example.org", day0); got != aggregator.StateReported {
			b.Errorf("the day is %s", got)
		}
	}, "example.org")
}

// TestDryRunHoldsBack: what waits from before stays where it is, and goes on once
// it may.
func TestDryRunHoldsBack(t *testing.T) {
	bubble(t, func(b *bench) {
		b.refuse = func(_ string, attempt int) error {
			if attempt == 1 {
				return &submitterError{Temporary: true, RetryAfter: 6 * time.Hour, Reply: "451 later"}
			}
			return nil
		}
		b.session("example.org", false)
		b.until(day0+1, "04:30")
		b.restart(Options{DryRun: true})
		b.until(day0+1, "11:00")
		check(b.T, b.Submit(b.Context(), Submission{}, nil))
		if len(b.mails) != 1 {
			b.Errorf("%d attempts, want the one from before", len(b.mails))
		}
		b.restart(Options{})
		b.until(day0+1, "12:00")
		b.want("example.org 2000-01-01 1/0")
	}, "example.org")
}

// TestBCC: the operator gets a copy, of what goes by HTTPS too, and a copy that
// fails changes nothing for the report.
func TestBCC(t *testing.T) {
	bubble(t, func(b *bench) {
		b.restart(Options{BCC: "o!ps@example.com", OneRUA: true})
		b.records["example.net"] = "v=TLSRPTv1; rua=https://nobody.example/v1,mailto:a@example.net,mailto:b@example.net"
		b.refuse = func(to string, _ int) error {
			if to == "a@example.net" {
				return &submitterError{Reply: "550 5.1.1 no such user"}
			}
			return nil
		}
		b.session("example.org", false)
		b.session("example.net", false)
		b.until(day0+3, "06:00")
		b.want("example.org 2000-01-01 1/0", "example.org 2000-01-01 1/0", "example.net 2000-01-01 1/0", "example.net 2000-01-01 1/0")
		want := []string{"example.org mailto:reports@example.org sent ", "example.org mailto:o%21ps@example.com sent ",
			"example.net mailto:b@example.net sent ", "example.net mailto:o%21ps@example.com sent "}
		got := b.ends()
		var sent []string
		for _, s := range got {
			if strings.HasSuffix(s, " sent ") {
				sent = append(sent, s)
			}
		}
		if !equalSorted(sent, want) {
			b.Errorf("sent %q, want %q", sent, want)
		}
	}, "example.org")
}

// TestOptionsOfChoice: what cannot be read is refused at start.
func TestOptionsOfChoice(t *testing.T) {
	bubble(t, func(b *bench) {
		for name, o := range map[string]Options{
			"pattern":        {Choice: Choice{ExcludeRUA: []string{"example.com"}}},
			"only":           {Choice: Choice{OnlyDomains: []string{"a b"}}},
			"exclude":        {Choice: Choice{ExcludeDomains: []string{"a b"}}},
			"sessions":       {Choice: Choice{MinSessions: -1}},
			"bcc":            {BCC: "nobody"},
			"counts reports": {CountsReports: true, MaxAge: heldMaxAge - 1},
		} {
			o.Store = b.store
			if _, err := New(o); !errors.Is(err, ErrOptions) {
				b.Errorf("%s: %v, want %v", name, err, ErrOptions)
			}
		}
	})
}
