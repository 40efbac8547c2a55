package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func (a *app) submitCommand() *cobra.Command {
	var day dayFlag
	var domain, dir string
	cmd := &cobra.Command{
		Use:   "submit",
		Short: "Plan and deliver the reports of closed days now",
		Long: `submit makes the reports of all closed days and attempts each delivery that is
due once, without waiting for the schedule or for a domain's random moment. What
fails for now is tried again by the daemon, or by the next submit. It may run
beside the daemon: no report is sent twice.`,
		Example: `  tlsrpt-agent submit
  tlsrpt-agent submit --day 2026-11-22 --domain example.com
  tlsrpt-agent submit --dry-run /tmp/reports`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			s := agent.Submission{Day: day.day}
			if domain != "" {
				if s.Domain, err = schema.ParseDomain(domain); err != nil {
					return usage(cmd, err)
				}
			}
			if dir != "" {
				return a.dryRun(cmd, s, dir)
			}
			return a.submit(cmd, s)
		},
	}
	cmd.Flags().Var(&day, "day", "only this day, as 2026-11-22")
	cmd.Flags().StringVar(&domain, "domain", "", "only this `DOMAIN`")
	cmd.Flags().StringVar(&dir, "dry-run", "", "send nothing and change nothing; write the reports into `DIR`")
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) submit(cmd *cobra.Command, s agent.Submission) error {
	up, err := a.setUpToSend()
	if err != nil {
		return err
	}
	defer up.close()
	tally := map[aggregator.DeliveryState]int{}
	var werr error
	err = up.agent.Submit(cmd.Context(), s, func(d aggregator.Delivery, o aggregator.Outcome) {
		tally[o.State]++
		werr = errors.Join(werr, a.printAttempt(d, o))
	})
	if err = errors.Join(err, werr); err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.stderr, "tlsrpt-agent: %d sent, %d waiting for another attempt, %d given up\n",
			tally[aggregator.DeliverySent], tally[aggregator.DeliveryPending], tally[aggregator.DeliveryGaveUp]+tally[aggregator.DeliveryExpired])
	}
	if relay := up.agent.Stats().Relay; relay.Paused {
		return hint(errors.New("the relay refuses, so mail waits"), printable(relay.Reason), `"tlsrpt-agent check" looks at the settings`)
	}
	if len(tally) == 0 && !a.json {
		fmt.Fprintln(a.stderr, "tlsrpt-agent: hint: nothing was due; \"tlsrpt-agent pending\" and \"tlsrpt-agent deliveries\" say why")
	}
	if failed := tally[aggregator.DeliveryGaveUp] + tally[aggregator.DeliveryExpired] + tally[aggregator.DeliveryPending]; failed > 0 {
		return hint(fmt.Errorf("%d deliveries were not accepted", failed), `"tlsrpt-agent deliveries" says why`)
	}
	return nil
}

// printAttempt prints one attempt, in the columns and fields of "deliveries".
func (a *app) printAttempt(d aggregator.Delivery, o aggregator.Outcome) error {
	if a.json {
		line := deliveryLine{
			ID: d.ID, Day: d.Day, Domain: d.Domain, ReportID: d.ReportID, RUA: d.RUA, State: o.State,
			Attempts: d.Attempts, First: timestamp(d.First), Next: timestamp(o.Next), Error: o.Error, Copy: d.Copy,
		}
		return writeJSON(a.stdout, line)
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s -> %s: %s %s\n", d.Day, d.Domain,
		printable(string(d.RUA))+copyMark(d.Copy), o.State, printable(o.Error))
	return err
}

// setUpToSend is setUp where there is nothing to do without a submitter.
func (a *app) setUpToSend() (*setup, error) {
	up, err := a.setUp(existing)
	if err == nil && up.submitter == nil {
		return nil, errors.Join(errNoContact, up.close())
	}
	return up, err
}

// dryRun writes the reports that would be sent into dir.
func (a *app) dryRun(cmd *cobra.Command, s agent.Submission, dir string) error {
	up, err := a.setUpToSend()
	if err != nil {
		return err
	}
	defer up.close()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return up.agent.DryRun(cmd.Context(), s, func(d agent.Draft) error { return a.printDraft(d, dir) })
}

// printDraft writes the report of a draft into dir, and says where it would go or
// why it would not be sent.
func (a *app) printDraft(d agent.Draft, dir string) error {
	line := dryRunLine{Day: d.Day, Domain: d.Domain, State: d.State, Reason: d.Reason}
	if d.Parcel == nil {
		return a.printDryRun(line)
	}
	line.ReportID, line.File = d.Parcel.ReportID, filepath.Join(dir, agent.DiskName(d.Parcel.FileName))
	lines := []dryRunLine{}
	add := func(rua schema.RUA, isCopy bool, reason string) {
		l := line
		l.RUA, l.Copy, l.Reason = rua, isCopy, reason
		lines = append(lines, l)
	}
	for _, rua := range d.RUAs {
		add(rua, false, "")
	}
	for _, w := range d.Withheld {
		add(w.RUA, false, w.Reason)
	}
	if d.Copy != "" {
		add(d.Copy, true, "")
	}
	for _, l := range lines {
		if err := a.printDryRun(l); err != nil {
			return err
		}
	}
	return os.WriteFile(line.File, d.Parcel.Gzip, 0o640)
}

// dryRunLine is one line of "submit --dry-run --json". Where there is a reason
// nothing would be sent.
type dryRunLine struct {
	Day      schema.Day       `json:"day"`
	Domain   string           `json:"domain"`
	State    aggregator.State `json:"state"`
	Reason   string           `json:"reason,omitempty"`
	ReportID string           `json:"report-id,omitempty"`
	RUA      schema.RUA       `json:"rua,omitempty"`
	Copy     bool             `json:"copy,omitempty"`
	File     string           `json:"file,omitempty"`
}

func (a *app) printDryRun(l dryRunLine) error {
	if a.json {
		return writeJSON(a.stdout, l)
	}
	_, err := fmt.Fprintln(a.stdout, l.text())
	return err
}

func (l dryRunLine) text() string {
	rua := printable(string(l.RUA)) + copyMark(l.Copy)
	switch {
	case l.RUA == "":
		return fmt.Sprintf("%s: not sent, %s: %s", l.Domain, l.State, printable(l.Reason))
	case l.Reason != "":
		return fmt.Sprintf("%s -> %s: not sent: %s: %s", l.Domain, rua, printable(l.Reason), l.File)
	}
	return fmt.Sprintf("%s -> %s: %s", l.Domain, rua, l.File)
}

// copyMark follows the destination of a copy for the operator.
func copyMark(isCopy bool) string {
	if isCopy {
		return " (copy)"
	}
	return ""
}
