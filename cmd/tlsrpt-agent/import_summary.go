package main

import (
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// importSummary is what "import --json" prints.
type importSummary struct {
	Files    []importedFile            `json:"files"`
	Lines    int64                     `json:"lines"`       // that were read
	Known    int64                     `json:"lines-known"` // that were imported before
	Sessions int64                     `json:"sessions"`    // that were counted
	Counted  int64                     `json:"counted-before"`
	Dropped  map[postfixlog.Drop]int64 `json:"dropped"`
	Days     []schema.Day              `json:"days"`
	Domains  int                       `json:"domains"`
	Report   bool                      `json:"report"`

	days    map[schema.Day]bool
	seed    maphash.Seed
	domains map[uint64]struct{} // hashes: there may be a million, and they are only told apart
}

// importedFile is a log that was imported, or a database, whose lines are rows.
type importedFile struct {
	Name     string            `json:"name"`
	First    *schema.Timestamp `json:"first"` // null: no line of Postfix was found
	Lines    int64             `json:"lines"`
	Known    int64             `json:"lines-known"`
	Sessions int64             `json:"sessions"`
}

func newSummary(report bool) importSummary {
	return importSummary{
		Files: []importedFile{}, Days: []schema.Day{}, Dropped: map[postfixlog.Drop]int64{}, Report: report,
		days: map[schema.Day]bool{}, seed: maphash.MakeSeed(), domains: map[uint64]struct{}{},
	}
}

// file adds a log. What its source dropped counts only once the source has been
// asked for the last time, so it is added by [importSummary.dropped].
func (s *importSummary) file(p *postfixlog.Past, st postfixlog.SourceStats) {
	s.add(importedFile{p.Name, timestamp(p.First), st.Parser.Lines, p.Known, st.Counted})
}

func (s *importSummary) add(f importedFile) {
	s.Files = append(s.Files, f)
	s.Lines += f.Lines
	s.Known += f.Known
	s.Sessions += f.Sessions
}

// dropped adds what a source did not count.
func (s *importSummary) dropped(st postfixlog.SourceStats) {
	for _, by := range []map[postfixlog.Drop]int64{st.Parser.Dropped, st.Dropped} {
		for why, n := range by {
			if why == postfixlog.DropCounted {
				s.Counted += n
			} else {
				s.Dropped[why] += n
			}
		}
	}
}

// count adds what was stored.
func (s *importSummary) count(counts []schema.Count) {
	for _, c := range counts {
		s.days[c.Day] = true
		s.domains[maphash.String(s.seed, c.Domain)] = struct{}{}
	}
	s.Days, s.Domains = slices.AppendSeq(s.Days[:0], maps.Keys(s.days)), len(s.domains)
	slices.Sort(s.Days)
}

func (a *app) printSummary(s *importSummary) error {
	if a.json {
		return writeJSON(a.stdout, s)
	}
	t := newTable(a.stdout, "FILE", "FROM", "LINES", "KNOWN", "SESSIONS")
	for _, f := range s.Files {
		from := "-"
		if f.First != nil {
			from = f.First.String()
		}
		t.row(f.Name, from, f.Lines, f.Known, f.Sessions)
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%d sessions with %d domains on %s counted%s; %d were counted before\n",
		s.Sessions, s.Domains, daysText(s.Days), purpose(s.Report), s.Counted)
	for _, why := range slices.Sorted(maps.Keys(s.Dropped)) {
		fmt.Fprintf(a.stdout, "%d dropped: %s\n", s.Dropped[why], why)
	}
	return nil
}

// daysText is "no day", "1 day (2026-11-22)" or "3 days (2026-11-20 to 2026-11-22)".
func daysText(days []schema.Day) string {
	switch n := len(days); n {
	case 0:
		return "no day"
	case 1:
		return fmt.Sprintf("1 day (%s)", days[0])
	default:
		return fmt.Sprintf("%d days (%s to %s)", n, days[0], days[n-1])
	}
}

func purpose(report bool) string {
	if report {
		return " to be reported"
	}
	return " for looking"
}

// progressBar shows on a terminal how far logs were read.
type progressBar struct {
	done chan struct{}
	wg   sync.WaitGroup
}

// progress shows a bar until stop, if standard error is a terminal.
func (a *app) progress(pasts []*postfixlog.Past) *progressBar {
	b := &progressBar{done: make(chan struct{})}
	if a.json || !isTerminal(a.stderr) {
		return b
	}
	b.wg.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprint(a.stderr, "\r"+barText(pasts))
			case <-b.done:
				fmt.Fprint(a.stderr, "\r\x1b[K")
				return
			}
		}
	})
	return b
}

func (b *progressBar) stop() {
	close(b.done)
	b.wg.Wait()
}

// barText is "[=====     ]  50%  10 of 20 MB".
func barText(pasts []*postfixlog.Past) string {
	const width = 40
	var done, size int64
	for _, p := range pasts {
		done += min(p.Done(), p.Size)
		size += p.Size
	}
	n := int(width * done / max(size, 1))
	return fmt.Sprintf("[%-*s] %3d%%  %d of %d MB", width, strings.Repeat("=", n), 100*done/max(size, 1), done>>20, size>>20)
}

// isTerminal reports whether w is a terminal: a character device that is not the
// null device.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
