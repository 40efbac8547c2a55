package submitter

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// AttemptTimeout bounds one attempt as a whole unless [Submitter.Timeout] says
// otherwise. A caller that leases deliveries does so for longer.
const AttemptTimeout = 10 * time.Minute

// TXTResolver looks up TXT records, the strings of each joined. A [net.Resolver]
// is one.
type TXTResolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// AddressResolver looks up the addresses of a host, as [net.Resolver] does.
type AddressResolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// MXResolver looks up where the mail of a domain goes, as [net.Resolver] does.
type MXResolver interface {
	AddressResolver
	LookupMX(ctx context.Context, domain string) ([]*net.MX, error)
}

// Dialer opens connections, as [net.Dialer] does.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Mailer takes a message for delivery. Its error is an [Error] where it knows
// more than that it failed.
type Mailer interface {
	// Mail hands over one message with CRLF line ends. After nil the message is
	// somebody else's.
	Mail(ctx context.Context, e Envelope, message []byte) error
}

// Envelope is what goes with a message and not into it (RFC 5321, section 3.3).
type Envelope struct {
	From string // addr-spec, where bounces go
	To   string // addr-spec

	// ID is what a bounce names, the ENVID of RFC 3461, section 4.4: at most 100
	// bytes of printable ASCII. "" asks for none.
	ID string
}

// Submitter makes single attempts to deliver reports. The zero value looks up
// records at the servers of /etc/resolv.conf and uploads by HTTPS, unsigned; it
// has nothing to send mail by. It is safe for concurrent use; its fields must
// not change after the first use.
type Submitter struct {
	// Resolver looks up TLSRPT records; nil asks the servers of /etc/resolv.conf.
	Resolver TXTResolver

	// Addresses looks up the hosts of https destinations; nil means the system's
	// resolver.
	Addresses AddressResolver

	// Keys sign: each one every message, in this order, RSA first; the first
	// Ed25519 one, or else the first, every upload. They must be of the submitter.
	Keys []*Key

	// ExternalDKIM says that the relay signs. Without it, and without Keys, mail
	// is not sent: receivers must ignore a report without signature (RFC 8460,
	// section 3).
	ExternalDKIM bool

	// Mail takes reports for mailto destinations; nil refuses them.
	Mail Mailer

	// BounceDelimiter is that of the [ReturnPath] of every mail; "" names the
	// delivery in the ENVID alone. With it, the envelope sender names the delivery
	// beside an ENVID too: the next server may hand on to one that knows no DSN
	// (RFC 3461, section 5.2.7), and what that one returns has no ENVID.
	BounceDelimiter string

	// Dialer connects to https destinations; nil dials public addresses only. One
	// that is given has to refuse the others itself.
	Dialer Dialer

	// AllowPrivate lets the nil Dialer connect to private addresses. For tests.
	AllowPrivate bool

	// Ports are those that an https destination may name; nil means 443 alone. A
	// domain that chose the port could have us knock at any service of anybody.
	Ports []uint16

	// RootCAs verify https destinations; nil means those of the system.
	RootCAs *x509.CertPool

	// RetryInsecure uploads a second time, unverified, where the certificate is
	// not valid.
	RetryInsecure bool

	// Version goes into User-Agent; "" leaves it out.
	Version string

	// Timeout bounds one attempt; 0 means AttemptTimeout.
	Timeout time.Duration

	once               sync.Once
	verified, insecure *http.Client
}

// Discover looks up and reads the TLSRPT record of domain. text is the record
// as it is, also where it is malformed.
//
// The error is [schema.ErrNoRecord], [schema.ErrManyRecords] or
// [schema.ErrRecord]: nothing can be delivered. Or it is temporary, see
// [IsTemporary]: nothing is known.
func (s *Submitter) Discover(ctx context.Context, domain string) (text string, rec schema.Record, err error) {
	defer recovered(&err, "")
	d, err := schema.ParseDomain(domain)
	if err != nil {
		return "", schema.Record{}, err
	}
	txts, err := s.lookupTXT(ctx, schema.RecordName(d))
	if err != nil {
		return "", schema.Record{}, err
	}
	if text, err = schema.SelectRecord(txts); err != nil {
		return "", schema.Record{}, err
	}
	rec, err = schema.ParseRecord(text)
	return text, rec, err
}

