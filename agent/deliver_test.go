package agent

import (
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestWake: a plan wakes the lanes that its deliveries are for, a copy among them.
func TestWake(t *testing.T) {
	const upload, mail = schema.RUA("https://reports.example.org/v1"), schema.RUA("mailto:tls@example.org")
	d := new(Agent).newDelivery(aggregator.DeliveryFilter{}, nil)
	for _, c := range []struct {
		plan        aggregator.Plan
		https, mail bool
	}{
		{plan: aggregator.Plan{RUAs: []schema.RUA{upload}}, https: true},
		{plan: aggregator.Plan{RUAs: []schema.RUA{mail}}, mail: true},
		{plan: aggregator.Plan{RUAs: []schema.RUA{mail, upload}}, https: true, mail: true},
		{plan: aggregator.Plan{RUAs: []schema.RUA{upload}, Copy: mail}, https: true, mail: true},
		{plan: aggregator.Plan{Withheld: []aggregator.Withheld{{RUA: upload}}}},
	} {
		d.wake(&c.plan)
		for i, want := range []bool{c.https, c.mail} {
			woken := len(d[i].wake) > 0
			if woken != want {
				t.Errorf("%+v wakes the lane of %s: %t, want %t", c.plan, d[i].which.Scheme, woken, want)
			}
			if woken {
				<-d[i].wake
			}
		}
	}
}
