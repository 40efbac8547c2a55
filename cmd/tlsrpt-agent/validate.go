package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/validate"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func (a *app) validateCommand() *cobra.Command {
	var verify bool
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Say what is wrong with reports of any sender",
		Long: `validate reads reports as they are sent (JSON, gzip, or a mail message with one;
"-" is standard input) and names every fault by its field, by who demands
otherwise, and by the number of the rule in docs/conformance.md. A file name with
exclamation marks is taken for that of the report.

No name is looked up, so of a mail message only the form of its DKIM signature is
judged; with --dns it is verified with the key that is published now. Exit code 1
means that a report has a fault or cannot be read.`,
		Example: `  tlsrpt-agent validate report.json.gz
  tlsrpt-agent validate --dns message.eml
  tlsrpt-agent report example.com --eml | tlsrpt-agent validate --json -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, errors.New("want at least one FILE"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.validate(cmd.Context(), args, verify) },
	}
	cmd.Flags().BoolVar(&verify, "dns", false, "look up DKIM keys and verify signatures")
	a.jsonFlag(cmd)
	return cmd
}

// validateLine is the line of "validate --json".
type validateLine struct {
	File   string         `json:"file"`
	Kind   validate.Kind  `json:"kind"`
	Faults []schema.Fault `json:"faults"`
}

// errFaults means that a report is not as it should be. The faults were printed.
var errFaults = errors.New("not every report is without fault")

func (a *app) validate(ctx context.Context, files []string, verify bool) error {
	var o validate.Options
	if verify {
		c, err := a.load()
		if err != nil {
			return err
		}
		resolver := c.resolver()
		o.LookupTXT = func(name string) ([]string, error) { return resolver.LookupTXT(ctx, name) }
	}
	var errs []error
	faulty := false
	for _, file := range files {
		data, err := a.readReport(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r := validate.File(file, data, o)
		faulty = faulty || len(r.Faults) > 0
		if err := a.writeVerdict(file, r); err != nil {
			return err
		}
	}
	if faulty {
		errs = append(errs, errFaults)
	}
	return errors.Join(errs...)
}

// readReport reads a file, or standard input, as far as a report may go.
func (a *app) readReport(file string) ([]byte, error) {
	in := a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, validate.MaxFile+1))
	if err == nil && len(data) > validate.MaxFile {
		err = fmt.Errorf("more than %d bytes: no report", validate.MaxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return data, nil
}

// writeVerdict writes one line for JSON, else a line per fault. Faults quote what
// strangers wrote.
func (a *app) writeVerdict(file string, r validate.Result) error {
	if a.json {
		return writeJSON(a.stdout, validateLine{file, r.Kind, append([]schema.Fault{}, r.Faults...)})
	}
	for _, f := range r.Faults {
		if _, err := fmt.Fprintf(a.stdout, "%s: %s\n", printable(file), printable(f.String())); err != nil {
			return err
		}
	}
	if len(r.Faults) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(a.stdout, "%s: no fault\n", printable(file))
	return err
}
