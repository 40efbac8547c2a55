package libtlsrpt

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// captured is all datagrams that were captured from the library (*.json) and
// from Postfix (*.jsonl), by name.
func captured(t testing.TB) (names []string, datagrams map[string][]byte) {
	t.Helper()
	datagrams = map[string][]byte{}
	add := func(name string, datagram []byte) {
		names = append(names, name)
		datagrams[name] = datagram
	}
	files, err := filepath.Glob("testdata/libtlsrpt/*.json")
	if err != nil || len(files) != 27 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		add(filepath.Base(file), b)
	}
	for i, c := range postfixCaptures(t) {
		add(fmt.Sprintf("%s#%d", c.Scenario, i), []byte(c.Raw))
	}
	return names, datagrams
}

// capture is one line of testdata/postfix.
type capture struct {
	Scenario string
	Len      int
	Raw      string
	Datagram json.RawMessage
}

func postfixCaptures(t testing.TB) (all []capture) {
	t.Helper()
	files, err := filepath.Glob("testdata/postfix/*.jsonl")
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var c capture
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				t.Fatal(err)
			}
			c.Scenario = strings.TrimSuffix(filepath.Base(file), ".jsonl") + " " + c.Scenario
			all = append(all, c)
		}
	}
	return all
}

// TestCaptured compares what the captured datagrams are decoded to with the
// golden file.
func TestCaptured(t *testing.T) {
	var got bytes.Buffer
	names, datagrams := captured(t)
	for _, name := range names {
		s, err := Decode(datagrams[name])
		fmt.Fprintf(&got, "%s\n", name)
		if err != nil {
			fmt.Fprintf(&got, "\t%v\n", err)
			continue
		}
		fmt.Fprintf(&got, "\t%s %q\n", s.Domain, s.Record)
		for _, r := range s.Results {
			fmt.Fprintf(&got, "\tfailed=%t %s\n", r.Failed, r.Policy.Text())
			for _, f := range r.Details {
				fmt.Fprintf(&got, "\t\t%s\n", f.Text())
			}
		}
	}
	const golden = "testdata/sessions.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("sessions differ from %s: run with -update and look at the difference", golden)
	}
}

// TestSpacing decodes each Postfix datagram as it was sent and as another
// encoder wrote it: other white space, another order, no raw bytes.
func TestSpacing(t *testing.T) {
	for _, c := range postfixCaptures(t) {
		raw, err1 := Decode([]byte(c.Raw))
		other, err2 := Decode(c.Datagram)
		if err1 != nil || err2 != nil {
			t.Fatal(c.Scenario, err1, err2)
		}
		if !reflect.DeepEqual(raw, other) {
			t.Errorf("%s: %+v\nand %+v", c.Scenario, raw, other)
		}
	}
}

// datagram is one with the given text of its members.
func datagram(d, policies string) string {
	return `{"dpv": "1","d": ` + d + `,"pr": "v=TLSRPTv1; rua=mailto:t@example.com","policies":` + policies + `}`
}

const okPolicy = `{"policy-type":9,"t":0,"f":0}`

// failing is a datagram with one failure.
func failing(detail string) string {
	return datagram(`"example.com"`, `[{"policy-type":9,"failure-details":[`+detail+`],"t":1,"f":1}]`)
}

// policy is a datagram with one policy.
func policy(text string) string { return datagram(`"example.com"`, `[`+text+`]`) }

