package postfixlog

import (
	"maps"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// end reads a line "QUEUEID: text": the attempt is over, another one follows.
func (p *Parser) end(c *process, at int64, e end) {
	peer := p.names.peer(e.host)
	switch e.kind {
	case endNotVerified, endNotTrusted:
		p.endVerdict(c, at, e.kind, peer)
	case endHandshake:
		if t := c.last(func(t *try) bool { return t.outcome == Failed }); t != nil {
			t.closed = true
		} else if c.mta.proxied {
			p.open(c, try{at: at, outcome: Failed, result: schema.ValidationFailure, proxied: true, closed: true, owned: true})
		}
	case endRefused:
		if peer != nil {
			p.open(c, refused(peer, at))
		}
	case endSender:
		p.stats.Dropped[DropSender]++
	case endUnfit:
		if t := c.lastWith(peer); t != nil {
			t.closed = true
		}
	case endSaid, endUsed, endBroken:
		if t := c.lastWith(peer); t != nil {
			t.closed, t.refused = true, e.kind == endSaid
		} else if t := c.ended(peer); t != nil {
			t.refused = t.refused && e.kind == endSaid
		} else if peer != nil {
			p.unseen(c, at, e.kind, peer)
		}
	}
}

// unseen opens an attempt that ended without any line about TLS. Where it ended
// early, TLS may have been begun at smtp_tls_loglevel 0. It is no session; but
// Postfix tries a host again in one delivery only to do without TLS.
func (p *Parser) unseen(c *process, at int64, kind endKind, peer *peer) {
	t := try{peer: peer, at: at, outcome: Plaintext, closed: true, refused: kind == endSaid, owned: true}
	if kind == endBroken {
		t.outcome, t.told = Failed, true
	}
	p.open(c, t)
}

// refused is an attempt without STARTTLS where TLS was required.
func refused(peer *peer, at int64) try {
	return try{peer: peer, at: at, outcome: Refused, result: schema.StartTLSNotSupported, closed: true, owned: true}
}

// endVerdict fails the latest session over its certificate. peer is nil where the
// line does not say with whom it was. It is false if there is no such session.
func (p *Parser) endVerdict(c *process, at int64, kind endKind, peer *peer) *try {
	t := c.last(func(t *try) bool {
		return t.outcome.established() && (peer == nil || t.peer.same(peer))
	})
	if t == nil {
		t = p.unlogged(c, at, peer)
	}
	if t == nil {
		p.stats.Dropped[DropUnjoined]++
		return nil
	}
	t.closed, t.enforced = true, true
	p.judge(c, t, kind, at)
	return t
}

// unlogged opens the session of a verdict where smtp_tls_loglevel is 0. The line
// that says what was wrong with the certificate is logged all the same.
func (p *Parser) unlogged(c *process, at int64, peer *peer) *try {
	for i := len(c.findings) - 1; i >= 0; i-- {
		f := c.findings[i]
		if f.result == "" || peer != nil && !f.peer.same(peer) {
			continue
		}
		c.takeFinding(f.peer)
		t := try{peer: f.peer, at: at, outcome: Untrusted, owned: true}
		t.take(f)
		p.open(c, t)
		return &c.tries[len(c.tries)-1]
	}
	return nil
}

// judge finds what the certificate of t was refused for.
func (p *Parser) judge(c *process, t *try, kind endKind, at int64) {
	if t.finding == "" {
		t.finding, t.reason = c.mta.seenByProxy(t.peer, t.at, at)
	}
	switch {
	case t.finding != "":
		t.result = t.finding
	case kind == endNotTrusted, t.resumed:
		t.result = schema.CertificateNotTrusted
	case t.outcome == Trusted:
		// Postfix 3.4 and 3.5 say no more about a name that does not match.
		t.result = schema.CertificateHostMismatch
	default:
		t.result = schema.ValidationFailure
	}
	t.finding = ""
}

// delivery reads a line "QUEUEID: to=<...>, ...": it ends the attempt with its
// relay, and names the domain of all attempts of the delivery.
func (p *Parser) delivery(c *process, at int64, id []byte, d delivery) {
	c.deliver(p, at, id)
	peer := p.names.peer(d.relay)
	c.recipient = p.names.recipientAt(peer, recipientDomain(d.recipient))
	c.domain = c.recipient.domain
	c.own = p.own.has(c.mta, id)

	// "relay=none" names the port of the last attempt in its text.
	e := readEnd(d.text)
	if rest, ok := cut(d.text, "connect to "); ok {
		c.notePort(p.names.peer(beforeColon(rest)))
	}
	c.notePort(peer)
	switch {
	case e.kind == endSender:
		p.stats.Dropped[DropSender]++
	case peer != nil:
		p.settle(c, at, peer, d, e)
	}
	for i := range c.tries {
		if t := &c.tries[i]; !t.told && t.closed {
			p.finish(c, t)
		} else if !t.told && t.peer != nil && !t.peer.same(peer) {
			// It went on elsewhere, and no line says how this one ended.
			p.dropUntold(c, t, DropUnjoined)
		}
	}
	c.natives = c.natives[:0]
	c.findings = c.findings[:0]
}

// settle ends the attempt with the relay of a delivery.
func (p *Parser) settle(c *process, at int64, peer *peer, d delivery, e end) {
	var t *try
	switch e.kind {
	case endNotVerified, endNotTrusted:
		if c.lastWith(peer) == nil && c.ended(peer) != nil {
			return // another recipient
		}
		t = p.endVerdict(c, at, e.kind, peer)
	case endRefused:
		if old := c.ended(peer); old == nil || old.outcome != Refused || !old.shared(c, d) {
			p.open(c, refused(peer, at))
			t = &c.tries[len(c.tries)-1]
		}
	case endHandshake:
		t = p.settleHandshake(c, at, peer, d)
	default:
		if t = c.lastWith(peer); t == nil {
			t = c.refusedBy(peer, at, d)
		}
		if t == nil {
			t = p.settleUnseen(c, at, peer, d, e)
		}
	}
	if t == nil {
		return
	}
	t.closed, t.delays = true, d.delays
	if len(d.tls) > 0 {
		level, actual, _ := readTLS(d.tls)
		t.level, t.actual = p.names.text(level), p.names.text(actual)
	}
}

// settleHandshake ends an attempt whose handshake failed. In tlsproxy mode this
// is the first line of it that names the host.
func (p *Parser) settleHandshake(c *process, at int64, peer *peer, d delivery) *try {
	if t := c.last(func(t *try) bool { return t.outcome == Failed && t.peer.same(peer) }); t != nil {
		return t
	}
	if old := c.ended(peer); old != nil && old.outcome == Failed && old.shared(c, d) {
		return nil // another recipient
	}
	t := try{peer: peer, at: at, outcome: Failed, result: schema.ValidationFailure, proxied: true, owned: true}
	p.open(c, t)
	return &c.tries[len(c.tries)-1]
}

// settleUnseen is the session of a delivery without any TLS line for its relay:
// none, if it is not the first one of a connection.
func (p *Parser) settleUnseen(c *process, at int64, peer *peer, d delivery, e end) *try {
	tlsUsed := d.usedTLS()
	old := c.ended(peer)
	switch {
	case d.reused:
		if old == nil || old.outcome == Plaintext {
			c.mta.noteCached(peer, at) // with TLS, a line before said it
		}
		return nil
	case !d.sent && e.kind != endSaid && e.kind != endUsed:
		return nil
	case old != nil && old.outcome != Failed && old.outcome != Refused && (old.shared(c, d) || old.delays == 0 && !old.closed):
		return nil // another recipient, or a cached connection
	case tlsUsed && *c.logged:
		return nil // its line was lost, or an older one tells of the connection
	}
	t := try{peer: peer, at: at, outcome: Plaintext, owned: true}
	if tlsUsed {
		c.encrypted(&t)
	}
	lost := c.last(func(t *try) bool { return true }) != nil
	p.open(c, t)
	last := &c.tries[len(c.tries)-1]
	switch {
	case tlsUsed:
		return last
	case p.proxyFallback(c, peer), old != nil && old.outcome != Plaintext:
		p.refuse(c, last, d, DropFallback)
		return nil
	case lost:
		// An attempt without end: lines are missing, and so may be that of TLS.
		p.refuse(c, last, d, DropUnjoined)
		return nil
	}
	return last
}

// encrypted says that t, of which no TLS line was seen, was with TLS.
func (c *process) encrypted(t *try) {
	t.outcome = Encrypted
	if f, ok := c.takeFinding(t.peer); ok {
		t.take(f)
	}
}

// refuse drops the attempt that a delivery line is about.
func (p *Parser) refuse(c *process, t *try, d delivery, why Drop) {
	t.delays, t.domain = d.delays, c.domain
	p.drop(c, t, why)
}

// shared reports whether a delivery line is about another recipient of the
// attempt t: all of them have the same delays before the mail was sent. A
// message may also be delivered to two domains, one after the other.
func (t *try) shared(c *process, d delivery) bool {
	return t.delays == d.delays && (t.domain == c.domain || t.outcome.established())
}

// finish hands on the session of an attempt whose recipient domain is c.domain,
// or drops it.
func (p *Parser) finish(c *process, t *try) {
	t.domain = c.domain
	if t.proxied && !p.joinProxy(c, t) {
		return
	}
	if t.peer != nil && t.peer.port == 0 {
		p.addPort(c, t)
	}
	if why := p.objection(c, t); why != "" {
		p.drop(c, t, why)
		return
	}
	p.tell(c, t)
}

// addPort gives t the port of the other attempts of its process.
func (p *Parser) addPort(c *process, t *try) {
	if c.port == smtpPort {
		t.peer = p.names.peer([]byte(t.peer.text + ":25"))
	}
}

// objection says why a session does not count, "" if it does.
func (p *Parser) objection(c *process, t *try) Drop {
	switch {
	case c.program == lmtp:
		return DropLMTP
	case c.domain == "":
		return DropNoDomain
	case c.own:
		return DropOwnReport
	case t.nexthop != "" && p.names.domain([]byte(t.nexthop)) != c.domain:
		return DropNexthop
	case t.peer == nil && t.outcome != NoSession:
		return DropUnjoined
	case p.options.Relays.has(t):
		return DropRelay
	case t.peer != nil && t.peer.drop != "":
		return t.peer.drop
	case t.peer != nil && t.peer.port != smtpPort:
		return DropUnjoined
	case t.outcome == Plaintext:
		return p.plaintextObjection(c, t)
	}
	return ""
}

// plaintextObjection says why a plaintext session is no failure.
func (p *Parser) plaintextObjection(c *process, t *try) Drop {
	switch {
	case t.level == "none" || c.noTLS:
		return DropPolicyNone
	case t.actual != "none" && !*c.logged:
		return DropLevelUnknown
	case t.delays == 0 && c.mta.caches(t.peer, t.at):
		return DropUnjoined // no line says whether the connection was cached
	case !p.options.ReportPlaintext:
		return DropPlaintext
	}
	t.result = schema.StartTLSNotSupported
	return ""
}

// tell hands on a session.
func (p *Parser) tell(c *process, t *try) {
	t.told = true
	if !t.native && len(c.mta.natives) > 0 && t.peer != nil {
		c.mta.takeNative(t, c.domain)
	}
	p.fill(c, t)
	p.stats.Sessions++
	if p.emit != nil {
		p.emit(&p.session)
	}
}

// drop counts a session that is not handed on.
func (p *Parser) drop(c *process, t *try, why Drop) {
	t.told = true
	p.stats.Dropped[why]++
	if p.options.Dropped != nil {
		p.fill(c, t)
		p.options.Dropped(&p.session, why)
	}
}

// dropUntold drops t unless it is told.
func (p *Parser) dropUntold(c *process, t *try, why Drop) {
	if !t.told {
		p.drop(c, t, why)
	}
}

// matching is the levels of "tls=" at which a certificate must match. At
// "halfdane" it need not.
var matching = map[string]bool{"dane": true, "dane-only": true, "secure": true, "verify": true, "fingerprint": true}

// fill makes p.session of t.
func (p *Parser) fill(c *process, t *try) {
	s := &p.session
	*s = Session{
		Time:       time.Unix(0, t.at).UTC(),
		Domain:     c.domain,
		MX:         t.host,
		Instance:   c.instance,
		Host:       c.host,
		Outcome:    t.outcome,
		Result:     t.result,
		Reason:     t.reason,
		Finding:    t.finding,
		Match:      t.match,
		TLSLevel:   t.level,
		TLSActual:  t.actual,
		Resumed:    t.resumed,
		QueueID:    string(c.message[:c.idLen]),
		Native:     t.native,
		NativeLost: t.native && t.lost,
		recipient:  c.recipient,
	}
	if t.peer != nil {
		s.IP, s.Port = t.peer.ip, t.peer.port
	}
	must := matching[t.level] && t.actual == ""
	if t.outcome == Encrypted && must {
		s.Outcome = Verified
	}
	s.Enforced = t.enforced || must || s.Outcome == Verified
	if s.Result == "" && t.tlsa && t.outcome.established() {
		s.Result, s.Reason = schema.TLSAInvalid, "all TLSA records unusable"
	}
}

// How long a session waits for its recipient. smtp(8) may take 10 minutes for
// the end of the data alone (smtp_data_done_timeout).
const (
	patience   = int64(time.Hour)
	sweepEvery = int64(10 * time.Minute)
)

// giveUp drops what c waits for.
func (p *Parser) giveUp(c *process, why Drop) {
	for i := range c.tries {
		p.dropUntold(c, &c.tries[i], why)
	}
	*c = process{key: c.key, twoWords: c.twoWords, program: c.program, host: c.host, instance: c.instance, mta: c.mta, logged: c.logged, seen: c.seen}
}

// idle reports whether nothing of c is waiting, nor has been of late. More
// recipients of a delivery may follow the first one.
func (c *process) idle(at int64) bool {
	return at-c.seen > sweepEvery && !slices.ContainsFunc(c.tries, func(t try) bool { return !t.told })
}

// sweep gives up all that waits too long at a time.
func (p *Parser) sweep(at int64) {
	var silent []string
	for key, c := range p.processes {
		if at-c.seen > patience || c.idle(at) {
			silent = append(silent, key)
		}
	}
	slices.Sort(silent)
	for _, key := range silent {
		p.giveUp(p.processes[key], DropExpired)
		delete(p.processes, key)
	}
	clear(p.busy[:])
	for _, key := range slices.Sorted(maps.Keys(p.mtas)) {
		p.sweepProxy(p.mtas[key], at)
	}
}

// serviceLine reads a line of qmgr(8), cleanup(8) or master(8).
func (p *Parser) serviceLine(e entry) {
	host, instance := splitKey(e.key)
	root, ok := p.matches(p.names.text(instance))
	if !ok {
		return
	}
	m := p.mta(p.names.text(host), root)
	if e.program == master {
		if isStart(e.message) {
			m.restarted(e.at, e.message)
		}
		return
	}
	if id, text, ok := cutQueueID(e.message); ok {
		p.mailLine(m, e.at, id, text)
	}
}
