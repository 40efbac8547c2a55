package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	udpSize    = 1232 // RFC 9715: no fragments on any path
	udpReceive = 4096 // for servers that exceed it all the same
)

// ask asks one server after the other until one gives an answer: records, no
// records, or that the name does not exist.
func (r *Resolver) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	servers, err := r.servers()
	if err != nil {
		return nil, err
	}
	var faults []error
	edns := true
	start := r.current.Load()
	for i := range uint32(rounds * len(servers)) {
		server := servers[(start+i)%uint32(len(servers))]
		reply, err := r.exchange(ctx, server, query(name, qtype, edns))
		switch {
		case err != nil:
			err = fmt.Errorf("%s: %w", server, err)
		case reply.Rcode == dns.RcodeSuccess, reply.Rcode == dns.RcodeNameError:
			return reply, nil
		default:
			// RFC 6891, section 7: a server that knows no EDNS0 says so.
			edns = edns && reply.Rcode != dns.RcodeFormatError && reply.Rcode != dns.RcodeNotImplemented
			err = fmt.Errorf("%s: %s", server, rcodeName(reply.Rcode))
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("resolve: %w", context.Cause(ctx))
		}
		faults = append(faults, err)
		// The next look-up starts with another server, unless it does already.
		r.current.CompareAndSwap(start+i, start+i+1)
	}
	return nil, fmt.Errorf("resolve: no server answered: %w", errors.Join(faults...))
}

func rcodeName(rcode int) string {
	return cmp.Or(dns.RcodeToString[rcode], fmt.Sprint("RCODE ", rcode))
}

// query is a question with a random id. The AD bit asks for the AD bit (RFC
// 6840, section 5.7).
func query(name string, qtype uint16, edns bool) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.AuthenticatedData = true
	if edns {
		m.SetEdns0(udpSize, false)
	}
	return m
}

// exchange asks one server, once over UDP and once more over TCP if the reply
// was cut.
func (r *Resolver) exchange(ctx context.Context, server string, q *dns.Msg) (*dns.Msg, error) {
	release, err := r.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	reply, err := r.exchangeOver(ctx, "udp", server, q)
	if err == nil && reply.Truncated {
		reply, err = r.exchangeOver(ctx, "tcp", server, q)
		if err == nil && reply.Truncated {
			err = errors.New("truncated over TCP")
		}
	}
	return reply, err
}

// slot waits until one of Parallel queries may start.
func (r *Resolver) slot(ctx context.Context) (release func(), err error) {
	r.once.Do(func() { r.slots = make(chan struct{}, cmp.Or(max(r.Parallel, 0), defaultParallel)) })
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *Resolver) exchangeOver(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(r.Timeout, defaultTimeout))
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	c := dns.Conn{Conn: conn, UDPSize: udpReceive}
	if err := c.WriteMsg(q); err != nil {
		return nil, err
	}
	for {
		reply, err := readReply(&c, q)
		if err == nil || !errors.Is(err, errForeign) {
			return reply, err
		}
		// Somebody guesses, or an earlier reply came late: the real one may follow.
	}
}

var errForeign = errors.New("not a reply to the query")

// readReply reads one message. One that is no reply to q is errForeign.
func readReply(c *dns.Conn, q *dns.Msg) (*dns.Msg, error) {
	wire, err := c.ReadMsgHeader(nil)
	if err != nil && !errors.Is(err, dns.ErrShortRead) {
		return nil, err
	}
	reply := new(dns.Msg)
	fault := reply.Unpack(wire)
	switch {
	case reply.Id != q.Id || !reply.Response || !sameQuestion(reply, q):
		return nil, errForeign
	case fault != nil && !reply.Truncated:
		return nil, fmt.Errorf("malformed reply: %w", fault)
	}
	return reply, nil
}

// sameQuestion reports whether reply repeats the question of q. A server that
// could not read the query cannot repeat it.
func sameQuestion(reply, q *dns.Msg) bool {
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	}
	a, b := reply.Question[0], q.Question[0]
	return len(reply.Question) == 1 && a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}
