package policy

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// wantFailure fetches the policy of w, and wants a failure.
func (w *stsWorld) wantFailure(t *testing.T, result schema.ResultType, reason string) {
	t.Helper()
	_, err := start(t, w.options()).fetch(t.Context(), "example.com")
	wantFetchError(t, err, result, reason)
}

func wantFetchError(t *testing.T, err error, result schema.ResultType, reason string) {
	t.Helper()
	f, ok := errors.AsType[*FetchError](err)
	if !ok || f.Result != result || f.Reason != reason {
		t.Errorf("%v; want %s, %q", err, result, reason)
	}
}

func TestFetch(t *testing.T) {
	type request struct{ method, host, uri, agent string }
	got := make(chan request, 1)
	w := newSTSWorld(t, func(w http.ResponseWriter, r *http.Request) {
		got <- request{r.Method, r.Host, r.RequestURI, r.UserAgent()}
		w.Header().Set("Content-Type", "Text/Plain; charset=utf-8")
		io.WriteString(w, policyText)
	})
	p, err := start(t, w.options()).fetch(t.Context(), "example.com")
	if err != nil || p.Mode != Enforce || len(p.MX) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	want := request{"GET", "mta-sts.example.com:" + strconv.Itoa(w.host.port), "/.well-known/mta-sts.txt", "tlsrpt-agent"}
	if r := <-got; r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
}

func TestFetchURL(t *testing.T) {
	const want = "https://mta-sts.example.com/.well-known/mta-sts.txt"
	if got := newFetcher(&guard.Dialer{}, nil, 0).url("example.com"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestFetchResponses(t *testing.T) {
	reply := func(code int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	w := newSTSWorld(t, nil)
	bad := func(handler http.HandlerFunc, result schema.ResultType, reason string) {
		t.Helper()
		w.host.handler.Store(&handler)
		w.wantFailure(t, result, reason)
	}
	bad(reply(404, "text/plain", policyText), schema.STSPolicyFetchError, "http-404")
	bad(reply(201, "text/plain", policyText), schema.STSPolicyFetchError, "http-201")
	bad(reply(503, "text/plain", policyText), schema.STSPolicyFetchError, "http-503")
	bad(reply(200, "text/html", policyText), schema.STSPolicyFetchError, "content-type")
	bad(reply(200, "text/plain2", policyText), schema.STSPolicyFetchError, "content-type")
	bad(reply(200, "", policyText), schema.STSPolicyFetchError, "content-type")
	bad(reply(200, "text/plain", ""), schema.STSPolicyInvalid, "policy-version-missing")
	bad(reply(200, "text/plain", "version: STSv1\n"), schema.STSPolicyInvalid, "policy-mode-missing")
	bad(reply(200, "text/plain", "<html>"), schema.STSPolicyInvalid, "policy-syntax")
	bad(reply(200, "text/plain", strings.Repeat("x: y\n", 20000)), schema.STSPolicyFetchError, "too-large")

	// As much as fits is read: not one byte less.
	fits := policyText
	fits += "x:" + strings.Repeat("y", maxPolicyText-len(fits)-2)
	handler := reply(200, "text/plain", fits)
	w.host.handler.Store(&handler)
	if p, err := start(t, w.options()).fetch(t.Context(), "example.com"); err != nil || p.Mode != Enforce {
		t.Errorf("%d bytes: %v", len(fits), err)
	}
	bad(reply(200, "text/plain", fits+"y"), schema.STSPolicyFetchError, "too-large")
}

// RFC 8461, section 3.3: redirects must not be followed.
func TestFetchRedirect(t *testing.T) {
	for _, code := range []int{301, 302, 303, 307, 308} {
		w := newSTSWorld(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				says(policyText)(w, r)
				return
			}
			http.Redirect(w, r, "/elsewhere", code)
		})
		w.wantFailure(t, schema.STSPolicyFetchError, fmt.Sprintf("http-%d", code))
		if n := w.host.fetched.Load(); n != 1 {
			t.Errorf("%d: %d requests, want 1", code, n)
		}
	}
}

func TestFetchCertificates(t *testing.T) {
	bad := func(ca *authority, end time.Time, name, reason string) {
		t.Helper()
		w := newSTSWorld(t, says(policyText))
		if ca == nil {
			ca = w.ca
		}
		w.host = serveHTTPS(t, ca.certificate(t, end, name), says(policyText))
		w.wantFailure(t, schema.STSWebPKIInvalid, reason)
		if w.host.fetched.Load() > 0 {
			t.Errorf("%s: a request was made all the same", reason)
		}
	}
	valid := time.Now().Add(time.Hour)
	bad(nil, time.Now().Add(-time.Hour), "mta-sts.example.com", "certificate-expired")
	bad(nil, valid, "www.example.com", "certificate-host-mismatch")
	bad(nil, valid, "example.com", "certificate-host-mismatch")
	bad(nil, valid, "*.com", "certificate-host-mismatch")
	bad(newAuthority(t), valid, "mta-sts.example.com", "certificate-not-trusted")

	w := newSTSWorld(t, says(policyText))
	w.host = serveHTTPS(t, w.ca.certificate(t, valid, "*.example.com"), says(policyText))
	if _, err := start(t, w.options()).fetch(t.Context(), "example.com"); err != nil {
		t.Errorf("a wildcard: %v", err)
	}
}

// Each of these hosts would go on for ever, or for longer than memory lasts.
func TestFetchHostile(t *testing.T) {
	hang := func(r *http.Request) { <-r.Context().Done() }
	endless := func(header bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			if header {
				for i := range 1000 {
					w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("y", 100))
				}
			}
			line := []byte(strings.Repeat("x: yyyyyyyyyyyyy\n", 64))
			for range 10 << 30 / len(line) {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
			t.Error("a host got rid of 10 GB")
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		within  time.Duration
		reason  string
	}{
		{"10 GB", endless(false), 0, "too-large"},
		{"large header", endless(true), 0, "http-error"},
		{"no reply", func(_ http.ResponseWriter, r *http.Request) { hang(r) }, 300 * time.Millisecond, "timeout"},
		{"no end", func(w http.ResponseWriter, r *http.Request) {
			says(policyText)(w, r)
			http.NewResponseController(w).Flush()
			hang(r)
		}, 300 * time.Millisecond, "timeout"},
		{"cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			says(policyText)(w, r)
		}, 0, "connection-lost"},
		{"gone", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, "connection-lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newSTSWorld(t, c.handler)
			err := fetchWithin(t, w.options(), c.within)
			wantFetchError(t, err, schema.STSPolicyFetchError, c.reason)
		})
	}
}

