package schema

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// PolicyType says which kind of policy a session was held against. The set is
// open: Decode keeps what others send, but only the three of RFC 8460,
// section 4.4, are ever sent.
type PolicyType string

const (
	// TLSA is DANE, RFC 7672.
	TLSA PolicyType = "tlsa"
	// STS is MTA-STS, RFC 8461.
	STS PolicyType = "sts"
	// NoPolicyFound means that the domain had neither.
	NoPolicyFound PolicyType = "no-policy-found"
)

// Known reports whether t is one of the three types of RFC 8460, section 4.4.
func (t PolicyType) Known() bool { return t == TLSA || t == STS || t == NoPolicyFound }

// Policy is the policy that a session was held against. RFC 8460, section 4.4.
type Policy struct {
	Type PolicyType `json:"policy-type"`

	// Strings is the policy text. For STS one string per line of the policy
	// file, in its order; for TLSA one TLSA record per string, "3 1 1 AB12...".
	// Empty for NoPolicyFound and where the policy could not be fetched.
	Strings []string `json:"policy-string,omitempty"`

	// Domain is the policy domain in A-labels. For STS the recipient domain,
	// for TLSA the TLSA base domain (normally the MX host, RFC 7672,
	// section 2.2.3), for NoPolicyFound the recipient domain.
	Domain string `json:"policy-domain"`

	// MXHosts is the list of mx patterns of an STS policy, in A-labels, a
	// leading "*." allowed. Empty for the other types.
	//
	// RFC 8460, section 4.4, makes mx-host an array; the example in Appendix B
	// has a string (erratum 6241). An array is what we send. Decode accepts both.
	MXHosts []string `json:"mx-host,omitempty"`
}

// Bounds on what a stranger's policy may take up in a store and in a report.
const (
	maxPolicyText = 64 << 10 // bytes of all Strings of a policy, as JSON
	maxPolicyLine = 16 << 10 // bytes of one of them
	maxMXHosts    = 100
	maxField      = 255 // bytes of any other field
)

// canonical is p as it is counted: equal policies become identical ones.
// domain is the recipient domain; it stands for an absent policy domain.
func (p Policy) canonical(domain string) Policy {
	// Postfix 3.10.0 to 3.10.4 leaves out the policy domain. Receivers reject
	// a report without one.
	c := Policy{Type: p.Type, Domain: domain}
	if d, err := ParseDomain(p.Domain); err == nil {
		c.Domain = d
	}
	switch p.Type {
	case TLSA:
		c.Strings = canonicalLines(p.Strings, canonicalTLSA)
		// DNS rotates the records of an answer; the set is the policy.
		slices.Sort(c.Strings)
		c.Strings = boundLines(slices.Compact(c.Strings))
	case STS:
		c.Strings = boundLines(canonicalLines(p.Strings, canonicalSTS))
		c.MXHosts = canonicalHosts(p.MXHosts)
	}
	return c
}

// canonicalLines is form of each line, without empty ones.
func canonicalLines(lines []string, form func(string) string) []string {
	if len(lines) == 0 {
		return nil
	}
	out := make([]string, 0, len(lines))
	for _, s := range lines {
		if s = form(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// boundLines is as many of the first lines as a policy may have.
func boundLines(lines []string) []string {
	size := 0
	for i, s := range lines {
		if size += jsonSize(s); size > maxPolicyText {
			return slices.Clip(lines[:i])
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return lines
}

// jsonSize is about how long s is as an element of an array of a report:
// quotation marks and backslashes are escaped, and each is on its own line.
func jsonSize(s string) int {
	return len(s) + strings.Count(s, `"`) + strings.Count(s, `\`) + len("\n            \"\",")
}

// canonicalHosts is those of hosts that are mx patterns. RFC 8460, section 4.4,
// demands A-labels, which the others do not have; the policy text shows them.
func canonicalHosts(hosts []string) []string {
	if len(hosts) == 0 {
		return nil
	}
	out := make([]string, 0, min(len(hosts), maxMXHosts))
	for _, h := range hosts {
		if h, ok := parsePattern(strings.TrimSpace(h)); ok && len(out) < maxMXHosts {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// canonicalTLSA is one TLSA record with single spaces and its hexadecimal part
// joined and in upper case, the form of RFC 8460, Appendix B.
func canonicalTLSA(s string) string {
	s = singleSpaced(clean(s, maxPolicyLine))
	f := strings.SplitN(s, " ", 4)
	if len(f) < 4 {
		return upperASCII(s)
	}
	hex := s[len(s)-len(f[3]):]
	if data := upperASCII(strings.ReplaceAll(hex, " ", "")); data != hex {
		return s[:len(s)-len(hex)] + data
	}
	return s
}

// canonicalSTS is one line of an MTA-STS policy with single spaces. The name of
// a host has no case, so an mx line is lowered; all else stays as the domain
// wrote it, "including any errors that may be present" (RFC 8460, section 4.4).
func canonicalSTS(s string) string {
	s = singleSpaced(clean(s, maxPolicyLine))
	if len(s) > 3 && s[2] == ':' && strings.EqualFold(s[:2], "mx") {
		if value := lowerASCII(s[3:]); value != s[3:] {
			return s[:3] + value
		}
	}
	return s
}

// PolicyText is the canonical form of a policy in one string, its JSON. Two
// policies are equal if and only if their texts are.
type PolicyText string

// Text is the PolicyText of p, which must be in canonical form. It is written
// by hand because every session needs one.
func (p Policy) Text() PolicyText {
	b := make([]byte, 0, 256)
	b = append(b, `{"policy-type":`...)
	b = appendString(b, string(p.Type))
	if len(p.Strings) > 0 {
		b = append(b, `,"policy-string":`...)
		b = appendStrings(b, p.Strings)
	}
	b = append(b, `,"policy-domain":`...)
	b = appendString(b, p.Domain)
	if len(p.MXHosts) > 0 {
		b = append(b, `,"mx-host":`...)
		b = appendStrings(b, p.MXHosts)
	}
	return PolicyText(append(b, '}'))
}

// Policy is the policy that t is the text of.
func (t PolicyText) Policy() (p Policy, err error) {
	if err := json.Unmarshal([]byte(t), &p); err != nil {
		return Policy{}, fmt.Errorf("schema: malformed policy text: %w", err)
	}
	return p, nil
}