// wellFormed and malformed seed the fuzzer too.
var wellFormed = []struct{ datagram, why string }{
	{policy(okPolicy), "the least"},
	{" \t\r\n" + policy(okPolicy) + "\n", "white space around it"},
	{`{"d":"example.com","pr":"","policies":[` + okPolicy + `]}`, "no dpv: before 0.5.0"},
	{`{"policies":[{"f":0,"t":0,"policy-type":9}],"pr":"","d":"example.com","dpv":"1"}`, "another order"},
	{`{"d":"example.com","pr":"","policies":[` + okPolicy + `],"new":{"a":[1,-2.5e+3,true,false,null,"\"]}"]}}`, "an unknown member"},
	{`{"\u0064":"example.com","pr":"","policies":[` + okPolicy + `]}`, "a name with an escape"},
	{policy(`{"policy-type":9,"t":0,"f":0,"x":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`), "as deep as is allowed"},
	{policy(`{"policy-type":9,"t":0,"f":1}`), "a failure without details"},
	{policy(`{"policy-type":9,"failure-details":[{"c":205}],"t":1,"f":0}`), "a success with details"},
	{policy(`{"policy-type":9,"failure-details":[],"t":0,"f":0}`), "no details"},
	{policy(`{"policy-type":2,"policy-domain":"","policy-string":[],"mx-host":[],"t":0,"f":0}`), "empty policy"},
	{datagram(`"EXAMPLE.com."`, `[`+okPolicy+`,`+okPolicy+`]`), "two policies"},
	{datagram(`"bücher.example"`, `[`+okPolicy+`]`), "U-label"},
	{failing(`{"c":999}`), "unknown code"},
	{failing(`{"c":-1,"f":""}`), "negative code"},
	{failing(`{"c":201,"s":"x","r":"","n":"","h":"","a":"","f":""}`), "no addresses"},
	{failing("{\"c\":205,\"h\":\"\xff\xfe\"}"), "not UTF-8"},
	{failing(`{"c":205,"h":"\ud800","f":"\ud800\u0041 \ud83d\udce7 \udce7"}`), "lone surrogates"},
	{failing(`{"c":205,"f":"\"\\\/\b\f\n\r\t\u001f"}`), "every escape"},
}

