package schema_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// goodRUAs also seed FuzzParseRUA.
var goodRUAs = []struct {
	uri    string
	rua    schema.RUA
	addr   string // of a mailto URI
	host   string
	reason string
}{
	{"mailto:a@example.com", "mailto:a@example.com", "a@example.com", "example.com", "plain"},
	{"MailTo:A.b+c@EXAMPLE.com.", "mailto:A.b+c@example.com", "A.b+c@example.com", "example.com", "the local part has a case, nothing else"},
	{"mailto:a%40example.com", "mailto:a@example.com", "a@example.com", "example.com", "an encoded @"},
	{"mailto:%61%2Fb@example.com", "mailto:a%2Fb@example.com", "a/b@example.com", "example.com", "encoding in one form only"},
	{"mailto:a/b@example.com", "mailto:a%2Fb@example.com", "a/b@example.com", "example.com", "the same address"},
	{"mailto:a%21b@example.com", "mailto:a%21b@example.com", "a!b@example.com", "example.com", "what a rua may not have raw"},
	{"mailto:a%26b%3Fc%25d@example.com", "mailto:a%26b%3Fc%25d@example.com", "a&b?c%d@example.com", "example.com", "a question mark that is no query"},
	{"mailto:a@example.com?subject=x&bcc=b@example.net", "mailto:a@example.com", "a@example.com", "example.com", "header fields"},
	{"mailto:a@example.com?%0D%0ABcc:b@example.net", "mailto:a@example.com", "a@example.com", "example.com", "an injected header field"},
	{"mailto:a@example.com#x?y", "mailto:a@example.com", "a@example.com", "example.com", "a fragment"},
	{"mailto:a@b%C3%BCcher.example", "mailto:a@xn--bcher-kva.example", "a@xn--bcher-kva.example", "xn--bcher-kva.example", "an IDN"},
	{"https://example.com", "https://example.com/", "", "example.com", "no path"},
	{"HTTPS://EXAMPLE.com./A?B=c%2Cd#frag", "https://example.com/A?B=c%2Cd", "", "example.com", "path and query have a case"},
	{"https://example.com:443/", "https://example.com/", "", "example.com", "the default port"},
	{"https://example.com:/", "https://example.com/", "", "example.com", "an empty port"},
	{"https://example.com:08443/x", "https://example.com:8443/x", "", "example.com", "a port"},
	{"https://b%C3%BCcher.example/%C3%BC", "https://xn--bcher-kva.example/%C3%BC", "", "xn--bcher-kva.example", "an IDN, encoded"},
	{"https://192.0.2.1/", "https://192.0.2.1/", "", "192.0.2.1", "an address: refused or not when it is dialled"},
	{"https://[2001:DB8:0::1]:8443/", "https://[2001:db8::1]:8443/", "", "2001:db8::1", "an IPv6 address"},
	{"https://[::ffff:192.0.2.1]/", "https://192.0.2.1/", "", "192.0.2.1", "a mapped address"},
	{"https://example.com/a%2Cb/../%7Ec'*()", "https://example.com/a%2Cb/../%7Ec'*()", "", "example.com", "a path stays as it is"},
	{"https://example.com//double?", "https://example.com//double?", "", "example.com", "an empty query"},
}

