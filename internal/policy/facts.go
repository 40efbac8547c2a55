package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Answer is what is known of a domain and one of its MX hosts. It is shared and
// must not be changed.
type Answer struct {
	// Record is the text of the domain's TLSRPT record. "" means that it has none
	// that can be used, and then nothing else was looked up.
	Record string

	// Policy is the policy that applied, if the MTA does as it is set: TLSA where
	// it is usable and not Half, else STS, else no-policy-found. RFC 8461, section
	// 2: MTA-STS never overrides DANE. A policy daemon that names an MTA-STS
	// policy has Postfix use that one.
	Policy schema.Policy

	// Bogus says that the host's TLSA records fail validation by DNSSEC. The error
	// is ErrUnknown then: an MTA that enforces DANE does not deliver.
	Bogus bool

	TLSA *TLSA // nil: none, or DANE is not looked for, or the host is no MX of the domain
	STS  *STS  // nil: none, or its mode is none, or MTA-STS is not looked for

	// MX is the MX hosts of the domain, in A-labels, lower case; the domain itself
	// where it has no MX record. Empty with MXKnown: it takes no mail.
	MX      []string
	MXKnown bool // false: DNS did not answer, or was not asked

	// Level and Failure are what a policy daemon said: the TLS level, "secure" for
	// instance, and policy_failure. "" is nothing.
	Level   string
	Failure schema.ResultType
}

// HasMX reports whether host, in A-labels and lower case, is an MX of the
// domain, and whether that is known.
func (a *Answer) HasMX(host string) (has, known bool) {
	return slices.Contains(a.MX, host), a.MXKnown
}

// domainFacts is what is known of a domain. It does not change once it is in
// memory.
type domainFacts struct {
	domain string
	fresh  time.Time // until when it holds
	record string    // of TLSRPT

	mx      mxSet
	mxKnown bool

	dane   bool // whether TLSA records matter
	strict bool // whether without them there is no session
	daemon daemonAnswer
	sts    stsState
	policy *STS

	err   error // the record or the daemon is unknown, so all is
	mxErr error
	stErr error // of MTA-STS
}

// hostFacts is what is known of an MX host.
type hostFacts struct {
	fresh time.Time
	tlsa  *TLSA // Half is never set
	err   error
}

// wantsHost reports whether it matters what host published for DANE. A host that
// is no MX of the domain does not: it is not asked for because a log names it.
func (f *Finder) wantsHost(d *domainFacts, host string) bool {
	return d.err == nil && d.record != "" && d.dane && slices.Contains(d.mx.hosts, host)
}

// answer is what d and h say about host. h is nil where it does not matter.
func (d *domainFacts) answer(host string, h *hostFacts) (Answer, error) {
	a := Answer{
		Record:  d.record,
		Policy:  schema.Policy{Type: schema.NoPolicyFound, Domain: d.domain},
		STS:     d.policy,
		MX:      d.mx.hosts,
		MXKnown: d.mxKnown,
		Level:   d.daemon.level,
		Failure: d.daemon.failure,
	}
	if d.err != nil {
		return a, unknown(d.err)
	}
	if d.record == "" {
		return a, nil
	}
	if h != nil && h.tlsa != nil {
		tlsa := *h.tlsa
		tlsa.Half = !d.mx.secure
		a.TLSA = &tlsa
	}
	switch {
	case d.dane && d.mxErr != nil:
		return a, unknown(d.mxErr)
	case h != nil && h.err != nil:
		a.Bogus = errors.Is(h.err, errBogus)
		return a, unknown(h.err)
	case a.TLSA != nil && a.TLSA.Usable && !a.TLSA.Half:
		a.Policy = a.TLSA.Policy
	case d.stErr != nil:
		return a, unknown(d.stErr)
	case d.strict && host != "":
		return a, unknown(errStrict)
	case a.STS != nil:
		a.Policy = a.STS.Policy
	}
	return a, nil
}

// errStrict means that the policy daemon has Postfix demand TLSA records, which
// are not there: it delivers nothing then.
var errStrict = errors.New("policy: no usable TLSA records, which the policy daemon demands")

func unknown(err error) error { return fmt.Errorf("%w: %w", ErrUnknown, err) }

// lookupDomain fills d. What d has in memory of MTA-STS is brought up to date.
func (f *Finder) lookupDomain(ctx context.Context, d *domainFacts) {
	ttl := f.lookupRecord(ctx, d)
	if d.err == nil && d.record != "" {
		ttl = min(ttl, f.lookupPolicies(ctx, d))
	}
	d.fresh = time.Now().Add(max(ttl, minTTL))
}