var malformed = []struct {
	datagram string
	class    class
	field    string
	why      string
}{
	// These made another collector exit.
	{"", badSyntax, "", "empty"},
	{"hello", badSyntax, "", "not JSON"},
	{`{"dpv": "1","d": "exam`, badSyntax, "d", "cut in a string"},
	{`{"dpv": "1","d":`, badSyntax, "d", "cut before a value"},
	{"\xff\xfe", badSyntax, "", "not UTF-8"},
	{"5", badType, "", "a number"},
	{"null", badType, "", "null"},
	{`"policies"`, badType, "", "a string"},
	{datagram(`"example.com"`, `5`), badType, "policies", "policies are a number"},
	{datagram(`"example.com"`, `"x"`), badType, "policies", "policies are a string"},
	{policy(`5`), badType, "policies[0]", "a policy is a number"},
	{datagram(`5`, `[`+okPolicy+`]`), badType, "d", "the domain is a number"},
	{`{"d":"example.com","pr":{},"policies":[` + okPolicy + `]}`, badType, "pr", "the record is an object"},
	{policy(`{"policy-type":9,"failure-details":null,"t":0,"f":0}`), badType, "policies[0].failure-details", "details are null"},
	{policy(`{"policy-type":9,"t":0,"f":{}}`), badType, "policies[0].f", "the result is an object"},
	{`{"x":` + strings.Repeat("[", 100_000), badBounds, "x", "deep nesting"},
	{strings.Repeat("[", 100_000), badType, "", "deep nesting of the whole"},
	{strings.Repeat(`{"d":`, 100_000), badType, "d", "deep nesting of the domain"},
	{datagram(`"\ud800"`, `[`+okPolicy+`]`), badDomain, "d", "the domain is a lone surrogate"},
	// These it dropped, after having counted what came before.
	{"[]", badType, "", "an array"},
	{`{"d":"example.com","pr":""}`, badMember, "policies", "no policies"},
	{`{"pr":"","policies":[` + okPolicy + `]}`, badMember, "d", "no domain"},
	{`{"d":"example.com","policies":[` + okPolicy + `]}`, badMember, "pr", "no record"},
	{policy(okPolicy + `,{"policy-type":9,"t":0}`), badMember, "policies[1].f", "no result in the second policy"},
	// These it counted.
	{`{"dpv":"2","d":"example.com","pr":"","policies":[` + okPolicy + `]}`, badVersion, "dpv", "version 2"},
	{policy(`{"policy-type":9,"t":1,"f":0}`), badValue, "policies[0].t", "fewer details than said"},
	{policy(`{"policy-type":9,"failure-details":[{"c":205}],"t":0,"f":0}`), badValue, "policies[0].t", "more details than said"},
	{policy(`{"policy-type":9,"t":0,"f":"abc"}`), badType, "policies[0].f", "the result is a string"},
	{policy(`{"policy-type":7,"t":0,"f":0}`), badValue, "policies[0].policy-type", "unknown policy type"},
	{policy(`{"t":0,"f":0}`), badMember, "policies[0].policy-type", "no policy type"},
	{datagram(`"exa\u0000mple.com"`, `[`+okPolicy+`]`), badDomain, "d", "NUL in the domain"},
	{datagram(`"example.com\n"`, `[`+okPolicy+`]`), badDomain, "d", "new line in the domain"},
	{datagram(`"example.com\n."`, `[`+okPolicy+`]`), badDomain, "d", "new line and full stop"},

	{datagram(`""`, `[`+okPolicy+`]`), badDomain, "d", "no domain"},
	{datagram(`"192.0.2.1"`, `[`+okPolicy+`]`), badDomain, "d", "an address"},
	{datagram("\"b\xfccher.example\"", `[`+okPolicy+`]`), badDomain, "d", "not UTF-8 in the domain"},
	{datagram(`"example.com"`, `[]`), badValue, "policies", "no policy"},
	{datagram(`"example.com"`, `[`+strings.Repeat(okPolicy+",", 16)+okPolicy+`]`), badBounds, "policies[16]", "17 policies"},
	{failing(strings.Repeat(`{"c":205},`, 64) + `{"c":205}`), badBounds, "policies[0].failure-details[64]", "65 failures"},
	{policy(`{"policy-type":9,"t":0,"f":2}`), badValue, "policies[0].f", "the result is 2"},
	{policy(`{"policy-type":9,"t":0,"f":true}`), badType, "policies[0].f", "the result is true"},
	{policy(`{"policy-type":9,"t":0,"f":0.0}`), badType, "policies[0].f", "the result is no integer"},
	{policy(`{"policy-type":9,"t":0,"f":00}`), badSyntax, "policies[0].f", "leading zero"},
	{policy(`{"policy-type":9,"t":0,"f":1.}`), badSyntax, "policies[0].f", "no fraction"},
	{policy(`{"policy-type":9,"t":0,"f":1e}`), badSyntax, "policies[0].f", "no exponent"},
	{policy(`{"policy-type":4294967305,"t":0,"f":0}`), badType, "policies[0].policy-type", "9 beyond 32 bits"},
	{policy(`{"policy-type":9,"t":0,"f":0,"f":0}`), badMember, "policies[0].f", "the result is there twice"},
	{policy(`{"policy-type":9,"t":0,"f":0,"\u0066":0}`), badMember, "policies[0].f", "twice, once with an escape"},
	{`{"d":"a.example","d":"b.example","pr":"","policies":[` + okPolicy + `]}`, badMember, "d", "two domains"},
	{policy(`{"policy-type":1,"policy-string":"3 1 1 AB","t":0,"f":0}`), badType, "policies[0].policy-string", "a policy string"},
	{policy(`{"policy-type":1,"policy-string":[1],"t":0,"f":0}`), badType, "policies[0].policy-string[0]", "a number for a policy string"},
	{policy(`{"policy-type":2,"mx-host":"mx.example.com","t":0,"f":0}`), badType, "policies[0].mx-host", "an mx-host string"},
	{policy(`{"policy-type":2,"policy-domain":null,"t":0,"f":0}`), badType, "policies[0].policy-domain", "policy domain is null"},
	{failing(`{}`), badMember, "policies[0].failure-details[0].c", "no code"},
	{failing(`{"c":"205"}`), badType, "policies[0].failure-details[0].c", "the code is a string"},
	{failing(`{"c":205,"f":0}`), badType, "policies[0].failure-details[0].f", "the reason is a number"},
	{failing(`{"c":205,"s":[]}`), badType, "policies[0].failure-details[0].s", "the address is an array"},
	{policy(okPolicy) + "x", badSyntax, "", "something after the end"},
	{policy(okPolicy) + "\x00", badSyntax, "", "NUL after the end"},
	{policy(okPolicy) + policy(okPolicy), badSyntax, "", "two datagrams"},
	{"\ufeff" + policy(okPolicy), badSyntax, "", "byte order mark"},
	{policy(okPolicy + ","), badSyntax, "policies[1]", "comma after the last"},
	{policy(okPolicy + " " + okPolicy), badSyntax, "policies", "no comma"},
	{`{"d" "example.com"}`, badSyntax, "", "no colon"},
	{`{d:"example.com"}`, badSyntax, "", "no quotes"},
	{`{"x":tru}`, badSyntax, "x", "not true"},
	{`{"x":"\x"}`, badSyntax, "x", "unknown escape"},
	{`{"x":"\u12"}`, badSyntax, "x", "short escape"},
	{`{"x":"\u+123"}`, badSyntax, "x", "sign in an escape"},
	{`{"x":"\`, badSyntax, "x", "cut in an escape"},
	{`{"x":"\n`, badSyntax, "x", "cut after an escape"},
	{"{\"x\":\"\n\"}", badSyntax, "x", "new line in a string"},
	{"{\"x\":\"\\t\n\"}", badSyntax, "x", "new line after an escape"},
}

func TestDecode(t *testing.T) {
	for _, c := range wellFormed {
		if _, err := Decode([]byte(c.datagram)); err != nil {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	for _, c := range malformed {
		s, err := Decode([]byte(c.datagram))
		f, ok := errors.AsType[*fault](err)
		switch {
		case !ok || !errors.Is(err, ErrDatagram):
			t.Errorf("%s: %+v, error %v, want ErrDatagram", c.why, s, err)
		case f.class != c.class || f.field != c.field:
			t.Errorf("%s: %v, class %s, want field %q, class %s", c.why, err, f.class, c.field, c.class)
		case !strings.Contains(err.Error(), c.field):
			t.Errorf("%s: the error does not name %q: %v", c.why, c.field, err)
		case len(err.Error()) > 500:
			t.Errorf("%s: the error has %d bytes", c.why, len(err.Error()))
		}
	}
}

// TestDecodeDetails looks at what the golden file shows less plainly.
func TestDecodeDetails(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		detail string
		want   schema.FailureDetails
	}{
		{`{"c":999}`, schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: "tlsrpt-code-999"}},
		{`{"c":-1,"f":""}`, schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: "tlsrpt-code--1"}},
		{`{"c":999,"f":"x"}`, schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: "x"}},
		{`{"c":205}`, schema.FailureDetails{ResultType: schema.ValidationFailure}},
		{`{"c":204,"s":"192.0.2.300","r":"mx"}`, schema.FailureDetails{ResultType: schema.CertificateExpired}},
		{`{"c":204,"s":"::ffff:192.0.2.1","r":"2001:DB8:0:0::1"}`, schema.FailureDetails{
			ResultType: schema.CertificateExpired, SendingMTAIP: addr("192.0.2.1"), ReceivingIP: addr("2001:db8::1")}},
		{"{\"c\":205,\"f\":\"a\xffb\"}", schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: "a\ufffdb"}},
		{`{"c":205,"f":"a\ud800b"}`, schema.FailureDetails{ResultType: schema.ValidationFailure, FailureReasonCode: "a\ufffdb"}},
	} {
		s, err := Decode([]byte(failing(c.detail)))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Results[0].Details[0]; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.detail, got, c.want)
		}
	}
}

