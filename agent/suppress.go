package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// withhold takes out of a plan the addresses that are suppressed for now.
func (a *Agent) withhold(ctx context.Context, p *aggregator.Plan) error {
	found, err := a.store.Suppressed(ctx, p.RUAs, time.Now())
	if err != nil || len(found) == 0 {
		return err
	}
	p.RUAs = slices.DeleteFunc(slices.Clone(p.RUAs), func(rua schema.RUA) bool {
		s, suppressed := found[rua]
		if suppressed {
			p.Withheld = append(p.Withheld, aggregator.Withheld{RUA: rua, Reason: suppressedReason(s)})
		}
		return suppressed
	})
	return nil
}

// suppressedReason is for those who list deliveries.
func suppressedReason(s aggregator.Suppression) string {
	until := "until it is lifted"
	if s.Until.Before(aggregator.Forever) {
		until = "until " + s.Until.Format(time.DateOnly)
	}
	return fmt.Sprintf("%s is suppressed %s: %s", s.Address, until, s.Reason)
}
