package receiver

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Everything in this file is a sender built by hand: it shares no code with the
// one that the package is there to check.

const (
	goodID   = "2026-11-22.example.org.0a1b2c3d4e5f6071@example.com"
	goodName = "example.com!example.org!1795305600!1795391999!0a1b2c3d4e5f6071.json.gz"
	goodURL  = "https://reports.example.org:8443/v1?a=b"
	goodJSON = `{
  "organization-name": "Example Inc.",
  "date-range": {"start-datetime": "2026-11-22T00:00:00Z", "end-datetime": "2026-11-22T23:59:59Z"},
  "contact-info": "tls-reports@example.com",
  "report-id": "` + goodID + `",
  "policies": [
    {
      "policy": {
        "policy-type": "sts",
        "policy-string": ["version: STSv1", "mode: enforce", "mx: mx1.example.org", "max_age: 86400"],
        "policy-domain": "example.org",
        "mx-host": ["mx1.example.org"]
      },
      "summary": {"total-successful-session-count": 17, "total-failure-session-count": 3},
      "failure-details": [
        {
          "result-type": "certificate-expired",
          "sending-mta-ip": "2001:db8::25",
          "receiving-mx-hostname": "mx1.example.org",
          "receiving-ip": "192.0.2.25",
          "failed-session-count": 3
        }
      ]
    },
    {
      "policy": {
        "policy-type": "tlsa",
        "policy-string": ["3 1 1 1F850A337E6DB9C609C522D136A475638CC43E1ED424F8EEC8513D747D1D085D"],
        "policy-domain": "mx1.example.org"
      },
      "summary": {"total-successful-session-count": 5, "total-failure-session-count": 0},
      "failure-details": []
    }
  ]
}
`
)

var arrival = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)

