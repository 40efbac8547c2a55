package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// importFlags say how past logs are counted.
type importFlags struct {
	instance               string
	collectd, relays       []string
	report, dns, dane, sts bool
}

func (a *app) importCommand() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import [FILE...]",
		Short: "Count past Postfix logs, each session once",
		Long: `import reads logs of Postfix from the beginning to the end, compressed by gzip or
not, and counts their sessions. "-" is standard input, of which a copy is made in
the directory for temporary files. Several files are read in the order of time.

What was counted before is not counted again, whatever the file is called now:
neither a file, or the beginning of one, that was imported already, nor sessions
that a log source of the same host and instance has counted, or will count because
they come after its position. In a second that was counted in part, the lines
decide. A session that ended after a source first began to read is that source's,
even one that was in progress then, which the source leaves out unless the log says
at its end what it was (Postfix 3.11). Where import was cut off, the same command
goes on.

What is imported is for looking: "pending" lists it as not-sent, and it becomes
part of no report. With --report it is counted as if it had been seen when it
happened: days that ended within submit.max_age are reported, in a supplement
where a report was made already. A log that was imported without it before is read
again, and what it was counted for looking is forgotten. Nothing is ever reported
twice; what two files have in common can be there once for looking, of the one
file, and once to be reported, of the other.

A log does not say which policies a domain had. Without --dns nobody is asked, and
sessions count without a policy; then mail that went to a relay is not told apart
from mail that went to an MX, but by its port, its address, --relay or the log.

With --collectd it reads the SQLite database of tlsrpt-collectd, a part of
tlsrpt-reporter: the present one or that of the day before, also while the daemon
writes to it. Read again, grown, copied or renamed, only what is new in it counts.
Do not report with both programs what one of them has counted.`,
		Example: `  tlsrpt-agent import /var/log/mail.log*
  journalctl -o json -t postfix/smtp | tlsrpt-agent import -
  tlsrpt-agent import --report --dns --mta-sts /var/log/mail.log.1 /var/log/mail.log
  tlsrpt-agent import --report --collectd /var/lib/tlsrpt/collectd.sqlite`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args)+len(f.collectd) == 0 {
				return usage(cmd, errors.New("want a FILE, or --collectd"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.importLogs(cmd.Context(), f, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.instance, "instance", defaultInstance, "the syslog_name of the Postfix instance; \"*\" is any")
	flags.StringSliceVar(&f.relays, "relay", nil, "hosts, addresses and networks of relays: sessions with them are not counted")
	flags.StringArrayVar(&f.collectd, "collectd", nil, "a database of tlsrpt-collectd; may be given several times")
	flags.BoolVar(&f.report, "report", false, "report what is imported, as if it had been seen when it happened")
	flags.BoolVar(&f.dns, "dns", false, "ask DNS which hosts are a domain's MX now, and drop sessions with others")
	flags.BoolVar(&f.dane, "dane", false, "this MTA enforced DANE; implies --dns")
	flags.BoolVar(&f.sts, "mta-sts", false, "this MTA enforced MTA-STS; implies --dns")
	cmd.Flags().BoolVar(&a.json, "json", false, "print the summary as one JSON object")
	return cmd
}

// importer imports logs, one after the other.
type importer struct {
	*setup
	flags   importFlags
	finder  *policy.Finder
	relays  *postfixlog.Relays
	before  *postfixlog.Source // of the log before; nil: there is none
	summary importSummary
}

func (a *app) importLogs(ctx context.Context, f importFlags, files []string) (err error) {
	spareMemory()
	pasts, err := a.openPasts(files)
	defer func() {
		for _, p := range pasts {
			err = errors.Join(err, p.Close())
		}
	}()
	if err != nil {
		return err
	}
	up, err := a.setUp(orNew)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.close()) }()
	if f.report {
		// It switches submission on, or what is imported would be from before that.
		if _, err := up.store.SubmissionSince(ctx, time.Now()); err != nil {
			return err
		}
	}
	i := &importer{setup: up, flags: f, summary: newSummary(f.report)}
	if i.relays, err = postfixlog.ParseRelays(f.relays); err != nil {
		return err
	}
	if i.finder, err = i.find(ctx); err != nil {
		return err
	}
	bar := a.progress(pasts)
	err = i.all(ctx, pasts)
	bar.stop()
	if err == nil {
		err = i.collectd(ctx)
	}
	if perr := a.printSummary(&i.summary); err == nil {
		err = perr
	}
	if err != nil {
		return hint(err, "what was counted is stored, and the same command goes on from there")
	}
	return nil
}

// openPasts opens all logs, in the order of time. Those in which no line of
// Postfix is found come last.
func (a *app) openPasts(files []string) (pasts []*postfixlog.Past, err error) {
	for _, name := range files {
		var p *postfixlog.Past
		if name == "-" {
			p, err = postfixlog.SpoolPast("standard input", a.stdin, nil)
		} else {
			p, err = postfixlog.OpenPast(name, nil)
		}
		if err != nil {
			return pasts, err
		}
		pasts = append(pasts, p)
	}
	slices.SortStableFunc(pasts, func(p, q *postfixlog.Past) int {
		if p.First.IsZero() != q.First.IsZero() {
			return q.First.Compare(p.First)
		}
		return p.First.Compare(q.First)
	})
	return pasts, nil
}

