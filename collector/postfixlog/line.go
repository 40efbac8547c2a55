package postfixlog

import (
	"bytes"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// entry reads a line without its prefix.
func (p *Parser) entry(e entry) {
	p.current = e
	if e.at >= p.sweepAt {
		if p.sweepAt != 0 {
			p.sweep(e.at)
			e.process = nil // it may have been forgotten
		}
		p.sweepAt = e.at + sweepEvery
	}
	switch e.program {
	case qmgr, cleanup, master:
		p.serviceLine(e)
		return
	}
	c := p.process(e)
	if c == nil || len(e.message) == 0 {
		return
	}
	c.mta.read.see(e.at)
	p.stats.Client++
	if c.program == tlsproxy {
		p.proxyLine(c, e.at, e.message)
	} else {
		p.clientLine(c, e.at, e.message)
	}
}

// clientLine reads a message of smtp(8). Only beginnings are compared: the rest
// of a line differs between versions of Postfix and OpenSSL.
func (p *Parser) clientLine(c *process, at int64, m []byte) {
	switch m[0] {
	case 'A', 'T', 'U', 'V':
		if outcome, rest, reused := tlsSummary(m); rest != nil {
			p.summary(c, at, outcome, rest, reused)
			return
		}
		if rest, ok := cut(m, "TLSRPT: "); ok {
			p.native(c, at, rest)
			return
		}
	case 'S':
		if rest, ok := cut(m, "SSL_connect error to "); ok {
			p.handshakeError(c, at, rest)
			return
		}
	case 's', 'c', 'C':
		if p.certificateLine(c, at, m) {
			return
		}
		if rest, ok := cut(m, "connect to "); ok {
			c.notePort(p.names.peer(beforeColon(rest)))
			return
		}
		if hasPrefix(m, "CONNECT to [") && c.program == unnamed {
			c.program = tlsproxy
			return
		}
	case 'w':
		if rest, ok := cut(m, "warning: "); ok {
			p.warning(c, at, rest)
			return
		}
	case 'r', 'd':
		if c.program == unnamed && isStart(m) {
			c.mta.restarted(at, m)
			return
		}
	case 'H':
		if hasPrefix(m, "Host offered STARTTLS: ") {
			c.noNext = true
			return
		}
	}
	if id, text, ok := cutQueueID(m); ok {
		p.queueLine(c, at, id, text)
		return
	}
	p.hostLine(c, at, m)
}

// isStart reports whether master(8) reads the settings of Postfix anew.
func isStart(m []byte) bool {
	return hasPrefix(m, "reload -- version ") || hasPrefix(m, "daemon started -- version ")
}

// cut is m without prefix, and whether it had it.
func cut(m []byte, prefix string) ([]byte, bool) {
	if hasPrefix(m, prefix) {
		return m[len(prefix):], true
	}
	return m, false
}

// tlsSummary reads "Trusted TLS connection established to H: ...". rest begins
// with H; it is nil if m is something else.
func tlsSummary(m []byte) (outcome Outcome, rest []byte, reused bool) {
	word, tail := "", m
	switch m[0] {
	case 'A':
		word, outcome = "Anonymous", Anonymous
	case 'T':
		word, outcome = "Trusted", Trusted
	case 'U':
		word, outcome = "Untrusted", Untrusted
	case 'V':
		word, outcome = "Verified", Verified
	}
	tail, ok := cut(m, word)
	if !ok {
		return outcome, nil, false
	}
	if rest, ok := cut(tail, " TLS connection established to "); ok {
		return outcome, rest, false
	}
	if rest, ok := cut(tail, " TLS connection reused to "); ok {
		return outcome, rest, true
	}
	return outcome, nil, false
}

// beforeColon is what comes before the first ": ", or all.
func beforeColon(b []byte) []byte {
	for i := 0; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], ':')
		if n < 0 {
			break
		}
		if i += n; i+1 < len(b) && b[i+1] == ' ' {
			return b[:i]
		}
	}
	return b
}

