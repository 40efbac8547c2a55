package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/postconf"
)

// postfixSettings is what checks want to know of Postfix.
var postfixSettings = []string{
	"daemon_directory", "mail_owner", "maillog_file", "queue_directory",
	"sender_dependent_default_transport_maps", "shlib_directory",
	"smtp_dns_support_level", "smtp_enforce_tls", "smtp_tls_loglevel", "smtp_tls_policy_maps",
	"smtp_tls_security_level", "smtp_tlsrpt_enable", "smtp_tlsrpt_skip_reused_handshakes",
	"smtp_tlsrpt_socket_name", "smtp_use_tls", "syslog_name",
}

// askPostfix reads the settings of Postfix. They are nil if that cannot be done.
func askPostfix(ctx context.Context, command postconf.Command) (*postconf.Settings, finding) {
	const check = "postfix"
	s, err := command.Read(ctx, postfixSettings...)
	switch {
	case errors.Is(err, postconf.ErrNotInstalled):
		return nil, skipped(check, "there is no postconf here: run this command where Postfix is")
	case err != nil:
		return nil, wrong(check, "", "%v", err)
	}
	return s, fine(check, "it is Postfix %s", s.Version)
}

// noPostfix stands for a check of Postfix that has nothing to look at.
func noPostfix(check string) finding {
	return skipped(check, "the settings of Postfix are not known")
}

// A need is a value of a Postfix setting that reports depend on.
type need struct {
	setting string
	good    func(s *postconf.Settings, value string) bool
	value   string // mends it
	why     string // follows "it is ...: "
}

// check holds Postfix to n.
func (n need) check(s *postconf.Settings) finding {
	value := s.Get(n.setting)
	if !n.good(s, value) {
		return wrong(n.setting, s.Set(n.setting, n.value), "it is %q: %s", value, n.why)
	}
	return fine(n.setting, "%s", value)
}

// is makes a need's good of one value.
func is(want string) func(*postconf.Settings, string) bool {
	return func(_ *postconf.Settings, value string) bool { return value == want }
}

// isNot makes a need's good of all values but one.
func isNot(no string) func(*postconf.Settings, string) bool {
	return func(_ *postconf.Settings, value string) bool { return value != no }
}

// eventNeeds is what makes Postfix 3.10 and newer send an event per session.
var eventNeeds = []need{
	{"smtp_tlsrpt_enable", is("yes"), "yes", "Postfix sends no events"},
	{"smtp_tlsrpt_skip_reused_handshakes", is("no"), "no", "resumed TLS sessions, much of real traffic, are not counted"},
	{"smtp_tls_security_level", isSecured, "may", "Postfix sends no events, whatever smtp_tls_policy_maps says"},
	{"smtp_dns_support_level", isNot("disabled"), "enabled", "without DNS, Postfix sends no events"},
	{"smtp_tls_loglevel", hidesUntrusted, "1", "with \"untrusted\", Postfix reports failures of mail that it delivered"},
}

func isSecured(_ *postconf.Settings, level string) bool { return level != "" && level != "none" }

// hidesUntrusted: from 3.10 on that word changes what is reported, not only what
// is logged.
func hidesUntrusted(_ *postconf.Settings, level string) bool {
	words, _ := logWords(level)
	return !words["untrusted"]
}

// checkEvents holds Postfix to what libtlsrpt sources need.
func checkEvents(p *postconf.Settings) []finding {
	const check = "smtp_tlsrpt_enable"
	switch {
	case p == nil:
		return []finding{noPostfix(check)}
	case p.Version.Before(3, 10, 0):
		return []finding{wrong(check, logSourceLines(p), "Postfix %s sends no events, 3.10 is the first that does: read its log", p.Version)}
	case !p.Known(check), builtWithout(p):
		return []finding{wrong(check, logSourceLines(p), "this Postfix was built without libtlsrpt and sends no events: read its log")}
	}
	var found []finding
	for _, n := range eventNeeds {
		found = append(found, n.check(p))
	}
	return found
}

// builtWithout reports whether the program that makes the events is there without
// a trace of libtlsrpt: the library of smtp(8), or smtp(8) itself where it has
// none. Postfix may have the settings all the same.
func builtWithout(p *postconf.Settings) bool {
	file := filepath.Join(p.Get("shlib_directory"), "libpostfix-tls.so")
	if p.Get("shlib_directory") == "no" {
		file = filepath.Join(p.Get("daemon_directory"), "smtp")
	}
	program, err := readProgram(file)
	return err == nil && !bytes.Contains(program, []byte("libtlsrpt")) && !bytes.Contains(program, []byte("TLSRPT: status="))
}

