//go:build linux

package lab

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// labDir is where a world keeps its Postfix within a root. It is an empty
// folder of the root, and in each world a file system of that world alone.
const labDir = "lab"

// Root is the path of a chroot that holds the Postfix of one Debian release,
// with libtlsrpt where the release has it: "trixie" is Postfix 3.10, "bookworm"
// 3.7. It is made on first use, which takes a minute, and then kept in the
// user's cache folder. Tests only read it, so several may use it at once. Other
// packages may be in it too.
//
// Call it before [InNamespace]: inside there is no network.
func Root(t testing.TB, suite string, packages ...string) string {
	t.Helper()
	skip := func(why string) { t.Skipf("lab: no Debian package postfix of %s: %s", suite, why) }
	if os.Getenv("TLSRPT_TEST_POSTFIX") == "0" {
		skip("TLSRPT_TEST_POSTFIX is 0")
	}
	if err := mayIsolate(); err != nil {
		skip(err.Error())
	}
	cache := os.Getenv("TLSRPT_TEST_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			skip("no cache folder, set TLSRPT_TEST_CACHE: " + err.Error())
		}
		cache = filepath.Join(user, "tlsrpt-agent")
	}
	dir, err := filepath.Abs(filepath.Join(cache, "roots", rootName(suite, packages)))
	check(t, err)
	check(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	defer lock(t, dir+".lock")()
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	mirror, err := findMirror(suite)
	if err != nil {
		skip(err.Error())
	}
	t.Logf("lab: making %s from %s", dir, mirror)
	if _, err := exec.LookPath("debootstrap"); err != nil {
		install(t, "debootstrap")
	}
	debootstrap(t, suite, dir, mirror, packages)
	return dir
}

// rootName is short: the path of a socket within the root is limited.
func rootName(suite string, packages []string) string {
	if len(packages) == 0 {
		return suite
	}
	return fmt.Sprintf("%s-%08x", suite, crc32.ChecksumIEEE([]byte(strings.Join(packages, ","))))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
}

// lock holds a file against other test binaries, until the result is called.
func lock(t testing.TB, file string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	check(t, err)
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	check(t, err)
	return func() { f.Close() }
}

// findMirror is the archive of Debian that apt uses here, if it answers.
func findMirror(suite string) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("no apt here: %w", err)
	}
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*") // an error is of the pattern
	var entries []source
	for _, f := range append([]string{"/etc/apt/sources.list"}, files...) {
		text, err := os.ReadFile(f)
		switch {
		case err == nil && strings.HasSuffix(f, ".list"):
			entries = append(entries, listSources(string(text))...)
		case err == nil && strings.HasSuffix(f, ".sources"):
			entries = append(entries, stanzaSources(string(text))...)
		}
	}
	mirror := debianMirror(entries)
	if mirror == "" {
		return "", errors.New("no archive of Debian among the sources of apt")
	}
	client := http.Client{Timeout: 15 * time.Second}
	resp, err := client.Head(mirror + "/dists/" + suite + "/InRelease")
	if err != nil {
		return "", fmt.Errorf("the archive is out of reach: %w", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the archive says %s", resp.Status)
	}
	return mirror, nil
}

// source is one entry of sources.list(5).
type source struct{ uris, components []string }

var listOptions = regexp.MustCompile(`\[[^]]*\]`)

// listSources reads the format of one line per entry.
func listSources(text string) (entries []source) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(listOptions.ReplaceAllString(line, ""))
		if len(f) > 3 && f[0] == "deb" {
			entries = append(entries, source{uris: f[1:2], components: f[3:]})
		}
	}
	return entries
}

// stanzaSources reads the deb822 format.
func stanzaSources(text string) (entries []source) {
	for stanza := range strings.SplitSeq(text, "\n\n") {
		fields := map[string][]string{}
		for line := range strings.Lines(stanza) {
			if key, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
				fields[strings.ToLower(key)] = strings.Fields(value)
			}
		}
		if slices.Contains(fields["types"], "deb") && !slices.Contains(fields["enabled"], "no") {
			entries = append(entries, source{uris: fields["uris"], components: fields["components"]})
		}
	}
	return entries
}

// debianMirror is the first archive of Debian itself that debootstrap can
// read, or "". Other vendors have folders named debian too, but no main in them.
func debianMirror(entries []source) string {
	for _, e := range entries {
		for _, uri := range e.uris {
			u, err := url.Parse(uri)
			if err == nil && (u.Scheme == "http" || u.Scheme == "https") &&
				path.Base(u.Path) == "debian" && slices.Contains(e.components, "main") {
				return strings.TrimRight(uri, "/")
			}
		}
	}
	return ""
}

// install installs a package, with fresh lists if those at hand do not lead to it.
func install(t testing.TB, name string) {
	t.Helper()
	apt := func(args ...string) error {
		return runLogged("apt-get", append([]string{"-qq", "-o", "DPkg::Lock::Timeout=60"}, args...)...)
	}
	if apt("install", "-y", "--no-install-recommends", name) == nil {
		return
	}
	check(t, apt("update"))
	check(t, apt("install", "-y", "--no-install-recommends", name))
}

// debootstrap makes dir, whole or not at all.
func debootstrap(t testing.TB, suite, dir, mirror string, packages []string) {
	t.Helper()
	partial := dir + ".partial"
	check(t, os.RemoveAll(partial))
	include := "postfix,libtlsrpt0"
	if slices.Contains([]string{"bullseye", "bookworm"}, suite) {
		include = "postfix"
	}
	include = strings.Join(append([]string{include}, packages...), ",")
	args := []string{"--variant=minbase", "--include=" + include, suite, partial, mirror}
	// An old debootstrap has no script for a new release; it is made as sid is.
	const scripts = "/usr/share/debootstrap/scripts/"
	if _, err := os.Stat(scripts + suite); err != nil {
		args = append(args, scripts+"sid")
	}
	check(t, runLogged("debootstrap", args...))
	check(t, os.Mkdir(filepath.Join(partial, labDir), 0o755))
	// It may be a link or missing; worlds mount their own on it.
	resolv := filepath.Join(partial, "etc/resolv.conf")
	_ = os.Remove(resolv)
	check(t, os.WriteFile(resolv, nil, 0o644))
	check(t, os.Rename(partial, dir))
}

// runLogged runs a command to its end; the error has the last it said. What the
// command mounts, as debootstrap does, is gone with it even if it is killed.
func runLogged(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out[max(0, len(out)-2000):])
	}
	return nil
}
