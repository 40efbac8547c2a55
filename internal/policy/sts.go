package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Mode says what an MTA does with an MX that does not meet an MTA-STS policy.
// RFC 8461, section 5.
type Mode string

const (
	// Enforce means that it does not deliver.
	Enforce Mode = "enforce"
	// Testing means that it delivers and reports.
	Testing Mode = "testing"
	// None means that there is no policy any more.
	None Mode = "none"
)

// maxAgeSeconds is the longest that a policy may be kept, a year (RFC 8461,
// section 3.2).
const maxAgeSeconds = 31557600

var (
	// ErrNoSTS means that a domain has no MTA-STS record, or several, or one that
	// is malformed. It is then taken to have no policy (RFC 8461, section 3.1).
	ErrNoSTS = errors.New("policy: no MTA-STS record")

	// ErrSTSPolicy means that a text is not an MTA-STS policy.
	ErrSTSPolicy = errors.New("policy: malformed MTA-STS policy")
)

// STSPolicy is an MTA-STS policy, RFC 8461, section 3.2.
type STSPolicy struct {
	Mode   Mode
	MaxAge time.Duration // at most a year

	// MX is the mx patterns, in A-labels, lower case, a leading "*." allowed.
	MX []string

	// Lines is the text, without line ends and empty lines.
	Lines []string
}

// Matches reports whether host, in A-labels and lower case, is one of the MX
// hosts that p allows. A wildcard stands for exactly one label (RFC 8461,
// section 4.1).
func (p STSPolicy) Matches(host string) bool { return matchesAny(p.MX, host) }

func matchesAny(patterns []string, host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	for _, m := range patterns {
		rest, wild := strings.CutPrefix(m, "*.")
		if wild && rest == parent || m == host {
			return true
		}
	}
	return false
}

// stsVersion begins each MTA-STS record.
const stsVersion = "v=STSv1;"

// SelectRecord picks the MTA-STS record among the TXT records at
// _mta-sts.<domain> (RFC 8461, section 3.1). The error is [ErrNoSTS].
func SelectRecord(txts []string) (string, error) {
	var found []string
	for _, txt := range txts {
		if strings.HasPrefix(txt, stsVersion) {
			found = append(found, txt)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%w: %d that begin with %q", ErrNoSTS, len(found), stsVersion)
	}
	return found[0], nil
}

// ParseRecord is the id in an MTA-STS record, which changes with the policy (RFC
// 8461, section 3.1). The error is [ErrNoSTS].
func ParseRecord(txt string) (id string, err error) {
	rest, ok := strings.CutPrefix(txt, stsVersion)
	if !ok {
		return "", fmt.Errorf("%w: it does not begin with %q", ErrNoSTS, stsVersion)
	}
	// One delimiter may follow the last field, and white space surround each.
	rest = strings.TrimSuffix(strings.TrimRight(rest, " \t"), ";")
	for field := range strings.SplitSeq(rest, ";") {
		name, value, ok := strings.Cut(strings.Trim(field, " \t"), "=")
		switch {
		case !ok || !isFieldName(name):
			return "", fmt.Errorf("%w: a field is not of the form name=value", ErrNoSTS)
		case name == "id" && id == "" && !isID(value):
			return "", fmt.Errorf("%w: the id is not 1 to 32 letters and digits", ErrNoSTS)
		case name == "id" && id == "":
			id = value
		case !isFieldValue(value):
			return "", fmt.Errorf("%w: field %q has a malformed value", ErrNoSTS, name)
		}
	}
	if id == "" {
		return "", fmt.Errorf("%w: it has no id", ErrNoSTS)
	}
	return id, nil
}

// isFieldName reports whether s is the name of a field of a record or policy.
func isFieldName(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (i == 0 || c != '_' && c != '-' && c != '.') {
			return false
		}
	}
	return true
}

func isID(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) {
			return false
		}
	}
	return true
}

