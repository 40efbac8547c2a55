package aggregator

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestClaimSettles: an outcome frees the place of its host for the claim that
// brings it, also where nothing is to be claimed.
func TestClaimSettles(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	deliverTo(t, s, 3, "a.example")
	first := claim(t, s, testNow, Claim{PerHost: 1})[0]
	second := claim(t, s, testNow, Claim{PerHost: 1, Outcomes: []Outcome{outcome(first, DeliverySent)}})
	if len(second) != 1 || second[0].ID == first.ID {
		t.Fatalf("claimed %v after %d was sent", second, first.ID)
	}
	if got, err := s.Claim(ctx, testNow, Claim{Max: -1, Outcomes: []Outcome{outcome(second[0], DeliveryGaveUp)}}); got != nil || err != nil {
		t.Errorf("claimed %v (%v), want nothing", got, err)
	}
	for id, want := range map[int64]DeliveryState{first.ID: DeliverySent, second[0].ID: DeliveryGaveUp} {
		if got := delivery(t, s, id).State; got != want {
			t.Errorf("delivery %d is %s, want %s", id, got, want)
		}
	}
}

// TestClaimKeepsPlaces: a claim of one scheme does not move on the turns of the
// other.
func TestClaimKeepsPlaces(t *testing.T) {
	s := newStore(t)
	for _, host := range []string{"a.example", "b.example", "c.example"} {
		planned(t, s, host, schema.RUA("https://"+host+"/"), schema.RUA("mailto:tls@"+host))
	}
	var turns []string
	for _, scheme := range []string{"https", "mailto", "mailto", "https", "mailto", "https"} {
		for _, d := range claim(t, s, testNow, Claim{Max: 1, Filter: DeliveryFilter{Scheme: scheme}}) {
			turns = append(turns, d.RUA.Scheme()[:1]+d.Host[:1])
		}
	}
	if got := strings.Join(turns, " "); got != "ha ma mb hb mc hc" {
		t.Errorf("turns %s", got)
	}
}

// TestClaimBothSchemes: a host that takes reports by HTTPS and by mail has the
// places of one.
func TestClaimBothSchemes(t *testing.T) {
	s := newStore(t)
	planned(t, s, "a.example", "https://a.example/", "mailto:tls@a.example")
	planned(t, s, "b.example", "https://b.example/", "mailto:tls@b.example")
	if got := claim(t, s, testNow, Claim{PerHost: 1}); len(got) != 2 || got[0].Host == got[1].Host {
		t.Errorf("claimed %v, want one for each host", got)
	}
	if got := claim(t, s, testNow, Claim{PerHost: 1, Filter: DeliveryFilter{Scheme: "mailto"}}); got != nil {
		t.Errorf("claimed %v beside an upload to the same host", got)
	}
	if got := claim(t, s, testNow, Claim{PerHost: 2, Max: 1}); len(got) != 1 || got[0].RUA.Scheme() != "mailto" {
		t.Errorf("claimed %v, want a mail", got)
	}
}

// planSized plans a report of so many bytes.
func planSized(t *testing.T, s *Store, domain string, gzip []byte) string {
	t.Helper()
	record(t, s, success(domain, 1))
	release(t, s)
	p := reportPlan(s, domainDay(t, s, domain), schema.RUA("mailto:tls@"+domain))
	p.Report.Gzip = gzip
	must(t, s.Plan(context.Background(), p))
	return p.Report.ID
}

// TestClaimReport: the report comes with its delivery, unless it is large.
func TestClaimReport(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	planSized(t, s, "small.example", make([]byte, maxClaimedReport))
	planSized(t, s, "large.example", make([]byte, maxClaimedReport+1))
	claimed, err := s.Claim(ctx, testNow, Claim{Lease: time.Minute})
	must(t, err)
	if len(claimed) != 2 {
		t.Fatalf("claimed %v", claimed)
	}
	for _, c := range claimed {
		want, err := s.Report(ctx, c.ReportID)
		must(t, err)
		switch {
		case c.Domain == "large.example":
			if c.Report != nil {
				t.Errorf("%s comes with its report", c.Domain)
			}
		case c.Report == nil || c.Report.ID != want.ID || c.Report.Domain != want.Domain || c.Report.Boundary != want.Boundary ||
			!c.Report.Date.Equal(want.Date) || c.Report.Text != want.Text || !bytes.Equal(c.Report.Gzip, want.Gzip):
			t.Errorf("%+v, want %+v", c.Report, want)
		}
	}
}

// TestClaimUnreadable: a report on a bad sector keeps no other one from being
// sent, and its own delivery is attempted, and so fails for a reason.
func TestClaimUnreadable(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	bad := planSized(t, s, "bad.example", bytes.Repeat([]byte("bad sector "), 2000))
	planned(t, s, "good.example", "mailto:tls@good.example")
	path := s.path
	must(t, s.Close())
	spoil(t, path, "bad sector bad sector")
	s = openStore(t, path, Options{})
	claimed, err := s.Claim(ctx, testNow, Claim{Lease: time.Minute})
	if err != nil || len(claimed) != 2 {
		t.Fatalf("claimed %v (%v), want both", claimed, err)
	}
	if r, err := s.Report(ctx, bad); err == nil {
		t.Errorf("%s can be read: %d bytes", bad, len(r.Gzip))
	}
}

// spoil makes the pages that hold nothing but text, but for where the next one
// is, lead nowhere.
func spoil(t *testing.T, path, text string) {
	t.Helper()
	const pageSize = 4096
	file, err := os.ReadFile(path)
	must(t, err)
	spoilt := 0
	for at := 0; at+pageSize <= len(file); at += pageSize {
		if page := file[at : at+pageSize]; bytes.Contains(page[4:64], []byte(text)) {
			binary.BigEndian.PutUint32(page, 1<<30)
			spoilt++
		}
	}
	if spoilt == 0 {
		t.Fatal("no page has the text")
	}
	must(t, os.WriteFile(path, file, 0o600))
}

// TestClaimIndexes: what waits of one scheme is found without a look at the
// other's, and of one host without a look at the others'.
func TestClaimIndexes(t *testing.T) {
	s := newStore(t)
	for query, index := range map[string]string{
		`SELECT min(host) FROM delivery WHERE state = 0 AND scheme = 'mailto' AND host > '' AND host <= 'x'`:                     "delivery_waiting (scheme=? AND host>? AND host<?)",
		`SELECT id, next FROM delivery WHERE state = 0 AND scheme = 'mailto' AND host = 'x' AND next <= 5 ORDER BY next LIMIT 2`: "delivery_waiting (scheme=? AND host=? AND next<?)",
		`SELECT count(*) FROM delivery WHERE state = 0 AND lease <> 0 AND host = 'x' AND next > 5`:                               "delivery_leased (host=? AND next>?)",
		`SELECT v.next FROM delivery v WHERE v.state = 0 AND v.next IS NOT NULL AND v.scheme = 'mailto' ORDER BY v.next LIMIT 1`: "delivery_next (scheme=? AND next>?)",
		`SELECT min(next) AS next FROM delivery WHERE state = 0 AND scheme = 'https' AND next IS NOT NULL`:                       "delivery_next (scheme=? AND next>?)",
	} {
		if plan := queryPlan(t, s, query); !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s is read by\n%s", query, plan)
		}
	}
}
