package policy

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Bounds on what a policy host may do to us. RFC 8461, section 3.3, suggests a
// minute and 64 KiB.
const (
	fetchTimeout   = time.Minute
	connectTimeout = 20 * time.Second
	maxPolicyText  = 64 << 10 // bytes
	maxHeader      = 16 << 10 // bytes
)

// FetchError says why there is no MTA-STS policy where a record promises one.
type FetchError struct {
	// Result is sts-policy-fetch-error, sts-policy-invalid or sts-webpki-invalid
	// (RFC 8460, section 4.3.2.2).
	Result schema.ResultType

	// Reason is a short word, "http-404" for instance.
	Reason string

	Err error
}

func (e *FetchError) Error() string {
	return fmt.Sprintf("policy: %s (%s): %v", e.Result, e.Reason, e.Err)
}

func (e *FetchError) Unwrap() error { return e.Err }

// fetcher fetches MTA-STS policies.
type fetcher struct {
	dialer  *guard.Dialer
	roots   *x509.CertPool
	port    int
	timeout time.Duration // of a fetch as a whole
}

func newFetcher(d *guard.Dialer, roots *x509.CertPool, port int) *fetcher {
	return &fetcher{dialer: d, roots: roots, port: cmp.Or(port, 443), timeout: fetchTimeout}
}

// client is a client for one fetch, which ends with ctx. It dials by way of the
// guard, uses no proxy, follows no redirect (RFC 8461, section 3.3) and keeps no
// connection: there is one file on each host.
func (f *fetcher) client(ctx context.Context) *http.Client {
	// A transport dials and shakes hands for longer than the request that it does
	// it for, in case another one comes. None will.
	dial := func(_ context.Context, network, addr string) (net.Conn, error) {
		conn, err := f.dialer.DialContext(ctx, network, addr)
		if err == nil {
			context.AfterFunc(ctx, func() { conn.Close() })
		}
		return conn, err
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dial,
			TLSClientConfig:        &tls.Config{RootCAs: f.roots},
			TLSHandshakeTimeout:    connectTimeout,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 will do
			DisableKeepAlives:      true,
			DisableCompression:     true, // 64 KiB are not worth a bomb
			MaxResponseHeaderBytes: maxHeader,
		},
	}
}

// fetch is the policy of domain as its policy host has it now. The error is a
// [*FetchError], or that of ctx.
func (f *fetcher) fetch(ctx context.Context, domain string) (STSPolicy, error) {
	within, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	text, err := f.get(within, domain)
	if ctx.Err() != nil {
		return STSPolicy{}, fmt.Errorf("policy: fetching the MTA-STS policy of %s: %w", domain, context.Cause(ctx))
	}
	// A connection that is closed for its time does not say so.
	if err = errors.Join(err, within.Err()); err != nil {
		return STSPolicy{}, classify(err)
	}
	p, err := ParsePolicy(text)
	if f, ok := errors.AsType[*policyFault](err); ok {
		return STSPolicy{}, &FetchError{schema.STSPolicyInvalid, f.code, err}
	}
	return p, err
}

// url is where the policy of domain is (RFC 8461, section 3.3).
func (f *fetcher) url(domain string) string {
	host := "mta-sts." + domain
	if f.port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(f.port))
	}
	return "https://" + host + "/.well-known/mta-sts.txt"
}

func (f *fetcher) get(ctx context.Context, domain string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, f.url(domain), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "tlsrpt-agent")
	var shaking atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeStart: func() { shaking.Store(true) },
		GotConn:           func(httptrace.GotConnInfo) { shaking.Store(false) },
	}))
	resp, err := f.client(ctx).Do(req)
	if err != nil && shaking.Load() {
		return "", &handshakeFault{err}
	} else if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return replyText(resp)
}

// replyText is the policy that a reply brings.
func replyText(resp *http.Response) (string, error) {
	if resp.StatusCode != http.StatusOK {
		return "", &responseFault{fmt.Sprintf("http-%d", resp.StatusCode), resp.Status}
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "text/plain" {
		// Elsewhere on a shared host a user may have put a file of another type.
		return "", &responseFault{"content-type", fmt.Sprintf("not text/plain but %.80q", resp.Header.Get("Content-Type"))}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicyText+1))
	if err != nil {
		return "", err
	}
	if len(body) > maxPolicyText {
		return "", &responseFault{"too-large", fmt.Sprintf("more than %d bytes", maxPolicyText)}
	}
	return string(body), nil
}

// responseFault is a reply that is no policy.
type responseFault struct{ code, why string }

func (f *responseFault) Error() string { return f.why }

// classify says what a failed request means for a report. Only a certificate
// that does not hold is sts-webpki-invalid: a handshake that breaks off says
// nothing about one.
func classify(err error) *FetchError {
	if code := certificateCode(err); code != "" {
		return &FetchError{schema.STSWebPKIInvalid, code, err}
	}
	return &FetchError{schema.STSPolicyFetchError, transportCode(err), err}
}

const certificateInvalid = "certificate-invalid"

// certificateCode says what is wrong with a certificate, or "".
func certificateCode(err error) string {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return string(schema.CertificateHostMismatch)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return string(schema.CertificateExpired)
		}
		return certificateInvalid
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return string(schema.CertificateNotTrusted)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return certificateInvalid
	}
	return ""
}

// transportCode says where a request ended that brought no policy.
func transportCode(err error) string {
	_, isHandshake := errors.AsType[*handshakeFault](err)
	late := errors.Is(err, context.DeadlineExceeded)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // it has a Timeout method and does not know
	}
	if f, ok := errors.AsType[*responseFault](err); ok {
		return f.code
	}
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, guard.ErrPrivate):
		return "private-address"
	case errors.Is(err, resolve.ErrNotFound):
		return "dns-not-found"
	case errors.Is(err, errLookup):
		return "dns-error"
	case late || isTimeout(err):
		return "timeout"
	case isHandshake:
		return "tls-handshake"
	case isOp && op.Op == "dial":
		return "connect-failed"
	case isOp, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection-lost"
	}
	return "http-error"
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// handshakeFault is what ended a TLS handshake.
type handshakeFault struct{ error }

func (f *handshakeFault) Unwrap() error { return f.error }

// errLookup marks what a look-up of addresses ended in.
var errLookup = errors.New("policy: looking up a policy host")

// addresses is the resolver of the guard.
type addresses struct{ Resolver }

func (a addresses) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addrs, err := a.Resolver.LookupNetIP(ctx, network, host)
	if err != nil {
		err = fmt.Errorf("%w: %w", errLookup, err)
	}
	return addrs, err
}