func (s *Submitter) lookupTXT(ctx context.Context, name string) ([]string, error) {
	r := s.Resolver
	if r == nil {
		r = (*resolve.Resolver)(nil)
	}
	txts, err := r.LookupTXT(ctx, name)
	if isNotFound(err) {
		return nil, schema.ErrNoRecord
	}
	if err != nil {
		return nil, &Error{Temporary: true, Err: err}
	}
	return txts, nil
}

// isNotFound reports whether a look-up ended in the knowledge that there is
// nothing.
func isNotFound(err error) bool {
	dnsErr, ok := errors.AsType[*net.DNSError](err)
	return ok && dnsErr.IsNotFound || errors.Is(err, resolve.ErrNotFound)
}

// Submit makes one attempt to deliver p to rua. After nil the destination, or
// the relay, has taken it. id names the delivery in what comes back of its mail:
// letters and digits, "" for none. The error is an [*Error].
func (s *Submitter) Submit(ctx context.Context, p Parcel, rua schema.RUA, id string) (err error) {
	defer recovered(&err, rua)
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.Timeout, AttemptTimeout))
	defer cancel()
	if err := p.check(); err != nil {
		return &Error{RUA: rua, Err: err}
	}
	if c, err := schema.ParseRUA(string(rua)); err != nil || c != rua {
		return &Error{RUA: rua, Err: schema.ErrRUA}
	}
	if err := s.checkKeys(&p); err != nil {
		return ours(rua, err)
	}
	if rua.Scheme() == "https" {
		return s.post(ctx, &p, rua)
	}
	return s.mail(ctx, &p, rua, id)
}

// checkKeys refuses what no receiver would accept: a signature by a domain
// other than the submitter.
func (s *Submitter) checkKeys(p *Parcel) error {
	for _, k := range s.Keys {
		if k.domain != p.Submitter {
			return fmt.Errorf("%w: key %s cannot sign for %s", ErrKey, k.Name(), p.Submitter)
		}
	}
	return nil
}

// ours is a fault of our own settings. It may be mended, so it is temporary.
func ours(rua schema.RUA, err error) *Error {
	return &Error{RUA: rua, Temporary: true, Ours: true, Err: err}
}

func (s *Submitter) mail(ctx context.Context, p *Parcel, rua schema.RUA, id string) error {
	if s.Mail == nil {
		return ours(rua, fmt.Errorf("%w for mail is configured", ErrNoTransport))
	}
	msg, err := s.Message(*p, rua)
	if err != nil {
		return ours(rua, err)
	}
	from := ReturnPath{p.Envelope(), s.BounceDelimiter}.With(id)
	if err := s.Mail.Mail(ctx, Envelope{From: from, To: rua.Address(), ID: id}, msg); err != nil {
		return asError(rua, err)
	}
	return nil
}

// Message is the message to a mailto destination, signed, as an attempt would
// send it now.
func (s *Submitter) Message(p Parcel, rua schema.RUA) ([]byte, error) {
	if len(s.Keys) == 0 && !s.ExternalDKIM {
		return nil, fmt.Errorf("%w: nobody signs the mail", ErrNoTransport)
	}
	if err := s.checkKeys(&p); err != nil {
		return nil, err
	}
	msg, err := p.Message(rua.Address())
	if err != nil {
		return nil, err
	}
	return sign(msg, s.Keys)
}

// Close closes idle connections. s can be used again.
func (s *Submitter) Close() {
	s.once.Do(s.newClients)
	s.verified.CloseIdleConnections()
	s.insecure.CloseIdleConnections()
}

// recovered turns a panic into an error: one report must not end all others. It
// may be the fault of a moment, so it is temporary.
func recovered(err *error, rua schema.RUA) {
	if v := recover(); v != nil {
		*err = &Error{RUA: rua, Temporary: true, Err: fmt.Errorf("panic: %v", v)}
	}
}
