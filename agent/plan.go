package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

const (
	// planners bounds how many domains are planned at once. Each may wait for
	// the DNS; how many questions are asked at once is the resolver's setting.
	planners = 32

	// patience is how long the look-up of a record is retried before the record
	// that was seen last stands in for it.
	patience = 6 * time.Hour

	// freshness is how old the record that stands in may be.
	freshness = 48 * time.Hour

	// planGroup bounds how many plans share a transaction.
	planGroup = 256

	// planDeadline bounds the look-up and the making of one report.
	planDeadline = 20 * time.Second
)

// page is how many domain-days are read at once: memory does not grow with the
// number of domains.
const page = 512

// planning makes the plans of domain-days, several at a time and each by itself:
// a domain whose look-up takes long, fails or panics delays no other one.
type planning struct {
	agent *Agent
	which Submission
	wake  func(*aggregator.Plan) // tells that there are its deliveries

	work              chan aggregator.DomainDay
	plans             chan aggregator.Plan
	deciding, storing sync.WaitGroup

	mu        sync.Mutex
	busy      map[domainDay]bool // under way
	postponed []error            // why, of the first few
	failed    error              // the store's, newest
}

// domainDay tells apart what is planned.
type domainDay struct {
	day    schema.Day
	domain string
}

// newPlanning starts the workers. The caller has to end it.
func (a *Agent) newPlanning(ctx context.Context, which Submission, wake func(*aggregator.Plan)) *planning {
	p := &planning{
		agent: a, which: which, wake: wake,
		work: make(chan aggregator.DomainDay), plans: make(chan aggregator.Plan),
		busy: map[domainDay]bool{},
	}
	for range planners {
		p.deciding.Go(func() {
			for d := range p.work {
				p.one(ctx, d)
			}
		})
	}
	p.storing.Go(func() { p.store(ctx) })
	return p
}

// end waits for the plans under way. The error joins what the store said and
// what was put off.
func (p *planning) end() error {
	close(p.work)
	p.deciding.Wait()
	close(p.plans)
	p.storing.Wait()
	return errors.Join(append(p.postponed, p.failed)...)
}

// due is the step that has everything planned that is due. It waits for none of
// it, only for a worker to be free.
func (p *planning) due(ctx context.Context) (time.Time, error) {
	if err := p.upTo(ctx, time.Now()); err != nil {
		return time.Time{}, err
	}
	return p.agent.store.NextDue(ctx)
}

// upTo has planned what is due at a time.
func (p *planning) upTo(ctx context.Context, at time.Time) error {
	var last aggregator.DomainDay
	for {
		due, err := p.agent.store.Due(ctx, at, page, last)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, d := range due {
			if !p.which.selects(d.Day, d.Domain) || !p.begin(d) {
				continue
			}
			select {
			case p.work <- d:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		last = due[len(due)-1]
	}
}

// begin notes that d is under way. It is false if it was already.
func (p *planning) begin(d aggregator.DomainDay) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := domainDay{d.Day, d.Domain}
	if p.busy[key] {
		return false
	}
	p.busy[key] = true
	return true
}

// done notes that d is no longer under way.
func (p *planning) done(d aggregator.DomainDay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy, domainDay{d.Day, d.Domain})
}

// one decides what becomes of one domain-day. What cannot be decided yet is put
// off.
func (p *planning) one(ctx context.Context, d aggregator.DomainDay) {
	a := p.agent
	plan, reason, err := a.decideSafely(ctx, d)
	held, isHeld := errors.AsType[*heldBack](err)
	switch {
	case ctx.Err() != nil:
		p.done(d) // shutting down: the domain-day stays due
		return
	case isHeld:
		a.hold(ctx, d, held)
		p.done(d)
		return
	case err != nil && (d.Failing.IsZero() || time.Since(d.Failing) < lifetime):
		a.postpone(ctx, d, err)
		p.putOff(d, err)
		return
	case err != nil:
		a.log.Error("planning given up", "domain", d.Domain, "day", d.Day, "error", err)
		plan = aggregator.Plan{DomainDay: d, State: aggregator.StateExpired}
	}
	if plan.Report != nil {
		a.archive.keep(plan.Report)
	} else if reason != "" {
		a.log.Debug("no report is made", "domain", d.Domain, "day", d.Day, "state", plan.State, "reason", reason)
	}
	p.plans <- plan
}

