//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reloading is a daemon in this process whose settings change under it.
type reloading struct {
	*testing.T
	dir, config string
	log         syncBuffer
}

// settings writes the configuration file: the store, the socket, and text.
func (r *reloading) settings(text string) {
	r.Helper()
	text = fmt.Sprintf("[store]\npath = %q\n[[source.libtlsrpt]]\nsocket = %q\n",
		filepath.Join(r.dir, "tlsrpt.db"), filepath.Join(r.dir, "s")) + text
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

// hangUp sends SIGHUP and waits until the log says want, a regular expression,
// after what it said before.
func (r *reloading) hangUp(want string) {
	r.Helper()
	before := len(r.log.String())
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		r.Fatal(err)
	}
	r.await(before, want)
}

func (r *reloading) await(from int, want string) {
	r.Helper()
	re := regexp.MustCompile(want)
	for deadline := time.Now().Add(20 * time.Second); !re.MatchString(r.log.String()[from:]); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("the log does not say %s:\n%s", want, r.log.String()[from:])
		}
	}
}

// session sends one event to the socket.
func (r *reloading) session(domain string) {
	r.Helper()
	conn, err := net.Dial("unixgram", filepath.Join(r.dir, "s"))
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	event := fmt.Sprintf(`{"dpv":"1","d":%q,"pr":"v=TLSRPTv1;rua=mailto:a@%s","policies":[{"policy-type":9,"policy-domain":%q,"t":0,"f":0}]}`, domain, domain, domain)
	if _, err := conn.Write([]byte(event)); err != nil {
		r.Fatal(err)
	}
}

// TestReload changes the settings of a running daemon: good ones come into force,
// bad ones do not, and no session is lost meanwhile.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	r := &reloading{T: t, dir: dir, config: filepath.Join(dir, "config.toml")}
	r.settings("")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"run", "-c", r.config}, strings.NewReader(""), &r.log, &r.log) }()
	r.await(0, "nothing is sent until organization.contact is set")
	const key = "%s/dkim.pem"
	identity := "[organization]\ncontact = \"tls@example.com\"\n[dkim]\nkey = \"" + fmt.Sprintf(key, dir) + "\"\n"
	keygen := func(args ...string) {
		t.Helper()
		path := fmt.Sprintf(key, dir)
		os.Remove(path)
		if code, _, stderr := runCommand(t, append([]string{"keygen", "--domain", "example.com"}, append(args, path)...)...); code != exitOK {
			t.Fatal(stderr)
		}
	}

	for _, step := range []struct {
		name, settings string
		before         func()
		want           string
	}{
		{"submission on", identity, func() { keygen() }, `msg=submitting .*contact=tls@example.com`},
		{"another schedule", identity + "[submit]\nschedule = \"30 2 * * *\"\n", nil, `msg=submitting schedule="30 2`},
		{"unknown setting", identity + "[submit]\nschedul = \"\"\n", nil, `the old ones stay in force.*unknown setting`},
		{"not TOML", "[[[", nil, `the old ones stay in force.*config.toml:`},
		{"bad contact", "[organization]\ncontact = \"nobody\"\n", nil, `the old ones stay in force.*organization.contact`},
		{"bad key", identity, func() { os.WriteFile(filepath.Join(dir, "dkim.pem"), []byte("no key"), 0o600) }, `the old ones stay in force.*dkim.key`},
		{"new key", identity, func() { keygen("--algorithm", "ed25519") }, `msg=submitting`},
		{"another source", identity + "[[source.libtlsrpt]]\nsocket = \"" + dir + "/other\"\n[submit]\nspread = \"1h\"\n", nil,
			`take effect after a restart only" settings="submit.spread, source"(.*\n)*.*msg=submitting`},
		{"submission off", "", nil, `nothing is sent until organization.contact is set`},
	} {
		if step.before != nil {
			step.before()
		}
		r.settings(step.settings)
		r.session("before.example")
		r.hangUp(step.want)
		r.session("after.example")
		if t.Failed() {
			t.Fatal(step.name)
		}
	}
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit %d: %s", code, r.log.String())
	}
	_, out, _ := runCommand(t, "pending", "-c", r.config, "--json")
	for _, domain := range []string{"before.example", "after.example"} {
		if want := fmt.Sprintf(`"domain":%q`, domain); !strings.Contains(out, want) {
			t.Errorf("%s was not counted:\n%s", domain, out)
		}
	}
	if n := strings.Count(out, `"success":9`); n != 2 {
		t.Errorf("want 9 sessions each:\n%s", out)
	}
}
