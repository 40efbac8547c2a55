package submitter

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The signature base of RFC 9421, section 2.5, spelled out.
func TestSignatureBase(t *testing.T) {
	var got []received
	s, rua := sink(t, record(&got))
	k := seedKey(t)
	s.Keys = []*Key{newTestKey(t, RSA), k} // Ed25519 is taken wherever it stands
	if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
		t.Fatal(err)
	}
	h := got[0].Header
	params, ok := strings.CutPrefix(h.Get("Signature-Input"), "tlsrpt=")
	want := regexp.MustCompile(`^\("@method" "@target-uri" "content-type" "content-digest"\);created=\d{10};keyid="tlsrpt\._domainkey\.example\.net";alg="ed25519";tag="tlsrpt"$`)
	if !ok || !want.MatchString(params) {
		t.Errorf("Signature-Input: %s", h.Get("Signature-Input"))
	}
	base := `"@method": POST` + "\n" +
		`"@target-uri": ` + string(rua) + "\n" +
		`"content-type": application/tlsrpt+gzip` + "\n" +
		`"content-digest": ` + h.Get("Content-Digest") + "\n" +
		`"@signature-params": ` + params
	value := strings.TrimSuffix(strings.TrimPrefix(h.Get("Signature"), "tlsrpt=:"), ":")
	raw, err := base64.StdEncoding.DecodeString(value)
	if err != nil || !ed25519.Verify(k.signer.Public().(ed25519.PublicKey), []byte(base), raw) {
		t.Errorf("the signature %s is not one of\n%s", value, base)
	}
}

// The example of RFC 9530, Appendix D.
func TestContentDigest(t *testing.T) {
	got, err := contentDigest([]byte(`{"hello": "world"}`))
	if want := "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"; err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

func TestVerifyRequest(t *testing.T) {
	for _, algorithm := range []Algorithm{RSA, Ed25519} {
		var got []received
		s, rua := sink(t, record(&got))
		k := newTestKey(t, algorithm)
		s.Keys = []*Key{k}
		if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
			t.Fatal(err)
		}
		r := got[0]
		signer, err := VerifyRequest(r.Request, r.body, published(k))
		if err != nil || signer != "example.net" {
			t.Errorf("%s: %q, %v", algorithm, signer, err)
		}
		checkForgeries(t, r, k)
	}
}

// published finds the record of k alone.
func published(k *Key) func(string) ([]string, error) {
	return func(name string) ([]string, error) {
		if name != k.Name() {
			return nil, errors.New("no key at " + name)
		}
		return []string{k.TXT()}, nil
	}
}

