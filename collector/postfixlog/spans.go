package postfixlog

import (
	"bytes"
	"cmp"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// DropCounted means that the session was counted before, from another file or by
// a source that follows the log.
const DropCounted Drop = "counted-before"

// maxSpans bounds the machines whose spans a Source keeps apart. Those beyond it
// share one: a session of theirs is rather counted never than twice.
const maxSpans = 500

// spans is what a Source has read of the log of each server, since a gap if there
// was one.
type spans struct {
	of   map[server]*schema.Span
	old  []schema.Span // from before a gap, the newest
	gaps int64         // that the tail told of

	newest newest
}

// newest is the session that came last: most are of the same server as the one
// before.
type newest struct {
	instance, host string // as in the session
	who            server
	span           *schema.Span // nil: it has to be looked for
}

// server is what log lines are from.
type server struct{ instance, host string }

// newSpans continues at the ends that a position has.
func newSpans(ends []schema.Span) spans {
	s := spans{of: make(map[server]*schema.Span)}
	for _, e := range ends {
		s.of[server{e.Instance, e.Host}] = &e
	}
	return s
}

// span is that of a server, which is made if there is none.
func (s *spans) span(who server, at int64) *schema.Span {
	if sp := s.of[who]; sp != nil {
		return sp
	}
	if len(s.of) >= maxSpans {
		who.host = ""
		if sp := s.of[who]; sp != nil {
			return sp
		}
	}
	sp := &schema.Span{Instance: who.instance, Host: who.host, From: at, To: at}
	s.of[who] = sp
	return sp
}

// read adds what a parser has read. gaps is how often something was missing in the
// log so far: what comes after a gap is a span of its own.
func (s *spans) read(all []extent, gaps int64) {
	if gaps != s.gaps {
		s.gaps = gaps
		s.old = slices.Concat(s.old, s.present())
		s.old = s.old[max(0, len(s.old)-maxSpans):]
		clear(s.of)
		s.newest.span = nil
	}
	for _, e := range all {
		sp := s.span(e.of, e.from)
		sp.See(e.from)
		sp.See(e.to)
	}
}

// extent is what was read of the log of a server.
type extent struct {
	of server
	stretch
}

// extents adds to all what was read since the last call.
func (p *Parser) extents(all []extent) []extent {
	for _, m := range p.mtas {
		if m.read != (stretch{}) {
			all = append(all, extent{m.server(), m.read})
			m.read = stretch{}
		}
	}
	return all
}

// list is what the store is to have. It may have it already.
func (s *spans) list() []schema.Span { return slices.Concat(s.old, s.present()) }

// present is the spans that go on, in order.
func (s *spans) present() []schema.Span {
	all := make([]schema.Span, 0, len(s.of))
	for _, who := range slices.SortedFunc(maps.Keys(s.of), func(a, b server) int {
		return cmp.Or(cmp.Compare(a.instance, b.instance), cmp.Compare(a.host, b.host))
	}) {
		all = append(all, *s.of[who])
	}
	return all
}

// ends is where the present spans go on after a restart.
func (s *spans) ends() []schema.Span {
	all := s.present()
	for i := range all {
		all[i] = schema.Span{Instance: all[i].Instance, Host: all[i].Host, From: all[i].To, To: all[i].To}
	}
	return all
}

// stretch is the Unix seconds of the first and the last line.
type stretch struct{ from, to int64 }

func (r *stretch) see(at int64) {
	at /= second
	if r.to == 0 {
		*r = stretch{at, at}
	}
	r.from, r.to = min(r.from, at), max(r.to, at)
}

func (m *mta) server() server { return server{m.root, schema.LogHost(m.host)} }

// ending is the line that ended the session that is being handed on: its Unix
// second, and a hash of what is the same of it in all forms of a log.
func (p *Parser) ending() (at int64, line uint64) {
	e := p.current
	_, pid, _ := bytes.Cut(e.key, []byte("["))
	sum := uint64(crc32.Checksum(e.message, castagnoli))<<32 | uint64(crc32.Checksum(pid, castagnoli))
	return e.at / second, sum
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// note makes the session that the parser hands on part of what was read. It is
// true if it was counted before.
func (s *Source) note(session *finished) (before bool) {
	l := &s.spans.newest
	if l.instance != session.Instance || l.host != session.Host {
		root, _ := s.parser.matches(session.Instance)
		*l = newest{session.Instance, session.Host, server{root, schema.LogHost(session.Host)}, nil}
	}
	at, line := session.at, session.line
	if l.span == nil {
		l.span = s.spans.span(l.who, at)
	}
	l.span.Note(at, line)
	for i := range s.o.Counted {
		if sp := &s.o.Counted[i]; sp.Of(l.who.instance, l.who.host) && sp.Covers(at, line) {
			return true
		}
	}
	return false
}

// beginning says from when on a log is followed of which no line was read yet.
func (s *Source) beginning() []schema.Span {
	o := s.o.Tail
	if s.o.Cursor != nil || !o.Follow || o.FromStart {
		return nil
	}
	now := time.Now().Unix()
	return []schema.Span{{Instance: cmp.Or(s.o.Log.Instance, "postfix"), From: now, To: now}}
}
