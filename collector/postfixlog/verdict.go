package postfixlog

import (
	"errors"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Drops of sessions that a Parser handed on and a Source does not count.
const (
	// DropNotMX means that the host is no MX of the domain: mail for it takes
	// another way.
	DropNotMX Drop = "not-mx"
	// DropPolicyUnknown means that a failure, or a match, cannot be laid to any
	// policy, because DNS or the policy host did not answer.
	DropPolicyUnknown Drop = "policy-unknown"
	// DropAmbiguous means that the line has two readings: a DNS failure may be the
	// domain's or our resolver's. It is the domain's where we see that its TLSA
	// records fail validation.
	DropAmbiguous Drop = "ambiguous"
	// DropNative means that the socket of libtlsrpt got the event.
	DropNative Drop = "native"
)

// verdict is what a session says to the report of its domain. answer is what is
// known of the domain's policies, and err what policy.Finder said to it. drop is
// "" if the session counts.
//
// The outcome and the policy come from the same evidence: a policy that was
// looked up is used only where the log shows that Postfix held the session
// against one. A session of a level that asks for no certificate succeeded, or
// failed, without a policy, whatever the domain publishes.
func verdict(s *Session, answer policy.Answer, err error) (v schema.Session, drop Drop) {
	applied, drop := policyOf(s, answer, err)
	if drop != "" {
		return v, drop
	}
	r := schema.Result{Policy: applied, Failed: s.Result != ""}
	if r.Failed {
		d := schema.FailureDetails{ResultType: s.Result, ReceivingMXHostname: s.MX, FailureReasonCode: s.Reason}
		if s.IP.IsValid() {
			d.ReceivingIP = s.IP
		}
		r.Details = []schema.FailureDetails{d}
	}
	return schema.Session{Time: s.Time, Domain: s.Domain, Record: answer.Record, Results: []schema.Result{r}}, ""
}

// policyOf is the policy that s counts for, if it counts.
func policyOf(s *Session, answer policy.Answer, err error) (schema.Policy, Drop) {
	if has, known := answer.HasMX(s.MX); known && !has && s.MX != "" {
		return schema.Policy{}, DropNotMX
	}
	return appliedPolicy(s, answer, err)
}

// appliedPolicy is the policy that Postfix held s against.
func appliedPolicy(s *Session, answer policy.Answer, err error) (schema.Policy, Drop) {
	none := schema.Policy{Type: schema.NoPolicyFound, Domain: s.Domain}
	unknown := errors.Is(err, policy.ErrUnknown)
	switch {
	case s.Result == schema.DNSSECInvalid && !answer.Bogus:
		return none, DropAmbiguous
	case s.Outcome == NoSession && answer.TLSA != nil:
		return answer.TLSA.Policy, ""
	case s.Outcome == NoSession:
		return schema.Policy{Type: schema.TLSA, Domain: s.MX}, ""
	}
	switch s.TLSLevel { // Postfix 3.11 says it
	case "may", "encrypt", "none":
		return none, ""
	case "halfdane":
		if answer.TLSA != nil {
			return answer.TLSA.Policy, ""
		}
	}
	switch {
	case s.TLSLevel == "" && !heldAgainstPolicy(s):
		if half := answer.TLSA; half != nil && half.Half && half.Usable && s.Outcome == Trusted {
			return half.Policy, "" // what Postfix calls half-dane is logged as Trusted
		}
		return none, ""
	case s.Match == MatchDANE && answer.TLSA != nil:
		return answer.TLSA.Policy, ""
	case s.Match == MatchName && answer.STS != nil:
		return answer.STS.Policy, ""
	case unknown:
		return none, DropPolicyUnknown
	case answer.Policy.Type == "":
		return none, "" // nobody was asked
	}
	return answer.Policy, ""
}

// heldAgainstPolicy reports whether a log before 3.11 shows that the session had
// to meet a policy: the certificate matched or had to, TLS had to be offered, or
// there was no TLS at all, which meets none.
func heldAgainstPolicy(s *Session) bool {
	return s.Enforced || s.Outcome == Verified || s.Outcome == Refused || s.Outcome == Failed
}
