package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// policyText is a good policy, in the form of RFC 8461, appendix A.
const policyText = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"

// goodPolicies and badPolicies are for TestParsePolicy, and seed the fuzzer.
var (
	goodPolicies = []string{
		policyText,
		strings.ReplaceAll(policyText, "\r", ""),
		strings.TrimSuffix(policyText, "\r\n"),                            // the last terminator is optional
		"version:STSv1\nmode:testing\nmx:a.example.com\nmax_age:0",        // no white space
		"mx: a.example.com\nmax_age: 1\nmode: enforce\nversion: STSv1\n",  // any order
		"version: STSv1\nmode: none\nmax_age: 86400\n",                    // no mx
		"version: STSv1\n\nmode: none\n \t\nmax_age: 86400\n\n",           // empty lines
		"version: STSv1\nmode: none\nmax_age: 9999999999\n",               // cut to a year
		"version: STSv1\nmode: none\nmax_age: 1\nx-y.z: \xff\"{}\u2028\n", // unknown
		"version: STSv1 \nmode: enforce\t\nmx: MX.Example.COM \nmax_age: 1 \n",
		"version: STSv1\nmode: enforce\nmode: nonsense\nmx: a.example.com\nmax_age: 1\nmax_age: x\nversion: STSv2",
	}
	badPolicies = []string{
		"",
		"version: STSv1\nmode: enforce\nmx: a.example.com\n",                                  // no max_age
		"version: STSv1\nmx: a.example.com\nmax_age: 1\n",                                     // no mode
		"mode: enforce\nmx: a.example.com\nmax_age: 1\n",                                      // no version
		"version: STSv1\nmode: enforce\nmax_age: 1\n",                                         // no mx
		"version: STSv2\nmode: enforce\nmx: a.example.com\nmax_age: 1\n",                      // version
		"version: stsv1\nmode: enforce\nmx: a.example.com\nmax_age: 1\n",                      // case
		"Version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 1\n",                      // case
		"version: STSv1\nmode: Enforce\nmx: a.example.com\nmax_age: 1\n",                      // case
		"version: STSv1\nmode: report\nmx: a.example.com\nmax_age: 1\n",                       // a draft's
		"version: STSv1\nmode: enforce\nmode: none\nmx: \nmax_age: 1\n",                       // no host
		"version: STSv1\nmode: enforce\nmx: a.example.com,b.example.com\nmax_age: 1\n",        // two in one
		"version: STSv1\nmode: enforce\nmx: .example.com\nmax_age: 1\n",                       // a draft's wildcard
		"version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n",                                  //
		"version: STSv1\nmode: enforce\nmx: a.*.example.com\nmax_age: 1\n",                    //
		"version: STSv1\nmode: enforce\nmx: b\u00fccher.example\nmax_age: 1\n",                // no A-labels
		"version: STSv1\nmode: enforce\nmx: 192.0.2.1\nmax_age: 1\n",                          // an address
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: -1\n",                     //
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: +1\n",                     //
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 1d\n",                     //
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age:\n",                        //
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 00000000001\n",            // 11 digits
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 99999999999999999999\n",   //
		"version: STSv1\rmode: enforce\rmx: a.example.com\rmax_age: 1\r",                      // bare CR
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 1\nno colon\n",            //
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 1\n: no name\n",           //
		"version: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 1\n<html>: x\n",           //
		"{\"version\": \"STSv1\", \"mode\": \"report\", \"mx\": [\"a.example.com\"]}",         // a draft's JSON
		"\ufeffversion: STSv1\nmode: enforce\nmx: a.example.com\nmax_age: 1\n",                // BOM
		"<!DOCTYPE html>\n<html><body>Not Found</body></html>\n",                              //
		"version: STSv1\nmode: enforce\nmx: " + strings.Repeat("a.", 130) + "b\nmax_age: 1\n", //
	}
)

