package loggen

import (
	"fmt"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// The programs of Postfix that write.
const (
	smtp    = "smtp"
	smtpd   = "smtpd"
	cleanup = "cleanup"
	qmgr    = "qmgr"
	anvil   = "anvil"
	scache  = "scache"
)

// slot is one smtp(8) and what happens around it, one message after the other.
type slot struct {
	number int
	text   []byte // of lines, without prefix
	lines  []line
	next   int // the line that is written next
}

// line is text[from:to] of a slot. If counts, it completes a session.
type line struct {
	program  string
	from, to int
	key      Key
	counts   bool
}

func newSlot(number int) slot { return slot{number: number} }

func (s *slot) done() bool { return s.next == len(s.lines) }

func (s *slot) pid(program string) int {
	switch program {
	case smtp:
		return 10_000 + s.number
	case smtpd:
		return 40_000 + s.number
	case cleanup:
		return 70_000 + s.number%10
	case anvil:
		return 80_001
	case scache:
		return 80_002
	}
	return 80_000
}

// say adds a line.
func (s *slot) say(program, format string, args ...any) *line {
	from := len(s.text)
	s.text = fmt.Appendf(s.text, format, args...)
	s.lines = append(s.lines, line{program: program, from: from, to: len(s.text)})
	return &s.lines[len(s.lines)-1]
}

// mail is a message on its way to a domain.
type mail struct {
	id     string
	number int // of domain
	domain string
	relay  string // "mx.d.example[192.0.2.1]"
	delays string
}

// compose fills s with the lines of a message.
func (l *Log) compose(s *slot) {
	s.text, s.lines, s.next = s.text[:0], s.lines[:0], 0
	m := l.mail(l.pickDomain())
	client := fmt.Sprintf("client-%d.lan.example[10.0.0.%d]", l.rand.IntN(40), l.rand.IntN(40))
	first, last := l.rand.IntN(3) == 0, l.rand.IntN(3) == 0
	if first {
		s.say(smtpd, "connect from %s", client)
	}
	s.accept(m, client, 480+l.rand.IntN(80_000))
	if last {
		s.say(smtpd, "disconnect from %s ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5", client)
	}
	l.deliver(s, m)
	if n := l.rand.IntN(200); n == 0 {
		s.say(anvil, "statistics: max connection rate %d/60s for (smtp:10.0.0.%d) at Nov 23 11:12:47", n+4, n+1)
		s.say(scache, "statistics: start interval Nov 23 11:09:27")
	}
}

func (l *Log) mail(number int) mail {
	ms := l.rand.IntN(900)
	return mail{
		id: l.queueID(), number: number, domain: Domain(number),
		relay:  fmt.Sprintf("%s[%s]", mx(number), address(number)),
		delays: fmt.Sprintf("delay=%d.%02d, delays=0.01/0.0%d/0.%d/0.%02d", ms/100, ms%100, ms%7, ms, ms%100),
	}
}

// accept is how a message enters the queue.
func (s *slot) accept(m mail, client string, size int) {
	s.say(smtpd, "%s: client=%s", m.id, client)
	s.say(cleanup, "%s: message-id=<%s@out.sender.example>", m.id, m.id)
	s.say(qmgr, "%s: from=<alice@sender.example>, size=%d, nrcpt=1 (queue active)", m.id, size)
}

// kinds says of a hundred deliveries how many go which way.
var kinds = [...]struct {
	percent int
	write   func(*Log, *slot, mail)
}{
	{62, (*Log).sent},
	{6, (*Log).plaintext},
	{5, (*Log).unreachable},
	{5, (*Log).slowFirst},
	{4, (*Log).expired},
	{4, (*Log).greylisted},
	{4, (*Log).relayed},
	{4, (*Log).severalDomains},
	{2, (*Log).selfSigned},
	{2, (*Log).handshake},
	{2, (*Log).refused},
}

func (l *Log) deliver(s *slot, m mail) {
	n := l.rand.IntN(100)
	for _, k := range kinds {
		if n -= k.percent; n < 0 {
			k.write(l, s, m)
			return
		}
	}
}

// completes notes that a line ends a session.
func (a *line) completes(m mail, result schema.ResultType) {
	a.counts, a.key = true, Key{m.domain, result}
}

const cipher = "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature ECDSA (prime256v1) server-digest SHA256"

// tls is the line of a session. How far certificates can be trusted is a
// domain's own.
func (s *slot) tls(m mail) {
	switch {
	case m.number%20 == 7:
		s.say(smtp, "Anonymous TLS connection established to %s:25: TLSv1.2 with cipher AECDH-AES256-SHA (256/256 bits)", m.relay)
	case m.number%4 == 3:
		s.say(smtp, "Untrusted TLS connection established to %s:25: %s", m.relay, cipher)
	default:
		s.say(smtp, "Trusted TLS connection established to %s:25: %s", m.relay, cipher)
	}
}

// to is the line of a recipient.
func (s *slot) to(m mail, n int, status string) *line {
	return s.say(smtp, "%s: to=<user%d@%s>, relay=%s:25, %s, %s", m.id, n, m.domain, m.relay, m.delays, status)
}

const (
	sentStatus  = "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as LAB)"
	certificate = "dsn=4.7.5, status=deferred (Server certificate not verified)"
)

func (s *slot) removed(m mail) { s.say(qmgr, "%s: removed", m.id) }

// sent is mail for one recipient or for several.
func (l *Log) sent(s *slot, m mail) {
	s.tls(m)
	s.to(m, l.rand.IntN(1000), sentStatus).completes(m, "")
	if l.rand.IntN(3) == 0 {
		for n := range 1 + l.rand.IntN(4) {
			s.to(m, n, sentStatus)
		}
	}
	s.removed(m)
}

// greylisted is mail that was not taken. The session is none the worse.
func (l *Log) greylisted(s *slot, m mail) {
	s.tls(m)
	status := fmt.Sprintf("dsn=4.2.0, status=deferred (host %s said: 450 4.2.0 Greylisted, try again later (in reply to RCPT TO command))", m.relay)
	s.to(m, 1, status).completes(m, "")
}

// plaintext is mail without TLS, which may do without, and more of it on the
// same connection. It makes no session.
func (l *Log) plaintext(s *slot, m mail) {
	s.to(m, 1, sentStatus)
	s.removed(m)
	next := l.mail(m.number)
	s.accept(next, "localhost[127.0.0.1]", 480)
	s.say(smtp, "%s: to=<user2@%s>, relay=%s:25, conn_use=2, %s, %s", next.id, next.domain, next.relay, next.delays, sentStatus)
	s.removed(next)
}

// unreachable is mail for a host that does not answer.
func (l *Log) unreachable(s *slot, m mail) {
	why := fmt.Sprintf("connect to %s:25: Connection timed out", m.relay)
	s.say(smtp, "%s", why)
	s.say(smtp, "%s: to=<user@%s>, relay=none, delay=30, delays=0.01/0/30/0, dsn=4.4.1, status=deferred (%s)", m.id, m.domain, why)
}

// slowFirst is mail for a host whose first address does not answer.
func (l *Log) slowFirst(s *slot, m mail) {
	s.say(smtp, "connect to %s[198.51.100.77]:25: Connection timed out", mx(m.number))
	l.sent(s, m)
}

// expired is mail that may be sent to a good certificate only.
func (l *Log) expired(s *slot, m mail) {
	s.say(smtp, "server certificate verification failed for %s:25: certificate has expired", m.relay)
	s.say(smtp, "Untrusted TLS connection established to %s:25: %s", m.relay, cipher)
	s.to(m, 1, certificate).completes(m, schema.CertificateExpired)
}

// selfSigned is the same with another certificate.
func (l *Log) selfSigned(s *slot, m mail) {
	s.say(smtp, "certificate verification failed for %s:25: self-signed certificate", m.relay)
	s.say(smtp, "Untrusted TLS connection established to %s:25: %s", m.relay, cipher)
	s.to(m, 1, certificate).completes(m, schema.CertificateNotTrusted)
}

// handshake is a TLS handshake that fails.
func (l *Log) handshake(s *slot, m mail) {
	s.say(smtp, "SSL_connect error to %s:25: -1", m.relay)
	s.say(smtp, "warning: TLS library problem: error:0A00042E:SSL routines::tlsv1 alert protocol version:../ssl/record/rec_layer_s3.c:1601:SSL alert number 70:")
	s.to(m, 1, "dsn=4.7.5, status=deferred (Cannot start TLS: handshake failure)").completes(m, schema.ValidationFailure)
}

// refused is a host without STARTTLS where TLS is required.
func (l *Log) refused(s *slot, m mail) {
	status := fmt.Sprintf("dsn=4.7.4, status=deferred (TLS is required, but was not offered by host %s)", m.relay)
	s.to(m, 1, status).completes(m, schema.StartTLSNotSupported)
}

// relayed is mail that goes through a host within, which is no session of the
// domain.
func (l *Log) relayed(s *slot, m mail) {
	m.relay = "filter.lan.example[10.9.8.7]"
	s.say(smtp, "Trusted TLS connection established to %s:25: %s", m.relay, cipher)
	s.to(m, 1, sentStatus)
	s.removed(m)
}

// severalDomains is one message to two domains, delivered one after the other
// by the same process.
func (l *Log) severalDomains(s *slot, m mail) {
	for range 2 {
		s.tls(m)
		s.to(m, 1, sentStatus).completes(m, "")
		next := l.mail((m.number + 1) % l.o.Domains)
		next.id = m.id
		m = next
	}
	s.removed(m)
}
