package policy

import (
	"context"
	"errors"
	"time"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// STS is the MTA-STS policy of a domain.
type STS struct {
	Policy schema.Policy // of type sts, canonical
	Mode   Mode          // Enforce or Testing

	mx []string
}

// Matches reports whether the policy allows host as an MX; host in A-labels and
// lower case.
func (s *STS) Matches(host string) bool { return matchesAny(s.mx, host) }

const (
	maxRefresh = 24 * time.Hour // after which a policy is fetched again, at most

	// RFC 8461, section 3.3, wants attempts that failed to be five minutes apart,
	// or more.
	firstRetry = 5 * time.Minute
	lastRetry  = time.Hour
)

// stsState is what is remembered of a domain's MTA-STS policy. It outlives the
// answers of DNS: a policy is good until its max_age is over, whatever happens
// to the record (RFC 8461, section 3.3).
type stsState struct {
	id      string // of the record that the policy was fetched for
	policy  *STS   // nil: none was ever fetched, or its mode is none
	size    int    // of policy, in bytes, about
	fetched bool   // whether there was a policy, of whatever mode
	expires time.Time
	refresh time.Time // when the policy is fetched again, although the id is the same

	failedID string
	failures int       // in a row
	onset    time.Time // of the first of them
	retry    time.Time // before it failedID is not fetched again
	unsure   error     // why the last failure was not the domain's, nil if it was
}

// valid reports whether a policy, of whatever mode, was fetched and may still be
// used.
func (s *stsState) valid(now time.Time) bool { return s.fetched && now.Before(s.expires) }

// current is the policy that applies, or nil.
func (s *stsState) current(now time.Time) *STS {
	if s.valid(now) {
		return s.policy
	}
	return nil
}

// due reports whether the policy that id announces has to be fetched.
func (s *stsState) due(id string, now time.Time) bool {
	if id == s.failedID && now.Before(s.retry) {
		return false
	}
	return id != s.id || !s.valid(now) || !now.Before(s.refresh)
}

// keep remembers a policy of domain. A max_age of 0 is good for the session that
// it was fetched for, and that is in the past.
func (s *stsState) keep(domain, id string, p STSPolicy, now time.Time) error {
	*s = stsState{id: id, fetched: true, expires: now.Add(max(p.MaxAge, minTTL))}
	s.refresh = now.Add(min(p.MaxAge/2, maxRefresh))
	if p.Mode == None {
		return nil
	}
	text, err := p.policy(domain)
	if err != nil {
		return err
	}
	s.policy = &STS{Policy: text, Mode: p.Mode, mx: p.MX}
	s.size = policySize(text) + stringsSize(p.MX)
	return nil
}

// fail remembers that fetching failed, and waits longer each time. unsure says
// why that was not the domain's fault, or is nil.
func (s *stsState) fail(id string, unsure error, now time.Time) {
	wait := min(firstRetry<<min(s.failures, 8), lastRetry)
	if s.failures == 0 {
		s.onset = now
	}
	s.failedID, s.retry, s.unsure = id, now.Add(wait), unsure
	s.failures++
}

// next is when something is due even if DNS does not change; zero means never.
func (s *stsState) next() time.Time {
	switch {
	case s.failures > 0:
		return s.retry
	case s.fetched:
		return s.refresh
	}
	return time.Time{}
}

// known is nil, or says why nobody knows whether there is a policy.
func (s *stsState) known(now time.Time) error {
	if s.valid(now) {
		return nil
	}
	return s.unsure
}

// lookupSTS brings s up to date. It returns how long the MTA-STS record holds.
// The error says that neither DNS nor memory knows whether there is a policy.
func (f *Finder) lookupSTS(ctx context.Context, domain, record string, s *stsState) (time.Duration, error) {
	a, err := f.resolver.Lookup(ctx, "_mta-sts."+domain, dns.TypeTXT)
	if resolve.IsTemporary(err) {
		if s.valid(time.Now()) {
			return minTTL, nil
		}
		return minTTL, err
	}
	id, err := recordID(a.Texts())
	if err != nil {
		return a.TTL, nil // as if there were no policy, but for one in memory
	}
	if s.due(id, time.Now()) {
		err = f.refresh(ctx, domain, record, id, s)
	}
	return a.TTL, errors.Join(err, s.known(time.Now()))
}

// refresh fetches the policy that id announces. The error is that of ctx.
func (f *Finder) refresh(ctx context.Context, domain, record, id string, s *stsState) error {
	p, err := f.fetch(ctx, domain)
	now := time.Now()
	failure, failed := errors.AsType[*FetchError](err)
	switch {
	case failed:
		s.fail(id, f.failedFetch(domain, record, failure, s, now), now)
		return nil
	case err != nil:
		return err
	}
	f.fetched(domain, now)
	return s.keep(domain, id, p, now)
}

// recordID is the id in the one MTA-STS record among txts.
func recordID(txts []string) (string, error) {
	txt, err := SelectRecord(txts)
	if err != nil {
		return "", err
	}
	return ParseRecord(txt)
}
