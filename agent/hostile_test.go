package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// hostileWorld is a network in which each domain is of a kind, the first label of
// its name, and does what the kind does. Everything arrives over the hooks: TXT
// look-ups, mail handed to a relay, and TLS on net.Pipe to a real HTTP server.
type hostileWorld struct {
	mu       sync.Mutex
	first    map[string]time.Time // of the first attempt or look-up
	tries    map[string]int
	attempts map[string][]sentOnce // by domain
	conns    *pipeListener
}

// sentOnce is what one attempt sent, without signatures, and whether it arrived.
type sentOnce struct {
	same    string
	arrived bool
}

func newHostileWorld() *hostileWorld {
	return &hostileWorld{first: map[string]time.Time{}, tries: map[string]int{}, attempts: map[string][]sentOnce{},
		conns: &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}}
}

// kindOf is the kind of a domain, such as "greylists" of "greylists.7.example".
func kindOf(domain string) string {
	kind, _, _ := strings.Cut(domain, ".")
	return kind
}

// begin counts an attempt, and says how long ago the first one was.
func (w *hostileWorld) begin(key string) (try int, age time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tries[key]++; w.tries[key] == 1 {
		w.first[key] = time.Now()
	}
	return w.tries[key], time.Since(w.first[key])
}

// sent notes what an attempt sent.
func (w *hostileWorld) sent(domain, same string, arrived bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts[domain] = append(w.attempts[domain], sentOnce{same, arrived})
}

func (w *hostileWorld) LookupTXT(ctx context.Context, name string) ([]string, error) {
	domain := strings.TrimPrefix(name, "_smtp._tls.")
	_, age := w.begin(name)
	switch kindOf(domain) {
	case "dnsfails":
		return nil, errors.New("SERVFAIL")
	case "dnshangs":
		<-ctx.Done()
		return nil, ctx.Err()
	case "dnsrecovers":
		if age < 5*time.Hour {
			return nil, errors.New("SERVFAIL")
		}
	case "dnspanics":
		panic("a hostile record")
	}
	if strings.HasPrefix(domain, "http") {
		return []string{"v=TLSRPTv1; rua=https://" + domain + "/v1"}, nil
	}
	return []string{"v=TLSRPTv1; rua=mailto:tls@" + domain}, nil
}

// withoutSignatures is a message without its DKIM-Signature fields.
func withoutSignatures(message []byte) string {
	head, body, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	var kept []string
	skip := false
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if folded := line[0] == ' ' || line[0] == '\t'; !folded {
			skip = strings.HasPrefix(strings.ToLower(line), "dkim-signature:")
		}
		if !skip {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\r\n") + "\r\n\r\n" + string(body)
}

const outage = 23 * time.Hour

func (w *hostileWorld) Mail(ctx context.Context, e submitter.Envelope, message []byte) (err error) {
	domain := e.To[strings.LastIndexByte(e.To, '@')+1:]
	try, age := w.begin(e.To)
	arrived := false
	defer func() { w.sent(domain, withoutSignatures(message), arrived) }()
	later := func(reply string) error { return &submitterError{Temporary: true, Reply: reply} }
	switch kind := kindOf(domain); {
	case kind == "stalls" && try <= 2:
		<-ctx.Done()
		return &submitterError{Temporary: true, Err: ctx.Err()}
	case kind == "resets" && try <= 3:
		return io.ErrUnexpectedEOF
	case kind == "greylists" && try <= 2:
		return later("450 4.2.0 greylisted")
	case kind == "busy" && age < outage:
		return later("421 4.3.2 too many connections")
	case kind == "defers" && age < outage:
		return later("452 4.3.1 try later")
	case kind == "never":
		return later("451 4.3.0 never")
	case kind == "unknown":
		return &submitterError{Reply: "550 5.1.1 no such user"}
	case kind == "relay" && try == 1:
		return denied
	case kind == "slow":
		time.Sleep(9 * time.Minute)
	case kind == "lost" && try == 1:
		arrived = true // and the reply is lost
		return later("")
	}
	arrived = true
	return nil
}

// ServeHTTP is the upload server of all https kinds.
func (w *hostileWorld) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	domain := r.Host
	try, age := w.begin("https://" + domain)
	body, _ := io.ReadAll(r.Body)
	r.Header.Del("Signature")
	r.Header.Del("Signature-Input")
	var head strings.Builder
	r.Header.Write(&head)
	arrived, status := false, http.StatusOK
	switch kind := kindOf(domain); {
	case kind == "httpbusy" && age < outage:
		status = http.StatusServiceUnavailable
	case kind == "httplater" && try == 1:
		rw.Header().Set("Retry-After", "7200")
		status = http.StatusTooManyRequests
	case kind == "httpredirects":
		rw.Header().Set("Location", "https://http.1.example/v1")
		status = http.StatusFound
	case kind == "httpgone":
		status = http.StatusGone
	case kind == "httpstalls" && try <= 2:
		w.sent(domain, head.String()+string(body), false)
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // or 200 were sent, which a client that is hanging up may still read
	case kind == "httpslow":
		time.Sleep(90 * time.Second)
		arrived = true
	case kind == "httplost" && try == 1:
		w.sent(domain, head.String()+string(body), true)
		panic(http.ErrAbortHandler)
	default:
		arrived = true
	}
	w.sent(domain, head.String()+string(body), arrived)
	rw.WriteHeader(status)
}

