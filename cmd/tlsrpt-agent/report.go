package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

func (a *app) reportCommand() *cobra.Command {
	var day dayFlag
	var asMail, asGzip bool
	cmd := &cobra.Command{
		Use:   "report DOMAIN",
		Short: "Print the report about a domain exactly as it would be sent",
		Long: `report prints the report about a domain: as it was sent, if its day is over, or
as it would be sent now. Without --day it is about the newest day on which
sessions were counted.`,
		Example: `  tlsrpt-agent report example.com
  tlsrpt-agent report example.com --day 2026-11-22 --eml
  tlsrpt-agent report example.com --gzip > report.json.gz`,
		Args: oneArg("DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			domain, err := schema.ParseDomain(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			if asMail && asGzip {
				return usage(cmd, errors.New("--eml and --gzip exclude each other"))
			}
			p, sub, err := a.preview(cmd, domain, day.day)
			if err != nil {
				return err
			}
			switch {
			case asMail:
				return a.writeMail(cmd, p, sub)
			case asGzip:
				_, err = a.stdout.Write(p.Gzip)
				return err
			}
			return gunzip(a.stdout, p.Gzip)
		},
	}
	cmd.Flags().Var(&day, "day", "the day of the report, as 2026-11-22")
	cmd.Flags().BoolVar(&asMail, "eml", false, "print it as a mail message, signed where dkim.key is set")
	cmd.Flags().BoolVar(&asGzip, "gzip", false, "print the bytes that an HTTPS destination gets")
	return cmd
}

// preview makes or reads the report about a domain and a day.
func (a *app) preview(cmd *cobra.Command, domain string, day schema.Day) (submitter.Parcel, *submitter.Submitter, error) {
	s, err := a.setUp(existing)
	if err != nil {
		return submitter.Parcel{}, nil, err
	}
	defer s.store.Close()
	if day == 0 {
		if day, err = s.store.NewestDay(cmd.Context(), domain); err != nil {
			return submitter.Parcel{}, nil, noData(err, domain)
		}
	}
	p, err := s.agent.Preview(cmd.Context(), domain, day)
	if errors.Is(err, agent.ErrOptions) && s.submitter == nil {
		return submitter.Parcel{}, nil, errNoContact
	}
	state, reason, verr := s.agent.Verdict(cmd.Context(), domain, day)
	switch {
	case err == nil && state != "":
		fmt.Fprintf(a.stderr, "tlsrpt-agent: hint: it is not sent: %s: %s\n", state, printable(reason))
		err = verr
	case errors.Is(err, aggregator.ErrNoData) && verr == nil && state != "":
		return p, nil, fmt.Errorf("no report was made about %s on %s: %s", domain, day, state)
	}
	return p, s.submitter, noData(err, domain)
}

// noData says what to do where nothing was counted for a domain.
func noData(err error, domain string) error {
	if errors.Is(err, aggregator.ErrNoData) {
		return hint(fmt.Errorf("nothing was counted for %s%w", domain, quiet{err}), `"tlsrpt-agent pending" lists what was counted`)
	}
	return err
}

// writeMail writes the message that a mail destination would get: the first one
// of the domain's record, or its postmaster where none can be looked up.
func (a *app) writeMail(cmd *cobra.Command, p submitter.Parcel, sub *submitter.Submitter) error {
	if sub == nil {
		return errNoContact
	}
	to := schema.RUA("mailto:postmaster@" + p.Domain)
	if _, rec, err := sub.Discover(cmd.Context(), p.Domain); err == nil {
		if i := slices.IndexFunc(rec.RUA, func(r schema.RUA) bool { return r.Address() != "" }); i >= 0 {
			to = rec.RUA[i]
		}
	}
	msg, err := sub.Message(p, to)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(msg)
	return err
}

func gunzip(w io.Writer, b []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, z)
	return err
}