// hold puts off a domain-day that the next day decides about.
func (a *Agent) hold(ctx context.Context, d aggregator.DomainDay, why *heldBack) {
	a.log.Debug("planning held", "domain", d.Domain, "day", d.Day, "until", why.until)
	if err := a.store.Hold(ctx, d, why.until); err != nil {
		a.log.Error("holding, it will be planned again", "domain", d.Domain, "day", d.Day, "error", err)
	}
}

// maxPutOff bounds how many reasons are told by end.
const maxPutOff = 10

// putOff notes why d was put off.
func (p *planning) putOff(d aggregator.DomainDay, cause error) {
	p.done(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch n := len(p.postponed); {
	case n < maxPutOff:
		p.postponed = append(p.postponed, fmt.Errorf("%s of %s is put off: %w", d.Domain, d.Day, cause))
	case n == maxPutOff:
		p.postponed = append(p.postponed, errors.New("more domains are put off"))
	}
}

// store stores plans in groups, each as large as it grew while the one before
// was stored.
func (p *planning) store(ctx context.Context) {
	for plan := range p.plans {
		group := []aggregator.Plan{plan}
		for more := true; more && len(group) < planGroup; {
			select {
			case plan, ok := <-p.plans:
				if more = ok; ok {
					group = append(group, plan)
				}
			default:
				more = false
			}
		}
		for i, err := range p.agent.store.PlanAll(ctx, group) {
			p.stored(&group[i], err)
		}
	}
}

// stored notes what became of a plan.
func (p *planning) stored(plan *aggregator.Plan, err error) {
	d := plan.DomainDay
	defer p.done(d)
	switch {
	case errors.Is(err, aggregator.ErrPlanned), errors.Is(err, aggregator.ErrChanged):
		return // by another process, or there is more to report: it comes up again if it is due
	case err != nil:
		p.agent.log.Error("storing a plan, it will be made again", "domain", d.Domain, "day", d.Day, "error", err)
		p.mu.Lock()
		p.failed = err
		p.mu.Unlock()
		return
	}
	p.agent.log.Info("planned", "domain", d.Domain, "day", d.Day, "state", plan.State, "destinations", len(plan.RUAs))
	if plan.Report != nil {
		p.wake(plan)
	}
}

// decideSafely is decide within its deadline, and with an error for a panic.
func (a *Agent) decideSafely(ctx context.Context, d aggregator.DomainDay) (p aggregator.Plan, reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, planDeadline)
	defer cancel()
	err = guarded(func() (err error) {
		p, reason, err = a.decide(ctx, d)
		return err
	})
	return p, reason, err
}

// postpone puts off a domain-day that could not be decided. The look-up is
// retried until it is too late for a report.
func (a *Agent) postpone(ctx context.Context, d aggregator.DomainDay, cause error) {
	now := time.Now()
	failing := d.Failing
	if failing.IsZero() {
		failing = now
	}
	until := now.Add(backoff(1 + int(now.Sub(failing)/(10*time.Minute))))
	if end := failing.Add(patience); now.Before(end) && end.Before(until) {
		until = end // when another record may stand in
	}
	a.log.Warn("planning postponed", "domain", d.Domain, "day", d.Day, "until", until, "error", cause)
	d.Failing = failing
	if err := a.store.Postpone(ctx, d, until); err != nil {
		a.log.Error("postponing, it will be planned again", "domain", d.Domain, "day", d.Day, "error", err)
	}
}

