package postfixlog

import "context"

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

// gather is Parse, and Flush, for what is counted later.
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
