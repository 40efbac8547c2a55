//go:build linux

package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInNamespace has the verdicts of three tests taken over from inside.
func TestInNamespace(t *testing.T) {
	if err := mayIsolate(); err != nil {
		t.Skipf("lab: no namespace: %v", err)
	}
	for verdict, want := range map[string]string{
		"pass": "--- PASS: TestVerdict ",
		"skip": "--- SKIP: TestVerdict ",
		"fail": "--- FAIL: TestVerdict ",
	} {
		t.Run(verdict, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestVerdict$", "-test.v")
			cmd.Env = append(os.Environ(), verdictEnv+"="+verdict)
			out, err := cmd.CombinedOutput()
			if (err != nil) != (verdict == "fail") {
				t.Errorf("exit: %v", err)
			}
			if !strings.Contains(string(out), "\n"+want) || !strings.Contains(string(out), "said inside, as 1\n") {
				t.Errorf("want %q and what was said inside:\n%s", want, out)
			}
		})
	}
}

// verdictEnv makes TestVerdict end as it says.
const verdictEnv = "LAB_TEST_VERDICT"

func TestVerdict(t *testing.T) {
	verdict := os.Getenv(verdictEnv)
	if verdict == "" {
		t.Skip("lab: run by TestInNamespace")
	}
	if !InNamespace(t) {
		return
	}
	fmt.Println("said inside, as", os.Getpid())
	switch verdict {
	case "skip":
		t.Skip("on purpose")
	case "fail":
		t.Fatal("on purpose")
	}
}

// TestInside looks at what there is inside.
func TestInside(t *testing.T) {
	if !InNamespace(t) {
		return
	}
	addrs := []string{"192.0.2.1:25", "192.0.2.254:25", "127.0.0.53:53", SenderIP.String() + ":0"}
	if has, _ := os.ReadFile("/proc/net/if_inet6"); len(has) > 0 {
		addrs = append(addrs, "["+SenderIP6.String()+"]:0", "["+ReceiverIP6.String()+"]:25")
	}
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Error(err)
			continue
		}
		l.Close()
	}
	interfaces, err := net.Interfaces()
	if err != nil || len(interfaces) != 1 {
		t.Errorf("interfaces %v, %v, want lo alone", interfaces, err)
	}
}

func TestDebianMirror(t *testing.T) {
	const want = "http://archive.example.org/debian"
	good := func(parse func(string) []source, text string) {
		t.Helper()
		if got := debianMirror(parse(text)); got != want {
			t.Errorf("got %q, want %q from\n%s", got, want, text)
		}
	}
	bad := func(parse func(string) []source, text string) {
		t.Helper()
		if got := debianMirror(parse(text)); got != "" {
			t.Errorf("got %q, want none from\n%s", got, text)
		}
	}
	good(listSources, "deb http://archive.example.org/debian trixie main\n")
	good(listSources, "# deb http://old.example.org/debian a main\n\ndeb [arch=amd64 signed-by=/k] http://archive.example.org/debian/ trixie main contrib # ours\n")
	good(listSources, "deb-src http://src.example.org/debian trixie main\ndeb http://archive.example.org/debian trixie main\n")
	good(listSources, "deb https://example.net/linux/debian trixie stable\ndeb http://archive.example.org/debian trixie main\n")
	bad(listSources, "deb cdrom:[Debian]/debian trixie main\n")                      // debootstrap cannot read it
	bad(listSources, "deb http://archive.example.org/debian-security trixie main\n") // only updates
	bad(listSources, "deb http://archive.example.org/ubuntu noble main\n")           // another system
	good(stanzaSources, "Types: deb\n# a remark: here\nURIs: http://archive.example.org/debian\nSuites: trixie\nComponents: main\n")
	good(stanzaSources, "Types: deb\nURIs: http://archive.example.org/debian-security\nComponents: main\n\ntypes: deb deb-src\nuris: http://archive.example.org/debian/\ncomponents: main contrib\n")
	bad(stanzaSources, "Types: deb\nURIs: http://archive.example.org/debian\nSuites: trixie\nComponents: main\nEnabled: no\n")
	bad(stanzaSources, "Types: deb-src\nURIs: http://archive.example.org/debian\nComponents: main\n")
	bad(stanzaSources, "")
}

// TestRootSkips runs Root where it must not fail.
func TestRootSkips(t *testing.T) {
	t.Setenv("TLSRPT_TEST_POSTFIX", "0")
	cache := filepath.Join(t.TempDir(), "cache")
	t.Setenv("TLSRPT_TEST_CACHE", cache)
	var skipped bool
	t.Run("switched off", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		Root(t, "trixie")
	})
	if _, err := os.Stat(cache); !skipped || err == nil {
		t.Errorf("skipped is %v, and the cache folder: %v", skipped, err)
	}
}
