package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// stsAnswer is what postfix-mta-sts-resolver and postfix-tlspol say of an
// enforced policy.
const stsAnswer = "secure match=mx.example.com:.example.net servername=hostname policy_type=sts policy_domain=example.com " +
	"{ policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.example.com } " +
	"{policy_string=mx: *.example.net} { policy_string = max_age: 86400 } mx_host_pattern=mx.example.com mx_host_pattern=*.example.net policy_ttl=3600"

var (
	goodAnswers = []string{
		stsAnswer,
		"dane-only",
		"secure match=mx.example.com servername=hostname",
		"may",
		"dane, policy_type=no-policy-found",
		"secure\tpolicy_type=sts,policy_ttl=0",
		"secure policy_type=sts policy_failure=sts-webpki-invalid",
		"secure policy_type=sts { policy_string = a { b } c = d }",
		"secure { match = a:b } policy_type=sts policy_domain=b\u00fccher.example",
		"secure match = odd",
	}
	badAnswers = []string{
		"",
		" , ",
		"{}",
		"{ } secure",
		"policy_type=sts",
		"secure policy_type=tlsa",
		"secure policy_type=",
		"secure policy_type=sts policy_type=sts",
		"secure policy_type=sts policy_domain=a.example policy_domain=b.example",
		"secure policy_type=sts policy_domain=192.0.2.1",
		"secure policy_type=sts policy_failure=certificate-expired",
		"secure policy_type=sts policy_ttl=-1",
		"secure policy_type=sts policy_ttl=99999999999",
		"secure policy_domain=example.com",
		"secure mx_host_pattern=mx.example.com",
		"secure { policy_string = version: STSv1 }",
		"secure policy_failure=sts-webpki-invalid",
		"secure policy_type=sts { policy_string = x",
		"secure policy_type=sts {{ policy_string = x }",
	}
)

func TestParseDaemonAnswer(t *testing.T) {
	for _, text := range goodAnswers {
		a, err := parseDaemonAnswer("example.com", text)
		if err != nil || a.level == "" {
			t.Errorf("%q: %+v, %v", text, a, err)
		} else if a.policy != nil {
			checkCanonical(t, *a.policy)
		}
	}
	for _, text := range badAnswers {
		if a, err := parseDaemonAnswer("example.com", text); !errors.Is(err, errSocketmap) {
			t.Errorf("%q: %+v, %v; want errSocketmap", text, a, err)
		}
	}
}

func TestDaemonAnswer(t *testing.T) {
	a, err := parseDaemonAnswer("example.org", stsAnswer)
	if err != nil || a.level != "secure" || a.mode != Enforce || a.failure != "" || a.ttl != time.Hour {
		t.Errorf("%+v, %v", a, err)
	}
	const want = `{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce","mx: mx.example.com","mx: *.example.net","max_age: 86400"],` +
		`"policy-domain":"example.com","mx-host":["mx.example.com","*.example.net"]}`
	if got := a.policy.Text(); string(got) != want {
		t.Errorf("%s\nwant %s", got, want)
	}

	a, err = parseDaemonAnswer("example.org", "secure policy_type=sts policy_failure=sts-policy-invalid { policy_string = mode: testing }")
	if err != nil || a.policy.Domain != "example.org" || a.failure != schema.STSPolicyInvalid || a.mode != Testing {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = parseDaemonAnswer("example.org", "dane-only"); err != nil || a.policy != nil || a.level != "dane-only" {
		t.Errorf("%+v, %v", a, err)
	}
}

// What a fetched policy and a daemon's answer of the same policy say must be one
// key.
func TestDaemonAnswerEqualsFetched(t *testing.T) {
	p, err := ParsePolicy("version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmx: *.example.net\r\nmax_age: 86400\r\n")
	if err != nil {
		t.Fatal(err)
	}
	fetched, err := p.policy("example.com")
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseDaemonAnswer("example.com", stsAnswer)
	if err != nil || a.policy.Text() != fetched.Text() {
		t.Errorf("%s\n%s, %v", a.policy.Text(), fetched.Text(), err)
	}
}

func FuzzDaemonAnswer(f *testing.F) {
	for _, s := range slices.Concat(goodAnswers, badAnswers) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseDaemonAnswer("example.com", text)
		if (err == nil) == (a.level == "") || err != nil && !errors.Is(err, errSocketmap) {
			t.Fatalf("%+v, %v", a, err)
		}
		if a.policy != nil {
			checkCanonical(t, *a.policy)
		}
		if again, err2 := parseDaemonAnswer("example.com", " ,\t"+strings.TrimLeft(text, ", \t\r\n")+"\n"); (err == nil) != (err2 == nil) || again.level != a.level {
			t.Errorf("with separators around it: %+v, %v", again, err2)
		}
	})
}
