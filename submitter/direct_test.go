package submitter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
)

// world is the DNS, by real messages, and servers at addresses of their own.
type world struct {
	*receiver.Zone
	mu     sync.Mutex
	places map[string]string // address that is dialled: where the server listens
	dialed []string          // in their order
}

func newWorld(t *testing.T) *world {
	t.Helper()
	zone, err := receiver.StartZone()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { zone.Close() })
	return &world{Zone: zone, places: make(map[string]string)}
}

// host makes name a host at addrs whose server listens at place; "" refuses
// connections.
func (w *world) host(name, place string, addrs ...string) {
	var parsed []netip.Addr
	for _, a := range addrs {
		parsed = append(parsed, netip.MustParseAddr(a))
		w.places[net.JoinHostPort(a, "25")] = place
	}
	w.SetAddr(name, parsed...)
}

func (w *world) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, addr)
	place := w.places[addr]
	w.mu.Unlock()
	if place == "" {
		return nil, errors.New("connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, network, place)
}

// resolver is what asks the DNS of w.
func (w *world) resolver() *resolve.Resolver { return &resolve.Resolver{Servers: []string{w.Addr()}} }

// direct is a Mailer in w.
func (w *world) direct(t *testing.T) *Direct {
	t.Helper()
	d, err := NewDirect(DirectOptions{HELO: "out.example.net", Resolver: w.resolver(), Dialer: w, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// deliver makes one attempt by way of a Submitter.
func deliver(t *testing.T, m Mailer, timeout time.Duration) *Error {
	t.Helper()
	s := &Submitter{Mail: m, ExternalDKIM: true, Timeout: timeout}
	err := s.Submit(t.Context(), parcel(t), "mailto:"+mailbox, "")
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Ours {
		t.Fatalf("%T: %v: a stranger must not stop our mail", err, err)
	}
	return e
}

func TestDirect(t *testing.T) {
	for name, c := range map[string]struct {
		zone   func(w *world)
		dialed []string
	}{
		"one MX": {func(w *world) { w.SetMX(domain, "mx.example.org") }, []string{"192.0.2.1:25"}},
		"the best MX first": {func(w *world) {
			w.SetMX(domain, "dead.example.org", "mx.example.org")
		}, []string{"192.0.2.9:25", "192.0.2.1:25"}},
		"no MX":           {func(w *world) { w.host(domain, w.places["192.0.2.1:25"], "192.0.2.7") }, []string{"192.0.2.7:25"}},
		"IPv6 alone":      {func(w *world) { w.SetMX(domain, "six.example.org") }, []string{"[2001:db8::1]:25"}},
		"IPv4, then IPv6": {func(w *world) { w.SetMX(domain, "both.example.org") }, []string{"192.0.2.8:25", "[2001:db8::1]:25"}},
		"MX is an alias": {func(w *world) {
			w.SetMX(domain, "alias.example.org")
			w.SetCNAME("alias.example.org", "mx.example.org")
		}, []string{"192.0.2.1:25"}},
		"domain is an alias":     {func(w *world) { w.SetCNAME(domain, "example.org"); w.SetMX("example.org", "mx.example.org") }, []string{"192.0.2.1:25"}},
		"one MX without address": {func(w *world) { w.SetMX(domain, "nowhere.example.org", "mx.example.org") }, []string{"192.0.2.1:25"}},
		"one MX cannot be looked up": {func(w *world) {
			w.SetMX(domain, "servfail.example.org", "mx.example.org")
			w.Fault("servfail.example.org", receiver.DNSFault{Rcode: dns.RcodeServerFailure})
		}, []string{"192.0.2.1:25"}},
		"one MX is an address": {func(w *world) { w.SetMX(domain, "192.0.2.66", "mx.example.org") }, []string{"192.0.2.1:25"}},
	} {
		w, server := newWorld(t), new(relay)
		place := server.start(t, true, false)
		w.host("mx.example.org", place, "192.0.2.1")
		w.host("dead.example.org", "", "192.0.2.9")
		w.host("six.example.org", place, "2001:db8::1")
		w.host("both.example.org", "", "2001:db8::1", "192.0.2.8")
		w.places["[2001:db8::1]:25"] = place
		c.zone(w)
		if e := deliver(t, w.direct(t), 20*time.Second); e != nil {
			t.Errorf("%s: %v", name, e)
			continue
		}
		if !slices.Equal(w.dialed, c.dialed) {
			t.Errorf("%s: dialled %v, want %v", name, w.dialed, c.dialed)
		}
		server.mu.Lock()
		// The certificate is nobody's, and names somebody else.
		if !server.secured || server.to != mailbox || server.from != from || server.message == nil || server.helo[0] != "out.example.net" {
			t.Errorf("%s: over TLS: %t, %s -> %s, EHLO %s", name, server.secured, server.from, server.to, server.helo)
		}
		server.mu.Unlock()
	}
}

// Hosts of one preference share the load; of very many only some are tried.
func TestMXOrder(t *testing.T) {
	var many mxs
	for i := range 1000 {
		many = append(many, &net.MX{Host: fmt.Sprintf("mx%d.example.org.", i), Pref: uint16(10 * (i / 2))})
	}
	d, err := NewDirect(DirectOptions{Resolver: many})
	if err != nil {
		t.Fatal(err)
	}
	firsts := make(map[string]bool)
	for range 200 {
		hosts, err := d.hosts(t.Context(), domain)
		if err != nil || len(hosts) != maxMXHosts {
			t.Fatalf("%v, %v; want %d", hosts, err, maxMXHosts)
		}
		for i, h := range hosts {
			if n := strings.TrimSuffix(strings.TrimPrefix(h, "mx"), ".example.org"); n != fmt.Sprint(i/2*2) && n != fmt.Sprint(i/2*2+1) {
				t.Fatalf("%v are not in the order of their preference", hosts)
			}
		}
		firsts[hosts[0]] = true
	}
	if len(firsts) != 2 {
		t.Errorf("only %v is ever first", firsts)
	}
}

// mxs is an MXResolver whose hosts have very many addresses.
type mxs []*net.MX

func (m mxs) LookupMX(context.Context, string) ([]*net.MX, error) { return slices.Clone(m), nil }

func (m mxs) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for i := range 100 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)))
	}
	return addrs, nil
}

