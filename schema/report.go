package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Report is an aggregate report, RFC 8460, section 4.4, in the RFC's order of
// members.
type Report struct {
	OrganizationName string         `json:"organization-name"`
	DateRange        DateRange      `json:"date-range"`
	ContactInfo      string         `json:"contact-info"` // an addr-spec; its domain is the submitter
	ReportID         string         `json:"report-id"`
	Policies         []PolicyResult `json:"policies"`
}

// DateRange is the period of a report. Both ends belong to it.
type DateRange struct {
	Start Timestamp `json:"start-datetime"`
	End   Timestamp `json:"end-datetime"`
}

// Range is the period of a report about d.
func (d Day) Range() DateRange {
	return DateRange{Timestamp{d.Start()}, Timestamp{d.End()}}
}

// Timestamp is a time in the form of RFC 7493, section 4.3: UTC, "T" and "Z" in
// upper case, whole seconds.
type Timestamp struct{ time.Time }

// timestampForm has a literal Z: the time is in UTC before it is formatted.
const timestampForm = "2006-01-02T15:04:05Z"

// String is the form "2026-11-22T23:59:59Z".
func (t Timestamp) String() string { return t.UTC().Format(timestampForm) }

// MarshalJSON writes the form of [Timestamp.String].
func (t Timestamp) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// PolicyResult is what a report says about one policy.
type PolicyResult struct {
	Policy  Policy  `json:"policy"`
	Summary Summary `json:"summary"`

	// FailureDetails may be empty, and is then sent as an empty array.
	FailureDetails []FailureDetails `json:"failure-details"`
}

// Summary counts the sessions of one policy.
type Summary struct {
	Success int64 `json:"total-successful-session-count"`
	Failure int64 `json:"total-failure-session-count"`
}

// MaxReport is the size of a report in bytes of JSON that Encode never exceeds:
// 10 MB is what receivers commonly take (RFC 8460, section 5.2).
const MaxReport = 10_000_000

// Encode is r as JSON (RFC 7493), ready to be sent. It refuses what a receiver
// would refuse: the error is [Faults], or names the size of a report that
// exceeds [MaxReport].
func (r *Report) Encode() ([]byte, error) {
	if faults := r.Validate(); len(faults) > 0 {
		return nil, faults
	}
	out := *r
	out.Policies = make([]PolicyResult, len(r.Policies))
	for i, p := range r.Policies {
		if p.FailureDetails == nil {
			p.FailureDetails = []FailureDetails{} // an array always, never null
		}
		out.Policies[i] = p
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ") // people read reports; gzip takes the spaces away
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("schema: encoding a report: %w", err)
	}
	if b.Len() > MaxReport {
		return nil, fmt.Errorf("schema: report of %d bytes exceeds %d", b.Len(), MaxReport)
	}
	return b.Bytes(), nil
}

// Submitter is the domain of the contact address in A-labels and lower case, or
// "" where there is none. RFC 8460, section 5.3: it is what TLS-Report-Submitter
// must say.
func (r *Report) Submitter() string { return AddressDomain(r.ContactInfo) }

// Totals adds up the sessions of all policies. A session that was held against
// two policies is in it twice.
func (r *Report) Totals() (total Summary) {
	for _, p := range r.Policies {
		total.Success += p.Summary.Success
		total.Failure += p.Summary.Failure
	}
	return total
}
