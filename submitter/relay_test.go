package submitter

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

const (
	mailbox  = "tls@example.com"
	password = "s3cr3t"
)

// relay is a mail server for tests. It keeps what it gets.
type relay struct {
	mu       sync.Mutex
	login    string   // who authenticated, by what
	helo     []string // the names in EHLO
	secured  bool     // the message came over TLS
	from, to string
	size     int64
	message  []byte

	refuse map[string]*smtp.SMTPError // by command
}

func (r *relay) NewSession(c *smtp.Conn) (smtp.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.helo = append(r.helo, c.Hostname())
	return &relaySession{r, c}, nil
}

type relaySession struct {
	*relay
	conn *smtp.Conn
}

// err is the refusal of command, or nil.
func (s *relaySession) err(command string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.refuse[command]; e != nil {
		return e
	}
	return nil
}

func (s *relaySession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *relaySession) Auth(mech string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if pass != password {
			return smtp.ErrAuthFailed
		}
		s.login = mech + " " + user
		return nil
	}), nil
}

func (s *relaySession) Mail(from string, o *smtp.MailOptions) error {
	s.from, s.size = from, o.Size
	return s.err("MAIL")
}

func (s *relaySession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return s.err("RCPT")
}

func (s *relaySession) Data(r io.Reader) (err error) {
	if err := s.err("DATA"); err != nil {
		return err
	}
	s.message, err = io.ReadAll(r)
	_, s.secured = s.conn.TLSConnectionState()
	return err
}

func (*relaySession) Reset()        {}
func (*relaySession) Logout() error { return nil }

// certificate is one for example.com and 127.0.0.1, and who vouches for it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return srv.TLS.Certificates[0], pool
})

// start runs the relay and returns where. startTLS offers STARTTLS, implicit
// speaks TLS at once.
func (r *relay) start(t *testing.T, startTLS, implicit bool) (addr string) {
	t.Helper()
	cert, _ := certificate()
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(r)
	srv.ErrorLog = log.New(io.Discard, "", 0) // connections end on purpose
	if startTLS {
		srv.TLSConfig = config
	}
	addr = l.Addr().String()
	if implicit {
		l = tls.NewListener(l, config)
	}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); wg.Wait() })
	return addr
}

// elsewhere makes connections look as if they left this host.
type elsewhere struct{ addr string }

func (e elsewhere) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, e.addr)
	if err != nil {
		return nil, err
	}
	return distant{c}, nil
}

type distant struct{ net.Conn }

func (distant) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 25), Port: 25} }