func TestMXAddressesAreBounded(t *testing.T) {
	w := newWorld(t)
	d, err := NewDirect(DirectOptions{Resolver: mxs{{Host: "a.example."}, {Host: "b.example."}, {Host: "c.example."}, {Host: "d.example."}}, Dialer: w})
	if err != nil {
		t.Fatal(err)
	}
	if e := deliver(t, d, 20*time.Second); e == nil || !e.Temporary {
		t.Errorf("%v, want a temporary error", e)
	}
	want := []string{"192.0.2.0:25", "[2001:db8::0]:25", "192.0.2.1:25", "[2001:db8::1]:25"}
	if len(w.dialed) != maxMXTargets || !slices.Equal(w.dialed[:4], []string{want[0], "[2001:db8::]:25", want[2], want[3]}) {
		t.Errorf("%d dialled: %v", len(w.dialed), w.dialed)
	}
}

func TestDirectWithoutMX(t *testing.T) {
	try := func(zone func(w *world)) *Error {
		t.Helper()
		w := newWorld(t)
		zone(w)
		e := deliver(t, w.direct(t), 20*time.Second)
		if e == nil || len(w.dialed) != 0 {
			t.Fatalf("%v after dialling %v", e, w.dialed)
		}
		return e
	}
	permanent := func(text string, zone func(w *world)) {
		t.Helper()
		if e := try(zone); e.Temporary || !strings.Contains(e.Error(), text) {
			t.Errorf("%v, want %q for good", e, text)
		}
	}
	temporary := func(zone func(w *world)) {
		t.Helper()
		if e := try(zone); !e.Temporary {
			t.Errorf("%v, want a temporary error", e)
		}
	}
	permanent("null MX", func(w *world) { w.SetMX(domain, "."); w.host(domain, "", "192.0.2.1") })
	permanent("5.4.4", func(w *world) {})                                                     // NXDOMAIN
	permanent("5.4.4", func(w *world) { w.SetTXT(domain, "no address") })                     // nothing of use
	permanent("5.4.4", func(w *world) { w.SetMX(domain, "nowhere.example.org") })             // and no way back to A
	permanent("5.4.4", func(w *world) { w.SetMX(domain, "192.0.2.1", `a\032b.example.org`) }) // no names
	temporary(func(w *world) { w.Fault(domain, receiver.DNSFault{Rcode: dns.RcodeServerFailure}) })
	temporary(func(w *world) { w.Fault(domain, receiver.DNSFault{Rcode: dns.RcodeRefused}) })
	temporary(func(w *world) {
		w.SetMX(domain, "nowhere.example.org", "servfail.example.org")
		w.Fault("servfail.example.org", receiver.DNSFault{Rcode: dns.RcodeServerFailure})
	})
}

