//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/postconf"
)

// postfixCommands puts the commands of a lab's Postfix into PATH. Paths that they
// print are those outside of the root.
func postfixCommands(t *testing.T, postfix *lab.Postfix) {
	t.Helper()
	bin, in := t.TempDir(), filepath.Dir(postfix.LogPath())
	for _, name := range []string{"postconf", "postfix"} {
		script := fmt.Sprintf("#!/bin/sh\nout=$(chroot %s /usr/sbin/%s -c /lab/conf \"$@\") || exit\nprintf '%%s\\n' \"$out\" | sed 's|= /lab/|= %s/|'\n",
			filepath.Dir(in), name, in)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// TestBuiltWith: Debian's Postfix 3.10 is built with libtlsrpt.
func TestBuiltWith(t *testing.T) {
	root := lab.Root(t, "trixie")
	dir := filepath.Join(root, "usr/lib/postfix")
	p := fakePostfix(t, "3.10.13", "daemon_directory="+filepath.Join(dir, "sbin"), "shlib_directory="+dir)
	expect(t, checkEvents(p)[0], statusOK, "yes", "")
	p = fakePostfix(t, "3.10.13", "daemon_directory="+filepath.Join(dir, "sbin"), "shlib_directory=no")
	expect(t, checkEvents(p)[0], statusProblem, "without libtlsrpt", "postfix_log")
}

// mend does what a finding says.
func mend(t *testing.T, commands string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", commands).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

// TestCheckPostfix: what check prints mends a real Postfix 3.10.
func TestCheckPostfix(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	world := lab.New(t, root)
	world.AddDomain(lab.Domain{Name: "broken.example.net", Receiver: lab.Expired, Policy: securePolicy, TLSRPT: lab.Asks("mailto:tls@broken.example.net")})
	postfix := world.StartPostfix("smtp_tlsrpt_enable = no", "smtp_tlsrpt_skip_reused_handshakes = yes",
		"smtp_tlsrpt_socket_name = run/other", "smtp_tls_security_level = none", "smtp_tls_loglevel = summary, untrusted")
	postfixCommands(t, postfix)
	read := func() *postconf.Settings {
		t.Helper()
		p, f := askPostfix(t.Context(), postconf.Command{})
		if p == nil {
			t.Fatal(f)
		}
		return p
	}
	sources := []libtlsrptConfig{{Socket: postfix.SocketPath()}}
	look := func() []finding {
		t.Helper()
		p := read()
		return append(checkEvents(p), checkSocketName(sources, p))
	}
	mended := 0
	for _, f := range look() {
		if f.Status == statusProblem {
			mend(t, f.Mend)
			mended++
		}
	}
	if mended != 5 {
		t.Errorf("%d problems, want 5", mended)
	}
	for _, f := range look() {
		expect(t, f, statusOK, "", "")
	}
	// master.cf wins over main.cf, and is mended where it does.
	mend(t, "postconf -P smtp/unix/smtp_tlsrpt_enable=no")
	f := checkEvents(read())[0]
	expect(t, f, statusProblem, "no events", "postconf -P smtp/unix/smtp_tlsrpt_enable=yes")
	mend(t, f.Mend)
	expect(t, checkEvents(read())[0], statusOK, "yes", "")
	checkTransportWorks(t, postfix, read())
}

// checkTransportWorks: with the transport that an older Postfix is told to have,
// report mail is delivered although TLS is broken, and other mail is not.
func checkTransportWorks(t *testing.T, postfix *lab.Postfix, p *postconf.Settings) {
	t.Helper()
	p.Version = postconf.Version{Major: 3, Minor: 10, Patch: 3} // as if
	f := checkReportTransport(p, "tls-reports@example.com")
	expect(t, f, statusProblem, "3.10.3", "postconf -M")
	mend(t, f.Mend)
	for _, c := range []struct{ from, want string }{{"alice@example.com", "deferred"}, {"tls-reports@example.com", "sent"}} {
		postfix.Inject(c.from, []string{"tls@broken.example.net"})
		if d := postfix.Wait(1)[0]; d.Status != c.want {
			t.Errorf("mail from %s: %+v, want %s", c.from, d, c.want)
		}
	}
	if !strings.Contains(postfix.Log(), "postfix-tlsrpt/smtp[") {
		t.Error("the transport has no syslog name of its own")
	}
	now, problem := askPostfix(t.Context(), postconf.Command{})
	if now == nil {
		t.Fatal(problem)
	}
	now.Version = p.Version
	expect(t, checkReportTransport(now, "tls-reports@example.com"), statusOK, "inline:", "")
}
