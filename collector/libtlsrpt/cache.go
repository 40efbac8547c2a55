package libtlsrpt

import (
	"bytes"
	"hash/maphash"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// maxCache bounds the bytes of memory that a cache takes up.
const maxCache = 16 << 20

// maxCached is the longest datagram that is worth a place in it.
const maxCached = 16 << 10

// cache remembers what a datagram was decoded to. The successes of one domain
// and policy are the same byte for byte, so most datagrams are in it; those with
// failure details hardly ever repeat, and are kept out. It is for one goroutine.
//
// Nobody outside can make two datagrams that share a digest: it has 128 bits, and
// its seeds are of this process.
type cache struct {
	seeds [2]maphash.Seed
	day   schema.Day // a Tally is of one day, so the cache is

	// What was not asked for since young was last empty is in old alone, and
	// goes when young has filled its half.
	young, old map[digest]*collector.Tally
	size       int // bytes of young
}

type digest [2]uint64

// cacheOverhead is what an entry takes up beside its Tally, with the room that a
// map leaves empty.
const cacheOverhead = 48

func newCache() *cache {
	return &cache{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		young: map[digest]*collector.Tally{},
		old:   map[digest]*collector.Tally{},
	}
}

var failureDetailsName = []byte(`"failure-details"`)

// takes reports whether datagram may be kept. The name of the member might be
// written with escapes; then a failure is kept, which is as right.
func (c *cache) takes(datagram []byte) bool {
	return len(datagram) <= maxCached && !bytes.Contains(datagram, failureDetailsName)
}

func (c *cache) digest(datagram []byte) digest {
	return digest{maphash.Bytes(c.seeds[0], datagram), maphash.Bytes(c.seeds[1], datagram)}
}

// get is what is kept for d on day, or nil.
func (c *cache) get(day schema.Day, d digest) *collector.Tally {
	if day != c.day {
		c.day, c.size = day, 0
		clear(c.old)
		clear(c.young)
		return nil
	}
	if t := c.young[d]; t != nil {
		return t
	}
	t := c.old[d]
	if t != nil {
		c.put(d, t)
	}
	return t
}

// put keeps t for d, on the day of the last get.
func (c *cache) put(d digest, t *collector.Tally) {
	size := cacheOverhead + t.Size()
	if c.size+size > maxCache/2 {
		c.old, c.young, c.size = c.young, c.old, 0
		clear(c.young) // which keeps the room that it has grown to
	}
	c.young[d] = t
	c.size += size
}