// What an MX host says to each command, and whether the next one is asked.
func TestDirectReplies(t *testing.T) {
	try := func(step line, next bool) *Error {
		t.Helper()
		w, server := newWorld(t), new(relay)
		w.SetMX(domain, "mx1.example.org", "mx2.example.org")
		w.host("mx1.example.org", scripted(t, accepting(step)...), "192.0.2.1")
		w.host("mx2.example.org", server.start(t, false, false), "192.0.2.2")
		e := deliver(t, w.direct(t), 20*time.Second)
		if asked := len(w.dialed) == 2; asked != next || (e == nil) != next {
			t.Errorf("%q: %q: dialled %v, %v", step.expect, step.answer, w.dialed, e)
		}
		return e
	}
	for _, step := range []string{"MAIL", "RCPT", "DATA", ".\r\n"} {
		for answer, temporary := range map[string]bool{
			"450 4.2.0 greylisted": true, "452 full": true, "550 5.1.1 unknown": false, "554 no": false, "550-5.7.1 a\r\n550 5.7.1 b": false, "600 what?": true,
		} {
			e := try(line{expect: step, answer: answer}, false)
			if e != nil && (e.Temporary != temporary || !strings.Contains(e.Reply, answer[len(answer)-1:])) {
				t.Errorf("%q at %q: %#v", answer, step, e)
			}
		}
		try(line{expect: step, answer: "421 4.3.2 closing"}, true)
	}
	for _, step := range []string{"", "EHLO"} {
		try(line{expect: step, answer: "421 busy"}, true)
		try(line{expect: step, answer: "450 later"}, true)
		try(line{expect: step, answer: "554 5.7.1 not you"}, true)
		try(line{expect: step, answer: "nonsense"}, true)
		try(line{expect: step, then: reset}, true)
	}
	for _, step := range []string{"MAIL", "RCPT", "DATA"} {
		try(line{expect: step, then: reset}, true)
	}
	// The message may have been taken.
	if e := try(line{expect: ".\r\n", then: reset}, false); e != nil && !e.Temporary {
		t.Errorf("%v, want a temporary error", e)
	}
}

// All hosts refuse: for good only if no one may change its mind.
func TestDirectVerdict(t *testing.T) {
	for _, c := range []struct {
		first, second string
		temporary     bool
	}{
		{"554 no", "554 neither", false},
		{"421 busy", "554 no", true},
		{"554 no", "421 busy", true},
		{"421 busy", "421 busy", true},
	} {
		w := newWorld(t)
		w.SetMX(domain, "mx1.example.org", "mx2.example.org")
		w.host("mx1.example.org", scripted(t, line{answer: c.first}), "192.0.2.1")
		w.host("mx2.example.org", scripted(t, line{answer: c.second}), "192.0.2.2")
		e := deliver(t, w.direct(t), 20*time.Second)
		if e == nil || e.Temporary != c.temporary || e.Reply != c.second || !strings.Contains(e.Error(), c.first) {
			t.Errorf("%+v: %#v", c, e)
		}
		if n := strings.Count(e.Error(), c.second); n != 1 && c.first != c.second {
			t.Errorf("%q says it %d times", e, n)
		}
	}
}