func TestParsePolicy(t *testing.T) {
	for _, text := range goodPolicies {
		if p, err := ParsePolicy(text); err != nil {
			t.Errorf("%q: %v", text, err)
		} else {
			checkPolicy(t, p)
		}
	}
	for _, text := range badPolicies {
		p, err := ParsePolicy(text)
		if !errors.Is(err, ErrSTSPolicy) {
			t.Errorf("%q: %+v, %v; want ErrSTSPolicy", text, p, err)
		}
		if f, ok := errors.AsType[*policyFault](err); !ok || !strings.HasPrefix(f.code, "policy-") || len(f.code) > 40 {
			t.Errorf("%q: no short code in %#v", text, err)
		}
	}
}

// checkPolicy holds p to what its type promises.
func checkPolicy(t *testing.T, p STSPolicy) {
	t.Helper()
	if p.Mode != Enforce && p.Mode != Testing && p.Mode != None || p.MaxAge < 0 || p.MaxAge > maxAgeSeconds*time.Second {
		t.Errorf("mode %q, max_age %s", p.Mode, p.MaxAge)
	}
	if p.Mode != None && len(p.MX) == 0 {
		t.Error("no mx")
	}
	text, err := p.policy("example.com")
	if err != nil {
		t.Fatal(err)
	}
	for i, mx := range text.MXHosts {
		if mx != p.MX[i] { // none is dropped or changed, but for the number
			t.Errorf("mx %q is %q in the report", p.MX[i], mx)
		}
	}
	checkCanonical(t, text)
}

// checkCanonical reports a policy that counts under another text than its own.
func checkCanonical(t *testing.T, p schema.Policy) {
	t.Helper()
	again, err := canonical(p.Domain, p)
	if err != nil || again.Text() != p.Text() {
		t.Errorf("%s\nis not canonical: %s, %v", p.Text(), again.Text(), err)
	}
}

func TestPolicyFields(t *testing.T) {
	p, err := ParsePolicy(policyText)
	if err != nil {
		t.Fatal(err)
	}
	if p.Mode != Enforce || p.MaxAge != 7*24*time.Hour || !slices.Equal(p.MX, []string{"mail.example.com", "*.example.net"}) {
		t.Errorf("%+v", p)
	}
	text, err := p.policy("example.com")
	const want = `{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce","mx: mail.example.com","mx: *.example.net","max_age: 604800"],` +
		`"policy-domain":"example.com","mx-host":["mail.example.com","*.example.net"]}`
	if err != nil || string(text.Text()) != want {
		t.Errorf("%s, %v\nwant %s", text.Text(), err, want)
	}

	p, err = ParsePolicy("max_age: 99999999\nmode: testing\nmode: none\nmx: MX.example.com.\nversion: STSv1\nbad-idea: \tkept\n")
	if err != nil || p.Mode != Testing || p.MaxAge != maxAgeSeconds*time.Second || !slices.Equal(p.MX, []string{"mx.example.com"}) {
		t.Errorf("%+v, %v", p, err)
	}
	lines := []string{"max_age: 99999999", "mode: testing", "mode: none", "mx: MX.example.com.", "version: STSv1", "bad-idea: \tkept"}
	if !slices.Equal(p.Lines, lines) {
		t.Errorf("lines %q, want them as they are", p.Lines)
	}
}