// keys are made once: RSA takes its time.
var keys = sync.OnceValue(func() (k struct{ rsa, other, ed crypto.Signer }) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.other, _ = rsa.GenerateKey(rand.Reader, 2048)
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

// keyText is the key record of k.
func keyText(t *testing.T, k crypto.Signer, services string) string {
	t.Helper()
	if pub, ok := k.Public().(ed25519.PublicKey); ok {
		return "v=DKIM1; k=ed25519; s=" + services + "; p=" + base64.StdEncoding.EncodeToString(pub)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return "v=DKIM1; k=rsa; s=" + services + "; p=" + base64.StdEncoding.EncodeToString(der)
}

// fixture is one report on its way, with what a test may spoil.
type fixture struct {
	t       *testing.T
	records map[string]string // TXT records
	json    string
	packed  []byte // the compressed report; nil: json is compressed

	// By mail.
	header      []string // without DKIM-Signature
	text        string   // first part, header included
	attachment  []string // header of the second part
	encode      func([]byte) string
	tail        string // after the parts
	dkim        []*dkim.SignOptions
	beforeDKIM  func(string) string
	afterDKIM   func(string) string
	postHeader  http.Header
	method, url string

	// By HTTPS.
	unsigned  bool
	label     string
	covered   []string
	params    string
	httpKey   crypto.Signer
	afterSign func(*Post)
}

func newFixture(t *testing.T) *fixture {
	sign := func(k crypto.Signer, selector string) *dkim.SignOptions {
		return &dkim.SignOptions{
			Domain: "example.com", Selector: selector, Signer: k,
			HeaderCanonicalization: "relaxed", BodyCanonicalization: "relaxed",
			HeaderKeys: []string{
				"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type",
				"TLS-Report-Domain", "TLS-Report-Domain", "TLS-Report-Submitter", "TLS-Report-Submitter",
			},
		}
	}
	return &fixture{
		t: t,
		records: map[string]string{
			"tlsrpt._domainkey.example.com":  keyText(t, keys().rsa, "email:tlsrpt"),
			"tlsrpt2._domainkey.example.com": keyText(t, keys().ed, "email:tlsrpt"),
		},
		json: goodJSON,
		header: []string{
			"From: Example Inc. <tls-reports@example.com>",
			"To: tlsrpt@example.org",
			"Date: Mon, 23 Nov 2026 01:02:03 +0000",
			"Message-ID: <0a1b2c3d4e5f6071@example.com>",
			"Subject: Report Domain: example.org Submitter: example.com\r\n Report-ID: <" + goodID + ">",
			"TLS-Report-Domain: example.org",
			"TLS-Report-Submitter: example.com",
			"TLS-Required: No",
			"MIME-Version: 1.0",
			`Content-Type: multipart/report; report-type="tlsrpt"; boundary="b0"`,
		},
		text: "Content-Type: text/plain; charset=us-ascii\r\n\r\n17 sessions succeeded, 3 failed.\r\n",
		attachment: []string{
			`Content-Type: application/tlsrpt+gzip; name="` + goodName + `"`,
			`Content-Disposition: attachment; filename="` + goodName + `"`,
			"Content-Transfer-Encoding: base64",
		},
		encode:     base64Lines,
		tail:       "--b0--\r\n",
		dkim:       []*dkim.SignOptions{sign(keys().rsa, "tlsrpt"), sign(keys().ed, "tlsrpt2")},
		beforeDKIM: func(s string) string { return s },
		afterDKIM:  func(s string) string { return s },
		postHeader: http.Header{"Content-Type": {"application/tlsrpt+gzip"}},
		method:     "POST",
		url:        goodURL,
		label:      "sig1",
		covered:    []string{"@method", "@target-uri", "content-type", "content-digest"},
		params:     fmt.Sprintf(`;created=%d;keyid="tlsrpt._domainkey.example.com";alg="rsa-v1_5-sha256";tag="tlsrpt"`, arrival.Unix()),
		httpKey:    keys().rsa,
		afterSign:  func(*Post) {},
	}
}

func (f *fixture) lookup(name string) ([]string, error) {
	if v, ok := f.records[strings.ToLower(name)]; ok {
		return strings.Split(v, "\x00"), nil
	}
	return nil, fmt.Errorf("no TXT record at %s", name)
}

// replace exchanges one string in the JSON, which must be there.
func (f *fixture) replace(old, new string) { f.json = f.swap(f.json, old, new) }

func (f *fixture) swap(s, old, new string) string {
	f.t.Helper()
	if !strings.Contains(s, old) {
		f.t.Fatalf("no %q to replace in the fixture", old)
	}
	return strings.Replace(s, old, new, 1)
}

// set replaces a header field by lines, none to take it away.
func (f *fixture) set(name string, lines ...string) {
	f.t.Helper()
	f.header = setLine(f.t, f.header, name, lines)
}

func setLine(t *testing.T, header []string, name string, lines []string) (out []string) {
	t.Helper()
	found := false
	for _, line := range header {
		if strings.HasPrefix(line, name+":") {
			out, found = append(out, lines...), true
		} else {
			out = append(out, line)
		}
	}
	if !found {
		t.Fatalf("no %s in the fixture", name)
	}
	return out
}

// setPart is set for the second part.
func (f *fixture) setPart(name string, lines ...string) {
	f.t.Helper()
	f.attachment = setLine(f.t, f.attachment, name, lines)
}

func (f *fixture) gzip() []byte {
	if f.packed != nil {
		return f.packed
	}
	return compress(f.t, []byte(f.json))
}

func compress(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func base64Lines(b []byte) string {
	var out strings.Builder
	for s := base64.StdEncoding.EncodeToString(b); s != ""; {
		n := min(76, len(s))
		out.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
	return out.String()
}

// message is the mail as it goes over the wire.
func (f *fixture) message() []byte {
	f.t.Helper()
	msg := strings.Join(f.header, "\r\n") + "\r\n\r\n--b0\r\n" + f.text +
		"--b0\r\n" + strings.Join(f.attachment, "\r\n") + "\r\n\r\n" + f.encode(f.gzip()) + f.tail
	msg = f.beforeDKIM(msg)
	signed := msg
	for _, o := range f.dkim {
		var out bytes.Buffer
		if err := dkim.Sign(&out, strings.NewReader(msg), o); err != nil {
			f.t.Fatal(err)
		}
		signature := strings.TrimSuffix(out.String(), msg)
		signed = signature + signed
	}
	return []byte(f.afterDKIM(signed))
}

func (f *fixture) mail() Mail {
	return Mail{Time: arrival, Sender: "tls-reports@example.com", To: []string{"tlsrpt@example.org"}, Data: f.message()}
}

// post is the request as it arrives.
func (f *fixture) post() Post {
	f.t.Helper()
	p := Post{Time: arrival, Method: f.method, URL: f.url, Header: f.postHeader, Body: f.gzip(), Status: 201}
	if !f.unsigned {
		f.sign(&p)
	}
	f.afterSign(&p)
	return p
}

// sign writes the signature by hand: no structured-field library.
func (f *fixture) sign(p *Post) {
	sum := sha256.Sum256(p.Body)
	p.Header.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
	values := map[string]string{
		"@method": p.Method, "@target-uri": p.URL,
		"content-type": p.Header.Get("Content-Type"), "content-digest": p.Header.Get("Content-Digest"),
	}
	var base strings.Builder
	var names []string
	for _, name := range f.covered {
		names = append(names, `"`+name+`"`)
		fmt.Fprintf(&base, "\"%s\": %s\n", name, values[name])
	}
	input := "(" + strings.Join(names, " ") + ")" + f.params
	base.WriteString(`"@signature-params": ` + input)
	var raw []byte
	var err error
	if _, ok := f.httpKey.(ed25519.PrivateKey); ok {
		raw, err = f.httpKey.Sign(nil, []byte(base.String()), crypto.Hash(0))
	} else {
		sum := sha256.Sum256([]byte(base.String()))
		raw, err = f.httpKey.Sign(nil, sum[:], crypto.SHA256)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	p.Header.Add("Signature-Input", f.label+"="+input)
	p.Header.Add("Signature", f.label+"=:"+base64.StdEncoding.EncodeToString(raw)+":")
}
