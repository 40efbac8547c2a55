//go:build linux

package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
)

// submission is a day of so many domains on its way to 50 hosts.
type submission struct {
	name    string
	domains int
	key     string // --algorithm of keygen; "": unsigned
	mail    bool
}

const submitHosts = 50

// The budgets: docs/performance.md.
var submissions = []submission{
	{name: "submit/https-20k", domains: 20_000},
	{name: "submit/https-ed25519-20k", domains: 20_000, key: "ed25519"},
	{name: "submit/https-rsa-20k", domains: 20_000, key: "rsa"},
	{name: "submit/mail-rsa-20k", domains: 20_000, key: "rsa", mail: true},
	{name: "submit/https-200k", domains: 200_000},
}

func submitCases() (all []measurement) {
	for _, s := range submissions {
		all = append(all, measurement{s.name, s.measure})
	}
	return all
}

// measure runs "submit" in a process of its own. DNS, HTTPS and SMTP are in this
// one: their cost is measured as what this process uses meanwhile.
func (s submission) measure(b *bench) ([]figure, error) {
	hosts := make([]string, submitHosts)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("reports%d.example.org", i)
	}
	world, err := receiver.Start(receiver.Options{Hosts: hosts})
	if err != nil {
		return nil, err
	}
	defer world.Close()
	dir, err := os.MkdirTemp(b.dir, "submit")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	domains := s.domains / b.scale
	for i := range domains {
		rua := world.HTTPS.URL(hosts[i%submitHosts], fmt.Sprintf("/d%d", i))
		if s.mail {
			rua = "mailto:tls@" + hosts[i%submitHosts]
		}
		world.Publish(fmt.Sprintf("d%d.example.net", i), "v=TLSRPTv1; rua="+rua)
	}
	db := filepath.Join(dir, "tlsrpt.db")
	// Records of sources would only matter if DNS did not answer.
	if err := fillStore(b.ctx, db, 1, domains, "mailto:unused@example.org"); err != nil {
		return nil, err
	}
	config, err := s.config(b, world, dir)
	if err != nil {
		return nil, err
	}
	before := ownCPU()
	r, err := b.spend("", b.agent, "submit", "-c", config, "--db", db)
	if err != nil {
		return nil, err
	}
	sinks := ownCPU() - before
	if n := len(world.HTTPS.Received()) + len(world.SMTP.Received()); n != domains {
		return nil, fmt.Errorf("%d of %d reports arrived", n, domains)
	}
	figures := []figure{
		{"rate", float64(domains) / r.took.Seconds(), "/s"}, {"cpu", r.cpu.Seconds() / float64(domains) * 1000, "ms/report"},
		{"sinks-cpu", sinks.Seconds() / float64(domains) * 1000, "ms/report"}, {"rss", r.rss, "MB"},
	}
	if s.key == "rsa" {
		rate, err := rsaFloor()
		return append(figures, figure{"bare-rsa", rate, "/s"}), err
	}
	return figures, nil
}

// config writes the configuration, and the key that it names.
func (s submission) config(b *bench, world *receiver.World, dir string) (path string, err error) {
	ca, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(ca, world.HTTPS.CAPEM(), 0o600); err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "[organization]\nname = \"Example\"\ncontact = \"tls-reports@example.com\"\n"+
		"[dns]\nservers = [%q]\n[submit]\nspread = \"0s\"\nallow_private = true\n"+
		"[https]\nca_file = %q\nports = [%d]\n[mail]\nvia = \"smtp://%s\"\nhelo = \"out.example.com\"\n[dkim]\n",
		world.Zone.Addr(), ca, world.HTTPS.Port(), netip.MustParseAddrPort(world.SMTP.Addr()))
	if s.key == "" {
		text.WriteString("external = true\n")
	} else {
		if err := b.command(b.agent, "keygen", "-c", os.DevNull, "--domain", "example.com", "--algorithm", s.key, key); err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "key = %q\n", key)
	}
	path = filepath.Join(dir, "config.toml")
	return path, os.WriteFile(path, []byte(text.String()), 0o600)
}

// rsaFloor is how many signatures RSA-2048 makes a second, on two processors.
func rsaFloor() (rate float64, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256([]byte("a report"))
	const lasting = 2 * time.Second
	var signed atomic.Int64
	var signers sync.WaitGroup
	for range 2 {
		signers.Go(func() {
			for end := time.Now().Add(lasting); time.Now().Before(end); signed.Add(1) {
				if _, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]); err != nil {
					return
				}
			}
		})
	}
	signers.Wait()
	return float64(signed.Load()) / lasting.Seconds(), nil
}
