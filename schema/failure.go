package schema

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// ResultType says how a session failed. The set is open: Decode keeps what
// others send, but only the eleven of RFC 8460, section 4.3, are ever sent.
type ResultType string

// Negotiation failures, RFC 8460, section 4.3.1.
const (
	StartTLSNotSupported    ResultType = "starttls-not-supported"
	CertificateHostMismatch ResultType = "certificate-host-mismatch"
	CertificateExpired      ResultType = "certificate-expired"
	CertificateNotTrusted   ResultType = "certificate-not-trusted"
	ValidationFailure       ResultType = "validation-failure" // any other
)

// Failures of a policy, RFC 8460, section 4.3.2: DANE first, then MTA-STS.
const (
	TLSAInvalid         ResultType = "tlsa-invalid"
	DNSSECInvalid       ResultType = "dnssec-invalid"
	DANERequired        ResultType = "dane-required"
	STSPolicyFetchError ResultType = "sts-policy-fetch-error"
	STSPolicyInvalid    ResultType = "sts-policy-invalid"
	STSWebPKIInvalid    ResultType = "sts-webpki-invalid"
)

// resultWords says each result type in words, for the people who read a report.
var resultWords = map[ResultType]string{
	StartTLSNotSupported:    "STARTTLS was not offered or refused",
	CertificateHostMismatch: "the certificate does not name the host",
	CertificateExpired:      "the certificate has expired",
	CertificateNotTrusted:   "the certificate is not trusted",
	ValidationFailure:       "the TLS negotiation or validation failed",
	TLSAInvalid:             "no usable TLSA record",
	DNSSECInvalid:           "DNSSEC validation failed",
	DANERequired:            "DANE is required but no TLSA record was validated",
	STSPolicyFetchError:     "the MTA-STS policy could not be fetched",
	STSPolicyInvalid:        "the MTA-STS policy is invalid",
	STSWebPKIInvalid:        "the MTA-STS policy host could not be authenticated",
}

// Known reports whether t is registered (RFC 8460, section 6.6).
func (t ResultType) Known() bool { return resultWords[t] != "" }

// Words says t in plain words; an unknown type speaks for itself.
func (t ResultType) Words() string {
	if w, ok := resultWords[t]; ok {
		return w
	}
	return string(t)
}

// FailureDetails is one way in which sessions failed. RFC 8460, section 4.4.
// A zero address and an empty string mean unknown and are not sent: receivers
// reject "" where an address is due.
type FailureDetails struct {
	ResultType            ResultType `json:"result-type"`
	SendingMTAIP          netip.Addr `json:"sending-mta-ip,omitzero"`
	ReceivingMXHostname   string     `json:"receiving-mx-hostname,omitempty"`
	ReceivingMXHelo       string     `json:"receiving-mx-helo,omitempty"` // the host name of the EHLO reply, not its text
	ReceivingIP           netip.Addr `json:"receiving-ip,omitzero"`
	FailedSessionCount    int64      `json:"failed-session-count"`             // sessions; 0 within a Session
	AdditionalInformation string     `json:"additional-information,omitempty"` // a URI
	FailureReasonCode     string     `json:"failure-reason-code,omitempty"`
}

// canonical is f as it is counted, without its number of sessions.
func (f FailureDetails) canonical() FailureDetails {
	c := FailureDetails{
		ResultType:            f.ResultType,
		SendingMTAIP:          cleanAddr(f.SendingMTAIP),
		ReceivingMXHostname:   cleanHost(f.ReceivingMXHostname),
		ReceivingMXHelo:       heloName(f.ReceivingMXHelo),
		ReceivingIP:           cleanAddr(f.ReceivingIP),
		AdditionalInformation: f.AdditionalInformation,
		FailureReasonCode:     clean(f.FailureReasonCode, maxField),
	}
	if s := f.AdditionalInformation; len(s) > maxField || !isURI(s) {
		// RFC 8460, section 4.4, wants a URI. Text that an MTA put here is most
		// likely a reason.
		c.AdditionalInformation = ""
		c.FailureReasonCode = cmp.Or(c.FailureReasonCode, clean(s, maxField))
	}
	if !c.ResultType.Known() {
		// RFC 8460, section 4.3.3: what has no type of its own is a
		// validation-failure. Receivers reject a report with an unknown type.
		c.FailureReasonCode = cmp.Or(c.FailureReasonCode, clean(string(f.ResultType), maxField))
		c.ResultType = ValidationFailure
	}
	return c
}

// cleanAddr is a without zone and not mapped into IPv6, so that its text is the
// form of RFC 5952. The unspecified address says that nobody knows.
func cleanAddr(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// heloName is the host name within an EHLO reply. Postfix reports the whole
// reply, "250-mx.example.com\r\n250-PIPELINING...", whose text may differ in
// every session; RFC 8460, section 4.4, wants the name.
//
// "250-" is the code of a reply only if more lines follow: a host may have a
// name that begins so.
func heloName(s string) string {
	line, _, more := strings.Cut(strings.TrimLeft(s, " \t\r\n"), "\n")
	if len(line) > 3 && isDigits(line[:3]) && (line[3] == ' ' || line[3] == '-' && more) {
		line = line[4:]
	}
	line = clean(line, maxUnicodeName)
	if i := strings.IndexFunc(line, unicode.IsSpace); i >= 0 {
		line = line[:i]
	}
	return cleanHost(line)
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// DetailsText is the canonical form of failure details in one string, their
// JSON without the number of sessions. Two are equal if and only if their texts
// are.
type DetailsText string

// Text is the DetailsText of f, which must be in canonical form. It is written
// by hand because every failed session needs one.
func (f FailureDetails) Text() DetailsText {
	b := make([]byte, 0, 256)
	b = append(b, `{"result-type":`...)
	b = appendString(b, string(f.ResultType))
	b = appendMember(b, "sending-mta-ip", addrText(f.SendingMTAIP))
	b = appendMember(b, "receiving-mx-hostname", f.ReceivingMXHostname)
	b = appendMember(b, "receiving-mx-helo", f.ReceivingMXHelo)
	b = appendMember(b, "receiving-ip", addrText(f.ReceivingIP))
	b = appendMember(b, "additional-information", f.AdditionalInformation)
	b = appendMember(b, "failure-reason-code", f.FailureReasonCode)
	return DetailsText(append(b, '}'))
}

// addrText is a as text, "" for the zero address.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// FailureDetails is what t is the text of, with a session count of 0.
func (t DetailsText) FailureDetails() (f FailureDetails, err error) {
	if err := json.Unmarshal([]byte(t), &f); err != nil {
		return FailureDetails{}, fmt.Errorf("schema: malformed details text: %w", err)
	}
	return f, nil
}

// ResultType is that of the details that t is the text of: it comes first.
func (t DetailsText) ResultType() ResultType {
	rest, _ := strings.CutPrefix(string(t), `{"result-type":"`)
	result, _, _ := strings.Cut(rest, `"`)
	return ResultType(result)
}
