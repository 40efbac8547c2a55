package receiver

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func otherEd(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// cover leaves one component out of the HTTP signature.
func (f *fixture) uncover(name string) {
	f.covered = slices.DeleteFunc(f.covered, func(s string) bool { return s == name })
}

func (f *fixture) param(old, new string) { f.params = f.swap(f.params, old, new) }

var byHTTPS = []mutation{
	{"GET", func(f *fixture) { f.method = "GET" }, "the method is GET, not POST"},
	{"PUT", func(f *fixture) { f.method = "PUT" }, "the method is PUT, not POST"},
	{"no type", func(f *fixture) { f.postHeader.Del("Content-Type"); f.unsigned = true }, "Content-Type is [], not"},
	{"JSON type", func(f *fixture) { f.postHeader.Set("Content-Type", "application/tlsrpt+json") },
		`Content-Type is ["application/tlsrpt+json"], not`},
	{"type with a parameter", func(f *fixture) { f.postHeader.Set("Content-Type", gzipType+"; charset=utf-8") }, "Content-Type is "},
	{"Content-Encoding", func(f *fixture) { f.postHeader.Set("Content-Encoding", "gzip") }, `Content-Encoding is ["gzip"]`},

	// Signature.
	{"wrong key", func(f *fixture) { f.httpKey = keys().other }, "HTTP signature of example.com: crypto/rsa: verification error"},
	{"wrong Ed25519 key", func(f *fixture) {
		f.httpKey = otherEd(f.t)
		f.param("tlsrpt._", "tlsrpt2._")
		f.param("rsa-v1_5-sha256", "ed25519")
	}, "it does not verify"},
	{"body altered", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Body = compress(f.t, []byte(f.swap(goodJSON, "17", "18"))) }
	}, "Content-Digest: sha-256 is not that of the body"},
	{"body and digest altered", func(f *fixture) {
		f.afterSign = func(p *Post) {
			p.Body = compress(f.t, []byte(f.swap(goodJSON, "17", "18")))
			resign := *p
			resign.Header = http.Header{}
			f.sign(&resign)
			p.Header.Set("Content-Digest", resign.Header.Get("Content-Digest"))
		}
	}, "verification error"},
	{"URI altered", func(f *fixture) { f.afterSign = func(p *Post) { p.URL += "c" } }, "verification error"},
	{"host altered", func(f *fixture) {
		f.afterSign = func(p *Post) { p.URL = f.swap(p.URL, "example.org", "example.net") }
	}, "verification error"},
	{"method altered", func(f *fixture) { f.afterSign = func(p *Post) { p.Method = "PUT" } }, "verification error"},
	{"type altered", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Set("Content-Type", "application/tlsrpt+json") }
	}, "verification error"},
	{"parameter altered", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Set("Signature-Input", p.Header.Get("Signature-Input")+";nonce=\"x\"") }
	}, "verification error"},
	{"signature altered", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Set("Signature", "sig1=:AAAA:") }
	}, "verification error"},
	{"method not covered", func(f *fixture) { f.uncover("@method") }, "it does not cover @method"},
	{"URI not covered", func(f *fixture) { f.uncover("@target-uri") }, "it does not cover @target-uri"},
	{"type not covered", func(f *fixture) { f.uncover("content-type") }, "it does not cover content-type"},
	{"digest not covered", func(f *fixture) { f.uncover("content-digest") }, "it does not cover content-digest"},
	{"nothing covered", func(f *fixture) { f.covered = nil }, "it does not cover @method"},
	{"covered twice", func(f *fixture) { f.covered = append(f.covered, "@method") }, "it covers @method twice"},
	{"covers what is not there", func(f *fixture) { f.covered = append(f.covered, "date") }, "it covers date, which the request has not"},
	{"covers upper case", func(f *fixture) { f.covered = append(f.covered, "Content-Type") }, "not in lower case"},
	{"covers a derived component", func(f *fixture) { f.covered = append(f.covered, "@path") }, "it covers @path, which says nothing"},
	{"component with a parameter", func(f *fixture) {
		f.afterSign = func(p *Post) {
			p.Header.Set("Signature-Input", f.swap(p.Header.Get("Signature-Input"), `"@method"`, `"@method";req`))
		}
	}, "a component that is no plain name"},
	{"no digest", func(f *fixture) { f.afterSign = func(p *Post) { p.Header.Del("Content-Digest") } },
		"it covers content-digest, which the request has not"},
	{"unknown digest", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Set("Content-Digest", "md5=:AAAA:") }
	}, "Content-Digest: neither sha-256 nor sha-512"},
	{"wrong second digest", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Add("Content-Digest", "sha-512=:AAAA:") }
	}, "Content-Digest: sha-512 is not that of the body"},
	{"malformed digest", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Set("Content-Digest", "sha-256=:*:") }
	}, "HTTP signature: Content-Digest: "},
	{"malformed input", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Set("Signature-Input", "sig1=(") }
	}, "HTTP signature: Signature-Input: "},
	{"malformed signature", func(f *fixture) { f.afterSign = func(p *Post) { p.Header.Set("Signature", "sig1=:") } },
		"HTTP signature: Signature: "},
	{"input without signature", func(f *fixture) { f.afterSign = func(p *Post) { p.Header.Del("Signature") } },
		"do not name the same signatures"},
	{"other label", func(f *fixture) { f.afterSign = func(p *Post) { p.Header.Set("Signature", "sig2=:AAAA:") } },
		"do not name the same signatures"},
	{"input not a list", func(f *fixture) {
		f.afterSign = func(p *Post) { p.Header.Set("Signature-Input", "sig1=1") }
	}, "sig1 is not a list of components"},
	{"signature not bytes", func(f *fixture) { f.afterSign = func(p *Post) { p.Header.Set("Signature", "sig1=1") } },
		"sig1 is not a byte sequence"},
	{"no created", func(f *fixture) { f.param(fmt.Sprintf(";created=%d", arrival.Unix()), "") }, "it has no parameter created"},
	{"old", func(f *fixture) { f.param(fmt.Sprint(arrival.Unix()), fmt.Sprint(arrival.Unix()-3600)) }, "it was created 1h0m0s before it arrived"},
	{"from the future", func(f *fixture) { f.param(fmt.Sprint(arrival.Unix()), fmt.Sprint(arrival.Unix()+3600)) },
		"it was created -1h0m0s before it arrived"},
	{"expired", func(f *fixture) { f.params += fmt.Sprintf(";expires=%d", arrival.Unix()-1) }, "it has expired"},
	{"unknown algorithm", func(f *fixture) { f.param("rsa-v1_5-sha256", "hmac-sha256") }, `unknown algorithm "hmac-sha256"`},
	{"algorithm of another key", func(f *fixture) { f.param("rsa-v1_5-sha256", "ed25519") }, "algorithm ed25519 does not go with the key"},
	{"key of another algorithm", func(f *fixture) { f.param("tlsrpt._", "tlsrpt2._") }, "algorithm rsa-v1_5-sha256 does not go with the key"},
	{"no keyid", func(f *fixture) { f.param(`;keyid="tlsrpt._domainkey.example.com"`, "") }, "no key: "},
	{"keyid not in DNS", func(f *fixture) { f.param("tlsrpt._", "tlsrpt3._") }, "no key: no TXT record at tlsrpt3._domainkey.example.com"},
	{"key for email only", func(f *fixture) { f.setKey(keyText(f.t, keys().rsa, "email")) }, "the key's s= does not allow tlsrpt"},
	{"key of another domain", func(f *fixture) {
		f.records["tlsrpt._domainkey.example.net"] = f.records["tlsrpt._domainkey.example.com"]
		f.param("example.com", "example.net")
	}, `the HTTP signature's domain is "example.net", contact-info "example.com"`},
}

func TestBadPost(t *testing.T) {
	for _, m := range slices.Concat(both, byHTTPS) {
		t.Run(m.name, func(t *testing.T) {
			f := newFixture(t)
			m.spoil(f)
			wantProblem(t, CheckPost(f.post(), f.lookup), m.reason)
		})
	}
}

// The example of RFC 9421, appendix B.2.6.
func TestVerifyRawOfRFC(t *testing.T) {
	const base = `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`
	key, err := base64.RawURLEncoding.DecodeString("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString("wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==")
	if err != nil {
		t.Fatal(err)
	}
	var public crypto.PublicKey = ed25519.PublicKey(key)
	if err := verifyRaw("ed25519", public, base, raw); err != nil {
		t.Error(err)
	}
	if err := verifyRaw("ed25519", public, strings.ToLower(base), raw); err == nil {
		t.Error("another base verifies")
	}
}

// The example of RFC 9530, appendix B.
func TestDigestOfRFC(t *testing.T) {
	p := &Post{Body: []byte(`{"hello": "world"}`), Header: http.Header{
		"Content-Digest": {"sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"},
	}}
	if err := checkDigest(p); err != nil {
		t.Error(err)
	}
}
