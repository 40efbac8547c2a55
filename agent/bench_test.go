package agent

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// BenchmarkSubmit is a day's submission: 5,000 domains whose reports go to 50
// hosts are looked up, planned, made and delivered, the receiving side in the
// same process.
func BenchmarkSubmit(b *testing.B) {
	for _, c := range []struct {
		name string
		keys []submitter.Algorithm
		mail bool
	}{
		{"https unsigned", nil, false},
		{"https ed25519", []submitter.Algorithm{submitter.Ed25519}, false},
		{"https rsa", []submitter.Algorithm{submitter.RSA}, false},
		{"mail rsa", []submitter.Algorithm{submitter.RSA}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			var keys []*submitter.Key
			for _, algorithm := range c.keys {
				k, err := submitter.GenerateKey(algorithm, "example.com", "tlsrpt")
				benchCheck(b, err)
				keys = append(keys, k)
			}
			for b.Loop() {
				b.StopTimer()
				a, end := benchAgent(b, keys, c.mail)
				b.StartTimer()
				benchCheck(b, a.Submit(b.Context(), Submission{}, nil))
				b.StopTimer()
				end()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N)*benchDomains/b.Elapsed().Seconds(), "reports/s")
		})
	}
}

const benchDomains, benchHosts = 5000, 50

func benchCheck(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// benchAgent is an agent with a day to submit.
func benchAgent(b *testing.B, keys []*submitter.Key, mail bool) (*Agent, func()) {
	b.Helper()
	hosts := make([]string, benchHosts)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("reports%d.example.org", i)
	}
	world, err := receiver.Start(receiver.Options{Hosts: hosts})
	benchCheck(b, err)
	store, err := aggregator.Open(filepath.Join(b.TempDir(), "tlsrpt.db"), aggregator.Options{})
	benchCheck(b, err)
	resolver := &resolve.Resolver{Servers: []string{world.Zone.Addr()}, Parallel: 32}
	s := &submitter.Submitter{Resolver: resolver, Addresses: resolver, Keys: keys, AllowPrivate: true, Ports: []uint16{world.HTTPS.Port()}, RootCAs: world.HTTPS.CAPool()}
	if mail {
		s.Mail, err = submitter.ParseRelay("smtp://"+world.SMTP.Addr(), "", submitter.RelayOptions{HELO: "out.example.com"})
		benchCheck(b, err)
	}
	a, err := New(Options{Store: store, Contact: "tls-reports@example.com", Submitter: s})
	benchCheck(b, err)
	benchCheck(b, a.switchOn(b.Context()))
	counts := make([]schema.Count, benchDomains)
	for i := range counts {
		domain := fmt.Sprintf("d%d.example", i)
		rua := world.HTTPS.URL(hosts[i%benchHosts], "/"+domain)
		if mail {
			rua = fmt.Sprintf("mailto:tls@%s", hosts[i%benchHosts])
		}
		world.Publish(domain, "v=TLSRPTv1; rua="+rua)
		policy := schema.Policy{Type: schema.NoPolicyFound, Domain: domain}
		counts[i] = schema.Count{Day: schema.DayOf(time.Now()) - 2, Domain: domain, Policy: policy.Text(), Success: 9}
	}
	benchCheck(b, store.Record(b.Context(), "bench", nil, counts))
	return a, func() {
		if n := len(world.HTTPS.Received()) + len(world.SMTP.Received()); n != benchDomains {
			b.Fatalf("%d of %d reports arrived", n, benchDomains)
		}
		s.Close()
		benchCheck(b, store.Close())
		benchCheck(b, world.Close())
	}
}