func relayAt(t *testing.T, address, password string, o RelayOptions) *Relay {
	t.Helper()
	if o.HELO == "" {
		o.HELO = "client.example.net"
	}
	if o.RootCAs == nil {
		_, o.RootCAs = certificate()
	}
	r, err := ParseRelay(address, password, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// send makes one attempt by way of a Submitter.
func send(t *testing.T, r *Relay) *Error {
	t.Helper()
	s := &Submitter{Mail: r, ExternalDKIM: true, Timeout: 20 * time.Second}
	err := s.Submit(t.Context(), parcel(t), "mailto:"+mailbox, "")
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	if e.RUA != "mailto:"+mailbox {
		t.Errorf("the error is about %q", e.RUA)
	}
	return e
}

func TestRelay(t *testing.T) {
	for _, c := range []struct {
		scheme             string
		startTLS, implicit bool
		far                bool
		user               string
		secured            bool
	}{
		{scheme: "smtp", startTLS: false},
		{scheme: "smtp", startTLS: true, secured: false}, // on loopback it is not asked for
		{scheme: "smtp", startTLS: true, far: true, secured: true},
		{scheme: "smtp", startTLS: false, far: true},
		{scheme: "submission", startTLS: true, user: "agent", secured: true},
		{scheme: "submission", startTLS: true, secured: true},
		{scheme: "smtps", implicit: true, user: "agent", secured: true},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			server := new(relay)
			addr := server.start(t, c.startTLS, c.implicit)
			target, o, pass := c.scheme+"://", RelayOptions{}, ""
			if c.user != "" {
				target, pass = target+c.user+"@", password
			}
			if c.far {
				o.Dialer = elsewhere{addr}
			}
			if e := send(t, relayAt(t, target+addr, pass, o)); e != nil {
				t.Fatal(e)
			}
			want, err := new(parcel(t)).Message(mailbox)
			if err != nil {
				t.Fatal(err)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			if !bytes.Equal(server.message, want) {
				t.Errorf("the relay got %q, want %q", server.message, want)
			}
			if server.from != from || server.to != mailbox || server.size != int64(len(want)) {
				t.Errorf("envelope %s -> %s, size %d", server.from, server.to, server.size)
			}
			if server.secured != c.secured {
				t.Errorf("over TLS: %t, want %t", server.secured, c.secured)
			}
			for _, name := range server.helo {
				if name != "client.example.net" {
					t.Errorf("EHLO %s", name)
				}
			}
			if login := strings.TrimPrefix(server.login, "PLAIN "); login != c.user {
				t.Errorf("authenticated as %q, want %q", login, c.user)
			}
		})
	}
}

// Only what the relay says about the recipient's address is for good; all else
// is ours.
func TestRelayRefusals(t *testing.T) {
	refusal := func(command string, code int, enhanced ...int) *Error {
		server := &relay{refuse: map[string]*smtp.SMTPError{command: {
			Code: code, EnhancedCode: smtp.EnhancedCode(enhanced), Message: "refused here",
		}}}
		e := send(t, relayAt(t, "smtp://"+server.start(t, false, false), "", RelayOptions{}))
		if e == nil {
			t.Fatalf("%s %d is taken", command, code)
		}
		if want := fmt.Sprintf("%d %d.%d.%d refused here", code, enhanced[0], enhanced[1], enhanced[2]); e.Reply != want {
			t.Errorf("reply %q, want %q", e.Reply, want)
		}
		return e
	}
	permanent := func(command string, code int, enhanced ...int) {
		t.Helper()
		if e := refusal(command, code, enhanced...); e.Temporary || e.Ours || !e.NoSuchRecipient {
			t.Errorf("%s %d %v: %#v", command, code, enhanced, e)
		}
	}
	ours := func(command string, code int, enhanced ...int) {
		t.Helper()
		if e := refusal(command, code, enhanced...); !e.Temporary || !e.Ours || e.NoSuchRecipient {
			t.Errorf("%s %d %v: %#v", command, code, enhanced, e)
		}
	}
	permanent("RCPT", 550, 5, 1, 1)
	permanent("RCPT", 553, 5, 1, 2)
	permanent("RCPT", 501, 5, 1, 3)
	permanent("RCPT", 556, 5, 1, 10) // null MX
	ours("RCPT", 550, 5, 1, 0)       // Postfix: an unknown sender
	ours("RCPT", 550, 5, 1, 7)       // the sender's mailbox
	ours("RCPT", 550, 5, 1, 8)       // the sender's domain
	ours("RCPT", 554, 5, 7, 1)       // relaying denied
	ours("RCPT", 450, 4, 1, 1)
	ours("RCPT", 452, 4, 2, 2)
	ours("MAIL", 550, 5, 1, 1)
	ours("MAIL", 530, 5, 7, 0)
	ours("DATA", 550, 5, 1, 1)
	ours("DATA", 552, 5, 3, 4)
}

func TestRelayTLS(t *testing.T) {
	ours := func(what string, r *Relay) {
		t.Helper()
		if e := send(t, r); e == nil || !e.Temporary || !e.Ours {
			t.Errorf("%s: %v, want a fault of ours", what, e)
		}
	}
	silent := func(what string, server *relay) {
		t.Helper()
		server.mu.Lock()
		defer server.mu.Unlock()
		if server.login != "" || server.message != nil {
			t.Errorf("%s: the relay got the password (%q) or the message (%q)", what, server.login, server.message)
		}
	}
	server := new(relay)
	withTLS, without, implicit := server.start(t, true, false), server.start(t, false, false), server.start(t, false, true)
	o := RelayOptions{RootCAs: x509.NewCertPool()} // which vouches for nobody
	ours("unverified", relayAt(t, "submission://agent@"+withTLS, password, o))
	ours("unverified", relayAt(t, "smtps://agent@"+implicit, password, o))
	ours("not offered", relayAt(t, "submission://agent@"+without, password, RelayOptions{}))
	ours("not TLS", relayAt(t, "smtps://agent@"+without, password, RelayOptions{}))
	ours("another name", relayAt(t, "submission://agent@localhost:25", password, RelayOptions{Dialer: elsewhere{withTLS}}))
	silent("all", server)

	// Where TLS is only asked for, a certificate of nobody will do.
	o.Dialer = elsewhere{withTLS}
	if e := send(t, relayAt(t, "smtp://mail.example.org:25", "", o)); e != nil || !server.secured {
		t.Errorf("%v, over TLS: %t", e, server.secured)
	}
}

func TestRelayAuthFailure(t *testing.T) {
	server := new(relay)
	e := send(t, relayAt(t, "submission://agent@"+server.start(t, true, false), "wr0ng", RelayOptions{}))
	if e == nil || !e.Ours || !e.Temporary || !strings.HasPrefix(e.Reply, "535") {
		t.Fatalf("%#v, want 535", e)
	}
	if strings.Contains(e.Error(), "wr0ng") {
		t.Errorf("the password is in %q", e)
	}
}

func TestNobodyListens(t *testing.T) {
	if e := send(t, relayAt(t, "smtp://127.0.0.1:1", "", RelayOptions{})); e == nil || !e.Ours || !e.Temporary {
		t.Errorf("%v, want a fault of ours", e)
	}
}

func TestParseRelay(t *testing.T) {
	good := func(address, pass, want string) {
		t.Helper()
		r, err := ParseRelay(address, pass, RelayOptions{})
		if err != nil || r.String() != want {
			t.Errorf("%s: %v, %v; want %s", address, r, err, want)
		}
	}
	bad := func(address, pass string) {
		t.Helper()
		r, err := ParseRelay(address, pass, RelayOptions{})
		if !errors.Is(err, ErrRelay) {
			t.Errorf("%s: %v, %v", address, r, err)
		} else if strings.Contains(err.Error(), password) {
			t.Errorf("%s: the error has the password: %v", address, err)
		}
	}
	good("smtp://localhost:25", "", "smtp://localhost:25")
	good("smtp://mail.example.net", "", "smtp://mail.example.net:25")
	good("smtp://[2001:db8::25]:2525/", "", "smtp://[2001:db8::25]:2525")
	good("submission://agent@mail.example.net", password, "submission://mail.example.net:587")
	good("smtps://agent%40example.net@mail.example.net", password, "smtps://mail.example.net:465")
	good("smtps://mail.example.net", "", "smtps://mail.example.net:465") // it knows us by our address
	bad("mail.example.net", "")
	bad("mail.example.net:25", "")
	bad("smtp:mail.example.net", "")
	bad("http://mail.example.net", "")
	bad("smtp://", "")
	bad("smtp://:25", "")
	bad("smtp://mail.example.net:0", "")
	bad("smtp://mail.example.net:99999", "")
	bad("smtp://mail.example.net/path", "")
	bad("smtp://mail.example.net?x=y", "")
	bad("smtp://agent@mail.example.net", "")       // never AUTH
	bad("smtp://mail.example.net", password)       // never AUTH
	bad("submission://agent@mail.example.net", "") // no password
	bad("submission://mail.example.net", password) // no user
	bad("submission://agent:"+password+"@mail.example.net", "")
	bad("submission://agent:"+password+"@mail.example.net\x7f", "") // net/url quotes it
	bad("", "")

	if _, err := ParseRelay("smtp://localhost", "", RelayOptions{HELO: "a b\r\n"}); !errors.Is(err, schema.ErrDomain) {
		t.Errorf("HELO: %v", err)
	}
	if r, err := ParseRelay("smtp://localhost", "", RelayOptions{}); err != nil || r.helo == "" {
		t.Errorf("no HELO name: %v, %v", r, err)
	}
}

func BenchmarkRelay(b *testing.B) {
	server := new(relay)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := smtp.NewServer(server)
	go srv.Serve(l)
	defer srv.Close()
	r, err := ParseRelay("smtp://"+l.Addr().String(), "", RelayOptions{})
	if err != nil {
		b.Fatal(err)
	}
	s, p := &Submitter{Mail: r, Keys: []*Key{newTestKey(b, RSA)}}, parcel(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Submit(b.Context(), p, "mailto:"+mailbox, ""); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
