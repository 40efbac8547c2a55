package submitter

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// An HTTPS upload says nowhere who sends it. So the request carries the digest
// of its body (RFC 9530) and a signature (RFC 9421) with the key of the domain
// that also signs mail, found as DKIM keys are. A receiver that knows nothing of
// it sees two unknown header fields.
const (
	signatureTag   = "tlsrpt"
	signatureLabel = "tlsrpt" // of the signature among others
	signatureAge   = time.Hour
)

// components are what a signature covers, in the order of its base.
var components = []string{"@method", "@target-uri", "content-type", "content-digest"}

// algorithms are the names of RFC 9421, section 6.2.2.
var algorithms = map[Algorithm]string{RSA: "rsa-v1_5-sha256", Ed25519: "ed25519"}

// ErrSignature means that a request does not carry a valid signature of a
// report.
var ErrSignature = errors.New("submitter: no valid signature")

// contentDigest is the field of RFC 9530 for body.
func contentDigest(body []byte) (string, error) {
	sum := sha256.Sum256(body)
	d := httpsfv.NewDictionary()
	d.Add("sha-256", httpsfv.NewItem(sum[:]))
	return httpsfv.Marshal(d)
}

// signRequest adds Content-Digest and, if there is a key, a signature made at
// created. Content-Type must be set.
func signRequest(req *http.Request, body []byte, k *Key, created time.Time) error {
	digest, err := contentDigest(body)
	if err != nil {
		return fmt.Errorf("submitter: signing: %w", err)
	}
	req.Header.Set("Content-Digest", digest)
	if k == nil {
		return nil
	}
	list := signatureParams(k, created)
	base, err := signatureBase(req, list)
	if err != nil {
		return fmt.Errorf("submitter: signing: %w", err)
	}
	signature, err := k.signBytes(base)
	if err != nil {
		return fmt.Errorf("submitter: signing with %s: %w", k.Name(), err)
	}
	return setSignature(req.Header, list, signature)
}

func signatureParams(k *Key, created time.Time) httpsfv.InnerList {
	list := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, c := range components {
		list.Items = append(list.Items, httpsfv.NewItem(c))
	}
	list.Params.Add("created", created.Unix())
	list.Params.Add("keyid", k.Name())
	list.Params.Add("alg", algorithms[k.Algorithm()])
	list.Params.Add("tag", signatureTag)
	return list
}

func setSignature(h http.Header, list httpsfv.InnerList, signature []byte) error {
	inputs, signatures := httpsfv.NewDictionary(), httpsfv.NewDictionary()
	inputs.Add(signatureLabel, list)
	signatures.Add(signatureLabel, httpsfv.NewItem(signature))
	input, err := httpsfv.Marshal(inputs)
	if err != nil {
		return fmt.Errorf("submitter: signing: %w", err)
	}
	value, err := httpsfv.Marshal(signatures)
	if err != nil {
		return fmt.Errorf("submitter: signing: %w", err)
	}
	h.Set("Signature-Input", input)
	h.Set("Signature", value)
	return nil
}

// signatureBase is what is signed (RFC 9421, section 2.5). list covers our
// components only.
func signatureBase(req *http.Request, list httpsfv.InnerList) ([]byte, error) {
	params, err := httpsfv.Marshal(httpsfv.List{list})
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, c := range components {
		var value string
		switch c {
		case "@method":
			value = req.Method
		case "@target-uri":
			value = targetURI(req)
		default:
			v := req.Header.Values(c)
			if len(v) != 1 {
				return nil, fmt.Errorf("%d fields %s, want one", len(v), c)
			}
			value = strings.TrimSpace(v[0])
		}
		fmt.Fprintf(&b, "%q: %s\n", c, value)
	}
	fmt.Fprintf(&b, "%q: %s", "@signature-params", params)
	return []byte(b.String()), nil
}

// targetURI is the URI of a request that is to be sent, or of one that was
// received over TLS under the name that the sender knows.
func targetURI(req *http.Request) string {
	if req.URL.Host != "" {
		return req.URL.String()
	}
	return "https://" + req.Host + cmp.Or(req.RequestURI, req.URL.RequestURI())
}

