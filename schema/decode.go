package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ErrReport means that data holds no report: it is not JSON, not an object with
// policies, too large, or has a number of sessions that is none. There is
// nothing to be had from it.
var ErrReport = errors.New("schema: malformed report")

// Decode reads a report of any sender, plain or gzip, at most 20 MB of JSON. It
// takes what senders are known to get wrong: see [ValidateJSON] for what that
// is. Unknown policy and result types are kept, an address or time that cannot
// be read is zero, members of other names are dropped. The error is
// [ErrReport].
func Decode(data []byte) (*Report, error) {
	r, _, err := decode(data)
	return r, err
}

// ValidateJSON is everything that is wrong with a report as bytes, plain or
// gzip, or nil: what Decode puts up with or refuses, and what
// [Report.Validate] finds, but for bounds that are ours alone.
func ValidateJSON(data []byte) Faults {
	r, faults, err := decode(data)
	if err != nil {
		return faults
	}
	shape := faults
	for _, f := range r.Validate() {
		if f.Source != ownBound.source && !shape.covers(f.Field) && len(faults) < maxFaults {
			faults = append(faults, f)
		}
	}
	return faults
}

// decoder reads a report from a tree of JSON values and notes what is wrong
// with it.
type decoder struct {
	faults Faults
	err    error // why there is no report, the first reason
}

// decode is the report in data, or the reason why there is none, and all that
// is wrong with its shape. With an error there is at least one fault.
func decode(data []byte) (*Report, Faults, error) {
	var d decoder
	r := d.report(d.root(data))
	if d.err != nil {
		return nil, d.faults, d.err
	}
	return r, d.faults, nil
}

// root is the object that data is.
func (d *decoder) root(data []byte) scope {
	s := scope{d: d, absent: true}
	data, err := unpack(data)
	if err != nil {
		d.refuse("", isReport, err.Error())
		return s
	}
	root, err := readTree(data, &d.faults)
	if err != nil {
		d.refuse("", isReport, err.Error())
		return s
	}
	members, ok := root.(object)
	if !ok {
		d.refuse("", isReport, "it is not a JSON object")
		return s
	}
	return scope{d: d, members: members}
}

// refuse notes why there is no report.
func (d *decoder) refuse(field string, by demand, why string) {
	d.faults.add(field, by, "%s", why)
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrReport, strings.TrimPrefix(field+": "+why, ": "))
	}
}

func (d *decoder) report(s scope) *Report {
	if _, ok := s.get("policies"); !ok && !s.absent {
		d.refuse("policies", isArray, "missing")
		return nil
	}
	r := &Report{
		OrganizationName: s.required("organization-name"),
		DateRange:        s.child("date-range").dateRange(),
		ContactInfo:      s.required("contact-info"),
		ReportID:         s.required("report-id"),
	}
	for _, p := range s.list("policies", s.must("policies")) {
		r.Policies = append(r.Policies, p.policyResult())
	}
	return r
}

// dateRange notes a range that is not one day. A day ends at its last second,
// or at the next midnight, see [Day.End].
func (s scope) dateRange() DateRange {
	r := DateRange{s.time("start-datetime"), s.time("end-datetime")}
	if r.Start.IsZero() || r.End.IsZero() {
		return r
	}
	day := DayOf(r.Start.Time)
	midnight := day.End().Add(time.Second)
	if !r.Start.Equal(day.Start()) || !r.End.Equal(day.End()) && !r.End.Equal(midnight) {
		s.d.faults.add(s.path, isRange, "%s to %s is not one UTC day", r.Start, r.End)
	}
	return r
}

func (s scope) policyResult() PolicyResult {
	r := PolicyResult{Policy: s.child("policy").policy()}
	summary := s.child("summary")
	r.Summary.Success = summary.count("total-successful-session-count")
	r.Summary.Failure = summary.count("total-failure-session-count")
	for _, f := range s.list("failure-details", s.may("failure-details")) {
		r.FailureDetails = append(r.FailureDetails, f.details())
	}
	return r
}

