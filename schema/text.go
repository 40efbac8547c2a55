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

// maxUnicodeName is how long a name with U-labels may be, in bytes. What is
// longer has no A-labels of 253 bytes, and turning it into some takes time that
// grows with the square of its length.
const maxUnicodeName = 1024

// ParseDomain is the canonical form of a domain name: A-labels, lower case, no
// final dot. A single label is a name, an address literal is not. The error is
// [ErrDomain].
func ParseDomain(s string) (string, error) {
	name := s
	if !isASCII(name) {
		// The replacement character also stands for invalid UTF-8.
		if len(name) > maxUnicodeName || strings.ContainsRune(name, utf8.RuneError) {
			return "", fmt.Errorf("%w %q", ErrDomain, clean(s, 80))
		}
		a, err := idnaProfile.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("%w %q: %w", ErrDomain, clean(s, 80), err)
		}
		name = a
	}
	name = lowerASCII(strings.TrimSuffix(name, "."))
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

// isDomain reports whether s is made of labels of 1 to 63 lower-case letters,
// digits, hyphens and underscores, has at most 253 bytes, and is not an IPv4
// address.
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
	if h, ok := parsePattern(s); ok {
		return h
	}
	// Only ASCII is lowered: lowering other letters may change their length and
	// so undo the cut.
	s = lowerASCII(strings.TrimRight(clean(s, maxField), ". "))
	if h, ok := parsePattern(s); ok {
		return h
	}
	return s
}

// parsePattern is [ParseDomain] for a name that may begin with "*.".
func parsePattern(s string) (string, bool) {
	rest, wild := strings.CutPrefix(s, "*.")
	d, err := ParseDomain(rest)
	switch {
	case err != nil:
		return "", false
	case !wild:
		return d, true
	case len(s) == len(d)+2 && s[2:] == d:
		return s, true
	}
	return "*." + d, true
}

// clean is s as valid UTF-8 that a person can be shown: no control characters,
// none that reorder or break a line, no noncharacters (RFC 7493, section 2.1),
// no white space around it, cut to size bytes at a rune boundary. It is
// idempotent.
func clean(s string, size int) string {
	if len(s) <= size && isPrintableASCII(s) {
		return s
	}
	var b strings.Builder
	for _, r := range strings.TrimSpace(s) {
		switch {
		case isNonCharacter(r):
			r = utf8.RuneError
		case unicode.IsControl(r), unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp):
			r = ' '
		}
		if b.Len()+utf8.RuneLen(r) > size {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// isText reports whether s may stand in a report: valid UTF-8 (RFC 7493,
// section 2.1), no control characters, no noncharacters.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || isNonCharacter(r)
	})
}

func isNonCharacter(r rune) bool { return r&0xfffe == 0xfffe || 0xfdd0 <= r && r <= 0xfdef }

// isPrintableASCII reports whether s is printable ASCII without a space at
// either end.
func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return !strings.HasPrefix(s, " ") && !strings.HasSuffix(s, " ")
}

// singleSpaced is s with its fields one space apart.
func singleSpaced(s string) string {
	if isPrintableASCII(s) && !strings.Contains(s, "  ") {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// lowerASCII is s with A to Z in lower case.
func lowerASCII(s string) string { return mapLetters(s, 'A', 'Z') }

// upperASCII is s with a to z in upper case.
func upperASCII(s string) string { return mapLetters(s, 'a', 'z') }

// mapLetters is s with the ASCII letters from first to last in the other case.
func mapLetters(s string, first, last byte) string {
	for i := range len(s) {
		if first <= s[i] && s[i] <= last {
			b := []byte(s)
			for i, c := range b {
				if first <= c && c <= last {
					b[i] = c ^ ('a' - 'A')
				}
			}
			return string(b)
		}
	}
	return s
}

// isURI reports whether s is made as RFC 3986 wants a URI: a scheme, a colon,
// and none but the characters that a URI has.
func isURI(s string) bool {
	scheme, _, ok := strings.Cut(s, ":")
	return ok && isScheme(scheme) && hasURIChars(s)
}

func isScheme(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return s != ""
}

// hasURIChars reports whether all of s is unreserved, reserved or
// percent-encoded (RFC 3986, section 2).
func hasURIChars(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ', c > '~', strings.IndexByte("\"<>\\^`{|}", c) >= 0:
			return false
		case c == '%' && (len(s) < i+3 || !isHex(s[i+1]) || !isHex(s[i+2])):
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
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

// appendMember appends a comma and a member of a JSON object, unless s is empty.
func appendMember(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendString(b, s)
}

// appendStrings appends the JSON of list.
func appendStrings(b []byte, list []string) []byte {
	sep := byte('[')
	for _, s := range list {
		b = appendString(append(b, sep), s)
		sep = ','
	}
	return append(b, ']')
}

// appendString appends the JSON of s.
func appendString(b []byte, s string) []byte {
	if !isPrintableASCII(s) || strings.ContainsAny(s, `"\`) {
		return append(b, marshal(s)...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