// FuzzDecode holds that a datagram has exactly one of value and error, that the
// value is in canonical form, and that it is the same every time.
func FuzzDecode(f *testing.F) {
	for _, c := range wellFormed {
		f.Add([]byte(c.datagram))
	}
	for _, c := range malformed {
		if len(c.datagram) < 10_000 {
			f.Add([]byte(c.datagram))
		}
	}
	names, datagrams := captured(f)
	for _, name := range names[:40] {
		f.Add(datagrams[name])
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		before := bytes.Clone(datagram)
		s, err := Decode(datagram)
		if !bytes.Equal(before, datagram) {
			t.Fatal("the datagram was changed")
		}
		again, err2 := Decode(datagram)
		if !reflect.DeepEqual(s, again) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("%+v, %v\nthen %+v, %v", s, err, again, err2)
		}
		if err != nil {
			if !errors.Is(err, ErrDatagram) || !reflect.DeepEqual(s, schema.Session{}) {
				t.Fatalf("session %+v, error %v", s, err)
			}
			return
		}
		c, err := s.Canonical()
		if err != nil || !reflect.DeepEqual(c, s) {
			t.Fatalf("not canonical:\n%+v\nbut %+v, %v", s, c, err)
		}
		if !json.Valid(datagram) {
			t.Fatalf("decoded what is not JSON: %q", datagram)
		}
	})
}

