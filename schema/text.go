package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ErrDomain means that a string is not the name of a mail domain.
var ErrDomain = errors.New("schema: malformed domain")

// idnaProfile maps case and width, and checks no more than DNS itself needs:
// underscores and "--" in a label exist in the wild.
var idnaProfile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false), idna.CheckHyphens(false))

// ParseDomain is the canonical form of a domain name: A-labels, lower case, no
// final dot. Address literals and single labels with an empty name are refused.
// The error is [ErrDomain].
func ParseDomain(s string) (string, error) {
	name := s
	if !isASCII(name) {
		a, err := idnaProfile.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("%w %q: %w", ErrDomain, clean(s, 80), err)
		}
		name = a
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isDomain(name) {
		return "", fmt.Errorf("%w %q", ErrDomain, clean(s, 80))
	}
	return name, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isDomain reports whether s is made of labels of 1 to 63 letters, digits,
// hyphens and underscores, has at most 253 bytes, and is not an IPv4 address.
func isDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	label, digits := 0, true
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label, digits = 0, true
			continue
		case '0' <= c && c <= '9':
		case 'a' <= c && c <= 'z', c == '-', c == '_':
			digits = false
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0 && !digits // no top-level domain is a number
}

// cleanHost is a host name, or an mx pattern, in A-labels, lower case, without
// final dot. What is no host name stays as text: a stranger wrote it, and the
// report is about what he wrote.
func cleanHost(s string) string {
	prefix, rest := "", s
	if strings.HasPrefix(s, "*.") {
		prefix, rest = s[:2], s[2:]
	}
	if d, err := ParseDomain(rest); err == nil {
		return prefix + d
	}
	return strings.ToLower(strings.TrimSuffix(clean(s, maxField), "."))
}

// clean is s as valid UTF-8 without control characters and noncharacters, which
// I-JSON (RFC 7493, section 2.1) forbids, cut to size bytes at a rune boundary.
func clean(s string, size int) string {
	if len(s) <= size && isPrintableASCII(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsControl(r):
			r = ' '
		case r&0xfffe == 0xfffe, 0xfdd0 <= r && r <= 0xfdef:
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > size {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return !strings.HasPrefix(s, " ") && !strings.HasSuffix(s, " ")
}

// marshal is the JSON of v on one line. It keeps "<", ">" and "&" as they are.
func marshal(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("schema: " + err.Error()) // only types of this package, all of which encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
