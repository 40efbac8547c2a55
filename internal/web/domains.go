package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const (
	pageRows = 50

	// maxMatches is how many domains a search finds at most, and maxNames how many
	// are listed by name: some 40 MB while somebody looks.
	maxMatches = 1000
	maxNames   = 1_000_000

	maxQuery = 253 // characters, as long as a name
)

// domainsPage is the list of domains with their sessions of one day.
type domainsPage struct {
	Day   schema.Day
	Days  []schema.Day
	Sort  string // "failures" or "name"
	Query string
	Rows  []aggregator.DomainTotals
	Found int    // by a search
	Next  string // URL of the next page; "": this is the last
	Paged bool   // this is not the first page
	Cut   bool   // a search found more
}

// link is the URL of a page like p from a position on.
func (p domainsPage) link(after string) string {
	q := url.Values{"day": {p.Day.String()}, "sort": {p.Sort}}
	if p.Query != "" {
		q.Set("q", p.Query)
	}
	if after != "" {
		q.Set("after", after)
	}
	return "/domains?" + q.Encode()
}

// ByName and ByFailures are the first pages of each order.
func (p domainsPage) ByName() string     { p.Sort = "name"; return p.link("") }
func (p domainsPage) ByFailures() string { p.Sort = "failures"; return p.link("") }

func (s *Server) domains(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	p := domainsPage{Sort: cmp.Or(r.FormValue("sort"), "failures"), Query: strings.ToLower(strings.TrimSpace(r.FormValue("q")))}
	if p.Sort != "failures" && p.Sort != "name" {
		return badRequest("Domains are sorted by failures or by name.")
	}
	if len(p.Query) > maxQuery {
		return badRequest("No domain has so long a name.")
	}
	var err error
	if p.Day, err = queryDay(r); err != nil {
		return err
	}
	if p.Days, err = s.newestDays(ctx); err != nil {
		return err
	}
	if p.Day == 0 && len(p.Days) > 0 {
		p.Day = p.Days[0]
	} else if p.Day == 0 {
		p.Day = schema.DayOf(s.now())
	}
	after := r.FormValue("after")
	p.Paged = after != ""
	if p.Query != "" {
		err = s.search(ctx, &p, after)
	} else {
		err = s.listDomains(ctx, &p, after)
	}
	if err != nil {
		return err
	}
	return s.render(w, r, "domains", "Domains", "domains", p)
}

// sortedNames is the names of all domains, read at most now and then: an index of
// them would make the store an eighth larger, for a page that is seldom looked at.
func (s *Server) sortedNames(ctx context.Context) ([]string, error) {
	return s.names.get(ctx, "", func(ctx context.Context) ([]string, error) {
		var names []string
		err := s.o.Store.Names(ctx, func(page []string) error {
			names = append(names, page[:min(len(page), maxNames-len(names))]...)
			return nil
		})
		slices.Sort(names)
		return names, err
	})
}

// search finds domains by a part of their name.
func (s *Server) search(ctx context.Context, p *domainsPage, after string) error {
	names, err := s.sortedNames(ctx)
	if err != nil {
		return err
	}
	var found []string
	for _, name := range names {
		if strings.Contains(name, p.Query) {
			if p.Cut = len(found) == maxMatches; p.Cut {
				break
			}
			found = append(found, name)
		}
	}
	p.Found = len(found)
	all, err := s.o.Store.TotalsOf(ctx, p.Day, found)
	if err != nil {
		return err
	}
	if p.Sort == "failures" {
		slices.SortStableFunc(all, func(a, b aggregator.DomainTotals) int {
			return cmp.Compare(b.Totals.Failure, a.Totals.Failure)
		})
	}
	p.take(all, after)
	return nil
}

// take is the page of rows that begins after a row, named by its domain.
func (p *domainsPage) take(all []aggregator.DomainTotals, after string) {
	begin := 1 + slices.IndexFunc(all, func(t aggregator.DomainTotals) bool { return t.Domain == after })
	p.Rows = all[begin:min(len(all), begin+pageRows)]
	if begin+pageRows < len(all) {
		p.Next = p.link(p.Rows[pageRows-1].Domain)
	}
}

// Positions of the order by failures: in the domains that failed, by failures and
// domain, and behind them in the others, by name.
const (
	inFailing = "f."
	inOthers  = "o."
)

func (s *Server) listDomains(ctx context.Context, p *domainsPage, after string) error {
	if p.Sort == "name" {
		return s.listByName(ctx, p, after, func(aggregator.DomainTotals) bool { return true }, "")
	}
	if name, ok := strings.CutPrefix(after, inOthers); ok {
		return s.listByName(ctx, p, name, succeeded, inOthers)
	}
	var err error
	if p.Rows, err = s.failing(ctx, p.Day, strings.TrimPrefix(after, inFailing)); err != nil {
		return err
	}
	if len(p.Rows) == pageRows {
		last := p.Rows[pageRows-1]
		p.Next = p.link(inFailing + strconv.FormatInt(last.Totals.Failure, 10) + "." + last.Domain)
		return nil
	}
	return s.listByName(ctx, p, "", succeeded, inOthers)
}

// succeeded picks what the list of failing domains does not have.
func succeeded(t aggregator.DomainTotals) bool { return t.Totals.Failure == 0 }

// failing is a page of the domains that failed on a day.
func (s *Server) failing(ctx context.Context, day schema.Day, after string) ([]aggregator.DomainTotals, error) {
	var last aggregator.DomainTotals
	if failures, domain, ok := strings.Cut(after, "."); ok {
		n, err := strconv.ParseInt(failures, 10, 64)
		if err != nil {
			return nil, badRequest("There is no such page.")
		}
		last.Domain, last.Totals.Failure = domain, n
	}
	open, err := s.openDays(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(open, day) {
		return s.o.Store.Failing(ctx, day, last, pageRows)
	}
	count, err := s.openDay(ctx, day)
	if err != nil {
		return nil, err
	}
	return s.o.Store.OpenFailing(ctx, count, last, pageRows)
}

// listByName fills the page with the domains behind a name that pick picks. In
// one call it looks at so many that the page is made in time, full or not.
func (s *Server) listByName(ctx context.Context, p *domainsPage, after string, pick func(aggregator.DomainTotals) bool, prefix string) error {
	names, err := s.sortedNames(ctx)
	if err != nil {
		return err
	}
	at, exact := slices.BinarySearch(names, after)
	if exact {
		at++
	}
	const looks = 20
	for range looks {
		stretch := names[at:min(len(names), at+pageRows)]
		all, err := s.o.Store.TotalsOf(ctx, p.Day, stretch)
		if err != nil {
			return err
		}
		for _, t := range all {
			if len(p.Rows) == pageRows {
				return nil
			}
			if at++; pick(t) {
				p.Rows = append(p.Rows, t)
			}
			p.Next = p.link(prefix + t.Domain)
		}
		if at == len(names) {
			p.Next = ""
			return nil
		}
	}
	return nil
}