// decide says what becomes of d: its report, or the state in which it ends
// without one and the reason. An error means that nothing could be decided yet.
func (a *Agent) decide(ctx context.Context, d aggregator.DomainDay) (p aggregator.Plan, reason string, err error) {
	p = aggregator.Plan{DomainDay: d}
	if p.State, reason, err = a.ruledOut(ctx, d); err != nil || p.State != "" {
		return p, reason, err
	}
	rec, err := a.record(ctx, d, &p.Record)
	switch {
	case errors.Is(err, errExpired):
		p.State = aggregator.StateExpired
		return p, err.Error(), nil
	case submitter.IsTemporary(err):
		return p, "", err
	case err != nil:
		p.State = aggregator.StateNoRecord
		return p, err.Error(), nil
	}
	if p.RUAs, p.Withheld = a.destinations(rec.RUA); len(p.RUAs)+len(p.Withheld) == 0 {
		p.State = aggregator.StateExcluded
		return p, byExcludeRUA + " has every rua", nil
	}
	if told, err := a.toldAlready(ctx, d, rec.RUA); err != nil {
		return p, "", err
	} else if told {
		p.State, p.RUAs, p.Withheld = aggregator.StateExcluded, nil, nil
		return p, "the reports about its recipient domains go to the same destinations", nil
	}
	if !a.o.DryRun {
		p.Copy = a.bcc
	}
	p.InTurn = a.o.OneRUA
	report, err := a.report(ctx, d)
	if err != nil {
		return p, "", err
	}
	parcel, err := a.pack(ctx, d, report)
	if err != nil {
		return p, "", err
	}
	p.State, p.Report = aggregator.StateReported, stored(d, parcel)
	err = a.withhold(ctx, &p)
	return p, "", err
}

// ruledOut is the state in which d ends whoever asks for its report, and the
// reason, or "".
func (a *Agent) ruledOut(ctx context.Context, d aggregator.DomainDay) (aggregator.State, string, error) {
	by, err := a.excluded(ctx, d)
	if err != nil || by != "" {
		return aggregator.StateExcluded, by, err
	}
	own, err := a.ownReports(ctx, d)
	if err != nil || !own {
		return "", "", err
	}
	return aggregator.StateOwnReports, "all its sessions may be those of reports", nil
}

// errExpired means that no record could be looked up while it still mattered.
var errExpired = errors.New("agent: no TLSRPT record could be looked up in time")

// record is the TLSRPT record that the report of d goes by: the one of now, or,
// once look-ups have failed for long, the newest that was seen. text is set to
// what a look-up found.
func (a *Agent) record(ctx context.Context, d aggregator.DomainDay, text *string) (schema.Record, error) {
	found, rec, err := a.submitter.Discover(ctx, d.Domain)
	if !submitter.IsTemporary(err) {
		*text = found
		return rec, err
	}
	now := time.Now()
	if d.Failing.IsZero() || now.Sub(d.Failing) < patience {
		return schema.Record{}, err
	}
	if d.Record == "" || now.Sub(d.RecordSeen) > freshness {
		return schema.Record{}, fmt.Errorf("%w: %w", errExpired, err)
	}
	return schema.ParseRecord(d.Record)
}

// report is the report about d as it would be sent.
func (a *Agent) report(ctx context.Context, d aggregator.DomainDay) (*schema.Report, error) {
	policies, err := a.store.Aggregate(ctx, d)
	if err != nil {
		return nil, err
	}
	r := &schema.Report{
		OrganizationName: a.o.Organization,
		DateRange:        d.Day.Range(),
		ContactInfo:      a.o.Contact,
		Policies:         policies,
	}
	r.ReportID = schema.ReportID(d.Day, d.Domain, a.store.Token(d.Day, d.Domain, d.Part), r.Submitter())
	return r, nil
}

// pack makes the parcel of a report. A supplement names the report it adds to.
func (a *Agent) pack(ctx context.Context, d aggregator.DomainDay, r *schema.Report) (submitter.Parcel, error) {
	var adds string
	if d.Part > 0 {
		adds = schema.ReportID(d.Day, d.Domain, a.store.Token(d.Day, d.Domain, 0), r.Submitter())
	}
	return submitter.Pack(r, d.Domain, a.o.From, time.Now(), adds)
}

// stored is a parcel as the store keeps it.
func stored(d aggregator.DomainDay, p submitter.Parcel) *aggregator.Report {
	return &aggregator.Report{
		ID: p.ReportID, Day: d.Day, Domain: d.Domain, Part: d.Part,
		Submitter: p.Submitter, From: p.From, FileName: p.FileName,
		MessageID: p.MessageID, Boundary: p.Boundary, Date: p.Date,
		Text: p.Text, Gzip: p.Gzip,
	}
}

// parcel is a stored report as it is sent.
func parcel(r aggregator.Report) submitter.Parcel {
	return submitter.Parcel{
		ReportID: r.ID, Domain: r.Domain, Submitter: r.Submitter, From: r.From, FileName: r.FileName,
		MessageID: r.MessageID, Boundary: r.Boundary, Date: r.Date,
		Text: r.Text, Gzip: r.Gzip,
	}
}
