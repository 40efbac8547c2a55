package libtlsrpt

import (
	"context"
	"errors"
	"os"
	"time"
)

// lookInterval is the time between two looks at the socket file. Once it is gone,
// by a clean-up of its directory or by hand, no MTA finds the socket any more, and
// nothing would tell.
const lookInterval = 2 * time.Second

// toldInterval is the time between two lines of the log that say the same.
const toldInterval = time.Minute

// receiveAll is receive for one socket after the other, each made where the file
// of the one before is gone.
func (s *Source) receiveAll(ctx context.Context, queue *queue) error {
	l := s.at
	for {
		here, leave := context.WithCancel(ctx)
		next := make(chan *listener, 1)
		go func() {
			next <- s.replacement(here, l)
			leave() // what was sent to l before is in its queue, and taken first
		}()
		err := s.receive(here, l, queue)
		leave()
		old := l
		if l = <-next; err != nil || l == nil {
			return err // Close closes what is open
		}
		_ = old.close()
	}
}

// replacement waits until the file of l is gone, and makes a new socket in its
// place. It is nil if ctx ends before. The place of a socket that was passed is
// for others to take again.
func (s *Source) replacement(ctx context.Context, l *listener) *listener {
	tick := time.NewTicker(s.look)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.held(l) {
			continue
		}
		err := errPassed
		if l.place != nil {
			var next *listener
			if next, err = bind(s.options); err == nil {
				return s.install(next)
			}
		}
		if now := time.Now(); now.Sub(told) >= toldInterval {
			told = now
			s.logger.Error("the socket file is gone, and no session can be received", "source", s.name, "error", err)
		}
	}
}

var errPassed = errors.New("it was passed to the agent: restart who made it, a socket unit normally, and then the agent")

// held reports whether the file of l is where it was.
func (s *Source) held(l *listener) bool {
	if l.place != nil {
		return l.place.Held()
	}
	now, err := os.Lstat(s.options.Path)
	return l.found == nil || err == nil && os.SameFile(l.found, now)
}

// install has Close close next from now on. It is nil if that is over already.
func (s *Source) install(next *listener) *listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = next.close()
		return nil
	}
	s.at = next
	s.logger.Warn("the socket file was gone, the socket was made anew; what was sent meanwhile is lost", "source", s.name)
	return next
}
