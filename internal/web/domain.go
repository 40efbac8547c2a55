package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

const (
	maxCauses   = 50       // ways to fail that a page lists
	maxPolicies = 20       // policies that a page lists
	maxJSON     = 64 << 10 // bytes of a report on a page; a file has it whole
	maxReport   = 32 << 20 // bytes of a report as a file
)

// domainPage is one domain.
type domainPage struct {
	Domain     string
	Record     string
	RecordSeen time.Time
	RecordErr  string // what is wrong with Record
	RUAs       []schema.RUA
	Days       []aggregator.DomainDay // newest first
	Totals     schema.Summary         // of Days
	Results    []resultRow            // by day
	Types      []schema.ResultType    // columns of Results
	Policies   []policyRow
	Causes     []cause
	MoreCauses int
	Deliveries []aggregator.Delivery // newest first
	Now        *alertRow             // what the window of the alerts says; nil: no failure
}

// Chart is Days in the order of a chart.
func (p domainPage) Chart() []aggregator.DomainDay {
	days := slices.Clone(p.Days)
	slices.Reverse(days)
	return days
}

// alertRow is the rate of a domain within the window.
type alertRow struct {
	Totals  schema.Summary
	Failing bool
	Rule    string
}

// resultRow is how often each type of Types occurred on a day.
type resultRow struct {
	Day    schema.Day
	Counts []int64
}

// policyRow is a policy and its sessions within the days.
type policyRow struct {
	schema.Policy
	Totals schema.Summary
	Last   schema.Day
}

// cause is a way to fail: an MX host, a result type, and the reason.
type cause struct {
	schema.FailureDetails
	Sessions int64
	Last     schema.Day
}

func (s *Server) domain(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	domain, err := pathDomain(r)
	if err != nil {
		return err
	}
	p := domainPage{Domain: domain}
	if p.Record, p.RecordSeen, err = s.o.Store.KnownDomain(ctx, domain); err != nil {
		return err
	}
	if p.Record != "" {
		rec, err := schema.ParseRecord(p.Record)
		if p.RUAs = rec.RUA; err != nil {
			p.RecordErr = err.Error()
		}
	}
	if p.Days, err = s.o.Store.History(ctx, domain, s.firstDay(), schema.DayOf(s.now())); err != nil {
		return err
	}
	slices.Reverse(p.Days)
	if err := s.addCounted(ctx, &p); err != nil {
		return err
	}
	if p.Deliveries, _, err = s.o.Store.DeliveryPage(ctx, aggregator.DeliveryFilter{Domain: domain}, 0, 10); err != nil {
		return err
	}
	s.addRate(&p)
	return s.render(w, r, "domain", show(domain, maxShown), "domains", p)
}

// pathDomain is the domain in the path, in its canonical form.
func pathDomain(r *http.Request) (string, error) {
	domain, err := schema.ParseDomain(r.PathValue("domain"))
	if err != nil {
		return "", badRequest("That is not the name of a domain.")
	}
	return domain, nil
}

// addCounted adds what is kept in full of each day.
func (s *Server) addCounted(ctx context.Context, p *domainPage) error {
	policies, causes := map[schema.PolicyText]*policyRow{}, map[schema.DetailsText]*cause{}
	perDay, types := map[schema.Day]map[schema.ResultType]int64{}, map[schema.ResultType]int64{}
	for _, d := range p.Days {
		p.Totals.Success += d.Totals.Success
		p.Totals.Failure += d.Totals.Failure
		counted, err := s.o.Store.Counted(ctx, p.Domain, d.Day)
		if err != nil {
			return err
		}
		for _, c := range counted {
			row := policies[c.Policy.Text()]
			if row == nil {
				row = &policyRow{Policy: c.Policy, Last: d.Day}
				policies[c.Policy.Text()] = row
			}
			row.Totals.Success += c.Summary.Success
			row.Totals.Failure += c.Summary.Failure
			for _, f := range c.FailureDetails {
				if perDay[d.Day] == nil {
					perDay[d.Day] = map[schema.ResultType]int64{}
				}
				perDay[d.Day][f.ResultType] += f.FailedSessionCount
				types[f.ResultType] += f.FailedSessionCount
				addCause(causes, f, d.Day)
			}
		}
	}
	p.Types = slices.SortedFunc(maps.Keys(types), func(a, b schema.ResultType) int {
		return cmp.Or(cmp.Compare(types[b], types[a]), cmp.Compare(a, b))
	})
	for _, d := range p.Days {
		row := resultRow{Day: d.Day, Counts: make([]int64, len(p.Types))}
		for i, t := range p.Types {
			row.Counts[i] = perDay[d.Day][t]
		}
		p.Results = append(p.Results, row)
	}
	for _, row := range policies {
		p.Policies = append(p.Policies, *row)
	}
	slices.SortFunc(p.Policies, func(a, b policyRow) int {
		return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(b.Totals.Success+b.Totals.Failure, a.Totals.Success+a.Totals.Failure), cmp.Compare(a.Text(), b.Text()))
	})
	p.Policies = p.Policies[:min(len(p.Policies), maxPolicies)]
	for _, c := range causes {
		p.Causes = append(p.Causes, *c)
	}
	slices.SortFunc(p.Causes, func(a, b cause) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Text(), b.Text()))
	})
	p.MoreCauses = max(0, len(p.Causes)-maxCauses)
	p.Causes = p.Causes[:len(p.Causes)-p.MoreCauses]
	return nil
}

