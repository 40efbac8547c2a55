package schema

import (
	"fmt"
	"net/netip"
	"strings"
)

const (
	maxCount    = 1<<53 - 1 // what every JSON reader can hold, RFC 7493, section 2.2
	maxReportID = 640       // bytes: two domains, a day and a unique part
	maxYear     = 9999      // RFC 3339, section 5.6, has four digits
)

// Validate is what Encode refuses r for, or nil. The sum of
// FailedSessionCount may exceed the failures of a policy: one session may have
// several faults (RFC 8460, section 4).
func (r *Report) Validate() Faults {
	var f Faults
	f.name("organization-name", r.OrganizationName, maxField)
	if _, err := ParseAddress(r.ContactInfo); err != nil || !isASCII(r.ContactInfo) {
		f.add("contact-info", isAddrSpec, "%q is not an addr-spec", clean(r.ContactInfo, maxField))
	}
	f.reportID(r.ReportID)
	f.dateRange(r.DateRange)
	if len(r.Policies) == 0 {
		f.add("policies", isArray, "no policy")
	}
	for i := range r.Policies {
		if len(f) == maxFaults {
			break
		}
		f.policyResult(fmt.Sprintf("policies[%d]", i), &r.Policies[i])
	}
	return f
}

// reportID notes what keeps id out of a Subject. RFC 8460, section 5.3, makes it
// a msg-id there, section 4.4 takes any string, and Google's has a colon, which
// no msg-id has. [ReportID] gives none, and that is no reason to refuse one.
func (f *Faults) reportID(id string) {
	f.name("report-id", id, maxReportID)
	if !isPrintableASCII(id) || strings.ContainsAny(id, " <>") {
		f.add("report-id", fitsSubject, "%q does not fit into a Subject", clean(id, maxField))
	}
}

func (f *Faults) dateRange(r DateRange) {
	f.timestamp("date-range.start-datetime", r.Start)
	f.timestamp("date-range.end-datetime", r.End)
	if !r.End.IsZero() && r.End.Before(r.Start.Time) {
		f.add("date-range", isTime, "it ends before it begins")
	}
}

func (f *Faults) timestamp(field string, t Timestamp) {
	if year := t.UTC().Year(); t.IsZero() || year < 0 || year > maxYear {
		f.add(field, isTime, "no time that RFC 3339 can write")
	}
}

func (f *Faults) policyResult(field string, r *PolicyResult) {
	f.policy(field+".policy", &r.Policy)
	f.count(field+".summary.total-successful-session-count", r.Summary.Success, 0)
	f.count(field+".summary.total-failure-session-count", r.Summary.Failure, 0)
	for i := range r.FailureDetails {
		f.details(fmt.Sprintf("%s.failure-details[%d]", field, i), &r.FailureDetails[i])
	}
}

func (f *Faults) policy(field string, p *Policy) {
	if !p.Type.Known() {
		f.add(field+".policy-type", isPolicyType, "%q is neither tlsa, sts nor no-policy-found", clean(string(p.Type), maxField))
	}
	if _, ok := aLabels(p.Domain); !ok {
		f.add(field+".policy-domain", isDomain44, "%q is not a domain in A-labels", clean(p.Domain, maxField))
	}
	size := 0
	for i, s := range p.Strings {
		f.name(fmt.Sprintf("%s.policy-string[%d]", field, i), s, maxPolicyLine)
		size += jsonSize(s)
	}
	if size > maxPolicyText {
		f.add(field+".policy-string", ownBound, "%d bytes, more than %d", size, maxPolicyText)
	}
	for i, s := range p.MXHosts {
		if h, ok := parsePattern(s); !ok || h != lowerASCII(s) {
			f.add(fmt.Sprintf("%s.mx-host[%d]", field, i), isPattern, "%q is not a host name in A-labels", clean(s, maxField))
		}
	}
	if n := len(p.MXHosts); n > maxMXHosts {
		f.add(field+".mx-host", ownBound, "%d patterns, more than %d", n, maxMXHosts)
	}
}

func (f *Faults) details(field string, d *FailureDetails) {
	if !d.ResultType.Known() {
		f.add(field+".result-type", isRegistered, "%q is not registered", clean(string(d.ResultType), maxField))
	}
	f.addr(field+".sending-mta-ip", d.SendingMTAIP)
	f.addr(field+".receiving-ip", d.ReceivingIP)
	f.text(field+".receiving-mx-hostname", d.ReceivingMXHostname, maxField)
	f.text(field+".receiving-mx-helo", d.ReceivingMXHelo, maxField)
	f.count(field+".failed-session-count", d.FailedSessionCount, 1)
	f.text(field+".additional-information", d.AdditionalInformation, maxField)
	if s := d.AdditionalInformation; s != "" && !isURI(s) {
		f.add(field+".additional-information", isLink, "%q is not a URI", clean(s, maxField))
	}
	f.text(field+".failure-reason-code", d.FailureReasonCode, maxField)
}

// name is text that must not be empty.
func (f *Faults) name(field, s string, size int) {
	if s == "" {
		f.add(field, isThere, "empty")
	}
	f.text(field, s, size)
}

func (f *Faults) text(field, s string, size int) {
	if !isText(s) {
		f.add(field, rfc7493UTF8, "a control character, a noncharacter, or not UTF-8")
	}
	if len(s) > size {
		f.add(field, ownBound, "%d bytes, more than %d", len(s), size)
	}
}

func (f *Faults) count(field string, n, least int64) {
	if n < least {
		f.add(field, isType, "%d sessions, less than %d", n, least)
	}
	if n > maxCount {
		f.add(field, rfc7493Number, "%d sessions, more than %d", n, maxCount)
	}
}

// addr notes an address whose text is not that of RFC 5952. The zero address is
// not sent.
func (f *Faults) addr(field string, a netip.Addr) {
	if a.Zone() != "" || a.Is4In6() {
		f.add(field, isIP, "%s has a zone, or is an IPv4 address as IPv6", a)
	}
}
