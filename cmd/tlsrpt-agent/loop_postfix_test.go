//go:build linux

package main

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// loopDomains are recipient domains that have their reports mailed to themselves.
var loopDomains = map[string]lab.Behaviour{
	"plain.example.org":     lab.Good,
	"greylist.example.org":  lab.Greylist,
	"handshake.example.org": lab.Drop,
}

// TestPostfixLoop is a week with a Postfix that tells of report mail as of any
// other, as 3.10.0 to 3.10.3 do and newer ones with tls_required_enable = no. With
// source.libtlsrpt.counts_reports one mail of a user to a domain leads to one
// report and no more; one mail a day, to a report about every day.
func TestPostfixLoop(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	world := lab.New(t, root)
	https := startHTTPS(t, world)
	l := &mailLoop{T: t, receivers: map[string]*lab.Receiver{}, seen: map[string]int{}}
	for domain, behaviour := range loopDomains {
		l.receivers[domain] = world.AddDomain(lab.Domain{Name: domain, Receiver: behaviour, TLSRPT: lab.Asks("mailto:tls@" + domain)})
	}
	l.postfix = world.StartPostfix(append(exampleMainCF(t), "tls_required_enable = no")...)

	for _, c := range []struct {
		name    string
		guarded bool
		mails   int // days on which a user mails
		want    func(reported []int) bool
	}{
		{"without the guard", false, 1, func(days []int) bool { return len(days) == 3 }},
		{"one mail", true, 1, func(days []int) bool { return slices.Equal(days, []int{0}) }},
		{"a mail a day", true, 7, func(days []int) bool {
			return len(days) >= 7 && slices.Equal(days[:7], []int{0, 1, 2, 3, 4, 5, 6})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.T = t
			l.config = writePostfixConfig(t, t.TempDir(), world, https, l.postfix.SocketPath())
			edit(t, l.config, "[submit]", "[submit]\ngrace = \"0s\"\nspread = \"0s\"")
			edit(t, l.config, "mode = \"0666\"", fmt.Sprintf("mode = \"0666\"\ncounts_reports = %t", c.guarded))
			l.collecting = filepath.Join(filepath.Dir(l.config), "collecting.toml")
			text, err := os.ReadFile(l.config)
			if err == nil {
				err = os.WriteFile(l.collecting, text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			edit(t, l.collecting, "contact =", "# contact =") // or it would submit, too
			l.store = filepath.Join(filepath.Dir(l.config), "tlsrpt.db")
			for day := range c.mails + 3 {
				l.day(day, day < c.mails)
			}
			for domain := range loopDomains {
				if days := l.reported(domain); !c.want(days) {
					t.Errorf("%s: reported days %v", domain, days)
				}
			}
		})
	}
}

// mailLoop is a Postfix, and domains that it mails reports to.
type mailLoop struct {
	*testing.T
	postfix    *lab.Postfix
	receivers  map[string]*lab.Receiver
	seen       map[string]int // messages, by domain
	config     string         // of who submits
	collecting string         // of the daemon
	store      string
	days       map[string][]int
}

// day is one day: perhaps a mail of a user to each domain, and the reports that
// are due. Events come to a running daemon.
func (l *mailLoop) day(day int, mail bool) {
	l.Helper()
	if day == 0 {
		l.days = map[string][]int{}
	}
	stop := startDaemon(l.T, l.collecting)
	submitTo(l.T, l.config)
	if mail {
		for domain := range loopDomains {
			l.postfix.Inject("alice@example.com", []string{"bob@" + domain})
		}
	}
	l.deliverAll()
	stop()
	for domain, r := range l.receivers {
		for _, m := range r.Messages()[l.seen[domain]:] {
			l.seen[domain]++
			if strings.HasPrefix(m.From, "alice@") {
				continue
			}
			report := receiver.CheckMail(receiver.Mail{Data: m.Data, Sender: m.From, To: m.To}, lookupTXT)
			if len(report.Problems) > 0 {
				l.Errorf("report about %s: %q", domain, report.Problems)
			}
			ago := int(schema.DayOf(time.Now()) - report.Day)
			l.days[domain] = append(l.days[domain], day-ago)
		}
	}
	l.passDay()
}

// reported is the days that a domain got reports about, in order. Two reports about
// one day are there twice.
func (l *mailLoop) reported(domain string) []int {
	slices.Sort(l.days[domain])
	return l.days[domain]
}

// deliverAll has Postfix deliver until nothing waits any more. Where a handshake
// failed it goes on in plaintext only with mail that is older than
// minimal_backoff_time, a second in the lab: tried earlier, it would fail once more.
func (l *mailLoop) deliverAll() {
	l.Helper()
	flush := time.Now()
	for end := flush.Add(time.Minute); !l.postfix.Idle(); time.Sleep(50 * time.Millisecond) {
		if now := time.Now(); now.Sub(flush) > 2500*time.Millisecond {
			l.postfix.Flush()
			flush = now
		}
		if time.Now().After(end) {
			l.Fatal("mail still waits")
		}
	}
}

// passDay makes all that happened happen a day earlier, by way of days where
// nothing is in the way. The names of reports are made from their day, so those that
// were sent get others.
func (l *mailLoop) passDay() {
	l.Helper()
	db, err := sql.Open("sqlite3", l.store+"?_busy_timeout=5000")
	if err != nil {
		l.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{
		`UPDATE day SET closed = closed - 86400`,
		`UPDATE domain_day SET due = due - 86400, failing = failing - 86400`,
		`UPDATE report SET date = date - 86400, report_id = 'aged.' || id || '@example.com'`,
		`UPDATE delivery SET created = created - 86400, first = first - 86400, next = next - 86400,
			done = done - 86400, handed = handed - 86400`,
		`UPDATE meta SET value = 0 WHERE name = 'submission-since'`,
	} {
		if _, err := db.Exec(statement); err != nil {
			l.Fatalf("%s: %v", statement, err)
		}
	}
	for _, by := range []int{-1_000_001, 1_000_000} {
		for _, table := range []string{"tally", "tally_detail", "day", "domain_day", "report"} {
			if _, err := db.Exec(`UPDATE `+table+` SET day = day + ?`, by); err != nil {
				l.Fatalf("%s: %v", table, err)
			}
		}
	}
}
