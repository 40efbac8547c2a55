package submitter

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// rawHTTPS is a server whose connections are handled by then, before TLS.
func rawHTTPS(t *testing.T, then func(net.Conn)) (s *Submitter, rua schema.RUA, connections *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int64)
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			// A client that is closed while a request ends keeps its connection for 90 s.
			context.AfterFunc(t.Context(), func() { c.Close() })
			wg.Go(func() { defer c.Close(); then(c) })
		}
	})
	_, pool := certificate()
	s = &Submitter{Addresses: loopback{}, AllowPrivate: true, Ports: []uint16{portOf(l)}, RootCAs: pool, Timeout: 500 * time.Millisecond}
	t.Cleanup(s.Close) // before the server is waited for
	return s, schema.RUA(fmt.Sprintf("https://example.com:%d/", portOf(l))), connections
}

// withinTLS speaks HTTP/1.1, or HTTP/2 where protocol is "h2".
func withinTLS(protocol string, then func(net.Conn)) func(net.Conn) {
	cert, _ := certificate()
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}
	return func(c net.Conn) {
		secured := tls.Server(c, config)
		if secured.Handshake() == nil {
			then(secured)
		}
	}
}

// afterRequest reads a request, says text, and goes on with then.
func afterRequest(text string, then func(net.Conn)) func(net.Conn) {
	return withinTLS("http/1.1", func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		if _, err := io.WriteString(c, text); err == nil {
			then(c)
		}
	})
}

// repeat says text again and again, slowly if pause is not 0.
func repeat(text string, pause time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}
}

func hangUp(net.Conn) {}

// Whatever a server does, at whatever step, the attempt ends soon, for now, and
// is the server's fault.
func TestHostileHTTPS(t *testing.T) {
	before := memory()
	atOnce(t, map[string]func(net.Conn){
		"silence before TLS":     stall,
		"no TLS":                 repeat("220 mx.example.com ESMTP\r\n", 0),
		"reset before TLS":       reset,
		"silence within TLS":     withinTLS("http/1.1", stall),
		"end within TLS":         withinTLS("http/1.1", hangUp),
		"silence after request":  afterRequest("", stall),
		"end after request":      afterRequest("", hangUp),
		"no HTTP":                afterRequest("250 ok\r\n", hangUp),
		"half a status line":     afterRequest("HTTP/1.1 20", hangUp),
		"half a header":          afterRequest("HTTP/1.1 200 OK\r\nContent-Le", hangUp),
		"header that drips":      afterRequest("HTTP/1.1 200 OK\r\n", repeat("a", 10*time.Millisecond)),
		"header without end":     afterRequest("HTTP/1.1 200 OK\r\n", repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 0)),
		"line without end":       afterRequest("HTTP/1.1 200 OK\r\nX: ", repeat(strings.Repeat("x", 64<<10), 0)),
		"status without end":     afterRequest("HTTP/1.1 200 ", repeat(strings.Repeat("x", 64<<10), 0)),
		"informational for ever": afterRequest("", repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0)),
		"informational, slowly":  afterRequest("", repeat("HTTP/1.1 100 Continue\r\n\r\n", 10*time.Millisecond)),
		"503 without end":        afterRequest("HTTP/1.1 503 No\r\n\r\n", repeat(strings.Repeat("x", 64<<10), 0)),
		"503 that drips":         afterRequest("HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\n", repeat("x", 10*time.Millisecond)),
		"503 cut short":          afterRequest("HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\nsorry", hangUp),
		"bad chunks":             afterRequest("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", stall),
		"HTTP/2, silence":        withinTLS("h2", stall),
		"HTTP/2, no frames":      withinTLS("h2", repeat("HTTP/1.1 200 OK\r\n\r\n", 0)),
		"HTTP/2, GOAWAY":         withinTLS("h2", goAway),
		"HTTP/2, resets":         withinTLS("h2", onStream(func(f *http2.Framer, id uint32) error { return f.WriteRSTStream(id, http2.ErrCodeRefusedStream) })),
		"HTTP/2, settings":       withinTLS("h2", settingsFlood),
		"HTTP/2, informational":  withinTLS("h2", onStream(informational)),
		"HTTP/2, 503 endless":    withinTLS("h2", onStream(endlessBody)),
	}, func(t *testing.T, then func(net.Conn)) {
		s, rua, _ := rawHTTPS(t, then)
		began := time.Now()
		err := s.Submit(t.Context(), parcel(t), rua, "")
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.Temporary || e.Ours || e.RUA != rua {
			t.Errorf("%#v, want a temporary fault of the server", err)
		}
		if len(fmt.Sprint(err)) > maxErrorText {
			t.Errorf("an error of %d bytes", len(fmt.Sprint(err)))
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("it took %s", d)
		}
	})
	if after := memory(); after > before+64<<20 {
		t.Errorf("%d MiB stay in use", (after-before)>>20)
	}
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Once the status says success, nothing that follows matters.
func TestHostileSuccess(t *testing.T) {
	for name, then := range map[string]func(net.Conn){
		"body without end": repeat(strings.Repeat("x", 64<<10), 0),
		"body that drips":  repeat("x", 10*time.Millisecond),
		"no body":          stall,
		"end":              hangUp,
		"reset":            func(c net.Conn) { c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0) },
	} {
		s, rua, _ := rawHTTPS(t, afterRequest("HTTP/1.1 201 Created\r\nContent-Length: 10000000000\r\n\r\n", then))
		if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

// Redirects are not followed, however many there are.
func TestRedirects(t *testing.T) {
	s, rua, connections := rawHTTPS(t, afterRequest("HTTP/1.1 307 Go on\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n", hangUp))
	if err := s.Submit(t.Context(), parcel(t), rua, ""); err == nil || IsTemporary(err) || connections.Load() != 1 {
		t.Errorf("%v after %d connections, want to give up after one", err, connections.Load())
	}
}

// goAway takes a request and sends the client away, on each connection.
func goAway(c net.Conn) {
	onStream(func(f *http2.Framer, _ uint32) error { return f.WriteGoAway(0, http2.ErrCodeNo, nil) })(c)
}

// onStream answers each request on a connection of HTTP/2.
func onStream(answer func(f *http2.Framer, id uint32) error) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		if f.WriteSettings() != nil {
			return
		}
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := frame.(*http2.HeadersFrame); ok && answer(f, h.StreamID) != nil {
				return
			}
		}
	}
}

