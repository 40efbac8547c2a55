package submitter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// trap listens at every address of this host and counts who comes.
type trap struct {
	port   uint16
	caught atomic.Int64
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{port: portOf(l)}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tr.caught.Add(1)
			c.Close()
		}
	}()
	return tr
}

// count is how many came but for itself, which comes last: the queue of a
// listener is first in, first out. That it is counted shows that the trap works.
func (tr *trap) count(t *testing.T) int64 {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", tr.port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Read(make([]byte, 1)) // until the trap has closed it
	return tr.caught.Load() - 1
}

// privateHosts spells private destinations as the host of an https URI. None may
// be reached, whether the spelling is refused, is nobody's name, or is understood.
var privateHosts = []string{
	// As addresses are written.
	"127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
	"240.0.0.1", "255.255.255.255", "224.0.0.1", "198.18.0.1", "192.0.0.8", "127.0.0.1.", "127.0.0.1..",
	"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[::127.0.0.1]",
	"[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a00:1]", "[64:ff9b:1:7f00:0:100::]",
	"[2002:7f00:1::1]", "[2002:a00:1::]", "[2001:0:7f00:1::]", "[2001:0:c000:201:0:ffff:80ff:fffe]",
	"[fe80::1]", "[fe80::1%25lo]", "[::1%25lo]", "[fe80::1%lo]", "[fe80::5efe:127.0.0.1]", "[::5efe:10.0.0.1]", // zones, ISATAP
	"[fc00::1]", "[fd12:3456:789a::1]", "[fec0::1]", "[ff02::1]", "[ff0e::1]", "[100::1]", "[3ffe::1]",

	// As inet_aton(3) reads them.
	"127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0x0", "00000000177.1",
	"127.0.0.01", "127.000.000.001", "127.0.0.0x1", "0251.0376.0251.0376", "2852039166", "192.168.1", "4294967295", "127.0.0.1.0x7f",

	// As an IDN turns into them: fullwidth, circled and superscript digits, other dots.
	"１２７.０.０.１", "127。0。0。1", "127．0．0．1", "①②⑦.⓪.⓪.①", "¹²⁷.⁰.⁰.¹", "ⓛocalhost", "ｌｏｃａｌｈｏｓｔ", "local\u00adhost", "[：：1]",
	"%31%32%37.0.0.1", "127%2E0%2E0%2E1", "%6cocalhost", "127.0.0.1%00.example.com", "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",

	// User information and other ways to name two hosts at once.
	"reports.example.org@127.0.0.1", "reports.example.org:443@127.0.0.1", "127.0.0.1#@reports.example.org", `reports.example.org\@127.0.0.1`,
	"127.0.0.1/@reports.example.org", "127.0.0.1?@reports.example.org", "@127.0.0.1", "127.0.0.1%23.example.org",

	// Names.
	"localhost", "LOCALHOST", "localhost.", "localhost..", "ip6-localhost", "localhost.localdomain", "",
	"private.example.org", "private.example.org.", "PRIVATE.example.org", "loopback.example.org", "loopback6.example.org", "mapped.example.org",
	"nat64.example.org", "six.example.org", "teredo.example.org", "alias.example.org", "chain.example.org", "all.example.org",
}

// names is a zone whose names lead to private places.
func names(t *testing.T) *receiver.Zone {
	t.Helper()
	z, err := receiver.StartZone()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.Close() })
	set := func(name string, addrs ...string) {
		var parsed []netip.Addr
		for _, a := range addrs {
			parsed = append(parsed, netip.MustParseAddr(a))
		}
		z.SetAddr(name, parsed...)
	}
	set("private.example.org", "10.0.0.1")
	set("loopback.example.org", "127.0.0.1")
	set("loopback6.example.org", "::1")
	set("mapped.example.org", "::ffff:127.0.0.1")
	set("nat64.example.org", "64:ff9b::7f00:1")
	set("six.example.org", "2002:7f00:1::")
	set("teredo.example.org", "2001:0:7f00:1::")
	set("all.example.org", "127.0.0.1", "::1", "10.0.0.1", "fe80::1", "169.254.169.254")
	set("localhost", "127.0.0.1", "::1") // as a name server may have it
	z.SetCNAME("alias.example.org", "loopback.example.org")
	z.SetCNAME("chain.example.org", "alias.example.org")
	return z
}