// badRUAs also seed FuzzParseRUA.
var badRUAs = []struct{ uri, reason string }{
	{"", "empty"},
	{"a@example.com", "no scheme"},
	{"http://example.com/", "not https"},
	{"javascript:alert(1)", "neither"},
	{" mailto:a@example.com", "a space before it"},
	{"mailto:a b@example.com", "a space"},
	{"mailto:a@example.com,mailto:b@example.com", "two"},
	{"mailto:a@example.com!10m", "an exclamation mark"},
	{"mailto:a@example.com;b", "a semicolon"},
	{"mailto:a@exam\u00fcple.com", "no URI has other than ASCII"},
	{"mailto:", "no address"},
	{"mailto:a", "no domain"},
	{"mailto:@example.com", "no local part"},
	{"mailto:a@", "an empty domain"},
	{"mailto:a@[192.0.2.1]", "an address literal"},
	{"mailto:a%2Cb@example.com", "not an atom"},
	{"mailto:a@example.com%2Cb@example.com", "two addresses, encoded"},
	{"mailto:a%0D%0ABcc:b@example.com", "an injected header field"},
	{"mailto:a%0ab@example.com", "a line feed"},
	{"mailto:a%00b@example.com", "a NUL"},
	{"mailto:a@example.com%0D%0A", "a line end after it"},
	{"mailto:%22a%20b%22@example.com", "a quoted local part"},
	{"mailto:-oQ/tmp/x@example.com", "looks like an option of sendmail"},
	{"mailto:a..b@example.com", "an empty atom"},
	{"mailto:A%20%3Ca@example.com%3E", "a display name"},
	{"mailto:a%zz@example.com", "bad percent-encoding"},
	{"mailto:a@example.com%", "cut percent-encoding"},
	{"mailto://a@example.com", "slashes"},
	{"https:", "no host"},
	{"https:example.com/", "opaque"},
	{"https:/example.com/", "one slash"},
	{"https:///path", "an empty host"},
	{"https://user@example.com/", "user information"},
	{"https://user:pass@example.com/", "a password"},
	{"https://@example.com/", "empty user information"},
	{"https://example.com:0/", "port 0"},
	{"https://example.com:65536/", "no such port"},
	{"https://example.com:x/", "no number"},
	{"https://192.0.2/", "three numbers"},
	{"https://192.0.2.256/", "no IPv4 address"},
	{"https://2130706433/", "an IPv4 address as one number"},
	{"https://[fe80::1%25eth0]/", "a zone"},
	{"https://[v1.x]/", "a future address"},
	{"https://[192.0.2.1]/", "IPv4 in brackets"},
	{"https://exa mple.com/", "a space"},
	{"https://example.com/\"", "a quotation mark"},
	{"https://example.com/<x>", "angle brackets"},
	{"https://example.com/a%2Cb|c", "a bar"},
	{"https://example.com/?%zz", "bad percent-encoding in a query"},
	{"https://exa%0D%0Ample.com/", "a line end in the host"},
	{"https://" + strings.Repeat("a", 64) + ".example/", "a label of 64"},
	{"https://example.com/" + strings.Repeat("x", 2048), "too long"},
	{"mailto:" + strings.Repeat("x", 65) + "@example.com", "a local part of 65"},
}

func TestParseRUA(t *testing.T) {
	for _, c := range goodRUAs {
		rua, err := schema.ParseRUA(c.uri)
		if err != nil || rua != c.rua || rua.Address() != c.addr || rua.Host() != c.host {
			t.Errorf("%s: ParseRUA(%q) = %q, %v to %q at %q; want %q to %q at %q",
				c.reason, c.uri, rua, err, rua.Address(), rua.Host(), c.rua, c.addr, c.host)
		}
		scheme, _, _ := strings.Cut(string(c.rua), ":")
		if rua.Scheme() != scheme {
			t.Errorf("%s: scheme %q, want %q", rua, rua.Scheme(), scheme)
		}
		if again, err := schema.ParseRUA(string(rua)); again != rua || err != nil {
			t.Errorf("ParseRUA(%q) = %q, %v: not itself", rua, again, err)
		}
	}
	for _, c := range badRUAs {
		if rua, err := schema.ParseRUA(c.uri); rua != "" || !errors.Is(err, schema.ErrRUA) {
			t.Errorf("%s: ParseRUA(%q) = %q, %v", c.reason, c.uri, rua, err)
		}
	}
}

func TestRUABound(t *testing.T) {
	const prefix = "https://example.com/"
	at := prefix + strings.Repeat("x", 2048-len(prefix))
	if _, err := schema.ParseRUA(at); err != nil {
		t.Errorf("2048 bytes: %v", err)
	}
	if _, err := schema.ParseRUA(at + "x"); !errors.Is(err, schema.ErrRUA) {
		t.Errorf("2049 bytes: %v", err)
	}
	// A path of "/" is added, and makes it too long.
	const query = "https://example.com?"
	if rua, err := schema.ParseRUA(query + strings.Repeat("x", 2048-len(query))); !errors.Is(err, schema.ErrRUA) {
		t.Errorf("%d bytes, %v", len(rua), err)
	}
}

func TestRUAZero(t *testing.T) {
	var zero schema.RUA
	if s := zero.Scheme() + zero.Address() + zero.Host(); s != "" {
		t.Errorf("the zero RUA has %q", s)
	}
}

