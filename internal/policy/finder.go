package policy

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

var (
	// ErrPending means that the answer is being looked up, or waits for its turn:
	// ask again. [Finder.Wait] says when it is worth it.
	ErrPending = errors.New("policy: not looked up yet")

	// ErrUnknown means that a look-up failed which may succeed later, so that
	// nobody can say which policy applied. The answer holds what is known.
	ErrUnknown = errors.New("policy: unknown")

	// ErrClosed means that the Finder looks up no more.
	ErrClosed = errors.New("policy: closed")
)

// Bounds on what is kept and done at once. A domain takes about 1 KiB.
const (
	maxDomains     = 100_000
	maxDomainBytes = 48 << 20
	maxHosts       = 100_000
	maxHostBytes   = 16 << 20

	maxQueue    = 10_000 // domains that wait for a worker
	maxJobHosts = 64     // hosts of a domain that are asked for at once

	defaultWorkers = 32

	minTTL     = time.Minute // an answer of DNS is kept at least so long
	maxTTL     = 24 * time.Hour
	absenceTTL = 15 * time.Minute // of an absence that no SOA record bounds
)

// Options says what a Finder looks for. Nothing is looked for by the zero value
// but MX hosts.
type Options struct {
	// Resolver asks DNS; nil asks the servers of /etc/resolv.conf.
	Resolver Resolver

	// DANE says that this MTA enforces DANE. It takes a resolver that validates:
	// see [Probe].
	DANE bool

	// MTASTS says that this MTA enforces MTA-STS.
	MTASTS bool

	// Socketmap is asked whether MTA-STS applies, and may say that DANE does: it is
	// what Postfix itself asks. With MTASTS policies are looked up too, for their
	// text where the daemon does not tell it, and to report what cannot be
	// fetched. Nil means none.
	Socketmap *Socketmap

	// AllowPrivate lets policies be fetched from private addresses. For tests.
	AllowPrivate bool

	// RootCAs verify policy hosts; nil means those of the system.
	RootCAs *x509.CertPool

	// Port of policy hosts; 0 means 443. For tests.
	Port int

	// Report is given each failure to fetch an MTA-STS policy that is the
	// domain's, as one failed session that is ready to be counted. It is called
	// from several goroutines and should not block: a look-up waits for it. Nil
	// reports nothing, which is right for an import.
	Report func(schema.Session)

	// Workers is how many domains are looked up at once; 0 means 32.
	Workers int

	// Logger is told of panics; nil discards.
	Logger *slog.Logger
}

// Finder finds which policy applied to sessions, from memory and by look-ups in
// the background. It is safe for concurrent use and has to be closed.
type Finder struct {
	resolver  Resolver
	dane, sts bool
	daemon    *Socketmap
	fetch     func(ctx context.Context, domain string) (STSPolicy, error)
	report    func(schema.Session)
	workers   int
	logger    *slog.Logger

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	flights singleflight.Group // by host

	mu       sync.Mutex
	domains  *lru[*domainFacts]
	hosts    *lru[*hostFacts]
	jobs     map[string]*job // by domain, waiting or under way
	queue    []*job          // those that wait
	active   int             // workers
	idle     chan struct{}   // closed when there are no jobs
	attempts attempts
	stats    Stats
}

// job is a domain to be looked up, with some of its hosts.
type job struct {
	domain string
	hosts  []string // those that are still to be looked up
}

// Stats says what a Finder did. All but Domains, Hosts, Bytes and Waiting only
// grow.
type Stats struct {
	LookedUp      int64 // domains
	Dropped       int64 // look-ups that were not begun, because too many waited
	Fetches       int64 // of MTA-STS policies
	FetchFailures int64 // of Fetches
	Suppressed    int64 // of FetchFailures: not reported, because most fetches fail

	Domains, Hosts int // in memory
	Bytes          int // of them, about
	Waiting        int // domains that are being looked up, or wait for it
}

// New is a Finder. It starts nothing before it is asked.
func New(o Options) *Finder {
	r := o.Resolver
	if r == nil {
		r = (*resolve.Resolver)(nil)
	}
	dialer := &guard.Dialer{Resolver: addresses{r}, AllowPrivate: o.AllowPrivate, Timeout: connectTimeout}
	f := &Finder{
		resolver: r,
		dane:     o.DANE,
		sts:      o.MTASTS,
		daemon:   o.Socketmap,
		fetch:    newFetcher(dialer, o.RootCAs, o.Port).fetch,
		report:   o.Report,
		workers:  cmp.Or(max(o.Workers, 0), defaultWorkers),
		logger:   cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		domains:  newLRU(maxDomains, maxDomainBytes, domainSize),
		hosts:    newLRU(maxHosts, maxHostBytes, hostSize),
		jobs:     map[string]*job{},
		idle:     make(chan struct{}),
	}
	close(f.idle)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Close ends all look-ups and waits for them. Find then says [ErrClosed].
func (f *Finder) Close() {
	f.mu.Lock()
	f.cancel() // under the lock: from here on no worker starts
	f.mu.Unlock()
	f.running.Wait()
}

// Stats is a snapshot. It may be taken at any time.
func (f *Finder) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.stats
	st.Domains, st.Hosts = f.domains.len(), f.hosts.len()
	st.Bytes = f.domains.bytes + f.hosts.bytes
	st.Waiting = len(f.jobs)
	return st
}

