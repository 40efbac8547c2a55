//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
)

// stsDomain is a recipient domain with an MTA-STS record, and what its report has
// to say.
type stsDomain struct {
	name     string
	receiver lab.Behaviour
	policy   string // what Postfix was told by who knows the policy, "" is the level may
	mode     string // "" is a policy host that has no policy
	host     string // whom the certificate of the policy host names, "" is the host
	want     string // "policy-type success/failure results", sorted
}

// The good ones come first: what cannot be fetched is reported only if that is
// not what happens to most.
var stsDomains = []stsDomain{
	{name: "enforce.example.org", policy: securePolicy, mode: "enforce", want: "sts 1/0 map[]"},
	{name: "enforce2.example.org", policy: securePolicy, mode: "enforce", want: "sts 1/0 map[]"},
	{name: "expired.example.org", receiver: lab.Expired, policy: securePolicy, mode: "enforce", want: "sts 0/1 map[certificate-expired:1]"},
	{name: "nostarttls.example.org", receiver: lab.NoSTARTTLS, policy: securePolicy, mode: "enforce", want: "sts 0/1 map[starttls-not-supported:1]"},
	// Postfix does not enforce what is being tested, and so has not found out.
	{name: "testing.example.org", receiver: lab.Expired, mode: "testing", want: "no-policy-found 1/0 map[]"},
	{name: "none.example.org", mode: "none", want: "no-policy-found 1/0 map[]"},
	{name: "fetch.example.org", want: "no-policy-found 1/0 map[], sts 0/1 map[sts-policy-fetch-error:1]"},
	{name: "invalid.example.org", mode: "enforced", want: "no-policy-found 1/0 map[], sts 0/1 map[sts-policy-invalid:1]"},
	{name: "webpki.example.org", mode: "enforce", host: "mta-sts.example.com", want: "no-policy-found 1/0 map[], sts 0/1 map[sts-webpki-invalid:1]"},
}

// TestMTASTS reads the log of a real Postfix that enforces MTA-STS. The policies
// are looked up over HTTPS.
func TestMTASTS(t *testing.T) {
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) {
			root := lab.Root(t, suite)
			if !lab.InNamespace(t) {
				return
			}
			world := lab.New(t, root)
			t.Setenv("SSL_CERT_FILE", world.CAFile())
			servePolicies(t, world)
			postfix := world.StartPostfix("smtp_tlsrpt_enable = no")
			config := writeSTSConfig(t, postfix.LogPath(), "mta_sts = true")
			stop := startDaemon(t, config)
			for i, d := range stsDomains {
				postfix.Inject("alice@example.com", []string{"bob@" + d.name})
				postfix.Wait(1)
				awaitTrue(t, func() bool { return len(countedSorted(t, config)) > i })
			}
			checkSTS(t, config, func(d stsDomain) string { return d.want })
			stop()

			// An import finds the same policies, and accuses nobody of what it cannot
			// fetch today.
			other := writeSTSConfig(t, filepath.Join(t.TempDir(), "none"), "")
			if code, _, errs := runCommand(t, "import", "-c", other, "--mta-sts", postfix.LogPath()); code != exitOK {
				t.Fatal(errs)
			}
			checkSTS(t, other, func(d stsDomain) string {
				first, _, _ := strings.Cut(d.want, ", ")
				return first
			})
			if t.Failed() {
				t.Log(postfix.Log())
			}
		})
	}
}

// TestPolicyDaemon reads the log of a real Postfix that asks
// postfix-mta-sts-resolver, which the agent asks too, with and without the
// attributes of a report in its answers.
func TestPolicyDaemon(t *testing.T) {
	for name, tlsrpt := range map[string]bool{"attributes": true, "bare": false} {
		t.Run(name, func(t *testing.T) {
			root := lab.Root(t, "trixie", "postfix-mta-sts-resolver")
			if !lab.InNamespace(t) {
				return
			}
			world := lab.New(t, root)
			t.Setenv("SSL_CERT_FILE", world.CAFile())
			servePolicies(t, world)
			startResolver(t, world, tlsrpt)
			postfix := world.StartPostfix("smtp_tlsrpt_enable = no", "smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix")
			setting := "policy_daemon = \"inet:127.0.0.1:8461:postfix\"\n"
			for _, both := range []bool{true, false} {
				config := writeSTSConfig(t, postfix.LogPath(), setting+fmt.Sprintf("mta_sts = %t", both))
				stop := startDaemon(t, config)
				for i, d := range stsDomains {
					postfix.Inject("alice@example.com", []string{"bob@" + d.name})
					postfix.Wait(1)
					awaitTrue(t, func() bool { return len(countedSorted(t, config)) > i })
				}
				checkSTS(t, config, func(d stsDomain) string {
					want, fetch, _ := strings.Cut(d.want, ", ")
					switch {
					case both && fetch != "":
						return d.want // as if nobody but the agent had asked
					case !both && !tlsrpt && strings.HasPrefix(want, "sts "):
						return "no-policy-found" + strings.TrimPrefix(want, "sts") // nobody knows the policy
					}
					return want
				})
				stop()
			}
			if t.Failed() {
				t.Log(postfix.Log())
			}
		})
	}
}

