// Package agent runs the life of a day and of a delivery: it hands sessions to
// the store, closes days on a schedule, makes the reports that domains asked
// for, and delivers each until it is accepted or given up.
//
// A mail server written in Go needs nothing else: it opens an aggregator.Store,
// makes an [Agent] with a submitter.Submitter, calls [Agent.Record] after each
// TLS negotiation, and [Agent.Run] once. See the example. It may hand over the
// bounces of report mail, too: see [Agent.Bounced].
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// Options is what an Agent is made of. Only Store is required.
type Options struct {
	Store *aggregator.Store

	// Submitter delivers reports. Nil: sessions are counted, nothing is sent.
	Submitter *submitter.Submitter

	// Sources are read while the agent runs. Sessions may come from Record too.
	Sources []collector.Source

	// Organization is the organization-name of every report. "" means the
	// domain of Contact.
	Organization string

	// Contact is the contact-info of every report, an addr-spec. Its domain is
	// the submitter (RFC 8460, section 5.3). Required with Submitter and for
	// Preview.
	Contact string

	// From is the sender of report mail, an addr-spec in the domain of Contact.
	// "" means Contact.
	From string

	// Schedule says when closed days are submitted, as a cron expression of five
	// fields in UTC. "" means [DefaultSchedule].
	Schedule string

	// Grace is how long after midnight UTC a day stays open, for sessions that
	// are still on their way. Zero means [DefaultGrace], less than zero none.
	Grace time.Duration

	// MaxAge is how long after its end a day may still be submitted. Zero means
	// [DefaultMaxAge].
	MaxAge time.Duration

	// Keep is how long days are kept, at least two days longer than MaxAge. Zero
	// keeps them for ever.
	Keep time.Duration

	// PerHost is how many deliveries go to one destination host at the same
	// time. Zero means [DefaultPerHost].
	PerHost int

	// Choice says who gets reports of those who ask for them.
	Choice Choice

	// OneRUA sends a report to one rua of a record, and to the next one only if
	// that failed. Otherwise every rua gets it.
	OneRUA bool

	// DryRun has reports made, kept and archived, and none sent: their deliveries
	// end as suppressed.
	DryRun bool

	// Archive is a directory for a copy of every report. "" keeps none.
	Archive string

	// BCC is an addr-spec that a copy of every report is mailed to, also of those
	// that are delivered by HTTPS. "" is nobody.
	BCC string

	// CountsReports says that the sessions of report mail are among those that are
	// counted, as with Postfix 3.10.0 to 3.10.3. They are then recognized by their
	// number, which takes a day longer. MaxAge has to be 48 h at least.
	CountsReports bool

	// MXHostReports has sessions with DANE reported to the TLSA base domain too,
	// where that has a TLSRPT record of its own, but for those of a
	// [collector.Native] source.
	MXHostReports bool

	// Attempted is told of each attempt to deliver, before its outcome is stored.
	// Nil: nobody is.
	Attempted func(aggregator.Delivery, aggregator.Outcome)

	// Logger nil discards.
	Logger *slog.Logger
}

const (
	// DefaultSchedule is a quarter past midnight, UTC.
	DefaultSchedule = "15 0 * * *"
	// DefaultGrace is a quarter of an hour.
	DefaultGrace = 15 * time.Minute
	// DefaultMaxAge is three days: nobody wants an older report.
	DefaultMaxAge = 72 * time.Hour
	// DefaultPerHost keeps one receiver from being flooded.
	DefaultPerHost = 2
)

// keepMargin is how much longer than they may be submitted days are kept: for the
// retries of the last deliveries.
const keepMargin = 48 * time.Hour

// ErrStopped means that a session came after Run had ended. It is not counted.
var ErrStopped = errors.New("agent: it has stopped")

// ErrOptions means that an Agent cannot be made of these options.
var ErrOptions = errors.New("agent: unusable options")

