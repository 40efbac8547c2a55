package guard

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// answers is a Resolver that knows one answer.
type answers []netip.Addr

func (a answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return a, nil }

// counter listens on all addresses of this host and counts who connects.
func counter(t *testing.T) (port string, connections *atomic.Int64) {
	t.Helper()
	connections = new(atomic.Int64)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			c.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, connections
}

// settled is the number of connections once those before it were counted: the
// queue of a listener is first in, first out.
func settled(t *testing.T, port string, connections *atomic.Int64) int64 {
	t.Helper()
	before := connections.Load()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Read(make([]byte, 1)) // until the listener has closed it
	if n := connections.Load(); n > before {
		return n - 1
	}
	t.Fatal("the listener does not count")
	return 0
}

func TestNoPrivateAddressIsDialled(t *testing.T) {
	port, connections := counter(t)
	if len(private) < 40 {
		t.Fatalf("only %d spellings", len(private))
	}
	for _, s := range private {
		literal := Dialer{Timeout: time.Second}
		if _, err := literal.DialContext(t.Context(), "tcp", net.JoinHostPort(s, port)); !errors.Is(err, ErrPrivate) {
			t.Errorf("%s: %v, want ErrPrivate", s, err)
		}
		named := Dialer{Resolver: answers{netip.MustParseAddr(s)}, Timeout: 5 * time.Second}
		if _, err := named.DialContext(t.Context(), "tcp", net.JoinHostPort("mx.example.com", port)); !errors.Is(err, ErrPrivate) {
			t.Errorf("a name at %s: %v, want ErrPrivate", s, err)
		}
	}
	if n := settled(t, port, connections); n != 0 {
		t.Errorf("%d private destinations were dialled", n)
	}
}

// Spellings that are no address to netip but are to getaddrinfo: whether the
// system's resolver knows them or not, nothing is dialled.
func TestOddSpellings(t *testing.T) {
	port, connections := counter(t)
	for _, host := range []string{"localhost", "LOCALHOST.", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0x7f000001", "0", ""} {
		d := Dialer{Timeout: time.Second}
		if c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port)); err == nil {
			c.Close()
			t.Errorf("%q was dialled", host)
		}
	}
	if n := settled(t, port, connections); n != 0 {
		t.Errorf("%d private destinations were dialled", n)
	}
}

func TestAllowPrivate(t *testing.T) {
	port, connections := counter(t)
	d := Dialer{AllowPrivate: true}
	c, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if n := settled(t, port, connections); n != 1 {
		t.Errorf("%d connections, want 1: the counter proves nothing", n)
	}
}

func TestTriesAllAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())

	// Nobody listens at the first two.
	resolver := answers{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	d := Dialer{Resolver: resolver, AllowPrivate: true}
	c, err := d.DialContext(t.Context(), "tcp", "mx.example.com:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().String() != l.Addr().String() {
		t.Errorf("connected to %s", c.RemoteAddr())
	}

	d.Resolver = resolver[:2]
	if _, err := d.DialContext(t.Context(), "tcp", "mx.example.com:"+port); err == nil || errors.Is(err, ErrPrivate) {
		t.Errorf("%v, want what dialling said", err)
	}
}

func TestAllowed(t *testing.T) {
	public, private := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1")
	var d Dialer
	got, err := d.allowed("mx.example.com", []netip.Addr{private, public, netip.MustParseAddr("::1")})
	if err != nil || len(got) != 1 || got[0] != public {
		t.Errorf("%v, %v; want only %s", got, err, public)
	}
	many := make([]netip.Addr, 1000)
	for i := range many {
		many[i] = public
	}
	if got, _ := d.allowed("mx.example.com", many); len(got) != maxAddresses {
		t.Errorf("%d addresses are tried, want %d", len(got), maxAddresses)
	}
}

func TestBadTargets(t *testing.T) {
	bad := func(network, addr string) {
		t.Helper()
		d := Dialer{Resolver: answers{}, Timeout: time.Second}
		if _, err := d.DialContext(t.Context(), network, addr); err == nil || errors.Is(err, ErrPrivate) {
			t.Errorf("%s %q: %v", network, addr, err)
		}
	}
	bad("tcp", "mx.example.com")     // no port
	bad("udp", "mx.example.com:25")  // not a stream
	bad("unix", "/run/socket:1")     // not the Internet
	bad("tcp", "mx.example.com:443") // no address
}

func TestLookupFailure(t *testing.T) {
	d := Dialer{Resolver: failing{}}
	if _, err := d.DialContext(t.Context(), "tcp", "mx.example.com:443"); !errors.Is(err, errLookup) {
		t.Errorf("%v, want %v", err, errLookup)
	}
}

var errLookup = errors.New("no answer")

type failing struct{}

func (failing) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, errLookup
}

func TestDialEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := Dialer{Resolver: answers{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}}
	if _, err := d.DialContext(ctx, "tcp", "mx.example.com:443"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}
