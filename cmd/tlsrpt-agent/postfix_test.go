//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

const (
	securePolicy = "secure match={mx} servername=hostname"
	stsPolicy    = securePolicy + " policy_type=sts policy_domain={domain} { policy_string = version: STSv1 }" +
		" { policy_string = mode: enforce } { policy_string = mx: {mx} } mx_host_pattern={mx}"
)

// deliveredTo is one recipient domain and what its report has to say.
var deliveredTo = []struct {
	domain lab.Domain
	mails  int
	want   string // "policy-type success/failure result"
}{
	{lab.Domain{Name: "good.example.org"}, 3, "no-policy-found 3/0 "},
	{lab.Domain{Name: "selfsigned.example.org", Receiver: lab.SelfSigned, Policy: securePolicy}, 1, "no-policy-found 0/1 validation-failure"},
	{lab.Domain{Name: "expired.example.org", Receiver: lab.Expired, Policy: stsPolicy}, 2, "sts 0/2 certificate-expired"},
	{lab.Domain{Name: "sts.example.org", Policy: stsPolicy}, 1, "sts 1/0 "},
	{lab.Domain{Name: "nostarttls.example.org", Receiver: lab.NoSTARTTLS, Policy: "encrypt"}, 1, "no-policy-found 0/1 starttls-not-supported"},
	{lab.Domain{Name: "dane.example.org", Receiver: lab.SelfSigned, Policy: "dane", TLSA: []string{"3 1 1 {spki}"}}, 1, "tlsa 1/0 "},
	{lab.Domain{Name: "baddane.example.org", Policy: "dane", TLSA: []string{"3 1 1 " + strings.Repeat("00", 32)}}, 1, "tlsa 0/1 certificate-not-trusted"},
}

// TestPostfix is the main job: a real Postfix 3.10 delivers mail, its events
// reach the socket of "run", and the next day "submit" delivers what they add up
// to, by HTTPS and, through the same Postfix, by mail. The report mail goes to a
// domain whose own TLS is broken, and must arrive there, uncounted.
func TestPostfix(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	world := lab.New(t, root)
	https := startHTTPS(t, world)
	broken := world.AddDomain(lab.Domain{Name: "broken.example.net", Receiver: lab.Expired, Policy: securePolicy,
		TLSRPT: lab.Asks("mailto:tls@broken.example.net")})
	for _, d := range deliveredTo {
		d.domain.TLSRPT = lab.Asks(https.URL("reports.example.net", "/"+d.domain.Name) + ",mailto:tls@broken.example.net")
		world.AddDomain(d.domain)
	}
	postfix := world.StartPostfix(exampleMainCF(t)...)
	dir := t.TempDir()
	config := writePostfixConfig(t, dir, world, https, postfix.SocketPath())

	stop := startDaemon(t, config)
	mails := 0
	for _, d := range deliveredTo {
		for range d.mails {
			postfix.Inject("alice@example.com", []string{"bob@" + d.domain.Name})
			mails++
			postfix.Wait(1) // one after the other: one connection each
		}
	}
	stop()
	checkPending(t, config, mails)

	if err := ageStore(filepath.Join(dir, "tlsrpt.db"), 1); err != nil {
		t.Fatal(err)
	}
	stop = startDaemon(t, config) // takes the events of report mail, if there are any
	if code, _, stderr := runCommand(t, "submit", "-c", config); code != exitOK {
		t.Errorf("submit: exit %d: %s", code, stderr)
	}
	messages := broken.WaitMessages(len(deliveredTo))
	stop()

	for _, p := range https.Received() {
		r := receiver.CheckPost(p, lookupTXT)
		if len(r.Problems) > 0 || len(r.Signatures) != 1 {
			t.Errorf("POST to %s: %d signatures, %q", p.URL, len(r.Signatures), r.Problems)
		}
		checkReport(t, p.URL[strings.LastIndexByte(p.URL, '/')+1:], r)
	}
	if n := len(https.Received()); n != len(deliveredTo) {
		t.Errorf("%d reports by HTTPS, want %d", n, len(deliveredTo))
	}
	for _, m := range messages {
		r := receiver.CheckMail(receiver.Mail{Data: m.Data, Sender: m.From, To: m.To}, lookupTXT)
		if len(r.Problems) > 0 || len(r.Signatures) != 1 {
			t.Errorf("mail about %s: %d signatures, %q", r.Domain, len(r.Signatures), r.Problems)
		}
		checkReport(t, r.Domain, r)
		verifyIndependently(t, m.Data)
	}
	if _, out, _ := runCommand(t, "pending", "-c", config, "--json"); out != "" {
		t.Errorf("the report mail was counted:\n%s", out)
	}
}