// signBytes signs base with the algorithm of k.
func (k *Key) signBytes(base []byte) ([]byte, error) {
	if k.Algorithm() == Ed25519 {
		return k.signer.Sign(rand.Reader, base, crypto.Hash(0))
	}
	sum := sha256.Sum256(base)
	return k.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// VerifyRequest checks that req, which carried body, was signed as a [Submitter]
// does: the digest is that of body; the signature covers method, URI, type and
// digest, is at most an hour old, and was made with the key whose record
// lookupTXT finds. It returns the domain that signed. The report must then be
// of that domain: compare with [schema.Report.Submitter].
//
// The error is [ErrSignature], [ErrKeyRecord], or what lookupTXT said.
func VerifyRequest(req *http.Request, body []byte, lookupTXT func(name string) ([]string, error)) (domain string, err error) {
	digest, err := contentDigest(body)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if subtle.ConstantTimeCompare([]byte(digest), []byte(req.Header.Get("Content-Digest"))) != 1 {
		return "", fmt.Errorf("%w: Content-Digest is not that of the body", ErrSignature)
	}
	s, err := findSignature(req.Header)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSignature, err)
	}
	base, err := signatureBase(req, s.list)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSignature, err)
	}
	txts, err := lookupTXT(s.keyID)
	if err != nil {
		return "", fmt.Errorf("submitter: looking up %s: %w", s.keyID, err)
	}
	if len(txts) != 1 {
		return "", fmt.Errorf("%w: %d records at %s, want one", ErrKeyRecord, len(txts), s.keyID)
	}
	key, err := parseKeyRecord(txts[0])
	if err != nil {
		return "", err
	}
	if !s.verify(key, base) {
		return "", fmt.Errorf("%w: it is not by the key at %s", ErrSignature, s.keyID)
	}
	return s.domain, nil
}

// signature is one of a request.
type signature struct {
	list   httpsfv.InnerList
	value  []byte
	keyID  string
	domain string // the end of keyID
	alg    string
}

// findSignature is the one signature of a report in h.
func findSignature(h http.Header) (signature, error) {
	inputs, err := httpsfv.UnmarshalDictionary(h.Values("Signature-Input"))
	if err != nil {
		return signature{}, fmt.Errorf("field Signature-Input: %w", err)
	}
	values, err := httpsfv.UnmarshalDictionary(h.Values("Signature"))
	if err != nil {
		return signature{}, fmt.Errorf("field Signature: %w", err)
	}
	for _, label := range inputs.Names() {
		input, _ := inputs.Get(label)
		list, ok := input.(httpsfv.InnerList)
		if !ok || param[string](list, "tag") != signatureTag {
			continue
		}
		s := signature{list: list, keyID: param[string](list, "keyid"), alg: param[string](list, "alg")}
		if value, ok := values.Get(label); ok {
			if item, ok := value.(httpsfv.Item); ok {
				s.value, _ = item.Value.([]byte)
			}
		}
		return s, s.check(time.Now())
	}
	return signature{}, errors.New("none with tag tlsrpt")
}

// param is a parameter of list, or the zero value if it has another type.
func param[T any](list httpsfv.InnerList, name string) T {
	v, _ := list.Params.Get(name)
	t, _ := v.(T)
	return t
}

// check looks at all of s that needs no key.
func (s *signature) check(now time.Time) error {
	if len(s.list.Items) != len(components) {
		return fmt.Errorf("it covers %d components, want %d", len(s.list.Items), len(components))
	}
	for i, c := range components {
		if item := s.list.Items[i]; item.Value != c || len(item.Params.Names()) > 0 {
			return fmt.Errorf("it does not cover %q in its place", c)
		}
	}
	created := time.Unix(param[int64](s.list, "created"), 0)
	if age := now.Sub(created); age > signatureAge || age < -signatureAge {
		return fmt.Errorf("it was created at %s", created.UTC().Format(time.RFC3339))
	}
	selector, domain, _ := strings.Cut(s.keyID, domainKey)
	canonical, err := schema.ParseDomain(s.keyID)
	if selector == "" || domain == "" || err != nil || canonical != s.keyID {
		return fmt.Errorf("keyid %q is not of the form selector._domainkey.domain", printable(s.keyID, 80))
	}
	s.domain = domain
	return nil
}

// verify checks s with a key of its own algorithm.
func (s *signature) verify(key crypto.PublicKey, base []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return s.alg == algorithms[Ed25519] && ed25519.Verify(key, base, s.value)
	case *rsa.PublicKey:
		sum := sha256.Sum256(base)
		return s.alg == algorithms[RSA] && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], s.value) == nil
	}
	return false
}
