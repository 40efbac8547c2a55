package submitter

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Algorithm is the kind of a key, as the k= tag of its record names it (RFC
// 6376, section 3.6.1, and RFC 8463).
type Algorithm string

const (
	RSA     Algorithm = "rsa"
	Ed25519 Algorithm = "ed25519"
)

// ErrKey means that a private key cannot be used.
var ErrKey = errors.New("submitter: unusable key")

const (
	newRSABits = 2048 // RFC 8301, section 3.2: signers SHOULD
	minRSABits = 1024 // and MUST: shorter ones are refused
)

// Key signs reports for one domain. It is safe for concurrent use.
type Key struct {
	domain   string // A-labels, lower case, no final dot
	selector string
	signer   crypto.Signer
}

// ParseKey reads a private key in PEM: RSA in PKCS #1 or PKCS #8, or Ed25519 in
// PKCS #8. Other PEM blocks are skipped. domain is the submitter, selector says
// where below it the record is published. The error is [ErrKey] or
// [schema.ErrDomain] and does not quote the key.
func ParseKey(text []byte, domain, selector string) (*Key, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%w: no private key in PEM", ErrKey)
		}
		switch text = rest; block.Type {
		case "RSA PRIVATE KEY", "PRIVATE KEY":
			return parseKey(block, domain, selector)
		case "ENCRYPTED PRIVATE KEY":
			return nil, fmt.Errorf("%w: it is encrypted", ErrKey)
		}
	}
}

func parseKey(block *pem.Block, domain, selector string) (*Key, error) {
	if block.Headers["DEK-Info"] != "" {
		return nil, fmt.Errorf("%w: it is encrypted", ErrKey)
	}
	var parsed any
	var err error
	if block.Type == "PRIVATE KEY" {
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	} else {
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: it cannot sign", ErrKey)
	}
	return newKey(signer, domain, selector)
}

// GenerateKey makes a new key: RSA of 2048 bits, or Ed25519.
func GenerateKey(algorithm Algorithm, domain, selector string) (*Key, error) {
	var signer crypto.Signer
	var err error
	switch algorithm {
	case RSA:
		signer, err = rsa.GenerateKey(rand.Reader, newRSABits)
	case Ed25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("%w: algorithm %q is neither rsa nor ed25519", ErrKey, algorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return newKey(signer, domain, selector)
}

func newKey(signer crypto.Signer, domain, selector string) (*Key, error) {
	switch pub := signer.Public().(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < minRSABits {
			return nil, fmt.Errorf("%w: RSA of %d bits, want at least %d", ErrKey, n, minRSABits)
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("%w: %T is neither RSA nor Ed25519", ErrKey, pub)
	}
	d, err := schema.ParseDomain(domain)
	if err != nil {
		return nil, err
	}
	s, err := schema.ParseDomain(selector)
	if err != nil {
		return nil, fmt.Errorf("submitter: malformed selector: %w", err)
	}
	k := &Key{domain: d, selector: s, signer: signer}
	if _, err := schema.ParseDomain(k.Name()); err != nil {
		return nil, err
	}
	return k, nil
}

// Name is where the record is published, "selector._domainkey.domain".
func (k *Key) Name() string { return k.selector + domainKey + k.domain }

const domainKey = "._domainkey."

// Domain is the domain that k signs for.
func (k *Key) Domain() string { return k.domain }

// Algorithm is the kind of k.
func (k *Key) Algorithm() Algorithm {
	if _, ok := k.signer.Public().(ed25519.PublicKey); ok {
		return Ed25519
	}
	return RSA
}

// PEM is the private key in PKCS #8, for [ParseKey].
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// TXT is the text of the DNS record at [Key.Name].
//
// RFC 8460, section 3, wants s=tlsrpt; RFC 6376, section 3.6.1, makes ordinary
// verifiers, and so DMARC, ignore a key without s=email. The record says both.
// A verifier that takes the list for one word, as dkimpy does, finds no key.
func (k *Key) TXT() string {
	return fmt.Sprintf("v=DKIM1; k=%s; s=email:tlsrpt; p=%s", k.Algorithm(), base64.StdEncoding.EncodeToString(k.public()))
}

// public is the public key as its record has it: RFC 6376, section 3.6.1, and
// RFC 8463, section 4.
func (k *Key) public() []byte {
	if pub, ok := k.signer.Public().(ed25519.PublicKey); ok {
		return pub
	}
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		panic("submitter: " + err.Error()) // newKey lets only RSA through
	}
	return der
}

// ErrKeyRecord means that a TXT record is not one of a key that signs reports.
var ErrKeyRecord = errors.New("submitter: unusable key record")

// parseKeyRecord is the public key in the text of a record.
func parseKeyRecord(txt string) (crypto.PublicKey, error) {
	tags := make(map[string]string)
	for tag := range strings.SplitSeq(txt, ";") {
		name, value, _ := strings.Cut(tag, "=")
		tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
	}
	if v := tags["v"]; v != "" && v != "DKIM1" {
		return nil, fmt.Errorf("%w: v=%s", ErrKeyRecord, printable(v, 40))
	}
	if !allowsReports(tags["s"]) {
		return nil, fmt.Errorf("%w: s=%s", ErrKeyRecord, printable(tags["s"], 40))
	}
	der, err := base64.StdEncoding.DecodeString(tags["p"])
	if err != nil || len(der) == 0 {
		return nil, fmt.Errorf("%w: revoked or malformed", ErrKeyRecord)
	}
	switch k := Algorithm(tags["k"]); {
	case k == Ed25519 && len(der) == ed25519.PublicKeySize:
		return ed25519.PublicKey(der), nil
	case k == RSA || k == "":
		if pub, err := x509.ParsePKIXPublicKey(der); err == nil {
			if pub, ok := pub.(*rsa.PublicKey); ok && pub.N.BitLen() >= minRSABits {
				return pub, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: k=%s", ErrKeyRecord, printable(tags["k"], 40))
}

// allowsReports reads the s= tag: absent or "*" allows everything. RFC 8460,
// section 3, lets a receiver ignore a key without tlsrpt there.
func allowsReports(services string) bool {
	if services == "" {
		return true
	}
	for s := range strings.SplitSeq(services, ":") {
		if s == "*" || s == "tlsrpt" {
			return true
		}
	}
	return false
}