func (s scope) policy() Policy {
	return Policy{
		Type:    PolicyType(s.required("policy-type")),
		Strings: s.policyStrings(),
		Domain:  s.required("policy-domain"),
		MXHosts: s.texts("mx-host", isMXArray),
	}
}

func (s scope) details() FailureDetails {
	return FailureDetails{
		ResultType:            ResultType(s.required("result-type")),
		SendingMTAIP:          s.addr("sending-mta-ip"),
		ReceivingMXHostname:   s.optional("receiving-mx-hostname"),
		ReceivingMXHelo:       s.optional("receiving-mx-helo"),
		ReceivingIP:           s.addr("receiving-ip"),
		FailedSessionCount:    s.count("failed-session-count"),
		AdditionalInformation: s.optional("additional-information"),
		FailureReasonCode:     s.optional("failure-reason-code"),
	}
}

// scope is one object of a report. A scope that is not there has no members and
// notes nothing about them.
type scope struct {
	d       *decoder
	path    string // "policies[0].policy"; "" for the report
	members object
	absent  bool
}

// at is the path of a member.
func (s scope) at(name string) string {
	if s.path == "" {
		return name
	}
	return s.path + "." + name
}

func (s scope) fault(name string, by demand, format string, args ...any) {
	if !s.absent {
		s.d.faults.add(s.at(name), by, format, args...)
	}
}

// otherNames are names of members that the ABNF of RFC 8460, section 4.4, gives
// to rules. Some senders write them, and parsedmarc reads no others.
var otherNames = map[string]string{
	"mx-host":                "mx-host-pattern",
	"additional-information": "additional-info-uri",
}

// get is the last member of that name, which is the one that most JSON readers
// keep.
func (s scope) get(name string) (value any, ok bool) {
	other := otherNames[name]
	for _, m := range s.members {
		switch m.name {
		case name:
			value, ok = m.value, true
		case other:
			s.fault(other, isThere, "its name is %s", name)
			if !ok {
				value, ok = m.value, true
			}
		}
	}
	return value, ok
}

// must is a member that RFC 8460 demands, or nil.
func (s scope) must(name string) any {
	v, ok := s.get(name)
	if !ok {
		s.fault(name, isThere, "missing")
	} else if v == nil {
		s.fault(name, isThere, "null")
	}
	return v
}

// may is a member that a report may do without, or nil.
func (s scope) may(name string) any {
	v, ok := s.get(name)
	if ok && v == nil {
		s.fault(name, mailAuth, "null instead of nothing")
	}
	return v
}

func (s scope) required(name string) string { return s.text(name, s.must(name)) }
func (s scope) optional(name string) string { return s.text(name, s.may(name)) }

// text is v, the value of a member, as a string.
func (s scope) text(name string, v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		s.fault(name, isType, "a number, not a string")
		return v.String()
	}
	s.fault(name, isType, "not a string")
	return ""
}

// child is the object of that name.
func (s scope) child(name string) scope {
	v := s.must(name)
	members, ok := v.(object)
	if !ok && v != nil {
		s.fault(name, isType, "not an object")
	}
	return scope{d: s.d, path: s.at(name), members: members, absent: !ok}
}

// list is the objects of v, the value of a member. Where an object stands for an
// array of one, it is that.
func (s scope) list(name string, v any) (scopes []scope) {
	elements, ok := v.([]any)
	if !ok && v != nil {
		s.fault(name, isArray, "not an array")
		elements = []any{v}
	}
	for i, e := range elements {
		element := fmt.Sprintf("%s[%d]", name, i)
		if members, ok := e.(object); ok {
			scopes = append(scopes, scope{d: s.d, path: s.at(element), members: members})
		} else {
			s.fault(element, isType, "not an object")
		}
	}
	return scopes
}

