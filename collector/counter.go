package collector

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"time"
)

// CounterOptions are the bounds of a [Counter]. The zero value of each is its
// default.
type CounterOptions struct {
	Interval time.Duration // how long a session waits for its commit at most; 1 s
	MaxKeys  int           // distinct keys that cause a commit at once; 20,000
	MaxHeld  int           // distinct keys that are held while commits fail; 200,000
	Grace    time.Duration // of the last commits, from one that works to the next; 60 s
	Logger   *slog.Logger  // nil discards
}

const (
	// Keys hold texts of strangers, up to 64 KiB of policy each, so their bytes
	// are bounded beside their number.
	maxKeyBytes  = 10 << 20 // cause a commit at once
	maxHeldBytes = 96 << 20 // are held while commits fail

	// patience is how long a commit at low priority may go on after the end.
	patience = time.Second

	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 30 * time.Second

	lossLogInterval = time.Minute
)

// Counter gathers sessions in memory and commits their counts to a Sink. It
// serves sources that cannot be asked to repeat themselves: counts are exact, a
// failed commit keeps them and is tried again, and who adds a session never
// waits for the disk. All methods are safe for concurrent use.
//
// A key is one policy of one domain on one day, or one kind of failure of it. What
// would exceed the bound on held keys is lost, a session whole or not at all, and is
// counted as lost.
type Counter struct {
	sink    Sink
	source  string
	options CounterOptions

	wake    chan struct{} // capacity 1: the batch got its first session, or is full
	writing chan struct{} // capacity 1: held by who takes a batch to the sink

	mu       sync.Mutex // held for moments only, never while the sink works
	batch    *batch     // takes sessions
	taken    *batch     // is with the sink, and must not change; nil if none is
	spare    *batch     // an empty one, to be used again; nil if there is none
	failing  bool       // the last commit did
	stats    Stats
	lossTold time.Time // when a loss was last logged
}

// Stats says what became of sessions and of batches since the start.
type Stats struct {
	Counted   int64 // sessions
	Committed int64 // sessions, of Counted
	Lost      int64 // sessions that no room was left for, or that the last commit failed for
	Folded    int64 // sessions, of Counted, under types alone: too many of their domain differed
	Commits   int64 // batches, or pieces of them
	Failed    int64 // commits that failed
}

// NewCounter is a Counter whose counts reach sink under the name source while
// [Counter.Run] runs.
func NewCounter(sink Sink, source string, o CounterOptions) *Counter {
	o.Interval = cmp.Or(o.Interval, time.Second)
	o.MaxKeys = cmp.Or(o.MaxKeys, 20_000)
	o.MaxHeld = cmp.Or(o.MaxHeld, 200_000)
	o.Grace = cmp.Or(o.Grace, time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Counter{
		sink: sink, source: source, options: o,
		wake:    make(chan struct{}, 1),
		writing: make(chan struct{}, 1),
		batch:   newBatch(),
	}
}

// Stats is a snapshot.
func (c *Counter) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Behind reports whether a commit is under way, and as much as the next one should
// have waits for it. Who can keep sessions waiting, and the processor free, does well
// to do so. While commits fail there is no use in it.
func (c *Counter) Behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken != nil && !c.failing && c.full()
}

// Run commits until ctx ends, then commits the rest. Whoever adds sessions
// should have stopped by then. The error says how many sessions could not be
// committed and are lost: the last commits are given up when none has worked for
// as long as the grace.
func (c *Counter) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Receiving matters more than writing. The thread is never unlocked, so
		// it ends with this goroutine and takes its low priority with it.
		runtime.LockOSThread()
		lowerPriority()
		c.write(ctx)
	}()
	<-done
	// The last commits do not stand back: what they do not get done is lost.
	return c.finish(ctx)
}

// write commits until ctx ends, on a thread of its own.
func (c *Counter) write(ctx context.Context) {
	// A commit under way is not cut off by the end of ctx. But with other work on
	// all processors it may not get anywhere at this priority: finish then repeats it.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(min(c.options.Grace, patience), cancel) })()

	var backoff time.Duration // 0 unless the last commit failed
	for ctx.Err() == nil && c.await(ctx, backoff) {
		backoff = c.attempt(work, backoff)
	}
}

