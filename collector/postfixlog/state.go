package postfixlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrState means that a state is not one that this version wrote. The parser has
// seen nothing then: sessions that were waiting are lost, no session is wrong.
var ErrState = errors.New("postfixlog: unknown parser state")

const (
	stateVersion = 2
	maxState     = 512 << 10 // bytes
)

// State is what the parser waits for and remembers, at most 512 KiB. Where more
// waits, the oldest is dropped and counted, here too.
func (p *Parser) State() []byte {
	b := p.encodeBase()
	if len(b) > maxState/2 {
		for _, m := range p.mtas {
			clear(m.memory)
			m.recent = ring{}
		}
		b = p.encodeBase()
	}
	keys := slices.SortedFunc(maps.Keys(p.processes), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.processes[b].seen, p.processes[a].seen), cmp.Compare(a, b))
	})
	full := false
	for _, key := range keys {
		c := p.processes[key]
		if c.mta == nil {
			continue
		}
		one := codec{}
		one.text(&key)
		c.code(&one)
		if full = full || len(b)+len(one.b) > maxState; full {
			p.giveUp(c, DropOverflow)
			delete(p.processes, key)
			continue
		}
		b = append(b, one.b...)
	}
	clear(p.busy[:])
	return b
}

// Restore continues where State left off. nil is the state of a parser that has
// seen nothing. The options should be the same. The error is ErrState.
func (p *Parser) Restore(state []byte) error {
	p.reset()
	if len(state) == 0 {
		return nil
	}
	c := codec{b: state, reading: true, names: &p.names}
	p.codeBase(&c)
	for !c.bad && len(c.b) > 0 {
		var key string
		c.text(&key)
		if c.bad {
			break
		}
		one := p.newProcess(key, other)
		one.code(&c)
		if one.mta == nil {
			continue // the instance of the options is another one now
		}
		p.processes[key] = one
	}
	if c.bad {
		p.reset()
		return fmt.Errorf("%w: %d bytes", ErrState, len(state))
	}
	return nil
}

func (p *Parser) encodeBase() []byte {
	c := codec{}
	p.codeBase(&c)
	return c.b
}

// codeBase codes all but the processes.
func (p *Parser) codeBase(c *codec) {
	c.version = stateVersion
	if c.number(&c.version); c.version < 1 || c.version > stateVersion {
		c.bad = true
		return
	}
	c.number(&p.clock.last)
	c.number(&p.sweepAt)
	own := p.own.order
	codeList(c, &own, func(s *string) { c.text(s) })
	keys := slices.Sorted(maps.Keys(p.mtas))
	codeList(c, &keys, func(key *string) {
		c.text(key)
		m := p.mtas[*key]
		if m == nil {
			m = newMTA("", "")
			p.mtas[*key] = m
		}
		m.code(c)
	})
	if c.reading {
		for _, id := range own {
			p.own.add(id)
		}
	}
}

// code codes what processes share.
func (m *mta) code(c *codec) {
	c.text(&m.host)
	c.text(&m.root)
	c.flag(&m.proxied)
	c.number(&m.settled)
	levels := slices.Sorted(maps.Keys(m.levels))
	codeList(c, &levels, func(s *string) {
		c.text(s)
		c.flag(m.logs(*s))
	})
	codeList(c, &m.failures, func(f *failure) { f.code(c) })
	codeList(c, &m.orphans, func(o *orphan) { o.code(c, m) })
	codeList(c, &m.unusable, func(s *sighting) { s.code(c) })
	codeList(c, &m.natives, func(s *sighting) { s.code(c) })
	if c.since(2) {
		codeList(c, &m.cached, func(s *sighting) { s.code(c) })
	}
	ended := m.ended.ids[:]
	codeList(c, &ended, func(e *endedID) {
		c.hash(&e.hash)
		c.number(&e.at)
	})
	copy(m.ended.ids[:], ended)
	c.flag(&m.ended.any)
	next := int64(m.ended.next)
	c.number(&next)
	m.ended.next = int(uint64(next) % uint64(len(m.ended.ids)))
	keys := m.recent.oldestFirst()
	codeList(c, &keys, func(key *string) {
		c.text(key)
		v := m.memory[*key]
		v.code(c)
		m.memory[*key] = v
	})
	m.recent = ring{keys: keys}
	if len(keys) > maxMemory || len(keys) != len(m.memory) {
		c.bad = true
	}
}

func (f *failure) code(c *codec) {
	c.peer(&f.peer)
	c.number(&f.at)
	c.text(&f.domain)
	if f.peer == nil {
		c.bad = true
	}
}