// Agent is made by [New]. Its methods are safe for concurrent use.
type Agent struct {
	store     *aggregator.Store
	submitter *submitter.Submitter
	sources   []collector.Source
	counter   *collector.Counter
	schedule  cron.Schedule
	o         Options
	log       *slog.Logger
	choice    choice
	bcc       schema.RUA // "": none
	archive   *archive
	relay     *relay

	pause    time.Duration // the constant; tests of weeks look less often
	released chan struct{} // a day was released: the planner has work
	stopped  atomic.Bool   // Run has ended
}

// recordSource is the name under which the sessions of Record are stored.
const recordSource = "record"

// New checks o and makes an Agent. The error is [ErrOptions].
func New(o Options) (*Agent, error) {
	if o.Store == nil {
		return nil, fmt.Errorf("%w: no store", ErrOptions)
	}
	if o.Schedule == "" {
		o.Schedule = DefaultSchedule
	}
	schedule, err := ParseSchedule(o.Schedule)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	if o.Submitter != nil || o.Contact != "" {
		if err := o.setIdentity(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOptions, err)
		}
	}
	o.MaxAge = cmp.Or(o.MaxAge, DefaultMaxAge)
	o.PerHost = cmp.Or(o.PerHost, DefaultPerHost)
	o.Grace = max(cmp.Or(o.Grace, DefaultGrace), 0)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	switch {
	case o.MaxAge < 0 || o.PerHost < 0 || o.Keep < 0:
		return nil, fmt.Errorf("%w: a negative MaxAge, PerHost or Keep", ErrOptions)
	case o.CountsReports && o.MaxAge < heldMaxAge:
		return nil, fmt.Errorf("%w: CountsReports needs a MaxAge of %s at least", ErrOptions, heldMaxAge)
	case o.Keep > 0 && o.Keep < o.MaxAge+keepMargin:
		return nil, fmt.Errorf("%w: days are kept for %s, and may be submitted for %s: keep them %s longer at least", ErrOptions, o.Keep, o.MaxAge, keepMargin)
	}
	choice, err := o.Choice.read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	bcc, err := mailto(o.BCC)
	if err != nil {
		return nil, fmt.Errorf("%w: bcc: %w", ErrOptions, err)
	}
	a := &Agent{
		store:     o.Store,
		submitter: o.Submitter,
		sources:   o.Sources,
		schedule:  schedule,
		o:         o,
		log:       o.Logger,
		choice:    choice,
		bcc:       bcc,
		archive:   &archive{dir: o.Archive, log: o.Logger},
		relay:     &relay{log: o.Logger},
		pause:     pause,
		released:  make(chan struct{}, 1),
	}
	a.counter = collector.NewCounter(a.sink(nil), recordSource, collector.CounterOptions{Logger: o.Logger})
	return a, nil
}

// heldMaxAge is how old a day is at most when it was held back for a day, see
// ownReports.
const heldMaxAge = 48 * time.Hour

// mailto is an addr-spec as a rua; that of "" is "".
func mailto(address string) (schema.RUA, error) {
	if address == "" {
		return "", nil
	}
	if _, err := schema.ParseAddress(address); err != nil {
		return "", err
	}
	return schema.ParseRUA("mailto:" + url.PathEscape(address))
}

// setIdentity checks who sends, and fills in what follows from the contact.
// Receivers reject a report whose contact, From and signature do not agree.
func (o *Options) setIdentity() (err error) {
	if o.Contact, err = schema.ParseAddress(o.Contact); err != nil {
		return fmt.Errorf("contact: %w", err)
	}
	if o.From == "" {
		o.From = o.Contact
	}
	if o.From, err = schema.ParseAddress(o.From); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if o.Submitter != nil {
		path := submitter.ReturnPath{Address: o.From, Delimiter: o.Submitter.BounceDelimiter}
		if err := path.Check(aggregator.MaxBounceToken); err != nil {
			return err
		}
	}
	domain := schema.AddressDomain(o.Contact)
	if from := schema.AddressDomain(o.From); from != domain {
		return fmt.Errorf("the domains of contact (%s) and from (%s) differ", domain, from)
	}
	if o.Organization == "" {
		o.Organization = domain
	}
	return nil
}

