package postfixlog

import "maps"

// Drop says why a session is not handed on.
type Drop string

const (
	// DropUnjoined means that no line says for certain which recipient, or which
	// verdict, belongs to the session.
	DropUnjoined Drop = "unjoined"
	// DropExpired means that the line that names the recipient did not come.
	DropExpired Drop = "expired"
	// DropOverflow means that too much was waiting, and this was the oldest.
	DropOverflow Drop = "overflow"
	// DropNoDomain means that the recipient has no usable domain.
	DropNoDomain Drop = "no-domain"
	// DropNexthop means that Postfix names another next hop than the recipient
	// domain: a relay.
	DropNexthop Drop = "other-nexthop"
	// DropPort means a port other than 25: a relay or a filter.
	DropPort Drop = "port"
	// DropAddress means a private or loopback address: a relay or a filter.
	DropAddress Drop = "private-address"
	// DropLiteral means that the next hop is an address, which no MX is.
	DropLiteral Drop = "address-literal"
	// DropLMTP means delivery by LMTP, to which RFC 8460 does not apply.
	DropLMTP Drop = "lmtp"
	// DropPlaintext means plaintext at level may, and Options.ReportPlaintext is
	// off.
	DropPlaintext Drop = "plaintext"
	// DropFallback means the plaintext attempt that Postfix makes after TLS with
	// the same address failed. The failure is a session, this is not.
	DropFallback Drop = "plaintext-fallback"
	// DropPolicyNone means that Postfix was not to use TLS.
	DropPolicyNone Drop = "policy-none"
	// DropLevelUnknown means that no TLS line was seen, and nothing shows that
	// smtp_tls_loglevel is 1 or more: TLS or plaintext, nobody knows.
	DropLevelUnknown Drop = "level-unknown"
	// DropSender means a fault of the sender.
	DropSender Drop = "sender-fault"
	// DropOwnReport means that the mail is a report of ours.
	DropOwnReport Drop = "own-report"
)

// Stats says what became of the lines since NewParser.
type Stats struct {
	Lines    int64 // all
	Client   int64 // of Lines: of smtp(8), lmtp(8) and tlsproxy(8) of the instance
	Sessions int64 // handed on

	// NoPrefix counts lines that look like Postfix's but have no prefix that
	// could be read (journalctl -o cat has no time). They are not used.
	NoPrefix int64

	// Dropped is the number of sessions that were not handed on, by reason.
	// Reasons that did not occur are absent.
	Dropped map[Drop]int64

	// NativeLost is how often Postfix could not give an event to libtlsrpt, by
	// Instance.
	NativeLost map[string]int64
}

// Stats is a copy. Like all methods it must not run beside another one.
func (p *Parser) Stats() Stats {
	s := p.stats
	s.Dropped = maps.Clone(s.Dropped)
	s.NativeLost = maps.Clone(s.NativeLost)
	return s
}
