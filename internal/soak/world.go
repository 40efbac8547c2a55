//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
)

const (
	socketDomains = 60
	logDomains    = 60

	excluded = "d0.example.com"
	refusing = "d1.example.com" // its mailbox does not exist
	folded   = "folded.example" // each session has a policy of its own
)

// neverResolves is a domain of the log whose record cannot be looked up.
var neverResolves = loggen.Domain(2)

// asking is every domain that asks for reports but those of kills.
func asking() (domains []string) {
	for i := range socketDomains {
		if i%4 != 3 {
			domains = append(domains, fmt.Sprintf("d%d.example.com", i))
		}
	}
	for i := 0; i < logDomains; i += 2 {
		domains = append(domains, loggen.Domain(i))
	}
	return append(domains, folded)
}

// startWorld starts the receivers, and writes the configuration and a key.
func (s *soak) startWorld() (err error) {
	if s.world, err = receiver.Start(receiver.Options{}); err != nil {
		return err
	}
	for i := range logDomains {
		s.world.Zone.SetMX(loggen.Domain(i), loggen.MX(loggen.Domain(i)))
	}
	for i, domain := range asking() {
		s.publish(domain, i%2 == 0)
	}
	s.world.Zone.Fault("_smtp._tls."+neverResolves, receiver.DNSFault{Rcode: dns.RcodeServerFailure})
	out, err := exec.CommandContext(s.ctx, s.agent, "keygen", "--domain", "example.com", "--selector", "tlsrpt", s.path("dkim.pem")).Output()
	if err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	record, _, _ := strings.Cut(string(out), "\n")
	name, txt, _ := strings.Cut(record, ". IN TXT (")
	s.world.Zone.SetTXT(name, strings.TrimSpace(strings.NewReplacer(`" "`, "", `"`, "", ")", "").Replace(txt)))
	if err := os.WriteFile(s.path("ca.pem"), s.world.HTTPS.CAPEM(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.path("config.toml"), fmt.Appendf(nil, settings, s.path("tlsrpt.db"), s.path("s"), s.path("mail.log"),
		s.path("late.log"), s.world.Zone.Addr(), s.world.SMTP.Addr(), s.path("dkim.pem"), s.path("ca.pem"), s.world.HTTPS.Port(), excluded), 0o600)
}

// settings have a schedule that comes to a run once a year: days are submitted by the
// command, beside the daemon, which plans and delivers with it.
const settings = `
[organization]
name = "Example Inc."
contact = "tls-reports@example.com"
[store]
path = %q
[[source.libtlsrpt]]
socket = %q
[[source.postfix_log]]
path = %q
[[source.postfix_log]]
path = %q
[dns]
servers = [%q]
[mail]
via = "smtp://%s"
helo = "out.example.com"
[dkim]
key = %q
[https]
ca_file = %q
ports = [443, %d]
[submit]
schedule = "0 0 1 7 *"
spread = "0s"
grace = "0s"
allow_private = true
exclude_domains = [%q]
`

func (s *soak) path(name string) string { return filepath.Join(s.dir, name) }

// publish makes the record of a domain, by mail or HTTPS.
func (s *soak) publish(domain string, https bool) {
	rua := "mailto:tls@" + domain
	if https && domain != refusing {
		rua = s.world.URL("/" + domain)
	}
	s.world.Publish(domain, "v=TLSRPTv1; rua="+rua)
}

// flaky has the world refuse, delay and lose things for the next day.
func (s *soak) flaky() {
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
	unknown := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	for i, domain := range asking() {
		name := "_smtp._tls." + domain
		switch s.rand.IntN(8) {
		case 0:
			if i < socketDomains*3/4 { // logs are read with the help of DNS
				s.world.Zone.Fault(name, receiver.DNSFault{Rcode: dns.RcodeServerFailure, Times: 1 + s.rand.IntN(3)})
			}
		case 1:
			if domain != neverResolves {
				s.world.Zone.Fault(name, receiver.DNSFault{Truncate: true, Times: 2})
			}
		case 2:
			s.world.SMTP.Script(receiver.AtRCPT, "tls@"+domain, later, later)
			s.world.HTTPS.Script("/"+domain, receiver.HTTPReply{Status: 503}, receiver.HTTPReply{Status: 429, RetryAfter: "600"})
		case 3:
			s.world.SMTP.Script(receiver.AtDATA, "tls@"+domain, later)
			s.world.HTTPS.Script("/"+domain, receiver.HTTPReply{Status: 500, Body: "\x1b[31mno"})
		}
	}
	s.world.SMTP.Script(receiver.AtRCPT, "tls@"+refusing, unknown, unknown, unknown, unknown, unknown)
}

// collect adds what arrived since the last call to the ledger, and complains of
// what a strict receiver finds wrong in it.
func (s *soak) collect() {
	posts, mails := s.world.HTTPS.Received(), s.world.SMTP.Received()
	ids := map[string][]byte{}
	add := func(domain string, r receiver.Report) {
		if len(r.Problems) > 0 {
			s.fault("the report %s has problems: %q", r.ReportID, r.Problems)
		}
		if text, again := ids[r.ReportID]; again {
			s.ledger.twice++
			if !bytes.Equal(text, r.JSON) {
				s.fault("%s: two reports have the id %s", domain, r.ReportID)
			}
			return
		}
		ids[r.ReportID] = r.JSON
		s.ledger.reports++
		s.ledger.reported[domain] += r.Sessions.Success + r.Sessions.Failure
	}
	for _, p := range posts[s.posts:] {
		if p.Accepted() {
			add(p.URL[strings.LastIndexByte(p.URL, '/')+1:], receiver.CheckPost(p, s.world.Zone.LookupTXT))
		}
	}
	for _, m := range mails[s.mails:] {
		if m.Accepted() {
			r := receiver.CheckMail(m, s.world.Zone.LookupTXT)
			add(r.Domain, r)
		}
	}
	s.posts, s.mails = len(posts), len(mails)
}
