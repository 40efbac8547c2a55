package schema

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Session is one TLS negotiation, or the refusal of one, with one MX for one
// recipient domain.
type Session struct {
	// Time is when the negotiation ended. The zero time means now.
	Time time.Time

	// Domain is the recipient domain, in any form that [ParseDomain] accepts.
	Domain string

	// Record is the text of the domain's TLSRPT record as the MTA saw it, or ""
	// where it did not look. It is a fall-back only: the record that counts is
	// looked up when a report is due.
	Record string

	// Results has one element per policy that the session was held against,
	// normally one. A domain with both DANE and MTA-STS may have two.
	Results []Result
}

// Result is how a session fared against one policy.
type Result struct {
	Policy Policy

	// Failed says whether the session counts as a failure of Policy. It does
	// not follow from Details: a session may succeed after a fault, and may
	// fail for a reason that nobody knows.
	Failed bool

	// Details says what was wrong, once per fault. FailedSessionCount is ignored.
	Details []FailureDetails
}

// Bounds on one session. An MTA has one or two policies and a fault or two.
const (
	maxResults = 16
	maxDetails = 64
	maxRecord  = 8 << 10 // bytes of a TLSRPT record's text
)

// ErrSession means that a session cannot be counted: it has no usable domain,
// no policy, or an unknown policy type. Nothing of it may be counted.
var ErrSession = errors.New("schema: malformed session")

// Canonical is the form of s in which equal things are equal: names in A-labels
// and lower case, addresses in RFC 5952 form, TLSA records sorted, an absent
// policy domain filled in, EHLO text cut to the host name, invalid UTF-8
// replaced, lengths bounded, each fault of a result once. The canonical form of
// a canonical form is the same. It shares no slice with s. The error is
// [ErrSession].
func (s Session) Canonical() (Session, error) {
	domain, err := ParseDomain(s.Domain)
	if err != nil {
		return Session{}, fmt.Errorf("%w: %w", ErrSession, err)
	}
	if len(s.Results) == 0 || len(s.Results) > maxResults {
		return Session{}, fmt.Errorf("%w: %d policies, want 1 to %d", ErrSession, len(s.Results), maxResults)
	}
	c := Session{
		Time:    s.Time,
		Domain:  domain,
		Record:  canonicalRecord(s.Record),
		Results: make([]Result, len(s.Results)),
	}
	for i, r := range s.Results {
		if c.Results[i], err = r.canonical(domain); err != nil {
			return Session{}, err
		}
	}
	return c, nil
}

// canonical is r as it is counted. domain is the recipient domain. The error is
// [ErrSession].
func (r Result) canonical(domain string) (Result, error) {
	if !r.Policy.Type.Known() {
		return Result{}, fmt.Errorf("%w: unknown policy type %q", ErrSession, clean(string(r.Policy.Type), 40))
	}
	if len(r.Details) > maxDetails {
		return Result{}, fmt.Errorf("%w: %d failure details, want at most %d", ErrSession, len(r.Details), maxDetails)
	}
	c := Result{Policy: r.Policy.canonical(domain), Failed: r.Failed}
	for _, f := range r.Details {
		// A count of failed sessions counts this one once.
		if f = f.canonical(); !slices.Contains(c.Details, f) {
			c.Details = append(c.Details, f)
		}
	}
	return c, nil
}

// canonicalRecord is the text of a TLSRPT record. A part of one might lead
// somewhere else, so what is too long is as if nobody had looked.
func canonicalRecord(txt string) string {
	if len(txt) > maxRecord {
		return ""
	}
	return clean(txt, maxRecord)
}

// Count says how often one policy of one domain was seen on one day. It is what
// a source hands to the store.
type Count struct {
	Day     Day
	Domain  string // A-labels, lower case, no final dot
	Record  string // as in Session
	Policy  PolicyText
	Success int64 // sessions
	Failure int64 // sessions
	Details []DetailsCount
}

// DetailsCount says how many sessions of a Count had these details. The sum
// over a Count may exceed its Failure: one session may have several faults
// (RFC 8460, section 4).
type DetailsCount struct {
	Details  DetailsText
	Sessions int64
}