// FuzzString holds strings to what encoding/json makes of them.
func FuzzString(f *testing.F) {
	for _, s := range []string{`""`, `"a"`, "\"\xff\"", `"\ud800"`, `"\ud83d\udce7"`, `"\ud800\ud83d\udce7"`, `"\/\u00e9"`, `"\`, "\"\x01\"", `"\u00ZZ"`, "\"\xe2\x82\\n\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := scanner{text: text}
		got, err := s.str()
		if err == nil {
			err = s.end()
		}
		if strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "null") {
			return // which encoding/json takes for an empty string
		}
		var want string
		wantErr := json.Unmarshal([]byte(text), &want)
		if (err == nil) != (wantErr == nil) || err == nil && got != want {
			t.Fatalf("%q: %q, %v, want %q, %v", text, got, err, want, wantErr)
		}
	})
}

// FuzzSkip holds what is skipped to what encoding/json calls valid, but for its
// depth.
func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{}`, `[1,{"a":[]}]`, `-0.5e+10`, `01`, `-`, `[,]`, `{"a":1,}`, `truex`, `nul`, `[1 2]`, ` "a" `, `{"a"}`, `{1:2}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := scanner{text: text}
		err := s.skip(maxDepth)
		if err == nil {
			err = s.end()
		}
		if f, ok := errors.AsType[*fault](err); ok && f.class == badBounds {
			return
		}
		if json.Valid([]byte(text)) != (err == nil) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// TestDecodeIsCheap holds that what a stranger sends costs little: a refusal in
// the depth of a value neither recurses nor allocates with its length.
func TestDecodeIsCheap(t *testing.T) {
	for name, datagram := range map[string]string{
		"nesting":  `{"x":` + strings.Repeat("[", 200_000),
		"failures": failing(strings.Repeat(`{"c":205},`, 20_000) + `{"c":205}`),
		"policies": datagram(`"example.com"`, `[`+strings.Repeat(okPolicy+",", 7000)+okPolicy+`]`),
	} {
		got := testing.AllocsPerRun(10, func() { _, _ = Decode([]byte(datagram)) })
		if got > 120 {
			t.Errorf("%s: %.0f allocations", name, got)
		}
	}
	success := load("success-tlsa", 1)
	if got := testing.AllocsPerRun(100, func() { _, _ = Decode(success) }); got > 10 {
		t.Errorf("a success: %.0f allocations", got)
	}
}
