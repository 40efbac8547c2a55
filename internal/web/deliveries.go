package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// deliveryStates is the order in which pages name them.
var deliveryStates = []aggregator.DeliveryState{
	aggregator.DeliveryPending, aggregator.DeliverySent, aggregator.DeliveryGaveUp,
	aggregator.DeliveryExpired, aggregator.DeliverySuppressed, aggregator.DeliveryCancelled,
}

// deliveriesPage is a page of deliveries, newest first.
type deliveriesPage struct {
	State  aggregator.DeliveryState // "": any
	Domain string
	Day    schema.Day // 0: any
	States []stateCount
	Rows   []aggregator.Delivery
	Next   string // URL of the next page; "": this is the last
	Paged  bool
}

// stateCount is a state and how many deliveries are in it.
type stateCount struct {
	State aggregator.DeliveryState
	Count int64
	Link  string
}

// link is the URL of a page like p from an id on.
func (p deliveriesPage) link(before int64) string {
	q := url.Values{}
	for key, value := range map[string]string{"state": string(p.State), "domain": p.Domain} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if p.Day != 0 {
		q.Set("day", p.Day.String())
	}
	if before != 0 {
		q.Set("before", strconv.FormatInt(before, 10))
	}
	return strings.TrimSuffix("/deliveries?"+q.Encode(), "?")
}

// All is the page of every state.
func (p deliveriesPage) All() string { p.State = ""; return p.link(0) }

// First is the first page of the same deliveries.
func (p deliveriesPage) First() string { return p.link(0) }

func (s *Server) deliveries(w http.ResponseWriter, r *http.Request) (err error) {
	p := deliveriesPage{State: aggregator.DeliveryState(r.FormValue("state"))}
	if p.State != "" && !slices.Contains(deliveryStates, p.State) {
		return badRequest("There is no such state of a delivery.")
	}
	if domain := strings.TrimSpace(r.FormValue("domain")); domain != "" {
		if p.Domain, err = schema.ParseDomain(domain); err != nil {
			return badRequest("That is not the name of a domain.")
		}
	}
	if p.Day, err = queryDay(r); err != nil {
		return err
	}
	var before int64
	if text := r.FormValue("before"); text != "" {
		if before, err = strconv.ParseInt(text, 10, 64); err != nil {
			return badRequest("There is no such page.")
		}
		p.Paged = true
	}
	o, err := s.o.Store.Overview(r.Context())
	if err != nil {
		return err
	}
	for _, state := range deliveryStates {
		of := p
		of.State = state
		p.States = append(p.States, stateCount{state, o.Deliveries[state], of.link(0)})
	}
	filter := aggregator.DeliveryFilter{Day: p.Day, Domain: p.Domain, State: p.State}
	// A page that found nothing in its stretch goes on: what it asks is cheap.
	next := before
	for range 10 {
		var more []aggregator.Delivery
		if more, next, err = s.o.Store.DeliveryPage(r.Context(), filter, next, pageRows-len(p.Rows)); err != nil {
			return err
		}
		if p.Rows = append(p.Rows, more...); next == 0 || len(p.Rows) == pageRows {
			break
		}
	}
	if next != 0 {
		p.Next = p.link(next)
	}
	return s.render(w, r, "deliveries", "Deliveries", "deliveries", p)
}
