package policy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// A failed fetch accuses a domain, and an outage of ours makes all fetches fail.
// So a failure is reported only while, of the domains that were asked, not most
// failed: since shortly before this one began to, which shows an outage; and
// within a day, which shows a port that is closed to us for good. Of very few
// domains that proves nothing.
const (
	outageOnset = 10 * time.Minute
	oldOutcomes = 24 * time.Hour
	fewFailures = 2    // domains: so many may fail, and be all that were asked
	maxOutcomes = 1024 // that are remembered
)

// attempt is how one fetch ended.
type attempt struct {
	at     time.Time
	domain string
	failed bool
	onset  time.Time // of the failures in a row that it is one of
}

// attempts remembers how the last fetches ended. It is for one goroutine at a
// time.
type attempts struct {
	ring [maxOutcomes]attempt
	n    int // ever added
}

func (a *attempts) add(at attempt) {
	a.ring[a.n%maxOutcomes] = at
	a.n++
}

// mostFail reports whether most domains that were asked after since failed the
// last time. Those whose failures began before onset do not count: what fails is
// asked more often than what does not.
func (a *attempts) mostFail(since, onset time.Time) bool {
	seen := map[string]bool{}
	failed, all := 0, 0
	for i := a.n - 1; i >= max(0, a.n-maxOutcomes); i-- {
		at := &a.ring[i%maxOutcomes]
		if at.at.Before(since) {
			break
		}
		if seen[at.domain] {
			continue
		}
		seen[at.domain] = true
		switch {
		case !at.failed:
			all++
		case !at.onset.Before(onset):
			failed++
			all++
		}
	}
	return failed > fewFailures && 2*failed > all
}

// outage reports whether a failure at now, of a domain whose failures began at
// onset, is most likely ours.
func (a *attempts) outage(now, onset time.Time) bool {
	before := onset.Add(-outageOnset)
	return a.mostFail(before, before) || a.mostFail(now.Add(-oldOutcomes), time.Time{})
}

// errOurs means that a fetch failed for a reason that is most likely ours.
var errOurs = errors.New("policy: most MTA-STS policies cannot be fetched")

// fetched notes that a policy was fetched.
func (f *Finder) fetched(domain string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Fetches++
	f.attempts.add(attempt{at: now, domain: domain})
}

// failedFetch notes that a policy could not be fetched, and reports it if that
// is the domain's fault. Else the error says why it is not. s is what was known
// before.
func (f *Finder) failedFetch(domain, record string, failure *FetchError, s *stsState, now time.Time) error {
	onset := now
	if s.failures > 0 {
		onset = s.onset
	}
	f.mu.Lock()
	f.stats.Fetches++
	f.stats.FetchFailures++
	f.attempts.add(attempt{at: now, domain: domain, failed: true, onset: onset})
	ours := isOurs(failure) || f.attempts.outage(now, onset)
	if ours {
		f.stats.Suppressed++
	}
	f.mu.Unlock()
	if ours {
		return fmt.Errorf("%w: %w", errOurs, failure)
	}
	// RFC 8461, section 6: with a policy of mode none in memory nobody is told.
	if s.valid(now) && s.policy == nil || f.report == nil {
		return nil
	}
	f.report(failure.session(domain, record, now))
	return nil
}

// isOurs reports whether a fetch failed because this host has no certificates to
// trust.
func isOurs(err error) bool {
	_, ok := errors.AsType[x509.SystemRootsError](err)
	return ok
}

// session is the failure as what is counted: one failed session in a policy of
// its own, without text, since nobody knows it.
func (e *FetchError) session(domain, record string, now time.Time) schema.Session {
	return schema.Session{
		Time:   now,
		Domain: domain,
		Record: record,
		Results: []schema.Result{{
			Policy:  schema.Policy{Type: schema.STS, Domain: domain},
			Failed:  true,
			Details: []schema.FailureDetails{{ResultType: e.Result, FailureReasonCode: e.Reason}},
		}},
	}
}
