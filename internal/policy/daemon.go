package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// daemonAnswer is what a policy daemon had Postfix do: the right side of an
// entry of smtp_tls_policy_maps.
type daemonAnswer struct {
	level   string            // of TLS: "secure", "dane-only"
	policy  *schema.Policy    // canonical; nil without policy_type
	mode    Mode              // of an MTA-STS policy
	failure schema.ResultType // policy_failure, "" for none
	ttl     time.Duration     // policy_ttl, 0 where it is not said
}

// daneLevels is the levels at which Postfix looks for TLSA records.
var daneLevels = []string{"dane", "dane-only", "half-dane"}

// policyFailures is what policy_failure may say.
var policyFailures = []schema.ResultType{
	schema.STSPolicyFetchError, schema.STSPolicyInvalid, schema.STSWebPKIInvalid, schema.ValidationFailure,
}

// parseDaemonAnswer reads the answer about domain: a level, then attributes
// "name=value" or "{ name = value }", with white space or commas between them.
// Those that make a report are read, with the rules of Postfix: mx_host_pattern
// and policy_string may be repeated, and none is there without policy_type.
func parseDaemonAnswer(domain, text string) (daemonAnswer, error) {
	fault := func(why string) (daemonAnswer, error) {
		return daemonAnswer{}, fmt.Errorf("%w: malformed answer: %s", errSocketmap, why)
	}
	words, ok := splitAttributes(text)
	if !ok || len(words) == 0 || words[0] == "" || strings.Contains(words[0], "=") {
		return fault(fmt.Sprintf("%q", clip(text)))
	}
	a := attributes{domain: domain}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		if why := a.set(strings.TrimSpace(name), strings.TrimSpace(value)); why != "" {
			return fault(why)
		}
	}
	answer, why := a.answer()
	if why != "" {
		return fault(why)
	}
	answer.level = words[0]
	return answer, nil
}

// attributes is an answer in the making.
type attributes struct {
	domain  string
	seen    []string // those that may be there once
	kind    schema.PolicyType
	of      string // policy_domain
	strings []string
	hosts   []string
	failure schema.ResultType
	ttl     time.Duration
	loose   bool // whether any needs policy_type
}

// set takes one attribute. It returns what is wrong with it, or "".
func (a *attributes) set(name, value string) string {
	switch name {
	case "policy_string":
		a.strings = append(a.strings, value)
		a.loose = true
		return ""
	case "mx_host_pattern":
		a.hosts = append(a.hosts, value)
		a.loose = true
		return ""
	case "policy_type", "policy_domain", "policy_failure", "policy_ttl":
	default:
		return "" // of TLS, not of a report
	}
	if slices.Contains(a.seen, name) {
		return name + " is there twice"
	}
	a.seen = append(a.seen, name)
	return a.setOnce(name, value)
}

func (a *attributes) setOnce(name, value string) string {
	a.loose = a.loose || name != "policy_type"
	switch name {
	case "policy_type":
		a.kind = schema.PolicyType(value)
		if a.kind != schema.STS && a.kind != schema.NoPolicyFound {
			return fmt.Sprintf("policy_type is %q", clip(value))
		}
	case "policy_domain":
		d, err := schema.ParseDomain(value)
		if err != nil {
			return "policy_domain: " + err.Error()
		}
		a.of = d
	case "policy_failure":
		a.failure = schema.ResultType(value)
		if !slices.Contains(policyFailures, a.failure) {
			return fmt.Sprintf("policy_failure is %q", clip(value))
		}
	case "policy_ttl":
		seconds, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Sprintf("policy_ttl is %q", clip(value))
		}
		a.ttl = time.Duration(seconds) * time.Second
	}
	return ""
}

// answer is what a makes, or what is wrong with it.
func (a *attributes) answer() (daemonAnswer, string) {
	d := daemonAnswer{failure: a.failure, ttl: a.ttl}
	if a.kind == "" {
		if a.loose {
			return d, "attributes of a policy without policy_type"
		}
		return d, ""
	}
	of := a.of
	if of == "" {
		of = a.domain
	}
	p, err := canonical(a.domain, schema.Policy{Type: a.kind, Strings: a.strings, Domain: of, MXHosts: a.hosts})
	if err != nil {
		return d, err.Error()
	}
	d.policy = &p
	if a.kind == schema.STS {
		d.mode = modeOf(p.Strings)
	}
	return d, ""
}

// modeOf is the mode in the lines of an MTA-STS policy. A daemon that has
// Postfix verify hosts does so because the policy is enforced.
func modeOf(lines []string) Mode {
	for _, line := range lines {
		if name, value, _ := strings.Cut(line, ":"); name == "mode" && Mode(strings.TrimSpace(value)) == Testing {
			return Testing
		}
	}
	return Enforce
}

// splitAttributes splits s at white space and commas. What is in braces is one
// element, without them.
func splitAttributes(s string) (words []string, ok bool) {
	const separators = ", \t\r\n"
	for s = strings.TrimLeft(s, separators); s != ""; s = strings.TrimLeft(s, separators) {
		if s[0] == '{' {
			end := closing(s)
			if end < 0 {
				return nil, false
			}
			words = append(words, strings.TrimSpace(s[1:end]))
			s = s[end+1:]
			continue
		}
		end := strings.IndexAny(s, separators)
		if end < 0 {
			end = len(s)
		}
		words = append(words, s[:end])
		s = s[end:]
	}
	return words, true
}

// closing is where the brace that s begins with is closed, or -1.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
