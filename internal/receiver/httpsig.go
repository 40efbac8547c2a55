package receiver

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// signatureTag is the application that a signature is for (RFC 9421,
// section 2.3). Signatures for others say nothing about the report.
const signatureTag = "tlsrpt"

// mustCover is what a signature has to cover, so that neither the report nor
// where it was sent can be exchanged.
var mustCover = []string{"@method", "@target-uri", "content-type", "content-digest"}

// clockSkew is how far the clocks of two hosts may be apart.
const clockSkew = 10 * time.Minute

// verifyPost is the signatures of p that are meant for reports. The error says
// that the fields they are in cannot be read.
func verifyPost(p *Post, lookup LookupTXT) ([]Signature, error) {
	if err := checkDigest(p); err != nil {
		return nil, err
	}
	inputs, err := httpsfv.UnmarshalDictionary(p.Header.Values("Signature-Input"))
	if err != nil {
		return nil, fmt.Errorf("Signature-Input: %w", err)
	}
	values, err := httpsfv.UnmarshalDictionary(p.Header.Values("Signature"))
	if err != nil {
		return nil, fmt.Errorf("Signature: %w", err)
	}
	if !slices.Equal(slices.Sorted(slices.Values(inputs.Names())), slices.Sorted(slices.Values(values.Names()))) {
		return nil, errors.New("Signature and Signature-Input do not name the same signatures")
	}
	var found []Signature
	for _, label := range inputs.Names() {
		input, _ := inputs.Get(label)
		list, ok := input.(httpsfv.InnerList)
		if !ok {
			return nil, fmt.Errorf("Signature-Input: %s is not a list of components", label)
		}
		if tag, _ := param[string](list, "tag"); tag != signatureTag {
			continue
		}
		value, _ := values.Get(label)
		item, _ := value.(httpsfv.Item)
		raw, ok := item.Value.([]byte)
		if !ok {
			return nil, fmt.Errorf("Signature: %s is not a byte sequence", label)
		}
		found = append(found, verifyOne(p, list, raw, lookup))
	}
	return found, nil
}

// checkDigest holds the Content-Digest field (RFC 9530), where there is one,
// against the body.
func checkDigest(p *Post) error {
	fields := p.Header.Values("Content-Digest")
	if len(fields) == 0 {
		return nil // a signature cannot cover it, then
	}
	digests, err := httpsfv.UnmarshalDictionary(fields)
	if err != nil {
		return fmt.Errorf("Content-Digest: %w", err)
	}
	sum256, sum512 := sha256.Sum256(p.Body), sha512.Sum512(p.Body)
	known := 0
	for name, want := range map[string][]byte{"sha-256": sum256[:], "sha-512": sum512[:]} {
		member, ok := digests.Get(name)
		if !ok {
			continue
		}
		known++
		item, _ := member.(httpsfv.Item)
		if got, _ := item.Value.([]byte); !bytes.Equal(got, want) {
			return fmt.Errorf("Content-Digest: %s is not that of the body", name)
		}
	}
	if known == 0 {
		return errors.New("Content-Digest: neither sha-256 nor sha-512")
	}
	return nil
}

// verifyOne verifies one signature (RFC 9421, section 3.2).
func verifyOne(p *Post, list httpsfv.InnerList, raw []byte, lookup LookupTXT) (s Signature) {
	s.Algorithm, _ = param[string](list, "alg")
	keyid, _ := param[string](list, "keyid")
	s.Selector, s.Domain, _ = strings.Cut(keyid, "._domainkey.")
	s.Domain = strings.ToLower(s.Domain)
	base, err := signatureBase(p, list, &s.Covered)
	if err != nil {
		s.Err = err
		return s
	}
	for _, name := range mustCover {
		if !slices.Contains(s.Covered, name) {
			s.Err = fmt.Errorf("it does not cover %s", name)
			return s
		}
	}
	if s.Err = checkTimes(list, p.Time); s.Err != nil {
		return s
	}
	record, err := lookupKey(lookup, s.Selector, s.Domain)
	if err != nil {
		s.Err = err
		return s
	}
	if !record.allows("tlsrpt") {
		s.Err = errors.New("the key's s= does not allow tlsrpt")
		return s
	}
	s.Err = verifyRaw(s.Algorithm, record.key, base, raw)
	return s
}

// checkTimes holds the parameters created and expires against the time of
// arrival.
func checkTimes(list httpsfv.InnerList, arrived time.Time) error {
	created, ok := param[int64](list, "created")
	if !ok {
		return errors.New("it has no parameter created")
	}
	if age := arrived.Sub(time.Unix(created, 0)); age.Abs() > clockSkew {
		return fmt.Errorf("it was created %s before it arrived", age.Round(time.Second))
	}
	if expires, ok := param[int64](list, "expires"); ok && arrived.After(time.Unix(expires, 0)) {
		return errors.New("it has expired")
	}
	return nil
}

// param is a parameter of a signature.
func param[T any](list httpsfv.InnerList, name string) (T, bool) {
	v, _ := list.Params.Get(name)
	t, ok := v.(T)
	return t, ok
}

// signatureBase rebuilds what was signed (RFC 9421, section 2.5) and adds the
// names of the components to covered.
func signatureBase(p *Post, list httpsfv.InnerList, covered *[]string) (string, error) {
	var base strings.Builder
	for _, item := range list.Items {
		name, ok := item.Value.(string)
		if !ok || len(item.Params.Names()) > 0 {
			return "", errors.New("it covers a component that is no plain name")
		}
		if slices.Contains(*covered, name) {
			return "", fmt.Errorf("it covers %s twice", name)
		}
		*covered = append(*covered, name)
		value, err := component(p, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&base, "\"%s\": %s\n", name, value)
	}
	params, err := httpsfv.Marshal(list)
	if err != nil {
		return "", fmt.Errorf("its parameters: %w", err)
	}
	return base.String() + `"@signature-params": ` + params, nil
}

// component is the value of a derived component or of a header field.
func component(p *Post, name string) (string, error) {
	switch {
	case name == "@method":
		return p.Method, nil
	case name == "@target-uri":
		return p.URL, nil
	case strings.HasPrefix(name, "@"):
		return "", fmt.Errorf("it covers %s, which says nothing that @target-uri does not", name)
	case name != strings.ToLower(name):
		return "", fmt.Errorf("it covers %s, which is not in lower case", name)
	}
	values := slices.Clone(p.Header.Values(http.CanonicalHeaderKey(name)))
	if len(values) == 0 {
		return "", fmt.Errorf("it covers %s, which the request has not", name)
	}
	for i := range values {
		values[i] = strings.Trim(values[i], " \t")
	}
	return strings.Join(values, ", "), nil
}

// verifyRaw verifies a signature over base (RFC 9421, sections 3.3.2 and 3.3.6).
func verifyRaw(algorithm string, key crypto.PublicKey, base string, raw []byte) error {
	switch algorithm {
	case "rsa-v1_5-sha256":
		if key, ok := key.(*rsa.PublicKey); ok {
			sum := sha256.Sum256([]byte(base))
			return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw)
		}
	case "ed25519":
		if key, ok := key.(ed25519.PublicKey); ok {
			if !ed25519.Verify(key, []byte(base), raw) {
				return errors.New("it does not verify")
			}
			return nil
		}
	default:
		return fmt.Errorf("unknown algorithm %q", algorithm)
	}
	return fmt.Errorf("algorithm %s does not go with the key", algorithm)
}
