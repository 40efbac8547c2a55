package agent

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ErrPattern means that a pattern is none of the forms of [Choice].
var ErrPattern = errors.New("agent: malformed pattern")

// domainPattern is "example.com", that domain; "*.example.com", every domain
// below it, however deep, and not the domain itself; or "*", every domain.
type domainPattern struct {
	name  string // in the form of schema.ParseDomain; "": any
	below bool
}

func parseDomainPattern(s string) (domainPattern, error) {
	if s == "*" {
		return domainPattern{}, nil
	}
	name, below := strings.CutPrefix(s, "*.")
	d, err := schema.ParseDomain(name)
	if err != nil {
		return domainPattern{}, fmt.Errorf("%w %q: want \"example.com\" or \"*.example.com\"", ErrPattern, s)
	}
	return domainPattern{d, below}, nil
}

func (p domainPattern) matches(domain string) bool {
	switch {
	case p.name == "":
		return true
	case p.below:
		return strings.HasSuffix(domain, "."+p.name)
	}
	return domain == p.name
}

// ruaPattern is a pattern of [Choice.ExcludeRUA]. Case counts nowhere: to leave
// out one rua too many is better than to mail somebody who asked not to be.
type ruaPattern struct {
	text   string // as it was given
	scheme string
	host   domainPattern

	local string // of mailto, in lower case; "*": any
	port  string // of https; "": any
	path  string // of https, with query, in lower case
	open  bool   // path may go on
}

func parseRUAPattern(s string) (p ruaPattern, err error) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch {
	case strings.EqualFold(scheme, "https"):
		p, err = parseHTTPSPattern(rest)
	case strings.EqualFold(scheme, "mailto"):
		p, err = parseMailPattern(rest)
	default:
		p, err = parseMailPattern(s)
	}
	if err != nil {
		return ruaPattern{}, fmt.Errorf("%w %q: want \"a@example.com\", \"*@*.example.com\" or \"https://example.com/*\"", ErrPattern, s)
	}
	p.text = s
	return p, nil
}

func parseMailPattern(s string) (ruaPattern, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return ruaPattern{}, ErrPattern
	}
	local := s[:at]
	host, err := parseDomainPattern(s[at+1:])
	switch {
	case err != nil || local == "*":
	case strings.Contains(local, "*"): // an address may have one, but nobody means it
		err = ErrPattern
	default:
		_, err = schema.ParseAddress(local + "@example.com")
	}
	return ruaPattern{scheme: "mailto", local: strings.ToLower(local), host: host}, err
}

// parseHTTPSPattern reads what follows "https:". The rest of a URI is held to the
// form of a rua by having one made of it.
func parseHTTPSPattern(rest string) (ruaPattern, error) {
	authority, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return ruaPattern{}, ErrPattern
	}
	p := ruaPattern{scheme: "https"}
	path := ""
	if i := strings.IndexAny(authority, "/?"); i >= 0 {
		authority, path = authority[:i], authority[i:]
	}
	path, p.open = strings.CutSuffix(path, "*")
	if path == "" {
		p.open = true // of a host alone everything
	}
	anyHost := authority == "*" || strings.HasPrefix(authority, "*:")
	below := strings.HasPrefix(authority, "*.")
	literal := strings.TrimPrefix(authority, "*.")
	if anyHost {
		literal = "any.invalid" + authority[1:]
	}
	rua, err := schema.ParseRUA("https://" + literal + path)
	if err != nil || strings.Contains(path, "*") { // as in an address
		return ruaPattern{}, ErrPattern
	}
	if path != "" {
		_, p.path = splitHTTPS(rua)
	}
	// A default port is lost in a rua, but was named here.
	if u, err := url.Parse("https://" + literal); err == nil {
		p.port = u.Port()
	}
	if !anyHost {
		p.host = domainPattern{rua.Host(), below}
	}
	return p, nil
}

// splitHTTPS is the port of an https rua, and its path and query in lower case.
func splitHTTPS(rua schema.RUA) (port, path string) {
	u, err := url.Parse(string(rua))
	if err != nil {
		return "", ""
	}
	path = u.EscapedPath()
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	if port = u.Port(); port == "" {
		port = "443"
	}
	return port, strings.ToLower(path)
}

func (p *ruaPattern) matches(rua schema.RUA) bool {
	if rua.Scheme() != p.scheme || !p.host.matches(rua.Host()) {
		return false
	}
	if p.scheme == "mailto" {
		local := strings.TrimSuffix(rua.Address(), "@"+rua.Host())
		return p.local == "*" || p.local == strings.ToLower(local)
	}
	port, path := splitHTTPS(rua)
	if p.port != "" && p.port != port {
		return false
	}
	return path == p.path || p.open && strings.HasPrefix(path, p.path)
}
