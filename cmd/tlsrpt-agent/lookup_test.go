package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// lookupWorld is a domain with DANE and MTA-STS, and where its policy is fetched.
func lookupWorld(t *testing.T, policyText string) (*receiver.World, policy.Options) {
	t.Helper()
	w, err := receiver.Start(receiver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	w.Publish("example.org", "v=TLSRPTv1; rua=mailto:a@example.org")
	w.Zone.SetMX("example.org", "mx1.example.org", "mx2.example.org", "mx3.example.net")
	for _, host := range []string{"mx1.example.org", "mx2.example.org", "mx3.example.net"} {
		w.Zone.SetAddr(host, netip.MustParseAddr("192.0.2.25"))
	}
	w.Zone.SetAddr("mta-sts.example.org", netip.MustParseAddr("127.0.0.1"))
	w.Zone.SetTXT("_mta-sts.example.org", "v=STSv1; id=1;")
	ca, err := receiver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("mta-sts.example.org")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, policyText)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	port := netip.MustParseAddrPort(s.Listener.Addr().String()).Port()
	return w, policy.Options{
		Resolver: &resolve.Resolver{Servers: []string{w.Zone.Addr()}}, DANE: true, MTASTS: true,
		AllowPrivate: true, RootCAs: ca.Pool(), Port: int(port),
	}
}

func TestLookupPolicies(t *testing.T) {
	w, o := lookupWorld(t, "version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 86400\n")
	w.Zone.SetSecure(true)
	w.Zone.SetTLSA("mx1.example.org", "3 1 1 "+strings.Repeat("AB", 32))
	w.Zone.SetTLSA("mx2.example.org", "0 1 1 "+strings.Repeat("AB", 32))
	line := lookupLine{Domain: "example.org"}
	line.addPolicies(t.Context(), o)
	want := []lookupMX{{"mx1.example.org", "secure"}, {"mx2.example.org", "no usable record: TLS, unauthenticated"}, {"mx3.example.net", "none, or not secured by DNSSEC"}}
	if !slices.Equal(line.MX, want) {
		t.Errorf("%+v", line.MX)
	}
	if len(line.Policies) != 3 || line.Policies[0].Type != schema.STS || line.Policies[1].Type != schema.TLSA || line.Policies[1].Domain != "mx1.example.org" {
		t.Errorf("%+v", line.Policies)
	}
	if !slices.Equal(line.Faults, []string{"its MX host mx3.example.net matches no mx of its MTA-STS policy"}) {
		t.Errorf("%q", line.Faults)
	}
}

func TestLookupPolicyFaults(t *testing.T) {
	w, o := lookupWorld(t, "version: STSv1\nmode: maybe\n")
	w.Zone.SetMX("example.org", ".")
	line := lookupLine{Domain: "example.org"}
	line.addPolicies(t.Context(), o)
	if len(line.MX) != 0 || len(line.Policies) != 0 || len(line.Faults) < 2 ||
		line.Faults[0] != "it takes no mail: it has a null MX record (RFC 7505)" || !strings.Contains(line.Faults[len(line.Faults)-1], "sts-policy-invalid") {
		t.Errorf("%+v", line)
	}
}

// A server that does not answer leaves open what is true.
func TestDestinationUnknown(t *testing.T) {
	w, err := receiver.Start(receiver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := prober{resolver: &resolve.Resolver{Servers: []string{w.Zone.Addr()}}, ports: []uint16{443, 8443}}
	for _, name := range []string{"example.org", "mx1.example.org"} {
		w.Zone.Fault(name, receiver.DNSFault{Rcode: dns.RcodeServerFailure})
	}
	w.Zone.SetMX("example.net", "mx1.example.org")
	w.Zone.SetMX("example.com", "mx1.example.org", "mx2.example.org")
	w.Zone.SetAddr("mx2.example.org", netip.MustParseAddr("10.1.2.3"))
	w.Zone.SetAddr("both.example.org", netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1"))
	for rua, want := range map[schema.RUA]string{
		"https://example.org/":       "unknown: asking for the addresses of example.org",
		"mailto:a@example.org":       "unknown: asking for the MX records of example.org",
		"mailto:a@example.net":       "unknown: asking for the addresses of mx1.example.org",
		"mailto:a@example.com":       "ok: its MX host mx2.example.org has the address 10.1.2.3", // a relay decides
		"mailto:a@both.example.org":  "ok: both.example.org has the address 10.1.2.3",
		"https://both.example.org/":  "ok: both.example.org has the address 2001:db8::1",
		"https://[::1]/":             "problem: ::1 has the address ::1, and none that is public",
		"https://192.0.2.1/":         "ok: 192.0.2.1 has the address 192.0.2.1",
		"mailto:a@none.example.org":  "problem: none.example.org has no address",
		"https://127.0.0.1:8443/":    "problem: 127.0.0.1 has the address 127.0.0.1, and none that is public",
		"https://192.0.2.1:25/":      "problem: its port is not among https.ports",
		"https://192.0.2.1:8443/":    "ok: 192.0.2.1 has the address 192.0.2.1",
		"https://none.example.org/x": "problem: none.example.org has no address",
	} {
		d := p.destination(t.Context(), rua)
		if got := d.Status + ": " + d.Message; !strings.HasPrefix(got, want) || d.RUA != rua {
			t.Errorf("%s: %s, want %s", rua, got, want)
		}
	}
}
