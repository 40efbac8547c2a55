package submitter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// DirectOptions says how mail goes to MX hosts. The zero value is ready.
type DirectOptions struct {
	// HELO is the name in EHLO; "" means the name of the host. Many servers refuse
	// one that has no address.
	HELO string

	// Resolver looks up MX hosts and their addresses; nil asks the servers of
	// /etc/resolv.conf.
	Resolver MXResolver

	// Dialer connects to "address:25"; nil dials public addresses only. One that
	// is given has to refuse the others itself.
	Dialer Dialer

	// AllowPrivate lets the nil Dialer connect to private addresses. For tests.
	AllowPrivate bool

	// Timeout is how long an MX host has for one reply; 0 means 5 min (RFC 5321,
	// section 4.5.3.2). If there are several hosts, each gets an equal share of the
	// attempt at most, but for the reply to the message.
	Timeout time.Duration
}

// Direct is a Mailer that hands mail to the MX hosts of the recipient. It is safe
// for concurrent use.
//
// TLS is used where it is offered, with whatever certificate, and not missed
// where it fails: "Sending MTAs MUST NOT honor MTA-STS or DANE TLSA failures" for
// reports (RFC 8460, section 5.3.1).
type Direct struct {
	helo     string
	resolver MXResolver
	dialer   Dialer
	timeout  time.Duration
	port     string // 25 but in tests
}

// Bounds on what a domain makes us do in one attempt.
const (
	maxMXHosts     = 8
	maxMXAddresses = 4 // of one host
	maxMXTargets   = 12
)

var (
	// errNullMX is RFC 7505.
	errNullMX = errors.New("5.1.10 the domain accepts no mail (null MX)")

	// errNoMX means that a domain, or an MX host, does not exist.
	errNoMX = errors.New("5.4.4 no host to deliver to")
)

// NewDirect makes a Direct. The error is about the HELO name.
func NewDirect(o DirectOptions) (*Direct, error) {
	helo, err := heloName(o.HELO)
	if err != nil {
		return nil, err
	}
	d := &Direct{helo: helo, resolver: o.Resolver, dialer: o.Dialer, timeout: cmp.Or(o.Timeout, defaultSMTPTimeout), port: "25"}
	if d.resolver == nil {
		d.resolver = (*resolve.Resolver)(nil)
	}
	if d.dialer == nil {
		d.dialer = &guard.Dialer{AllowPrivate: o.AllowPrivate, Timeout: connectTimeout}
	}
	return d, nil
}

// HELO is the name that d says in EHLO.
func (d *Direct) HELO() string { return d.helo }

// Mail makes one attempt to deliver a message. The error is an [*Error],
// permanent if an MX host says so (5yz), if there is none, or none at a public
// address. It is never [Error.Ours]: a stranger must not stop the mail to all
// others by what it says or publishes.
func (d *Direct) Mail(ctx context.Context, e Envelope, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, AttemptTimeout)
	defer cancel()
	domain, err := schema.ParseDomain(e.To[strings.LastIndexByte(e.To, '@')+1:])
	if err != nil {
		return &Error{Err: err}
	}
	hosts, err := d.hosts(ctx, domain)
	if err != nil {
		return directError(ctx, []error{err})
	}
	a := attempt{direct: d, envelope: e, message: message}
	for i, host := range hosts {
		if a.host(ctx, host, len(hosts)-i) {
			break
		}
	}
	if a.delivered {
		return nil
	}
	return directError(ctx, a.faults)
}

// hosts is where mail for domain goes, in the order of trial: by preference,
// those of one preference at random (RFC 5321, section 5.1).
func (d *Direct) hosts(ctx context.Context, domain string) ([]string, error) {
	mxs, err := d.resolver.LookupMX(ctx, domain)
	if isNotFound(err) {
		return []string{domain}, nil // the address record stands for an MX
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the MX of %s: %w", domain, err)
	}
	if len(mxs) == 1 && mxs[0].Host == "." {
		return nil, fmt.Errorf("%s: %w", domain, errNullMX)
	}
	rand.Shuffle(len(mxs), func(i, j int) { mxs[i], mxs[j] = mxs[j], mxs[i] })
	slices.SortStableFunc(mxs, func(a, b *net.MX) int { return cmp.Compare(a.Pref, b.Pref) })
	var hosts []string
	for _, mx := range mxs {
		// Not an address: RFC 5321, section 5.1, wants a name.
		if host, err := schema.ParseDomain(mx.Host); err == nil && !slices.Contains(hosts, host) && len(hosts) < maxMXHosts {
			hosts = append(hosts, host)
		}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("%s: %w: no MX is a host name", domain, errNoMX)
	}
	return hosts, nil
}