func TestParseAddress(t *testing.T) {
	good := func(s, want string) {
		t.Helper()
		if addr, err := schema.ParseAddress(s); addr != want || err != nil {
			t.Errorf("ParseAddress(%q) = %q, %v; want %q", s, addr, err, want)
		}
	}
	bad := func(s, reason string) {
		t.Helper()
		if addr, err := schema.ParseAddress(s); addr != "" || !errors.Is(err, schema.ErrAddress) {
			t.Errorf("%s: ParseAddress(%q) = %q, %v", reason, s, addr, err)
		}
	}
	good("a@example.com", "a@example.com")
	good("A.B@EXAMPLE.COM.", "A.B@example.com")
	good("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com")
	good("a@b\u00fccher.example", "a@xn--bcher-kva.example")
	good("a@localhost", "a@localhost")
	good(strings.Repeat("x", 64)+"@example.com", strings.Repeat("x", 64)+"@example.com")

	bad("", "empty")
	bad("a", "no domain")
	bad("@example.com", "no local part")
	bad("a@", "no domain")
	bad("a@b@example.com", "two signs")
	bad("a b@example.com", "a space")
	bad(" a@example.com", "a space before it")
	bad("a@example.com ", "a space after it")
	bad("a@example.com\r\nBcc: b@example.com", "a header field")
	bad("A <a@example.com>", "a display name")
	bad("<a@example.com>", "angle brackets")
	bad("a(x)@example.com", "a comment")
	bad(`"a"@example.com`, "a quoted local part")
	bad(".a@example.com", "a dot first")
	bad("a.@example.com", "a dot last")
	bad("-a@example.com", "a hyphen first")
	bad("\u00e4@example.com", "not ASCII")
	bad("a@[192.0.2.1]", "an address literal")
	bad("a@192.0.2.1", "an address")
	bad("a@exa_mple..com", "an empty label")
	bad(strings.Repeat("x", 65)+"@example.com", "a long local part")
	bad("a@"+strings.Repeat("x.", 126)+"x", "255 bytes")
}

func TestParseDomain(t *testing.T) {
	good := func(s, want string) {
		t.Helper()
		d, err := schema.ParseDomain(s)
		if d != want || err != nil {
			t.Errorf("ParseDomain(%q) = %q, %v; want %q", s, d, err, want)
		}
		if again, err := schema.ParseDomain(d); again != d || err != nil {
			t.Errorf("ParseDomain(%q) = %q, %v: not itself", d, again, err)
		}
	}
	bad := func(s, reason string) {
		t.Helper()
		if d, err := schema.ParseDomain(s); d != "" || !errors.Is(err, schema.ErrDomain) {
			t.Errorf("%s: ParseDomain(%q) = %q, %v", reason, s, d, err)
		}
	}
	good("example.com", "example.com")
	good("EXAMPLE.Com.", "example.com")
	good("localhost", "localhost")
	good("_smtp._tls.example.com", "_smtp._tls.example.com")
	good("a--b.-c-.example", "a--b.-c-.example")
	good("1.2.3.4.example", "1.2.3.4.example")
	good("B\u00dcCHER.example", "xn--bcher-kva.example")
	good("bu\u0308cher.example", "xn--bcher-kva.example")  // decomposed
	good("\uff45xample\u3002com", "example.com")           // full width letter and dot
	good("XN--BCHER-KVA.example", "xn--bcher-kva.example") //
	good("stra\u00dfe.example", "xn--strae-oqa.example")   // not transitional: not strasse
	good(strings.Repeat("x", 63)+".example", strings.Repeat("x", 63)+".example")
	good(strings.Repeat("x.", 126)+"x", strings.Repeat("x.", 126)+"x") // 253 bytes

	bad("", "empty")
	bad(".", "the root")
	bad("..", "empty labels")
	bad("a..b", "an empty label")
	bad(".example.com", "an empty label first")
	bad("example.com..", "two final dots")
	bad("exa mple.com", "a space")
	bad("example.com\n", "a line feed")
	bad("*.example.com", "a pattern")
	bad("a/b.example", "a slash")
	bad("\uff0f.example", "a slash of full width")
	bad("[192.0.2.1]", "an address literal")
	bad("192.0.2.1", "an IPv4 address")
	bad("2001:db8::1", "an IPv6 address")
	bad("example.123", "a number for a top-level domain")
	bad("\xff.example", "not UTF-8")
	bad("\u202e.example", "a control of direction")
	bad(strings.Repeat("x", 64)+".example", "a label of 64")
	bad(strings.Repeat("x.", 127)+"x", "255 bytes")
	bad(strings.Repeat("\u00fc", 600), "a long U-label")
	bad(strings.Repeat("\u00ad", 600)+"example.com", "long, although nothing is left of a soft hyphen")
}
