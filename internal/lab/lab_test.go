//go:build linux

package lab_test

import (
	"encoding/json"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
)

// event is what libtlsrpt sends, as far as the scenarios look at it.
type event struct {
	Domain   string `json:"d"`
	Record   string `json:"pr"`
	Policies []struct {
		Type    int      `json:"policy-type"`
		Domain  string   `json:"policy-domain"`
		Strings []string `json:"policy-string"`
		MXHosts []string `json:"mx-host"`
		Details []struct {
			Code   int    `json:"c"`
			Reason string `json:"f"`
			Sender string `json:"s"`
			MX     string `json:"n"`
		} `json:"failure-details"`
		Failed int `json:"f"`
	} `json:"policies"`
}

// The numbers of policy types and results in libtlsrpt.
const (
	tlsa          = 1
	sts           = 2
	noPolicyFound = 9

	startTLSNotSupported    = 201
	certificateHostMismatch = 202
	certificateNotTrusted   = 203
	certificateExpired      = 204
	validationFailure       = 205
)

const (
	secure = "secure match={mx} servername=hostname"
	asSTS  = secure + " policy_type=sts policy_domain={domain} { policy_string = version: STSv1 }" +
		" { policy_string = mode: enforce } { policy_string = mx: {mx} } mx_host_pattern={mx}"
)

var wrongKey = "3 1 1 " + strings.Repeat("00", 32)

// scenario is one domain that gets one message. What Postfix makes of it was
// measured with other receivers, DNS and certificates than those of the lab.
type scenario struct {
	domain  lab.Domain // named <name>.example.com and asking for reports, unless it says otherwise
	headers []string
	status  string // of the delivery
	policy  int    // of the one event; 0: there is no event
	code    int    // of its one failure; 0: it is a success
	reason  string
}

var scenarios = map[string]scenario{
	"may-good":       {domain: lab.Domain{}, status: "sent", policy: noPolicyFound},
	"may-selfsigned": {domain: lab.Domain{Receiver: lab.SelfSigned}, status: "sent", policy: noPolicyFound},
	"may-nostarttls": {domain: lab.Domain{Receiver: lab.NoSTARTTLS}, status: "sent"},
	"may-drop":       {domain: lab.Domain{Receiver: lab.Drop}, status: "deferred", policy: noPolicyFound, code: validationFailure, reason: "tls-handshake-failure"},
	"no-record":      {domain: lab.Domain{TLSRPT: []lab.TXT{}}, status: "sent"},
	"two-records":    {domain: lab.Domain{TLSRPT: slices.Concat(lab.Asks("mailto:a@example.org"), lab.Asks("mailto:b@example.org"))}, status: "sent"},
	"split-record":   {domain: lab.Domain{TLSRPT: []lab.TXT{{"v=TLSRPTv1; rua=mailto:", "a@example.org"}, {"v=spf1 -all"}}}, status: "sent", policy: noPolicyFound},

	"encrypt-nostarttls": {domain: lab.Domain{Receiver: lab.NoSTARTTLS, Policy: "encrypt"}, status: "deferred", policy: noPolicyFound, code: startTLSNotSupported},
	"encrypt-refuse":     {domain: lab.Domain{Receiver: lab.Refuse, Policy: "encrypt"}, status: "deferred", policy: noPolicyFound, code: startTLSNotSupported},
	"secure-expired":     {domain: lab.Domain{Receiver: lab.Expired, Policy: secure}, status: "deferred", policy: noPolicyFound, code: certificateExpired},
	"secure-selfsigned":  {domain: lab.Domain{Receiver: lab.SelfSigned, Policy: secure}, status: "deferred", policy: noPolicyFound, code: validationFailure, reason: "self-signed_certificate"},
	"secure-wrongname":   {domain: lab.Domain{Receiver: lab.WrongName, Policy: secure}, status: "deferred", policy: noPolicyFound, code: certificateHostMismatch},

	"sts-good":    {domain: lab.Domain{Policy: asSTS}, status: "sent", policy: sts},
	"sts-expired": {domain: lab.Domain{Receiver: lab.Expired, Policy: asSTS}, status: "deferred", policy: sts, code: certificateExpired},

	"dane-good":     {domain: lab.Domain{Receiver: lab.SelfSigned, Policy: "dane", TLSA: []string{"3 1 1 {spki}"}}, status: "sent", policy: tlsa},
	"dane-mismatch": {domain: lab.Domain{Policy: "dane", TLSA: []string{wrongKey}}, status: "deferred", policy: tlsa, code: certificateNotTrusted},
	"dane-insecure": {domain: lab.Domain{Policy: "dane"}, status: "sent", policy: noPolicyFound},

	"tls-not-required": {domain: lab.Domain{Receiver: lab.Expired, Policy: secure}, headers: []string{"TLS-Required: No"}, status: "sent"},
}