// startResolver starts the daemon of postfix-mta-sts-resolver.
func startResolver(t *testing.T, world *lab.World, tlsrpt bool) {
	t.Helper()
	config := fmt.Sprintf(`
host: 127.0.0.1
port: 8461
cache:
  type: internal
  options:
    cache_size: 1000
default_zone:
  strict_testing: false
  timeout: 4
  tlsrpt: %t
`, tlsrpt)
	world.StartProgram(map[string]string{"mta-sts.yml": config}, []string{"SSL_CERT_FILE=/lab/ca.pem"},
		"/usr/bin/mta-sts-daemon", "-c", "/lab/mta-sts.yml")
	awaitTrue(t, func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:8461")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// servePolicies adds the domains and their policy hosts to a world.
func servePolicies(t *testing.T, world *lab.World) {
	t.Helper()
	addr := world.NextIP()
	certs := map[string]tls.Certificate{}
	for _, d := range stsDomains {
		world.AddDomain(lab.Domain{Name: d.name, Receiver: d.receiver, Policy: d.policy, TLSRPT: lab.Asks("mailto:tls@" + d.name)})
		world.DNS.SetTXT("_mta-sts."+d.name, lab.TXT{"v=STSv1; id=20261123"})
		host := "mta-sts." + d.name
		world.DNS.Add(fmt.Sprintf("%s A %s", host, addr))
		certs[host] = world.Certificate(host)
		if d.host != "" {
			certs[host] = world.Certificate(d.host)
		}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(addr.String(), "443"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:  http.HandlerFunc(servePolicy),
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert := certs[hello.ServerName]
			return &cert, nil
		}},
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		_ = server.Shutdown(context.Background())
		<-done
	})
}

func servePolicy(w http.ResponseWriter, r *http.Request) {
	for _, d := range stsDomains {
		if r.Host == "mta-sts."+d.name && r.URL.Path == "/.well-known/mta-sts.txt" && d.mode != "" {
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprintf(w, "version: STSv1\nmode: %s\nmx: mx.%s\nmax_age: 86400\n", d.mode, d.name)
			return
		}
	}
	http.NotFound(w, r)
}

// writeSTSConfig is a configuration that follows a log.
func writeSTSConfig(t *testing.T, path, setting string) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	text := fmt.Appendf(nil, "[store]\npath = %q\n[[source.postfix_log]]\npath = %q\n%s\n", filepath.Join(dir, "tlsrpt.db"), path, setting)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// countedSorted is what is pending of each domain, sorted.
func countedSorted(t *testing.T, config string) map[string]string {
	t.Helper()
	all := map[string][]string{}
	_, out, _ := runCommand(t, "pending", "-c", config, "--json")
	for line := range strings.Lines(out) {
		var p pendingLine
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		all[p.Domain] = append(all[p.Domain], fmt.Sprintf("%s %d/%d %v", p.PolicyType, p.Success, p.Failure, p.Results))
	}
	got := map[string]string{}
	for domain, list := range all {
		slices.Sort(list)
		got[domain] = strings.Join(list, ", ")
	}
	return got
}

// checkSTS waits until what is counted is what is wanted.
func checkSTS(t *testing.T, config string, want func(stsDomain) string) {
	t.Helper()
	wanted := map[string]string{}
	for _, d := range stsDomains {
		wanted[d.name] = want(d)
	}
	got := countedSorted(t, config)
	for deadline := time.Now().Add(20 * time.Second); !maps.Equal(got, wanted) && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got = countedSorted(t, config)
	}
	for name, w := range wanted {
		if got[name] != w {
			t.Errorf("%s: %s, want %s", name, got[name], w)
		}
	}
}
