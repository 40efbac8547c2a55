package libtlsrpt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Source is the socket that an MTA sends its sessions to. It implements
// [collector.Source].
type Source struct {
	name      string
	sendingIP netip.Addr
	logger    *slog.Logger

	options Options       // to listen anew
	look    time.Duration // the constant; tests look more often

	mu     sync.Mutex
	at     *listener // where datagrams come to
	closed bool

	counter atomic.Pointer[collector.Counter] // nil before Run
	numbers numbers
	sampler sampler
	decode  func([]byte) (schema.Session, error)
}

var _ collector.Native = (*Source)(nil)

// Native implements [collector.Native].
func (*Source) Native() {}

// numbers is Stats in the making.
type numbers struct {
	received, decoded, cached atomic.Int64
	malformed                 [len(classes)]atomic.Int64
}

// Stats says what became of datagrams since the start.
type Stats struct {
	Received  int64 // datagrams, all that follow
	Counted   int64 // handed to the counter, as a session each
	Malformed int64 // refused
	Truncated int64 // of Malformed: longer than 256 KiB
	CacheHits int64 // of Counted: the same as an earlier one, byte for byte

	// Faults is Malformed by class: "syntax", "type", "member", "value",
	// "version", "domain", "bounds", "truncated", "internal". Classes without
	// datagrams are there too.
	Faults map[string]int64

	Counter collector.Stats // what became of the sessions
}

// Name tells the source apart from others of a store.
func (s *Source) Name() string { return s.name }

// Stats is a snapshot. It may be taken at any time.
func (s *Source) Stats() Stats {
	st := Stats{
		Received:  s.numbers.received.Load(),
		CacheHits: s.numbers.cached.Load(),
		Faults:    make(map[string]int64, len(classes)),
	}
	for i, c := range classes {
		n := s.numbers.malformed[i].Load()
		st.Faults[string(c)] = n
		st.Malformed += n
	}
	st.Truncated = st.Faults[string(badTruncated)]
	st.Counted = s.numbers.decoded.Load() + st.CacheHits
	if c := s.counter.Load(); c != nil {
		st.Counter = c.Stats()
	}
	return st
}

// Close gives up the socket without running the source, or ends Run as an error
// would. The socket file goes if Listen made it.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.at.close()
}

// Run counts what is sent to the socket until ctx ends, and hands the counts to
// sink at least once a second. If someone removes the socket file, it makes the
// socket anew. At the end it removes the socket file, takes what the queue of the
// socket still holds, and commits the rest. It can be called once.
//
// The error is that of the socket, or says how many sessions could not be
// committed in the end.
func (s *Source) Run(ctx context.Context, sink collector.Sink) error {
	defer s.Close()
	counter := collector.NewCounter(sink, s.name, collector.CounterOptions{Logger: s.logger})
	s.counter.Store(counter)
	counting, stopCounting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCounting()
	queue := newQueue()
	var decoding, committing sync.WaitGroup
	decoding.Go(func() { s.decodeAll(queue, counter) })
	var commitErr error
	committing.Go(func() { commitErr = counter.Run(counting) })

	err := s.receiveAll(ctx, queue)
	queue.close()
	decoding.Wait()
	stopCounting()
	committing.Wait()
	return errors.Join(err, commitErr)
}