// Find says which policy applied to a session with the MX host mx for domain,
// and never waits for the network. "" for mx asks about the domain alone: DANE
// is not among the answers.
//
// The error is [ErrPending], [ErrUnknown], [ErrClosed], or [schema.ErrDomain].
func (f *Finder) Find(domain, mx string) (Answer, error) {
	d, err := schema.ParseDomain(domain)
	if err != nil {
		return Answer{}, err
	}
	host, err := schema.ParseDomain(mx)
	if err != nil {
		host = "" // an address literal is in no MX set
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return Answer{}, ErrClosed
	}
	now := time.Now()
	facts, ok := f.domains.get(d)
	if !ok || !now.Before(facts.fresh) {
		f.enqueue(d, host)
		return Answer{}, ErrPending
	}
	if !f.wantsHost(facts, host) {
		return facts.answer(host, nil)
	}
	h, ok := f.hosts.get(host)
	if !ok || !now.Before(h.fresh) {
		f.enqueue(d, host)
		return Answer{}, ErrPending
	}
	return facts.answer(host, h)
}

// Wait returns when nothing is being looked up, or ctx ends with its cause.
func (f *Finder) Wait(ctx context.Context) error {
	f.mu.Lock()
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-f.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// enqueue has domain looked up, and host if it turns out to matter. f.mu is
// held.
func (f *Finder) enqueue(domain, host string) {
	j, ok := f.jobs[domain]
	if !ok {
		if len(f.queue) >= maxQueue {
			f.stats.Dropped++
			return
		}
		if len(f.jobs) == 0 {
			f.idle = make(chan struct{})
		}
		j = &job{domain: domain}
		f.jobs[domain] = j
		f.queue = append(f.queue, j)
	}
	f.addHost(j, host)
	if len(f.queue) > 0 && f.active < f.workers {
		f.active++
		f.running.Go(f.work)
	}
}

// addHost has the job look up host too. f.mu is held.
func (f *Finder) addHost(j *job, host string) {
	switch {
	case host == "" || slices.Contains(j.hosts, host):
	case len(j.hosts) >= maxJobHosts:
		f.stats.Dropped++
	default:
		j.hosts = append(j.hosts, host)
	}
}

// work does jobs until there are none.
func (f *Finder) work() {
	for {
		f.mu.Lock()
		if len(f.queue) == 0 || f.ctx.Err() != nil {
			f.active--
			f.mu.Unlock()
			return
		}
		j := f.queue[0]
		f.queue[0] = nil
		f.queue = f.queue[1:]
		f.mu.Unlock()
		f.run(j)
	}
}

// run does one job.
func (f *Finder) run(j *job) {
	facts := f.domainFacts(j.domain)
	for {
		f.mu.Lock()
		if len(j.hosts) == 0 || f.ctx.Err() != nil {
			f.finish(j)
			f.mu.Unlock()
			return
		}
		host := j.hosts[0]
		j.hosts = j.hosts[1:]
		h, ok := f.hosts.get(host)
		known := !f.wantsHost(facts, host) || ok && time.Now().Before(h.fresh)
		f.mu.Unlock()
		if !known {
			f.lookupHost(host)
		}
	}
}

// finish ends a job. f.mu is held.
func (f *Finder) finish(j *job) {
	delete(f.jobs, j.domain)
	f.stats.LookedUp++
	if len(f.jobs) == 0 {
		close(f.idle)
	}
}

// domainFacts is what is known of domain, looked up if it is not fresh.
func (f *Finder) domainFacts(domain string) *domainFacts {
	f.mu.Lock()
	old, ok := f.domains.get(domain)
	f.mu.Unlock()
	if ok && time.Now().Before(old.fresh) {
		return old
	}
	facts := &domainFacts{domain: domain}
	if ok {
		facts.sts = old.sts
	}
	if err := f.safely(func() { f.lookupDomain(f.ctx, facts) }); err != nil {
		facts.err, facts.fresh = err, time.Now().Add(minTTL)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.domains.put(domain, facts)
	return facts
}

// lookupHost looks up what host published for DANE. Many domains share a host:
// it is asked for once.
func (f *Finder) lookupHost(host string) {
	f.flights.Do(host, func() (any, error) {
		h := &hostFacts{}
		err := f.safely(func() {
			var ttl time.Duration
			h.tlsa, ttl, h.err = lookupTLSA(f.ctx, f.resolver, host)
			h.fresh = time.Now().Add(keepFor(ttl, h.err))
		})
		if err != nil {
			h.err, h.fresh = err, time.Now().Add(minTTL)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hosts.put(host, h)
		return nil, nil
	})
}

// safely is the last resort against a defect of ours or of a library: what a
// stranger publishes must not end the process.
func (f *Finder) safely(lookup func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("policy: a look-up panicked: %v", p)
			f.logger.Error("a look-up panicked", "panic", p)
		}
	}()
	lookup()
	return nil
}
