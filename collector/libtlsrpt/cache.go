package libtlsrpt

import (
	"bytes"
	"hash/maphash"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const (
	maxCache  = 1 << 15  // datagrams
	maxCached = 16 << 10 // bytes of the longest that is worth a place
)

// cache remembers where a datagram was counted. The successes of one domain and
// policy are the same byte for byte, so most datagrams are in it; those with
// failure details hardly ever repeat, and are kept out. It is for one goroutine.
//
// A place lasts until the next commit, a second at most, and so does the cache: to
// decode a datagram once a second costs nothing, and to remember it for longer takes
// the texts of all domains.
//
// Nobody outside can make two datagrams that share a digest: it has 128 bits, and
// its seeds are of this process.
type cache struct {
	seeds  [2]maphash.Seed
	day    schema.Day // that all places are of
	places map[digest]collector.Place
}

type digest [2]uint64

func newCache() *cache {
	return &cache{
		seeds:  [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		places: map[digest]collector.Place{},
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

// again counts the datagram of d on day where it was counted before. It is false,
// and counts nothing, if that is not known.
func (c *cache) again(counter *collector.Counter, day schema.Day, d digest) bool {
	if day != c.day {
		clear(c.places)
		c.day = day
	}
	place, ok := c.places[d]
	if ok && !counter.Again(&place) {
		clear(c.places) // a commit came in between, for all of them
		ok = false
	}
	return ok
}

// put keeps where the datagram of d was counted, on the day of the last again.
func (c *cache) put(d digest, place collector.Place) {
	if place.Lost() {
		return
	}
	if len(c.places) >= maxCache {
		clear(c.places)
	}
	c.places[d] = place
}
