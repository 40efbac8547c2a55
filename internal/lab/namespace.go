//go:build linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// insideEnv tells a test binary that it runs inside.
const insideEnv = "TLSRPT_TEST_NAMESPACE"

// The addresses inside: all of 192.0.2.0/24 and 198.51.100.0/24, and these.
var (
	// SenderIP is the address that Postfix sends from.
	SenderIP = netip.MustParseAddr("198.51.100.5")
	// SenderIP6 is the same for IPv6.
	SenderIP6 = netip.MustParseAddr("2001:db8:5::5")
	// ReceiverIP6 is for a receiver that is to have an IPv6 address.
	ReceiverIP6 = netip.MustParseAddr("2001:db8::25")
)

// InNamespace reports whether the test is inside a namespace of its own: own
// network, mounts and processes. Outside, it runs the test once more, inside,
// shows its output, takes over its verdict and is false: the caller then
// returns. All processes started inside end with the test.
func InNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		check(t, furnish())
		return true
	}
	if err := mayIsolate(); err != nil {
		t.Skipf("lab: no namespace: %v", err)
	}
	runInside(t)
	return false
}

const isolation = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID

// mayIsolate is nil if we are root and may make namespaces, as root in a
// container often may not.
var mayIsolate = sync.OnceValue(func() error {
	if os.Getuid() != 0 {
		return errors.New("it takes root")
	}
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: isolation}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("namespaces cannot be made: %w", err)
	}
	return nil
})

// runInside runs t in a process of its own and takes over the verdict.
func runInside(t *testing.T) {
	t.Helper()
	// The signal comes when the thread dies that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	exe, err := os.Executable()
	check(t, err)
	out := &childOutput{t: t}
	cmd := exec.Command(exe, childArgs(t)...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: isolation, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	out.flush()
	switch {
	case err != nil:
		t.Fatalf("lab: inside: %v", err)
	case out.skipped:
		t.Skip("lab: skipped inside")
	case !out.passed:
		t.Fatal("lab: no test ran inside")
	}
}

// childArgs are the arguments that run t alone, with the flags that the test
// has of its own, such as -update.
func childArgs(t *testing.T) []string {
	var levels []string
	for level := range strings.SplitSeq(t.Name(), "/") {
		levels = append(levels, "^"+regexp.QuoteMeta(level)+"$")
	}
	args := []string{"-test.v", "-test.run=" + strings.Join(levels, "/")}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	if deadline, ok := t.Deadline(); ok {
		// A little less, so that the stacks shown are those inside.
		left := max(time.Until(deadline)-5*time.Second, time.Second)
		args = append(args, "-test.timeout="+left.String())
	}
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.") {
			args = append(args, arg)
		}
	}
	return args
}

// childOutput passes on what a test inside prints and learns how it ended.
type childOutput struct {
	t               *testing.T
	rest            []byte
	passed, skipped bool
}

func (o *childOutput) Write(p []byte) (int, error) {
	o.rest = append(o.rest, p...)
	for {
		line, rest, ok := bytes.Cut(o.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		o.rest = rest
		o.line(string(line))
	}
}

func (o *childOutput) flush() {
	if len(o.rest) > 0 {
		o.line(string(o.rest))
	}
}

func (o *childOutput) line(s string) {
	verdict := strings.TrimLeft(s, " ") // of a subtest it is indented
	o.skipped = o.skipped || strings.HasPrefix(verdict, "--- SKIP: "+o.t.Name()+" ")
	o.passed = o.passed || strings.HasPrefix(verdict, "--- PASS: "+o.t.Name()+" ")
	if strings.HasPrefix(s, "=== ") {
		return
	}
	// Readers of test output would take the verdicts inside for those outside.
	fmt.Fprintln(o.t.Output(), strings.Replace(s, "--- ", "-- ", 1))
}

// furnish prepares the namespace, once per process.
var furnish = sync.OnceValue(func() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// What operators are told to set. Where /proc/sys cannot be written the
	// queue is short, as it is for them.
	_ = os.WriteFile("/proc/sys/net/unix/max_dgram_qlen", []byte("512\n"), 0o644)
	return setUpLoopback()
})

// setUpLoopback gives the loopback interface its addresses.
func setUpLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	up, _ := unix.NewIfreq("lo")
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	// Both are of the old class C: the kernel adds the whole /24, and what is
	// of the loopback's network is local.
	for i, a := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), SenderIP} {
		alias, _ := unix.NewIfreq(fmt.Sprintf("lo:%d", i))
		if err := alias.SetInet4Addr(a.AsSlice()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias); err != nil {
			return fmt.Errorf("adding %s: %w", a, err)
		}
	}
	return addIPv6(SenderIP6, ReceiverIP6)
}

// addIPv6 adds addresses to the loopback interface. Where the kernel has no
// IPv6 there is nothing to add to, and tests that need it will say so.
func addIPv6(addrs ...netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for _, a := range addrs {
		// struct in6_ifreq; the index of lo is 1 in every namespace.
		req := struct {
			addr   [16]byte
			prefix uint32
			index  int32
		}{a.As16(), 128, 1}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&req)))
		if errno == unix.EACCES {
			return nil // switched off by sysctl
		}
		if errno != 0 {
			return fmt.Errorf("adding %s: %w", a, errno)
		}
		// The kernel looks for duplicates, even here, before it lets one bind.
		if !poll(func() bool { return canBind(a) }) {
			return fmt.Errorf("%s stays tentative", a)
		}
	}
	return nil
}

func canBind(a netip.Addr) bool {
	c, err := net.ListenPacket("udp", netip.AddrPortFrom(a, 0).String())
	if err == nil {
		c.Close()
	}
	return err == nil
}
