package receiver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// HTTPS is a server on 127.0.0.1 that takes reports at any path, by HTTP/1.1 and
// HTTP/2.
type HTTPS struct {
	ca      *CA
	addr    string
	server  *http.Server
	running sync.WaitGroup  // the accept loop and the handlers
	ctx     context.Context // ends with Close; every request's context descends from it
	cancel  context.CancelFunc
	close   func() error
	posts   arrivals[Post]

	mu      sync.Mutex
	scripts map[string][]HTTPReply
}

// Post is one request that arrived whole, of any method.
type Post struct {
	Time   time.Time
	Method string
	URL    string // the target URI as the client meant it, "https://reports.example.org:8443/v1"
	Proto  string // "HTTP/2.0"
	Header http.Header
	Body   []byte
	Status int // what it was answered
}

// Accepted reports whether the sender may take the report for delivered
// (RFC 8460, section 5.4).
func (p *Post) Accepted() bool { return p.Status/100 == 2 }

// HTTPReply is what a request is answered. The zero value is 201 at once.
type HTTPReply struct {
	Status     int           // 0 means 201
	Delay      time.Duration // before the answer
	RetryAfter string        // header field, "" for none
	Location   string        // header field, "" for none
	Body       string
	Endless    bool // a body that goes on until the client hangs up
}

// maxBody is the largest request body that is taken, in bytes. More is 413.
const maxBody = 16 << 20

// StartHTTPS starts a server with a certificate of ca for the host names.
func StartHTTPS(ca *CA, hosts ...string) (*HTTPS, error) {
	cert, err := ca.Certificate(hosts...)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("receiver: starting the HTTPS server: %w", err)
	}
	h := &HTTPS{ca: ca, addr: l.Addr().String(), scripts: map[string][]HTTPReply{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.close = sync.OnceValue(h.shutdown)
	h.server = &http.Server{
		Handler:           http.HandlerFunc(h.handle),
		BaseContext:       func(net.Listener) context.Context { return h.ctx },
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}},
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // a client's handshake that fails is the client's to report
	}
	h.running.Go(func() { _ = h.server.ServeTLS(l, "", "") }) // its error is http.ErrServerClosed
	return h, nil
}

// Addr is "127.0.0.1:port".
func (h *HTTPS) Addr() string { return h.addr }

// URL is the address of path at one of the server's host names. path begins with
// a slash.
func (h *HTTPS) URL(host, path string) string {
	_, port, _ := net.SplitHostPort(h.addr)
	return "https://" + net.JoinHostPort(host, port) + path
}

// Port is the one that the server listens at.
func (h *HTTPS) Port() uint16 { return netip.MustParseAddrPort(h.addr).Port() }

// CAPool is what a client has to trust.
func (h *HTTPS) CAPool() *x509.CertPool { return h.ca.Pool() }

// CAPEM is what a client has to trust, as a file.
func (h *HTTPS) CAPEM() []byte { return h.ca.PEM() }

// Script sets the answers to the next requests at path, one each. Later requests
// are answered 201, as all others are.
func (h *HTTPS) Script(path string, replies ...HTTPReply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scripts[path] = slices.Clone(replies)
}

// Received is all that arrived, in its order, whatever it was answered.
func (h *HTTPS) Received() []Post { return h.posts.list() }

// Wait is like Received, as soon as n requests arrived or ctx ended.
func (h *HTTPS) Wait(ctx context.Context, n int) ([]Post, error) { return h.posts.wait(ctx, n) }

// Close cuts all connections and waits for the handlers. Only the first call
// does anything.
func (h *HTTPS) Close() error { return h.close() }

func (h *HTTPS) shutdown() error {
	// The connections go first: a handler that returns without an answer would
	// otherwise send 200, and the sender would take its report for delivered.
	err := h.server.Close()
	h.mu.Lock()
	h.cancel() // under the lock: from here on enter lets nobody in
	h.mu.Unlock()
	h.running.Wait()
	return err
}

// enter lets a handler run, unless the server is closed.
func (h *HTTPS) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.running.Add(1)
	return true
}

func (h *HTTPS) nextReply(path string) (r HTTPReply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if script := h.scripts[path]; len(script) > 0 {
		r, h.scripts[path] = script[0], script[1:]
	}
	if r.Status == 0 {
		r.Status = http.StatusCreated
	}
	return r
}

// handle takes one request.
func (h *HTTPS) handle(w http.ResponseWriter, r *http.Request) {
	if !h.enter() {
		return
	}
	defer h.running.Done()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		w.WriteHeader(http.StatusBadRequest) // or the client hung up and will not see it
		return
	}
	reply := h.nextReply(r.URL.Path)
	post := Post{
		Time:   time.Now(),
		Method: r.Method,
		URL:    "https://" + r.Host + r.RequestURI,
		Proto:  r.Proto,
		Header: r.Header.Clone(),
		Body:   body,
		Status: reply.Status,
	}
	if !pause(r.Context(), reply.Delay) {
		return
	}
	h.posts.add(post)
	h.write(w, r, reply)
}

func (h *HTTPS) write(w http.ResponseWriter, r *http.Request, reply HTTPReply) {
	for name, value := range map[string]string{"Retry-After": reply.RetryAfter, "Location": reply.Location} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(reply.Status)
	_, err := io.WriteString(w, reply.Body)
	block := make([]byte, 4096)
	for reply.Endless && err == nil && r.Context().Err() == nil {
		_, err = w.Write(block)
	}
}
