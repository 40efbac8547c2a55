package submitter

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// loopback is the address of every host.
type loopback struct{}

func (loopback) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func portOf(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

// sink starts an HTTPS server for tls.example.com and a Submitter that knows it.
func sink(t *testing.T, handler http.HandlerFunc) (*Submitter, schema.RUA) {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail on purpose
	srv.StartTLS()
	t.Cleanup(srv.Close)
	port := portOf(srv.Listener)
	s := &Submitter{
		Addresses:    loopback{},
		AllowPrivate: true,
		Ports:        []uint16{port},
		RootCAs:      srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		Version:      "1.2.3",
		Timeout:      10 * time.Second,
	}
	t.Cleanup(s.Close)
	rua, err := schema.ParseRUA(fmt.Sprintf("https://tls.example.com:%d/v1/tls%%2Frpt?key=a%%20b", port))
	if err != nil {
		t.Fatal(err)
	}
	return s, rua
}

// answer is a handler that says one thing.
func answer(code int, header, value string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set(header, value)
		}
		w.WriteHeader(code)
	}
}

// received is a request as the server saw it.
type received struct {
	*http.Request
	body []byte
}

// record is a handler that keeps requests and takes them.
func record(got *[]received) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		*got = append(*got, received{r, body})
		w.WriteHeader(http.StatusCreated)
	}
}

// seedKey is a key that is the same in every run.
func seedKey(t *testing.T) *Key {
	t.Helper()
	k, err := newKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)), "example.net", "tlsrpt")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestUpload(t *testing.T) {
	var got []received
	s, rua := sink(t, record(&got))
	s.Keys = []*Key{seedKey(t)}
	p := parcel(t)
	p.Gzip = []byte("the same in every run")
	if err := s.Submit(t.Context(), p, rua, ""); err != nil {
		t.Fatal(err)
	}
	r := got[0]
	if !bytes.Equal(r.body, p.Gzip) {
		t.Errorf("body %q, want %q", r.body, p.Gzip)
	}
	if r.ProtoMajor != 2 {
		t.Errorf("%s, want HTTP/2", r.Proto)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", r.Method, r.RequestURI)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range r.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	text := regexp.MustCompile(`created=\d+`).ReplaceAllString(b.String(), "created=NOW")
	text = regexp.MustCompile(`(Signature: tlsrpt=):.*:`).ReplaceAllString(text, "$1:SIGNATURE:")
	golden(t, "request.txt", []byte(text))
}

func TestConnectionsAreReused(t *testing.T) {
	remotes := make(map[string]bool)
	var mu sync.Mutex
	s, rua := sink(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		remotes[r.RemoteAddr] = true
		io.WriteString(w, "thanks")
	})
	for range 5 {
		if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
			t.Fatal(err)
		}
	}
	if len(remotes) != 1 {
		t.Errorf("%d connections, want 1", len(remotes))
	}
}