// maxProgram is more than Postfix's programs have, debugging symbols aside.
const maxProgram = 16 << 20

func readProgram(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxProgram))
}

// logSourceLines is a source that reads the log of this Postfix, or, if p is nil,
// of any.
func logSourceLines(p *postconf.Settings) string {
	if p == nil {
		return "[[source.postfix_log]]\njournal = true   # or the path where Postfix logs"
	}
	if file := p.Get("maillog_file"); strings.HasPrefix(file, "/") && file != "/dev/stdout" {
		return fmt.Sprintf("[[source.postfix_log]]\npath = %q", file)
	}
	return "[[source.postfix_log]]\njournal = true   # or path = \"/var/log/mail.log\""
}

// checkReportMail: report mail must arrive although TLS is broken, and must not
// be reported in turn (RFC 8460, sections 3 and 5.3.1). From 3.10.4 on Postfix
// does both for the header TLS-Required: No; an older one needs a transport.
func (c *config) checkReportMail(p *postconf.Settings) []finding {
	const check = "sender_dependent_default_transport_maps"
	from := c.reportSender()
	if c.Mail.Via == "" || from == "" {
		return nil // no report is mailed
	}
	if c.Mail.Via == viaMX {
		return nil // no MTA delivers it
	}
	if _, sendmail := c.Mail.sendmail(); !sendmail && !isLocalRelay(c.Mail.Via) {
		return []finding{skipped(check, "%s is not the Postfix of this host: it must deliver report mail although TLS fails", c.Mail.Via)}
	}
	if p == nil {
		return []finding{noPostfix(check)}
	}
	return []finding{checkReportTransport(p, from)}
}

func checkReportTransport(p *postconf.Settings, from string) finding {
	const check = "sender_dependent_default_transport_maps"
	maps := p.Get(check)
	switch {
	case !p.Version.Before(3, 10, 4):
		return fine(check, "not needed: Postfix %s heeds TLS-Required: No", p.Version)
	case strings.Contains(maps, from):
		return fine(check, "%s", maps)
	case maps != "":
		return fine(check, "it is set; make sure that it gives %s a transport of level may", from)
	case !p.Version.Before(3, 10, 0):
		return wrong(check, reportTransport(p, from), "Postfix %s makes events of report mail too, so each report causes one the next day", p.Version)
	case isSecured(p, p.Get("smtp_tls_security_level")) && p.Get("smtp_tls_security_level") != "may" || p.Get("smtp_tls_policy_maps") != "":
		return wrong(check, reportTransport(p, from), "Postfix %s does not know TLS-Required: No, and would hold back report mail to domains whose TLS is broken", p.Version)
	}
	return fine(check, "not needed: no domain's TLS is enforced")
}

// reportTransport is the commands that give report mail a transport of its own.
func reportTransport(p *postconf.Settings, from string) string {
	chroot := map[bool]string{true: "y", false: "n"}[p.Chroot]
	lines := []string{
		"postconf -M 'tlsrpt/unix=tlsrpt unix - - " + chroot + " - - smtp'",
		"postconf -P tlsrpt/unix/syslog_name=postfix-tlsrpt",
		"postconf -P tlsrpt/unix/smtp_tls_security_level=may",
		"postconf -P tlsrpt/unix/smtp_tls_policy_maps=",
	}
	if p.Known("smtp_tlsrpt_enable") {
		lines = append(lines, "postconf -P tlsrpt/unix/smtp_tlsrpt_enable=no")
	}
	return strings.Join(append(lines,
		"postconf -e 'sender_dependent_default_transport_maps=inline:{"+from+"=tlsrpt:}'", "postfix reload"), "\n")
}

// reportSender is the envelope sender of report mail, "" if there is none.
func (c *config) reportSender() string {
	if c.Mail.From != "" {
		return c.Mail.From
	}
	return c.Organization.Contact
}

// isLocalRelay reports whether via is a relay on this host.
func isLocalRelay(via string) bool {
	u, err := url.Parse(via)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}

// checkClock: days are told apart by the clock, and signatures carry its time.
func checkClock(synchronised bool, err error) finding {
	const check = "clock"
	switch {
	case err != nil:
		return skipped(check, "whether it is synchronised is not known: %v", err)
	case !synchronised:
		return wrong(check, "timedatectl set-ntp true   # or install chrony", "it is not synchronised: sessions may count for the wrong day")
	}
	return fine(check, "it is synchronised")
}
