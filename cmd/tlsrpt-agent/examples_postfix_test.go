//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/postconf"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// readmeCommands is the commands of a section of examples/postfix/README.md: its
// blocks marked sh. Others are choices, or for people.
func readmeCommands(t *testing.T, heading string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "postfix", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading)
	if !ok {
		t.Fatalf("no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, block := range strings.Split(section, "\n```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		commands = append(commands, strings.Split(block, "\n")...)
	}
	if len(commands) == 0 {
		t.Fatalf("no commands in section %q", heading)
	}
	return commands
}

// The sections of the README.
const (
	readmeKey       = "1. The key"
	readmeNative    = "3. Native"
	readmeLog       = "3. From the log"
	readmeTransport = "4. Report mail"
	readmeLook      = "5. Look"
)

// operator follows the README beside a lab's Postfix.
type operator struct {
	t       *testing.T
	dir     string
	postfix *lab.Postfix
}

// newOperator has the commands of the README in PATH: Postfix's of the lab, ours,
// and a systemctl that does nothing.
func newOperator(t *testing.T, postfix *lab.Postfix) *operator {
	t.Helper()
	postfixCommands(t, postfix)
	o := &operator{t: t, dir: t.TempDir(), postfix: postfix}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"tlsrpt-agent": fmt.Sprintf("%s=\"$*\" exec %s", daemonEnv, program),
		"systemctl":    ":",
	} {
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", o.dir+":"+os.Getenv("PATH"))
	return o
}

func (o *operator) config() string { return filepath.Join(o.dir, "etc/config.toml") }

// follow runs the commands of a section, but for those that begin with without,
// which the section leaves to the operator.
func (o *operator) follow(heading string, without ...string) (out string) {
	o.t.Helper()
	commands := slices.DeleteFunc(readmeCommands(o.t, heading), func(c string) bool {
		return slices.ContainsFunc(without, func(w string) bool { return strings.HasPrefix(c, w) })
	})
	// The lab's Postfix runs in a chroot already.
	script := strings.NewReplacer("/etc/tlsrpt-agent", filepath.Dir(o.config()), "unix - - y - -", "unix - - n - -").
		Replace(strings.Join(commands, "\n"))
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = filepath.Join(examples, "postfix")
	text, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("%s: %v\n%s", script, err, text)
	}
	return string(text)
}

// edit fits the installed example to the lab: its places, and what is added.
func (o *operator) edit(add string, old ...string) {
	o.t.Helper()
	text, err := os.ReadFile(o.config())
	if err != nil {
		o.t.Fatal(err)
	}
	old = append(old, "/etc/tlsrpt-agent", filepath.Dir(o.config()), "localhost:25", lab.SubmitAddr)
	for i := 0; i < len(old); i += 2 {
		if !strings.Contains(string(text), old[i]) {
			o.t.Fatalf("the example has no %q", old[i])
		}
	}
	add += fmt.Sprintf("\n[store]\npath = %q\n", filepath.Join(o.dir, "tlsrpt.db"))
	if err := os.WriteFile(o.config(), []byte(strings.NewReplacer(old...).Replace(string(text))+add), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// publish puts the records of the README into the lab's DNS.
func (o *operator) publish(world *lab.World) {
	o.t.Helper()
	c, err := parseConfig("example", []byte("[organization]\ncontact = \"tls-reports@example.com\"\n[dkim]\nkey = \""+
		filepath.Join(filepath.Dir(o.config()), "credentials/dkim.pem")+"\"\n"))
	if err != nil {
		o.t.Fatal(err)
	}
	keys, err := c.DKIM.keys("example.com")
	if err != nil {
		o.t.Fatal(err)
	}
	world.DNS.SetTXT("example.com", lab.TXT{"v=spf1 mx -all"})
	world.DNS.SetTXT(keys[0].Name(), lab.TXT{keys[0].TXT()[:200], keys[0].TXT()[200:]})
}

// problems is what "check" finds wrong, but for what a lab lacks.
func (o *operator) problems() (found []string) {
	o.t.Helper()
	a := &app{configPath: o.config()}
	for _, f := range a.findings(o.t.Context(), postconf.Command{}) {
		if f.Status == statusProblem && f.Check != "clock" && f.Check != queueSetting {
			found = append(found, f.Check+": "+f.Message)
		}
	}
	return found
}

// TestExampleNative follows the README beside Postfix 3.10, which knows nothing of
// reports before.
func TestExampleNative(t *testing.T) {
	root := lab.Root(t, "trixie")
	if !lab.InNamespace(t) {
		return
	}
	world := lab.New(t, root)
	world.AddDomain(lab.Domain{Name: "good.example.org", TLSRPT: lab.Asks("mailto:tls@good.example.org")})
	postfix := world.StartPostfix("smtp_tls_security_level =", "smtp_tlsrpt_enable = no", "smtp_tlsrpt_socket_name =")
	o := newOperator(t, postfix)
	o.follow(readmeKey)
	o.publish(world)
	o.follow(readmeNative)
	// The user postfix is the root's, and unknown here.
	o.edit("", "/var/spool/postfix/run/tlsrpt/tlsrpt.sock", postfix.SocketPath(), `"0660"`, `"0666"`, `"postfix"`, `""`)
	stop := startDaemon(t, o.config())
	if found := o.problems(); len(found) > 0 {
		t.Errorf("check finds %q", found)
	}
	postfix.Inject("alice@example.com", []string{"bob@good.example.org"})
	postfix.Wait(1)
	stop()
	if got := countedPolicies(t, o.config())["good.example.org"]; got != "no-policy-found 1/0 map[]" {
		t.Errorf("counted %q", got)
	}
}

// fromExampleLog is what that log says of one mail to each domain. Policies are only
// looked up of domains that ask for reports.
var fromExampleLog = map[string]string{
	"good.example.org": "no-policy-found 1/0 map[]",
	"dane.example.net": "no-policy-found 0/1 map[certificate-not-trusted:1]",
	"sts.example.net":  "no-policy-found 0/1 map[certificate-expired:1]",
}

// TestExampleLog follows the README beside Postfix 3.7, which enforces DANE, and,
// by a table that stands for MTA-STS, valid certificates. Its report mail arrives
// where both are broken, and other mail does not.
func TestExampleLog(t *testing.T) {
	root := lab.Root(t, "bookworm")
	if !lab.InNamespace(t) {
		return
	}
	world := lab.New(t, root)
	broken := map[string]*lab.Receiver{
		"dane.example.net": world.AddDomain(lab.Domain{Name: "dane.example.net", TLSA: []string{"3 1 1 " + strings.Repeat("00", 32)}}),
		"sts.example.net":  world.AddDomain(lab.Domain{Name: "sts.example.net", Receiver: lab.Expired, Policy: securePolicy}),
	}
	world.AddDomain(lab.Domain{Name: "good.example.org", TLSRPT: lab.Asks("mailto:tls@dane.example.net,mailto:tls@sts.example.net")})
	postfix := world.StartPostfix("smtp_tls_security_level = dane", "smtp_tls_loglevel = 0")
	o := newOperator(t, postfix)
	o.follow(readmeKey)
	o.publish(world)
	o.follow(readmeLog, "postconf -e smtp_tls_security_level")
	// What enforcing takes, as the README and main-log.cf say.
	mend(t, "postconf -e 'smtp_tls_loglevel=summary, untrusted, certmatch, dane'; postfix reload")
	o.edit("", "/var/log/mail.log", postfix.LogPath(), "dane     = false", "dane     = true", "mta_sts  = false", "mta_sts  = true")
	if found := o.problems(); len(found) != 1 || !strings.HasPrefix(found[0], "sender_dependent_default_transport_maps") {
		t.Errorf("check finds %q", found)
	}
	o.checkAgrees()
	o.follow(readmeTransport)
	if found := o.problems(); len(found) > 0 {
		t.Errorf("check finds %q", found)
	}

	stop := startDaemon(t, o.config())
	for _, to := range []string{"bob@good.example.org", "bob@dane.example.net", "bob@sts.example.net"} {
		postfix.Inject("alice@example.com", []string{to})
		want := map[bool]string{true: "sent", false: "deferred"}[strings.HasSuffix(to, "good.example.org")]
		if d := postfix.Wait(1)[0]; d.Status != want {
			t.Errorf("%+v, want %s", d, want)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); len(countedPolicies(t, o.config())) < 3 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
	}
	stop()
	if got := countedPolicies(t, o.config()); !maps.Equal(got, fromExampleLog) {
		t.Errorf("counted\n%v\nwant\n%v", got, fromExampleLog)
	}
	if err := ageStore(filepath.Join(o.dir, "tlsrpt.db"), 1); err != nil {
		t.Fatal(err)
	}
	stop = startDaemon(t, o.config()) // reads what the log says of report mail
	if code, out, stderr := runCommand(t, "submit", "-c", o.config()); code != exitOK {
		t.Errorf("submit: exit %d: %s%s", code, out, stderr)
	}
	for domain, r := range broken {
		if m := r.WaitMessages(1); m[0].From != "tls-reports@example.com" {
			t.Errorf("%s: mail from %s", domain, m[0].From)
		}
	}
	stop()
	_, out, _ := runCommand(t, "pending", "-c", o.config(), "--json", "--day", schema.DayOf(time.Now()).String())
	if out != "" {
		t.Errorf("the report mail was counted: %s", out)
	}
}

// checkAgrees: the README has the very commands that check prints, but for the
// chroot that a Postfix in a lab lacks.
func (o *operator) checkAgrees() {
	o.t.Helper()
	p, f := askPostfix(o.t.Context(), postconf.Command{})
	if p == nil {
		o.t.Fatal(f)
	}
	p.Chroot = true
	want := strings.Join(readmeCommands(o.t, readmeTransport), "\n")
	expect(o.t, checkReportTransport(p, "tls-reports@example.com"), statusProblem, "TLS-Required", "")
	if got := reportTransport(p, "tls-reports@example.com"); got != want {
		o.t.Errorf("check prints\n%s\nthe README has\n%s", got, want)
	}
}
