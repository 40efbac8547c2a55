package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/alert"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/health"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/web"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

type webConfig struct {
	Listen            string   `toml:"listen" doc:"The address of the dashboard, /metrics, /healthz and /readyz. Empty: none. One that other hosts can reach needs token_file."`
	TokenFile         string   `toml:"token_file" doc:"The file with the token that lets in: by the form of /login, or as \"Authorization: Bearer\". At least 16 characters. Empty: whoever reaches the address is let in."`
	MetricsTopDomains int      `toml:"metrics_top_domains" doc:"How many of the domains that fail now have a series of their own in /metrics, at most 100."`
	SilentAfter       duration `toml:"silent_after" doc:"A source that saw no session for so long is a problem in /readyz. \"0s\": never."`
}

type alertsConfig struct {
	Threshold   float64  `toml:"threshold" doc:"The share of failed sessions from which on a domain is failing, above 0 to 1. 0: nothing is watched."`
	MinSessions int64    `toml:"min_sessions" doc:"How many sessions a domain must have within the window."`
	Window      duration `toml:"window" doc:"How far back is looked, a minute to a day. It is kept in memory, and empty at the start."`
	Pause       duration `toml:"pause" doc:"How long a domain that keeps failing is not told of again."`
	Exec        []string `toml:"exec" doc:"A program and its arguments, run with JSON on standard input when domains begin to fail or recover. No shell; at most 30 s."`
	Webhook     string   `toml:"webhook" doc:"An http or https URL that the same JSON is posted to."`
}

// check finds values that cannot be used.
func (c *webConfig) check() error {
	if c.Listen != "" {
		if err := web.CheckListen(c.Listen, c.TokenFile != ""); err != nil {
			return fmt.Errorf("web.listen: %w", err)
		}
	}
	if c.MetricsTopDomains < 0 || c.MetricsTopDomains > 100 {
		return fmt.Errorf("web.metrics_top_domains: %d is not between 0 and 100", c.MetricsTopDomains)
	}
	return nil
}

func (c *alertsConfig) check() error {
	if c.Threshold < 0 || c.Threshold > 1 {
		return fmt.Errorf("alerts.threshold: %g is not between 0 and 1", c.Threshold)
	}
	if c.MinSessions < 1 {
		return fmt.Errorf("alerts.min_sessions: %d is less than 1", c.MinSessions)
	}
	if w := c.Window.Duration; w < time.Minute || w > 24*time.Hour {
		return fmt.Errorf("alerts.window: %s is not between 1m and 1d", c.Window)
	}
	if len(c.Exec) > 0 && !filepath.IsAbs(c.Exec[0]) {
		return fmt.Errorf("alerts.exec: %q is not an absolute path", c.Exec[0])
	}
	if c.Webhook == "" {
		return nil
	}
	if u, err := url.Parse(c.Webhook); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("alerts.webhook: not an http or https URL") // it may hold a secret
	}
	return nil
}

// alerter watches as the settings say, or is nil.
func (c *alertsConfig) alerter(log *slog.Logger) *alert.Alerter {
	if c.Threshold == 0 {
		return nil
	}
	o := alert.Options{
		Window: alert.NewWindow(c.Window.Duration), Threshold: c.Threshold, MinSessions: c.MinSessions,
		Pause: c.Pause.Duration, Logger: log,
	}
	if len(c.Exec) > 0 {
		o.Hooks = append(o.Hooks, alert.Exec(c.Exec))
	}
	if c.Webhook != "" {
		o.Hooks = append(o.Hooks, alert.Webhook(c.Webhook))
	}
	return alert.New(o)
}

// token reads the token; "" if none is asked for.
func (c *webConfig) token() (string, error) {
	if c.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("web.token_file: %w", err)
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return "", fmt.Errorf("web.token_file: %s is empty", c.TokenFile)
	}
	return string(text), nil
}

// watch is what looks at a daemon: its health, its alerts, its page. It lasts as
// long as the process; the setup that it asks is replaced under it. A nil watch
// sees nothing.
type watch struct {
	metrics *web.Metrics
	monitor *health.Monitor
	alerter *alert.Alerter // nil: no alerts
	server  *web.Server    // nil: no page
	listen  string
	setup   atomic.Pointer[setup]
	log     *slog.Logger
}

// newWatch makes a watch of a store that is to be opened yet.
func newWatch(c config, log *slog.Logger) *watch {
	w := &watch{metrics: web.NewMetrics(version), alerter: c.Alerts.alerter(log), listen: c.Web.Listen, log: log}
	w.metrics.TopDomains = c.Web.MetricsTopDomains
	return w
}