func TestNoPrivateUpload(t *testing.T) {
	tr, zone := newTrap(t), names(t)
	submitters := map[string]*Submitter{
		"DNS":                    {Addresses: &resolve.Resolver{Servers: []string{zone.Addr()}}},
		"resolver of the system": {},
	}
	for name, s := range submitters {
		s.Ports, s.Timeout = []uint16{443, tr.port}, 3*time.Second
		t.Cleanup(s.Close)
		understood := 0
		for _, host := range privateHosts {
			if s.Addresses == nil && strings.HasSuffix(strings.TrimSuffix(host, "."), ".example.org") {
				continue // asks the world
			}
			uri := fmt.Sprintf("https://%s:%d/", host, tr.port)
			if rua, err := schema.ParseRUA(uri); err == nil {
				uri = string(rua)
				understood++
			}
			// One that the record's reader refuses is refused here, too.
			if err := s.Submit(t.Context(), parcel(t), schema.RUA(uri), ""); err == nil {
				t.Errorf("%s: %s took a report", name, uri)
			}
		}
		if understood < 40 {
			t.Errorf("%s: only %d spellings are a rua", name, understood)
		}
	}
	if len(privateHosts) < 40 {
		t.Errorf("only %d spellings", len(privateHosts))
	}
	if n := tr.count(t); n != 0 {
		t.Errorf("%d connections to private places", n)
	}
	// The counter-test: what is refused above is there.
	s := &Submitter{Addresses: submitters["DNS"].Addresses, AllowPrivate: true, Ports: []uint16{tr.port}}
	defer s.Close()
	s.Submit(t.Context(), parcel(t), schema.RUA(fmt.Sprintf("https://chain.example.org:%d/", tr.port)), "")
	if n := tr.count(t) - 1; n < 1 {
		t.Error("the trap catches nobody")
	}
}

// rebinding gives another answer each time: a public address first.
type rebinding struct{ asked atomic.Int64 }

func (r *rebinding) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if r.asked.Add(1) == 1 {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (r *rebinding) LookupMX(context.Context, string) ([]*net.MX, error) {
	return []*net.MX{{Host: "mx.example.org."}}, nil
}

// mixed gives public and private addresses in one answer.
type mixed struct{ rebinding }

func (*mixed) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::1")}, nil
}

// What was looked up is what is dialled, and of an answer only what is public.
func TestRebinding(t *testing.T) {
	tr := newTrap(t)
	for range 3 { // rebinding is private from the second time on
		for name, r := range map[string]MXResolver{"rebinding": new(rebinding), "mixed": new(mixed)} {
			s := &Submitter{Addresses: r, Ports: []uint16{tr.port}, Timeout: 200 * time.Millisecond, ExternalDKIM: true}
			s.Mail = directAt(t, r, tr.port)
			for _, rua := range []schema.RUA{schema.RUA(fmt.Sprintf("https://rebind.example.org:%d/", tr.port)), "mailto:" + mailbox} {
				if err := s.Submit(t.Context(), parcel(t), rua, ""); err == nil {
					t.Errorf("%s: %s took a report", name, rua)
				}
			}
			s.Close()
		}
	}
	if n := tr.count(t); n != 0 {
		t.Errorf("%d connections to private places", n)
	}
}

// directAt dials as it does outside tests, but at another port.
func directAt(t *testing.T, r MXResolver, port uint16) *Direct {
	t.Helper()
	d, err := NewDirect(DirectOptions{HELO: "out.example.net", Resolver: r})
	if err != nil {
		t.Fatal(err)
	}
	d.port = fmt.Sprint(port)
	return d
}

