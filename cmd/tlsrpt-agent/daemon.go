package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
)

// daemon is the program while it runs. The store, the sources and the agent that
// counts what they see last as long as the process, so that new settings lose no
// session. The agent that submits, the one of setup, is replaced by that of the
// new settings; what it had begun is in the store.
type daemon struct {
	*setup
	collecting *agent.Agent
	bounces    *bounceListener // nil where none are taken
	log        *slog.Logger

	// load reads the settings anew, those of the command line over them.
	load func() (config, error)
}

// newDaemon makes everything that a daemon needs. The caller has to close it.
func (a *app) newDaemon(ctx context.Context, c config, log *slog.Logger) (*daemon, error) {
	w := newWatch(c, log)
	s, err := c.setUp(orNew, log, w)
	if err != nil {
		return nil, err
	}
	d := &daemon{setup: s, log: log}
	if err = w.over(s); err == nil {
		err = d.collect(ctx, a.stdin)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return d, nil
}

// collect makes the sources and the agent that runs them.
func (d *daemon) collect(ctx context.Context, stdin io.Reader) error {
	if err := d.config.makeRuntimeDir(); err != nil {
		return err
	}
	sources, err := d.sources(ctx, stdin, d.log)
	if err != nil {
		return err
	}
	if d.bounces, err = d.config.listenForBounces(d.log); err != nil {
		return fmt.Errorf("mail.bounce_socket: %w", err)
	}
	for i, source := range sources {
		sources[i] = d.watch.monitor.Watch(source)
	}
	d.collecting, err = agent.New(agent.Options{
		Store: d.store, Sources: sources, MXHostReports: d.config.Submit.MXHostReports, Logger: d.log,
	})
	return err
}

// run collects and submits until ctx ends. Each hangup has the settings read
// again.
func (d *daemon) run(ctx context.Context, hangups <-chan os.Signal) error {
	d.announce()
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	watch := d.watch // the setup that it is read from is replaced below
	go func() {
		defer close(watched)
		watch.run(watching)
	}()
	defer func() { unwatch(); <-watched }()
	collected := make(chan error, 1)
	go func() { collected <- d.collecting.Run(ctx) }()
	d.bounces.handTo(d.agent)
	bounced := make(chan error, 1)
	go func() {
		err := d.bounces.run(ctx)
		if err != nil {
			d.log.Error("bounces are not taken any more", "error", err)
		}
		bounced <- err
	}()
	var errs []error
	for next := d.setup; next != nil; {
		d.setup = next
		d.bounces.handTo(d.agent)
		watch.setup.Store(next)
		submitting, stop := context.WithCancel(ctx)
		submitted := make(chan error, 1)
		go func() { submitted <- d.agent.Run(submitting) }()
		next = d.reloaded(ctx, hangups)
		stop()
		errs = append(errs, <-submitted)
		d.closeIdle()
	}
	return errors.Join(append(errs, <-collected, <-bounced)...)
}

// reloaded is the setup of new settings once they could be read, or nil when ctx
// ends.
func (d *daemon) reloaded(ctx context.Context, hangups <-chan os.Signal) *setup {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
		}
		d.notify(sd.SdNotifyReloading)
		next, err := d.reload()
		d.notify(sd.SdNotifyReady)
		if err == nil {
			return next
		}
		d.log.Error("the new settings cannot be used, the old ones stay in force", "error", err)
	}
}

// reload makes a setup of the settings as they are now, on the store and the
// sources that there are.
func (d *daemon) reload() (*setup, error) {
	c, err := d.load()
	if err != nil {
		return nil, err
	}
	late := d.config.untilRestart(&c)
	next := &setup{config: c, store: d.store, finders: d.finders, watch: d.watch}
	if err := next.makeSubmitter(); err != nil {
		return nil, err
	}
	if err := next.makeAgent(d.log); err != nil {
		return nil, err
	}
	if len(late) > 0 {
		d.log.Warn("some settings take effect after a restart only", "settings", strings.Join(late, ", "))
	}
	d.log.Info("the settings were read again")
	next.announceSubmission(d.log)
	return next, nil
}

// untilRestart names the settings of next that differ from c and that sources and
// store go by, and gives next the ones that are in force.
func (c *config) untilRestart(next *config) (late []string) {
	keep := func(name string, old, new any) {
		if o, n := reflect.ValueOf(old).Elem(), reflect.ValueOf(new).Elem(); !reflect.DeepEqual(o.Interface(), n.Interface()) {
			late = append(late, name)
			n.Set(o)
		}
	}
	keep("store.path", &c.Store.Path, &next.Store.Path)
	keep("submit.spread", &c.Submit.Spread, &next.Submit.Spread)
	keep("submit.mx_host_reports", &c.Submit.MXHostReports, &next.Submit.MXHostReports)
	keep("source", &c.Source, &next.Source)
	keep("mail.bounce_delimiter", &c.Mail.BounceDelimiter, &next.Mail.BounceDelimiter)
	keep("mail.bounce_socket", &c.Mail.BounceSocket, &next.Mail.BounceSocket)
	keep("mail.bounce_mode", &c.Mail.BounceMode, &next.Mail.BounceMode)
	keep("mail.bounce_user", &c.Mail.BounceUser, &next.Mail.BounceUser)
	keep("mail.bounce_group", &c.Mail.BounceGroup, &next.Mail.BounceGroup)
	keep("web", &c.Web, &next.Web)
	keep("alerts", &c.Alerts, &next.Alerts)
	if len(c.Source.PostfixLog) == 0 {
		return late
	}
	if !reflect.DeepEqual(c.DNS, next.DNS) {
		late = append(late, "dns for the policies of log sources")
	}
	if !slices.Equal(c.ownSenders(), next.ownSenders()) {
		late = append(late, "mail.from as what log sources leave out")
	}
	return late
}

// announce says what the daemon does, to the log and to systemd.
func (d *daemon) announce() {
	for _, source := range d.config.Source.Libtlsrpt {
		d.log.Info("collecting", "socket", source.Socket, "store", d.config.Store.Path)
	}
	for _, source := range d.config.Source.PostfixLog {
		d.log.Info("collecting", "log", cmp.Or(source.Path, "journal"), "store", d.config.Store.Path)
	}
	if d.bounces != nil {
		d.log.Info("taking bounces", "socket", d.config.bounceSocket())
	}
	d.announceSubmission(d.log)
	d.notify(sd.SdNotifyReady)
}

func (s *setup) announceSubmission(log *slog.Logger) {
	if s.submitter == nil {
		log.Warn("nothing is sent until organization.contact is set")
		return
	}
	log.Info("submitting", "schedule", s.config.Submit.Schedule, "contact", s.config.Organization.Contact)
}

// notify tells systemd. Without it there is no socket to tell, and that is no
// fault.
func (d *daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd was not notified", "error", err)
	}
}
