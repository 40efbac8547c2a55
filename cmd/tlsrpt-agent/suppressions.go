package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func (a *app) suppressionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "suppressions",
		Short: "List the addresses that no report is mailed to for now",
		Long: `suppressions lists the addresses that reports could not be mailed to because they
do not exist, or take no mail. One that failed on a single day is watched. On a
second day within a month it is suppressed for 7 days, and if it fails once these
are over, for 30, for 90 and then for 365 days. A month without a failure, and it
is forgotten.

Reports to a suppressed address are made all the same, and "deliveries" lists
them; "deliveries retry" sends one.`,
		Example: `  tlsrpt-agent suppressions
  tlsrpt-agent suppressions add tls@example.net --for 30d --reason "asked us not to"
  tlsrpt-agent suppressions lift tls@example.net`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.suppressions(cmd) },
	}
	a.jsonFlag(cmd)
	cmd.AddCommand(a.suppressCommand(), a.liftCommand())
	return cmd
}

// suppressionLine is one line of "suppressions --json".
type suppressionLine struct {
	Address string            `json:"address"`
	State   string            `json:"state"` // suppressed or watched
	Since   *schema.Timestamp `json:"since,omitempty"`
	Until   *schema.Timestamp `json:"until,omitempty"` // none: until it is lifted
	Pauses  int               `json:"pauses"`
	Failed  string            `json:"failed,omitempty"` // day
	Reason  string            `json:"reason,omitempty"`
}

func newSuppressionLine(s aggregator.Suppression, now time.Time) suppressionLine {
	l := suppressionLine{Address: s.Address, State: "watched", Pauses: s.Pauses, Reason: s.Reason}
	if s.Failed != 0 {
		l.Failed = s.Failed.String()
	}
	if s.InForce(now) {
		l.State, l.Since = "suppressed", timestamp(s.Since)
		if s.Until.Before(aggregator.Forever) {
			l.Until = timestamp(s.Until)
		}
	}
	return l
}

func (a *app) suppressions(cmd *cobra.Command) error {
	store, err := a.openExisting()
	if err != nil {
		return err
	}
	defer store.Close()
	now := time.Now()
	t := newTable(a.stdout, "ADDRESS", "STATE", "UNTIL", "PAUSES", "FAILED", "REASON")
	err = store.Suppressions(cmd.Context(), func(s aggregator.Suppression) error {
		l := newSuppressionLine(s, now)
		if a.json {
			return writeJSON(a.stdout, l)
		}
		until := "-"
		if l.Until != nil {
			until = l.Until.String()
		}
		t.row(l.Address, l.State, until, l.Pauses, orDash(l.Failed), orDash(l.Reason))
		return nil
	})
	if err != nil || a.json {
		return err
	}
	return t.flush()
}

func (a *app) suppressCommand() *cobra.Command {
	var length durationFlag
	var reason string
	cmd := &cobra.Command{
		Use:   "add ADDRESS",
		Short: "Mail no reports to an address, from the next planning on",
		Example: `  tlsrpt-agent suppressions add tls@example.net
  tlsrpt-agent suppressions add tls@example.net --for 30d --reason "asked us not to"`,
		Args: oneArg("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := schema.ParseAddress(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			store, err := a.openExisting()
			if err != nil {
				return err
			}
			defer store.Close()
			now, until := time.Now(), aggregator.Forever
			if length.Duration > 0 {
				until = now.Add(length.Duration)
			}
			return store.Suppress(cmd.Context(), address, now, until, printable(reason))
		},
	}
	cmd.Flags().Var(&length, "for", "for how long, as 30d; without it until it is lifted")
	cmd.Flags().StringVar(&reason, "reason", "by hand", "why, for those who list it")
	return cmd
}

func (a *app) liftCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "lift ADDRESS",
		Short:   "Forget the failures of an address and mail reports to it again",
		Example: "  tlsrpt-agent suppressions lift tls@example.net",
		Args:    oneArg("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := schema.ParseAddress(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			store, err := a.openExisting()
			if err != nil {
				return err
			}
			defer store.Close()
			err = store.LiftSuppression(cmd.Context(), address)
			if errors.Is(err, aggregator.ErrNoSuppression) {
				return hint(fmt.Errorf("%s: %w", address, err), `"tlsrpt-agent suppressions" lists them`)
			}
			return err
		},
	}
}

// durationFlag is a duration on the command line.
type durationFlag struct{ duration }

// Set reads what duration reads.
func (d *durationFlag) Set(s string) error { return d.UnmarshalText([]byte(s)) }

// Type is what help calls it.
func (*durationFlag) Type() string { return "TIME" }

func (d *durationFlag) String() string {
	if d.Duration == 0 {
		return ""
	}
	return d.duration.String()
}
