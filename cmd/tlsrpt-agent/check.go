package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/postconf"
)

// Status of a finding.
const (
	statusOK      string = "ok"
	statusProblem string = "problem"
	statusSkipped string = "skipped" // nothing could be found out
)

// finding is what one check says, and the line of "check --json".
type finding struct {
	Check   string `json:"check"` // the setting, of ours or of Postfix, or the thing looked at
	Status  string `json:"status"`
	Message string `json:"message"`
	Mend    string `json:"mend"` // commands, or lines to add to a file; "" if there is nothing to do
}

func fine(check, format string, args ...any) finding {
	return finding{Check: check, Status: statusOK, Message: fmt.Sprintf(format, args...)}
}

func wrong(check, mend, format string, args ...any) finding {
	return finding{Check: check, Status: statusProblem, Message: fmt.Sprintf(format, args...), Mend: mend}
}

func skipped(check, format string, args ...any) finding {
	return finding{Check: check, Status: statusSkipped, Message: fmt.Sprintf(format, args...)}
}

// advise adds what could be better to a finding that is no problem.
func (f finding) advise(mend string) finding {
	f.Mend = mend
	return f
}

func (a *app) checkCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for what keeps reports from being right, or from arriving",
		Long: `check looks at the settings, the keys and their DNS records, the store, the
sources and the Postfix beside them, and says of every problem how it is mended.
It changes nothing. Rights are those of the user who runs it: run it as the user
of the agent. Exit code 1 means that there is a problem.

Postfix is asked with its own postconf; where there is none, what depends on it
is skipped.`,
		Example: `  tlsrpt-agent check
  tlsrpt-agent check --json | jq 'select(.status == "problem")'
  tlsrpt-agent check --postfix /etc/postfix-out`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.printFindings(a.findings(cmd.Context(), postconf.Command{Dir: dir}))
		},
	}
	cmd.Flags().StringVar(&dir, "postfix", "", "the configuration `DIR` of the Postfix instance (default: Postfix's own default)")
	a.jsonFlag(cmd)
	return cmd
}

// findings is what all checks say, in the order in which an operator sets things up.
func (a *app) findings(ctx context.Context, postfix postconf.Command) []finding {
	c, err := a.load()
	if err != nil {
		return []finding{unusable("configuration", err)}
	}
	found := []finding{fine("configuration", "it is read without fault")}
	found = append(found, c.checkIdentity(ctx)...)
	found = append(found, c.checkDNS(ctx)...)
	found = append(found, checkStore(c.Store.Path)...)
	p, f := askPostfix(ctx, postfix)
	found = append(found, f)
	found = append(found, c.checkSockets(p)...)
	found = append(found, c.checkLogs(p)...)
	found = append(found, c.checkReportMail(p)...)
	found = append(found, c.checkBounces(mailOwner(p))...)
	return append(found, checkClock(clockSynchronised()))
}

// unusable is the problem that err is, with its own advice.
func unusable(check string, err error) finding {
	var hints []string
	for h, ok := errors.AsType[hinted](err); ok; h, ok = errors.AsType[hinted](h.error) {
		hints = append(hints, h.hints...)
	}
	return wrong(check, strings.Join(hints, "\n"), "%v", err)
}

// printFindings prints what was found; the error says how much of it is wrong.
func (a *app) printFindings(found []finding) error {
	problems := 0
	for _, f := range found {
		if f.Status == statusProblem {
			problems++
		}
	}
	if err := a.writeFindings(found); err != nil {
		return err
	}
	switch problems {
	case 0:
		return nil
	case 1:
		return errors.New("there is a problem")
	}
	return fmt.Errorf("there are %d problems", problems)
}

func (a *app) writeFindings(found []finding) error {
	if !a.json {
		return printColumns(a.stdout, found)
	}
	for _, f := range found {
		if err := writeJSON(a.stdout, f); err != nil {
			return err
		}
	}
	return nil
}

// statusColours is for those who look for problems.
var statusColours = map[string]colour{statusOK: green, statusProblem: red, statusSkipped: yellow}

// printColumns writes a line per finding, and below it a line per line of its mend.
func printColumns(w io.Writer, found []finding) error {
	width := 0
	for _, f := range found {
		width = max(width, len(f.Check))
	}
	paint := painter(w)
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s  %-*s  %s\n", paint(statusColours[f.Status], fmt.Sprintf("%-7s", f.Status)), width, f.Check, printable(strings.ReplaceAll(f.Message, "\n", "; ")))
		if f.Mend == "" {
			continue
		}
		for line := range strings.SplitSeq(f.Mend, "\n") {
			fmt.Fprintf(&b, "%-7s  %-*s    %s\n", "", width, "", printable(line))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
