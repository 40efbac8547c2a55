package receiver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func startHTTPS(t *testing.T) *HTTPS {
	t.Helper()
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	h, err := StartHTTPS(ca, "reports.example.org", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// client finds h at every host name, follows no redirect and trusts its CA.
func client(t *testing.T, h *HTTPS) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, h.Addr())
		},
		TLSClientConfig:   &tls.Config{RootCAs: h.CAPool()},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func send(t *testing.T, c *http.Client, url, body string) *http.Response {
	t.Helper()
	resp, err := c.Post(url, gzipType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestHTTPSKeepsWhatArrives(t *testing.T) {
	h := startHTTPS(t)
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		c := client(t, h)
		if proto == "HTTP/1.1" {
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = false
		}
		url := h.URL("reports.example.org", "/any/path?a=b%20c")
		resp := send(t, c, url, "body of "+proto)
		if resp.StatusCode != http.StatusCreated || resp.Proto != proto {
			t.Errorf("%s: answer %s by %s", proto, resp.Status, resp.Proto)
		}
		all := h.Received()
		p := all[len(all)-1]
		if p.Method != "POST" || p.URL != url || p.Proto != proto || string(p.Body) != "body of "+proto ||
			p.Header.Get("Content-Type") != gzipType || !p.Accepted() || p.Time.IsZero() {
			t.Errorf("%s: received %+v", proto, p)
		}
	}
}

func TestHTTPSCertificate(t *testing.T) {
	h := startHTTPS(t)
	c := client(t, h)
	if resp, err := c.Get(h.URL("other.example.org", "/")); err == nil {
		resp.Body.Close()
		t.Error("the certificate is good for any name")
	}
	resp := send(t, c, h.URL("127.0.0.1", "/"), "")
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("by address: %s", resp.Status)
	}
	plain := client(t, h)
	plain.Transport.(*http.Transport).TLSClientConfig = nil
	if resp, err := plain.Get(h.URL("reports.example.org", "/")); err == nil {
		resp.Body.Close()
		t.Error("the certificate is good without the CA")
	}
	if !strings.HasPrefix(string(h.CAPEM()), "-----BEGIN CERTIFICATE-----\n") {
		t.Errorf("CAPEM is %q", h.CAPEM())
	}
}

func TestHTTPSScript(t *testing.T) {
	h, url := startHTTPS(t), ""
	url = h.URL("reports.example.org", "/v1")
	h.Script("/v1",
		HTTPReply{Status: 503, RetryAfter: "120"},
		HTTPReply{Status: 302, Location: "https://reports.example.org/v2"},
		HTTPReply{Status: 429, Body: "slower"},
		HTTPReply{Delay: 50 * time.Millisecond},
	)
	c := client(t, h)
	if resp := send(t, c, h.URL("reports.example.org", "/v2"), ""); resp.StatusCode != 201 {
		t.Errorf("another path is answered %s", resp.Status)
	}
	if resp := send(t, c, url, ""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "120" {
		t.Errorf("first: %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	if resp := send(t, c, url, ""); resp.StatusCode != 302 || resp.Header.Get("Location") != "https://reports.example.org/v2" {
		t.Errorf("second: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	resp := send(t, c, url, "")
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != 429 || string(body) != "slower" {
		t.Errorf("third: %s, %q, %v", resp.Status, body, err)
	}
	begin := time.Now()
	if resp := send(t, c, url, ""); resp.StatusCode != 201 || time.Since(begin) < 50*time.Millisecond {
		t.Errorf("fourth: %s after %s", resp.Status, time.Since(begin))
	}
	if resp := send(t, c, url, ""); resp.StatusCode != 201 {
		t.Errorf("after the script: %s", resp.Status)
	}
	var accepted int
	for _, p := range h.Received() {
		if p.Accepted() {
			accepted++
		}
	}
	if accepted != 3 || len(h.Received()) != 6 {
		t.Errorf("accepted %d of %d, want 3 of 6", accepted, len(h.Received()))
	}
}

func TestHTTPSEndlessBody(t *testing.T) {
	h := startHTTPS(t)
	h.Script("/", HTTPReply{Status: 200, Endless: true})
	resp := send(t, client(t, h), h.URL("reports.example.org", "/"), "")
	if n, err := io.CopyN(io.Discard, resp.Body, 5<<20); n != 5<<20 {
		t.Errorf("it ended after %d bytes: %v", n, err)
	}
	resp.Body.Close()
}

func TestHTTPSTooLarge(t *testing.T) {
	h := startHTTPS(t)
	resp := send(t, client(t, h), h.URL("reports.example.org", "/"), strings.Repeat("x", maxBody+1))
	if resp.StatusCode != http.StatusRequestEntityTooLarge || len(h.Received()) != 0 {
		t.Errorf("%s, %d received", resp.Status, len(h.Received()))
	}
}

func TestHTTPSRefusesHalfABody(t *testing.T) {
	h := startHTTPS(t)
	c, err := tls.Dial("tcp", h.Addr(), &tls.Config{RootCAs: h.CAPool(), ServerName: "reports.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: reports.example.org\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || len(h.Received()) != 0 {
		t.Errorf("%s, %d received", resp.Status, len(h.Received()))
	}
}

func TestHTTPSWait(t *testing.T) {
	h := startHTTPS(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrNoProgress)
	if list, err := h.Wait(ctx, 1); len(list) != 0 || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %d, %v", len(list), err)
	}
	c, sent := client(t, h), make(chan error, 1)
	go func() {
		resp, err := c.Post(h.URL("reports.example.org", "/"), gzipType, strings.NewReader("x"))
		if err == nil {
			resp.Body.Close()
		}
		sent <- err
	}()
	if list, err := h.Wait(t.Context(), 1); len(list) != 1 || err != nil {
		t.Errorf("got %d, %v", len(list), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestHTTPSCloseEndsRequests(t *testing.T) {
	h := startHTTPS(t)
	h.Script("/", HTTPReply{Delay: time.Hour})
	c := client(t, h)
	failed := make(chan error, 1)
	go func() {
		resp, err := c.Post(h.URL("reports.example.org", "/"), gzipType, strings.NewReader("x"))
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	for len(h.script("/")) > 0 { // until the request is in its delay
		time.Sleep(time.Millisecond)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	if n := len(h.Received()); n != 0 {
		t.Errorf("%d received of a request without an answer", n)
	}
}

func (h *HTTPS) script(path string) []HTTPReply {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.scripts[path]
}
