package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// runFlags are the settings that may be given on the command line.
type runFlags struct {
	socket, contact, organization, schedule string
	logLevel, logFormat                     string
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Collect, count and submit: the daemon",
		Long: `run listens for the TLS results of the mail server, counts them, and on the
schedule sends each domain that asks for it its report. It ends cleanly on
SIGTERM: what was received is stored, attempts under way are finished. On SIGHUP
it reads settings and keys again; if something is wrong with them, the old ones
stay in force. Other sources, another store or another spread take a restart.

Without a configuration file it collects and counts; nothing is sent until
organization.contact is set.`,
		Example: `  tlsrpt-agent run
  tlsrpt-agent run -c /etc/tlsrpt-agent/config.toml
  tlsrpt-agent run --db /tmp/tlsrpt.db --socket /tmp/tlsrpt.sock --log-level debug`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runDaemon(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.socket, "socket", "", "listen on the datagram socket `PATH` instead of those of the configuration")
	flags.StringVar(&f.contact, "contact", "", "organization.contact: an `ADDRESS` whose domain is the submitter")
	flags.StringVar(&f.organization, "organization", "", "organization.name")
	flags.StringVar(&f.schedule, "schedule", "", "submit.schedule: a cron expression in UTC")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", logAuto, "text, json, journald (sd-daemon priorities), or auto: journald under systemd, else text")
	return cmd
}

// apply puts what was given on the command line over the configuration.
func (f *runFlags) apply(c *config) error {
	if f.socket != "" {
		s := defaultSource()
		s.Socket, s.Mode = f.socket, defaultMode
		c.Source.Libtlsrpt = []libtlsrptConfig{s}
	}
	for _, o := range []struct{ flag, setting *string }{
		{&f.contact, &c.Organization.Contact}, {&f.organization, &c.Organization.Name}, {&f.schedule, &c.Submit.Schedule},
	} {
		if *o.flag != "" {
			*o.setting = *o.flag
		}
	}
	return c.check()
}

// logger is the logger that the flags ask for.
func (f *runFlags) logger(a *app) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q is none of debug, info, warn, error", f.logLevel)
	}
	format, err := logFormat(f.logFormat)
	if err != nil {
		return nil, err
	}
	return newLogger(a.stderr, level, format), nil
}

func (a *app) runDaemon(cmd *cobra.Command, f runFlags) error {
	log, err := f.logger(a)
	if err != nil {
		return usage(cmd, err)
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	if err := f.apply(&c); err != nil {
		return err
	}
	spareMemory()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // until the process ends, see main
	d, err := a.newDaemon(cmd.Context(), c, log)
	if err != nil {
		return err
	}
	d.load = func() (config, error) {
		c, err := a.load()
		if err == nil {
			err = f.apply(&c)
		}
		return c, err
	}
	if err = errors.Join(d.run(cmd.Context(), hangups), d.close()); err == nil {
		log.Info("stopped")
	}
	return err
}

// spareMemory has the garbage collector run more often. Beside a mail server memory
// is dearer than the processor, and most of ours is text, which need not be looked
// into.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// makeRuntimeDir makes the directory of a default socket, which belongs to the
// agent. Those of other sockets belong to the mail server.
func (c *config) makeRuntimeDir() error {
	sockets := []string{c.bounceSocket()}
	for _, s := range c.Source.Libtlsrpt {
		sockets = append(sockets, s.Socket)
	}
	for _, s := range sockets {
		if dir := filepath.Dir(s); dir == runtimeDir() {
			return os.MkdirAll(dir, 0o755)
		}
	}
	return nil
}
