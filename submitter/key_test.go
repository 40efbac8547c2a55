package submitter

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func rsaOf(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseKey(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0") // to make what is to be refused
	small, weak := rsaOf(t, 1024), rsaOf(t, 1000)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := func(text []byte, want Algorithm) {
		t.Helper()
		k, err := ParseKey(text, "Example.NET.", "TLSrpt")
		if err != nil || k.Algorithm() != want || k.Name() != "tlsrpt._domainkey.example.net" || k.Domain() != "example.net" {
			t.Errorf("%+v, %v; want %s", k, err, want)
		}
	}
	bad := func(text []byte) {
		t.Helper()
		k, err := ParseKey(text, "example.net", "tlsrpt")
		if !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v, %v", text, k, err)
			return
		}
		if b, _ := pem.Decode(text); b != nil && len(b.Bytes) > 30 && strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(b.Bytes)[10:30]) {
			t.Errorf("the error quotes the key: %v", err)
		}
	}
	pkcs1 := x509.MarshalPKCS1PrivateKey(small)
	good(block("RSA PRIVATE KEY", pkcs1), RSA)
	good(pkcs8(t, small), RSA)
	good(pkcs8(t, ed), Ed25519)
	good(append([]byte("some text\n"), append(block("CERTIFICATE", []byte("x")), pkcs8(t, ed)...)...), Ed25519)
	bad(block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weak))) // too short
	bad(pkcs8(t, ec))                                                // ECDSA is none of DKIM's
	bad(block("PRIVATE KEY", pkcs1))                                 // mislabelled
	bad(block("RSA PRIVATE KEY", pkcs1[:len(pkcs1)-9]))              // cut
	bad(block("ENCRYPTED PRIVATE KEY", []byte("x")))
	bad(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES-128-CBC,00"}, Bytes: pkcs1}))
	bad(block("PUBLIC KEY", []byte("x")))
	bad(nil)

	for _, name := range [][2]string{{"", "tlsrpt"}, {"a b", "tlsrpt"}, {"example.net", ""}, {"example.net", "a;b"}, {strings.Repeat("a.", 120) + "net", "tlsrpt"}} {
		if _, err := ParseKey(pkcs8(t, ed), name[0], name[1]); !errors.Is(err, schema.ErrDomain) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestGenerateKey(t *testing.T) {
	for _, algorithm := range []Algorithm{RSA, Ed25519} {
		k, err := GenerateKey(algorithm, "example.net", "tlsrpt")
		if err != nil {
			t.Fatal(err)
		}
		text, err := k.PEM()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseKey(text, "example.net", "tlsrpt")
		if err != nil || again.TXT() != k.TXT() {
			t.Errorf("%s: %v; %v is read back", algorithm, err, again)
		}
		if prefix := "v=DKIM1; k=" + string(algorithm) + "; s=email:tlsrpt; p="; !strings.HasPrefix(k.TXT(), prefix) {
			t.Errorf("%s, want %s", k.TXT(), prefix)
		}
		if pub, err := parseKeyRecord(k.TXT()); err != nil || !equal(pub, k.signer.Public()) {
			t.Errorf("%s: %v, %v", k.TXT(), pub, err)
		}
	}
	if _, err := GenerateKey("dsa", "example.net", "tlsrpt"); !errors.Is(err, ErrKey) {
		t.Errorf("%v, want %v", err, ErrKey)
	}
	if k, _ := rsaKey(); k.signer.Public().(*rsa.PublicKey).N.BitLen() != 2048 {
		t.Error("a new RSA key has not 2048 bits")
	}
}

func equal(a, b any) bool {
	x, err1 := x509.MarshalPKIXPublicKey(a)
	y, err2 := x509.MarshalPKIXPublicKey(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// The key of RFC 8463, Appendix A.
func TestEd25519Record(t *testing.T) {
	seed, _ := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
	k, err := newKey(ed25519.NewKeyFromSeed(seed), "football.example.com", "brisbane")
	if err != nil {
		t.Fatal(err)
	}
	if want := "v=DKIM1; k=ed25519; s=email:tlsrpt; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="; k.TXT() != want {
		t.Errorf("%s, want %s", k.TXT(), want)
	}
}

func TestParseKeyRecord(t *testing.T) {
	ed := newTestKey(t, Ed25519)
	p := base64.StdEncoding.EncodeToString(ed.public())
	rsa, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	q := base64.StdEncoding.EncodeToString(rsa.public())
	good := func(txt string) {
		t.Helper()
		if _, err := parseKeyRecord(txt); err != nil {
			t.Errorf("%s: %v", txt, err)
		}
	}
	bad := func(txt string) {
		t.Helper()
		if k, err := parseKeyRecord(txt); !errors.Is(err, ErrKeyRecord) {
			t.Errorf("%s: %v, %v", txt, k, err)
		}
	}
	good("v=DKIM1;k=ed25519;p=" + p)
	good("k=ed25519; s=*; p=" + p + ";")
	good("v=DKIM1; k=ed25519; s=tlsrpt; n=note; p=" + p[:10] + " " + p[10:])
	good("v=DKIM1; p=" + q) // k=rsa is the default
	bad("v=DKIM2; k=ed25519; p=" + p)
	bad("v=DKIM1; k=ed25519; s=email; p=" + p) // not for reports
	bad("v=DKIM1; k=ed25519; p=")              // revoked
	bad("v=DKIM1; k=ed25519; p=" + q)
	bad("v=DKIM1; k=rsa; p=" + p)
	bad("v=DKIM1; k=dsa; p=" + p)
	bad("v=DKIM1; k=ed25519; p=???")
	bad("")
}