func checkForgeries(t *testing.T, r received, k *Key) {
	t.Helper()
	forged := func(what string, want error, change func(r *received)) {
		t.Helper()
		f := received{r.Clone(context.Background()), bytes.Clone(r.body)}
		change(&f)
		if signer, err := VerifyRequest(f.Request, f.body, published(k)); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %q, %v; want %v", what, signer, err, want)
		}
	}
	replace := func(name, old, new string) func(r *received) {
		return func(r *received) {
			v := strings.ReplaceAll(r.Header.Get(name), old, new)
			if v == r.Header.Get(name) {
				t.Errorf("%s has no %q to replace", name, old)
			}
			r.Header.Set(name, v)
		}
	}
	forged("body", ErrSignature, func(r *received) { r.body[0]++ })
	forged("method", ErrSignature, func(r *received) { r.Method = "PUT" })
	forged("path", ErrSignature, func(r *received) { r.RequestURI = "/other" })
	forged("host", ErrSignature, func(r *received) { r.Host = "example.org" })
	forged("type", ErrSignature, func(r *received) { r.Header.Set("Content-Type", "text/plain") })
	forged("two types", ErrSignature, func(r *received) { r.Header.Add("Content-Type", "text/plain") })
	forged("no type", ErrSignature, func(r *received) { r.Header.Del("Content-Type") })
	forged("no digest", ErrSignature, func(r *received) { r.Header.Del("Content-Digest") })
	forged("body and digest", ErrSignature, func(r *received) {
		r.body = []byte("other")
		d, _ := contentDigest(r.body)
		r.Header.Set("Content-Digest", d)
	})
	forged("unsigned", ErrSignature, func(r *received) { r.Header.Del("Signature-Input"); r.Header.Del("Signature") })
	forged("no value", ErrSignature, func(r *received) { r.Header.Del("Signature") })
	forged("nonsense", ErrSignature, func(r *received) { r.Header.Set("Signature-Input", "((((") })
	forged("nonsense", ErrSignature, func(r *received) { r.Header.Set("Signature", "=") })
	forged("another tag", ErrSignature, replace("Signature-Input", `tag="tlsrpt"`, `tag="other"`))
	forged("uncovered", ErrSignature, replace("Signature-Input", ` "content-digest"`, ``))
	forged("other order", ErrSignature, replace("Signature-Input", `"@method" "@target-uri"`, `"@target-uri" "@method"`))
	forged("component with parameter", ErrSignature, replace("Signature-Input", `"content-type"`, `"content-type";bs`))
	forged("no list", ErrSignature, replace("Signature-Input", `("@method" "@target-uri" "content-type" "content-digest")`, `"x"`))
	forged("old", ErrSignature, replace("Signature-Input", "created=", "created=1;was="))
	forged("of the future", ErrSignature, replace("Signature-Input", "created=", "created=9999999999;was="))
	forged("re-dated", ErrSignature, func(r *received) {
		now := fmt.Sprintf("created=%d;", time.Now().Unix()+7)
		v := regexp.MustCompile(`created=\d+;`).ReplaceAllString(r.Header.Get("Signature-Input"), now)
		r.Header.Set("Signature-Input", v)
	})
	forged("another algorithm", ErrSignature, replace("Signature-Input", `alg="`, `alg="x`))
	forged("keyid elsewhere", ErrSignature, replace("Signature-Input", "_domainkey.", ""))
	forged("keyid not canonical", ErrSignature, replace("Signature-Input", "example.net", "EXAMPLE.net"))
	forged("another domain", nil, replace("Signature-Input", "example.net", "example.org")) // what the look-up says
}

func TestVerifyRequestKeyRecords(t *testing.T) {
	var got []received
	s, rua := sink(t, record(&got))
	k := seedKey(t)
	s.Keys = []*Key{k}
	if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
		t.Fatal(err)
	}
	bad := func(want error, txts ...string) {
		t.Helper()
		_, err := VerifyRequest(got[0].Request, got[0].body, func(string) ([]string, error) { return txts, nil })
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", txts, err, want)
		}
	}
	bad(ErrKeyRecord)
	bad(ErrKeyRecord, k.TXT(), k.TXT())
	bad(ErrSignature, newTestKey(t, Ed25519).TXT()) // another key
	bad(ErrSignature, newTestKey(t, RSA).TXT())     // of another kind
}

func FuzzVerifyRequest(f *testing.F) {
	f.Add(`tlsrpt=("@method" "@target-uri" "content-type" "content-digest");created=1;keyid="a._domainkey.example.net";alg="ed25519";tag="tlsrpt"`, "tlsrpt=:AAAA:")
	f.Add(`a=1, b=("x";y);tag="tlsrpt"`, "b=2")
	k, err := GenerateKey(Ed25519, "example.net", "a")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input, value string) {
		body := []byte("x")
		req := httptest.NewRequest(http.MethodPost, "https://tls.example.com/", nil)
		req.Header.Set("Content-Type", mediaType)
		digest, _ := contentDigest(body)
		req.Header.Set("Content-Digest", digest)
		req.Header.Set("Signature-Input", input)
		req.Header.Set("Signature", value)
		if signer, err := VerifyRequest(req, body, published(k)); err == nil || signer != "" {
			t.Errorf("%q, %q: signed by %q, %v", input, value, signer, err)
		}
	})
}
