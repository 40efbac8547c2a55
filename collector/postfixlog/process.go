package postfixlog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// process is one smtp(8), lmtp(8) or tlsproxy(8). smtp(8) does one delivery at a
// time: the attempts between two deliveries belong to the next line that names a
// message, and to its recipients.
type process struct {
	key      string // "host tag[pid"
	twoWords bool   // key is so: it has one space, between others
	program  program
	host     string
	instance string // "postfix/relay"
	mta      *mta
	logged   *bool // of mta: TLS lines of the instance were seen
	seen     int64 // nanoseconds, of the last line

	message   [24]byte // queue id of the delivery
	idLen     int
	own       bool       // the message is a report of ours
	domain    string     // of the recipient before, "" before the first
	recipient *recipient // of domain, or nil
	port      uint16     // the last one used, 0 before the first
	noTLS     bool       // this delivery was told not to use TLS
	noNext    bool       // the next one is

	tries    []try // oldest first
	findings []finding
	natives  []native
}

// try is an attempt of a delivery with one MX.
type try struct {
	peer    *peer // nil: none, or not known yet
	host    string
	nexthop string // which Postfix named, or ""
	at      int64
	outcome Outcome
	result  schema.ResultType
	reason  string
	finding schema.ResultType
	match   Match

	level, actual string // of "tls="
	domain        string // of the recipients, once they are known
	delays        uint64 // of the line that ended it, if that named a recipient

	enforced bool
	resumed  bool
	tlsa     bool // no TLSA record was usable
	proxied  bool // tlsproxy(8) did the handshake, and only it knows with whom

	owned   bool // by the message of the process
	closed  bool // ended by a line without recipient
	refused bool // that line may be about one recipient of several
	told    bool // handed on or dropped; stays until the delivery is over

	native, lost bool
}

// finding is what a line said about a certificate before the line that the
// session is made of.
type finding struct {
	peer    *peer
	result  schema.ResultType
	reason  string
	match   Match
	resumed bool
	tlsa    bool
}

// native is a "TLSRPT: status=" line whose session has not come yet.
type native struct {
	host   string // "host[address]"
	domain string
	lost   bool
}

// Bounds on what one process may keep. Postfix tries 5 addresses of a domain
// (smtp_mx_session_limit is 2).
const (
	maxTries    = 32
	maxFindings = 8
)

// busySlot is where a process may be found fast. Most lines are of a few busy
// ones, and the end of a key is the pid.
func (p *Parser) busySlot(key []byte) **process {
	var end uint32
	if n := len(key); n >= 4 {
		end = binary.LittleEndian.Uint32(key[n-4:])
	}
	const golden = 0x9e3779b1 // spreads what differs in a few bits (Knuth, 6.4)
	return &p.busy[end*golden>>24]
}

// busyProcess is the process whose key ends b, if it is a busy one: what comes
// before the key is no part of it. It spares the search for where the key begins.
func (p *Parser) busyProcess(b []byte) *process {
	c := *p.busySlot(b)
	if c == nil || !c.twoWords || !hasSuffix(b, c.key) {
		return nil
	}
	if n := len(b) - len(c.key); n > 0 && b[n-1] != ' ' {
		return nil
	}
	return c
}

// process is the one that e is of, nil if it is of another instance.
func (p *Parser) process(e entry) *process {
	c := e.process
	if c == nil {
		c = p.find(e)
	}
	if c.seen != 0 && e.at-c.seen > patience {
		p.giveUp(c, DropExpired)
	}
	c.seen = e.at
	if c.mta == nil {
		return nil
	}
	return c
}

// find is the process of the key of e, which is made if there is none.
func (p *Parser) find(e entry) *process {
	slot := p.busySlot(e.key)
	if c := *slot; c != nil && c.key == string(e.key) {
		return c
	}
	c, ok := p.processes[string(e.key)]
	if !ok {
		c = p.newProcess(string(e.key), e.program)
		p.processes[c.key] = c
	}
	*slot = c
	return c
}

