package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"

	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/libtlsrpt"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/tail"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// sources makes the sources of the configuration.
func (d *daemon) sources(ctx context.Context, stdin io.Reader, log *slog.Logger) (sources []collector.Source, err error) {
	for _, c := range d.config.Source.Libtlsrpt {
		source, err := c.listen(log)
		if err != nil {
			return nil, fmt.Errorf("source.libtlsrpt: %w", err)
		}
		sources = append(sources, source)
	}
	for _, c := range d.config.Source.PostfixLog {
		source, err := d.follow(ctx, c, stdin, log)
		if err != nil {
			return nil, fmt.Errorf("source.postfix_log: %w", err)
		}
		sources = append(sources, source)
	}
	return sources, nil
}

// follow opens a Postfix log where it was left.
func (d *daemon) follow(ctx context.Context, c postfixLogConfig, stdin io.Reader, log *slog.Logger) (collector.Source, error) {
	name := c.name()
	cursor, err := d.store.Cursor(ctx, name)
	if err != nil {
		return nil, err
	}
	finder, err := d.finder(ctx, c, d.recordFetch, log)
	if err != nil {
		return nil, err
	}
	d.finders = append(d.finders, finder)
	relays, err := postfixlog.ParseRelays(c.Relays)
	if err != nil {
		return nil, err
	}
	o := tail.Options{Path: c.Path, Journal: c.Journal, Follow: true}
	if c.Path == "-" {
		o = tail.Options{Reader: stdin}
	}
	return postfixlog.Open(postfixlog.SourceOptions{
		Name: name,
		Tail: o,
		Log: postfixlog.Options{
			Instance: c.Instance, ReportPlaintext: c.ReportPlaintext, Relays: relays, Senders: d.config.ownSenders(),
		},
		Finder: finder,
		Native: len(d.config.Source.Libtlsrpt) > 0,
		Cursor: cursor,
		Logger: log,
	})
}

// name is that of the source in the store.
func (c *postfixLogConfig) name() string {
	return "postfix_log:" + cmp.Or(c.Path, "journal") + ":" + c.Instance
}

// ownSenders is the envelope senders of report mail.
func (c *config) ownSenders() []string {
	if from := cmp.Or(c.Mail.From, c.Organization.Contact); from != "" {
		return []string{from}
	}
	return nil
}

// finder makes what finds the policies of domains. report is told of policies
// that could not be fetched.
func (s *setup) finder(ctx context.Context, c postfixLogConfig, report func(schema.Session), log *slog.Logger) (*policy.Finder, error) {
	resolver := s.config.resolver()
	if c.DANE {
		if err := policy.Probe(ctx, resolver, ""); err != nil {
			return nil, hint(fmt.Errorf("dane: %w", err), "name a resolver that validates in dns.servers, or set dane = false")
		}
	}
	o := policy.Options{
		Resolver: resolver, DANE: c.DANE, MTASTS: c.MTASTS,
		AllowPrivate: s.config.Submit.AllowPrivate, Report: report, Logger: log,
	}
	if c.PolicyDaemon != "" {
		m, err := policy.ParseSocketmap(c.PolicyDaemon)
		if err != nil {
			return nil, fmt.Errorf("policy_daemon: %w", err)
		}
		o.Socketmap = &m
	}
	return policy.New(o), nil
}

// recordFetch counts the failure to fetch an MTA-STS policy. Finders look up
// nothing before the agent runs.
func (d *daemon) recordFetch(session schema.Session) {
	if d.collecting != nil {
		_ = d.collecting.Record(session) // it is in canonical form
	}
}

func (c *libtlsrptConfig) listen(log *slog.Logger) (collector.Source, error) {
	mode, err := parseMode(c.Mode)
	if err != nil {
		return nil, fmt.Errorf("mode: %w", err)
	}
	o := libtlsrpt.Options{
		Path: c.Socket, Mode: mode, User: c.User, Group: c.Group,
		File: libtlsrpt.Activated(c.Socket), Logger: log,
	}
	if c.SendingIP != "" {
		if o.SendingIP, err = netip.ParseAddr(c.SendingIP); err != nil {
			return nil, fmt.Errorf("sending_ip: %w", err)
		}
	}
	return libtlsrpt.Listen(o)
}
