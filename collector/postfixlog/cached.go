package postfixlog

import (
	"slices"
	"time"
)

// caching is how long a connection may be used again
// (smtp_connection_reuse_time_limit).
const caching = int64(5 * time.Minute)

// noteCached remembers that a connection with peer was used again.
func (m *mta) noteCached(peer *peer, at int64) {
	for i := len(m.cached) - 1; i >= 0; i-- {
		if s := &m.cached[i]; s.peer.same(peer) {
			s.at = at
			return
		}
	}
	m.cached = appendBounded(m.cached, sighting{peer: peer, at: at})
}

// caches reports whether connections with peer are used again about a time.
func (m *mta) caches(peer *peer, at int64) bool {
	return slices.ContainsFunc(m.cached, func(s sighting) bool {
		return s.peer.same(peer) && s.at >= at-caching
	})
}

// refusedBy is the attempt with peer that went on after some of its recipients were
// refused. Lines without recipient said so, as those are tried elsewhere. Where no
// TLS line came before them, d is the first to say whether there was TLS, or whether
// the connection was a cached one, which is no session.
func (c *process) refusedBy(peer *peer, at int64, d delivery) *try {
	t := c.waiting(func(t *try) bool { return t.refused && t.peer.same(peer) })
	switch {
	case t == nil || t.outcome != Plaintext:
	case d.reused:
		t.told = true
		c.mta.noteCached(peer, at)
	case d.usedTLS() && *c.logged:
		t.told = true // its TLS line was lost
	case d.usedTLS():
		c.encrypted(t)
	}
	return t
}