// summary opens a session, unless a cached connection was reused.
func (p *Parser) summary(c *process, at int64, outcome Outcome, rest []byte, reused bool) {
	peer := p.names.peer(beforeColon(rest))
	if peer == nil {
		return
	}
	c.notePort(peer)
	if reused {
		// A cached connection is no session, and what follows on it is none.
		p.open(c, try{peer: peer, at: at, outcome: outcome, told: true})
		return
	}
	*c.logged = *c.logged || at >= c.mta.settled
	t := try{peer: peer, at: at, outcome: outcome}
	if f, ok := c.takeFinding(peer); ok {
		t.take(f)
	} else if c.mta.takeUnusable(peer, at) {
		t.tlsa = true
	}
	p.open(c, t)
}

// handshakeError opens a session that failed at once: "H: lost connection".
func (p *Parser) handshakeError(c *process, at int64, rest []byte) {
	host := beforeColon(rest)
	peer := p.names.peer(host)
	if peer == nil || c.program == tlsproxy {
		return
	}
	c.notePort(peer)
	c.takeFinding(peer)
	t := try{peer: peer, at: at, outcome: Failed, result: schema.ValidationFailure}
	if why := bytes.TrimPrefix(rest[len(host):], []byte(": ")); string(why) != "-1" {
		t.reason = p.names.text(why)
	}
	p.open(c, t)
}

// certificateLine reads "server certificate verification failed for H: why".
func (p *Parser) certificateLine(c *process, at int64, m []byte) bool {
	rest, ok := cut(m, "server ")
	if !ok {
		rest, _ = cut(m, "CA ")
	}
	if rest, ok = cut(rest, "certificate verification failed for "); !ok {
		return false
	}
	host := beforeColon(rest)
	peer := p.names.peer(host)
	if peer == nil || peer.port == 0 {
		return true
	}
	why := bytes.TrimPrefix(rest[len(host):], []byte(": "))
	result, reason := certificateResult(why)
	p.found(c, at, peer, finding{result: result, reason: p.names.text(reason)})
	return true
}

// certificateResults says which result type the words of tls_verify.c are.
var certificateResults = [...]struct {
	why    string
	result schema.ResultType
}{
	{"certificate has expired", schema.CertificateExpired},
	{"untrusted issuer", schema.CertificateNotTrusted},
	{"self-signed certificate", schema.CertificateNotTrusted},
	{"self signed certificate", schema.CertificateNotTrusted},
	{"not trusted by local or TLSA policy", schema.CertificateNotTrusted},
	{"num=62:", schema.CertificateHostMismatch},
	// RFC 8460, section 4.3.1, has no type for a certificate that no TLSA
	// record matches. Postfix 3.10 reports this one.
	{"num=65:", schema.CertificateNotTrusted},
	{"external policy failure (sts-policy-fetch-error)", schema.STSPolicyFetchError},
	{"external policy failure (sts-policy-invalid)", schema.STSPolicyInvalid},
	{"external policy failure (sts-webpki-invalid)", schema.STSWebPKIInvalid},
}

// certificateResult reads why a certificate was refused. reason is the part of
// why that is the same for many certificates.
func certificateResult(why []byte) (result schema.ResultType, reason []byte) {
	result = schema.ValidationFailure
	for _, r := range certificateResults {
		if hasPrefix(why, r.why) {
			result = r.result
			break
		}
	}
	if hasPrefix(why, "num=") {
		_, why, _ = bytes.Cut(why, []byte(":"))
	}
	if hasPrefix(why, "untrusted issuer") {
		why = why[:len("untrusted issuer")]
	}
	return result, why
}

// warning reads what follows "warning: ".
func (p *Parser) warning(c *process, at int64, m []byte) {
	if rest, ok := cut(m, "TLS library problem: "); ok {
		c.libraryProblem(p.names.text(libraryReason(rest)))
	} else if rest, ok := cut(m, "TLS policy lookup for "); ok {
		p.policyLine(c, at, rest)
	} else if rest, ok := cut(m, "MX name '"); ok {
		p.patternLine(c, at, rest)
	} else if hasPrefix(m, "Could not report TLS handshake result") {
		p.stats.NativeLost[c.instance]++
		c.nativeLost()
	} else if host := beforeColon(m); len(host) < len(m) && hasPrefix(m[len(host):], ": all TLSA records unusable") {
		if peer := p.names.peer(host); peer != nil {
			p.found(c, at, peer, finding{tlsa: true})
		}
	}
}

