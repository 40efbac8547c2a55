package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
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
SIGTERM: what was received is stored, attempts under way are finished.

Without a configuration file it collects and counts; nothing is sent until
organization.contact is set.`,
		Example: `  tlsrpt-agent run
  tlsrpt-agent run -c /etc/tlsrpt-agent/config.toml
  tlsrpt-agent run --db /tmp/tlsrpt.db --socket /tmp/tlsrpt.sock --log-level debug`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.daemon(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.socket, "socket", "", "listen on the datagram socket `PATH` instead of those of the configuration")
	flags.StringVar(&f.contact, "contact", "", "organization.contact: an `ADDRESS` whose domain is the submitter")
	flags.StringVar(&f.organization, "organization", "", "organization.name")
	flags.StringVar(&f.schedule, "schedule", "", "submit.schedule: a cron expression in UTC")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
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
	if f.logFormat != "text" && f.logFormat != "json" {
		return nil, fmt.Errorf("--log-format %q is neither text nor json", f.logFormat)
	}
	return a.logger(level, f.logFormat), nil
}

func (a *app) daemon(cmd *cobra.Command, f runFlags) error {
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
	s, err := a.setUpWith(c, orNew, log, func(s *setup) ([]collector.Source, error) {
		if err := c.makeRuntimeDir(); err != nil {
			return nil, err
		}
		return s.sources(cmd.Context(), a.stdin, log)
	})
	if err != nil {
		return err
	}
	s.announce(log)
	err = s.agent.Run(cmd.Context())
	if err = errors.Join(err, s.close()); err == nil {
		log.Info("stopped")
	}
	return err
}

// makeRuntimeDir makes the directory of a default socket, which belongs to the
// agent. Those of other sockets belong to the mail server.
func (c *config) makeRuntimeDir() error {
	for _, s := range c.Source.Libtlsrpt {
		if s.Socket == defaultSource().Socket {
			return os.MkdirAll(filepath.Dir(s.Socket), 0o755)
		}
	}
	return nil
}

// announce says what the daemon does, to the log and to systemd.
func (s *setup) announce(log *slog.Logger) {
	for _, source := range s.config.Source.Libtlsrpt {
		log.Info("collecting", "socket", source.Socket, "store", s.config.Store.Path)
	}
	for _, source := range s.config.Source.PostfixLog {
		log.Info("collecting", "log", cmp.Or(source.Path, "journal"), "store", s.config.Store.Path)
	}
	if s.submitter == nil {
		log.Warn("nothing is sent until organization.contact is set")
	} else {
		log.Info("submitting", "schedule", s.config.Submit.Schedule, "contact", s.config.Organization.Contact)
	}
	// Without systemd there is no socket to notify, and that is no fault.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd was not notified", "error", err)
	}
}
