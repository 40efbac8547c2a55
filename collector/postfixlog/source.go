package postfixlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/tail"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// SourceOptions says which log is read and how.
type SourceOptions struct {
	// Name tells the source apart from all others of a store.
	Name string

	// Tail says where the log is.
	Tail tail.Options

	// Past, if not nil, is the log, in place of Tail.
	Past *Past

	// After, if not nil, is a Source that has read the log before this one, whose
	// last deliveries may end in this one.
	After *Source

	// Counted is what was read elsewhere of the same logs: sessions that it covers
	// are dropped.
	Counted []schema.Span

	// Log says whose it is. Dropped and Logger are the Source's own.
	Log Options

	// Finder says which policies domains have, and which hosts are their MX. Nil:
	// nobody is asked, no policy is found, and every host counts. The caller
	// closes it.
	Finder *policy.Finder

	// Native says that the events of the same Postfix come by libtlsrpt too:
	// sessions that it got are not counted a second time.
	Native bool

	// Cursor is what the sink stored last for Name, or nil.
	Cursor []byte

	// Logger nil discards.
	Logger *slog.Logger
}

// Source reads a Postfix log. Each session is counted exactly once, whatever
// happens to the process: the position in the log, and what was begun and not
// finished there, is stored along with the counts.
type Source struct {
	name    string
	o       SourceOptions
	log     *slog.Logger
	tail    reader
	at      []byte // position in the log, of all that was parsed
	parser  *Parser
	spans   spans
	waiting []Session // for what DNS says
	names   names     // of those that were in the position

	counter   *collector.Counter
	known     tallies
	batchKeys int64 // commitKeys
	sink      *positioned
	readAt    time.Time  // when the newest line was read; zero: none was
	since     time.Time  // of the first line that no commit has; zero: there is none
	behind    bool       // whether the log was far ahead when it was read last
	commits   chan error // of the commit under way; nil: there is none

	unread atomic.Int64 // bytes that were read ahead
	judged atomic.Bool  // a session that had waited was, since the last commit

	mu    sync.Mutex
	stats SourceStats
}

// SourceStats says what became of a log since the start.
type SourceStats struct {
	Parser  Stats
	Tail    tail.Stats
	Counted int64          // sessions
	Folded  int64          // sessions, of Counted, that lost their strings to a bound
	Dropped map[Drop]int64 // sessions that the parser handed on, by reason
	Waiting int            // sessions, for what DNS says
}

const (
	// commitInterval is how long counts wait for their commit at most. Where a log
	// is far ahead they wait longer: most domains come again within seconds, and
	// each row is written once a commit. Nothing is lost by it, the position waits
	// too.
	commitInterval  = time.Second
	catchUpInterval = 5 * time.Second

	// catchUpChunk is how much is read at once, in bytes, where a log is far ahead.
	catchUpChunk = 128 << 10

	// commitKeys, of sessions that are counted apart, are committed at once. As
	// many again may wait for the commit before: some 30 MB in all.
	commitKeys = 30_000

	// maxWaiting bounds the sessions that wait for DNS; counting waits for them. Those
	// of the portions under way may come on top, and all have to fit a position.
	maxWaiting = 300

	// maxHeld is out of reach: a source that can read again loses nothing.
	maxHeld = 1 << 30

	lastCommit = 10 * time.Second // for the commit after the end of Run's context
)

// Open opens the log at the stored position. The error may be [ErrCursor] or
// tail.ErrPosition.
func Open(o SourceOptions) (*Source, error) {
	at, err := decodeCursor(o.Cursor)
	if err != nil {
		return nil, err
	}
	s := &Source{
		name: o.Name, o: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		waiting: at.Waiting, names: newNames(), known: newTallies(), batchKeys: commitKeys, spans: newSpans(at.Spans),
	}
	s.stats.Dropped = map[Drop]int64{}
	s.parser = NewParser(o.Log)
	if at.Parser == nil && o.After != nil {
		at.Parser = o.After.parser.State()
	}
	if at.Parser != nil {
		if err := s.parser.Restore(at.Parser); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCursor, err)
		}
	}
	o.Tail.Logger = s.log
	if o.Past != nil {
		s.tail, err = o.Past, o.Past.seek(at.Tail)
	} else {
		s.tail, err = tail.Open(o.Tail, at.Tail)
	}
	if err != nil {
		return nil, err
	}
	s.at = s.tail.Position()
	return s, nil
}