// ParseSchedule reads a cron expression of five fields, in UTC.
func ParseSchedule(s string) (cron.Schedule, error) {
	schedule, err := cron.ParseStandard(s)
	if err != nil {
		return nil, fmt.Errorf("malformed schedule %q: %w", s, err)
	}
	spec, ok := schedule.(*cron.SpecSchedule)
	if !ok || strings.Contains(s, "TZ=") {
		return nil, fmt.Errorf("malformed schedule %q: want five fields, in UTC", s)
	}
	spec.Location = time.UTC
	if spec.Next(time.Now()).IsZero() {
		return nil, fmt.Errorf("malformed schedule %q: it never comes to a run", s)
	}
	return spec, nil
}

// Record counts one session. It returns at once; the session is in the store at
// most one second later, while [Agent.Run] runs, or after [Agent.Flush]. A zero
// Session.Time means now. The error is schema.ErrSession, or [ErrStopped].
func (a *Agent) Record(s schema.Session) error {
	now := time.Now()
	if s.Time.IsZero() {
		s.Time = now
	}
	switch {
	case a.stopped.Load():
		return ErrStopped
	case s.Time.After(now.Add(24 * time.Hour)):
		return fmt.Errorf("%w: its time is %s, which is to come", schema.ErrSession, s.Time)
	}
	c, err := s.Canonical()
	if err != nil {
		return err
	}
	a.counter.Add(schema.DayOf(s.Time), c)
	return nil
}

// Flush stores the sessions that were recorded before the call.
func (a *Agent) Flush(ctx context.Context) error { return a.counter.Flush(ctx) }

// shutdown bounds how long Run goes on after its context ended.
const shutdown = 20 * time.Second

// Run collects, closes, plans and delivers until ctx ends. It then lets every
// source hand over what it holds, commits it, and waits for the attempts under
// way. It returns nil, or the error of a source that could not go on; the others
// keep running until ctx ends. Call it once.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.switchOn(context.WithoutCancel(ctx)); err != nil {
		// A store that is locked for now does not keep sessions from being
		// received; the first release notes it.
		a.log.Error("noting that submission is on", "error", err)
	}
	var wg sync.WaitGroup
	var errs errorList
	for _, src := range a.sources {
		wg.Go(func() {
			if err := src.Run(ctx, a.sink(src)); err != nil {
				a.log.Error("source stopped", "source", src.Name(), "error", err)
				errs.add(err)
			}
		})
	}
	wg.Go(func() {
		errs.add(a.counter.Run(ctx))
		a.stopped.Store(true)
	})
	wg.Go(func() { a.every(ctx, "prune", a.pruner(), nil) })
	if a.submitter != nil {
		wg.Go(func() { a.every(ctx, "release", a.releaser(), nil) })
		wg.Go(func() { errs.add(a.submitDue(ctx)) })
	}
	wg.Wait()
	return errs.join()
}

// switchOn notes when submission was switched on: days that ended before are not
// sent.
func (a *Agent) switchOn(ctx context.Context) error {
	if a.submitter == nil {
		return nil
	}
	_, err := a.store.SubmissionSince(ctx, time.Now())
	return err
}

// submitDue plans and delivers what comes due, until ctx ends.
func (a *Agent) submitDue(ctx context.Context) error {
	d := a.newDelivery(aggregator.DeliveryFilter{}, a.o.Attempted)
	p := a.newPlanning(ctx, Submission{}, d.wake)
	var delivering sync.WaitGroup
	var errs errorList
	delivering.Go(func() { errs.add(d.run(ctx, nil)) })
	a.every(ctx, "plan", p.due, a.released)
	p.end() // every error of it was logged, and its work is still due
	delivering.Wait()
	return errs.join()
}

// errorList gathers errors of several goroutines.
type errorList struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errs = append(l.errs, err)
	}
}

func (l *errorList) join() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
