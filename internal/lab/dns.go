//go:build linux

package lab

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// TXT is one TXT record as its character-strings.
type TXT []string

// Asks is the TLSRPT record that asks for reports at these URIs.
func Asks(rua ...string) []TXT {
	return []TXT{{"v=TLSRPTv1; rua=" + strings.Join(rua, ",")}}
}

// DNS is the only name server of a world, and its resolver: it answers on
// 127.0.0.53 port 53, UDP and TCP, from a table. What the table does not have
// does not exist. Names have no final dot. Safe for concurrent use.
type DNS struct {
	t  testing.TB
	mu sync.Mutex

	records map[string][]dns.RR
	secure  map[string]bool
	failing map[string]int
}

const dnsAddr = "127.0.0.53:53"

// startDNS starts a server that ends with the test.
func startDNS(t testing.TB) *DNS {
	t.Helper()
	d := &DNS{t: t, records: map[string][]dns.RR{}, secure: map[string]bool{}, failing: map[string]int{}}
	udp, err := net.ListenPacket("udp", dnsAddr)
	check(t, err)
	tcp, err := net.Listen("tcp", dnsAddr)
	check(t, err)
	for _, s := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		s.Handler = dns.HandlerFunc(d.serve)
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			if err := s.ActivateAndServe(); err != nil {
				t.Errorf("lab: DNS: %v", err)
			}
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	// Postfix asks for the root's name servers to learn whether its resolver
	// validates (its setting dnssec_probe).
	d.Add(". NS ns.example.net.")
	return d
}

// Add adds records in the form of a zone file: "mx.example.com A 192.0.2.9".
func (d *DNS) Add(lines ...string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, line := range lines {
		rr, err := dns.NewRR("$ORIGIN .\n$TTL 60\n" + line)
		check(d.t, err)
		name := dns.CanonicalName(rr.Header().Name)
		d.records[name] = append(d.records[name], rr)
	}
}

// SetTXT replaces all TXT records of a name; with none there are none.
func (d *DNS) SetTXT(name string, records ...TXT) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = dns.CanonicalName(name)
	var kept []dns.RR
	for _, rr := range d.records[name] {
		if rr.Header().Rrtype != dns.TypeTXT {
			kept = append(kept, rr)
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for _, txt := range records {
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}
		for _, s := range txt {
			rr.Txt = append(rr.Txt, escape.Replace(s))
		}
		kept = append(kept, rr)
	}
	d.records[name] = kept
}

// Secure makes a name and all below it validated by DNSSEC.
func (d *DNS) Secure(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secure[dns.CanonicalName(name)] = true
}

// Fail answers every question about a name with a code, such as
// [dns.RcodeServerFailure]; [dns.RcodeSuccess] mends it.
func (d *DNS) Fail(name string, rcode int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing[dns.CanonicalName(name)] = rcode
}

func (d *DNS) serve(w dns.ResponseWriter, req *dns.Msg) {
	reply := new(dns.Msg).SetReply(req)
	reply.RecursionAvailable = true
	size := dns.MinMsgSize
	if opt := req.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		reply.SetEdns0(opt.UDPSize(), opt.Do())
	}
	d.answer(reply, req.Question[0])
	if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // the asker tries again
}

// answer fills in the reply to one question.
func (d *DNS) answer(reply *dns.Msg, q dns.Question) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := dns.CanonicalName(q.Name)
	if reply.Rcode = d.failing[name]; reply.Rcode != dns.RcodeSuccess {
		return
	}
	reply.AuthenticatedData = d.isSecure(name)
	for _, rr := range d.records[name] {
		if rr.Header().Rrtype == q.Qtype {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	if !d.exists(name) {
		reply.Rcode = dns.RcodeNameError
	}
}

// isSecure reports whether a name lies at or below a secure one. The root is.
func (d *DNS) isSecure(name string) bool {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if d.secure[name[off:]] {
			return true
		}
	}
	return name == "."
}

// exists reports whether a name has records, or a name below it has (RFC 8020).
func (d *DNS) exists(name string) bool {
	for n, rrs := range d.records {
		if len(rrs) > 0 && dns.IsSubDomain(name, n) {
			return true
		}
	}
	return false
}
