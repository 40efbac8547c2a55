package postfixlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector/tail"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

// numbered is a log whose chunk n has the number n in it, and ends at position n.
// Like a tail.Tail, it uses the room of a chunk again for the next one.
type numbered struct {
	room    []byte
	n, last int // of the chunk that was returned, and of the last one
	end     error
}

func (l *numbered) Next(ctx context.Context) ([]byte, error) {
	if l.n == l.last {
		if l.end == nil {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		return nil, l.end
	}
	l.n++
	l.room = fmt.Appendf(l.room[:0], "2026-11-23T10:00:00Z out postfix/qmgr[1]: x\n2026-11-23T10:00:00Z out postfix/smtp[1]: %d\n", l.n)
	return l.room, nil
}

func (l *numbered) Position() []byte  { return strconv.AppendInt(nil, int64(l.n), 10) }
func (l *numbered) Stats() tail.Stats { return tail.Stats{Gaps: int64(l.n)} }
func (l *numbered) Close() error      { return nil }

// TestAhead: portions come in order, each with the position and the gaps of its own
// chunk, whatever was read since.
func TestAhead(t *testing.T) {
	var unread atomic.Int64
	a := readAhead(t.Context(), &numbered{last: 100, end: io.EOF}, new(sieve), &unread)
	var held []*portion // as many as there are, so that what was read ahead is there too
	n := 0
	check := func(p *portion) {
		n++
		l := p.lines[0]
		got := fmt.Sprintf("%s %s %d %d %d", p.text[l.from+l.parts.message:l.to], p.position, p.gaps, p.all, len(p.lines))
		if want := fmt.Sprintf("%d %d %d 2 1", n, n, n); got != want {
			t.Fatalf("portion %q, want %q", got, want)
		}
		a.giveBack(p)
	}
	for {
		p, err := a.next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if held = append(held, p); len(held) == portions {
			check(held[0])
			held = held[1:]
		}
	}
	for _, p := range held {
		check(p)
	}
	if n != 100 || unread.Load() != 0 {
		t.Errorf("%d portions, %d bytes are not read", n, unread.Load())
	}
	a.close()
}

// TestAheadEnds: who waits for a portion, and who reads, end with their contexts.
func TestAheadEnds(t *testing.T) {
	var unread atomic.Int64
	a := readAhead(t.Context(), &numbered{last: 1}, new(sieve), &unread)
	if _, err := a.next(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancelCause(t.Context())
	cancel(errDisk)
	if _, err := a.next(over); !errors.Is(err, errDisk) {
		t.Errorf("waiting ended with %v", err)
	}
	a.close()
	if _, err := a.next(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("after close: %v", err)
	}
	a = readAhead(over, &numbered{last: 1000}, new(sieve), &unread)
	for range a.ready { // nobody gives anything back
	}
	if !errors.Is(a.err, errDisk) {
		t.Errorf("reading ended with %v", a.err)
	}
}

// ending is a log whose last chunk comes as the context ends.
type ending struct {
	numbered
	chunks [2][]byte
	end    context.CancelFunc
}

func (l *ending) Next(ctx context.Context) ([]byte, error) {
	if l.n == len(l.chunks) {
		return nil, context.Cause(ctx)
	}
	if l.n++; l.n == len(l.chunks) {
		l.end()
	}
	return l.chunks[l.n-1], nil
}

// TestSourceEndsWithChunk: what was read as the context ended is counted, or is not
// part of the position.
func TestSourceEndsWithChunk(t *testing.T) {
	log := loggen.New(loggen.Options{Seed: 4, Domains: 5})
	l, sessions := &ending{}, map[string]int64{"0": 0}
	for i := range l.chunks {
		for range 100 {
			l.chunks[i] = log.Append(l.chunks[i])
		}
		l.chunks[i] = log.AppendRest(l.chunks[i])
		sessions[strconv.Itoa(i+1)] = log.Stats().Sessions
	}
	path := writeLog(t, loggen.New(loggen.Options{}), 0)
	for range 50 {
		ctx, end := context.WithCancel(t.Context())
		s := openLog(t, path, commitKeys)
		s.tail.Close()
		s.tail = &ending{chunks: l.chunks, end: end}
		stored := &ledger{counts: map[string]int64{}}
		if err := s.Run(ctx, stored); err != nil {
			t.Fatal(err)
		}
		at, err := decodeCursor(stored.cursor)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Stats().Counted; len(at.Tail) > 0 && n != sessions[string(at.Tail)] {
			t.Fatalf("%d sessions are counted, the position is %s, where %d end", n, at.Tail, sessions[string(at.Tail)])
		}
	}
}