func TestMatches(t *testing.T) {
	p := STSPolicy{MX: []string{"mail.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mail.example.com":     true,
		"a.example.net":        true,
		"example.net":          false,
		"a.b.example.net":      false, // one label (RFC 8461, section 4.1)
		"mail2.example.com":    false,
		"x.mail.example.com":   false,
		"example.com":          false,
		"aexample.net":         false,
		"a.example.net.org":    false,
		"mail.example.com.org": false,
		"":                     false,
	} {
		if got := p.Matches(host); got != want {
			t.Errorf("%q: %t, want %t", host, got, want)
		}
	}
}

// goodRecords and badRecords are for TestParseRecord, and seed the fuzzer.
var (
	goodRecords = map[string]string{
		"v=STSv1; id=20160831085700Z;":                         "20160831085700Z",
		"v=STSv1;id=1":                                         "1",
		"v=STSv1;\tid=a\t;\t":                                  "a",
		"v=STSv1; x=y; id=2; z-_.9=~!":                         "2",
		"v=STSv1; id=1; id=2":                                  "1",
		"v=STSv1; id=" + strings.Repeat("9", 32):               strings.Repeat("9", 32),
		"v=STSv1; " + strings.Repeat("x", 32) + "=1; id=abcDE": "abcDE",
	}
	badRecords = []string{
		"",
		"v=STSv1",
		"v=STSv1;",
		"v=STSv1; ",
		"v=STSv1; id=",
		"v=STSv1; id=a-b",
		"v=STSv1; id=a b",
		"v=STSv1; id=" + strings.Repeat("9", 33),
		"v=STSv1; ID=1",
		"v=STSv1 ; id=1", // the discarding rule of section 3.1 knows no white space here
		"V=STSv1; id=1",
		"v=STSv2; id=1",
		"v=STSv1; id=1; x",
		"v=STSv1; id=1; x=",
		"v=STSv1; id=1; =y",
		"v=STSv1; id=1; x=a=b",
		"v=STSv1; id=1; " + strings.Repeat("x", 33) + "=1",
		"v=STSv1; id=1;;",
		"v=STSv1;; id=1",
		"v=STSv1; id=1; _x=y",
		"v=STSv1; id=\u00e4",
		" v=STSv1; id=1",
		"\"v=STSv1; id=1\"",
	}
)

func TestParseRecord(t *testing.T) {
	for txt, want := range goodRecords {
		if id, err := ParseRecord(txt); err != nil || id != want {
			t.Errorf("%q: %q, %v; want %q", txt, id, err, want)
		}
	}
	for _, txt := range badRecords {
		if id, err := ParseRecord(txt); !errors.Is(err, ErrNoSTS) || id != "" {
			t.Errorf("%q: %q, %v; want ErrNoSTS", txt, id, err)
		}
	}
}

func TestSelectRecord(t *testing.T) {
	const record, other = "v=STSv1; id=1", "v=STSv1; id=2"
	for _, txts := range [][]string{{record}, {"v=spf1 -all", record}, {record, "v=STSv2; id=2", "V=STSv1; id=3", "v=STSv1"}} {
		if got, err := SelectRecord(txts); err != nil || got != record {
			t.Errorf("%q: %q, %v", txts, got, err)
		}
	}
	for _, txts := range [][]string{nil, {""}, {"v=spf1 -all"}, {record, other}, {record, record}, {record, "v=STSv1;"}} {
		if got, err := SelectRecord(txts); !errors.Is(err, ErrNoSTS) {
			t.Errorf("%q: %q, %v; want ErrNoSTS", txts, got, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, s := range slices.Concat(goodPolicies, badPolicies) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy(text)
		if err != nil {
			if !errors.Is(err, ErrSTSPolicy) || len(p.Lines)+len(p.MX) > 0 {
				t.Errorf("%+v, %v", p, err)
			}
			return
		}
		checkPolicy(t, p)
		again, err := ParsePolicy(strings.Join(p.Lines, "\r\n"))
		if err != nil || !slices.Equal(again.MX, p.MX) || again.Mode != p.Mode || again.MaxAge != p.MaxAge {
			t.Errorf("its lines are another policy: %+v, %v", again, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	for s := range goodRecords {
		f.Add(s)
	}
	for _, s := range badRecords {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		id, err := ParseRecord(txt)
		if (err == nil) != isID(id) {
			t.Fatalf("%q, %v", id, err)
		}
		if err != nil {
			return
		}
		if got, err := SelectRecord([]string{txt}); err != nil || got != txt {
			t.Errorf("a record that is not selected: %v", err)
		}
		if again, err := ParseRecord(txt + "; x=y"); err != nil && !strings.HasSuffix(strings.TrimRight(txt, " \t"), ";") || err == nil && again != id {
			t.Errorf("with an extension: %q, %v", again, err)
		}
	})
}
