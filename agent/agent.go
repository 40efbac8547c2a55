// Package agent runs the life of a day and of a delivery: it hands sessions to
// the store, closes days on a schedule, makes the reports that domains asked
// for, and delivers each until it is accepted or given up.
//
// A mail server written in Go needs nothing else: it opens an aggregator.Store,
// makes an [Agent] with a submitter.Submitter, calls [Agent.Record] after each
// TLS negotiation, and [Agent.Run] once. See the example.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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
	// are still on their way. Zero closes it at once.
	Grace time.Duration

	// MaxAge is how long after its end a day may still be submitted. Zero means
	// [DefaultMaxAge].
	MaxAge time.Duration

	// Keep is how long days are kept. Zero keeps them for ever.
	Keep time.Duration

	// PerHost is how many deliveries go to one destination host at the same
	// time. Zero means [DefaultPerHost].
	PerHost int

	// Logger nil discards.
	Logger *slog.Logger
}

const (
	// DefaultSchedule is a quarter past midnight, UTC.
	DefaultSchedule = "15 0 * * *"
	// DefaultMaxAge is three days: nobody wants an older report.
	DefaultMaxAge = 72 * time.Hour
	// DefaultPerHost keeps one receiver from being flooded.
	DefaultPerHost = 2
)

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

	planned  chan struct{} // a report was made: the deliverer has work
	released chan struct{} // a day was released: the planner has work
}

// recordSource is the name under which the sessions of Record are stored.
const recordSource = "record"

// New checks o and makes an Agent. The error is [ErrOptions], or
// the store's.
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
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.PerHost == 0 {
		o.PerHost = DefaultPerHost
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Submitter != nil {
		// What was counted before submission was switched on is not sent.
		if _, err := o.Store.SubmissionSince(context.Background(), time.Now()); err != nil {
			return nil, err
		}
	}
	return &Agent{
		store:     o.Store,
		submitter: o.Submitter,
		sources:   o.Sources,
		counter:   collector.NewCounter(o.Store, recordSource, collector.CounterOptions{Logger: o.Logger}),
		schedule:  schedule,
		o:         o,
		log:       o.Logger,
		planned:   make(chan struct{}, 1),
		released:  make(chan struct{}, 1),
	}, nil
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
	domain := (&schema.Report{ContactInfo: o.Contact}).Submitter()
	if from := (&schema.Report{ContactInfo: o.From}).Submitter(); from != domain {
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
	if spec, ok := schedule.(*cron.SpecSchedule); ok {
		spec.Location = time.UTC
	}
	return schedule, nil
}

// Record counts one session. It returns at once; the session is in the store at
// most one second later, while [Agent.Run] runs. A zero Session.Time means now.
// The error is schema.ErrSession.
func (a *Agent) Record(s schema.Session) error {
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	c, err := s.Canonical()
	if err != nil {
		return err
	}
	a.counter.Add(schema.DayOf(s.Time), c)
	return nil
}

// shutdown bounds how long Run goes on after its context ended.
const shutdown = 20 * time.Second

// Run collects, closes, plans and delivers until ctx ends. It then lets every
// source hand over what it holds, commits it, and waits for the attempts under
// way. It returns nil, or the error of a source that could not go on; the others
// keep running until ctx ends. Call it once.
func (a *Agent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(a.sources)+2)
	for i, src := range a.sources {
		wg.Go(func() {
			if errs[i] = src.Run(ctx, a.store); errs[i] != nil {
				a.log.Error("source stopped", "source", src.Name(), "error", errs[i])
			}
		})
	}
	wg.Go(func() { errs[len(a.sources)] = a.counter.Run(ctx) })
	if a.submitter != nil {
		wg.Go(func() { a.every(ctx, "release", a.releaser(), nil) })
		wg.Go(func() { a.every(ctx, "plan", a.planDue, a.released) })
		wg.Go(func() { errs[len(a.sources)+1] = (&deliverer{agent: a, wake: a.planned}).run(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
