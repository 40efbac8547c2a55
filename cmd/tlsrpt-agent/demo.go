package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/libtlsrpt"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// demoEvents are datagrams, one a line, that Postfix 3.11 sent about
// deliveries to receivers with good and bad TLS.
//
//go:embed demo.jsonl
var demoEvents []byte

// demoContact is who reports in the demo.
const demoContact = "tls-reports@example.com"

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the whole pipeline on loopback, with events of a real Postfix",
		Long: `demo sends captured events of a real Postfix to a socket of its own, counts them,
and delivers the reports to a DNS, an HTTPS and an SMTP server of its own, which
verify what arrives. Nothing leaves the machine; the events are taken for
yesterday's, because only a day that is over is reported.`,
		Example: "  tlsrpt-agent demo",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "tlsrpt-demo")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			return a.demo(cmd.Context(), dir)
		},
	}
}

func (a *app) demo(ctx context.Context, dir string) error {
	world, err := receiver.Start(receiver.Options{})
	if err != nil {
		return err
	}
	defer world.Close()
	d := &demo{app: a, world: world, dir: dir, log: newLogger(a.stderr, slog.LevelError, logText)}
	if err := d.setUp(); err != nil {
		return err
	}
	defer d.store.Close()
	defer d.submitter.Close()
	for _, step := range []func(context.Context) error{d.collect, d.showCounts, d.showRecords, d.submit} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return d.showReports()
}

// demo is one run of the command.
type demo struct {
	*app
	world *receiver.World
	dir   string
	log   *slog.Logger

	store     *aggregator.Store
	source    *libtlsrpt.Source
	submitter *submitter.Submitter
	agent     *agent.Agent
	domains   []string
}

func (d *demo) setUp() error {
	resolver := &resolve.Resolver{Servers: []string{d.world.Zone.Addr()}}
	key, err := submitter.GenerateKey(submitter.RSA, "example.com", "tlsrpt")
	if err != nil {
		return err
	}
	d.world.Zone.SetTXT(key.Name(), key.TXT())
	relay, err := submitter.ParseRelay("smtp://"+d.world.SMTP.Addr(), "", submitter.RelayOptions{HELO: "out.example.com"})
	if err != nil {
		return err
	}
	d.submitter = &submitter.Submitter{
		Resolver: resolver, Addresses: resolver, Keys: []*submitter.Key{key}, Mail: relay,
		AllowPrivate: true, Ports: []uint16{d.world.HTTPS.Port()}, RootCAs: d.world.HTTPS.CAPool(), Version: version,
	}
	if d.source, err = libtlsrpt.Listen(libtlsrpt.Options{Path: d.socket(), Logger: d.log}); err != nil {
		return err
	}
	if d.store, err = aggregator.Open(filepath.Join(d.dir, "tlsrpt.db"), aggregator.Options{Logger: d.log}); err != nil {
		return err
	}
	d.agent, err = agent.New(agent.Options{
		Store: d.store, Submitter: d.submitter, Sources: []collector.Source{yesterday{d.source}},
		Organization: "Example Inc.", Contact: demoContact, Grace: -1, Logger: d.log,
	})
	return err
}

func (d *demo) socket() string { return filepath.Join(d.dir, "tlsrpt.sock") }

// collect runs the agent until it has counted every event.
func (d *demo) collect(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- d.agent.Run(ctx) }()
	events := bytes.Split(bytes.TrimSpace(demoEvents), []byte("\n"))
	for _, event := range events {
		if err := sendDatagram(d.socket(), event); err != nil {
			return err
		}
	}
	for d.source.Stats().Received < int64(len(events)) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		return err
	}
	stats := d.source.Stats()
	fmt.Fprintf(d.stdout, "Collected %d events of a real Postfix, %d malformed:\n\n", stats.Counted, stats.Malformed)
	return nil
}

// sendDatagram sends as libtlsrpt does, with a socket of its own each time, but
// waits where the queue is full.
func sendDatagram(path string, datagram []byte) error {
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	_, err = c.Write(datagram)
	return errors.Join(err, c.Close())
}

