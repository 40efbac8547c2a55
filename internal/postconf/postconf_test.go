package postconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// standIn is a postconf that is a shell script; it finds its arguments in $*.
func standIn(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postconf")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// As Postfix 3.10 answers, warnings included.
const answers = `
case "$*" in
*"-x -P smtp/unix")
	echo 'smtp/unix/smtp_tls_security_level = may' ;;
*"-F smtp/unix/chroot")
	echo 'smtp/unix/chroot = y' ;;
*)
	echo "postconf: warning: smtp_unheard_of: unknown parameter" >&2
	echo 'mail_version = 3.10.13'
	echo 'compatibility_level = 3.9'
	echo 'smtp_tls_loglevel = summary, untrusted'
	echo 'smtp_tls_security_level = none'
	echo 'smtp_tls_policy_maps = inline:{a=b}'
	echo 'syslog_name ='
	echo "args = $*" ;;
esac`

func TestRead(t *testing.T) {
	s, err := Command{Path: standIn(t, answers), Dir: "/etc/postfix-out"}.Read(t.Context(), "syslog_name", "smtp_unheard_of")
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != (Version{3, 10, 13}) || !s.Chroot {
		t.Errorf("version %s, chroot %t", s.Version, s.Chroot)
	}
	for name, want := range map[string]string{
		"args":                    "-c /etc/postfix-out -x mail_version compatibility_level syslog_name smtp_unheard_of",
		"smtp_tls_loglevel":       "summary, untrusted",
		"smtp_tls_policy_maps":    "inline:{a=b}",
		"smtp_tls_security_level": "may", // master.cf wins
		"syslog_name":             "",
		"smtp_unheard_of":         "",
	} {
		if got := s.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !s.Known("syslog_name") || s.Known("smtp_unheard_of") {
		t.Error("an empty setting and an unknown one are the same")
	}
	for got, want := range map[string]string{
		s.Set("smtp_tls_loglevel", "1"):                  "postconf -e smtp_tls_loglevel=1",
		s.Set("smtp_tls_loglevel", "summary, untrusted"): "postconf -e 'smtp_tls_loglevel=summary, untrusted'",
		s.Set("smtp_tls_security_level", "dane"):         "postconf -P smtp/unix/smtp_tls_security_level=dane",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestReadFails(t *testing.T) {
	bad := func(c Command, want string) {
		t.Helper()
		s, err := c.Read(t.Context(), "syslog_name")
		if err == nil || s != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %q", s, err, want)
		}
	}
	bad(Command{Path: "/nonexistent/postconf"}, "no such file")
	bad(Command{Path: standIn(t, "echo 'postconf: fatal: open /x/main.cf' >&2; exit 1")}, "exit status 1: postconf: fatal: open /x/main.cf")
	bad(Command{Path: standIn(t, "echo mail_version = new")}, "malformed version")
	bad(Command{Path: standIn(t, "true")}, "malformed version")
	bad(Command{Path: standIn(t, "head -c 300000 /dev/zero")}, "bytes of output")
	bad(Command{Path: standIn(t, "exec sleep 60"), Timeout: 50 * time.Millisecond}, "no answer in time")
}

func TestReadNotInstalled(t *testing.T) {
	if _, err := os.Stat(sbin); err == nil {
		t.Skip("Postfix is installed here")
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := (Command{}).Read(t.Context()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("%v, want ErrNotInstalled", err)
	}
	t.Setenv("PATH", filepath.Dir(standIn(t, "PATH=/bin:/usr/bin\n"+answers)))
	if _, err := (Command{}).Read(t.Context()); err != nil {
		t.Errorf("in PATH: %v", err)
	}
}

func TestChrooted(t *testing.T) {
	for _, c := range []struct {
		column, level string
		want          bool
	}{
		{"y", "3.9", true}, {"n", "0", false}, {"-", "3.9", false}, {"-", "0", true}, {"-", "", true}, {"", "3.9", false},
	} {
		if got := chrooted(c.column, c.level); got != c.want {
			t.Errorf("chroot %q at level %q: %t", c.column, c.level, got)
		}
	}
}

func TestVersion(t *testing.T) {
	good := func(s string, want Version) {
		t.Helper()
		if v, err := ParseVersion(s); err != nil || v != want {
			t.Errorf("%q is %v (%v), want %v", s, v, err, want)
		}
	}
	bad := func(s string) {
		t.Helper()
		if v, err := ParseVersion(s); !errors.Is(err, ErrVersion) {
			t.Errorf("%q is %v (%v), want ErrVersion", s, v, err)
		}
	}
	good("3.10.4", Version{3, 10, 4})
	good("3.12-20260821", Version{3, 12, 0})
	good("3.10.0-RC1", Version{3, 10, 0})
	bad("")
	bad("3")
	bad("3.x.1")
	bad("3.1.2.3")
	bad("-1.2")
	for _, c := range []struct {
		v      string
		before bool // 3.10.4
	}{
		{"3.10.3", true}, {"3.9.14", true}, {"2.11.9", true}, {"3.10.4", false}, {"3.10.13", false}, {"3.11.0", false}, {"4.0.0", false},
	} {
		if v, err := ParseVersion(c.v); err != nil || v.Before(3, 10, 4) != c.before {
			t.Errorf("%s before 3.10.4: want %t (%v)", c.v, c.before, err)
		}
	}
}
