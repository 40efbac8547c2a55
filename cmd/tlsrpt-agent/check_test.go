package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/postconf"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// expect holds a finding to its status, and to parts of its message and mend.
func expect(t *testing.T, f finding, status, message, mend string) {
	t.Helper()
	if f.Status != status || !strings.Contains(f.Message, message) || !strings.Contains(f.Mend, mend) {
		t.Errorf("%+v, want %s, %q, %q", f, status, message, mend)
	}
	if f.Status == statusOK && mend == "" && f.Mend != "" {
		t.Errorf("%s: nothing is wrong, but mend with %q", f.Check, f.Mend)
	}
}

// fakePostfix is a Postfix of a version with "name=value" set.
func fakePostfix(t *testing.T, version string, set ...string) *postconf.Settings {
	t.Helper()
	values := map[string]string{
		"mail_version": version, "syslog_name": "postfix", "queue_directory": "/var/spool/postfix",
		"smtp_tls_security_level": "may", "smtp_tls_loglevel": "0", "smtp_dns_support_level": "enabled",
	}
	if v, err := postconf.ParseVersion(version); err == nil && !v.Before(3, 10, 0) {
		maps.Copy(values, map[string]string{
			"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_skip_reused_handshakes": "no", "smtp_tlsrpt_socket_name": "run/tlsrpt/tlsrpt.sock",
		})
	}
	for _, s := range set {
		name, value, _ := strings.Cut(s, "=")
		values[name] = value
	}
	p, err := postconf.New(values)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPrintFindings(t *testing.T) {
	found := []finding{
		fine("a.long.name", "all is\nwell\x1b"),
		wrong("b", "do this\nand that", "it is %q", "no"),
		skipped("c", "nobody knows"),
	}
	var out bytes.Buffer
	if err := (&app{stdout: &out}).printFindings(found); err == nil || err.Error() != "there is a problem" {
		t.Error(err)
	}
	const want = `ok       a.long.name  all is; well?
problem  b            it is "no"
                        do this
                        and that
skipped  c            nobody knows
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := (&app{stdout: &out, json: true}).printFindings(append(found, found...)); err == nil || err.Error() != "there are 2 problems" {
		t.Error(err)
	}
	var f finding
	if err := json.Unmarshal([]byte(strings.Split(out.String(), "\n")[1]), &f); err != nil || f != found[1] {
		t.Errorf("%+v (%v)", f, err)
	}
	if err := (&app{stdout: &out}).printFindings([]finding{found[0], found[2]}); err != nil {
		t.Errorf("no problem: %v", err)
	}
}

func TestCheckIdentity(t *testing.T) {
	expect(t, checkContact(""), statusProblem, "not set", "contact =")
	expect(t, checkContact("nobody"), statusProblem, "nobody", "contact =")
	expect(t, checkContact("tls@example.com"), statusOK, "tls@example.com", "")
	expect(t, checkFrom("", "example.com"), statusOK, "", "")
	expect(t, checkFrom("noreply@EXAMPLE.com", "example.com"), statusOK, "", "")
	expect(t, checkFrom("tls@mail.example.com", "example.com"), statusProblem, "not an address in example.com", "tls-reports@example.com")
	relay := func(m mailConfig) finding { return (&config{Mail: m}).checkVia(t.Context()) }
	expect(t, relay(mailConfig{}), statusOK, "HTTPS only", "")
	expect(t, relay(mailConfig{Via: "smtp://localhost:25"}), statusOK, "smtp://localhost:25", "")
	expect(t, relay(mailConfig{Via: "imap://localhost"}), statusProblem, "smtps://", "smtp://")
	expect(t, relay(mailConfig{Via: "smtps://u@example.com", PasswordFile: "/nonexistent"}), statusProblem, "/nonexistent", "")
	signed := func(via string, d dkimConfig) finding {
		return (&config{Mail: mailConfig{Via: via}, DKIM: d}).checkSigned("example.com")
	}
	expect(t, signed("smtp://localhost", dkimConfig{}), statusProblem, "unsigned", "keygen --domain example.com --selector tlsrpt")
	expect(t, signed("smtp://localhost", dkimConfig{External: true}), statusOK, "HTTPS goes unsigned", "keygen")
	expect(t, signed("", dkimConfig{}), statusOK, "HTTPS goes unsigned", "keygen")
	expect(t, signed("smtp://localhost", dkimConfig{Key: "k"}), statusOK, "signed", "")
}

func TestCheckKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode fs.FileMode, text []byte) keySetting {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return keySetting{"dkim.key", path, "tlsrpt"}
	}
	check := func(k keySetting) finding {
		_, f := k.check("example.com")
		return f
	}
	text, err := generate(t, submitter.RSA).PEM()
	if err != nil {
		t.Fatal(err)
	}
	ed, err := generate(t, submitter.Ed25519).PEM()
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	shortText := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(short)})
	expect(t, check(write("good.pem", 0o640, text)), statusOK, "usable", "")
	expect(t, check(write("ed25519.pem", 0o600, ed)), statusOK, "usable", "")
	expect(t, check(write("open.pem", 0o644, text)), statusProblem, "0644", "chmod o= ")
	expect(t, check(write("short.pem", 0o600, shortText)), statusProblem, "1024 bits", "keygen")
	expect(t, check(write("bad.pem", 0o600, []byte("no key"))), statusProblem, "no private key", "keygen")
	expect(t, check(keySetting{"dkim.key", filepath.Join(dir, "none.pem"), "tlsrpt"}), statusProblem, "no such file", "none.pem")
	if n := len((&dkimConfig{Key: "a", Key2: "b"}).settings()); n != 2 {
		t.Errorf("%d of two keys are looked at", n)
	}
}

func generate(t *testing.T, algorithm submitter.Algorithm) *submitter.Key {
	t.Helper()
	key, err := submitter.GenerateKey(algorithm, "example.com", "tlsrpt")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// records is a resolver with the same answer to everything.
type records struct {
	texts []string
	err   error
}

func (r records) LookupTXT(context.Context, string) ([]string, error) { return r.texts, r.err }

func TestCheckKeyRecord(t *testing.T) {
	key := generate(t, submitter.Ed25519)
	p := keyTags(key.TXT())["p"]
	const zone = "tlsrpt._domainkey.example.com. IN TXT ("
	check := func(texts ...string) finding {
		return checkKeyRecord(t.Context(), records{texts: texts}, "dkim.key.record", key)
	}
	good := func(text string) {
		t.Helper()
		expect(t, check(text), statusOK, "published", "")
	}
	bad := func(text, message string) {
		t.Helper()
		expect(t, check(text), statusProblem, message, zone)
	}
	good(key.TXT())
	good("k=ed25519; p=" + p)
	good("v=DKIM1; k=ed25519; s=*; t=s; h=sha256; p=" + p[:10] + " " + p[10:])
	good("v=DKIM1;k=ed25519;s=tlsrpt:email;p=" + p + ";")
	bad("v=DKIM2; k=ed25519; p="+p, "v=DKIM2")
	bad("v=DKIM1; k=ed25519; p=", "revokes")
	bad("v=DKIM1; k=ed25519; p=AAAA", "another key")
	bad("v=DKIM1; p="+p, "another key") // k= is rsa then
	bad("k=ed25519; s=tlsrpt; p="+p, "s=tlsrpt: ordinary verifiers")
	bad("k=ed25519; s=email; p="+p, "s=email: a receiver of reports")
	bad("k=ed25519; t=y:s; p="+p, "t=y")
	bad("k=ed25519; h=sha1; p="+p, "h=sha1")
	expect(t, check(key.TXT(), key.TXT()), statusProblem, "2 TXT records", zone)
	none := records{err: resolve.ErrNotFound}
	expect(t, checkKeyRecord(t.Context(), none, "x", key), statusProblem, "no TXT record", zone)
	broken := records{err: errors.New("SERVFAIL")}
	expect(t, checkKeyRecord(t.Context(), broken, "x", key), statusProblem, "SERVFAIL", "")
	if f := checkKeyRecord(t.Context(), broken, "x", key); f.Mend != "" {
		t.Errorf("a record that may be there is to be published: %s", f.Mend)
	}
}

func TestCheckResolver(t *testing.T) {
	expect(t, checkResolver(t.Context(), records{texts: []string{"x"}}, "example.com"), statusOK, "answers", "")
	expect(t, checkResolver(t.Context(), records{err: resolve.ErrNotFound}, ""), statusOK, "answers", "")
	expect(t, checkResolver(t.Context(), records{err: errors.New("refused")}, ""), statusProblem, `".": refused`, "servers")
	deaf := &resolve.Resolver{Servers: []string{"127.0.0.1:1"}}
	expect(t, checkDNSSEC(t.Context(), deaf), statusProblem, "dane = true needs", "servers")
}

func TestCheckStore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tlsrpt.db")
	expect(t, checkStorePlace(filepath.Join(dir, "a", "b", "tlsrpt.db")), statusOK, "not there yet", "")
	store, err := aggregator.Open(path, aggregator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, checkStoreFile(path), statusOK, "", "") // open, its pages perhaps in the log
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range checkStore(path) {
		expect(t, f, statusOK, "", "")
	}
	expect(t, checkStoreFile(path), statusOK, "schema version ", "")
	expect(t, checkStoreMode(path, 0o644), statusProblem, "0644", "chmod o= "+path)
	expect(t, checkStorePlace(dir), statusProblem, "not a file", "path =")
	other := filepath.Join(dir, "other.db")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	expect(t, checkStoreFile(other), statusOK, "empty", "")
	write("a text")
	expect(t, checkStoreFile(other), statusProblem, "another program", "path =")
	write(sqliteMagic + strings.Repeat("\x00", 200))
	expect(t, checkStoreFile(other), statusProblem, "another program", "path =")
	expect(t, lacksRight("store.path", "/x", "chown 5 /x", fs.ErrPermission), statusProblem, "/x may not be written", "chown 5 /x")
	expect(t, lacksRight("store.path", "/x", "chown 5 /x", errors.ErrUnsupported), statusSkipped, "/x", "")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("files were made: %v (%v)", entries, err)
	}
}

func TestCheckEvents(t *testing.T) {
	statuses := func(p *postconf.Settings) map[string]finding {
		found := map[string]finding{}
		for _, f := range checkEvents(p) {
			found[f.Check] = f
		}
		return found
	}
	for name, f := range statuses(fakePostfix(t, "3.10.4")) {
		if f.Status != statusOK || name == "" {
			t.Errorf("a good Postfix: %+v", f)
		}
	}
	bad := func(set, message, mend string) {
		t.Helper()
		name, _, _ := strings.Cut(set, "=")
		expect(t, statuses(fakePostfix(t, "3.10.4", set))[name], statusProblem, message, mend)
	}
	bad("smtp_tlsrpt_enable=no", "no events", "postconf -e smtp_tlsrpt_enable=yes")
	bad("smtp_tlsrpt_skip_reused_handshakes=yes", "not counted", "postconf -e smtp_tlsrpt_skip_reused_handshakes=no")
	bad("smtp_tls_security_level=", "no events", "postconf -e smtp_tls_security_level=may")
	bad("smtp_tls_security_level=none", "no events", "postconf -e smtp_tls_security_level=may")
	bad("smtp_dns_support_level=disabled", "no events", "postconf -e smtp_dns_support_level=enabled")
	bad("smtp_tls_loglevel=summary, untrusted", "delivered", "postconf -e smtp_tls_loglevel=1")
	old := fakePostfix(t, "3.9.14", "maillog_file=/var/log/postfix.log")
	expect(t, checkEvents(old)[0], statusProblem, "3.9.14 sends no events", `path = "/var/log/postfix.log"`)
	expect(t, checkEvents(fakePostfix(t, "3.7.11"))[0], statusProblem, "read its log", "journal = true")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "smtp"), []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	static, shared := fakePostfix(t, "3.10.4", "daemon_directory="+dir, "shlib_directory=no"), fakePostfix(t, "3.10.4", "shlib_directory="+dir)
	expect(t, checkEvents(static)[0], statusProblem, "without libtlsrpt", "journal = true")
	expect(t, checkEvents(shared)[0], statusOK, "yes", "") // what is not there proves nothing
	if err := os.Rename(filepath.Join(dir, "smtp"), filepath.Join(dir, "libpostfix-tls.so")); err != nil {
		t.Fatal(err)
	}
	expect(t, checkEvents(shared)[0], statusProblem, "without libtlsrpt", "journal = true")
	expect(t, checkEvents(nil)[0], statusSkipped, "not known", "")
}

func TestCheckSocketName(t *testing.T) {
	sources := []libtlsrptConfig{{Socket: "/run/tlsrpt-agent/tlsrpt.sock"}, {Socket: "/var/spool/postfix/run/tlsrpt/tlsrpt.sock"}}
	const inQueue, chrooted = "postconf -e smtp_tlsrpt_socket_name=run/tlsrpt/tlsrpt.sock", true
	check := func(name string, chroot bool, sources ...libtlsrptConfig) finding {
		t.Helper()
		p := fakePostfix(t, "3.10.4", "smtp_tlsrpt_socket_name="+name)
		p.Chroot = chroot
		return checkSocketName(sources, p)
	}
	expect(t, check("run/tlsrpt/tlsrpt.sock", chrooted, sources...), statusOK, "", "")
	expect(t, check(sources[1].Socket, !chrooted, sources...), statusOK, "", "")
	expect(t, check(sources[1].Socket, chrooted, sources[1]), statusProblem, "chroot", inQueue)
	expect(t, check("", chrooted, sources[1]), statusProblem, "not set", inQueue)
	expect(t, check("private/tlsrpt", chrooted, sources[1]), statusProblem, "Postfix's own", inQueue)
	expect(t, check("run/other", chrooted, sources[1]), statusProblem, "/var/spool/postfix/run/other", inQueue)
	expect(t, check("run/other", !chrooted, sources[0]), statusProblem, "listens at", "postconf -e smtp_tlsrpt_socket_name=/run/tlsrpt-agent/tlsrpt.sock")
	expect(t, check("run/other", chrooted, sources[0]), statusProblem, "listens at", `socket = "/var/spool/postfix/run/tlsrpt/tlsrpt.sock"`)
}

func TestCheckSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "check") // short, for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := libtlsrptConfig{Socket: filepath.Join(dir, "tlsrpt.sock")}
	expect(t, s.checkSocket("root"), statusProblem, "agent does not run", "tlsrpt-agent run")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.Socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	expect(t, s.checkSocket("root"), statusOK, "root may write", "")
	expect(t, s.checkSocket("no-such-user"), statusSkipped, "no-such-user", "")
	stranger := account{"stranger", 4000000, []uint32{4000001}}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	expect(t, s.checkRights(stranger), statusProblem, "may not enter "+dir, "chgrp stranger "+dir)
	expect(t, cannotEnter(stranger, "/var/spool", s.Socket), statusProblem, "may not enter /var/spool", "chmod o+x /var/spool")
	for path, mode := range map[string]fs.FileMode{dir: 0o755, s.Socket: 0o660} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, s.checkRights(stranger), statusProblem, "may not write", `group = "stranger"`)
	if err := os.Chmod(s.Socket, 0o662); err != nil {
		t.Fatal(err)
	}
	expect(t, s.checkRights(stranger), statusOK, "stranger may write", "")
	at := func(path string) finding { return libtlsrptConfig{Socket: path}.checkSocket("root") }
	expect(t, at("tlsrpt.sock"), statusProblem, "absolute", "socket =")
	expect(t, at("/"+strings.Repeat("x", 107)), statusProblem, "108 bytes", "socket =")
	expect(t, at(filepath.Join(dir, "none", "tlsrpt.sock")), statusProblem, "folder neither", "install -d")
	expect(t, at(dir), statusProblem, "not a socket", "mv ")
}

func TestCheckBounces(t *testing.T) {
	dir := t.TempDir()
	c := config{Mail: mailConfig{BounceSocket: filepath.Join(dir, "bounce.sock")}}
	check := func(status, text, mend string) {
		t.Helper()
		found := c.checkBounces("root")
		if len(found) != 1 {
			t.Fatalf("%d findings", len(found))
		}
		expect(t, found[0], status, text, mend)
	}
	if found := new(config).checkBounces("root"); len(found) > 0 {
		t.Errorf("no bounces are taken, and it says %v", found)
	}
	check(statusProblem, "agent does not run", "tlsrpt-agent run")
	l, err := net.Listen("unix", c.Mail.BounceSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check(statusOK, "root may write", "")
	expect(t, c.checkBounceRights(account{"stranger", 4000000, nil}), statusOK, "stranger may not write", "")
	c.Mail.BounceSocket = dir
	check(statusProblem, "not a socket", "mv ")
}

func TestCheckQueueLength(t *testing.T) {
	expect(t, checkQueueLength([]byte("512\n"), nil), statusOK, "512", "")
	expect(t, checkQueueLength([]byte("10\n"), nil), statusProblem, "it is 10", "net.unix.max_dgram_qlen=512")
	expect(t, checkQueueLength(nil, fs.ErrNotExist), statusSkipped, "", "")
	expect(t, checkQueueLength([]byte("many"), nil), statusSkipped, "", "")
}

func TestCheckLogLevel(t *testing.T) {
	const words36, words34 = "'smtp_tls_loglevel=summary, untrusted, certmatch, dane'", "'smtp_tls_loglevel=summary, untrusted, certmatch'"
	check := func(version, level string, s postfixLogConfig) finding {
		t.Helper()
		return checkLogLevel(s, fakePostfix(t, version, "smtp_tls_loglevel="+level))
	}
	plain, enforcing := postfixLogConfig{}, postfixLogConfig{MTASTS: true}
	expect(t, check("3.5.25", "0", plain), statusProblem, "no sessions", words34)
	expect(t, check("3.7.11", "", plain), statusProblem, "no sessions", words36)
	expect(t, check("3.7.11", "untrusted", plain), statusProblem, "no sessions", words36)
	expect(t, check("3.11.7", "none", plain), statusProblem, "no sessions", "smtp_tls_loglevel=1")
	expect(t, check("3.7.11", "1", plain), statusOK, "untrusted, certmatch, dane", words36)
	expect(t, check("3.7.11", "2", enforcing), statusProblem, "whether a policy was met", words36)
	expect(t, check("3.7.11", "Summary,untrusted", enforcing), statusProblem, "certmatch, dane", words36)
	expect(t, check("3.7.11", "summary, untrusted, certmatch, dane", enforcing), statusOK, "", "")
	expect(t, check("3.5.25", "summary, untrusted, certmatch", enforcing), statusOK, "", "")
	expect(t, check("3.5.25", "summary, untrusted, certmatch, dane", plain), statusProblem, `the word "dane"`, words34)
	expect(t, check("3.7.11", "summary, all", plain), statusProblem, `the word "all"`, words36)
	expect(t, check("3.11.7", "1", enforcing), statusOK, "1", "")
	expect(t, check("3.11.7", "routine", enforcing), statusOK, "routine", "")
}

func TestCheckLogs(t *testing.T) {
	p := fakePostfix(t, "3.7.11", "smtp_tls_policy_maps=")
	ours, out := postfixLogConfig{Instance: "postfix"}, postfixLogConfig{Instance: "postfix-out"}
	expect(t, checkInstance([]postfixLogConfig{out, ours}, "postfix"), statusOK, "postfix", "")
	expect(t, checkInstance([]postfixLogConfig{{Instance: "*"}}, "postfix"), statusOK, "postfix", "")
	expect(t, checkInstance([]postfixLogConfig{out}, "postfix"), statusProblem, "reads what postfix-out logs", `instance = "postfix"`)
	expect(t, logSecurity.check(p), statusOK, "may", "")
	expect(t, logSecurity.check(fakePostfix(t, "3.7.11", "smtp_tls_security_level=none")), statusProblem, "no TLS", "=may")
	expect(t, logSecurity.check(fakePostfix(t, "3.7.11", "smtp_tls_security_level=")), statusProblem, "no TLS", "=may")
	expect(t, logSecurity.check(fakePostfix(t, "3.7.11", "smtp_tls_security_level=", "smtp_use_tls=yes")), statusOK, "", "")

	dane := postfixLogConfig{DANE: true}
	enforcing := fakePostfix(t, "3.7.11", "smtp_tls_security_level=dane", "smtp_dns_support_level=dnssec")
	expect(t, checkDANE(dane, enforcing), statusOK, "true", "")
	expect(t, checkDANE(ours, p), statusOK, "false", "")
	expect(t, checkDANE(ours, enforcing), statusProblem, "enforces DANE", "dane = true")
	expect(t, checkDANE(dane, p), statusProblem, `is "may"`, "smtp_tls_security_level=dane")
	expect(t, checkDANE(dane, fakePostfix(t, "3.7.11", "smtp_tls_security_level=dane")), statusProblem, "TLSA", "smtp_dns_support_level=dnssec")
	expect(t, checkMTASTS(postfixLogConfig{MTASTS: true}, p), statusProblem, "empty", "mta_sts = false")
	expect(t, checkMTASTS(ours, p), statusOK, "false", "")

	c := config{Source: sourceConfig{PostfixLog: []postfixLogConfig{{Path: "-", Instance: "postfix"}}}}
	for _, f := range c.checkLogs(nil) {
		expect(t, f, statusSkipped, "", "")
	}
}

func TestCheckLogFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := fakePostfix(t, "3.10.4", "maillog_file="+path)
	expect(t, checkLogFile(path, p), statusOK, "may be read", "")
	expect(t, checkLogFile(path, nil), statusOK, "may be read", "")
	expect(t, checkLogFile(filepath.Join(dir, "none"), p), statusProblem, "not there", path)
	expect(t, checkLogFile(filepath.Join(dir, "none"), nil), statusProblem, "not there", "journal = true")
	expect(t, checkLogFile(dir, p), statusProblem, "not a file", "")
	elsewhere := fakePostfix(t, "3.10.4", "maillog_file=/var/log/postfix.log")
	expect(t, checkLogFile(path, elsewhere), statusProblem, "Postfix logs to /var/log/postfix.log", `path = "/var/log/postfix.log"`)
	for mend, of := range map[string]*postconf.Settings{
		"maillog_file_permissions=0644": p,
		"chmod 0644 " + path:            fakePostfix(t, "3.7.11", "maillog_file="+path),
		"setfacl":                       elsewhere,
	} {
		if got := grantLog(path, of, userName()); !strings.Contains(got, mend) {
			t.Errorf("%q, want %q", got, mend)
		}
	}
}

func TestCheckJournal(t *testing.T) {
	bin, root := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin)
	expect(t, checkJournal(root), statusProblem, "journalctl", "path =")
	if err := os.WriteFile(filepath.Join(bin, "journalctl"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, checkJournal(root), statusProblem, "may not read", "systemd-journal")
	dir := filepath.Join(root, "run/log/journal/0123")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "system.journal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, checkJournal(root), statusOK, "may be read", "")
}

func TestCheckReportMail(t *testing.T) {
	check := func(version string, set ...string) finding {
		t.Helper()
		return checkReportTransport(fakePostfix(t, version, set...), "tls@example.com")
	}
	const maps = "sender_dependent_default_transport_maps="
	expect(t, check("3.10.4", "smtp_tls_security_level=secure"), statusOK, "TLS-Required", "")
	expect(t, check("3.7.11"), statusOK, "no domain's TLS is enforced", "")
	expect(t, check("3.7.11", "smtp_tls_security_level=encrypt"), statusProblem, "does not know", "'"+maps+"inline:{tls@example.com=tlsrpt:}'")
	expect(t, check("3.7.11", "smtp_tls_policy_maps=hash:/x"), statusProblem, "does not know", "postconf -P tlsrpt/unix/smtp_tls_policy_maps=")
	expect(t, check("3.10.3"), statusProblem, "events of report mail", "postconf -P tlsrpt/unix/smtp_tlsrpt_enable=no")
	expect(t, check("3.10.3", maps+"inline:{tls@example.com=tlsrpt:}"), statusOK, "inline:", "")
	expect(t, check("3.10.3", maps+"hash:/x"), statusOK, "make sure", "")
	if f := check("3.7.11", "smtp_tls_policy_maps=hash:/x"); strings.Contains(f.Mend, "smtp_tlsrpt") {
		t.Errorf("a setting that Postfix 3.7 does not have: %s", f.Mend)
	}

	c := config{Mail: mailConfig{Via: "smtp://[::1]:25"}, Organization: organizationConfig{Contact: "tls@example.com"}}
	expect(t, c.checkReportMail(fakePostfix(t, "3.10.3"))[0], statusProblem, "3.10.3", "")
	expect(t, c.checkReportMail(nil)[0], statusSkipped, "not known", "")
	c.Mail.Via = "smtp://relay.example.com"
	expect(t, c.checkReportMail(fakePostfix(t, "3.10.3"))[0], statusSkipped, "not the Postfix of this host", "")
	c.Mail.Via = ""
	if found := c.checkReportMail(nil); len(found) > 0 {
		t.Errorf("nothing is mailed: %v", found)
	}
}

func TestCheckClock(t *testing.T) {
	expect(t, checkClock(true, nil), statusOK, "synchronised", "")
	expect(t, checkClock(false, nil), statusProblem, "not synchronised", "timedatectl")
	expect(t, checkClock(false, errors.ErrUnsupported), statusSkipped, "not known", "")
}

func TestAskPostfix(t *testing.T) {
	p, f := askPostfix(t.Context(), postconf.Command{Path: "/nonexistent/postconf"})
	if expect(t, f, statusProblem, "/nonexistent/postconf", ""); p != nil {
		t.Errorf("settings of nobody: %v", p)
	}
}
