package postfixlog

import (
	"context"
	"sync/atomic"
)

// ahead reads a log on a goroutine of its own, and sifts it: while the Source
// counts what is in one chunk, the next ones are made ready on another processor.
type ahead struct {
	ready chan *portion // closed at the end
	free  chan *portion
	err   error // why it ended, once ready is closed
	stop  context.CancelFunc

	unread *atomic.Int64 // bytes of portions that are not done with
}

// portion is a chunk of a log, sifted.
type portion struct {
	sifted
	size     int    // of the chunk, in bytes
	position []byte // of the log, after the chunk
	gaps     int64  // in the log so far, see tail.Stats
}

// portions is how many there are: one that is counted, one that is ready, and one
// that is being read. Each is about 0.3 MB.
const portions = 3

// readAhead reads log until it or ctx ends. Nobody else may until close. It keeps
// account of the bytes that are read and not yet given back.
func readAhead(ctx context.Context, log reader, s *sieve, unread *atomic.Int64) *ahead {
	a := &ahead{ready: make(chan *portion, portions), free: make(chan *portion, portions), unread: unread}
	for range portions {
		a.free <- new(portion)
	}
	ctx, a.stop = context.WithCancel(ctx)
	go func() {
		defer close(a.ready)
		a.err = a.read(ctx, log, s)
	}()
	return a
}

func (a *ahead) read(ctx context.Context, log reader, s *sieve) error {
	for {
		var p *portion
		select {
		case p = <-a.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		chunk, err := log.Next(ctx)
		if err != nil {
			return err
		}
		s.sift(&p.sifted, chunk)
		p.size, p.position, p.gaps = len(chunk), log.Position(), log.Stats().Gaps
		a.unread.Add(int64(p.size))
		a.ready <- p
	}
}

// next is the next portion, to be given back when it is done with. The error is
// that of ctx, or that of the log.
func (a *ahead) next(ctx context.Context) (*portion, error) {
	select {
	case p, ok := <-a.ready:
		if !ok {
			return nil, a.err
		}
		return p, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (a *ahead) giveBack(p *portion) {
	a.unread.Add(-int64(p.size))
	a.free <- p
}

// close ends the reading, and waits for its end.
func (a *ahead) close() {
	a.stop()
	for range a.ready { // what is there is read again at the next start
	}
}
