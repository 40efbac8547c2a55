package aggregator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash"
	"strings"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// keys derives what depends on the store's secret. A stranger chooses domains,
// policies and details; without the secret he cannot make two of them collide,
// nor know when a report is due.
type keys struct{ pool *sync.Pool }

func newKeys(secret []byte) keys {
	return keys{&sync.Pool{New: func() any { return &keyedHash{mac: hmac.New(sha256.New, secret)} }}}
}

// ready reports whether the secret was read.
func (k keys) ready() bool { return k.pool != nil }

// keyedHash is an HMAC with room for its input and output.
type keyedHash struct {
	mac hash.Hash
	buf []byte
}

// sum is the HMAC of kind and text. Kinds differ in their first byte, so that
// no text of one is a text of another.
func (k keys) sum(kind byte, text string) (sum [sha256.Size]byte) {
	h := k.pool.Get().(*keyedHash)
	defer k.pool.Put(h)
	h.mac.Reset()
	h.buf = append(append(h.buf[:0], kind), text...)
	h.mac.Write(h.buf)
	h.buf = h.mac.Sum(h.buf[:0])
	copy(sum[:], h.buf)
	return sum
}

// id is 63 bits of sum: SQLite's integers have a sign.
func (k keys) id(kind byte, text string) int64 {
	sum := k.sum(kind, text)
	return int64(binary.BigEndian.Uint64(sum[:]) >> 1)
}

func (k keys) domain(name string) int64           { return k.id('d', name) }
func (k keys) policy(t schema.PolicyText) int64   { return k.id('p', string(t)) }
func (k keys) details(t schema.DetailsText) int64 { return k.id('f', string(t)) }
func (k keys) domainDay(day schema.Day, domain int64, part int) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(day))
	b = binary.BigEndian.AppendUint64(b, uint64(domain))
	return string(binary.BigEndian.AppendUint32(b, uint32(part)))
}

// delay is when within spread a domain-day comes due. It belongs to the day and
// the domain alone, so that a restart or a second process changes nothing.
func (k keys) delay(day schema.Day, domain int64, spread time.Duration) time.Duration {
	if spread < time.Second {
		return 0
	}
	n := uint64(k.id('s', k.domainDay(day, domain, 0)))
	return time.Duration(n%uint64(spread/time.Second)) * time.Second
}

// Token is 16 lower-case letters and digits that belong to this part of the
// domain-day alone: the unique part of a report-id. Only this store can know it.
func (s *Store) Token(day schema.Day, domain string, part int) string {
	sum := s.keys.sum('t', s.keys.domainDay(day, s.keys.domain(domain), part))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}
