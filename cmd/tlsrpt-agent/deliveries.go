package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func (a *app) deliveriesCommand() *cobra.Command {
	var f aggregator.DeliveryFilter
	var day dayFlag
	var domain string
	cmd := &cobra.Command{
		Use:   "deliveries",
		Short: "List what was sent, is waiting or failed, and why",
		Example: `  tlsrpt-agent deliveries
  tlsrpt-agent deliveries --domain example.com --json
  tlsrpt-agent deliveries retry 17
  tlsrpt-agent deliveries cancel 17`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			f.Day = day.day
			if domain != "" {
				if f.Domain, err = schema.ParseDomain(domain); err != nil {
					return usage(cmd, err)
				}
			}
			return a.deliveries(cmd, f)
		},
	}
	cmd.Flags().Var(&day, "day", "only reports about this day, as 2026-11-22")
	cmd.Flags().StringVar(&domain, "domain", "", "only reports about this `DOMAIN`")
	a.jsonFlag(cmd)
	cmd.AddCommand(
		a.deliveryCommand("retry", "Attempt a delivery again at the next opportunity", func(cmd *cobra.Command, s *aggregator.Store, id int64) error {
			return s.RetryDelivery(cmd.Context(), id, time.Now())
		}),
		a.deliveryCommand("cancel", "Give up a delivery that is waiting", func(cmd *cobra.Command, s *aggregator.Store, id int64) error {
			return s.CancelDelivery(cmd.Context(), id)
		}),
	)
	return cmd
}

// deliveryLine is one line of "deliveries --json".
type deliveryLine struct {
	ID       int64                    `json:"id"`
	Day      schema.Day               `json:"day"`
	Domain   string                   `json:"domain"`
	ReportID string                   `json:"report-id"`
	RUA      schema.RUA               `json:"rua"`
	State    aggregator.DeliveryState `json:"state"`
	Attempts int                      `json:"attempts"`
	First    *schema.Timestamp        `json:"first-attempt,omitempty"`
	Next     *schema.Timestamp        `json:"next-attempt,omitempty"`
	Done     *schema.Timestamp        `json:"done,omitempty"`
	Error    string                   `json:"error,omitempty"`
	Copy     bool                     `json:"copy,omitempty"`
}

func (a *app) deliveries(cmd *cobra.Command, f aggregator.DeliveryFilter) error {
	store, err := a.openExisting()
	if err != nil {
		return err
	}
	defer store.Close()
	t := newTable(a.stdout, "ID", "DAY", "DOMAIN", "RUA", "STATE", "ATTEMPTS", "NEXT", "ERROR")
	if a.json {
		t = nil
	}
	err = store.Deliveries(cmd.Context(), f, func(d aggregator.Delivery) error {
		if a.json {
			return writeJSON(a.stdout, deliveryLine{
				d.ID, d.Day, d.Domain, d.ReportID, d.RUA, d.State, d.Attempts,
				timestamp(d.First), timestamp(d.Next), timestamp(d.Done), d.LastError, d.Copy,
			})
		}
		next := "-"
		if d.State == aggregator.DeliveryPending {
			next = schema.Timestamp{Time: d.Next}.String()
		}
		t.row(d.ID, d.Day, d.Domain, string(d.RUA)+copyMark(d.Copy), d.State, d.Attempts, next, orDash(d.LastError))
		return nil
	})
	if err != nil || a.json {
		return err
	}
	return t.flush()
}

// deliveryCommand is a command that does something to one delivery.
func (a *app) deliveryCommand(verb, short string, do func(*cobra.Command, *aggregator.Store, int64) error) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " ID",
		Short:   short,
		Example: "  tlsrpt-agent deliveries " + verb + " 17",
		Args:    oneArg("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return usage(cmd, fmt.Errorf("%q is not an ID", args[0]))
			}
			store, err := a.openExisting()
			if err != nil {
				return err
			}
			defer store.Close()
			err = do(cmd, store, id)
			if errors.Is(err, aggregator.ErrNoDelivery) || errors.Is(err, aggregator.ErrDone) {
				return hint(err, `"tlsrpt-agent deliveries" lists them`)
			}
			return err
		},
	}
}

// timestamp is t for JSON, nil where it is zero.
func timestamp(t time.Time) *schema.Timestamp {
	if t.IsZero() {
		return nil
	}
	return &schema.Timestamp{Time: t}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