// addCause counts details that differ only in our own address as one.
func addCause(causes map[schema.DetailsText]*cause, f schema.FailureDetails, day schema.Day) {
	n := f.FailedSessionCount
	f.SendingMTAIP, f.FailedSessionCount = schema.FailureDetails{}.SendingMTAIP, 0
	c := causes[f.Text()]
	if c == nil {
		c = &cause{FailureDetails: f, Last: day}
		causes[f.Text()] = c
	}
	c.Sessions += n
}

// addRate adds what is known of the last hour.
func (s *Server) addRate(p *domainPage) {
	if s.o.Alerter == nil {
		return
	}
	for _, rate := range s.o.Alerter.Window().Rates(s.now(), 1) {
		if rate.Domain == p.Domain {
			p.Now = &alertRow{Totals: schema.Summary{Success: rate.Success, Failure: rate.Failure}, Rule: s.o.Alerter.Describe()}
		}
	}
	for _, rate := range s.o.Alerter.Listed(s.now()) {
		if p.Now != nil && rate.Domain == p.Domain {
			p.Now.Failing = true
		}
	}
}

// reportPage is the report about a domain and a day.
type reportPage struct {
	Domain string
	Day    schema.Day
	Parcel submitter.Parcel
	JSON   string
	Size   int // bytes of the whole JSON
	Cut    bool
	Mail   bool // there is a message to load
	Why    string
}

func (s *Server) report(w http.ResponseWriter, r *http.Request) error {
	domain, day, err := reportOf(r)
	if err != nil {
		return err
	}
	p := reportPage{Domain: domain, Day: day}
	p.Parcel, err = s.preview(r.Context(), domain, day)
	switch {
	case errors.Is(err, aggregator.ErrNoData):
		p.Why = "Nothing is kept of this day that a report could be made of: nothing was counted, or the domain asks for no reports."
	case err != nil:
		return err
	default:
		text, err := gunzip(p.Parcel.Gzip)
		if err != nil {
			return err
		}
		p.Size, p.Cut, p.Mail = len(text), len(text) > maxJSON, s.o.Message != nil
		p.JSON = showText(string(text), maxJSON)
	}
	return s.render(w, r, "report", "Report about "+show(domain, maxShown), "domains", p)
}

func reportOf(r *http.Request) (string, schema.Day, error) {
	domain, err := pathDomain(r)
	if err != nil {
		return "", 0, err
	}
	day, err := parseDay(r.PathValue("day"))
	return domain, day, err
}

// preview is the report, or a refusal where none can be made.
func (s *Server) preview(ctx context.Context, domain string, day schema.Day) (submitter.Parcel, error) {
	if s.o.Preview == nil {
		return submitter.Parcel{}, ErrNoReports
	}
	return s.o.Preview(ctx, domain, day)
}

func (s *Server) reportJSON(w http.ResponseWriter, r *http.Request) error {
	domain, day, err := reportOf(r)
	if err != nil {
		return err
	}
	p, err := s.preview(r.Context(), domain, day)
	if err != nil {
		return err
	}
	text, err := gunzip(p.Gzip)
	if err != nil {
		return err
	}
	return sendFile(w, "application/json", domain+"-"+day.String()+".json", text)
}

// reportMail is the message as the first mail destination of the record that is
// known gets it. Nothing is looked up for a page.
func (s *Server) reportMail(w http.ResponseWriter, r *http.Request) error {
	domain, day, err := reportOf(r)
	if err != nil {
		return err
	}
	if s.o.Message == nil {
		return badRequest("Reports are not mailed.")
	}
	p, err := s.preview(r.Context(), domain, day)
	if err != nil {
		return err
	}
	to := schema.RUA("mailto:postmaster@" + domain)
	if text, _, err := s.o.Store.KnownDomain(r.Context(), domain); err == nil {
		if rec, err := schema.ParseRecord(text); err == nil {
			if i := slices.IndexFunc(rec.RUA, func(rua schema.RUA) bool { return rua.Address() != "" }); i >= 0 {
				to = rec.RUA[i]
			}
		}
	}
	message, err := s.o.Message(p, to)
	if err != nil {
		return err
	}
	return sendFile(w, "message/rfc822", domain+"-"+day.String()+".eml", message)
}

// sendFile sends something to be saved, never to be shown.
func sendFile(w http.ResponseWriter, kind, name string, text []byte) error {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	w.WriteHeader(http.StatusOK)
	w.Write(text) // whoever went away needs no answer
	return nil
}

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, maxReport))
}