func TestNoPrivateMX(t *testing.T) {
	tr, zone := newTrap(t), names(t)
	resolver := &resolve.Resolver{Servers: []string{zone.Addr()}}
	s := &Submitter{Mail: directAt(t, resolver, tr.port), ExternalDKIM: true, Timeout: 5 * time.Second}
	try := func(what string, private bool) {
		t.Helper()
		err := s.Submit(t.Context(), parcel(t), "mailto:"+mailbox, "")
		if err == nil || IsTemporary(err) || private != errors.Is(err, guard.ErrPrivate) {
			t.Errorf("%s: %v, want to give up, for a private address: %t", what, err, private)
		}
	}
	for _, host := range []string{
		"localhost", "LOCALHOST", "private.example.org", "loopback.example.org", "loopback6.example.org", "mapped.example.org",
		"nat64.example.org", "six.example.org", "teredo.example.org", "alias.example.org", "chain.example.org", "all.example.org",
	} {
		zone.SetMX(domain, host)
		try(host, true)
	}
	zone.SetMX(domain, "loopback.example.org", "private.example.org", "all.example.org")
	try("several", true)
	for _, host := range []string{"127.0.0.1", "10.0.0.1", "2130706433", "127.1", "0x7f000001", "0177.0.0.1", "::1", "[::1]", "localhost.localdomain", "0"} {
		zone.SetMX(domain, host)
		try(host, false) // no host name, or nobody's
	}
	zone.SetMX(domain)
	for _, a := range []string{
		"127.0.0.1", "0.0.0.0", "10.0.0.1", "100.64.0.1", "169.254.169.254", "172.31.0.1", "192.168.0.1", "198.19.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::a00:1", "2002:a00:1::", "2001:0:7f00:1::", "fe80::1", "fec0::1", "fd00::1", "ff02::1", "fe80::5efe:7f00:1",
	} {
		zone.SetAddr(domain, netip.MustParseAddr(a))
		try("A "+a, true)
	}
	if n := tr.count(t); n != 0 {
		t.Errorf("%d connections to private places", n)
	}

	// The counter-test.
	open, err := NewDirect(DirectOptions{HELO: "out.example.net", Resolver: resolver, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	open.port = fmt.Sprint(tr.port)
	zone.SetMX(domain, "chain.example.org")
	s.Mail = open
	s.Submit(t.Context(), parcel(t), "mailto:"+mailbox, "")
	if n := tr.count(t) - 1; n < 1 {
		t.Error("the trap catches nobody")
	}
}

// An https destination names no port but those that are allowed.
func TestPorts(t *testing.T) {
	s := &Submitter{Timeout: time.Second, Dialer: nobody{}}
	defer s.Close()
	refused := func(uri string, ports ...uint16) bool {
		t.Helper()
		s.Ports = ports
		rua, err := schema.ParseRUA(uri)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Submit(t.Context(), parcel(t), rua, "")
		if err == nil || IsTemporary(err) != errors.Is(err, errNobody) {
			t.Errorf("%s: %v", uri, err)
		}
		return !errors.Is(err, errNobody)
	}
	for _, c := range []struct {
		uri     string
		ports   []uint16
		refused bool
	}{
		{"https://example.com/", nil, false},
		{"https://example.com:443/", nil, false},
		{"https://example.com:8443/", nil, true},
		{"https://example.com:22/", nil, true},
		{"https://[2001:db8::1]/", nil, false},
		{"https://[2001:db8::1]:25/", nil, true},
		{"https://example.com:8443/", []uint16{443, 8443}, false},
		{"https://example.com/", []uint16{8443}, true},
		{"https://example.com:65535/", []uint16{8443}, true},
	} {
		if got := refused(c.uri, c.ports...); got != c.refused {
			t.Errorf("%s with %v: refused: %t, want %t", c.uri, c.ports, got, c.refused)
		}
	}
	s.Ports = nil
	if err := s.Submit(t.Context(), parcel(t), "https://example.com:8443/", ""); err == nil || !strings.Contains(err.Error(), "port 8443 is not allowed, only 443") {
		t.Errorf("%v, want to hear which ports are allowed", err)
	}
}

var errNobody = errors.New("nobody is there")

// nobody is a Dialer for whom all hosts are down.
type nobody struct{}

func (nobody) DialContext(context.Context, string, string) (net.Conn, error) { return nil, errNobody }