// DialContext leads to the upload server, but for kinds that do not get there.
func (w *hostileWorld) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	if kindOf(host) == "httprefuses" {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	if kindOf(host) == "httpresets" {
		if try, _ := w.begin("dial " + host); try <= 3 {
			server.Close()
			return client, nil
		}
	}
	select {
	case w.conns.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipeListener accepts what DialContext makes.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// certificateFor is a certificate for names, and who trusts it.
func certificateFor(t *testing.T, names []string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	leaf, err := x509.ParseCertificate(der)
	check(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// ends of a kind: the state of its delivery, or of its domain-day where there is
// none; how often its report arrives; and what the reason says.
type kindEnds struct {
	state   string
	arrives int
	reason  string
}

var kinds = map[string]kindEnds{
	"fine": {"sent", 1, ""}, "stalls": {"sent", 1, ""}, "resets": {"sent", 1, ""}, "greylists": {"sent", 1, ""},
	"busy": {"sent", 1, ""}, "defers": {"sent", 1, ""}, "slow": {"sent", 1, ""}, "relay": {"sent", 1, ""},
	"lost":    {"sent", 2, ""}, // the second time with the same report-id
	"never":   {"expired", 0, "451 4.3.0 never"},
	"unknown": {"gave-up", 0, "550 5.1.1"},

	"http": {"sent", 1, ""}, "httpbusy": {"sent", 1, ""}, "httplater": {"sent", 1, ""}, "httpstalls": {"sent", 1, ""},
	"httpslow": {"sent", 1, ""}, "httpresets": {"sent", 1, ""}, "httplost": {"sent", 2, ""},
	"httpredirects": {"gave-up", 0, "302"},
	"httpgone":      {"gave-up", 0, "410"},
	"httprefuses":   {"expired", 0, "connection refused"},
	"httpuntrusted": {"expired", 0, "certificate"},
	"dnsrecovers":   {"sent", 1, ""},
	"dnsfails":      {"day expired", 0, ""},
	"dnshangs":      {"day expired", 0, ""},
	"dnspanics":     {"day expired", 0, ""},
}

// TestHostileWorld: at the end every report has arrived once, twice where an
// acknowledgement was lost, or was given up for a stated reason. Between two
// attempts of a delivery nothing differs but signatures. A goroutine that is left
// fails the bubble.
func TestHostileWorld(t *testing.T) {
	const each = 12
	path := filepath.Join(t.TempDir(), "tlsrpt.db")
	synctest.Test(t, func(t *testing.T) {
		w := newHostileWorld()
		var domains, hosts []string
		for kind := range kinds {
			for i := range each {
				d := fmt.Sprintf("%s.%d.example", kind, i)
				if domains = append(domains, d); kind != "httpuntrusted" {
					hosts = append(hosts, d)
				}
			}
		}
		certificate, pool := certificateFor(t, hosts)
		server := &http.Server{Handler: w, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
			TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
		server.ErrorLog = discardLog()
		served := make(chan error, 1)
		go func() { served <- server.ServeTLS(w.conns, "", "") }()
		key, err := submitter.GenerateKey(submitter.Ed25519, "example.com", "tlsrpt")
		check(t, err)
		s := &submitter.Submitter{Resolver: w, Mail: w, Dialer: w, RootCAs: pool, Keys: []*submitter.Key{key}}

		store, err := aggregator.Open(path, aggregator.Options{Spread: 4 * time.Hour})
		check(t, err)
		a, err := New(Options{Store: store, Contact: "tls-reports@example.com", Submitter: s})
		check(t, err)
		a.pause = 20 * time.Minute
		b := &bench{T: t, Agent: a, store: store}
		stop := b.run()
		for _, d := range domains {
			b.session(d, true)
		}
		b.until(day0+3, "00:00")
		stop()
		s.Close()
		server.Close()
		<-served
		w.check(b, domains)
		check(t, store.Close())
	})
}

// check compares what became of domains with what ought to have.
func (w *hostileWorld) check(b *bench, domains []string) {
	b.Helper()
	ended := map[string]aggregator.Delivery{}
	for _, d := range b.deliveries() {
		if _, twice := ended[d.Domain]; twice {
			b.Errorf("%s has two deliveries", d.Domain)
		}
		ended[d.Domain] = d
	}
	for _, domain := range domains {
		want := kinds[kindOf(domain)]
		got := kindEnds{state: "day " + string(b.state(domain, day0))}
		if d, ok := ended[domain]; ok {
			got.state, got.reason = string(d.State), d.LastError
		}
		attempts := w.attempts[domain]
		for _, a := range attempts {
			if a.arrived {
				got.arrives++
			}
			if a.same != attempts[0].same {
				b.Errorf("%s: two attempts differ:\n%s\n%s", domain, attempts[0].same, a.same)
			}
		}
		if got.state != want.state || got.arrives != want.arrives || !strings.Contains(got.reason, want.reason) {
			b.Errorf("%s: %+v, want %+v", domain, got, want)
		}
	}
}