// finish commits what is left when nothing is added any more.
func (c *Counter) finish(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	grace := time.AfterFunc(c.options.Grace, cancel)
	defer grace.Stop()

	var backoff time.Duration
	for {
		err := c.flush(work, c.options.MaxKeys, func() { grace.Reset(c.options.Grace) })
		if err == nil {
			return nil
		}
		backoff = nextBackoff(backoff)
		select {
		case <-time.After(backoff):
		case <-work.Done():
			return c.abandon(err)
		}
	}
}

// await returns when it is time for a commit. It is false once ctx has ended.
func (c *Counter) await(ctx context.Context, backoff time.Duration) bool {
	retry := time.Now().Add(backoff)
	for {
		due, waiting := c.due()
		if backoff > 0 {
			due, waiting = retry, true
		}
		var timer <-chan time.Time
		if waiting {
			wait := time.Until(due)
			if wait <= 0 {
				return ctx.Err() == nil
			}
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer:
			return true
		case <-c.wake:
		}
	}
}

// due is when the batch must be committed; waiting is false if it is empty.
func (c *Counter) due() (t time.Time, waiting bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch b := c.batch; {
	case b.sessions == 0:
		return time.Time{}, false
	case c.full():
		return b.since, true
	default:
		return b.since.Add(c.options.Interval), true
	}
}

// attempt commits once. It returns how long to wait before the next attempt if
// this one failed after a wait of backoff, else 0.
func (c *Counter) attempt(ctx context.Context, backoff time.Duration) time.Duration {
	err := c.flush(ctx, c.options.MaxKeys, func() {})
	if err == nil {
		if backoff > 0 {
			c.options.Logger.Info("commits work again", "source", c.source)
		}
		return 0
	}
	if ctx.Err() != nil {
		return 0 // cut off, and repeated by finish
	}
	backoff = nextBackoff(backoff)
	c.options.Logger.Error("commit failed, its counts are kept", "source", c.source, "error", err, "retry", backoff)
	return backoff
}

func nextBackoff(d time.Duration) time.Duration {
	return min(max(2*d, firstBackoff), lastBackoff)
}

// Flush commits all that was added before the call, all or nothing. After an
// error the counts are kept, for Run or another Flush to commit.
func (c *Counter) Flush(ctx context.Context) error {
	return c.flush(ctx, math.MaxInt, func() {})
}

// flush is Flush in commits of about so many keys each. After an error what was
// not committed is kept. It calls committed after each commit.
func (c *Counter) flush(ctx context.Context, keys int, committed func()) error {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b := c.take()
	if b == nil {
		return nil
	}
	size := b.keys
	for len(b.order) > 0 {
		p := b.piece(keys)
		if err := c.sink.Record(ctx, c.source, nil, b.counts(p)); err != nil {
			c.giveBack(b)
			return fmt.Errorf("collector: committing counts of %s: %w", c.source, err)
		}
		c.committed(b, p)
		committed()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = nil
	if size < 2*c.options.MaxKeys { // not what an outage has blown up
		c.spare = b
	}
	return nil
}

// committed takes a piece of b from what is yet to be committed.
func (c *Counter) committed(b *batch, piece []*domain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = false
	c.stats.Commits++
	c.stats.Committed += b.remove(piece)
}

// take puts an empty batch in the place of the present one, or returns nil if
// that is empty itself.
func (c *Counter) take() *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batch.sessions == 0 {
		return nil
	}
	c.taken, c.batch, c.spare = c.batch, c.spare, nil
	if c.batch == nil {
		c.batch = newBatch()
	}
	c.batch.reset(c.taken.id + 1)
	return c.taken
}

// giveBack makes b, whose commit failed, the present batch again, with what was
// added meanwhile. It goes this way round because b may be the larger by far.
func (c *Counter) giveBack(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken, c.failing = nil, true
	c.stats.Failed++
	b.merge(c.batch)
	b.id = c.batch.id + 1
	c.batch = b
}

// abandon gives up what is still held, and says how much.
func (c *Counter) abandon(cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := c.batch.sessions
	c.stats.Lost += lost
	c.batch.reset(c.batch.id + 1)
	return fmt.Errorf("collector: %d sessions of %s are lost: %w", lost, c.source, cause)
}
