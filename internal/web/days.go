package web

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const chartDays = 30 // at most, on a page

// dayRow is a day as the overview shows it.
type dayRow struct {
	Day     schema.Day
	State   string
	Domains int64
	Totals  schema.Summary
	Waiting int64 // domain-days to be planned
	Pending int64 // deliveries
}

// Sessions is how many there were.
func (d dayRow) Sessions() int64 { return d.Totals.Success + d.Totals.Failure }

// firstDay is the oldest day that pages show.
func (s *Server) firstDay() schema.Day {
	days := schema.Day(chartDays)
	if keep := schema.Day(s.o.Keep / (24 * time.Hour)); keep > 0 && keep < days {
		days = keep
	}
	return schema.DayOf(s.now()) - days
}

// openDays lists the days that are not closed, newest first, none older than
// pages show.
func (s *Server) openDays(ctx context.Context) ([]schema.Day, error) {
	days, err := s.o.Store.OpenDays(ctx)
	return slices.DeleteFunc(days, func(d schema.Day) bool { return d < s.firstDay() }), err
}

// openDay is what was counted on a day that is not closed.
func (s *Server) openDay(ctx context.Context, day schema.Day) (aggregator.OpenDay, error) {
	return s.open.get(ctx, day, func(ctx context.Context) (aggregator.OpenDay, error) {
		return s.o.Store.CountOpenDay(ctx, day)
	})
}

// days is the rows of all days, newest first.
func (s *Server) days(ctx context.Context, o aggregator.Overview) ([]dayRow, error) {
	closed, err := s.o.Store.Days(ctx, s.firstDay(), schema.DayOf(s.now())+1)
	if err != nil {
		return nil, err
	}
	open, err := s.openDays(ctx)
	if err != nil {
		return nil, err
	}
	var rows []dayRow
	for _, day := range open {
		count, err := s.openDay(ctx, day)
		if err != nil {
			return nil, err
		}
		rows = append(rows, dayRow{Day: day, State: "open", Domains: count.Domains, Totals: count.Totals, Pending: o.Pending[day]})
	}
	for _, d := range closed {
		row := dayRow{Day: d.Day, State: "done", Domains: d.Domains, Totals: d.Totals, Waiting: o.Waiting[d.Day], Pending: o.Pending[d.Day]}
		switch {
		case row.Waiting > 0:
			row.State = "planning"
		case row.Pending > 0:
			row.State = "delivering"
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b dayRow) int { return int(b.Day) - int(a.Day) })
	return rows, nil
}

// newestDays is all days that pages can be asked for, newest first.
func (s *Server) newestDays(ctx context.Context) ([]schema.Day, error) {
	closed, err := s.o.Store.Days(ctx, s.firstDay(), schema.DayOf(s.now())+1)
	if err != nil {
		return nil, err
	}
	days, err := s.openDays(ctx)
	for _, d := range closed {
		days = append(days, d.Day)
	}
	slices.Sort(days)
	slices.Reverse(days)
	return days, err
}

// queryDay is the day that a request asks for, or 0.
func queryDay(r *http.Request) (schema.Day, error) {
	text := r.FormValue("day")
	if text == "" {
		return 0, nil
	}
	return parseDay(text)
}

func parseDay(text string) (schema.Day, error) {
	day, err := schema.ParseDay(text)
	if err != nil {
		return 0, badRequest("A day has the form 2026-11-22.")
	}
	return day, nil
}
