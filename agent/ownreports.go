package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Reports must not cause reports: RFC 8460, section 5.3.1, has the sender see to
// it that a report that is mailed does not make the next one. Postfix 3.10.0 to
// 3.10.3 tells of the sessions of report mail as of all others, and a datagram
// does not say whose mail it was. So where it is asked for, this is decided from
// what is known: how many sessions a mail domain had on a day, and how many
// reports were handed over to it.
//
// One report makes one session or two: a greylisting domain turns the first one
// away after TLS, and where a handshake fails Postfix defers the mail once before
// it goes on in plaintext. It may be handed over before midnight and be tried
// again after. So a day is explained by reports if it had sessions, and not more
// than two for each report that was handed over on it or the day before.
//
// The number alone cannot tell a domain that gets one report and greylists from
// one that gets one report and one mail of a user: both have two sessions. But
// time can, because what is not reported makes no report mail. So a day that is
// explained is held until the next is over:
//
//   - A domain that gets nothing but reports has no sessions on the next day,
//     because none was handed over to it. The held day ends as own-reports.
//   - A domain that gets mail of users has sessions that no report of that day
//     explains. The held day is reported, one day late.
//
// Two days in a row are never held: the second would be the proof that the first
// one waits for. It follows from the counts alone which of a run of explained
// days are held, the first, the third and so on, whenever each is planned. A
// domain with one user mail a day is so reported every day, every other day's
// report coming together with the next one's. A domain to which reports about
// many others go (a provider's) is reported every other day at least.
//
// More sessions than two per report, as where a policy forbids delivery and every
// retry for days is one, are reported. Against that helps only that report mail is
// delivered whatever the policy says, as with the transport of examples/postfix.
const sessionsPerReport = 2

// maxRun bounds how far back a run of explained days is followed.
const maxRun = 32

// mailDay is a mail domain on a day.
type mailDay struct {
	sessions int64
	handed   int64 // reports, on that day
	before   int64 // reports, on the day before
}

func (a *Agent) mailDay(ctx context.Context, day schema.Day, domain string) (m mailDay, err error) {
	if m.sessions, err = a.store.Sessions(ctx, day, domain); err != nil {
		return m, err
	}
	if m.handed, err = a.store.HandedOver(ctx, day, domain); err != nil {
		return m, err
	}
	m.before, err = a.store.HandedOver(ctx, day-1, domain)
	return m, err
}

// explained reports whether reports may have made all sessions of the day.
func (m mailDay) explained() bool {
	return 0 < m.sessions && m.sessions <= sessionsPerReport*(m.handed+m.before)
}

// heldBack means that a domain-day cannot be decided before a time.
type heldBack struct{ until time.Time }

func (h *heldBack) Error() string {
	return fmt.Sprintf("agent: held until %s: its sessions may be those of reports", schema.Timestamp{Time: h.until})
}

// ownReports reports whether the sessions of d are taken to be those of reports.
// The error is [*heldBack] where the next day is to tell.
func (a *Agent) ownReports(ctx context.Context, d aggregator.DomainDay) (bool, error) {
	if !a.o.CountsReports || d.Part > 0 {
		return false, nil
	}
	if held, err := a.isHeld(ctx, d); err != nil || !held {
		return false, err
	}
	if over := a.closing(d.Day + 1); time.Now().Before(over) {
		// At the same time of day as without the hold, so that it stays spread.
		const day = 24 * time.Hour
		return false, &heldBack{over.Add((d.Due.Sub(over)%day + day) % day)}
	}
	next, err := a.mailDay(ctx, d.Day+1, d.Domain)
	return next.sessions <= sessionsPerReport*next.handed, err
}

// isHeld reports whether d has an odd place in a run of explained days.
func (a *Agent) isHeld(ctx context.Context, d aggregator.DomainDay) (bool, error) {
	run := 0
	for run < maxRun {
		m, err := a.mailDay(ctx, d.Day-schema.Day(run), d.Domain)
		if err != nil {
			return false, err
		}
		if !m.explained() {
			break
		}
		run++
	}
	return run%2 == 1, nil
}