// texts is an array of strings. Where a string stands for an array of one, it
// is that, and by says who forbids it.
func (s scope) texts(name string, by demand) (texts []string) {
	v := s.may(name)
	elements, ok := v.([]any)
	if !ok && v != nil {
		s.fault(name, by, "not an array")
		elements = []any{v}
	}
	for i, e := range elements {
		if text, ok := e.(string); ok {
			texts = append(texts, text)
		} else {
			s.fault(fmt.Sprintf("%s[%d]", name, i), isType, "not a string")
		}
	}
	return texts
}

// policyStrings is the policy text. Microsoft sends the TLSA records as one
// string, the JSON of an array of them.
func (s scope) policyStrings() (lines []string) {
	const name = "policy-string"
	for i, text := range s.texts(name, isPolicyText) {
		var inner []string
		if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &inner) == nil {
			s.fault(fmt.Sprintf("%s[%d]", name, i), isPolicyText, "the JSON text of an array, not one line")
			lines = append(lines, inner...)
		} else {
			lines = append(lines, text)
		}
	}
	return lines
}

// addr is an IP address. RFC 8460, section 4.4, wants IPv6 as in RFC 5952, yet
// the examples of its Appendix B have leading zeros.
func (s scope) addr(name string) netip.Addr {
	v := s.may(name)
	text := s.text(name, v)
	if text == "" {
		if v == "" {
			s.fault(name, mailAuth, "empty instead of nothing")
		}
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		s.fault(name, isIP, "%q is not an IP address", clean(text, maxField))
		return netip.Addr{}
	}
	if a = a.Unmap(); a.String() != text {
		s.fault(name, isRFC5952, "%s is written as %s", text, a)
	}
	return a
}

// count is a number of sessions. One that is negative, or too large for a
// number of I-JSON, makes every total wrong: there is no report then.
func (s scope) count(name string) int64 {
	switch v := s.must(name).(type) {
	case nil:
		return 0
	case json.Number:
		return s.number(name, v.String())
	case string:
		s.fault(name, isType, "a string, not a number")
		return s.number(name, v)
	}
	s.d.refuse(s.at(name), isType, "not a number")
	return 0
}

func (s scope) number(name, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || f != math.Trunc(f) || math.Abs(f) > maxCount {
			s.d.refuse(s.at(name), isType, "not an integer")
			return 0
		}
		s.fault(name, isType, "%s is not written as an integer", clean(text, 40))
		n = int64(f)
	}
	if n < 0 || n > maxCount {
		s.d.refuse(s.at(name), rfc7493Number, "negative or too large")
		return 0
	}
	return n
}

// timeForms are the forms of times that senders are known to write, after those
// of RFC 3339 itself.
var timeForms = []struct{ layout, problem string }{
	{"2006-01-02T15:04:05", "no time zone; taken as UTC"},
	{"2006-01-02 15:04:05Z07:00", "a space, not a T"},
	{"2006-01-02 15:04:05", "a space, not a T, and no time zone; taken as UTC"},
	{"2006-01-02T15:04Z07:00", "no seconds"},
	{time.DateOnly, "no time of day"},
}

// time is a date-time in UTC and whole seconds. Microsoft left out the zone
// once.
func (s scope) time(name string) Timestamp {
	text := s.required(name)
	var t time.Time
	if t.UnmarshalText([]byte(text)) == nil {
		return Timestamp{t.UTC().Truncate(time.Second)}
	}
	upper := upperASCII(strings.TrimSpace(text))
	if t.UnmarshalText([]byte(upper)) == nil {
		s.fault(name, isTimeForm, "%q is not in upper case", clean(text, 40))
		return Timestamp{t.UTC().Truncate(time.Second)}
	}
	for _, form := range timeForms {
		if t, err := time.Parse(form.layout, upper); err == nil {
			s.fault(name, isTimeForm, "%q has %s", clean(text, 40), form.problem)
			return Timestamp{t.UTC().Truncate(time.Second)}
		}
	}
	if text != "" {
		s.fault(name, isTime, "%q is not a time", clean(text, 40))
	}
	return Timestamp{}
}