func headerFrame(f *http2.Framer, id uint32, status string) error {
	var b strings.Builder
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: status})
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(b.String()), EndHeaders: true})
}

func informational(f *http2.Framer, id uint32) error {
	for {
		if err := headerFrame(f, id, "103"); err != nil {
			return err
		}
	}
}

func endlessBody(f *http2.Framer, id uint32) error {
	if err := headerFrame(f, id, "503"); err != nil {
		return err
	}
	for { // flow control is the client's business, too
		if err := f.WriteData(id, false, make([]byte, 16<<10)); err != nil {
			return err
		}
	}
}

func settingsFlood(c net.Conn) {
	go io.Copy(io.Discard, c)
	f := http2.NewFramer(c, c)
	for f.WriteSettings() == nil {
	}
}

// Only what is wrong with the certificate is a reason to go on without verifying
// it.
func TestRetryInsecureIsForCertificates(t *testing.T) {
	cert, _ := certificate()
	plain := func(c net.Conn) {
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
		defer secured.Close()
		r, err := http.ReadRequest(bufio.NewReader(secured))
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(secured, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
	for name, c := range map[string]struct {
		then        func(net.Conn)
		trusted     bool
		delivered   bool
		connections int64
	}{
		"good":           {plain, true, true, 1},
		"unknown issuer": {plain, false, true, 2},
		"no TLS":         {repeat("220 hi\r\n", 0), false, false, 1},
		"reset":          {reset, false, false, 1},
		"silence":        {stall, false, false, 1},
		"old TLS":        {oldTLS(cert), false, false, 1},
		"another ALPN":   {withinTLS("smtp", stall), false, false, 1},
		"client auth":    {clientAuth(cert), true, false, 1},
		"HTTP error":     {afterRequest("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", hangUp), true, false, 1},
	} {
		s, rua, connections := rawHTTPS(t, c.then)
		s.RetryInsecure = true
		if !c.trusted {
			s.RootCAs = x509.NewCertPool()
		}
		err := s.Submit(t.Context(), parcel(t), rua, "")
		if (err == nil) != c.delivered || connections.Load() != c.connections {
			t.Errorf("%s: %v after %d connections, want delivered: %t, after %d", name, err, connections.Load(), c.delivered, c.connections)
		}
		s.Close()
	}
}

func oldTLS(cert tls.Certificate) func(net.Conn) {
	return func(c net.Conn) {
		tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake()
	}
}

func clientAuth(cert tls.Certificate) func(net.Conn) {
	return func(c net.Conn) {
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert})
		io.Copy(io.Discard, secured)
	}
}

// An insecure connection serves nothing that is to be verified.
func TestInsecureConnectionsStayApart(t *testing.T) {
	s, rua := sink(t, answer(200, "", ""))
	s.RootCAs, s.RetryInsecure = x509.NewCertPool(), true
	if err := s.Submit(t.Context(), parcel(t), rua, ""); err != nil {
		t.Fatal(err)
	}
	s.RetryInsecure = false
	if err := s.Submit(t.Context(), parcel(t), rua, ""); !isCertificateError(err) {
		t.Errorf("%v, want a certificate error", err)
	}
}

// Each host has its connection, over HTTP/2, and it is used again, also after a
// reply that was refused.
func TestConnectionPerHost(t *testing.T) {
	var mu sync.Mutex
	remotes := make(map[string]map[string]bool) // by host
	s, rua := sink(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if remotes[r.Host] == nil {
			remotes[r.Host] = make(map[string]bool)
		}
		remotes[r.Host][r.RemoteAddr] = r.ProtoMajor == 2
		w.WriteHeader(503)
		io.WriteString(w, "later")
	})
	other := schema.RUA(strings.Replace(string(rua), "tls.example.com", "www.example.com", 1))
	for range 5 {
		for _, to := range []schema.RUA{rua, other} {
			if err := s.Submit(context.Background(), parcel(t), to, ""); !IsTemporary(err) || !strings.Contains(err.Error(), "503") {
				t.Fatal(err)
			}
		}
	}
	if len(remotes) != 2 {
		t.Errorf("%v, want two hosts", remotes)
	}
	for host, c := range remotes {
		for _, two := range c {
			if len(c) != 1 || !two {
				t.Errorf("%s: %v, want one connection, over HTTP/2", host, c)
			}
		}
	}
}