// addresses is those of an MX host that are tried, IPv4 and IPv6 by turns, IPv4
// first: more senders have a reputation there. A host name that is an alias is
// followed, although RFC 5321, section 5.1, forbids it: everybody does.
func (d *Direct) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	found, err := d.resolver.LookupNetIP(ctx, "ip", host)
	switch {
	case isNotFound(err), err == nil && len(found) == 0:
		return nil, errNoMX
	case err != nil:
		return nil, err
	}
	var v4, v6, turns []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	for i := 0; i < max(len(v4), len(v6)) && len(turns) < maxMXAddresses; i++ {
		turns = append(turns, v4[min(i, len(v4)):min(i+1, len(v4))]...)
		turns = append(turns, v6[min(i, len(v6)):min(i+1, len(v6))]...)
	}
	return turns[:min(len(turns), maxMXAddresses)], nil
}

// attempt is the way of one message along the MX hosts.
type attempt struct {
	direct    *Direct
	envelope  Envelope
	message   []byte
	tried     int
	delivered bool
	faults    []error
}

// host tries one MX host, of which left are to come, this one included. It
// reports whether that was the last.
func (a *attempt) host(ctx context.Context, host string, left int) (done bool) {
	addrs, err := a.direct.addresses(ctx, host)
	if err != nil {
		a.faults = append(a.faults, mxError{"mx " + host, err})
		return false
	}
	for i, addr := range addrs {
		if a.tried++; a.tried > maxMXTargets || ctx.Err() != nil {
			return true
		}
		err := a.direct.try(ctx, host, addr, left-1+len(addrs)-i, a.envelope, a.message)
		if err == nil {
			a.delivered = true
			return true
		}
		err = mxError{fmt.Sprintf("mx %s (%s)", host, addr), err}
		if settled(err) {
			a.faults = []error{err} // what others said before does not matter
			return true
		}
		a.faults = append(a.faults, err)
	}
	return false
}

// settled reports whether no other MX host would know better, or may be asked:
// one that works has judged the message, or may have taken it. A server that
// refuses the session as a whole has not.
func settled(err error) bool {
	if r, ok := errors.AsType[*smtpRefusal](err); ok {
		return !r.closing() && (r.command == "MAIL" || r.command == "RCPT" || r.command == "DATA")
	}
	return errors.Is(err, errUnfit) || errors.Is(err, errLost)
}

// try makes one connection, and where TLS fails one more without. targets is how
// many there are to try, this one included.
func (d *Direct) try(ctx context.Context, host string, addr netip.Addr, targets int, e Envelope, message []byte) error {
	share := AttemptTimeout
	if end, ok := ctx.Deadline(); ok {
		share = time.Until(end) / time.Duration(targets)
	}
	until := time.Now().Add(share)
	err := d.send(ctx, host, addr, until, e, message, true)
	if errors.Is(err, errHandshake) && ctx.Err() == nil {
		err = d.send(ctx, host, addr, until, e, message, false)
	}
	return err
}

func (d *Direct) send(ctx context.Context, host string, addr netip.Addr, until time.Time, e Envelope, message []byte, useTLS bool) error {
	dialing, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	raw, err := d.dialer.DialContext(dialing, "tcp", net.JoinHostPort(addr.String(), d.port))
	if err != nil {
		return err
	}
	conn := newSMTPConn(ctx, raw, d.timeout)
	defer conn.Close()
	conn.within(time.Until(until))
	s, err := newSession(conn, conn, d.helo)
	if err != nil {
		return err
	}
	if useTLS && s.offers("STARTTLS") {
		if err := s.startTLS(ctx, opportunistic(host)); err != nil {
			return err
		}
	}
	return s.send(e, message)
}

// mxError is what went wrong with one MX host, at one address or before.
type mxError struct {
	where string
	error
}

func (e mxError) Error() string { return e.where + ": " + printable(e.error.Error(), maxReply) }
func (e mxError) Unwrap() error { return e.error }

// directError is what the attempts at all MX hosts mean together. One that may
// succeed later is enough to try again.
func directError(ctx context.Context, faults []error) *Error {
	e := &Error{Temporary: ctx.Err() != nil}
	if ctx.Err() != nil {
		faults = append(faults, context.Cause(ctx))
	}
	noSuchRecipient := false
	for i, err := range faults {
		reply, replied := errors.AsType[*smtpRefusal](err)
		mx, atMX := errors.AsType[mxError](err)
		switch {
		case replied:
			e.Temporary = e.Temporary || !reply.permanent()
			noSuchRecipient = noSuchRecipient || reply.noSuchRecipient()
		case errors.Is(err, guard.ErrPrivate), errors.Is(err, errUnfit), errors.Is(err, errNullMX), errors.Is(err, errNoMX):
		default:
			e.Temporary = true
		}
		if replied && atMX && i == len(faults)-1 {
			e.Reply = printable(reply.Error(), maxReply)
			faults[i] = errors.New(mx.where + " refused")
		}
	}
	e.NoSuchRecipient = noSuchRecipient && !e.Temporary
	e.Err = errors.Join(faults...)
	return e
}