// isFieldValue reports whether s is the value of a field of a record.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '=' {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// policyFault is an ErrSTSPolicy. Its code is short, for a failure-reason-code.
type policyFault struct{ code, why string }

func (f *policyFault) Error() string { return ErrSTSPolicy.Error() + ": " + f.why }
func (f *policyFault) Unwrap() error { return ErrSTSPolicy }

func malformed(code, format string, args ...any) error {
	return &policyFault{code, fmt.Sprintf(format, args...)}
}

// ParsePolicy reads the text of an MTA-STS policy (RFC 8461, section 3.2). Lines
// end in LF or CRLF, the last one need not. Of fields that are there twice the
// first counts, but for mx; unknown fields and empty lines are ignored. A
// max_age of more than a year is a year. The error is [ErrSTSPolicy].
func ParsePolicy(text string) (STSPolicy, error) {
	var p STSPolicy
	seen := map[string]bool{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.Trim(line, " \t") == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isFieldName(name) {
			return STSPolicy{}, malformed("policy-syntax", "line %q is not of the form name: value", clip(line))
		}
		p.Lines = append(p.Lines, line)
		if seen[name] && name != "mx" {
			continue
		}
		seen[name] = true
		if err := p.setField(name, strings.Trim(value, " \t")); err != nil {
			return STSPolicy{}, err
		}
	}
	for _, name := range []string{"version", "mode", "max_age"} {
		if !seen[name] {
			return STSPolicy{}, malformed("policy-"+name+"-missing", "no %s", name)
		}
	}
	if len(p.MX) == 0 && p.Mode != None {
		return STSPolicy{}, malformed("policy-mx-missing", "no mx, and its mode is not none")
	}
	return p, nil
}

// setField sets one field. Names and values have a case in the ABNF.
func (p *STSPolicy) setField(name, value string) error {
	switch name {
	case "version":
		if value != "STSv1" {
			return malformed("policy-version", "version %q is not STSv1", clip(value))
		}
	case "mode":
		p.Mode = Mode(value)
		if p.Mode != Enforce && p.Mode != Testing && p.Mode != None {
			return malformed("policy-mode", "mode %q is neither enforce, testing nor none", clip(value))
		}
	case "max_age":
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || len(value) > 10 {
			return malformed("policy-max_age", "max_age %q is not a number of 1 to 10 digits", clip(value))
		}
		p.MaxAge = time.Duration(min(seconds, maxAgeSeconds)) * time.Second
	case "mx":
		pattern, ok := parsePattern(value)
		if !ok {
			return malformed("policy-mx", "mx %q is not a host name in A-labels", clip(value))
		}
		p.MX = append(p.MX, pattern)
	}
	return nil
}

// parsePattern is the mx pattern s in lower case. A name that has no A-labels
// yet is none.
func parsePattern(s string) (string, bool) {
	rest, wild := strings.CutPrefix(s, "*.")
	host, err := schema.ParseDomain(rest)
	if err != nil || strings.TrimSuffix(strings.ToLower(rest), ".") != host {
		return "", false
	}
	if wild {
		host = "*." + host
	}
	return host, true
}

// clip is s as long as an error wants it.
func clip(s string) string { return s[:min(len(s), 80)] }

// canonical is p as schema counts it, so that equal policies have one
// [schema.PolicyText]. domain is in canonical form.
func canonical(domain string, p schema.Policy) (schema.Policy, error) {
	s, err := schema.Session{Domain: domain, Results: []schema.Result{{Policy: p}}}.Canonical()
	if err != nil {
		return schema.Policy{}, err
	}
	return s.Results[0].Policy, nil
}

// policy is p as the policy of domain.
func (p STSPolicy) policy(domain string) (schema.Policy, error) {
	return canonical(domain, schema.Policy{Type: schema.STS, Strings: p.Lines, Domain: domain, MXHosts: p.MX})
}
