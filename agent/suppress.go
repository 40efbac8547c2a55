package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// suppressed is those of ruas that get no mail for now, and why.
func (a *Agent) suppressed(ctx context.Context, ruas []schema.RUA) (why map[schema.RUA]string, err error) {
	found, err := a.store.Suppressed(ctx, ruas, time.Now())
	if err != nil || len(found) == 0 {
		return nil, err
	}
	why = make(map[schema.RUA]string, len(found))
	for rua, s := range found {
		until := "until it is lifted"
		if s.Until.Before(aggregator.Forever) {
			until = "until " + s.Until.Format(time.DateOnly)
		}
		why[rua] = fmt.Sprintf("agent: %s is suppressed %s: %s", s.Address, until, s.Reason)
	}
	return why, nil
}
