package schema

import (
	"errors"
	"fmt"
	"net/mail"
	"net/url"
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
	fault := func(why string) (RUA, error) {
		return "", fmt.Errorf("%w %q: %s", ErrRUA, clean(uri, maxField), why)
	}
	if len(uri) > maxRUA {
		return fault("too long")
	}
	if i := strings.IndexAny(uri, ",!;"); i >= 0 {
		return fault(fmt.Sprintf("%q must be percent-encoded", uri[i:i+1]))
	}
	for i := range len(uri) {
		if uri[i] <= ' ' || uri[i] > '~' {
			return fault("it has a character that no URI has")
		}
	}
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return fault("it has no scheme, such as \"mailto:\"")
	}
	var rua RUA
	var err error
	switch strings.ToLower(scheme) {
	case "mailto":
		rua, err = parseMailto(rest)
	case "https":
		rua, err = parseHTTPS(rest)
	default:
		return fault("the scheme is neither mailto nor https")
	}
	if err != nil {
		return fault(err.Error())
	}
	return rua, nil
}

func parseMailto(rest string) (RUA, error) {
	to, _, _ := strings.Cut(rest, "?")
	to, _, _ = strings.Cut(to, "#")
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
	host := u.Hostname()
	if !strings.HasPrefix(u.Host, "[") {
		// An IP address is let through here and refused or not when it is dialled.
		if d, err := ParseDomain(host); err == nil {
			host = d
		} else if strings.Trim(host, "0123456789.") != "" || host == "" {
			return "", errors.New("malformed host name")
		}
	} else {
		host = "[" + strings.ToLower(host) + "]"
	}
	if port := u.Port(); port != "" && port != "443" {
		host += ":" + port
	}
	u.Host, u.Fragment, u.RawFragment = host, "", ""
	if u.Path == "" {
		u.Path = "/"
	}
	return RUA(u.String()), nil
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
		return addr[strings.LastIndexByte(addr, '@')+1:]
	}
	if u, err := url.Parse(string(r)); err == nil {
		return u.Hostname()
	}
	return ""
}

// ErrAddress means that a string is not one addr-spec that can be mailed to.
var ErrAddress = errors.New("schema: malformed mail address")

// ParseAddress is the canonical form of an addr-spec (RFC 5322, section 3.4.1):
// the local part as it is, in ASCII; the domain in A-labels and lower case.
// Address literals, comments and display names are refused. The error is
// [ErrAddress].
func ParseAddress(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || len(s) > 254 || at > 64 {
		return "", fmt.Errorf("%w %q", ErrAddress, clean(s, maxField))
	}
	domain, err := ParseDomain(s[at+1:])
	if err != nil {
		return "", fmt.Errorf("%w %q: %w", ErrAddress, clean(s, maxField), err)
	}
	addr := s[:at] + "@" + domain
	if !isPrintableASCII(addr) {
		return "", fmt.Errorf("%w %q", ErrAddress, clean(s, maxField))
	}
	// The angle brackets keep net/mail from taking a word for a display name.
	parsed, err := mail.ParseAddress("<" + addr + ">")
	if err != nil || parsed.Name != "" || parsed.String() != "<"+addr+">" {
		return "", fmt.Errorf("%w %q", ErrAddress, clean(s, maxField))
	}
	return addr, nil
}
