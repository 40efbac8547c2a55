package conformance_test

import (
	"bytes"
	"io"
	"net/mail"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keys are made once: RSA takes its time.
var keys = sync.OnceValues(func() ([]*submitter.Key, error) {
	rsa, err := submitter.GenerateKey(submitter.RSA, "example.com", "tlsrpt")
	if err != nil {
		return nil, err
	}
	ed, err := submitter.GenerateKey(submitter.Ed25519, "example.com", "tlsrpt2")
	return []*submitter.Key{rsa, ed}, err
})

// bench is an agent on a real store, and a receiver on loopback.
type bench struct {
	*testing.T
	*receiver.World
	store *aggregator.Store
	agent *agent.Agent
	day   schema.Day // of all sessions
}

func newBench(t *testing.T) *bench {
	t.Helper()
	w, err := receiver.Start(receiver.Options{})
	check(t, err)
	t.Cleanup(func() { w.Close() })
	signers, err := keys()
	check(t, err)
	for _, k := range signers {
		w.Zone.SetTXT(k.Name(), k.TXT())
	}
	relay, err := submitter.ParseRelay("smtp://"+w.SMTP.Addr(), "", submitter.RelayOptions{HELO: "out.example.com"})
	check(t, err)
	resolver := &resolve.Resolver{Servers: []string{w.Zone.Addr()}}
	s := &submitter.Submitter{
		Resolver: resolver, Addresses: resolver, Keys: signers, Mail: relay,
		AllowPrivate: true, RootCAs: w.HTTPS.CAPool(),
		Ports: []uint16{netip.MustParseAddrPort(w.HTTPS.Addr()).Port()},
	}
	t.Cleanup(s.Close)
	store, err := aggregator.Open(filepath.Join(t.TempDir(), "tlsrpt.db"), aggregator.Options{})
	check(t, err)
	t.Cleanup(func() { store.Close() })
	_, err = store.SubmissionSince(t.Context(), time.Now())
	check(t, err)
	a, err := agent.New(agent.Options{Store: store, Submitter: s, Organization: "Example \u00dcnic\u00f6de Inc.", Contact: "tls-reports@example.com"})
	check(t, err)
	return &bench{T: t, World: w, store: store, agent: a, day: schema.DayOf(time.Now()) - 2}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// submit counts sessions and submits what is due.
func (b *bench) submit(sessions ...schema.Session) {
	b.Helper()
	check(b.T, b.store.Record(b.Context(), "test", nil, counts(b.T, b.day, sessions)))
	check(b.T, b.agent.Submit(b.Context(), agent.Submission{}, nil))
}

// to is where reports arrived.
func (b *bench) to() string {
	var to []string
	for _, r := range b.Reports() {
		to = append(to, r.To...)
	}
	return strings.Join(to, " ")
}

// message is the one mail that arrived, and body its body.
func (b *bench) message() (m *mail.Message, body string) {
	b.Helper()
	if n := len(b.SMTP.Received()); n != 1 {
		b.Fatalf("%d messages, want 1", n)
	}
	m, err := mail.ReadMessage(bytes.NewReader(b.SMTP.Received()[0].Data))
	check(b.T, err)
	text, err := io.ReadAll(m.Body)
	check(b.T, err)
	return m, string(text)
}

// report is the first report that arrived. What a receiver would reject fails.
func (b *bench) report() receiver.Report {
	b.Helper()
	if len(b.Reports()) == 0 {
		b.Fatal("no report arrived")
	}
	r := b.Reports()[0]
	if len(r.Problems) > 0 {
		b.Errorf("%q", r.Problems)
	}
	return r
}

// mailed is the bench after one report about example.org was mailed.
func mailed(t *testing.T, sessions ...schema.Session) *bench {
	t.Helper()
	b := newBench(t)
	b.Publish("example.org", "v=TLSRPTv1; rua=mailto:tlsrpt@example.org")
	if len(sessions) == 0 {
		sessions = []schema.Session{failed("example.org", policies[schema.STS], details(schema.CertificateExpired, 1))}
	}
	b.submit(sessions...)
	return b
}
