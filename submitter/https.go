package submitter

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// mediaType is that of a compressed report (RFC 8460, section 6.5), in mail and
// in HTTP. There the compression is the type's, so there is no Content-Encoding.
const mediaType = "application/tlsrpt+gzip"

const (
	httpsTimeout    = 2 * time.Minute // for an upload as a whole
	connectTimeout  = 30 * time.Second
	replyTimeout    = 10 * time.Second // for the body of a reply
	maxReplyBody    = 64 << 10
	maxReplyHeader  = 64 << 10
	maxRetryAfter   = 24 * time.Hour
	idleConnTimeout = 90 * time.Second
)

func (s *Submitter) newClients() {
	s.verified, s.insecure = s.newClient(false), s.newClient(true)
}

// newClient is an HTTP client that dials by way of the guard, uses no proxy and
// follows no redirect: a stranger would choose where it leads.
func (s *Submitter) newClient(insecure bool) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            s.dialer().DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: s.RootCAs, InsecureSkipVerify: insecure},
			TLSHandshakeTimeout:    connectTimeout,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // a small reply is not worth a bomb
			MaxResponseHeaderBytes: maxReplyHeader,
			IdleConnTimeout:        idleConnTimeout,
			MaxIdleConns:           100,
			MaxIdleConnsPerHost:    2,
		},
	}
}

func (s *Submitter) dialer() Dialer {
	if s.Dialer != nil {
		return s.Dialer
	}
	return &guard.Dialer{Resolver: s.Addresses, AllowPrivate: s.AllowPrivate, Timeout: connectTimeout}
}

// post uploads a report (RFC 8460, section 5.4).
func (s *Submitter) post(ctx context.Context, p *Parcel, rua schema.RUA) error {
	if err := s.checkPort(rua); err != nil {
		return &Error{RUA: rua, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, httpsTimeout)
	defer cancel()
	s.once.Do(s.newClients)
	resp, err := s.upload(ctx, s.verified, p, rua)
	if s.RetryInsecure && isCertificateError(err) {
		// RFC 8460, section 3: "Submitters MAY ignore certificate validation
		// errors". Where mail has trouble with TLS, the web server may, too.
		resp, err = s.upload(ctx, s.insecure, p, rua)
	}
	if err != nil {
		// A private address is no accident: its owner put it there.
		return &Error{RUA: rua, Temporary: !errors.Is(err, guard.ErrPrivate), Err: err}
	}
	defer resp.Body.Close()
	return classify(rua, resp, readReply(resp.Body, cancel))
}

// checkPort refuses a destination at a port that is not in s.Ports.
func (s *Submitter) checkPort(rua schema.RUA) error {
	u, err := url.Parse(string(rua))
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16)
	if err != nil {
		return err
	}
	allowed := s.Ports
	if allowed == nil {
		allowed = []uint16{443}
	}
	if !slices.Contains(allowed, uint16(port)) {
		return fmt.Errorf("port %d is not allowed, only %s", port, strings.Trim(fmt.Sprint(allowed), "[]"))
	}
	return nil
}

func (s *Submitter) upload(ctx context.Context, client *http.Client, p *Parcel, rua schema.RUA) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, string(rua), bytes.NewReader(p.Gzip))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("User-Agent", s.userAgent())
	if err := signRequest(req, p.Gzip, s.httpsKey(), time.Now()); err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the URI, which Error has already
	}
	return resp, err
}

func (s *Submitter) userAgent() string {
	const name = "tlsrpt-agent"
	if v := s.Version; isToken(v, "!#$%&'*+-.^_`|~") {
		return name + "/" + v
	}
	return name
}

// httpsKey is the Ed25519 key if there is one: nobody relies on RSA here, and
// it costs a tenth.
func (s *Submitter) httpsKey() *Key {
	for _, k := range s.Keys {
		if k.Algorithm() == Ed25519 {
			return k
		}
	}
	if len(s.Keys) > 0 {
		return s.Keys[0]
	}
	return nil
}

// isCertificateError reports whether err is about the certificate, and not about
// the connection.
func isCertificateError(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// readReply is the beginning of a reply's body for the operator. It stops the
// request if the body does not end soon, so that a connection can be used again
// or is closed.
func readReply(body io.Reader, cancel context.CancelFunc) string {
	defer time.AfterFunc(replyTimeout, cancel).Stop()
	text, _ := io.ReadAll(io.LimitReader(body, maxReplyBody)) // what there is will do
	return printable(string(text[:min(len(text), 4*maxReply)]), maxReply)
}

// classify says what a reply means. RFC 8460, section 5.4, leaves all but
// success to the sender.
func classify(rua schema.RUA, resp *http.Response, text string) error {
	code := resp.StatusCode
	if code >= 200 && code <= 299 {
		return nil
	}
	e := &Error{RUA: rua, Reply: printable(strings.TrimSpace(resp.Status+" "+text), maxReply)}
	switch {
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly,
		code == http.StatusTooManyRequests, code >= 500 && code <= 599:
		e.Temporary = true
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	case code >= 300 && code <= 399:
		e.Err = errors.New("a redirect, which is not followed")
	}
	return e
}

// retryAfter reads RFC 9110, section 10.2.3: seconds or a date. What cannot be
// read is 0.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return maxRetryAfter
	}
	t, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
}
