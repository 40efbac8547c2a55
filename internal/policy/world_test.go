package policy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nameServer answers from a zone on loopback, over UDP and TCP.
type nameServer struct {
	addr string

	mu      sync.Mutex
	records map[string][]dns.RR // by name
	signed  []string            // names that end so get the AD bit, but for "!name"
	broken  map[string]bool     // names that get SERVFAIL
	bogus   map[string]bool     // names that get it unless the query has the CD bit
	queries map[string]int      // by "name TYPE"
}

// serveDNS starts a name server. Names under "example.net." are signed.
func serveDNS(t *testing.T, records ...string) *nameServer {
	t.Helper()
	z := &nameServer{records: map[string][]dns.RR{}, signed: []string{"example.net."}, broken: map[string]bool{}, bogus: map[string]bool{}, queries: map[string]int{}}
	z.set(t, records...)
	pc, l := listenBoth(t)
	z.addr = pc.LocalAddr().String()
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: z}, {Listener: l, Handler: z}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		var wg sync.WaitGroup
		wg.Go(func() { s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { s.Shutdown(); wg.Wait() })
	}
	return z
}

func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var err error
	for range 16 {
		var pc net.PacketConn
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			break
		}
		var l net.Listener
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal(err)
	return nil, nil
}

// set replaces all records of the names of these.
func (z *nameServer) set(t *testing.T, records ...string) {
	t.Helper()
	fresh := map[string][]dns.RR{}
	for _, s := range records {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		name := rr.Header().Name
		fresh[name] = append(fresh[name], rr)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for name, rrs := range fresh {
		z.records[name] = rrs
	}
}

// sign sets which names get the AD bit.
func (z *nameServer) sign(names ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.signed = names
}

// fail has a name get SERVFAIL, or no longer.
func (z *nameServer) fail(name string, broken bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.broken[name] = broken
}

// forge has a name fail validation.
func (z *nameServer) forge(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.bogus[name] = true
}

func (z *nameServer) asked(question string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.queries[question]
}

func (z *nameServer) resolver() *resolve.Resolver {
	return &resolve.Resolver{Servers: []string{z.addr}, Timeout: 5 * time.Second}
}

// ServeDNS answers with what there is at the name, an alias whatever is asked.
// A chain of aliases is for the client to follow.
func (z *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := q.Question[0].Name
	z.queries[name+" "+dns.TypeToString[q.Question[0].Qtype]]++
	m := new(dns.Msg).SetReply(q)
	for _, s := range z.signed {
		if strings.HasSuffix(name, s) {
			m.AuthenticatedData = !slices.Contains(z.signed, "!"+name)
		}
	}
	rrs := z.records[name]
	for _, rr := range rrs {
		if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	if len(rrs) == 0 {
		m.Rcode = dns.RcodeNameError
	}
	if z.broken[name] || z.bogus[name] && !q.CheckingDisabled {
		m = new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	w.WriteMsg(m)
}

// authority is a certificate authority of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = issue(t, nil, time.Now().Add(time.Hour))
	return a
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// certificate is a certificate for names that ends at a time.
func (a *authority) certificate(t testing.TB, end time.Time, names ...string) tls.Certificate {
	t.Helper()
	cert, key := issue(t, a, end, names...)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// issue makes a certificate by a, or an authority if a is nil.
func issue(t testing.TB, a *authority, end time.Time, names ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "a certificate of the tests"},
		NotBefore:    end.Add(-48 * time.Hour),
		NotAfter:     end,
		DNSNames:     names,
	}
	parent, signer := template, key
	if a == nil {
		template.IsCA, template.BasicConstraintsValid = true, true
	} else {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// policyHost is an HTTPS server on loopback.
type policyHost struct {
	port    int
	fetched atomic.Int64
	handler atomic.Pointer[http.HandlerFunc]
}

// serveHTTPS starts a server that shows a certificate.
func serveHTTPS(t *testing.T, cert tls.Certificate, handler http.HandlerFunc) *policyHost {
	t.Helper()
	h := &policyHost{}
	h.handler.Store(&handler)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.fetched.Add(1)
		(*h.handler.Load())(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	h.port = s.Listener.Addr().(*net.TCPAddr).Port
	return h
}

// says answers with text as a policy.
func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, text)
	}
}

// stsWorld is a domain, example.com, whose policy host is on loopback.
type stsWorld struct {
	dns  *nameServer
	ca   *authority
	host *policyHost
}

func newSTSWorld(t *testing.T, handler http.HandlerFunc) *stsWorld {
	t.Helper()
	ca := newAuthority(t)
	return &stsWorld{
		dns: serveDNS(t,
			`_smtp._tls.example.com. TXT "v=TLSRPTv1; rua=mailto:tls@example.com"`,
			`_mta-sts.example.com. TXT "v=STSv1; id=1"`,
			`mta-sts.example.com. A 127.0.0.1`,
			`example.com. MX 10 mail.example.com.`),
		ca:   ca,
		host: serveHTTPS(t, ca.certificate(t, time.Now().Add(time.Hour), "mta-sts.example.com"), handler),
	}
}

func (w *stsWorld) options() Options {
	return Options{Resolver: w.dns.resolver(), MTASTS: true, AllowPrivate: true, RootCAs: w.ca.pool(), Port: w.host.port}
}

// start is a Finder that ends with the test.
func start(t *testing.T, o Options) *Finder {
	t.Helper()
	f := New(o)
	t.Cleanup(f.Close)
	return f
}

// find is the answer of f once it has one.
func find(t *testing.T, f *Finder, domain, mx string) (Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := f.Find(domain, mx); err != ErrPending {
		t.Fatalf("%v at first, want ErrPending", err)
	}
	if err := f.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	a, err := f.Find(domain, mx)
	if err == ErrPending {
		t.Fatal("still pending")
	}
	return a, err
}
