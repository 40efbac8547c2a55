package schema

import (
	"fmt"
	"slices"
	"strings"
)

// Fault says what is wrong with one member of a report.
type Fault struct {
	// Field is the path of the member, "policies[0].summary" for instance; ""
	// for the report as a whole.
	Field string `json:"field"`

	// Problem says what is wrong, in words.
	Problem string `json:"problem"`

	// Source says who demands it: "RFC 8460, section 4.4" for instance, or a
	// receiver that rejects the report.
	Source string `json:"source"`
}

// String is "field: problem (source)".
func (f Fault) String() string {
	if f.Field == "" {
		return fmt.Sprintf("report: %s (%s)", f.Problem, f.Source)
	}
	return fmt.Sprintf("%s: %s (%s)", f.Field, f.Problem, f.Source)
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

// Who demands what.
const (
	rfc8460Report  = "RFC 8460, section 4"
	rfc8460Policy  = "RFC 8460, section 4.4"
	rfc8460Range   = "RFC 8460, section 4.1"
	rfc8460Subject = "RFC 8460, section 5.3"
	rfc7493UTF8    = "RFC 7493, section 2.1"
	rfc7493Number  = "RFC 7493, section 2.2"
	rfc7493Names   = "RFC 7493, section 2.3"
	rfc7493Time    = "RFC 7493, section 4.3"
	rfc8259        = "RFC 8259, section 2"
	rfc8259BOM     = "RFC 8259, section 8.1"
	erratum6241    = "RFC 8460, section 4.4; erratum 6241"
	mailAuth       = "rejected by Stalwart mail-auth"
	ownBound       = "a bound of tlsrpt-agent"
)

// add notes one fault.
func (f *Faults) add(field, source, format string, args ...any) {
	if len(*f) < maxFaults {
		*f = append(*f, Fault{Field: field, Problem: fmt.Sprintf(format, args...), Source: source})
	}
}

// covers reports whether a fault of f is about field or about what it is in. No
// member that is checked has a name that begins with the name of another.
func (f Faults) covers(field string) bool {
	return slices.ContainsFunc(f, func(g Fault) bool {
		return g.Field != "" && strings.HasPrefix(field, g.Field)
	})
}
