package libtlsrpt

import (
	"sync"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// maxQueued bounds the bytes that wait for the decoder. As many again may be
// with it: together 4 MiB, some 15,000 datagrams.
const maxQueued = 2 << 20

// span is one datagram within a chunk.
type span struct {
	end       int // where it ends; it begins where the one before ends
	day       schema.Day
	truncated bool
}

const spanSize = 24 // bytes of memory

// chunk is a row of datagrams.
type chunk struct {
	bytes []byte
	spans []span
}

func (c *chunk) size() int { return len(c.bytes) + len(c.spans)*spanSize }

func (c *chunk) reset() { c.bytes, c.spans = c.bytes[:0], c.spans[:0] }

// queue hands datagrams from the goroutine that receives them to the one that
// decodes them. Each fills or empties a chunk of its own, and they swap: so the
// receiver waits for the other only where all of maxQueued is full.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	chunk   chunk
	closed  bool
}

func newQueue() *queue {
	q := new(queue)
	q.changed.L = &q.mu
	return q
}

// put copies a datagram into the queue, and waits while it is full.
func (q *queue) put(day schema.Day, datagram []byte, truncated bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.chunk.size() >= maxQueued {
		q.changed.Wait()
	}
	first := len(q.chunk.spans) == 0
	q.chunk.bytes = append(q.chunk.bytes, datagram...)
	q.chunk.spans = append(q.chunk.spans, span{len(q.chunk.bytes), day, truncated})
	if first {
		q.changed.Signal()
	}
}

// take exchanges all that is queued for c, which must be empty, and waits for
// something to be queued. It is false once the queue is closed and empty.
func (q *queue) take(c *chunk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunk.spans) == 0 {
		if q.closed {
			return false
		}
		q.changed.Wait()
	}
	q.chunk, *c = *c, q.chunk
	q.changed.Signal()
	return true
}

// close lets take end. There must be no put after it.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}