// fetchWithin fetches with another bound on time, 0 means the usual one.
func fetchWithin(t *testing.T, o Options, d time.Duration) error {
	t.Helper()
	f := newFetcher(&guard.Dialer{Resolver: addresses{o.Resolver}, AllowPrivate: true}, o.RootCAs, o.Port)
	f.timeout = cmp.Or(d, f.timeout)
	_, err := f.fetch(t.Context(), "example.com")
	return err
}

// serveTCP gives each connection to serve, and closes it.
func serveTCP(t *testing.T, serve func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestFetchBrokenTLS(t *testing.T) {
	w := newSTSWorld(t, says(policyText))
	cert := w.ca.certificate(t, time.Now().Add(time.Hour), "mta-sts.example.com")
	for name, serve := range map[string]func(net.Conn){
		"closed":    func(c net.Conn) { c.Read(make([]byte, 1)) },
		"plaintext": func(c net.Conn) { c.Read(make([]byte, 1)); io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") },
		"truncated": func(c net.Conn) {
			c.Read(make([]byte, 4096))
			c.Write([]byte{22, 3, 3, 0, 122, 2, 0}) // the beginning of a ServerHello
		},
		"alert": func(c net.Conn) {
			c.Read(make([]byte, 4096))
			c.Write([]byte{21, 3, 3, 0, 2, 2, 40}) // handshake_failure
		},
		"TLS 1.1": func(c net.Conn) {
			tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake()
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := w.options()
			o.Port = serveTCP(t, serve)
			_, err := start(t, o).fetch(t.Context(), "example.com")
			wantFetchError(t, err, schema.STSPolicyFetchError, "tls-handshake")
		})
	}
}

// A fetch that is over leaves nothing behind, not even a handshake.
func TestFetchStalledHandshake(t *testing.T) {
	w := newSTSWorld(t, says(policyText))
	hungUp := make(chan struct{})
	o := w.options()
	o.Port = serveTCP(t, func(c net.Conn) {
		io.Copy(io.Discard, c)
		close(hungUp)
	})
	err := fetchWithin(t, o, 200*time.Millisecond)
	wantFetchError(t, err, schema.STSPolicyFetchError, "timeout")
	select {
	case <-hungUp:
	case <-time.After(connectTimeout / 2):
		t.Error("the connection is still there")
	}
}

func TestClassify(t *testing.T) {
	check := func(err error, result schema.ResultType, reason string) {
		t.Helper()
		wantFetchError(t, classify(&url.Error{Op: "Get", URL: "https://mta-sts.example.com", Err: err}), result, reason)
	}
	verification := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	check(verification(x509.CertificateInvalidError{Reason: x509.Expired}), schema.STSWebPKIInvalid, "certificate-expired")
	check(verification(x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}), schema.STSWebPKIInvalid, "certificate-invalid")
	check(verification(x509.UnhandledCriticalExtension{}), schema.STSWebPKIInvalid, "certificate-invalid")
	check(verification(x509.UnknownAuthorityError{}), schema.STSWebPKIInvalid, "certificate-not-trusted")
	check(errors.New("malformed HTTP response"), schema.STSPolicyFetchError, "http-error")
	check(&net.OpError{Op: "read", Err: errors.New("reset")}, schema.STSPolicyFetchError, "connection-lost")
	check(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, schema.STSPolicyFetchError, "timeout")
}

