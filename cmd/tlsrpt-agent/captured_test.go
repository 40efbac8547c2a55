package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/libtlsrpt"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// TestCaptured sends what a real Postfix sent, over a socket, through the store
// and the mail, and compares the reports that arrive with what encoding/json
// makes of the events.
func TestCaptured(t *testing.T) {
	for _, version := range []string{"3.10.13-base", "3.11.7-base"} {
		t.Run(version, func(t *testing.T) {
			events := captured(t, filepath.Join("../../collector/libtlsrpt/testdata/postfix", version+".jsonl"))
			got := map[string][]string{}
			for _, r := range reportOf(t, events) {
				if len(r.Problems) > 0 {
					t.Errorf("%s: %q", r.Domain, r.Problems)
				}
				checkSchema(t, r.JSON)
				if got[r.Domain] != nil {
					t.Errorf("%s got two reports", r.Domain)
				}
				got[r.Domain] = facts(r.Content)
			}
			want := wanted(t, events)
			if len(want) < 50 {
				t.Fatalf("events of %d domains only", len(want))
			}
			for domain, facts := range want {
				if !slices.Equal(got[domain], facts) {
					t.Errorf("%s: report\n\t%s\nwant\n\t%s", domain, strings.Join(got[domain], "\n\t"), strings.Join(facts, "\n\t"))
				}
				delete(got, domain)
			}
			if len(got) > 0 {
				t.Errorf("reports that nobody expects: %v", got)
			}
		})
	}
}

// captured is the datagrams of a file of captures.
func captured(t *testing.T, path string) (events [][]byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var capture struct{ Raw string }
		if err := json.Unmarshal(lines.Bytes(), &capture); err != nil {
			t.Fatal(err)
		}
		events = append(events, []byte(capture.Raw))
	}
	return events
}

// reportOf runs an agent over events and returns what arrived.
func reportOf(t *testing.T, events [][]byte) []receiver.Report {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	world, err := receiver.Start(receiver.Options{})
	must(err)
	defer world.Close()
	dir := t.TempDir()
	store, err := aggregator.Open(filepath.Join(dir, "tlsrpt.db"), aggregator.Options{})
	must(err)
	defer store.Close()
	path := filepath.Join(dir, "s")
	source, err := libtlsrpt.Listen(libtlsrpt.Options{Path: path})
	must(err)
	key, err := submitter.GenerateKey(submitter.RSA, "example.com", "tlsrpt")
	must(err)
	world.Zone.SetTXT(key.Name(), key.TXT())
	relay, err := submitter.ParseRelay("smtp://"+world.SMTP.Addr(), "", submitter.RelayOptions{HELO: "out.example.com"})
	must(err)
	a, err := agent.New(agent.Options{
		Store: store, Sources: []collector.Source{yesterday{source}}, Contact: "tls-reports@example.com", Grace: -1,
		Submitter: &submitter.Submitter{
			Resolver: &resolve.Resolver{Servers: []string{world.Zone.Addr()}}, Mail: relay, Keys: []*submitter.Key{key},
		},
	})
	must(err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for _, e := range events {
		var d datagram
		must(json.Unmarshal(e, &d))
		world.Publish(d.Domain, "v=TLSRPTv1; rua=mailto:tls@"+d.Domain)
		must(sendDatagram(path, e))
	}
	for deadline := time.Now().Add(20 * time.Second); source.Stats().Received < int64(len(events)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("received %d of %d", source.Stats().Received, len(events))
		}
	}
	stop()
	must(<-done)
	must(a.Submit(t.Context(), agent.Submission{}, nil))
	return world.Reports()
}

