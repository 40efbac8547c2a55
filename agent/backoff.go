package agent

import (
	"math/rand/v2"
	"time"
)

const (
	firstBackoff = 5 * time.Minute
	lastBackoff  = 4 * time.Hour

	// lifetime is how long after its first attempt a delivery is retried.
	// RFC 8460, section 5.5.
	lifetime = 24 * time.Hour
)

// backoff is how long to wait after the attempt of this number, from 1 on:
// doubled each time and a fifth longer or shorter, so that what failed together
// does not come back together.
func backoff(attempts int) time.Duration {
	d := lastBackoff
	if n := max(attempts-1, 0); n < 6 {
		d = min(firstBackoff<<n, lastBackoff)
	}
	return d + time.Duration((rand.Float64()-0.5)*0.4*float64(d))
}