// reader is a tail.Tail, or a [Past].
type reader interface {
	Next(context.Context) ([]byte, error)
	Position() []byte
	Stats() tail.Stats
	Close() error
}

// Name tells the source apart from others of a store.
func (s *Source) Name() string { return s.name }

// Stats is a snapshot. It may be taken at any time.
func (s *Source) Stats() SourceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Dropped = maps.Clone(s.stats.Dropped)
	st.Tail = s.tail.Stats()
	st.Tail.Lag += s.unread.Load()
	return st
}

// positioned is a sink that stores a position with the counts it is given.
type positioned struct {
	collector.Sink
	cursor []byte
	spans  []schema.Span
	taken  chan struct{} // capacity 1, one for each Record: it has the counts, more may be gathered
}

func (p *positioned) Record(ctx context.Context, source string, _ []byte, counts []schema.Count) error {
	p.taken <- struct{}{}
	if sink, ok := p.Sink.(collector.SpanSink); ok {
		return sink.RecordSpans(ctx, source, p.cursor, counts, p.spans)
	}
	return p.Sink.Record(ctx, source, p.cursor, counts)
}

// Run counts what is in the log until ctx ends, or until its end where it is not
// followed. It then commits what it counted. What could not be committed is read
// again at the next start.
func (s *Source) Run(ctx context.Context, sink collector.Sink) error {
	defer s.tail.Close()
	defer s.tellDropped()
	defer s.publish()
	s.sink = &positioned{Sink: sink}
	s.counter = collector.NewCounter(s.sink, s.name, collector.CounterOptions{MaxHeld: maxHeld, Logger: s.log})
	if s.o.Cursor == nil {
		// Where a new source begins has to be known to the next start, or what is
		// written until the first commit would be lost with this process.
		s.touch()
		_ = s.commitUntil(ctx) // it failed only if ctx ended, and is tried again below
	}
	err := s.read(ctx)
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCommit)
	defer cancel()
	return errors.Join(err, s.commitUntil(work))
}

// tellDropped says at the end which sessions were not counted, and why.
func (s *Source) tellDropped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var reasons []any
	for _, why := range slices.Sorted(maps.Keys(s.stats.Dropped)) {
		reasons = append(reasons, slog.Int64(string(why), s.stats.Dropped[why]))
	}
	for _, why := range slices.Sorted(maps.Keys(s.stats.Parser.Dropped)) {
		if n := s.stats.Parser.Dropped[why]; n > 0 {
			reasons = append(reasons, slog.Int64(string(why), n))
		}
	}
	s.log.Info("sessions were read", "source", s.name, "counted", s.stats.Counted, slog.Group("dropped", reasons...))
}

// read counts what is in the log, until its end or that of ctx.
func (s *Source) read(ctx context.Context) error {
	err := s.move(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, io.EOF):
		if s.o.Past == nil {
			s.GiveUp()
		}
		return s.settleWaiting(ctx)
	}
	return fmt.Errorf("postfixlog: %s: %w", s.name, err)
}

// move moves sessions from the log to the counter, and commits. What is parsed is
// counted when it returns.
func (s *Source) move(ctx context.Context) error {
	log := readAhead(ctx, s.tail, &s.parser.sieve, &s.unread)
	defer log.close()
	c := s.startCounting(ctx)
	defer c.close()
	for {
		wait, cancel := context.WithTimeout(ctx, commitInterval)
		next, err := log.next(wait)
		cancel()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return err
		}
		s.behind = err == nil && next.size >= catchUpChunk
		g := <-c.empty
		if err == nil {
			s.parse(next, g)
			log.giveBack(next)
		} else {
			s.idle(g)
		}
		c.work <- g
		if s.due() {
			c.rest()
			s.advance(ctx)
			c.resume()
		}
		s.publish()
	}
}

// parse reads the next portion of the log.
func (s *Source) parse(next *portion, g *gathered) {
	s.touch()
	s.parser.read(&next.sifted, g.gather(s.parser))
	g.read, g.gaps = s.parser.extents(g.read), next.gaps
	s.at = next.position
	s.readAt = time.Now()
}

