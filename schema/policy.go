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
	maxPolicyText = 64 << 10 // bytes of all Strings of a policy
	maxMXHosts    = 100
	maxField      = 255 // bytes of any other field
)

// canonical is p as it is counted: equal policies become identical ones.
// domain is the recipient domain; it stands for an absent policy domain.
func (p Policy) canonical(domain string) Policy {
	c := Policy{Type: p.Type, Domain: cleanHost(p.Domain)}
	if c.Domain == "" {
		// Postfix 3.10.0 to 3.10.4 leaves it out. Receivers reject that.
		c.Domain = domain
	}
	if p.Type == NoPolicyFound {
		return c // nothing is defined for it, RFC 8460, section 4.4
	}
	size := 0
	for _, s := range p.Strings {
		if p.Type == TLSA {
			s = canonicalTLSA(s)
		} else {
			s = canonicalSTS(s)
		}
		if size += len(s); size > maxPolicyText {
			break
		}
		c.Strings = append(c.Strings, s)
	}
	if p.Type == TLSA {
		// DNS rotates the records of an answer; the set is the policy.
		slices.Sort(c.Strings)
		c.Strings = slices.Compact(c.Strings)
	}
	for _, h := range p.MXHosts[:min(len(p.MXHosts), maxMXHosts)] {
		c.MXHosts = append(c.MXHosts, cleanHost(h))
	}
	return c
}

// canonicalTLSA is one TLSA record with single spaces and its hexadecimal part
// joined and in upper case, the form of RFC 8460, Appendix B.
func canonicalTLSA(s string) string {
	f := strings.Fields(clean(s, maxPolicyText))
	if len(f) < 4 {
		return strings.ToUpper(strings.Join(f, " "))
	}
	return strings.Join(f[:3], " ") + " " + strings.ToUpper(strings.Join(f[3:], ""))
}

// canonicalSTS is one line of an MTA-STS policy with single spaces. The name of
// a host has no case, so an mx line is lowered; all else stays as the domain
// wrote it, "including any errors that may be present" (RFC 8460, section 4.4).
func canonicalSTS(s string) string {
	s = strings.Join(strings.Fields(clean(s, maxPolicyText)), " ")
	if key, value, ok := strings.Cut(s, ":"); ok && strings.EqualFold(key, "mx") {
		return key + ":" + strings.ToLower(value)
	}
	return s
}

// PolicyText is the canonical form of a policy in one string, its JSON. Two
// policies are equal if and only if their texts are.
type PolicyText string

// Text is the PolicyText of p, which must be in canonical form.
func (p Policy) Text() PolicyText { return PolicyText(marshal(p)) }

// Policy is the policy that t is the text of.
func (t PolicyText) Policy() (p Policy, err error) {
	if err := json.Unmarshal([]byte(t), &p); err != nil {
		return Policy{}, fmt.Errorf("schema: malformed policy text: %w", err)
	}
	return p, nil
}
