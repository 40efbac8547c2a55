package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault says what is wrong with one member of a report, or with the message
// that carries it.
type Fault struct {
	// Field is the path of the member, "policies[0].summary" for instance, or
	// what of a message it is, "Subject" for instance; "" for the report as a
	// whole.
	Field string `json:"field"`

	// Problem says what is wrong, in words.
	Problem string `json:"problem"`

	// Source says who demands it: "RFC 8460, section 4.4" for instance, or a
	// receiver that rejects the report.
	Source string `json:"source"`

	// Rule is the number of the rule in docs/conformance.md; 0 where no rule of
	// RFC 8460 says it.
	Rule int `json:"rule,omitempty"`
}

// String is "field: problem (source; rule 44)".
func (f Fault) String() string {
	rule := ""
	if f.Rule != 0 {
		rule = fmt.Sprintf("; rule %d", f.Rule)
	}
	return fmt.Sprintf("%s: %s (%s%s)", cmp.Or(f.Field, "report"), f.Problem, f.Source, rule)
}

// Faults is what is wrong with a report, at most 200 of them. As an error it
// names each.
type Faults []Fault

func (f Faults) Error() string {
	s := make([]string, len(f))
	for i := range f {
		s[i] = f[i].String()
	}
	return "schema: invalid report: " + strings.Join(s, "; ")
}

// maxFaults is how many faults of one report anybody wants to read.
const maxFaults = 200

// demand is a rule, and who demands it.
type demand struct {
	source string
	rule   int
}

const section44 = "RFC 8460, section 4.4"

// Who demands what. The numbers are those of docs/conformance.md, and never change.
var (
	isReport     = demand{"RFC 8460, section 4", 34}
	isThere      = demand{section44, 35}
	isArray      = demand{section44, 36}
	isRange      = demand{"RFC 8460, section 4.1", 47}
	isDomain44   = demand{section44, 44}
	isPattern    = demand{section44, 45}
	fitsSubject  = demand{"RFC 8460, section 5.3", 62}
	isRegistered = demand{"RFC 8460, section 4.3", 76}
	isType       = demand{section44, 82}
	isAddrSpec   = demand{section44, 83}
	isPolicyType = demand{section44, 84}
	isPolicyText = demand{section44, 85}
	isIP         = demand{section44, 86}
	isRFC5952    = demand{section44 + "; RFC 5952, section 4", 86}
	isLink       = demand{section44, 87}
	isTime       = demand{section44, 88}
	isTimeForm   = demand{"RFC 7493, section 4.3", 88}
	isMXArray    = demand{section44 + "; erratum 6241", 89}

	rfc7493UTF8   = demand{"RFC 7493, section 2.1", 34}
	rfc7493Number = demand{"RFC 7493, section 2.2", 34}
	rfc7493Names  = demand{"RFC 7493, section 2.3", 34}
	rfc8259       = demand{"RFC 8259, section 2", 34}
	rfc8259BOM    = demand{"RFC 8259, section 8.1", 34}

	mailAuth = demand{"rejected by Stalwart mail-auth", 82}
	ownBound = demand{"a bound of tlsrpt-agent", 0}
)

// add notes one fault.
func (f *Faults) add(field string, by demand, format string, args ...any) {
	if len(*f) < maxFaults {
		*f = append(*f, Fault{Field: field, Problem: fmt.Sprintf(format, args...), Source: by.source, Rule: by.rule})
	}
}

// covers reports whether a fault of f is about field or about what it is in. No
// member that is checked has a name that begins with the name of another.
func (f Faults) covers(field string) bool {
	return slices.ContainsFunc(f, func(g Fault) bool {
		return g.Field != "" && strings.HasPrefix(field, g.Field)
	})
}
