package web

import (
	"net/http"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/alert"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/health"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const maxListed = 10 // domains that fail now, and that failed most today

// overviewPage is the first page.
type overviewPage struct {
	Report   health.Report
	Days     []dayRow // newest first
	Today    dayRow
	NextRun  time.Time // zero: reports are not sent
	LastRun  time.Time // zero: there was none
	Waiting  int64     // deliveries
	Planning int64     // domain-days
	Sources  []health.Source
	Failing  []aggregator.DomainTotals // most today
	Watching string                    // what Alerts lists; "": nothing is watched
	Alerts   []alert.Rate
	More     int // alerts that are not listed
	Stats    aggregator.Stats
}

// Chart is the days in the order of a chart.
func (p overviewPage) Chart() []dayRow {
	rows := make([]dayRow, len(p.Days))
	for i, d := range p.Days {
		rows[len(rows)-1-i] = d
	}
	return rows
}

func (s *Server) overview(w http.ResponseWriter, r *http.Request) error {
	ctx, now := r.Context(), s.now()
	o, err := s.o.Store.Overview(ctx)
	if err != nil {
		return err
	}
	p := overviewPage{
		Report: s.o.Monitor.Report(), Sources: s.o.Monitor.Sources(),
		LastRun: o.Closed, Waiting: o.Deliveries[aggregator.DeliveryPending],
		Today: dayRow{Day: schema.DayOf(now)},
	}
	for _, n := range o.Waiting {
		p.Planning += n
	}
	if s.o.NextRun != nil {
		p.NextRun = s.o.NextRun(now)
	}
	if p.Days, err = s.days(ctx, o); err != nil {
		return err
	}
	if len(p.Days) > 0 && p.Days[0].Day == p.Today.Day && p.Days[0].State == "open" {
		p.Today = p.Days[0]
		today, err := s.openDay(ctx, p.Today.Day)
		if err != nil {
			return err
		}
		if p.Failing, err = s.o.Store.OpenFailing(ctx, today, aggregator.DomainTotals{}, maxListed); err != nil {
			return err
		}
	}
	if s.o.Alerter != nil {
		p.Watching, p.Alerts = s.o.Alerter.Describe(), s.o.Alerter.Listed(now)
		p.More = max(0, len(p.Alerts)-maxListed)
		p.Alerts = p.Alerts[:len(p.Alerts)-p.More]
	}
	if p.Stats, err = s.o.Store.Stats(ctx); err != nil {
		return err
	}
	return s.render(w, r, "overview", "Overview", "overview", p)
}
