package schema

import (
	"fmt"
	"strings"
)

// Fault says what is wrong with one member of a report.
type Fault struct {
	// Field is the path of the member, "policies[0].summary" for instance.
	Field string `json:"field"`

	// Problem says what is wrong, in words.
	Problem string `json:"problem"`

	// Source says who demands it, "RFC 8460, section 4.4" for instance.
	Source string `json:"source"`
}

// String is "field: problem (source)".
func (f Fault) String() string { return fmt.Sprintf("%s: %s (%s)", f.Field, f.Problem, f.Source) }

// Faults is all that is wrong with a report. As an error it names each.
type Faults []Fault

func (f Faults) Error() string {
	s := make([]string, len(f))
	for i := range f {
		s[i] = f[i].String()
	}
	return "schema: invalid report: " + strings.Join(s, "; ")
}

// Validate is everything that is wrong with r, or nil.
func (r *Report) Validate() Faults {
	return nil
}