func (o *orphan) code(c *codec, m *mta) {
	o.t.code(c)
	o.process.mta = m
	c.text(&o.process.host)
	c.text(&o.process.instance)
	o.process.code(c)
	o.process.logged = m.logs(o.process.instance)
}

func (s *sighting) code(c *codec) {
	c.peer(&s.peer)
	c.number(&s.at)
	c.text(&s.domain)
	c.flag(&s.lost)
}

func (v *memory) code(c *codec) {
	c.text((*string)(&v.result))
	c.text(&v.reason)
	c.number(&v.at)
	c.flag(&v.proxy)
	c.flag(&v.mixed)
}

// code codes all but what the key of a process says.
func (c *process) code(s *codec) {
	s.small((*uint8)(&c.program))
	s.number(&c.seen)
	id := string(c.message[:c.idLen])
	s.text(&id)
	c.idLen = copy(c.message[:], id)
	s.flag(&c.own)
	s.text(&c.domain)
	port := int64(c.port)
	s.number(&port)
	c.port = uint16(port)
	s.flag(&c.noTLS)
	s.flag(&c.noNext)
	codeList(s, &c.tries, func(t *try) { t.code(s) })
	codeList(s, &c.findings, func(f *finding) { f.code(s) })
	codeList(s, &c.natives, func(n *native) { n.code(s) })
}

func (t *try) code(c *codec) {
	c.peer(&t.peer)
	for _, s := range []*string{
		&t.host, &t.nexthop, (*string)(&t.result), &t.reason,
		(*string)(&t.finding), (*string)(&t.match), &t.level, &t.actual, &t.domain,
	} {
		c.text(s)
	}
	c.number(&t.at)
	c.small((*uint8)(&t.outcome))
	c.hash(&t.delays)
	for _, f := range []*bool{
		&t.enforced, &t.resumed, &t.tlsa, &t.proxied, &t.owned, &t.closed, &t.told, &t.native, &t.lost,
	} {
		c.flag(f)
	}
	if c.since(2) {
		c.flag(&t.refused)
	}
}

func (f *finding) code(c *codec) {
	c.peer(&f.peer)
	c.text((*string)(&f.result))
	c.text(&f.reason)
	c.text((*string)(&f.match))
	c.flag(&f.resumed)
	c.flag(&f.tlsa)
}

func (n *native) code(c *codec) {
	c.text(&n.host)
	c.text(&n.domain)
	c.flag(&n.lost)
}

// codec writes a state, or reads one: each list of fields serves both.
type codec struct {
	b       []byte // what is written, or what is left to read
	reading bool
	bad     bool // what is left cannot be read
	version int64
	names   *names
}

// since reports whether what is read or written has the fields of a version.
func (c *codec) since(version int64) bool { return !c.reading || c.version >= version }

func (c *codec) number(v *int64) {
	if !c.reading {
		c.b = binary.AppendVarint(c.b, *v)
		return
	}
	n, size := binary.Varint(c.b)
	if c.bad || size <= 0 {
		c.bad = true
		return
	}
	*v, c.b = n, c.b[size:]
}

func (c *codec) hash(v *uint64) {
	n := int64(*v)
	c.number(&n)
	*v = uint64(n)
}

func (c *codec) small(v *uint8) {
	n := int64(*v)
	c.number(&n)
	*v = uint8(n)
}

func (c *codec) flag(v *bool) {
	var n int64
	if *v {
		n = 1
	}
	c.number(&n)
	*v = n == 1
}

func (c *codec) text(s *string) {
	n := int64(len(*s))
	c.number(&n)
	if !c.reading {
		c.b = append(c.b, *s...)
		return
	}
	if c.bad || n < 0 || n > int64(len(c.b)) {
		c.bad = true
		return
	}
	*s = c.names.text(c.b[:n])
	c.b = c.b[n:]
}

func (c *codec) peer(p **peer) {
	var text string
	if *p != nil {
		text = (*p).text
	}
	c.text(&text)
	if c.reading && text != "" && !c.bad {
		*p = c.names.peer([]byte(text))
	}
}

// codeList codes the length of a list and each element.
func codeList[T any](c *codec, list *[]T, each func(*T)) {
	n := int64(len(*list))
	c.number(&n)
	if !c.reading {
		for i := range *list {
			each(&(*list)[i])
		}
		return
	}
	if c.bad || n < 0 || n > int64(len(c.b)) {
		c.bad = true
		return
	}
	*list = nil
	for range n {
		var v T
		if each(&v); c.bad {
			return
		}
		*list = append(*list, v)
	}
}