// receive moves datagrams from the socket l to the queue until ctx ends and the
// socket is empty.
func (s *Source) receive(ctx context.Context, l *listener, queue *queue) error {
	recv, err := newReceiver(l.conn)
	if err != nil {
		return fmt.Errorf("libtlsrpt: %s: %w", s.name, err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		interrupt(l.conn)
		close(interrupted)
	})
	var day schema.Day
	fresh := false // whether day is of this burst
	each := func(datagram []byte) {
		if !fresh {
			day, fresh = schema.DayOf(time.Now()), true
		}
		truncated := len(datagram) > maxDatagram
		if truncated {
			datagram = datagram[:sampleSize]
		}
		queue.put(day, datagram, truncated)
	}
	for err == nil && ctx.Err() == nil {
		fresh = false
		err = recv.burst(each)
	}
	if !stop() {
		<-interrupted // so that it does not hit rest
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		// Without its name nobody finds the socket any more, who had found it is
		// refused from now on, and what was sent before is in the queue: nothing is
		// lost between the two. A socket that was passed goes on without us.
		l.unbind()
		if l.place != nil {
			_ = l.conn.CloseRead()
		}
		fresh = false
		err = recv.rest(each)
	}
	if err != nil {
		return fmt.Errorf("libtlsrpt: receiving from %s: %w", s.name, err)
	}
	return nil
}

// After a chunk of fewer than fullChunk bytes the decoder pauses, so that the
// receiver need not wake it for each datagram: that would cost more than all the
// rest of its work.
const (
	fullChunk   = 64 << 10
	decodePause = time.Millisecond
)

// maxPauses bounds how long the decoder waits for commits after a chunk, in pauses.
const maxPauses = 1000

func (s *Source) decodeAll(queue *queue, counter *collector.Counter) {
	cache := newCache()
	var c chunk
	for queue.take(&c) {
		s.numbers.received.Add(int64(len(c.spans)))
		start := 0
		for _, span := range c.spans {
			s.count(counter, cache, span, c.bytes[start:span.end])
			start = span.end
		}
		if c.size() < fullChunk {
			time.Sleep(decodePause)
		}
		c.reset()
		// What comes meanwhile waits in the queues. Sessions that all differ would
		// otherwise fill the memory, and keep the commits from the processor.
		for n := 0; n < maxPauses && counter.Behind(); n++ {
			time.Sleep(decodePause)
		}
	}
}

// count counts one datagram as a session, or as malformed.
func (s *Source) count(counter *collector.Counter, cache *cache, at span, datagram []byte) {
	if at.truncated {
		s.malformed(datagram, bad(badTruncated, "it has more than %d bytes", maxDatagram))
		return
	}
	var key digest
	cached := cache.takes(datagram)
	if cached {
		key = cache.digest(datagram)
		if cache.again(counter, at.day, key) {
			s.numbers.cached.Add(1)
			return
		}
	}
	session, err := s.safeDecode(datagram)
	if err != nil {
		s.malformed(datagram, err)
		return
	}
	s.hidePrivate(session)
	place := counter.Add(at.day, session)
	s.numbers.decoded.Add(1)
	if cached {
		cache.put(key, place)
	}
}

// safeDecode is the last resort against a defect of ours or of a library: what a
// stranger sends must not end the process.
func (s *Source) safeDecode(datagram []byte) (session schema.Session, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = bad(badInternal, "decoding it panicked: %v", p)
		}
	}()
	return s.decode(datagram)
}

// hidePrivate takes from s each sending address that means something only in the
// network of the MTA.
func (s *Source) hidePrivate(session schema.Session) {
	for _, r := range session.Results {
		for i := range r.Details {
			if f := &r.Details[i]; f.SendingMTAIP.IsValid() && !guard.Public(f.SendingMTAIP) {
				f.SendingMTAIP = s.sendingIP
			}
		}
	}
}

// malformed counts a datagram that err was found in.
func (s *Source) malformed(datagram []byte, err error) {
	c := badInternal
	if f, ok := errors.AsType[*fault](err); ok {
		c = f.class
	}
	for i := range classes {
		if classes[i] == c {
			s.numbers.malformed[i].Add(1)
		}
	}
	if suppressed, ok := s.sampler.allow(time.Now()); ok {
		sample := datagram[:min(len(datagram), sampleSize)]
		s.logger.Warn("a datagram is not counted", "source", s.name, "error", err,
			"begins", strconv.QuoteToASCII(string(sample)), "suppressed", suppressed)
	}
}
