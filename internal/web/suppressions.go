package web

import (
	"context"
	"errors"
	"net/http"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
)

// maxSuppressions is how many addresses the page lists.
const maxSuppressions = 500

// suppressionsPage is the addresses that bounced.
type suppressionsPage struct {
	Rows []suppressionRow
	More bool
}

type suppressionRow struct {
	aggregator.Suppression
	Held bool // no report is mailed to it now
}

// errEnough ends a listing.
var errEnough = errors.New("web: enough")

func (s *Server) suppressions(w http.ResponseWriter, r *http.Request) error {
	var p suppressionsPage
	err := s.o.Store.Suppressions(r.Context(), func(sup aggregator.Suppression) error {
		if p.More = len(p.Rows) == maxSuppressions; p.More {
			return errEnough
		}
		p.Rows = append(p.Rows, suppressionRow{sup, sup.InForce(s.now())})
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return s.render(w, r, "suppressions", "Suppressions", "suppressions", p)
}

// inForce counts the addresses that no report is mailed to now.
func (s *Server) inForce(ctx context.Context) (n int, err error) {
	err = s.o.Store.Suppressions(ctx, func(sup aggregator.Suppression) error {
		if sup.InForce(s.now()) {
			n++
		}
		return nil
	})
	return n, err
}
