//go:build linux

package lab

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// resolvConf makes everything inside ask our DNS and believe its AD bit, both
// the test and the Postfix in its root.
const resolvConf = "nameserver 127.0.0.53\noptions edns0 trust-ad\n"

// World is everything there is in a namespace. It ends with the test.
type World struct {
	// DNS is asked by everything inside; add to it at any time.
	DNS *DNS

	t         testing.TB
	dir       string // the lab's folder in the root, as seen from outside it
	ca        *authority
	next      netip.Addr
	receivers map[string]*Receiver
	policies  []string // lines of Postfix's TLS policy table
}

// New makes an empty world around the Postfix of a root. There is one in a
// namespace, and so one in a test that [InNamespace] runs.
func New(t testing.TB, root string) *World {
	t.Helper()
	w := &World{
		t:         t,
		dir:       filepath.Join(root, labDir),
		ca:        newAuthority(t),
		next:      netip.MustParseAddr("192.0.2.10"),
		receivers: map[string]*Receiver{},
	}
	// The root is shared; what is written to it stays within the namespace.
	mount(t, "tmpfs", w.dir, "tmpfs", 0)
	check(t, os.WriteFile(w.CAFile(), w.ca.pem(), 0o644))
	w.DNS = startDNS(t)
	resolv := filepath.Join(w.dir, "resolv.conf")
	check(t, os.WriteFile(resolv, []byte(resolvConf), 0o644))
	mount(t, resolv, filepath.Join(root, "etc/resolv.conf"), "", unix.MS_BIND)
	if target, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
		mount(t, resolv, target, "", unix.MS_BIND)
	}
	return w
}

// mount mounts something until the test ends.
func mount(t testing.TB, what, where, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(what, where, kind, flags, ""); err != nil {
		t.Fatalf("lab: mounting %s: %v", where, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(where, unix.MNT_DETACH) })
}

// Domain is a recipient domain with one MX.
type Domain struct {
	Name string // A-labels

	// MX is the host that receives for it; "" means "mx." and the name. A host
	// that was there before keeps its behaviour.
	MX       string
	Receiver Behaviour

	// Policy is Postfix's TLS policy for it, the right side of
	// smtp_tls_policy_maps: "" is the level may. "{mx}" and "{domain}" stand for
	// the names.
	Policy string

	// TLSRPT is the TXT records at _smtp._tls below it. See [Asks].
	TLSRPT []TXT

	// TLSA is the TLSA records of the MX, such as "3 1 1 {spki}", where "{spki}"
	// stands for the hash of its key. If there are any, the domain and its MX
	// are secured by DNSSEC.
	TLSA []string
}

// AddDomain adds a domain and starts its MX. Domains with a policy are added
// before Postfix starts.
func (w *World) AddDomain(d Domain) *Receiver {
	w.t.Helper()
	if d.MX == "" {
		d.MX = "mx." + d.Name
	}
	r := w.receivers[d.MX]
	if r == nil {
		r = w.AddReceiver(d.MX, d.Receiver)
	}
	w.DNS.Add(fmt.Sprintf("%s MX 10 %s", d.Name, d.MX))
	w.DNS.SetTXT("_smtp._tls."+d.Name, d.TLSRPT...)
	names := strings.NewReplacer("{mx}", d.MX, "{domain}", d.Name, "{spki}", spki(r.cert))
	for _, tlsa := range d.TLSA {
		w.DNS.Secure(d.Name)
		w.DNS.Secure(d.MX)
		w.DNS.Add(fmt.Sprintf("_25._tcp.%s TLSA %s", d.MX, names.Replace(tlsa)))
	}
	if d.Policy != "" {
		w.policies = append(w.policies, d.Name+" "+names.Replace(d.Policy)+"\n")
	}
	return r
}

// AddReceiver starts a receiver and gives its host an address record. Without
// an address it gets the next free one.
func (w *World) AddReceiver(host string, b Behaviour, addr ...netip.Addr) *Receiver {
	w.t.Helper()
	if len(addr) == 0 {
		addr = append(addr, w.NextIP())
	}
	kind := "A"
	if addr[0].Is6() {
		kind = "AAAA"
	}
	w.DNS.Add(fmt.Sprintf("%s %s %s", host, kind, addr[0]))
	r := startReceiver(w.t, host, addr[0], b, w.ca.issue(w.t, host, b))
	w.receivers[host] = r
	return r
}

// NextIP is an address that nothing listens on, for a server of the test's own.
func (w *World) NextIP() netip.Addr {
	a := w.next
	w.next = a.Next()
	return a
}

// Certificate is a good certificate for a server of the test's own.
func (w *World) Certificate(host string) tls.Certificate {
	w.t.Helper()
	return w.ca.issue(w.t, host, Good)
}

// CAFile holds the certificate of the world's authority, in PEM.
func (w *World) CAFile() string { return filepath.Join(w.dir, "ca.pem") }

// CAPool is the world's authority for clients of the test's own.
func (w *World) CAPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.cert)
	return pool
}

// StartProgram starts a program in the world's root, with files in the lab's
// folder, which it sees as /lab. It ends with the test.
func (w *World) StartProgram(files map[string]string, env []string, name string, args ...string) {
	w.t.Helper()
	for file, text := range files {
		check(w.t, os.WriteFile(filepath.Join(w.dir, file), []byte(text), 0o644))
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: filepath.Dir(w.dir)} // it ends with the namespace at the latest
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	check(w.t, cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if w.t.Failed() {
			w.t.Logf("lab: what %s said:\n%s", name, out.Bytes())
		}
	})
}
