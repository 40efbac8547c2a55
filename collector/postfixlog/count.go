package postfixlog

import (
	"context"
	"errors"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// gathered is what a portion of a log has for the counter.
type gathered struct {
	sessions []finished
	read     []extent
	gaps     int64 // before it, see tail.Stats
}

// finished is a session, and the line that ended it, see Parser.ending.
type finished struct {
	Session
	at   int64
	line uint64
}

// gather takes the sessions that p hands on, to be counted later.
func (g *gathered) gather(p *Parser) func(*Session) {
	return func(s *Session) {
		at, line := p.ending()
		g.sessions = append(g.sessions, finished{*s, at, line})
	}
}

// counting counts on a goroutine of its own, while the next lines are parsed. What
// it works on belongs to it: all that is for take, retry and makeRoom. Between rest
// and resume it does nothing.
type counting struct {
	work  chan *gathered
	empty chan *gathered // closed at the end
	held  [gatherings]*gathered
}

// gatherings is how many there are: one is counted while the other is filled.
const gatherings = 2

func (s *Source) startCounting(ctx context.Context) *counting {
	c := &counting{work: make(chan *gathered, gatherings), empty: make(chan *gathered, gatherings)}
	for range gatherings {
		c.empty <- new(gathered)
	}
	go func() {
		defer close(c.empty)
		for g := range c.work {
			s.count(ctx, g)
			c.empty <- g
		}
	}()
	return c
}

// rest returns when all is counted.
func (c *counting) rest() {
	for i := range c.held {
		c.held[i] = <-c.empty
	}
}

func (c *counting) resume() {
	for _, g := range c.held {
		c.empty <- g
	}
}

// close returns when all is counted, and ends the goroutine.
func (c *counting) close() {
	close(c.work)
	for range c.empty {
	}
}

// count counts what was gathered, and what waited for DNS and need not any more.
func (s *Source) count(ctx context.Context, g *gathered) {
	for i := range g.sessions {
		s.take(&g.sessions[i])
	}
	s.spans.read(g.read, g.gaps)
	g.sessions, g.read = g.sessions[:0], g.read[:0]
	s.retry()
	_ = s.makeRoom(ctx) // it failed only if ctx ended, and whoever reads sees that
}

// take judges a session that the parser finished, or has it wait for DNS.
func (s *Source) take(session *finished) {
	if s.note(session) {
		s.drop(DropCounted)
		return
	}
	if !s.judge(&session.Session) {
		s.waiting = append(s.waiting, session.Session)
	}
}

// judge counts or drops a session. It is false if DNS has yet to answer.
func (s *Source) judge(session *Session) bool {
	if s.o.Native && session.Native && !session.NativeLost {
		s.drop(DropNative)
		return true
	}
	var answer policy.Answer
	var err error
	if s.o.Finder != nil {
		if answer, err = s.o.Finder.Find(session.Domain, session.MX); errors.Is(err, policy.ErrPending) {
			return false
		}
	}
	of := session.recipient
	if of == nil {
		of = s.names.recipient([]byte(session.Domain))
	}
	if session.Result == "" && s.again(session, of, answer, err) {
		return true
	}
	v, drop := verdict(session, answer, err)
	if drop == "" && !s.known.add(s.counter, v, of) {
		drop = DropNoDomain
	}
	if drop != "" {
		s.drop(drop)
	}
	return true
}

// again counts a session like one before, if it succeeded without a policy, as
// most do. It says what verdict does, and builds nothing.
func (s *Source) again(session *Session, of *recipient, answer policy.Answer, err error) bool {
	p, drop := policyOf(session, answer, err)
	return drop == "" && p.Type == schema.NoPolicyFound && p.Domain == session.Domain &&
		s.known.success(schema.DayOf(session.Time), of, answer.Record)
}

func (s *Source) drop(why Drop) {
	s.mu.Lock()
	s.stats.Dropped[why]++
	s.mu.Unlock()
}

// retry judges the sessions that wait for DNS.
func (s *Source) retry() {
	kept := s.waiting[:0]
	for i := range s.waiting {
		if !s.judge(&s.waiting[i]) {
			kept = append(kept, s.waiting[i])
			continue
		}
		s.judged.Store(true)
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
	s.mu.Lock()
	s.stats.Waiting = len(s.waiting)
	s.mu.Unlock()
}

// makeRoom waits until few enough sessions wait for DNS to fit a position.
func (s *Source) makeRoom(ctx context.Context) error {
	for len(s.waiting) > maxWaiting {
		if err := s.o.Finder.Wait(ctx); err != nil {
			return err
		}
		s.retry()
	}
	return ctx.Err()
}

// settleWaiting judges all sessions that wait, at the end of a log.
func (s *Source) settleWaiting(ctx context.Context) error {
	for s.retry(); len(s.waiting) > 0; s.retry() {
		if err := s.o.Finder.Wait(ctx); err != nil {
			return nil // they are in the position
		}
	}
	return nil
}