// A host without certificates to trust accuses nobody.
func TestOwnRootsAreNobodysFault(t *testing.T) {
	inBubble(t, func(b *stsBubble) {
		b.Finder.fetch = func(context.Context, string) (STSPolicy, error) {
			return STSPolicy{}, classify(&tls.CertificateVerificationError{Err: x509.SystemRootsError{}})
		}
		if a, err := b.find("example.com"); !errors.Is(err, ErrUnknown) || len(b.reports) != 0 || b.Stats().Suppressed != 1 {
			b.Errorf("%+v, %v, %d reports", a, err, len(b.reports))
		}
	}, "example.com")
}

func TestFetchNobodyThere(t *testing.T) {
	w := newSTSWorld(t, says(policyText))
	o := w.options()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	_, err = start(t, o).fetch(t.Context(), "example.com")
	wantFetchError(t, err, schema.STSPolicyFetchError, "connect-failed")

	_, err = start(t, o).fetch(t.Context(), "other.example.com")
	wantFetchError(t, err, schema.STSPolicyFetchError, "dns-not-found")

	w.dns.fail("mta-sts.example.com.", true)
	_, err = start(t, o).fetch(t.Context(), "example.com")
	wantFetchError(t, err, schema.STSPolicyFetchError, "dns-error")
}

// A stranger's name may lead into our network: nothing is dialled there.
func TestFetchPrivateAddress(t *testing.T) {
	w := newSTSWorld(t, says(policyText))
	o := w.options()
	o.AllowPrivate = false
	_, err := start(t, o).fetch(t.Context(), "example.com")
	wantFetchError(t, err, schema.STSPolicyFetchError, "private-address")
	if w.host.fetched.Load() > 0 {
		t.Error("it was asked")
	}
}

func TestFetchUsesNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	w := newSTSWorld(t, says(policyText))
	if _, err := start(t, w.options()).fetch(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
}

// The end of the Finder is no failure of the domain.
func TestFetchCancelled(t *testing.T) {
	w := newSTSWorld(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := start(t, w.options()).fetch(ctx, "example.com")
	if _, ok := errors.AsType[*FetchError](err); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}