// TLS that fails in whatever way does not keep a report back.
func TestDirectWithoutTLS(t *testing.T) {
	cert, _ := certificate()
	plain := accepting(line{expect: "QUIT", answer: "221 bye"})[2:]
	hello := []line{{answer: "220 hi"}, {"EHLO", "250-hi\r\n250 starttls", nil}} // keywords have no case
	for name, starttls := range map[string]line{
		"refused":          {"STARTTLS", "454 4.7.0 not now", nil},
		"refused for good": {"STARTTLS", "501 what?", nil},
		"closing":          {"STARTTLS", "421 bye", nil},
		"no handshake":     {"STARTTLS", "220 go\r\nthis is no TLS at all", nil},
		"reset":            {"STARTTLS", "", reset},
		"silence":          {"STARTTLS", "220 go", nil},
		"data before TLS": {"STARTTLS", "", func(c net.Conn) {
			io.WriteString(c, "220 go\r\n250 from the middle\r\n")
			play(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}), append([]line{{"EHLO", "250 hi", nil}}, plain...))
		}},
		"TLS, then nothing": {"STARTTLS", "", tlsThen(cert, func(net.Conn) {})},
		"TLS, then silence": {"STARTTLS", "", tlsThen(cert, stall)},
		"TLS, then babble":  {"STARTTLS", "", tlsThen(cert, babble)},
		"TLS, then refusal": {"STARTTLS", "", tlsThen(cert, func(c net.Conn) { play(c, []line{{"EHLO", "554 no TLS here", nil}, {"HELO", "554 no", nil}}) })},
	} {
		w := newWorld(t)
		w.SetMX(domain, "mx.example.org")
		w.host("mx.example.org", scripted(t, choose(hello, starttls, plain)...), "192.0.2.1")
		d := w.direct(t)
		d.timeout = 200 * time.Millisecond
		if e := deliver(t, d, 20*time.Second); e != nil {
			t.Errorf("%s: %v", name, e)
		}
		if len(w.dialed) != 2 {
			t.Errorf("%s: dialled %v, want one connection with TLS and one without", name, w.dialed)
		}
	}
}

// One host that answers nothing leaves time for the others.
func TestDirectSharesTime(t *testing.T) {
	t.Parallel()
	w, server := newWorld(t), new(relay)
	w.SetMX(domain, "mx1.example.org", "mx2.example.org", "mx3.example.org")
	w.host("mx1.example.org", scripted(t, line{then: stall}), "192.0.2.1")
	w.host("mx2.example.org", scripted(t, line{then: drip}), "192.0.2.2")
	w.host("mx3.example.org", server.start(t, false, false), "192.0.2.3")
	d := w.direct(t)
	d.timeout = time.Hour
	if e := deliver(t, d, 6*time.Second); e != nil {
		t.Error(e)
	}
	if len(w.dialed) != 3 {
		t.Errorf("dialled %v", w.dialed)
	}
}

func TestDirectEndsWithContext(t *testing.T) {
	w := newWorld(t)
	w.SetMX(domain, "mx1.example.org", "mx2.example.org")
	reached := make(chan struct{})
	w.host("mx1.example.org", scripted(t, accepting(line{expect: "RCPT", then: func(c net.Conn) { close(reached); stall(c) }})...), "192.0.2.1")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	err := w.direct(t).Mail(ctx, Envelope{From: from, To: mailbox}, []byte("x\r\n"))
	if !IsTemporary(err) || !errors.Is(err, context.Canceled) || len(w.dialed) != 1 {
		t.Errorf("%v after %v, want %v", err, w.dialed, context.Canceled)
	}
}

func TestDirectOptions(t *testing.T) {
	if _, err := NewDirect(DirectOptions{HELO: "a b"}); err == nil {
		t.Error("a HELO name with a space is taken")
	}
	d, err := NewDirect(DirectOptions{})
	if err != nil || d.HELO() == "" || d.port != "25" || d.timeout != defaultSMTPTimeout {
		t.Errorf("%+v, %v", d, err)
	}
	if g, ok := d.dialer.(*guard.Dialer); !ok || g.AllowPrivate {
		t.Errorf("%+v dials private addresses", d.dialer)
	}
	if err := d.Mail(t.Context(), Envelope{From: from, To: "nobody"}, nil); err == nil || IsTemporary(err) {
		t.Errorf("%v, want to give up", err)
	}
}
