package web

import (
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestBig(t *testing.T) {
	now := time.Now().UTC()
	begun := time.Now()
	store := fill(t, filling{domains: 100_000, full: 1_000, days: 30, today: schema.DayOf(now)})
	t.Log("filled in", time.Since(begun))
	s := newServer(t, options(store, now), now)
	yesterday := (schema.DayOf(now) - 1).String()
	for _, url := range []string{"/", "/", "/domains", "/domains?day=" + yesterday, "/domains?q=0001", "/domains?sort=name", "/domains?q=9&day=" + yesterday,
		"/domains/" + name(0), "/domains/" + name(20), "/domains/" + name(50000), "/domains/" + name(0) + "/" + yesterday, "/deliveries", "/deliveries?state=gave-up", "/deliveries?state=pending", "/deliveries?domain=" + name(0), "/metrics", "/healthz"} {
		begun := time.Now()
		w := get(s, url)
		t.Log(url, w.Code, w.Body.Len(), time.Since(begun))
		if w.Code != 200 {
			t.Error(w.Body.String())
		}
	}
}