func (d *demo) showCounts(ctx context.Context) error {
	t := newTable(d.stdout, "DAY", "DOMAIN", "POLICY", "SUCCESS", "FAILURE", "RESULTS")
	err := d.store.Pending(ctx, aggregator.PendingFilter{}, func(p aggregator.Pending) error {
		if !slices.Contains(d.domains, p.Domain) {
			d.domains = append(d.domains, p.Domain)
		}
		t.row(p.Day, p.Domain, p.Policy.Type, p.Success, p.Failure, results(p.Results))
		return nil
	})
	return errors.Join(err, t.flush())
}

// showRecords publishes a record for each domain but one, and looks them up.
func (d *demo) showRecords(ctx context.Context) error {
	fmt.Fprint(d.stdout, "\nRecords at _smtp._tls.<domain>:\n\n")
	t := newTable(d.stdout, "DOMAIN", "RECORD")
	for i, domain := range d.domains {
		https, mailto := d.world.URL("/"+domain), "mailto:tls-reports@"+domain
		switch {
		case i == 0: // asks for nothing and gets nothing
		case i%2 == 0:
			d.world.Publish(domain, "v=TLSRPTv1; rua="+https+","+mailto)
		default:
			d.world.Publish(domain, "v=TLSRPTv1; rua="+mailto)
		}
		text, _, err := d.submitter.Discover(ctx, domain)
		switch {
		case errors.Is(err, schema.ErrNoRecord):
			text = "none, so nothing is owed"
		case err != nil:
			return err
		}
		t.row(domain, text)
	}
	return t.flush()
}

func (d *demo) submit(ctx context.Context) error {
	fmt.Fprint(d.stdout, "\nDelivered, as the other side saw it:\n\n")
	return d.agent.Submit(ctx, agent.Submission{}, nil)
}

// showReports prints what arrived. A report that a strict receiver would not
// take fails the demo.
func (d *demo) showReports() error {
	var faults []error
	reports := d.world.Reports()
	slices.SortStableFunc(reports, func(a, b receiver.Report) int { return strings.Compare(a.ReportID, b.ReportID) })
	t := newTable(d.stdout, "DESTINATION", "SUCCESS", "FAILURE", "BYTES", "SIGNATURE", "VERDICT")
	for _, r := range reports {
		verdict := "accepted"
		if len(r.Problems) > 0 {
			verdict = "rejected"
			faults = append(faults, fmt.Errorf("to %s: %s", strings.Join(r.To, ", "), strings.Join(r.Problems, "; ")))
		}
		t.row(strings.Join(r.To, ", "), r.Sessions.Success, r.Sessions.Failure, len(r.JSON), signatures(r), verdict)
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintf(d.stdout, "\n%d reports arrived, %d as they should be.\n", len(reports), len(reports)-len(faults))
	return errors.Join(faults...)
}

// signatures says who signed a report, and whether it verified.
func signatures(r receiver.Report) string {
	if len(r.Signatures) == 0 {
		return "none"
	}
	var s []string
	for _, sig := range r.Signatures {
		verdict := "verified"
		if sig.Err != nil {
			verdict = sig.Err.Error()
		}
		s = append(s, fmt.Sprintf("%s %s %s", sig.Algorithm, sig.Domain, verdict))
	}
	return strings.Join(s, ", ")
}

// yesterday is a source whose sessions are taken for those of the day before.
type yesterday struct{ collector.Source }

func (y yesterday) Run(ctx context.Context, sink collector.Sink) error {
	return y.Source.Run(ctx, dayBefore{sink})
}

// dayBefore is a sink that moves counts to the day before.
type dayBefore struct{ collector.Sink }

func (s dayBefore) Record(ctx context.Context, source string, cursor []byte, counts []schema.Count) error {
	moved := slices.Clone(counts)
	for i := range moved {
		moved[i].Day--
	}
	return s.Sink.Record(ctx, source, cursor, moved)
}