// newProcess reads the key "host tag[pid". Its mta is nil if it is of another
// instance.
func (p *Parser) newProcess(key string, prog program) *process {
	host, instance := splitKey([]byte(key))
	c := &process{key: key, program: prog, host: p.names.text(host), instance: p.names.text(instance)}
	c.twoWords = len(host) > 0 && strings.Count(key, " ") == 1
	if root, ok := p.matches(c.instance); ok {
		c.mta = p.mta(c.host, root)
		c.logged = c.mta.logs(c.instance)
	}
	return c
}

// splitKey reads "host instance/program[pid". A log may lack the host, and the
// program may have been cut off.
func splitKey(key []byte) (host, instance []byte) {
	i := bytes.LastIndexByte(key, ' ')
	host, instance = key[:max(i, 0)], key[i+1:]
	instance, _, _ = bytes.Cut(instance, []byte("["))
	if i := bytes.LastIndexByte(instance, '/'); i >= 0 {
		instance = instance[:i]
	}
	return host, instance
}

// matches reports whether an instance is the one of the options. root is the
// part of its name that all its services share.
func (p *Parser) matches(instance string) (root string, ok bool) {
	if p.anyone {
		root, _, _ = strings.Cut(instance, "/")
		return root, true
	}
	root = p.options.Instance
	rest, ok := strings.CutPrefix(instance, root)
	return root, ok && (rest == "" || rest[0] == '/')
}

// open adds an attempt.
func (p *Parser) open(c *process, t try) {
	if t.peer != nil {
		t.host = t.peer.host
		c.takeNative(&t)
	}
	if len(c.tries) >= maxTries {
		p.dropUntold(c, &c.tries[0], DropOverflow)
		c.tries = slices.Delete(c.tries, 0, 1)
	}
	c.tries = append(c.tries, t)
}

// deliver makes id the message of the process. What the delivery before left
// without recipient never gets one.
func (c *process) deliver(p *Parser, at int64, id []byte) {
	again := c.mta.ended.take(id, at)
	if again || !bytes.Equal(c.message[:c.idLen], id) {
		keep := c.tries[:0]
		for i := range c.tries {
			if t := &c.tries[i]; t.owned {
				p.dropUntold(c, t, DropUnjoined)
			} else {
				keep = append(keep, *t)
			}
		}
		c.tries = keep
		c.idLen = copy(c.message[:], id)
		c.domain, c.recipient = "", nil
		c.own = false
		c.noTLS = false
	}
	if c.noNext {
		c.noTLS, c.noNext = true, false
	}
	for i := range c.tries {
		c.tries[i].owned = true
	}
}

// abandon drops what waits for a recipient that cannot be read.
func (p *Parser) abandon(c *process) {
	c.domain, c.recipient = "", nil
	for i := range c.tries {
		p.dropUntold(c, &c.tries[i], DropUnjoined)
	}
}

// last is the latest attempt that is still to end and that ok holds for, nil if
// there is none.
func (c *process) last(ok func(*try) bool) *try {
	for i := len(c.tries) - 1; i >= 0; i-- {
		if t := &c.tries[i]; !t.told && !t.closed && ok(t) {
			return t
		}
	}
	return nil
}

// lastWith is the latest attempt with peer that is still to end.
func (c *process) lastWith(peer *peer) *try {
	return c.last(func(t *try) bool { return t.peer.same(peer) })
}

// ended is the latest attempt with peer that has ended, in this delivery.
func (c *process) ended(peer *peer) *try {
	for i := len(c.tries) - 1; i >= 0; i-- {
		if t := &c.tries[i]; (t.told || t.closed) && t.peer.same(peer) {
			return t
		}
	}
	return nil
}