func TestReplies(t *testing.T) {
	try := func(code int, header, value string) (*Error, error) {
		s, rua := sink(t, answer(code, header, value))
		err := s.Submit(t.Context(), parcel(t), rua, "")
		e, _ := errors.AsType[*Error](err)
		return e, err
	}
	for _, code := range []int{200, 201, 202, 204, 299} {
		if _, err := try(code, "", ""); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
	for _, code := range []int{408, 425, 429, 500, 501, 502, 503, 504, 599} {
		if e, err := try(code, "Retry-After", "120"); e == nil || !e.Temporary || e.RetryAfter != 2*time.Minute || e.Ours {
			t.Errorf("%d: %#v, want to retry in 2 min", code, err)
		}
	}
	for _, code := range []int{300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 410, 413, 415, 422, 600} {
		e, err := try(code, "Location", "/elsewhere")
		if e == nil || e.Temporary || !strings.Contains(e.Reply, fmt.Sprint(code)) {
			t.Errorf("%d: %#v, want to give up", code, err)
		}
	}
	when := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	if e, err := try(429, "Retry-After", when); e == nil || e.RetryAfter < 50*time.Minute || e.RetryAfter > time.Hour {
		t.Errorf("429: %#v, want to retry in an hour", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"90":                            90 * time.Second,
		"-5":                            0,
		"1e9":                           0,
		"86401":                         24 * time.Hour,
		"18446744073709551615":          24 * time.Hour, // 2^64-1 seconds
		"99999999999999999999999999999": 24 * time.Hour,
		"Mon, 23 Nov 2026 12:30:00 GMT": 30 * time.Minute,
		"Mon, 23 Nov 2026 11:30:00 GMT": 0,
		"Wed, 23 Nov 2050 12:30:00 GMT": 24 * time.Hour,
		"tomorrow":                      0,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestRedirectToLoopback(t *testing.T) {
	var hits atomic.Int64
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer inner.Close()
	for _, code := range []int{301, 302, 303, 307, 308} {
		s, rua := sink(t, answer(code, "Location", inner.URL))
		if err := s.Submit(t.Context(), parcel(t), rua, ""); err == nil || IsTemporary(err) {
			t.Errorf("%d: %v, want to give up", code, err)
		}
	}
	if hits.Load() != 0 {
		t.Errorf("%d redirects were followed", hits.Load())
	}
}

func TestPrivateDestination(t *testing.T) {
	var hits atomic.Int64
	s, rua := sink(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	s.AllowPrivate = false
	port := string(rua[strings.LastIndexByte(string(rua), ':')+1:])
	port, _, _ = strings.Cut(port, "/")
	for _, host := range []string{"tls.example.com", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"} {
		rua, err := schema.ParseRUA("https://" + host + ":" + port + "/")
		if err != nil {
			t.Fatal(err)
		}
		err = s.Submit(t.Context(), parcel(t), rua, "")
		if !errors.Is(err, guard.ErrPrivate) || IsTemporary(err) {
			t.Errorf("%s: %v, want ErrPrivate for good", host, err)
		}
	}
	if hits.Load() != 0 {
		t.Errorf("%d private destinations were contacted", hits.Load())
	}
}

// The environment must not send reports around the guard.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	s, rua := sink(t, answer(200, "", ""))
	if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
		t.Error(err)
	}
	if tr := s.verified.Transport.(*http.Transport); tr.Proxy != nil {
		t.Error("the client may use a proxy")
	}
}

func TestEndlessReply(t *testing.T) {
	for _, code := range []int{200, 503} {
		wrote := make(chan int64, 1)
		s, rua := sink(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(code)
			n := int64(0)
			for piece := bytes.Repeat([]byte("<p>\x1b]0;x\a "), 4096); n < 10<<30; {
				m, err := w.Write(piece)
				n += int64(m)
				if err != nil {
					break
				}
			}
			wrote <- n
		})
		err := s.Submit(t.Context(), parcel(t), rua, "")
		if (err == nil) != (code == 200) || err != nil && !IsTemporary(err) {
			t.Errorf("%d: %v", code, err)
		}
		if err != nil && (len(err.Error()) > 2*maxReply+len(rua) || strings.ContainsAny(err.Error(), "\x1b\a\n")) {
			t.Errorf("%d: the operator gets %q", code, err)
		}
		if n := <-wrote; n > 64<<20 {
			t.Errorf("%d: took %d bytes of the reply", code, n)
		}
	}
}

func TestHugeReplyHeader(t *testing.T) {
	s, rua := sink(t, answer(200, "X-Huge", strings.Repeat("x", 1<<20)))
	if err := s.Submit(t.Context(), parcel(t), rua, ""); !IsTemporary(err) {
		t.Errorf("%v, want a temporary error", err)
	}
}

// A server that accepts and then says nothing, and one that never ends.
func TestSlowReply(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	s, rua := sink(t, func(_ http.ResponseWriter, r *http.Request) { <-release })
	defer free()
	s.Timeout = 100 * time.Millisecond
	err := s.Submit(t.Context(), parcel(t), rua, "")
	if !IsTemporary(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Submit(ctx, parcel(t), rua, ""); !IsTemporary(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the end of the context", err)
	}
	free()
}

func TestConnectionReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	s := &Submitter{AllowPrivate: true, Ports: []uint16{portOf(l)}}
	defer s.Close()
	rua := schema.RUA("https://" + l.Addr().String() + "/")
	if err := s.Submit(t.Context(), parcel(t), rua, ""); !IsTemporary(err) {
		t.Errorf("%v, want a temporary error", err)
	}
}

func TestBadCertificate(t *testing.T) {
	var got []received
	s, rua := sink(t, record(&got))
	s.RootCAs = nil // those of the system, which did not sign it
	if err := s.Submit(t.Context(), parcel(t), rua, ""); !IsTemporary(err) || !isCertificateError(err) {
		t.Errorf("%v, want a certificate error", err)
	}
	if len(got) != 0 {
		t.Fatal("a report went to a server that nobody vouches for")
	}
	s.RetryInsecure = true
	if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil || len(got) != 1 {
		t.Errorf("retry-insecure: %v, %d requests", err, len(got))
	}
}

// Insecure means the certificate, not the address.
func TestRetryInsecureKeepsTheGuard(t *testing.T) {
	var hits atomic.Int64
	s, rua := sink(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	s.AllowPrivate, s.RetryInsecure = false, true
	if err := s.Submit(t.Context(), parcel(t), rua, ""); !errors.Is(err, guard.ErrPrivate) || hits.Load() != 0 {
		t.Errorf("%v, %d requests", err, hits.Load())
	}
}

func TestUserAgent(t *testing.T) {
	for in, want := range map[string]string{
		"":               "tlsrpt-agent",
		"1.2.3-rc.1+x":   "tlsrpt-agent/1.2.3-rc.1+x",
		"1\r\nX-Evil: 1": "tlsrpt-agent",
	} {
		if got := (&Submitter{Version: in}).userAgent(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func BenchmarkUpload(b *testing.B) {
	for _, algorithm := range []Algorithm{RSA, Ed25519} {
		b.Run(string(algorithm), func(b *testing.B) {
			srv := httptest.NewTLSServer(answer(200, "", ""))
			defer srv.Close()
			s := &Submitter{AllowPrivate: true, RetryInsecure: true, Ports: []uint16{portOf(srv.Listener)}, Keys: []*Key{newTestKey(b, algorithm)}}
			s.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			defer s.Close()
			p, rua := parcel(b), schema.RUA(srv.URL+"/")
			for b.Loop() {
				if err := s.Submit(b.Context(), p, rua, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