// datagram is an event as encoding/json reads it.
type datagram struct {
	Domain   string `json:"d"`
	Policies []struct {
		Type    int      `json:"policy-type"`
		Domain  string   `json:"policy-domain"`
		Strings []string `json:"policy-string"`
		MXHosts []string `json:"mx-host"`
		Failed  int      `json:"f"`
		Details []struct {
			Code    int    `json:"c"`
			Sender  string `json:"s"`
			MX      string `json:"n"`
			EHLO    string `json:"h"`
			Address string `json:"r"`
			Reason  string `json:"f"`
		} `json:"failure-details"`
	} `json:"policies"`
}

var policyTypes = map[int]string{1: "tlsa", 2: "sts", 9: "no-policy-found"}

var resultTypes = map[int]string{
	201: "starttls-not-supported", 202: "certificate-host-mismatch", 203: "certificate-not-trusted",
	204: "certificate-expired", 205: "validation-failure", 301: "sts-policy-fetch-error",
	302: "sts-policy-invalid", 303: "sts-webpki-invalid", 304: "tlsa-invalid",
}

// wanted is the facts that the reports about events must hold, by domain: per
// policy one line with its sessions, per kind of failure one.
func wanted(t *testing.T, events [][]byte) map[string][]string {
	t.Helper()
	type sessions struct{ success, failure int64 }
	policies, details := map[string]map[string]sessions{}, map[string]map[string]int64{}
	for _, e := range events {
		var d datagram
		if err := json.Unmarshal(e, &d); err != nil {
			t.Fatal(err)
		}
		if policies[d.Domain] == nil {
			policies[d.Domain], details[d.Domain] = map[string]sessions{}, map[string]int64{}
		}
		for _, p := range d.Policies {
			if p.Type == 1 {
				slices.Sort(p.Strings)
			}
			hosts := p.MXHosts[:min(len(p.MXHosts), 100)] // a bound of ours
			key := fmt.Sprintf("%s %s %q %q", policyTypes[p.Type], cmp.Or(p.Domain, d.Domain), p.Strings, hosts)
			n := policies[d.Domain][key]
			n.success += int64(1 - p.Failed)
			n.failure += int64(p.Failed)
			policies[d.Domain][key] = n
			for _, f := range p.Details {
				ehlo, _, _ := strings.Cut(f.EHLO, "\r\n")
				name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(ehlo, "250-"), "250 "), " ")
				details[d.Domain][fmt.Sprintf("%s: %s from %s to %s (%s, %s) %q", key, resultTypes[f.Code], f.Sender, f.MX, name, f.Address, f.Reason)]++
			}
		}
	}
	facts := map[string][]string{}
	for domain := range policies {
		for key, n := range policies[domain] {
			facts[domain] = append(facts[domain], fmt.Sprintf("%s: %d/%d", key, n.success, n.failure))
		}
		for key, n := range details[domain] {
			facts[domain] = append(facts[domain], fmt.Sprintf("%s: %d", key, n))
		}
		slices.Sort(facts[domain])
	}
	return facts
}

// facts is what a report holds, in the form of wanted.
func facts(r *schema.Report) (facts []string) {
	for _, p := range r.Policies {
		key := fmt.Sprintf("%s %s %q %q", p.Policy.Type, p.Policy.Domain, p.Policy.Strings, p.Policy.MXHosts)
		facts = append(facts, fmt.Sprintf("%s: %d/%d", key, p.Summary.Success, p.Summary.Failure))
		for _, f := range p.FailureDetails {
			facts = append(facts, fmt.Sprintf("%s: %s from %s to %s (%s, %s) %q: %d", key, f.ResultType, f.SendingMTAIP,
				f.ReceivingMXHostname, f.ReceivingMXHelo, f.ReceivingIP, f.FailureReasonCode, f.FailedSessionCount))
		}
	}
	slices.Sort(facts)
	return facts
}

// checkSchema holds a report against a JSON schema written from RFC 8460.
func checkSchema(t *testing.T, report []byte) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	s, err := compiler.Compile("../../schema/testdata/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(report))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(value); err != nil {
		t.Errorf("%v\n%s", err, report)
	}
}
