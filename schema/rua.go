package schema

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// ErrRUA means that a URI is not one that a report can be sent to.
var ErrRUA = errors.New("schema: malformed rua")

// RUA is one destination of reports: a mailto or https URI in the form that
// [ParseRUA] gives it, in which equal destinations are equal. The zero value is
// no destination.
type RUA string

const (
	mailtoPrefix = "mailto:"
	httpsPrefix  = "https://"
	maxRUA       = 2048 // bytes of a URI
)

// ParseRUA reads one tlsrpt-uri of RFC 8460, section 3. The scheme has no case.
// The error is [ErrRUA].
//
// Of a mailto URI (RFC 6068) only the one address counts: it is
// percent-decoded, and header fields after "?" are dropped, because they would
// let a stranger write into our message. Of an https URI user information is
// refused and a fragment dropped.
func ParseRUA(uri string) (RUA, error) {
	rua, err := parseRUA(uri)
	if err == nil && len(rua) > maxRUA {
		err = errors.New("too long")
	}
	if err != nil {
		return "", fmt.Errorf("%w %q: %w", ErrRUA, clean(uri, maxField), err)
	}
	return rua, nil
}

func parseRUA(uri string) (RUA, error) {
	if len(uri) > maxRUA {
		return "", errors.New("too long")
	}
	if i := strings.IndexAny(uri, ",!;"); i >= 0 {
		return "", fmt.Errorf("%q must be percent-encoded", uri[i:i+1])
	}
	if !hasURIChars(uri) {
		return "", errors.New("it has a character that no URI has, or bad percent-encoding")
	}
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return "", errors.New("it has no scheme, such as \"mailto:\"")
	}
	switch strings.ToLower(scheme) {
	case "mailto":
		return parseMailto(rest)
	case "https":
		return parseHTTPS(rest)
	}
	return "", errors.New("the scheme is neither mailto nor https")
}

func parseMailto(rest string) (RUA, error) {
	to, _, _ := strings.Cut(rest, "#")
	to, _, _ = strings.Cut(to, "?")
	if strings.HasPrefix(to, "//") {
		return "", errors.New("a mailto URI has no slashes")
	}
	addr, err := url.PathUnescape(to)
	if err != nil {
		return "", errors.New("bad percent-encoding")
	}
	if addr, err = ParseAddress(addr); err != nil {
		return "", errors.New("not one mail address")
	}
	return RUA(mailtoPrefix + escapeAddress(addr)), nil
}

// escapeAddress percent-encodes what may not stand for itself in a rua.
func escapeAddress(addr string) string {
	var b strings.Builder
	for i := range len(addr) {
		switch c := addr[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("-._~@+=*'$", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func parseHTTPS(rest string) (RUA, error) {
	u, err := url.Parse("https:" + rest)
	if err != nil || u.Opaque != "" {
		return "", errors.New("not an https URI")
	}
	if u.User != nil {
		return "", errors.New("user information is not allowed")
	}
	host, err := parseHost(u.Hostname(), strings.HasPrefix(u.Host, "["))
	if err != nil {
		return "", err
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", errors.New("malformed port")
		}
		if n != 443 {
			host = fmt.Sprintf("%s:%d", host, n)
		}
	}
	u.Host, u.Fragment, u.RawFragment = host, "", ""
	if u.Path == "" {
		u.Path = "/"
	}
	return RUA(u.String()), nil
}

// parseHost is the host of an https URI: a domain or an IP address, IPv6 in
// brackets. No address is too private here: that is decided when it is dialled.
func parseHost(host string, brackets bool) (string, error) {
	if d, err := ParseDomain(host); err == nil && !brackets {
		return d, nil
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is6() != brackets {
		return "", errors.New("malformed host name")
	}
	if a = a.Unmap(); a.Is4() {
		return a.String(), nil
	}
	return "[" + a.String() + "]", nil
}

// Scheme is "mailto" or "https".
func (r RUA) Scheme() string {
	scheme, _, _ := strings.Cut(string(r), ":")
	return scheme
}

// Address is the mail address of a mailto URI, percent-decoded, or "".
func (r RUA) Address() string {
	rest, ok := strings.CutPrefix(string(r), mailtoPrefix)
	if !ok {
		return ""
	}
	addr, _ := url.PathUnescape(rest)
	return addr
}

// Host is where r leads: the host of an https URI without port, or the domain
// of a mailto address.
func (r RUA) Host() string {
	if addr := r.Address(); addr != "" {
		return domainOf(addr)
	}
	if u, err := url.Parse(string(r)); err == nil {
		return u.Hostname()
	}
	return ""
}

// AddressDomain is the domain of an addr-spec in A-labels and lower case, or "" if
// addr is none, see [ParseAddress].
func AddressDomain(addr string) string {
	a, err := ParseAddress(addr)
	if err != nil {
		return ""
	}
	return domainOf(a)
}

// domainOf is the domain of an address that ParseAddress made.
func domainOf(addr string) string { return addr[strings.LastIndexByte(addr, '@')+1:] }

// ErrAddress means that a string is not one addr-spec that can be mailed to.
var ErrAddress = errors.New("schema: malformed mail address")

// Bounds of RFC 5321, section 4.5.3.1.
const (
	maxLocalPart = 64
	maxAddress   = 254
)

// ParseAddress is the canonical form of an addr-spec (RFC 5322, section 3.4.1):
// the local part as it is; the domain in A-labels and lower case. The error is
// [ErrAddress].
//
// Address literals, comments and display names are refused, and so are a quoted
// local part and one that begins with a hyphen: nobody reads reports there, and
// without them an address is one word in every header, command and log line.
func ParseAddress(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 || at > maxLocalPart || !isDotAtom(s[:at]) || s[0] == '-' {
		return "", fmt.Errorf("%w %q", ErrAddress, clean(s, maxField))
	}
	domain, err := ParseDomain(s[at+1:])
	if err != nil {
		return "", fmt.Errorf("%w %q: %w", ErrAddress, clean(s, maxField), err)
	}
	addr := s[:at] + "@" + domain
	if len(addr) > maxAddress {
		return "", fmt.Errorf("%w %q: too long", ErrAddress, clean(s, maxField))
	}
	return addr, nil
}

// isDotAtom reports whether s is a dot-atom-text of RFC 5322, section 3.2.3.
func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		for i := range len(atom) {
			switch c := atom[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			case strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
			default:
				return false
			}
		}
		if atom == "" {
			return false
		}
	}
	return true
}