// TestPostfixEvents sends one message to each scenario's domain through a real
// Postfix and compares what arrives at its TLSRPT socket.
func TestPostfixEvents(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	w := lab.New(t, root)
	receivers := map[string]*lab.Receiver{}
	for name, s := range scenarios {
		s.domain.Name = name + ".example.com"
		if s.domain.TLSRPT == nil {
			s.domain.TLSRPT = lab.Asks("mailto:tlsrpt@example.org")
		}
		receivers[name] = w.AddDomain(s.domain)
	}
	p := w.StartPostfix()
	l := listen(t, p.SocketPath())
	for name, s := range scenarios {
		p.Inject("alice@example.net", []string{"bob@" + name + ".example.com"}, s.headers...)
	}
	deliveries := p.Wait(len(scenarios))
	events := l.stop()
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			i := slices.IndexFunc(deliveries, func(d lab.Delivery) bool { return d.To == "bob@"+name+".example.com" })
			if i < 0 {
				t.Fatal("no delivery")
			}
			if got := deliveries[i]; got.Status != s.status {
				t.Errorf("%s (%s), want %s", got.Status, got.Reason, s.status)
			}
			checkEvents(t, s, name, events[name+".example.com"])
			checkTruth(t, s, receivers[name])
		})
	}
}

// checkEvents compares the events about one domain.
func checkEvents(t *testing.T, s scenario, name string, got []event) {
	if s.policy == 0 {
		if len(got) > 0 {
			t.Errorf("got %+v, want no event", got)
		}
		return
	}
	if len(got) != 1 || len(got[0].Policies) != 1 {
		t.Fatalf("got %+v, want one event with one policy", got)
	}
	domain := name + ".example.com"
	p := got[0].Policies[0]
	if p.Type != s.policy || p.Failed != min(s.code, 1) {
		t.Errorf("policy type %d, final %d, want %d, %d", p.Type, p.Failed, s.policy, min(s.code, 1))
	}
	wantDomain, wantStrings, wantHosts := domain, []string(nil), []string(nil)
	switch s.policy {
	case tlsa:
		wantDomain = "mx." + domain
		if len(p.Strings) != 1 || !strings.HasPrefix(p.Strings[0], "3 1 1 ") {
			t.Errorf("policy strings %q, want one TLSA record", p.Strings)
		}
		wantStrings = p.Strings
	case sts:
		wantStrings = []string{"version: STSv1", "mode: enforce", "mx: mx." + domain}
		wantHosts = []string{"mx." + domain}
	}
	if p.Domain != wantDomain || !slices.Equal(p.Strings, wantStrings) || !slices.Equal(p.MXHosts, wantHosts) {
		t.Errorf("policy %q %q %q, want %q %q %q", p.Domain, p.Strings, p.MXHosts, wantDomain, wantStrings, wantHosts)
	}
	if s.code == 0 {
		if len(p.Details) > 0 {
			t.Errorf("details %+v, want none", p.Details)
		}
		return
	}
	if len(p.Details) != 1 {
		t.Fatalf("details %+v, want one", p.Details)
	}
	d := p.Details[0]
	if d.Code != s.code || d.Reason != s.reason || d.MX != "mx."+domain || d.Sender != lab.SenderIP.String() {
		t.Errorf("detail %+v, want code %d reason %q", d, s.code, s.reason)
	}
}

// checkTruth compares what the receiver saw.
func checkTruth(t *testing.T, s scenario, r *lab.Receiver) {
	sessions := r.Sessions()
	if len(sessions) == 0 || sessions[0].Remote.Addr() != lab.SenderIP {
		t.Fatalf("sessions %+v, want some from %s", sessions, lab.SenderIP)
	}
	broken := s.domain.Receiver == lab.NoSTARTTLS || s.domain.Receiver == lab.Refuse || s.domain.Receiver == lab.Drop
	if sessions[0].TLS == broken {
		t.Errorf("TLS is %v: %q", sessions[0].TLS, sessions[0].Events)
	}
	messages := r.Messages()
	if (len(messages) == 1) != (s.status == "sent") {
		t.Fatalf("%d messages, though %s", len(messages), s.status)
	}
	for _, m := range messages {
		if m.From != "alice@example.net" || m.TLS == broken || !strings.HasSuffix(string(m.Data), "\r\n\r\nA message of the lab.\r\n") {
			t.Errorf("message %+v", m)
		}
	}
}

// listener is a datagram socket that keeps what arrives, by domain.
type listener struct {
	t      *testing.T
	conn   *net.UnixConn
	done   sync.WaitGroup
	events map[string][]event
}

func listen(t *testing.T, path string) *listener {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	l := &listener{t: t, conn: c, events: map[string][]event{}}
	l.done.Go(l.receive)
	t.Cleanup(func() { c.Close(); l.done.Wait() })
	return l
}

// receive reads until an empty datagram comes.
func (l *listener) receive() {
	buf := make([]byte, 256<<10)
	for {
		n, err := l.conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		var e event
		if err := json.Unmarshal(buf[:n], &e); err != nil {
			l.t.Errorf("datagram %q: %v", buf[:n], err)
		}
		l.events[e.Domain] = append(l.events[e.Domain], e)
	}
}

// stop is all events that were sent before the call.
func (l *listener) stop() map[string][]event {
	l.t.Helper()
	c, err := net.Dial("unixgram", l.conn.LocalAddr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(nil); err != nil {
		l.t.Fatal(err)
	}
	l.done.Wait()
	return l.events
}