// find makes what asks DNS, or nil.
func (i *importer) find(ctx context.Context) (*policy.Finder, error) {
	f := i.flags
	if !f.dns && !f.dane && !f.sts {
		return nil, nil
	}
	resolver := i.config.resolver()
	if f.dane {
		if err := policy.Probe(ctx, resolver, ""); err != nil {
			return nil, hint(fmt.Errorf("--dane: %w", err), "name a resolver that validates in dns.servers")
		}
	}
	// What cannot be fetched today says nothing about the day of the log: no
	// failure to fetch is reported.
	finder := policy.New(policy.Options{
		Resolver: resolver, DANE: f.dane, MTASTS: f.sts,
		AllowPrivate: i.config.Submit.AllowPrivate, Logger: slog.New(slog.DiscardHandler),
	})
	i.finders = append(i.finders, finder)
	return finder, nil
}

func (i *importer) all(ctx context.Context, pasts []*postfixlog.Past) error {
	for _, p := range pasts {
		if err := i.one(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	if i.before != nil {
		i.before.GiveUp()
		i.summary.dropped(i.before.Stats())
	}
	return nil
}

// one imports a log.
func (i *importer) one(ctx context.Context, p *postfixlog.Past) error {
	name, cursor, err := i.known(ctx, p)
	if err != nil {
		return err
	}
	counted, err := i.counted(ctx, name)
	if err != nil {
		return err
	}
	o := postfixlog.SourceOptions{
		Name: name, Past: p, After: i.before, Counted: counted, Finder: i.finder, Cursor: cursor,
		Native: len(i.config.Source.Libtlsrpt) > 0 && i.flags.report,
		Log:    postfixlog.Options{Instance: i.flags.instance, Latest: p.Latest, Relays: i.relays, Senders: i.config.ownSenders()},
	}
	source, err := postfixlog.Open(o)
	if err != nil {
		return err
	}
	if i.before != nil {
		i.summary.dropped(i.before.Stats())
	}
	i.before = source
	err = source.Run(ctx, &importSink{i})
	i.summary.file(p, source.Stats())
	if err == nil && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	return err
}

// What is to be reported and what is for looking are apart: a log has a position
// of its own as each.
const (
	reported   = "import"
	forLooking = "look"
)

// known is the name under which the store is to know a log, and how far it was
// read. What it was counted for looking is forgotten where it is to be reported.
func (i *importer) known(ctx context.Context, p *postfixlog.Past) (name string, cursor []byte, err error) {
	look, looked, lines, err := i.knownAs(ctx, forLooking, p)
	if err != nil {
		return "", nil, err
	}
	name, cursor, read, err := i.knownAs(ctx, reported, p)
	switch {
	case err != nil:
		return "", nil, err
	case !i.flags.report && read > lines:
		return look, cursor, nil
	case !i.flags.report:
		return look, looked, nil
	case looked != nil:
		err = i.store.ForgetLooking(ctx, look)
	}
	return name, cursor, err
}

// maxAlike bounds the logs that begin with the same line and go on otherwise.
const maxAlike = 100

// knownAs is the name under which the store knows a log as what it is for, and
// how far it was read, in lines too. A log is known by what is in it.
func (i *importer) knownAs(ctx context.Context, purpose string, p *postfixlog.Past) (name string, cursor []byte, lines int64, err error) {
	for n := range maxAlike {
		name = fmt.Sprintf("%s:%s:%s:%d", purpose, i.flags.instance, p.Key, n)
		if cursor, err = i.store.Cursor(ctx, name); err != nil || cursor == nil {
			return name, nil, 0, err
		}
		if same, err := p.Continues(cursor); same || err != nil {
			return name, cursor, p.Known, err
		}
	}
	return "", nil, 0, fmt.Errorf("%d other logs begin with the same line", maxAlike)
}

// counted is what other sources have read of logs. What comes after the position
// of a source of the configuration is left to it. What was read for looking is no
// reason not to report it.
func (i *importer) counted(ctx context.Context, name string) (spans []schema.Span, err error) {
	all, err := i.store.Spans(ctx)
	if err != nil {
		return nil, err
	}
	following, begun := map[string]bool{}, map[string]bool{}
	for _, c := range i.config.Source.PostfixLog {
		following[c.name()] = true
	}
	for _, s := range all {
		begun[s.Source] = begun[s.Source] || s.Host != ""
	}
	for n, s := range all {
		if s.Source == name || i.flags.report && strings.HasPrefix(s.Source, forLooking+":") {
			continue
		}
		newest := n+1 == len(all) || serverOf(all[n+1]) != serverOf(s)
		// A span of any host says when a source began that had no line yet.
		if newest && following[s.Source] && (s.Host != "" || !begun[s.Source]) {
			if s.From == s.To {
				s.From-- // nobody knows what comes in that second yet
			}
			s.To = math.MaxInt64
		}
		spans = append(spans, s.Span)
	}
	return spans, nil
}

// serverOf tells spans of different sources or servers apart.
func serverOf(s aggregator.SourceSpan) [3]string { return [3]string{s.Source, s.Instance, s.Host} }

// importSink is the store as it takes what is imported.
type importSink struct{ *importer }

func (s *importSink) Record(ctx context.Context, source string, cursor []byte, counts []schema.Count) error {
	return s.RecordSpans(ctx, source, cursor, counts, nil)
}

func (s *importSink) RecordSpans(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	record := s.store.RecordLooking
	if s.flags.report {
		record = s.store.RecordSpans
		if s.config.Submit.MXHostReports {
			record = agent.WithMXHosts(s.store).RecordSpans
		}
	}
	err := record(ctx, source, cursor, counts, spans)
	if err == nil {
		s.summary.count(counts)
	}
	return err
}
