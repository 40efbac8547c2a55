//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// SubmitAddr is where Postfix takes mail, without TLS or authentication.
const SubmitAddr = "127.0.0.1:2525"

// Postfix is a running Postfix of a world.
type Postfix struct {
	t    testing.TB
	dir  string // the lab's folder, as seen from outside the root
	seen int    // deliveries that Wait has returned
}

// mainCF has everything below /lab. Nothing is tried twice unless told to, no
// connection or TLS session is used twice, and so each message is a session.
const mainCF = `
compatibility_level = 3.6
meta_directory = /etc/postfix
queue_directory = /lab/queue
data_directory = /lab/data
maillog_file = /lab/maillog
maillog_file_prefixes = /lab
myhostname = out.example.net
mydestination =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = all
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtp_bind_address = 198.51.100.5
smtp_bind_address6 = 2001:db8:5::5
smtp_host_lookup = dns
smtp_dns_support_level = dnssec
smtp_connect_timeout = 5s
smtp_starttls_timeout = 5s
smtp_connection_cache_on_demand = no
smtp_tls_security_level = may
smtp_tls_policy_maps = texthash:/lab/conf/tls_policy
smtp_tls_CAfile = /lab/ca.pem
smtp_tls_loglevel = 1
smtp_tls_session_cache_database =
smtp_tlsrpt_enable = yes
smtp_tlsrpt_socket_name = run/tlsrpt/tlsrpt.sock
queue_run_delay = 1h
minimal_backoff_time = 1s
maximal_backoff_time = 2s
`

// masterCF has the services that relaying takes, none in a chroot of its own.
const masterCF = `
127.0.0.1:2525 inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
`

// StartPostfix starts the Postfix of the world's root with the policies of the
// domains so far. Lines of main.cf, "name = value", may be added and win over
// ours.
func (w *World) StartPostfix(main ...string) *Postfix {
	w.t.Helper()
	p := &Postfix{t: w.t, dir: w.dir}
	if n := len(p.SocketPath()); n > 107 {
		p.t.Fatalf("lab: %d bytes are too long for a socket, set TLSRPT_TEST_CACHE: %s", n, p.SocketPath())
	}
	for _, dir := range []string{"conf", "data", "queue/run/tlsrpt"} {
		check(p.t, os.MkdirAll(filepath.Join(p.dir, dir), 0o755))
	}
	for name, text := range map[string]string{
		"main.cf":    mainWith(main),
		"master.cf":  masterCF,
		"tls_policy": strings.Join(w.policies, ""),
	} {
		check(p.t, os.WriteFile(filepath.Join(p.dir, "conf", name), []byte(text), 0o644))
	}
	p.run("/bin/chown", "postfix", "/lab/data")
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("lab: what Postfix logged:\n%s", p.Log())
		}
	})
	p.Start()
	// Processes end with the namespace, but the log should end in peace.
	p.t.Cleanup(p.Stop)
	return p
}

// mainWith is mainCF with lines added. What they set is left out before, or
// Postfix would warn about it in every process.
func mainWith(lines []string) string {
	set := map[string]bool{}
	for _, line := range lines {
		set[setting(line)] = true
	}
	var b strings.Builder
	for line := range strings.Lines(mainCF) {
		if !set[setting(line)] {
			b.WriteString(line)
		}
	}
	return b.String() + strings.Join(lines, "\n") + "\n"
}

// setting is the name in a line "name = value".
func setting(line string) string {
	name, _, _ := strings.Cut(line, "=")
	return strings.TrimSpace(name)
}

// Start starts Postfix again after [Postfix.Stop].
func (p *Postfix) Start() {
	p.t.Helper()
	p.run("/usr/sbin/postfix", "-c", "/lab/conf", "start")
}

// Stop stops Postfix. It may be stopped already.
func (p *Postfix) Stop() {
	_, _ = p.command("/usr/sbin/postfix", "-c", "/lab/conf", "stop")
}

// Flush tries all deferred mail again.
func (p *Postfix) Flush() {
	p.t.Helper()
	p.run("/usr/sbin/postqueue", "-c", "/lab/conf", "-f")
}

// Idle reports whether no mail waits in the queue.
func (p *Postfix) Idle() bool {
	p.t.Helper()
	out, err := p.command("/usr/sbin/postqueue", "-c", "/lab/conf", "-j")
	check(p.t, err)
	return len(bytes.TrimSpace(out)) == 0
}

// command runs a command in the root and is what it printed.
func (p *Postfix) command(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: filepath.Dir(p.dir)}
	// A file, because daemons keep their output open: a pipe would never end.
	out, err := os.CreateTemp(p.dir, "output")
	check(p.t, err)
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	printed, _ := os.ReadFile(out.Name())
	return printed, err
}

func (p *Postfix) run(name string, args ...string) {
	p.t.Helper()
	if out, err := p.command(name, args...); err != nil {
		p.t.Fatalf("lab: %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// SocketPath is where Postfix sends its TLSRPT events: bind a datagram socket
// to it that the user postfix of the root may write to.
func (p *Postfix) SocketPath() string {
	return filepath.Join(p.dir, "queue/run/tlsrpt/tlsrpt.sock")
}

// LogPath is the file that Postfix logs to.
func (p *Postfix) LogPath() string { return filepath.Join(p.dir, "maillog") }

// Log is all that Postfix has logged, "" if nothing.
func (p *Postfix) Log() string {
	text, err := os.ReadFile(p.LogPath())
	if err != nil && !os.IsNotExist(err) {
		p.t.Errorf("lab: %v", err)
	}
	return string(text)
}

// Inject hands Postfix a message. Headers are lines such as
// "TLS-Required: No".
func (p *Postfix) Inject(from string, rcpt []string, headers ...string) {
	p.t.Helper()
	var msg bytes.Buffer
	headers = append(headers, "From: <"+from+">", "To: undisclosed-recipients:;", "Subject: lab")
	for _, h := range headers {
		fmt.Fprintf(&msg, "%s\r\n", h)
	}
	msg.WriteString("\r\nA message of the lab.\r\n")
	p.InjectMessage(from, rcpt, msg.Bytes())
}

// InjectMessage hands Postfix a message of the test's own, with CRLF.
func (p *Postfix) InjectMessage(from string, rcpt []string, msg []byte) {
	p.t.Helper()
	check(p.t, smtp.SendMail(SubmitAddr, nil, from, rcpt, msg))
}

// Delivery is how one attempt to deliver to one recipient ended.
type Delivery struct {
	To     string // the recipient
	Relay  string // "host[address]:port", or "none"
	Status string // sent, deferred, bounced, expired
	Reason string
}

var deliveryLine = regexp.MustCompile(`(?m)^.*?/(?:smtp|error|retry)\[\d+\]: \w+: to=<(.*?)>,.* relay=(.*?),.* status=(\w+) \((.*)\)$`)

// Wait waits for the next n deliveries and is these. All their events have been
// sent by then.
func (p *Postfix) Wait(n int) []Delivery {
	p.t.Helper()
	var lines [][]string
	if !poll(func() bool {
		lines = deliveryLine.FindAllStringSubmatch(p.Log(), -1)
		return len(lines) >= p.seen+n
	}) {
		p.t.Fatalf("lab: Postfix made %d deliveries, want %d", len(lines)-p.seen, n)
	}
	var next []Delivery
	for _, f := range lines[p.seen : p.seen+n] {
		next = append(next, Delivery{To: f[1], Relay: f[2], Status: f[3], Reason: f[4]})
	}
	p.seen += n
	return next
}
