package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func (a *app) pendingCommand() *cobra.Command {
	var day dayFlag
	cmd := &cobra.Command{
		Use:   "pending [DOMAIN]",
		Short: "List the aggregates that are open or not delivered",
		Long: `pending lists what was counted and is not delivered yet: per day, recipient
domain and policy the sessions that succeeded and failed, and how they failed.`,
		Example: `  tlsrpt-agent pending
  tlsrpt-agent pending example.com
  tlsrpt-agent pending --day 2026-11-22 --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(cmd, fmt.Errorf("want at most one DOMAIN, got %d arguments", len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f := aggregator.PendingFilter{Day: day.day}
			if len(args) == 1 {
				domain, err := schema.ParseDomain(args[0])
				if err != nil {
					return usage(cmd, err)
				}
				f.Domain = domain
			}
			return a.pending(cmd, f)
		},
	}
	cmd.Flags().Var(&day, "day", "only this day, as 2026-11-22")
	a.jsonFlag(cmd)
	return cmd
}

// pendingLine is one line of "pending --json".
type pendingLine struct {
	Day          schema.Day                  `json:"day"`
	Domain       string                      `json:"domain"`
	PolicyType   schema.PolicyType           `json:"policy-type"`
	PolicyDomain string                      `json:"policy-domain"`
	Success      int64                       `json:"success"`
	Failure      int64                       `json:"failure"`
	Results      map[schema.ResultType]int64 `json:"results"`
	State        aggregator.State            `json:"state"`
}

func (a *app) pending(cmd *cobra.Command, f aggregator.PendingFilter) error {
	store, err := a.openExisting()
	if err != nil {
		return err
	}
	defer store.Close()
	t := newTable(a.stdout, "DAY", "DOMAIN", "POLICY", "POLICY DOMAIN", "SUCCESS", "FAILURE", "RESULTS", "STATE")
	if a.json {
		t = nil
	}
	err = store.Pending(cmd.Context(), f, func(p aggregator.Pending) error {
		if a.json {
			return writeJSON(a.stdout, pendingLine{p.Day, p.Domain, p.Policy.Type, p.Policy.Domain, p.Success, p.Failure, p.Results, p.State})
		}
		t.row(p.Day, p.Domain, p.Policy.Type, p.Policy.Domain, p.Success, p.Failure, results(p.Results), p.State)
		return nil
	})
	if err != nil || a.json {
		return err
	}
	return t.flush()
}

// results is "certificate-expired=2,validation-failure=1", or "-".
func results(m map[schema.ResultType]int64) string {
	if len(m) == 0 {
		return "-"
	}
	var s []string
	for _, t := range slices.Sorted(maps.Keys(m)) {
		s = append(s, fmt.Sprintf("%s=%d", t, m[t]))
	}
	return strings.Join(s, ",")
}

// dayFlag is a flag that names a day; without it day is 0, which stands for any.
type dayFlag struct{ day schema.Day }

func (f *dayFlag) Set(s string) error {
	d, err := schema.ParseDay(s)
	f.day = d
	return err
}

func (f *dayFlag) String() string {
	if f.day == 0 {
		return ""
	}
	return f.day.String()
}

func (*dayFlag) Type() string { return "DAY" }

func (a *app) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.json, "json", false, "print one JSON object a line")
}
