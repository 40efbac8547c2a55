package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Zone is a DNS server on 127.0.0.1, UDP and TCP on one port. It answers for
// every name: with the records that were set, with NXDOMAIN for the rest. Names
// have no case and need no final dot.
type Zone struct {
	addr    netip.AddrPort
	servers []*dns.Server
	running sync.WaitGroup
	ctx     context.Context // ends with Close: delayed answers go out no more
	cancel  context.CancelFunc
	close   func() error

	mu      sync.Mutex
	secure  bool                // answers have the AD bit
	records map[string][]dns.RR // by canonical name
	faults  map[string][]DNSFault
	queries map[string]int
}

// DNSFault is how a name misbehaves. The zero value does not. Several fields may
// be set: the delay comes first.
type DNSFault struct {
	Rcode    int           // the whole answer: dns.RcodeServerFailure for instance; 0 answers from the records
	Drop     bool          // no answer at all
	Truncate bool          // over UDP an empty answer with the TC bit; TCP is not affected
	Delay    time.Duration // before the answer
	Times    int           // queries that it lasts; 0 means until Fault is called again
}

// StartZone starts an empty zone.
func StartZone() (*Zone, error) {
	packets, listener, err := listenBoth()
	if err != nil {
		return nil, fmt.Errorf("receiver: starting the DNS server: %w", err)
	}
	z := &Zone{
		addr:    listener.Addr().(*net.TCPAddr).AddrPort(),
		records: map[string][]dns.RR{},
		faults:  map[string][]DNSFault{},
		queries: map[string]int{},
	}
	z.ctx, z.cancel = context.WithCancel(context.Background())
	z.close = sync.OnceValue(z.shutdown)
	err = errors.Join(
		z.serve(&dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(z.answer)}),
		z.serve(&dns.Server{Listener: listener, Handler: dns.HandlerFunc(z.answer)}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receiver: starting the DNS server: %w", err), z.Close(), packets.Close(), listener.Close())
	}
	return z, nil
}

// listenBoth opens one port for UDP and TCP. The kernel picks a port that is
// free for TCP; where UDP has it taken, the next one is tried.
func listenBoth() (net.PacketConn, net.Listener, error) {
	var err error
	for range 16 {
		var l net.Listener
		if l, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		var p net.PacketConn
		if p, err = net.ListenPacket("udp4", l.Addr().String()); err == nil {
			return p, l, nil
		}
		l.Close()
	}
	return nil, nil, err
}

// serve runs s and returns when it can be shut down, or could not start.
func (z *Zone) serve(s *dns.Server) error {
	started, ended := make(chan struct{}), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(started) }
	z.running.Go(func() { ended <- s.ActivateAndServe() })
	select {
	case <-started:
		z.servers = append(z.servers, s)
		return nil
	case err := <-ended:
		return err
	}
}

// Addr is the address to send queries to, "127.0.0.1:port".
func (z *Zone) Addr() string { return z.addr.String() }

// Close stops the server and waits for all it started. Only the first call does
// anything.
func (z *Zone) Close() error { return z.close() }

func (z *Zone) shutdown() error {
	z.cancel()
	var errs []error
	for _, s := range z.servers {
		errs = append(errs, s.Shutdown())
	}
	z.running.Wait()
	return errors.Join(errs...)
}

// maxTXTString is the length in bytes of one character-string (RFC 1035,
// section 3.3.14).
const maxTXTString = 255

// SetTXT replaces the TXT records of name. A text longer than 255 bytes becomes
// several character-strings of one record, as every DNS server makes it.
func (z *Zone) SetTXT(name string, texts ...string) {
	z.remove(name, dns.TypeTXT)
	for _, text := range texts {
		var parts []string
		for len(text) > maxTXTString {
			parts, text = append(parts, text[:maxTXTString]), text[maxTXTString:]
		}
		z.AddTXT(name, append(parts, text)...)
	}
}

