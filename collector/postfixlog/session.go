package postfixlog

import (
	"net/netip"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Session is one TLS negotiation, or the refusal of one, as the log tells it.
type Session struct {
	// Time is that of the line that ended the negotiation. The line that names
	// the recipient may be minutes younger.
	Time time.Time

	// Domain is the recipient domain, canonical as by [schema.ParseDomain]. It is
	// the domain whose policy applied only if mail for it was not sent elsewhere:
	// where DNS answers, MX should be in its MX set.
	Domain string

	// MX is the host as Postfix calls it, and IP and Port are where it was
	// contacted. MX is "" where only the address is known (tlsproxy). IP is the
	// zero address and Port 0 if Outcome is NoSession.
	MX   string
	IP   netip.Addr
	Port uint16

	// Instance is the syslog_name, with what a service of master.cf adds to it:
	// "postfix", "postfix-out", "postfix/relay". Host is the log's name of the
	// machine.
	Instance string
	Host     string

	Outcome Outcome

	// Result is "" if the session succeeded. Reason says more about Result or
	// Finding, in the words of Postfix or OpenSSL, or is "".
	Result schema.ResultType
	Reason string

	// Finding is what was wrong with the certificate of a session that was used
	// all the same, because its level asks for none. It is "" where nothing was
	// found, or where the log level does not show it.
	Finding schema.ResultType

	// Match says what a certificate was matched by, where the log level shows it.
	Match Match

	// TLSLevel is the security level that Postfix 3.11 names with "tls=":
	// "may", "encrypt", "dane", "halfdane", "secure" and so on; "" in older logs.
	// TLSActual is the lower one that was used instead ("none" in
	// "tls=may:none"), or "".
	TLSLevel, TLSActual string

	// Enforced says that the log proves that the certificate had to match: it
	// did, or mail was held back because it did not, or TLSLevel asks for it.
	Enforced bool

	// Resumed says that a TLS session was resumed whose certificate had failed
	// before. Other resumptions are not logged.
	Resumed bool

	// QueueID is that of the delivery.
	QueueID string

	// Native says that Postfix gave the event to libtlsrpt (3.10 and newer).
	// NativeLost says that it said it could not: nobody else counts this session.
	Native, NativeLost bool

	recipient *recipient // whose domain it is; nil: to be looked up
}

// Outcome says how a negotiation ended.
type Outcome uint8

const (
	// NoSession means that Postfix did not contact the MX: what DNS or a policy
	// says about it forbade that.
	NoSession Outcome = iota
	// Verified means that the certificate matched the policy.
	Verified Outcome = iota
	// Trusted means that the certificate has a trusted issuer; with a Result,
	// that it was not enough.
	Trusted Outcome = iota
	// Untrusted means that the certificate has no trusted issuer.
	Untrusted Outcome = iota
	// Anonymous means that there was no certificate.
	Anonymous Outcome = iota
	// Encrypted means that TLS was used, and that nothing says how far the
	// certificate was trusted (Postfix 3.11 without smtp_tls_loglevel).
	Encrypted Outcome = iota
	// Failed means that the handshake failed.
	Failed Outcome = iota
	// Refused means that TLS was required, and STARTTLS was not offered or not
	// accepted.
	Refused Outcome = iota
	// Plaintext means that the session went on without TLS.
	Plaintext Outcome = iota
)

var outcomeNames = [...]string{
	"no-session", "verified", "trusted", "untrusted", "anonymous", "encrypted", "failed", "refused", "plaintext",
}

// String is the name in lower case.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "unknown"
}

// established reports whether a TLS session came to be.
func (o Outcome) established() bool { return o >= Verified && o <= Encrypted }

// Match says what a certificate was matched by.
type Match string

const (
	// MatchDANE is a TLSA record.
	MatchDANE Match = "dane"
	// MatchName is a name of the policy, with a trusted issuer.
	MatchName Match = "name"
)
