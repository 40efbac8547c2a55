package agent_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// A mail server written in Go records its own sessions and sends the reports. It
// needs no socket and no command. The receiving side runs on loopback here, so
// the example may connect to private addresses.
func Example() {
	world, err := receiver.Start(receiver.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer world.Close()
	world.Publish("example.org", "v=TLSRPTv1; rua="+world.URL("/tlsrpt"))

	dir, err := os.MkdirTemp("", "tlsrpt")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := aggregator.Open(filepath.Join(dir, "tlsrpt.db"), aggregator.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	resolver := &resolve.Resolver{Servers: []string{world.Zone.Addr()}}
	a, err := agent.New(agent.Options{
		Store:        store,
		Organization: "Example Inc.",
		Contact:      "tls-reports@example.com",
		Submitter: &submitter.Submitter{
			Resolver:     resolver,
			Addresses:    resolver,
			RootCAs:      world.HTTPS.CAPool(),
			AllowPrivate: true,
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()

	// After each TLS negotiation. These were yesterday's.
	yesterday := time.Now().Add(-24 * time.Hour)
	policy := schema.Policy{Type: schema.NoPolicyFound}
	err = a.Record(schema.Session{Time: yesterday, Domain: "example.org", Results: []schema.Result{{Policy: policy}}})
	if err != nil {
		log.Fatal(err)
	}
	err = a.Record(schema.Session{Time: yesterday, Domain: "example.org", Results: []schema.Result{{
		Policy: policy,
		Failed: true,
		Details: []schema.FailureDetails{{
			ResultType:          schema.CertificateExpired,
			ReceivingMXHostname: "mx.example.org",
			ReceivingIP:         netip.MustParseAddr("192.0.2.25"),
		}},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	stop() // what was recorded is stored before Run returns
	if err := <-done; err != nil {
		log.Fatal(err)
	}

	// Run submits on its schedule; Submit does so now.
	if err := a.Submit(context.Background(), agent.Submission{}, nil); err != nil {
		log.Fatal(err)
	}
	for _, r := range world.Reports() {
		fmt.Println(r.Domain, "got a report:", r.Sessions.Success, "succeeded,", r.Sessions.Failure, "failed")
	}
	// Output: example.org got a report: 1 succeeded, 1 failed
}