// found remembers a line about the certificate of peer.
func (p *Parser) found(c *process, at int64, peer *peer, f finding) {
	if f.resumed && c.program == tlsproxy {
		// smtp(8) does not log that the session was resumed, only tlsproxy(8) does.
		f.result, f.reason = c.mta.recall(peer)
		f.result = cmp.Or(f.result, schema.CertificateNotTrusted)
	}
	if f.result != "" {
		c.mta.remember(peer, at, f, c.program == tlsproxy)
	}
	if c.program == tlsproxy {
		if f.tlsa {
			c.mta.noteUnusable(peer, at)
		}
		return
	}
	if f.resumed {
		f.result, f.reason = c.mta.recall(peer)
	}
	f.peer = peer
	for i := range c.findings {
		if c.findings[i].peer.same(peer) {
			c.findings[i].add(f)
			return
		}
	}
	if len(c.findings) >= maxFindings {
		c.findings = slices.Delete(c.findings, 0, 1)
	}
	c.findings = append(c.findings, f)
}

// add puts the newer finding n about the same peer to f.
func (f *finding) add(n finding) {
	if n.result != "" {
		f.result, f.reason = n.result, n.reason
	}
	if f.match != MatchDANE && n.match != "" {
		f.match = n.match
	}
	f.resumed = f.resumed || n.resumed
	f.tlsa = f.tlsa || n.tlsa
}

// takeFinding is what was found about peer since its last session.
func (c *process) takeFinding(peer *peer) (finding, bool) {
	for i := range c.findings {
		if f := c.findings[i]; f.peer.same(peer) {
			c.findings = slices.Delete(c.findings, i, i+1)
			return f, true
		}
	}
	return finding{}, false
}

// take puts a finding to the session that it is about.
func (t *try) take(f finding) {
	t.finding, t.reason, t.match = f.result, f.reason, f.match
	t.resumed, t.tlsa = f.resumed, f.tlsa
}

// libraryProblem is the reason of the handshake that has just failed.
func (c *process) libraryProblem(reason string) {
	if n := len(c.tries); n > 0 {
		if t := &c.tries[n-1]; t.outcome == Failed && t.reason == "" && !t.told {
			t.reason = reason
		}
	}
}

// notePort remembers the port of peer: some lines name a host without it.
func (c *process) notePort(peer *peer) {
	if peer != nil && peer.port != 0 {
		c.port = peer.port
	}
}

// native reads "status=success, domain=D, receiving_mx=H[, failure_type=...".
func (p *Parser) native(c *process, at int64, m []byte) {
	_, rest, ok := bytes.Cut(m, []byte(", domain="))
	if !ok {
		return
	}
	domain, rest, ok := bytes.Cut(rest, []byte(", receiving_mx="))
	if !ok {
		return
	}
	host := hostText(rest)
	n := native{host: p.names.text(host), domain: p.names.domain(domain)}
	if c.program == tlsproxy {
		c.mta.noteNative(n, p.names.peer(host), at)
		return
	}
	if t := c.lastWith(p.names.peer(host)); t != nil && !t.native {
		t.native, t.nexthop = true, n.domain
		return
	}
	if len(c.natives) >= maxFindings {
		c.natives = slices.Delete(c.natives, 0, 1)
	}
	c.natives = append(c.natives, n)
}

// takeNative looks for the TLSRPT line that came before the attempt t.
func (c *process) takeNative(t *try) {
	for i, n := range c.natives {
		if strings.HasPrefix(t.peer.text, n.host) {
			t.native, t.lost, t.nexthop = true, n.lost, n.domain
			c.natives = slices.Delete(c.natives, i, i+1)
			return
		}
	}
}

// nativeLost notes that libtlsrpt did not take the latest event.
func (c *process) nativeLost() {
	if n := len(c.natives); n > 0 {
		c.natives[n-1].lost = true
		return
	}
	if n := len(c.tries); n > 0 {
		c.tries[n-1].lost = true
	}
}
