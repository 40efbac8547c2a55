package receiver

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// LookupTXT is the TXT records of a name, each with its character-strings
// joined. No record is an error.
type LookupTXT func(name string) ([]string, error)

// Signature is one signature over a report: a DKIM-Signature of a message, or an
// RFC 9421 signature of a request.
type Signature struct {
	Domain    string   // who signed, lower case: d=, or the end of keyid
	Selector  string   // s=, or the beginning of keyid
	Algorithm string   // "rsa-sha256" in DKIM, "rsa-v1_5-sha256" in HTTP
	Covered   []string // names of header fields or components, in their order; an over-signed one is there twice
	Err       error    // why it does not verify; nil means that it does
}

// keyRecord is a DKIM key record (RFC 6376, section 3.6.1).
type keyRecord struct {
	key      crypto.PublicKey // *rsa.PublicKey or ed25519.PublicKey
	services []string
}

// allows reports whether the key may be used for a service type.
func (k *keyRecord) allows(service string) bool {
	return slices.Contains(k.services, "*") || slices.Contains(k.services, service)
}

// lookupKey finds the one key record of a selector.
func lookupKey(lookup LookupTXT, selector, domain string) (*keyRecord, error) {
	texts, err := lookup(selector + "._domainkey." + domain)
	if err != nil {
		return nil, fmt.Errorf("no key: %w", err)
	}
	if len(texts) != 1 {
		return nil, fmt.Errorf("%d key records, want 1", len(texts))
	}
	return parseKeyRecord(texts[0])
}

func parseKeyRecord(text string) (*keyRecord, error) {
	tags, err := parseTags(text)
	if err != nil {
		return nil, fmt.Errorf("key record: %w", err)
	}
	if v, ok := tags["v"]; ok && v != "DKIM1" {
		return nil, fmt.Errorf("key record: version %q, want DKIM1", v)
	}
	if h, ok := tags["h"]; ok && !slices.Contains(strings.Split(h, ":"), "sha256") {
		return nil, errors.New("key record: it does not allow sha256")
	}
	der, err := base64.StdEncoding.DecodeString(tags["p"])
	if err != nil || len(der) == 0 {
		return nil, errors.New("key record: no key in p=")
	}
	record := &keyRecord{services: []string{"*"}}
	if s, ok := tags["s"]; ok {
		record.services = strings.Split(s, ":")
	}
	record.key, err = parseKey(tags["k"], der)
	return record, err
}

// parseKey reads the key of a record. RFC 8301, section 3.2, sets the least size
// of an RSA key; RFC 8463, section 4.2, has Ed25519 keys without a wrapping.
func parseKey(kind string, der []byte) (crypto.PublicKey, error) {
	switch kind {
	case "", "rsa":
		parsed, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return nil, fmt.Errorf("key record: %w", err)
		}
		key, ok := parsed.(*rsa.PublicKey)
		if !ok || key.N.BitLen() < 1024 {
			return nil, errors.New("key record: not an RSA key of at least 1024 bits")
		}
		return key, nil
	case "ed25519":
		if len(der) != ed25519.PublicKeySize {
			return nil, errors.New("key record: not an Ed25519 key")
		}
		return ed25519.PublicKey(der), nil
	}
	return nil, fmt.Errorf("key record: unknown key type %q", kind)
}

// parseTags reads a tag-list (RFC 6376, section 3.2). White space within a value
// is dropped: in no tag that is read here does it mean anything.
func parseTags(list string) (map[string]string, error) {
	tags := map[string]string{}
	for tag := range strings.SplitSeq(strings.TrimRight(list, "; \t\r\n"), ";") {
		name, value, ok := strings.Cut(tag, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("tag %q is not of the form name=value", strings.TrimSpace(tag))
		}
		if _, twice := tags[name]; twice {
			return nil, fmt.Errorf("tag %q is there twice", name)
		}
		tags[name] = strings.Join(strings.Fields(value), "")
	}
	return tags, nil
}