// fromLog is what the log of a Postfix that enforces DANE, and MTA-STS without
// telling how, says about the same deliveries. Which STS policy there was it does
// not say, and a self-signed certificate is what RFC 8460 calls it.
var fromLog = map[string]string{
	"good.example.org":       "no-policy-found 3/0 map[]",
	"selfsigned.example.org": "no-policy-found 0/1 map[certificate-not-trusted:1]",
	"expired.example.org":    "no-policy-found 0/2 map[certificate-expired:2]",
	"sts.example.org":        "no-policy-found 1/0 map[]",
	"nostarttls.example.org": "no-policy-found 0/1 map[starttls-not-supported:1]",
	"dane.example.org":       "tlsa 1/0 map[]",
	"baddane.example.org":    "tlsa 0/1 map[certificate-not-trusted:1]",
}

// TestPostfixLog reads the log of a real Postfix that does not speak libtlsrpt.
func TestPostfixLog(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	world := lab.New(t, root)
	for _, d := range deliveredTo {
		d.domain.TLSRPT = lab.Asks("mailto:tls@" + d.domain.Name)
		world.AddDomain(d.domain)
	}
	postfix := world.StartPostfix("smtp_tlsrpt_enable = no")
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	text := fmt.Appendf(nil, "[store]\npath = %q\n[[source.postfix_log]]\npath = %q\ndane = true\n",
		filepath.Join(dir, "tlsrpt.db"), postfix.LogPath())
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	stop := startDaemon(t, config)
	for _, d := range deliveredTo {
		for range d.mails {
			postfix.Inject("alice@example.com", []string{"bob@" + d.domain.Name})
			postfix.Wait(1)
		}
	}
	got := map[string]string{}
	for deadline := time.Now().Add(20 * time.Second); len(got) < len(fromLog) && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got = countedPolicies(t, config)
	}
	stop()
	if got = countedPolicies(t, config); !maps.Equal(got, fromLog) {
		t.Errorf("counted\n%v\nwant\n%v\n%s", got, fromLog, postfix.Log())
	}
}

// countedPolicies is what is pending, by domain, "policy-type success/failure results".
func countedPolicies(t *testing.T, config string) map[string]string {
	t.Helper()
	got := map[string]string{}
	_, out, _ := runCommand(t, "pending", "-c", config, "--json")
	for line := range strings.Lines(out) {
		var p pendingLine
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		got[p.Domain] += fmt.Sprintf("%s %d/%d %v", p.PolicyType, p.Success, p.Failure, p.Results)
	}
	return got
}

// checkReport compares what a report says about a domain.
func checkReport(t *testing.T, domain string, r receiver.Report) {
	t.Helper()
	for _, d := range deliveredTo {
		if d.domain.Name != domain {
			continue
		}
		if r.Content == nil || len(r.Content.Policies) != 1 {
			t.Errorf("%s: %s", domain, r.JSON)
			return
		}
		checkSchema(t, r.JSON)
		p := r.Content.Policies[0]
		got := fmt.Sprintf("%s %d/%d ", p.Policy.Type, p.Summary.Success, p.Summary.Failure)
		for _, f := range p.FailureDetails {
			got += string(f.ResultType)
			if f.FailedSessionCount != p.Summary.Failure || f.ReceivingMXHostname != "mx."+domain || f.SendingMTAIP != lab.SenderIP {
				t.Errorf("%s: details %+v", domain, f)
			}
		}
		if got != d.want {
			t.Errorf("%s: %q, want %q", domain, got, d.want)
		}
		return
	}
	t.Errorf("a report about %q", domain)
}

