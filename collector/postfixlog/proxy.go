package postfixlog

import (
	"bytes"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// mta is what the processes of one Postfix instance on one host share: above
// all, what tlsproxy(8) says about the sessions of smtp(8). It says only the
// address, and no line of it names a message.
type mta struct {
	host, root string
	read       stretch // since the Source asked last

	// levels says of each instance whether its log has shown TLS lines, since it
	// was started or settled.
	levels  map[string]*bool
	settled int64 // when no delivery from before the last reload, or the log, is left

	// proxied says that tlsproxy(8) does the handshakes of a client.
	proxied bool

	failures []failure // handshakes that failed in tlsproxy, oldest first
	orphans  []orphan  // failed sessions whose line of tlsproxy has not come yet
	unusable []sighting
	natives  []sighting
	cached   []sighting // when a connection without TLS was last used again

	// memory is the latest fault of the certificate of a peer, by "H": a
	// resumed session does not say again what was wrong.
	memory map[string]memory
	recent ring // the keys of memory

	ended endedIDs
}

func newMTA(host, root string) *mta {
	return &mta{host: host, root: root, levels: make(map[string]*bool), memory: make(map[string]memory)}
}

// logs is whether TLS lines of an instance were seen.
func (m *mta) logs(instance string) *bool {
	seen, ok := m.levels[instance]
	if !ok {
		seen = new(bool)
		m.levels[instance] = seen
	}
	return seen
}

// settling is how long a client may go on with the settings that it was started
// with: a reload lets it finish its delivery. What such a one logs says nothing
// about the others.
const settling = int64(10 * time.Minute)

// restarted notes that the settings may be others now. message is a line of
// master(8).
func (m *mta) restarted(at int64, message []byte) {
	m.settled = at
	if hasPrefix(message, "reload") {
		m.settled += settling
	}
	for _, seen := range m.levels {
		*seen = false
	}
}

// endedIDs is the short queue ids that were "removed" of late. Such an id comes
// again, and then it is another message.
type endedIDs struct {
	ids  [64]endedID
	next int
	any  bool
}

type endedID struct {
	hash uint64
	at   int64
}

func (e *endedIDs) add(id []byte, at int64) {
	e.any = true
	e.ids[e.next] = endedID{fnv1a(id), at}
	e.next = (e.next + 1) % len(e.ids)
}

// take reports whether id has ended before a time, and forgets that.
func (e *endedIDs) take(id []byte, at int64) bool {
	if !e.any {
		return false
	}
	h, found := fnv1a(id), false
	for i := range e.ids {
		if e.ids[i].hash == h && e.ids[i].at < at {
			e.ids[i], found = endedID{}, true
		}
	}
	return found
}

// failure is a line "TLS handshake failed" of tlsproxy.
type failure struct {
	peer   *peer // without name
	at     int64
	domain string // of a TLSRPT line about it, or ""
}

// orphan is a failed session that only tlsproxy's line can confirm.
type orphan struct {
	t       try
	process process // as it was
}

// sighting is a line about peer that tells something of sessions with it.
type sighting struct {
	peer   *peer
	at     int64
	domain string
	lost   bool
}

// memory is why a certificate failed.
type memory struct {
	result schema.ResultType
	reason string
	at     int64
	proxy  bool // tlsproxy said so
	mixed  bool // it said something else shortly before
}

const (
	// joinWindow is how far a line of tlsproxy and that of its client may be
	// apart. They are written one after the other.
	joinWindow = 10 * int64(time.Second)

	maxSightings = 256
	maxMemory    = 1024
)

// mta is the one of a host and the root of an instance.
func (p *Parser) mta(host, root string) *mta {
	key := host + " " + root
	m, ok := p.mtas[key]
	if !ok {
		m = newMTA(host, root)
		// A log seldom begins with the first line of a delivery: what ends now may
		// have begun with a TLS line that is not there.
		m.settled = p.current.at + settling
		p.mtas[key] = m
	}
	return m
}

// proxyLine reads a message of tlsproxy(8). Its summary of a session is logged
// by smtp(8) too, and is not read.
func (p *Parser) proxyLine(c *process, at int64, m []byte) {
	switch m[0] {
	case 'C':
		if hasPrefix(m, "CONNECT to [") {
			c.mta.proxied = true
			return
		}
		p.certificateLine(c, at, m)
	case 'T':
		if rest, ok := cut(m, "TLS handshake failed for service="); ok {
			p.proxyFailure(c, at, rest)
		} else if rest, ok := cut(m, "TLSRPT: "); ok {
			p.native(c, at, rest)
		}
	case 's', 'c':
		p.certificateLine(c, at, m)
	case 'w':
		if rest, ok := cut(m, "warning: "); ok {
			p.proxyWarning(c, at, rest)
		}
	default:
		p.hostLine(c, at, m)
	}
}

// proxyWarning reads what follows "warning: " in a line of tlsproxy. Between the
// library's reason and the failure it is for, nothing else of the process is
// logged, but other sessions of it go on.
func (p *Parser) proxyWarning(c *process, at int64, m []byte) {
	if hasPrefix(m, "Could not report TLS handshake result") {
		p.stats.NativeLost[c.instance]++
		if n := len(c.mta.natives); n > 0 {
			c.mta.natives[n-1].lost = true
		}
		return
	}
	if hasPrefix(m, "ciphertext read/write timeout for ") {
		return
	}
	p.warning(c, at, m)
}

// proxyFailure reads "smtp peer=[192.0.2.1]:25". It confirms the session that
// waits for it, or waits for its session.
func (p *Parser) proxyFailure(c *process, at int64, rest []byte) {
	service, rest, ok := bytes.Cut(rest, []byte(" peer="))
	peer := p.names.peer(rest)
	if !ok || peer == nil || string(service) == "smtpd" {
		return
	}
	m := c.mta
	m.proxied = true
	for i := range m.orphans {
		if o := m.orphans[i]; o.t.peer.same(peer) && at-o.t.at <= joinWindow {
			m.orphans = slices.Delete(m.orphans, i, i+1)
			o.t.proxied, o.t.told = false, false
			p.finish(&o.process, &o.t)
			return
		}
	}
	f := failure{peer: peer, at: at}
	for _, n := range m.natives {
		if n.peer.same(peer) && n.at >= at-second {
			f.domain = n.domain
		}
	}
	m.failures = appendBounded(m.failures, f)
}

// joinProxy finds the failure in tlsproxy that is the attempt t of smtp(8). It
// is false if t is dropped, or waits.
func (p *Parser) joinProxy(c *process, t *try) bool {
	m := c.mta
	if t.peer != nil {
		if i := m.failure(t, func(f failure) bool { return f.peer.same(t.peer) }); i >= 0 {
			m.claim(i)
			return true
		}
		if m.proxied {
			t.told = true
			m.wait(p, c, t)
			return false
		}
		p.drop(c, t, DropUnjoined)
		return false
	}
	i := m.only(t, c.domain)
	if i < 0 {
		p.drop(c, t, DropUnjoined)
		return false
	}
	t.peer = m.failures[i].peer
	m.claim(i)
	return true
}

// failure is the index of the oldest failure that may be t's and that ok holds
// for, -1 if there is none.
func (m *mta) failure(t *try, ok func(failure) bool) int {
	for i, f := range m.failures {
		if f.near(t.at) && ok(f) {
			return i
		}
	}
	return -1
}

func (f failure) near(at int64) bool {
	return f.at >= at-joinWindow && f.at <= at+2*second
}

func (m *mta) claim(i int) { m.failures = slices.Delete(m.failures, i, i+1) }

// only is the index of the one failure that can be t's: all others are those of
// other sessions. It is -1 if there is none, or several with different hosts.
func (m *mta) only(t *try, domain string) int {
	found := -1
	for i, f := range m.failures {
		switch {
		case !f.near(t.at):
		case f.domain != "" && f.domain == domain:
			return i
		case f.domain != "":
		case found >= 0 && !m.failures[found].peer.same(f.peer):
			return -1
		default:
			found = i
		}
	}
	return found
}

// wait keeps a failed session for the line of tlsproxy that may be late.
func (m *mta) wait(p *Parser, c *process, t *try) {
	if len(m.orphans) >= maxSightings {
		old := m.orphans[0]
		m.orphans = slices.Delete(m.orphans, 0, 1)
		p.drop(&old.process, &old.t, DropUnjoined)
	}
	o := orphan{t: *t, process: *c}
	o.process.tries, o.process.findings, o.process.natives = nil, nil, nil
	m.orphans = append(m.orphans, o)
}

// proxyFallback reports whether the attempt with peer, without TLS, is the
// second one after a handshake that failed in tlsproxy. That attempt is then
// known to be with peer.
func (p *Parser) proxyFallback(c *process, peer *peer) bool {
	t := c.waiting(func(t *try) bool { return t.proxied && t.peer == nil })
	if t == nil {
		return false
	}
	if i := c.mta.failure(t, func(f failure) bool { return f.peer.same(peer) }); i >= 0 {
		t.peer, t.host = peer, peer.host
	}
	return true
}

// waiting is the latest attempt that waits for its recipient and that ok holds for.
func (c *process) waiting(ok func(*try) bool) *try {
	for i := len(c.tries) - 1; i >= 0; i-- {
		if t := &c.tries[i]; !t.told && t.closed && ok(t) {
			return t
		}
	}
	return nil
}

// noteUnusable remembers that tlsproxy found no usable TLSA record of peer.
func (m *mta) noteUnusable(peer *peer, at int64) {
	m.unusable = appendBounded(m.unusable, sighting{peer: peer, at: at})
}

// takeUnusable reports whether it did so for the session with peer at a time.
func (m *mta) takeUnusable(peer *peer, at int64) bool {
	for i, s := range m.unusable {
		if s.peer.same(peer) && at-s.at <= joinWindow {
			m.unusable = slices.Delete(m.unusable, i, i+1)
			return true
		}
	}
	return false
}

// noteNative remembers a TLSRPT line of tlsproxy. It comes before or after the
// line about the failure.
func (m *mta) noteNative(n native, peer *peer, at int64) {
	if peer == nil {
		return
	}
	for i := len(m.failures) - 1; i >= 0; i-- {
		if f := &m.failures[i]; f.peer.same(peer) && f.domain == "" && f.at >= at-second {
			f.domain = n.domain
			break
		}
	}
	m.natives = appendBounded(m.natives, sighting{peer: peer, at: at, domain: n.domain})
}

// takeNative looks for the TLSRPT line of tlsproxy about the session t of a
// domain.
func (m *mta) takeNative(t *try, domain string) {
	for i, n := range m.natives {
		if n.peer.same(t.peer) && n.domain == domain && n.at >= t.at-joinWindow {
			t.native, t.lost = true, n.lost
			m.natives = slices.Delete(m.natives, i, i+1)
			return
		}
	}
}

// appendBounded adds v. The oldest element goes where there are too many.
func appendBounded[T any](list []T, v T) []T {
	if len(list) >= maxSightings {
		list = slices.Delete(list, 0, 1)
	}
	return append(list, v)
}

// remember keeps why the certificate of peer failed.
func (m *mta) remember(peer *peer, at int64, f finding, proxy bool) {
	old, ok := m.memory[peer.text]
	if !ok {
		if gone, full := m.recent.add(peer.text); full {
			delete(m.memory, gone)
		}
	}
	m.memory[peer.text] = memory{
		result: f.result, reason: f.reason, at: at, proxy: proxy,
		mixed: ok && old.result != f.result && at-old.at <= 6*joinWindow,
	}
}

// ring is the last maxMemory keys, each once.
type ring struct {
	keys []string
	next int // of keys, the oldest one if they are maxMemory
}

// add adds key, and takes the oldest one away if they are too many.
func (r *ring) add(key string) (gone string, full bool) {
	if len(r.keys) < maxMemory {
		r.keys = append(r.keys, key)
		return "", false
	}
	gone, r.keys[r.next] = r.keys[r.next], key
	r.next = (r.next + 1) % maxMemory
	return gone, true
}

// oldestFirst is the keys in the order in which they came.
func (r *ring) oldestFirst() []string {
	return slices.Concat(r.keys[r.next:], r.keys[:r.next])
}

// recall is the latest fault of the certificate of peer.
func (m *mta) recall(peer *peer) (schema.ResultType, string) {
	v := m.memory[peer.text]
	return v.result, v.reason
}

// seenByProxy is the fault that tlsproxy saw in the certificate of peer, in a
// session that began at a time and was given up later.
func (m *mta) seenByProxy(peer *peer, began, ended int64) (schema.ResultType, string) {
	if peer == nil {
		return "", ""
	}
	v, ok := m.memory[peer.text]
	switch {
	case !ok || !v.proxy || v.at < began-joinWindow || v.at > ended+second:
		return "", ""
	case v.mixed:
		// Which of two sessions with this host it was, nobody knows.
		return schema.ValidationFailure, ""
	}
	return v.result, v.reason
}

// sweepProxy gives up what waits for tlsproxy, or for a client of it.
func (p *Parser) sweepProxy(m *mta, at int64) {
	late := func(t int64) bool { return at-t > 6*joinWindow }
	m.orphans = slices.DeleteFunc(m.orphans, func(o orphan) bool {
		if late(o.t.at) {
			p.drop(&o.process, &o.t, DropUnjoined)
			return true
		}
		return false
	})
	m.failures = slices.DeleteFunc(m.failures, func(f failure) bool { return late(f.at) })
	m.unusable = slices.DeleteFunc(m.unusable, func(s sighting) bool { return late(s.at) })
	m.natives = slices.DeleteFunc(m.natives, func(s sighting) bool { return late(s.at) })
	m.cached = slices.DeleteFunc(m.cached, func(s sighting) bool { return at-s.at > caching })
}
