package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes of every command.
const (
	exitOK      int = 0
	exitFailure int = 1
	exitUsage   int = 2

	// exitLater asks whoever runs a command for each mail to bring it again:
	// EX_TEMPFAIL of sysexits.h, which MTAs and delivery agents know.
	exitLater int = 75
)

// app is what the commands share: where they read and write, and the flags that
// all of them have.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	configPath string // -c; "" means the default file, if there is one
	dbPath     string // --db; "" means store.path
	json       bool   // --json
}

// run executes the command that args name, and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	a.explain(err)
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errLater):
		return exitLater
	}
	return exitFailure
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "tlsrpt-agent",
		Short: "Send SMTP TLS reports (RFC 8460) for an outbound mail server",
		Long: `tlsrpt-agent watches the TLS negotiations of an outbound mail server, counts
them per recipient domain and policy, and every day sends each domain that asks
for it a signed report (RFC 8460).`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("tlsrpt-agent {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd, err)
	})
	flags := root.PersistentFlags()
	flags.StringVarP(&a.configPath, "config", "c", "", "read settings from `FILE` (default "+defaultConfig+", if it exists)")
	flags.StringVar(&a.dbPath, "db", "", "use the store in `FILE`, whatever store.path says")
	root.AddCommand(
		a.runCommand(), a.importCommand(), a.pendingCommand(), a.reportCommand(), a.submitCommand(),
		a.deliveriesCommand(), a.suppressionsCommand(), a.bounceCommand(),
		a.lookupCommand(), a.checkCommand(), a.keygenCommand(), a.validateCommand(), a.demoCommand(), a.versionCommand(),
		a.completionCommand(), a.manCommand(),
	)
	completeFiles(root)
	return root
}

// completeFiles lets a shell complete arguments with the names of files only where
// they are files.
func completeFiles(cmd *cobra.Command) {
	if !strings.Contains(cmd.Use, "FILE") && !strings.Contains(cmd.Use, "DIR") && cmd.ValidArgs == nil && cmd.HasParent() {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, c := range cmd.Commands() {
		completeFiles(c)
	}
}

// errUsage marks a fault in the words of the command line: exit code 2.
var errUsage = errors.New("usage")

// usage marks err as a fault in how cmd was called.
func usage(cmd *cobra.Command, err error) error {
	return hint(fmt.Errorf("%w%w", quiet{errUsage}, err), fmt.Sprintf("%q tells how it is used", cmd.CommandPath()+" --help"))
}

// quiet is an error without a text of its own.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, fmt.Errorf("unknown command or argument %q", args[0]))
	}
	return nil
}

// oneArg wants exactly one argument, called what.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(cmd, fmt.Errorf("want one %s, got %d arguments", what, len(args)))
		}
		return nil
	}
}

// hinted is an error with advice.
type hinted struct {
	error
	hints []string
}

func (h hinted) Unwrap() error { return h.error }

// hint adds advice to err for whoever reads it.
func hint(err error, hints ...string) error { return hinted{err, hints} }

// explain prints err and all advice within it.
func (a *app) explain(err error) {
	paint := painter(a.stderr)
	fmt.Fprintf(a.stderr, "tlsrpt-agent: %s %s\n", paint(red, "error:"), printable(err.Error()))
	for h, ok := errors.AsType[hinted](err); ok; h, ok = errors.AsType[hinted](h.error) {
		for _, s := range h.hints {
			fmt.Fprintf(a.stderr, "tlsrpt-agent: %s %s\n", paint(yellow, "hint:"), s)
		}
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, "tlsrpt-agent", version)
			return err
		},
	}
}