// over makes the rest, over the setup that there is now.
func (w *watch) over(s *setup) error {
	w.setup.Store(s)
	c := &s.config
	w.monitor = health.New(health.Options{
		Store: s.store, Silent: c.Web.SilentAfter.Duration, Committed: w.committed, Logger: w.log,
		Submits: func() bool { return w.setup.Load().submitter != nil },
		Relay: func() (bool, string) {
			relay := w.setup.Load().agent.Stats().Relay
			return relay.Paused, relay.Reason
		},
	})
	if w.listen == "" {
		return nil
	}
	token, err := c.Web.token()
	if err != nil {
		return err
	}
	w.server, err = web.New(web.Options{
		Store: s.store, Monitor: w.monitor, Alerter: w.alerter, Metrics: w.metrics,
		NextRun: w.nextRun, Preview: w.preview, Message: w.message,
		Keep: c.Store.Keep.Duration, Token: token, Version: version, Logger: w.log,
	})
	return err
}

// committed passes on what a source handed to the store.
func (w *watch) committed(took time.Duration, counts []schema.Count, err error) {
	w.metrics.Committed(took, counts, err)
	if w.alerter != nil && err == nil {
		w.alerter.Window().Record(time.Now(), counts)
	}
}

// attempted is told of attempts to deliver.
func (w *watch) attempted() func(aggregator.Delivery, aggregator.Outcome) {
	if w == nil {
		return nil
	}
	return func(d aggregator.Delivery, o aggregator.Outcome) {
		w.metrics.Attempted(d, o)
		w.monitor.Attempted()
	}
}

// nextRun is the zero time where nothing is sent.
func (w *watch) nextRun(now time.Time) time.Time {
	s := w.setup.Load()
	if s.submitter == nil {
		return time.Time{}
	}
	return s.agent.NextRun(now)
}

func (w *watch) preview(ctx context.Context, domain string, day schema.Day) (submitter.Parcel, error) {
	s := w.setup.Load()
	if s.config.Organization.Contact == "" {
		return submitter.Parcel{}, web.ErrNoReports
	}
	return s.agent.Preview(ctx, domain, day)
}

func (w *watch) message(p submitter.Parcel, to schema.RUA) ([]byte, error) {
	s := w.setup.Load()
	if s.submitter == nil {
		return nil, web.ErrNoReports
	}
	return s.submitter.Message(p, to)
}

// countLookups has the look-ups of sub counted.
func (w *watch) countLookups(sub *submitter.Submitter) {
	if w != nil {
		sub.Resolver = countingResolver{sub.Resolver, w.metrics}
	}
}

// countingResolver counts look-ups of records.
type countingResolver struct {
	submitter.TXTResolver
	metrics *web.Metrics
}

func (r countingResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	texts, err := r.TXTResolver.LookupTXT(ctx, name)
	switch {
	case resolve.IsTemporary(err):
		r.metrics.LookedUp("error")
	case err != nil || len(texts) == 0:
		r.metrics.LookedUp("none")
	default:
		r.metrics.LookedUp("found")
	}
	return texts, err
}

// run watches until ctx ends. A page that nobody can be shown does not keep
// sessions from being counted.
func (w *watch) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { w.monitor.Run(ctx, nil) })
	wg.Go(func() { w.feedWatchdog(ctx) })
	if w.alerter != nil {
		wg.Go(func() { w.alerter.Run(ctx) })
	}
	if w.server != nil {
		wg.Go(func() {
			if err := w.serve(ctx); err != nil {
				w.log.Error("the dashboard cannot be shown", "listen", w.listen, "error", err)
			}
		})
	}
	wg.Wait()
}

func (w *watch) serve(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", w.listen)
	if err != nil {
		return err
	}
	w.log.Info("dashboard", "url", "http://"+l.Addr().String()+"/")
	return w.server.Serve(ctx, l)
}

// feedWatchdog tells systemd again and again that the daemon is alive, while it is.
func (w *watch) feedWatchdog(ctx context.Context) {
	limit, err := sd.SdWatchdogEnabled(false)
	if err != nil || limit <= 0 {
		return // nobody waits for it
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		if w.monitor.Alive() {
			if _, err := sd.SdNotify(false, sd.SdNotifyWatchdog); err != nil {
				w.log.Warn("systemd was not notified", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