// lookupRecord looks up the TLSRPT record of d, and returns how long it holds.
// Without one nobody is owed a report, and to ask for more would be a waste.
func (f *Finder) lookupRecord(ctx context.Context, d *domainFacts) time.Duration {
	a, err := f.resolver.Lookup(ctx, schema.RecordName(d.domain), dns.TypeTXT)
	if resolve.IsTemporary(err) {
		d.err = err
		return minTTL
	}
	if txt, err := schema.SelectRecord(a.Texts()); err == nil {
		if _, err := schema.ParseRecord(txt); err == nil {
			d.record = txt
		}
	}
	return keepFor(a.TTL, err)
}

// lookupPolicies looks up all but the TLSRPT record, and returns how long it
// holds.
func (f *Finder) lookupPolicies(ctx context.Context, d *domainFacts) time.Duration {
	d.mx, d.mxErr = lookupMX(ctx, f.resolver, d.domain)
	d.mxKnown = d.mxErr == nil
	d.dane = f.dane
	ttl := keepFor(d.mx.ttl, d.mxErr)
	switch {
	case f.daemon != nil && f.sts:
		ttl = min(ttl, f.askDaemon(ctx, d))
		if d.err == nil {
			ttl = min(ttl, f.lookupText(ctx, d))
		}
	case f.daemon != nil:
		ttl = min(ttl, f.askDaemon(ctx, d))
	case f.sts:
		ttl = min(ttl, f.lookupOwn(ctx, d))
	}
	return ttl
}

// lookupOwn looks up the MTA-STS policy of d, and returns how long it holds.
func (f *Finder) lookupOwn(ctx context.Context, d *domainFacts) (ttl time.Duration) {
	ttl, d.stErr = f.lookupSTS(ctx, d.domain, d.record, &d.sts)
	now := time.Now()
	d.policy = d.sts.current(now)
	ttl = keepFor(ttl, d.stErr)
	if next := d.sts.next(); !next.IsZero() {
		ttl = min(ttl, next.Sub(now))
	}
	return ttl
}

// lookupText is lookupOwn where a policy daemon says whether an MTA-STS policy
// applied. Not every daemon says which one that was.
func (f *Finder) lookupText(ctx context.Context, d *domainFacts) time.Duration {
	named := d.policy
	ttl := f.lookupOwn(ctx, d)
	switch {
	case named != nil || d.daemon.level != "secure":
		d.policy, d.stErr = named, nil
	case d.policy != nil && d.policy.Mode != Enforce:
		d.policy = nil // it was enforced when the daemon fetched it
	}
	return ttl
}

// daemonTTL is how long an answer of a policy daemon is kept. It has a cache of
// its own, close by.
const daemonTTL = 5 * time.Minute

// askDaemon asks the policy daemon about d, and returns how long its answer
// holds.
func (f *Finder) askDaemon(ctx context.Context, d *domainFacts) time.Duration {
	text, err := f.daemon.query(ctx, d.domain)
	if errors.Is(err, errNotListed) {
		return daemonTTL
	}
	if err == nil {
		d.daemon, err = parseDaemonAnswer(d.domain, text)
	}
	if err != nil {
		d.err = err
		return minTTL
	}
	d.dane = slices.Contains(daneLevels, d.daemon.level)
	d.strict = d.daemon.level == "dane-only"
	if p := d.daemon.policy; p != nil && p.Type == schema.STS {
		d.policy = &STS{Policy: *p, Mode: d.daemon.mode, mx: p.MXHosts}
	}
	if d.daemon.ttl > 0 {
		return min(d.daemon.ttl, daemonTTL)
	}
	return daemonTTL
}

// keepFor is how long an answer of DNS with this TTL is kept. err is what the
// look-up ended in.
func keepFor(ttl time.Duration, err error) time.Duration {
	switch {
	case resolve.IsTemporary(err):
		return minTTL
	case err != nil && ttl == 0:
		return absenceTTL
	}
	return min(max(ttl, minTTL), maxTTL)
}

// What an element of memory takes besides its texts, in bytes: measured, about.
const (
	domainOverhead = 700
	hostOverhead   = 300
)

func domainSize(key string, d *domainFacts) int {
	// The key is in the map, the facts and the job.
	size := domainOverhead + 2*len(key) + len(d.record) + stringsSize(d.mx.hosts) + d.sts.size
	if d.daemon.policy != nil {
		size += policySize(*d.daemon.policy)
	}
	return size
}

func hostSize(key string, h *hostFacts) int {
	size := hostOverhead + 2*len(key)
	if h.tlsa != nil {
		size += policySize(h.tlsa.Policy)
	}
	return size
}

func policySize(p schema.Policy) int {
	return len(p.Domain) + stringsSize(p.Strings) + stringsSize(p.MXHosts)
}

func stringsSize(list []string) int {
	size := 16 * len(list)
	for _, s := range list {
		size += len(s)
	}
	return size
}
