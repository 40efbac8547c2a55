//go:build linux

package lab_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
)

// TestWorld does with a world what end-to-end tests do, and does not look at
// events.
func TestWorld(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	w := lab.New(t, root)
	shared := w.AddDomain(lab.Domain{Name: "example.com"})
	if r := w.AddDomain(lab.Domain{Name: "example.org", MX: shared.Host}); r != shared {
		t.Errorf("%s has a receiver of its own", r.Host)
	}
	checkServer(t, w)

	p := w.StartPostfix("myhostname = out2.example.net")
	w.DNS.Fail("example.com", dns.RcodeServerFailure)
	p.Inject("alice@example.net", []string{"bob@example.com"})
	if d := p.Wait(1)[0]; d.Status != "deferred" || d.Relay != "none" {
		t.Errorf("without DNS: %+v", d)
	}
	w.DNS.Fail("example.com", dns.RcodeSuccess)
	p.Stop()
	p.Start()
	p.Flush()
	if d := p.Wait(1)[0]; d.Status != "sent" || d.To != "bob@example.com" {
		t.Errorf("with DNS: %+v", d)
	}
	const text = "Subject: dots\r\n\r\n.\r\n..\r\n.end\r\n"
	p.InjectMessage("", []string{"carol@example.org", "dave@example.org"}, []byte(text))
	p.Wait(2)
	if log := p.Log(); strings.Contains(log, "overriding earlier entry") {
		t.Errorf("main.cf sets something twice:\n%s", log)
	}
	m := shared.WaitMessages(2)[1]
	if m.From != "" || strings.Join(m.To, " ") != "carol@example.org dave@example.org" {
		t.Errorf("envelope: %+v", m)
	}
	for _, want := range []string{"\tby out2.example.net ", "\r\n\r\n.\r\n..\r\n.end\r\n"} {
		if !strings.Contains(string(m.Data), want) {
			t.Errorf("no %q in\n%s", want, m.Data)
		}
	}
}

// checkServer runs an HTTPS server in w and reaches it by name.
func checkServer(t *testing.T, w *lab.World) {
	t.Helper()
	ip := w.NextIP()
	w.DNS.Add("reports.example.org A " + ip.String())
	l, err := net.Listen("tcp", netip.AddrPortFrom(ip, 443).String())
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{w.Certificate("reports.example.org")}},
	}
	go server.ServeTLS(l, "", "")
	defer server.Close()
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.CAPool()}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://reports.example.org/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "here" {
		t.Errorf("got %q, %v", body, err)
	}
}

// TestIPv6 delivers to a receiver that has no other address.
func TestIPv6(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(lab.ReceiverIP6, 25).String())
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	l.Close()
	w := lab.New(t, root)
	w.AddReceiver("mx.example.com", lab.Good, lab.ReceiverIP6)
	r := w.AddDomain(lab.Domain{Name: "example.com", MX: "mx.example.com"})
	p := w.StartPostfix()
	p.Inject("alice@example.net", []string{"bob@example.com"})
	if d := p.Wait(1)[0]; d.Status != "sent" || !strings.Contains(d.Relay, "["+lab.ReceiverIP6.String()+"]") {
		t.Errorf("got %+v", d)
	}
	if s := r.Sessions(); len(s) != 1 || s[0].Remote.Addr() != lab.SenderIP6 || !s[0].TLS {
		t.Errorf("got %+v", s)
	}
}
