package agent_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// queue is the queue of the mail server, which delivers report mail as any other,
// but although TLS fails.
type queue struct{}

func (queue) Mail(_ context.Context, e submitter.Envelope, message []byte) error {
	fmt.Println("queued:", e.From, "->", e.To)
	for line := range strings.Lines(string(message)) {
		if strings.HasPrefix(line, "TLS-Report-Domain") || strings.HasPrefix(line, "  2 sessions") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	return nil
}

// records stands for the DNS. A nil Resolver asks the servers of /etc/resolv.conf.
type records map[string]string

func (r records) LookupTXT(_ context.Context, name string) ([]string, error) {
	return []string{r[name]}, nil
}

// A mail server written in Go records its own sessions and sends the reports. It
// needs no socket and no command.
func Example() {
	dir, err := os.MkdirTemp("", "tlsrpt")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := aggregator.Open(filepath.Join(dir, "tlsrpt.db"), aggregator.Options{Spread: 4 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	// The key's record, key.TXT(), is published at key.Name().
	key, err := submitter.GenerateKey(submitter.RSA, "example.com", "tlsrpt")
	if err != nil {
		log.Fatal(err)
	}
	a, err := agent.New(agent.Options{
		Store:        store,
		Organization: "Example Inc.",
		Contact:      "tls-reports@example.com",
		Grace:        -1, // this example cannot wait for the end of a day
		Submitter: &submitter.Submitter{
			Resolver: records{"_smtp._tls.example.org": "v=TLSRPTv1; rua=mailto:tls@example.org"},
			Keys:     []*submitter.Key{key},
			Mail:     queue{},
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
	good := schema.Session{Time: yesterday, Domain: "example.org", Results: []schema.Result{{Policy: policy}}}
	bad := schema.Session{Time: yesterday, Domain: "example.org", Results: []schema.Result{{
		Policy: policy,
		Failed: true,
		Details: []schema.FailureDetails{{
			ResultType:          schema.CertificateExpired,
			ReceivingMXHostname: "mx.example.org",
			ReceivingIP:         netip.MustParseAddr("192.0.2.25"),
		}},
	}}}
	for _, s := range []schema.Session{good, bad, good} {
		if err := a.Record(s); err != nil {
			log.Fatal(err)
		}
	}

	// Run submits on its schedule; Submit does so now.
	if err := a.Submit(ctx, agent.Submission{}, nil); err != nil {
		log.Fatal(err)
	}
	stop() // what was recorded is stored before Run returns
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// queued: tls-reports@example.com -> tls@example.org
	// TLS-Report-Domain: example.org
	// 2 sessions succeeded, 1 failed.
}