// libraryReason is the text within "error:0A00042E:SSL routines::tlsv1 alert
// protocol version:../ssl/record/rec_layer_s3.c:1601:SSL alert number 70:".
func libraryReason(b []byte) []byte {
	for range 4 {
		i := bytes.IndexByte(b, ':')
		if i < 0 {
			return b
		}
		b = b[i+1:]
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 {
		b = b[:i]
	}
	return b
}

// policyResults says which result type it is that a policy forbids an MX. What
// else may be wrong there is the sender's own fault.
var policyResults = [...]struct {
	why    string
	result schema.ResultType
}{
	// DNSSEC or plain DNS trouble: a look-up of ours can tell.
	{"TLSA lookup error for ", schema.DNSSECInvalid},
	{"non DNSSEC destination", schema.DANERequired},
	{"no TLSA records found", schema.DANERequired},
	{"TLSA records unusable", schema.TLSAInvalid},
}

// policyLine reads "NEXTHOP/HOST: why".
func (p *Parser) policyLine(c *process, at int64, m []byte) {
	names := beforeColon(m)
	nexthop, host, ok := bytes.Cut(names, []byte("/"))
	if !ok || len(names) == len(m) {
		return
	}
	why := m[len(names)+len(": "):]
	for _, r := range policyResults {
		if hasPrefix(why, r.why) {
			p.noSession(c, at, nexthop, host, r.result, why)
			return
		}
	}
}

// patternLine reads "X' does not match STS MX pattern for 'D'".
func (p *Parser) patternLine(c *process, at int64, m []byte) {
	host, rest, ok := bytes.Cut(m, []byte("' does not match STS MX pattern for '"))
	domain, ok2 := bytes.CutSuffix(rest, []byte("'"))
	if ok && ok2 {
		p.noSession(c, at, domain, host, schema.ValidationFailure, []byte("MX name does not match STS MX pattern"))
	}
}

// noSession opens what will not be a session with host.
func (p *Parser) noSession(c *process, at int64, nexthop, host []byte, result schema.ResultType, why []byte) {
	reason := why
	if i := bytes.Index(why, []byte(" for ")); i >= 0 {
		reason = why[:i] // without the name of the host
	}
	p.open(c, try{
		at:      at,
		outcome: NoSession,
		host:    p.names.text(host),
		nexthop: p.names.text(nexthop),
		result:  result,
		reason:  p.names.text(reason),
		closed:  true,
	})
}

// hostLine reads "H: re-using session with untrusted certificate, ..." and "H:
// Matched DANE ...".
func (p *Parser) hostLine(c *process, at int64, m []byte) {
	host := beforeColon(m)
	if len(host) == 0 || len(host) == len(m) || host[len(host)-1]-'0' > 9 {
		return
	}
	var f finding
	switch text := m[len(host)+len(": "):]; {
	case hasPrefix(text, "re-using session with untrusted"):
		f.resumed = true
	case hasPrefix(text, "Matched DANE "):
		f.match = MatchDANE
	case hasPrefix(text, "matched peername: "):
		f.match = MatchName
	default:
		return
	}
	if peer := p.names.peer(host); peer != nil {
		p.found(c, at, peer, f)
	}
}

// cutQueueID reads "4jY1xQ00Dlz6X7y: text". Short ids are hexadecimal, long ones
// any letters and digits.
func cutQueueID(m []byte) (id, text []byte, ok bool) {
	const shortest, longest = 5, 24
	i := bytes.IndexByte(m[:min(len(m), longest+1)], ':')
	if i < shortest || i+1 >= len(m) || m[i+1] != ' ' {
		return nil, nil, false
	}
	for _, c := range m[:i] {
		if !alphanumeric[c] {
			return nil, nil, false
		}
	}
	return m[:i], m[i+2:], true
}

// alphanumeric holds for letters and digits: a table, as each byte of each queue
// id is looked at.
var alphanumeric = func() (is [256]bool) {
	for _, c := range []byte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		is[c] = true
	}
	return is
}()

// queueLine reads a line about a message.
func (p *Parser) queueLine(c *process, at int64, id, text []byte) {
	if rest, ok := cut(text, "to=<"); ok {
		if d, ok := readDelivery(rest); ok {
			p.delivery(c, at, id, d)
		} else {
			p.abandon(c)
		}
		return
	}
	if c.program == unnamed && p.mailLine(c.mta, at, id, text) {
		return
	}
	if e := readEnd(text); e.kind != endOther {
		c.deliver(p, at, id)
		p.end(c, at, e)
	}
}
