//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

// ledger is what was sent, and what arrived.
type ledger struct {
	imported  *loggen.Log
	uncertain map[string]int64 // sessions of imported that its beginning does not prove, by domain
	reported  map[string]int64 // sessions in reports, by domain
	reports   int              // that arrived
	twice     int              // that arrived again: their acknowledgement was lost
}

func (m *mta) total() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.sent {
		n += v
	}
	return n
}

// sent is the sessions that were sent to each domain, from all sources.
func (s *soak) sent() map[string]int64 {
	all := maps.Clone(s.mta.sent)
	for _, text := range []*loggen.Log{s.logs[0].text, s.logs[1].text, s.ledger.imported} {
		for k, n := range text.Sessions() {
			all[k.Domain] += n
		}
	}
	return all
}

// lost is how many sessions of a domain went with a process that was killed, at
// most those of one batch. ok is false if more did.
func (s *soak) lost(domain string, missing int64) (n int64, ok bool) {
	for _, k := range s.kills {
		if k.domain == domain {
			return missing, missing >= 0 && missing <= k.sent-k.safe
		}
	}
	return 0, false
}

// balance prints the ledger. The error says what does not balance.
func (s *soak) balance() error {
	unreported, err := s.unreported()
	if err != nil {
		return err
	}
	sent := s.sent()
	for domain, n := range s.ledger.reported {
		if _, ok := sent[domain]; !ok {
			s.fault("%s: %d sessions are reported, and none was sent", domain, n)
		}
	}
	sums := map[string]int64{}
	for domain, n := range sent {
		sums["sent"] += n
		sums["reported"] += s.ledger.reported[domain]
		missing := n - s.ledger.reported[domain]
		for class, all := range unreported {
			sums[class] += all[domain]
			missing -= all[domain]
		}
		sums["at the beginning of an imported log"] += s.ledger.uncertain[domain]
		missing -= s.ledger.uncertain[domain]
		if missing == 0 {
			continue
		}
		if domain == neverResolves && missing > 0 {
			// Sessions of a log whose policy nobody can tell are dropped, and counted by
			// the daemon as "policy-unknown".
			sums["policy unknown"] += missing
			continue
		}
		if lost, ok := s.lost(domain, missing); ok {
			sums["lost with a process that was killed"] += lost
			continue
		}
		s.fault("%s: %d sessions sent, %d reported, %d missing", domain, n, s.ledger.reported[domain], missing)
	}
	if n := sums["at the beginning of an imported log"]; n < 0 || n > 100 {
		s.fault("%d sessions of an imported log are not counted", n)
	}
	fmt.Printf("%d domains, %d reports, %d of them arrived twice; %d datagrams refused to their sender\n", len(sent), s.ledger.reports, s.ledger.twice, s.mta.refused)
	for _, what := range slices.Sorted(maps.Keys(s.did)) {
		fmt.Printf("%6d  %s\n", s.did[what], what)
	}
	fmt.Println()
	rest := sums["sent"]
	for _, class := range slices.Sorted(maps.Keys(sums)) {
		if class != "sent" {
			fmt.Printf("%12d  %s\n", sums[class], class)
			rest -= sums[class]
		}
	}
	fmt.Printf("%12d  sent\n%12d  difference\n", sums["sent"], rest)
	if len(s.faults) > 0 {
		return errors.New("the ledger does not balance, or something else is wrong: see above")
	}
	return nil
}
