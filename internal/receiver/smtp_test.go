package receiver

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

func startSMTP(t *testing.T, o SMTPOptions) *SMTP {
	t.Helper()
	s, err := StartSMTP(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// certified is a TLS configuration for mx.example.org and one that trusts it.
func certified(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("mx.example.org")
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, &tls.Config{RootCAs: ca.Pool(), ServerName: "mx.example.org"}
}

func connected(t *testing.T, c *smtp.Client, err error) *smtp.Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Hello("client.example.com"); err != nil {
		t.Fatal(err)
	}
	return c
}

func dialPlain(t *testing.T, s *SMTP) *smtp.Client {
	t.Helper()
	c, err := smtp.Dial(s.Addr())
	return connected(t, c, err)
}

const text = "Subject: x\r\n\r\n.dot\r\nend\r\n"

func submit(c *smtp.Client, from string, to ...string) error {
	return c.SendMail(from, to, strings.NewReader(text))
}

func TestSMTPKeepsMessages(t *testing.T) {
	s := startSMTP(t, SMTPOptions{})
	c := dialPlain(t, s)
	if err := submit(c, "a@example.com", "b@example.org", "c@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := submit(c, "", "d@example.org"); err != nil {
		t.Fatal(err)
	}
	all := s.Received()
	if len(all) != 2 {
		t.Fatalf("%d messages, want 2", len(all))
	}
	m := all[0]
	if m.Helo != "client.example.com" || m.Sender != "a@example.com" || !slices.Equal(m.To, []string{"b@example.org", "c@example.org"}) ||
		string(m.Data) != text || m.TLS || m.User != "" || !m.Accepted() || m.Time.IsZero() {
		t.Errorf("received %+v", m)
	}
	if m := all[1]; m.Sender != "" || !slices.Equal(m.To, []string{"d@example.org"}) {
		t.Errorf("received %+v", m)
	}
}

func TestSMTPScript(t *testing.T) {
	s := startSMTP(t, SMTPOptions{})
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted"}
	never := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	full := &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 2, 2}, Message: "full"}
	s.Script(AtMAIL, "a@example.com", later)
	s.Script(AtRCPT, "b@example.org", later, nil, never)
	s.Script(AtDATA, "b@example.org", full)
	for i, want := range []*smtp.SMTPError{
		later, // MAIL
		later, // RCPT
		full,  // RCPT accepts, DATA does not
		never, // RCPT
		nil,   // both scripts are over
	} {
		c := dialPlain(t, s)
		err := submit(c, "a@example.com", "b@example.org")
		got, _ := errors.AsType[*smtp.SMTPError](err)
		switch {
		case want == nil && err != nil:
			t.Errorf("attempt %d: %v", i, err)
		case want != nil && (got == nil || got.Code != want.Code || got.EnhancedCode != want.EnhancedCode || got.Message != want.Message):
			t.Errorf("attempt %d: %v, want %v", i, err, want)
		}
	}
	all := s.Received()
	if len(all) != 2 || all[0].Accepted() || all[0].Reply.Code != 552 || !all[1].Accepted() {
		t.Errorf("received %+v, want one refused after DATA and one accepted", all)
	}
}

func TestSMTPScriptOfOneRecipient(t *testing.T) {
	s := startSMTP(t, SMTPOptions{})
	s.Script(AtRCPT, "b@example.org", &smtp.SMTPError{Code: 550, Message: "no"})
	c := dialPlain(t, s)
	if err := c.Mail("a@example.com", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("b@example.org", nil); err == nil {
		t.Error("the recipient was accepted")
	}
	if err := c.Rcpt("c@example.org", nil); err != nil {
		t.Error(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if all := s.Received(); len(all) != 1 || !slices.Equal(all[0].To, []string{"c@example.org"}) {
		t.Errorf("received %+v", all)
	}
}

func TestSMTPStartTLS(t *testing.T) {
	server, trusted := certified(t)
	s := startSMTP(t, SMTPOptions{TLS: server})
	c, err := smtp.DialStartTLS(s.Addr(), trusted)
	if err := submit(connected(t, c, err), "a@example.com", "b@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := submit(dialPlain(t, s), "a@example.com", "b@example.org"); err != nil {
		t.Fatal(err) // offered, not demanded
	}
	if all := s.Received(); len(all) != 2 || !all[0].TLS || all[1].TLS {
		t.Errorf("received %+v, want one by TLS and one without", all)
	}
}

func TestSMTPImplicitTLS(t *testing.T) {
	server, trusted := certified(t)
	s := startSMTP(t, SMTPOptions{TLS: server, Implicit: true})
	c, err := smtp.DialTLS(s.Addr(), trusted)
	if err := submit(connected(t, c, err), "a@example.com", "b@example.org"); err != nil {
		t.Fatal(err)
	}
	if all := s.Received(); len(all) != 1 || !all[0].TLS {
		t.Errorf("received %+v", all)
	}
	if s, err := StartSMTP(SMTPOptions{Implicit: true}); err == nil {
		s.Close()
		t.Error("implicit TLS without a configuration was accepted")
	}
}

func TestSMTPAuth(t *testing.T) {
	server, trusted := certified(t)
	for _, o := range []SMTPOptions{
		{User: "user", Password: "secret"},
		{User: "user", Password: "secret", TLS: server},
	} {
		s := startSMTP(t, o)
		dial := func() *smtp.Client {
			if o.TLS == nil {
				return dialPlain(t, s)
			}
			c, err := smtp.DialStartTLS(s.Addr(), trusted)
			return connected(t, c, err)
		}
		if err := submit(dial(), "a@example.com", "b@example.org"); err == nil {
			t.Error("mail without AUTH was accepted")
		}
		if err := dial().Auth(sasl.NewPlainClient("", "user", "wrong")); err == nil {
			t.Error("the wrong password was accepted")
		}
		if err := dial().Auth(sasl.NewAnonymousClient("x")); err == nil {
			t.Error("another mechanism was accepted")
		}
		c := dial()
		if err := c.Auth(sasl.NewPlainClient("", "user", "secret")); err != nil {
			t.Fatal(err)
		}
		if err := submit(c, "a@example.com", "b@example.org"); err != nil {
			t.Fatal(err)
		}
		if all := s.Received(); len(all) != 1 || all[0].User != "user" {
			t.Errorf("received %+v", all)
		}
	}
	s := startSMTP(t, SMTPOptions{User: "user", Password: "secret", TLS: server})
	if ok, _ := dialPlain(t, s).Extension("AUTH"); ok {
		t.Error("AUTH is offered outside TLS")
	}
	if ok, _ := dialPlain(t, startSMTP(t, SMTPOptions{})).Extension("AUTH"); ok {
		t.Error("AUTH is offered without a user")
	}
}

func TestSMTPClose(t *testing.T) {
	s := startSMTP(t, SMTPOptions{})
	c := dialPlain(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Noop(); err == nil {
		t.Error("the connection is still there")
	}
	if list, err := s.Wait(t.Context(), 0); len(list) != 0 || err != nil {
		t.Errorf("got %d, %v", len(list), err)
	}
}