// checkPending: what is pending adds up to the mails that were sent.
func checkPending(t *testing.T, config string, mails int) {
	t.Helper()
	_, out, _ := runCommand(t, "pending", "-c", config, "--json")
	sum := int64(0)
	for line := range strings.Lines(out) {
		var p pendingLine
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		sum += p.Success + p.Failure
	}
	if sum != int64(mails) {
		t.Errorf("%d sessions counted of %d:\n%s", sum, mails, out)
	}
}

func startHTTPS(t *testing.T, world *lab.World) *receiver.HTTPS {
	t.Helper()
	ca, err := receiver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	https, err := receiver.StartHTTPS(ca, "reports.example.net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { https.Close() })
	world.DNS.Add("reports.example.net A 127.0.0.1")
	return https
}

// writePostfixConfig writes the configuration of an operator whose relay is the
// Postfix that is watched, and publishes his key.
func writePostfixConfig(t *testing.T, dir string, world *lab.World, https *receiver.HTTPS, socket string) (config string) {
	t.Helper()
	key, err := submitter.GenerateKey(submitter.RSA, "example.com", "tlsrpt")
	if err != nil {
		t.Fatal(err)
	}
	world.DNS.SetTXT(key.Name(), lab.TXT{key.TXT()[:200], key.TXT()[200:]})
	text, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("config.toml", fmt.Appendf(nil, `
[organization]
name = "Example Inc."
contact = "tls-reports@example.com"
[store]
path = %q
[[source.libtlsrpt]]
socket = %q
mode = "0666"
[submit]
allow_private = true
[mail]
via = "smtp://%s"
[dkim]
key = %q
[https]
ca_file = %q
ports = [%d]
`, filepath.Join(dir, "tlsrpt.db"), socket, lab.SubmitAddr, write("dkim.pem", text), write("ca.pem", https.CAPEM()), https.Port()))
}

// startDaemon starts "run" and returns when it listens. The function that it
// returns ends it, as SIGTERM does.
func startDaemon(t *testing.T, config string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var errs syncBuffer
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"run", "-c", config}, strings.NewReader(""), &errs, &errs) }()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(errs.String(), "msg=collecting"); {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not listen: %s", errs.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() {
		t.Helper()
		cancel()
		if code := <-done; code != exitOK {
			t.Errorf("run: exit %d: %s", code, errs.String())
		}
	}
}

// lookupTXT asks the lab's DNS.
func lookupTXT(name string) ([]string, error) {
	return (&resolve.Resolver{Servers: []string{"127.0.0.53"}}).LookupTXT(context.Background(), name)
}

// verifyIndependently has Mail::DKIM, which shares no code with what signed it,
// look at the DKIM signature of a message.
func verifyIndependently(t *testing.T, msg []byte) {
	t.Helper()
	if err := exec.Command("perl", "-MMail::DKIM::Verifier", "-e", "1").Run(); err != nil {
		t.Log("no second opinion on DKIM: the Debian package libmail-dkim-perl is not installed")
		return
	}
	cmd := exec.Command("perl", "-MMail::DKIM::Verifier", "-MNet::DNS::Resolver", "-e", `
		Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ["127.0.0.53"]));
		my $v = Mail::DKIM::Verifier->new();
		$v->load(*STDIN);
		print $v->result_detail();`)
	cmd.Stdin = bytes.NewReader(msg)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "pass" {
		t.Errorf("Mail::DKIM: %q %v\n%s", out, err, msg)
	}
}