// idle gives up what waited too long, by the clock of the log: lines may come hours
// after they were written, from another host or from before an outage.
func (s *Source) idle(g *gathered) {
	if !s.readAt.IsZero() {
		s.parser.Flush(s.parser.newest().Add(time.Since(s.readAt)), g.gather(s.parser))
	}
}

// GiveUp drops the sessions whose last line has not come. Of a Past, whose next
// part may have it, that is left to the caller, after Run.
func (s *Source) GiveUp() {
	s.parser.Flush(time.Now().AddDate(1, 0, 0), nil)
	s.publish()
}

// touch notes that there is something to commit.
func (s *Source) touch() {
	if s.since.IsZero() {
		s.since = time.Now()
	}
}

// due reports whether advance has anything to do.
func (s *Source) due() bool {
	return len(s.commits) > 0 || s.ripe() && (s.commits == nil || s.full())
}

// ripe reports whether it is time for a commit.
func (s *Source) ripe() bool {
	interval := commitInterval
	if s.behind {
		interval = catchUpInterval
	}
	return s.pending() && (time.Since(s.since) >= interval || s.full())
}

// pending reports whether there is anything to commit.
func (s *Source) pending() bool {
	if s.judged.Load() {
		s.touch()
	}
	return !s.since.IsZero()
}

// full reports whether no more may wait for a commit.
func (s *Source) full() bool { return s.known.fresh.Load() >= s.batchKeys }

// advance commits while reading goes on. Reading waits for a commit under way
// once as much is gathered as the next one may have, and for one that failed.
func (s *Source) advance(ctx context.Context) {
	if s.commits != nil && s.full() {
		s.ended(ctx, <-s.commits)
	}
	if s.commits != nil {
		select {
		case err := <-s.commits:
			s.ended(ctx, err)
		default:
			return
		}
	}
	if s.ripe() {
		s.begin(ctx)
	}
}

// ended takes note of the end of a commit under way. One that failed is made
// again at once, of all there is by now: its counts are among the others again.
func (s *Source) ended(ctx context.Context, err error) {
	s.commits = nil
	if err != nil && ctx.Err() == nil {
		s.log.Error("commit failed, reading waits for it", "source", s.name, "error", err)
	}
	if err != nil {
		s.touch()
		_ = s.commitUntil(ctx) // it failed only if ctx ended, and Run tries again
	}
}

// commitUntil commits, again and again while that fails: nothing is read
// meanwhile, and nothing is lost. The error is that of the last commit before
// ctx ended.
func (s *Source) commitUntil(ctx context.Context) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
		err := s.commit(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.log.Error("commit failed, reading waits for it", "source", s.name, "error", err, "retry", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// commit commits all that was read, and waits for it.
func (s *Source) commit(ctx context.Context) error {
	if s.commits != nil {
		err := <-s.commits
		s.commits = nil
		if err != nil {
			s.touch()
		}
	}
	if !s.pending() {
		return nil
	}
	s.begin(ctx)
	err := <-s.commits
	s.commits = nil
	if err != nil {
		s.touch()
	}
	return err
}

// begin hands what was counted, and the position, to the sink. None may be under
// way. The sink has all of it when begin returns, and what is counted from then
// on is the next commit's.
func (s *Source) begin(ctx context.Context) {
	s.commits = make(chan error, 1)
	text, err := cursor{Tail: s.at, Parser: s.parser.State(), Waiting: s.waiting, Spans: s.spans.ends()}.encode()
	if err != nil {
		s.commits <- fmt.Errorf("postfixlog: %s: %w", s.name, err)
		return
	}
	s.sink.cursor, s.sink.spans = text, slices.Concat(s.beginning(), s.spans.list())
	s.sink.taken = make(chan struct{}, 1)
	s.since = time.Time{}
	s.judged.Store(false)
	s.known.next()
	done, taken := s.commits, s.sink.taken
	if st := s.counter.Stats(); st.Counted == st.Committed {
		go func() { done <- s.sink.Record(ctx, s.name, nil, nil) }()
	} else {
		go func() { done <- s.counter.Flush(ctx) }()
	}
	select {
	case <-taken:
	case err := <-done: // all of it is over
		done <- err
	}
}

// publish makes the numbers of this goroutine readable by others.
func (s *Source) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Parser = s.parser.Stats()
	st := s.counter.Stats()
	s.stats.Counted, s.stats.Folded = st.Counted, st.Folded
}
