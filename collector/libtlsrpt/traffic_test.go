package libtlsrpt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// load is one datagram for domain n, as Postfix sends it.
func load(kind string, n int) []byte {
	policies := map[string]string{
		"success-none": `{"policy-type":9,"policy-domain": "d%[1]d.example.com","t":0,"f":0}`,
		"success-tlsa": `{"policy-type":1,"policy-domain": "mx.d%[1]d.example.com","policy-string":[` +
			`"3 1 1 1F850A337E6DB9C609C522D136A475638CC43E1ED424F8EEC8513D747D%06[1]X",` +
			`"2 1 1 8BD1DA95272F7FA4FFB24137FC0ED03AAE67E5C4D8B3C50734E1050A7920B922"],"t":0,"f":0}`,
		"success-sts": `{"policy-type":2,"policy-domain": "d%[1]d.example.com","policy-string":[` +
			`"version: STSv1","mode: enforce","mx: mx.d%[1]d.example.com","max_age: 86400"],"mx-host":["mx.d%[1]d.example.com"],"t":0,"f":0}`,
		"failure": `{"policy-type":9,"policy-domain": "d%[1]d.example.com","failure-details":[{"c":204,"s": "192.0.2.1",` +
			`"n": "mx.d%[1]d.example.com","h": "250-mx.d%[1]d.example.com\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 8BITMIME",` +
			`"r": "198.51.100.7"}],"t":1,"f":1}`,
	}
	return fmt.Appendf(nil, `{"dpv": "1","d": "d%d.example.com","pr": "v=TLSRPTv1; rua=mailto:tlsrpt@d%[1]d.example.com","policies":[%s]}`,
		n, fmt.Sprintf(policies[kind], n))
}

// mixture is datagrams for so many domains, of which 40 % have DANE, 40 %
// MTA-STS, and 5 % of the sessions fail.
func mixture(domains int) [][]byte {
	kinds := []string{"success-tlsa", "success-sts", "success-tlsa", "success-sts", "success-none"}
	all := make([][]byte, domains)
	for i := range all {
		kind := kinds[i%len(kinds)]
		if i%20 == 19 {
			kind = "failure"
		}
		all[i] = load(kind, i)
	}
	return all
}

// discard is a sink that costs nothing.
type discard struct{ sessions atomic.Int64 }

func (d *discard) Record(_ context.Context, _ string, _ []byte, counts []schema.Count) error {
	for _, c := range counts {
		d.sessions.Add(c.Success + c.Failure)
	}
	return nil
}

// dial is a sender to the socket at path.
func dial(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// harness is a source that runs.
type harness struct {
	*Source
	t    *testing.T
	path string
	stop func() error // ends Run and returns its error; may be called again
}

// start runs a source until the test ends.
func start(t *testing.T, s *sink, o Options) *harness {
	t.Helper()
	return startWith(t, s, o, func(*Source) {})
}

// startWith is start of a source that change has made up for the test.
func startWith(t *testing.T, s *sink, o Options, change func(*Source)) *harness {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "tlsrpt.sock")
	}
	source, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	change(source)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx, s) }()
	h := &harness{source, t, o.Path, sync.OnceValue(func() error {
		cancel()
		return <-done
	})}
	t.Cleanup(func() { _ = h.stop() })
	return h
}

func (h *harness) send(datagrams ...[]byte) {
	h.t.Helper()
	conn := dial(h.t, h.path)
	for _, d := range datagrams {
		_, err := conn.Write(d)
		for len(d) == 0 && errors.Is(err, syscall.EAGAIN) {
			_, err = conn.Write(d) // net does not wait with nothing to write
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// await returns once n datagrams were received.
func (h *harness) await(n int64) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		got := h.Stats()
		if got.Counted+got.Malformed == n {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("%+v after 20 s, want %d datagrams", got, n)
		}
	}
}

func (h *harness) mustStop() {
	h.t.Helper()
	if err := h.stop(); err != nil {
		h.t.Fatal(err)
	}
}