// AddTXT adds one TXT record with these character-strings, at most 255 bytes
// each.
func (z *Zone) AddTXT(name string, parts ...string) {
	rr := &dns.TXT{Hdr: header(name, dns.TypeTXT)}
	for _, part := range parts {
		// The library keeps strings in the escaped form of a zone file.
		rr.Txt = append(rr.Txt, strings.ReplaceAll(part, `\`, `\\`))
	}
	z.add(rr)
}

// SetAddr replaces the A and AAAA records of name.
func (z *Zone) SetAddr(name string, addrs ...netip.Addr) {
	z.remove(name, dns.TypeA)
	z.remove(name, dns.TypeAAAA)
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			z.add(&dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
		} else {
			z.add(&dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
}

// SetMX replaces the MX records of name, the most preferred host first.
func (z *Zone) SetMX(name string, hosts ...string) {
	z.remove(name, dns.TypeMX)
	for i, host := range hosts {
		z.add(&dns.MX{Hdr: header(name, dns.TypeMX), Preference: uint16(10 * (i + 1)), Mx: dns.Fqdn(host)})
	}
}

// SetTLSA replaces the TLSA records of host for port 25 by texts such as
// "3 1 1 AB12". One that is malformed is left out.
func (z *Zone) SetTLSA(host string, texts ...string) {
	name := "_25._tcp." + host
	z.remove(name, dns.TypeTLSA)
	for _, text := range texts {
		if rr, err := dns.NewRR(dns.Fqdn(name) + " 60 IN TLSA " + text); err == nil && rr != nil {
			z.add(rr)
		}
	}
}

// SetSecure gives all answers the AD bit, or takes it away, as a resolver does
// that validates DNSSEC.
func (z *Zone) SetSecure(secure bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.secure = secure
}

func (z *Zone) isSecure() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.secure
}

// SetCNAME makes name an alias of target.
func (z *Zone) SetCNAME(name, target string) {
	z.remove(name, dns.TypeCNAME)
	z.add(&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: dns.Fqdn(target)})
}

// Remove takes away all records of name.
func (z *Zone) Remove(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.records, dns.CanonicalName(name))
}

// Fault makes name misbehave, by one fault after the other; after the last it
// answers again. Without faults it does so at once.
func (z *Zone) Fault(name string, faults ...DNSFault) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.faults[dns.CanonicalName(name)] = append([]DNSFault(nil), faults...)
}

// Queries is how many queries for name came in, of any type, those included that
// were not answered.
func (z *Zone) Queries(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.queries[dns.CanonicalName(name)]
}

// LookupTXT is the TXT records of name, each with its character-strings joined.
// It asks no server: faults do not apply and it counts as no query.
func (z *Zone) LookupTXT(name string) ([]string, error) {
	var texts []string
	for _, rr := range z.lookup(name, dns.TypeTXT) {
		if txt, ok := rr.(*dns.TXT); ok {
			texts = append(texts, strings.ReplaceAll(strings.Join(txt.Txt, ""), `\\`, `\`))
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("receiver: no TXT record at %s", name)
	}
	return texts, nil
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: dns.CanonicalName(name), Rrtype: rrtype, Class: dns.ClassINET, Ttl: 60}
}

func (z *Zone) add(rr dns.RR) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := rr.Header().Name
	z.records[name] = append(z.records[name], rr)
}

func (z *Zone) remove(name string, rrtype uint16) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name = dns.CanonicalName(name)
	var kept []dns.RR
	for _, rr := range z.records[name] {
		if rr.Header().Rrtype != rrtype {
			kept = append(kept, rr)
		}
	}
	if z.records[name] = kept; len(kept) == 0 {
		delete(z.records, name)
	}
}

// maxAliases is how long a chain of CNAME records may be; it also ends a loop.
const maxAliases = 8

// lookup is the records of a type at name, after the aliases that led to them.
func (z *Zone) lookup(name string, rrtype uint16) (found []dns.RR) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name = dns.CanonicalName(name)
	for range maxAliases {
		next := ""
		for _, rr := range z.records[name] {
			alias, ok := rr.(*dns.CNAME)
			if rr.Header().Rrtype == rrtype || ok {
				found = append(found, rr)
			}
			if ok && rrtype != dns.TypeCNAME {
				next = dns.CanonicalName(alias.Target)
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	return found
}

// exists reports whether name has records, or a name below it has: that, too, is
// not NXDOMAIN (RFC 8020).
func (z *Zone) exists(name string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	name = dns.CanonicalName(name)
	if len(z.records[name]) > 0 { // mostly, and there may be many names
		return true
	}
	for n := range z.records {
		if strings.HasSuffix(n, "."+name) {
			return true
		}
	}
	return false
}

// nextFault counts a query for name and is the fault that it meets.
func (z *Zone) nextFault(name string) DNSFault {
	z.mu.Lock()
	defer z.mu.Unlock()
	name = dns.CanonicalName(name)
	z.queries[name]++
	script := z.faults[name]
	if len(script) == 0 {
		return DNSFault{}
	}
	fault := script[0]
	switch fault.Times {
	case 0:
	case 1:
		z.faults[name] = script[1:]
	default:
		script[0].Times--
	}
	return fault
}

// answer is the server's handler. The library has refused what is not exactly
// one question.
func (z *Zone) answer(w dns.ResponseWriter, query *dns.Msg) {
	q := query.Question[0]
	fault := z.nextFault(q.Name)
	if !pause(z.ctx, fault.Delay) || fault.Drop {
		return
	}
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	reply.AuthenticatedData = z.isSecure()
	size := dns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		reply.SetEdns0(uint16(size), opt.Do())
	}
	switch {
	case fault.Rcode != dns.RcodeSuccess:
		reply.Rcode = fault.Rcode
	case udp && fault.Truncate:
		reply.Truncated = true
	default:
		reply.Answer = z.lookup(q.Name, q.Qtype)
		if len(reply.Answer) == 0 && !z.exists(q.Name) {
			reply.Rcode = dns.RcodeNameError
		}
	}
	if udp {
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // a client that went away is no fault of ours
}

// pause waits for d and reports whether it passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
