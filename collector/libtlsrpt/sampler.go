package libtlsrpt

import "time"

// Malformed datagrams are logged only so often, and only their beginning: who
// can send them could fill the disk.
const (
	sampleSize     = 120 // bytes
	sampleInterval = time.Minute
	sampleLimit    = 5 // per sampleInterval
)

// sampler lets through the first few events of an interval. It is for one
// goroutine.
type sampler struct {
	start      time.Time // of the interval
	n          int       // events let through in it
	suppressed int64     // events not let through since the last one that was
}

// allow reports whether an event at now is let through, and how many were not
// since the last one that was.
func (s *sampler) allow(now time.Time) (suppressed int64, ok bool) {
	if now.Sub(s.start) >= sampleInterval {
		s.start, s.n = now, 0
	}
	if s.n == sampleLimit {
		s.suppressed++
		return 0, false
	}
	s.n++
	suppressed, s.suppressed = s.suppressed, 0
	return suppressed, true
}
