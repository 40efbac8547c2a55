package policy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseSocketmap(t *testing.T) {
	good := func(s, network, address, name string) {
		t.Helper()
		want := Socketmap{network, address, name}
		got, err := ParseSocketmap(s)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", s, got, err, want)
		}
		if again, err := ParseSocketmap(got.String()); err != nil || again != got {
			t.Errorf("%q is not the form of %q: %v", got, s, err)
		}
	}
	good("socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT", "tcp", "127.0.0.1:8642", "QUERYwithTLSRPT")
	good("inet:localhost:8461:postfix", "tcp", "localhost:8461", "postfix")
	good("inet:[::1]:8461:postfix", "tcp", "[::1]:8461", "postfix")
	good("unix:/run/mta-sts/daemon.sock:postfix", "unix", "/run/mta-sts/daemon.sock", "postfix")
	good("socketmap:unix:/run/a:b:zone", "unix", "/run/a:b", "zone")

	for _, s := range []string{
		"", "socketmap:", "inet:127.0.0.1:8461", "inet:127.0.0.1:postfix", "inet::8461:postfix", "inet:127.0.0.1:0:postfix",
		"inet:127.0.0.1:65536:postfix", "inet:127.0.0.1:smtp:postfix", "inet:::1:8461:postfix", "unix:/run/sock", "unix:run/sock:postfix",
		"unix:/run/sock:", "unix:/run/sock:a b", "tcp:127.0.0.1:8461:postfix", "127.0.0.1:8461:postfix",
	} {
		if got, err := ParseSocketmap(s); err == nil {
			t.Errorf("%q: %+v, want an error", s, got)
		}
	}
}

func TestReadNetstring(t *testing.T) {
	good := func(s, want string) {
		t.Helper()
		if got, err := readNetstring(bufio.NewReader(strings.NewReader(s)), 20); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", s, got, err, want)
		}
	}
	bad := func(s string, want error) {
		t.Helper()
		if got, err := readNetstring(bufio.NewReader(strings.NewReader(s)), 20); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v; want %v", s, got, err, want)
		}
	}
	good("0:,", "")
	good("5:a,b:c,", "a,b:c")
	good("20:"+strings.Repeat("x", 20)+",", strings.Repeat("x", 20))
	good("1:a,more", "a")
	bad("21:"+strings.Repeat("x", 21)+",", errNetstring) // too long
	bad("99999999999999999999999:x,", errNetstring)
	bad(":,", errNetstring)
	bad("-1:,", errNetstring)
	bad("+1:a,", errNetstring)
	bad("01:a,", errNetstring)
	bad("00:,", errNetstring)
	bad(" 1:a,", errNetstring)
	bad("1 :a,", errNetstring)
	bad("1:a;", errNetstring)
	bad("OK secure", errNetstring)
	bad("", io.ErrUnexpectedEOF)
	bad("2", io.ErrUnexpectedEOF)
	bad("2:a", io.ErrUnexpectedEOF)
	bad("2:ab", io.ErrUnexpectedEOF)
}

func FuzzNetstring(f *testing.F) {
	for _, s := range []string{"0:,", "5:a,b:c,", "01:a,", "2:a", "99999:x,", "-1:,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := readNetstring(bufio.NewReader(strings.NewReader(s)), 1000)
		if err == nil && (!strings.HasPrefix(s, string(appendNetstring(nil, got))) || len(got) > 1000) {
			t.Errorf("%q is read from %q", got, s)
		} else if err != nil && got != "" {
			t.Errorf("%q with %v", got, err)
		}
		if again, err := readNetstring(bufio.NewReader(strings.NewReader(string(appendNetstring(nil, s)))), len(s)); err != nil || again != s {
			t.Errorf("%q comes back as %q, %v", s, again, err)
		}
	})
}

// serveSocketmap is a policy daemon that answers each request by reply.
func serveSocketmap(t *testing.T, name string, reply func(request string) string) *Socketmap {
	t.Helper()
	port := serveTCP(t, func(c net.Conn) {
		request, err := readNetstring(bufio.NewReader(c), 1000)
		if err != nil {
			t.Errorf("a request: %v", err)
		}
		c.Write(appendNetstring(nil, reply(request)))
	})
	m, err := ParseSocketmap(fmt.Sprintf("inet:127.0.0.1:%d:%s", port, name))
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

func TestSocketmapQuery(t *testing.T) {
	var answer string
	m := serveSocketmap(t, "postfix", func(request string) string {
		if request != "postfix example.com" {
			t.Errorf("request %q", request)
		}
		return answer
	})
	answer = "OK secure match=mx.example.com"
	if got, err := m.query(t.Context(), "example.com"); err != nil || got != "secure match=mx.example.com" {
		t.Errorf("%q, %v", got, err)
	}
	for _, answer = range []string{"NOTFOUND ", "NOTFOUND"} {
		if got, err := m.query(t.Context(), "example.com"); !errors.Is(err, errNotListed) {
			t.Errorf("%q: %q, %v; want errNotListed", answer, got, err)
		}
	}
	for _, answer = range []string{"TEMP no DNS", "TIMEOUT ", "PERM unknown map", "", "secure", "ok secure", "NOTFOUND2"} {
		if got, err := m.query(t.Context(), "example.com"); !errors.Is(err, errSocketmap) || errors.Is(err, errNotListed) {
			t.Errorf("%q: %q, %v; want errSocketmap", answer, got, err)
		}
	}
}

func TestSocketmapOverUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	m, err := ParseSocketmap("unix:" + path + ":QUERYwithTLSRPT")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.query(t.Context(), "example.com"); !errors.Is(err, errSocketmap) {
		t.Errorf("nobody listens: %v, want errSocketmap", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan string)
	go func() {
		c, _ := l.Accept()
		defer c.Close()
		request, _ := readNetstring(bufio.NewReader(c), 100)
		io.WriteString(c, "15:OK dane-only x=,")
		done <- request
	}()
	got, err := m.query(t.Context(), "example.com")
	if request := <-done; err != nil || got != "dane-only x=" || request != "QUERYwithTLSRPT example.com" {
		t.Errorf("%q to %q, %v", got, request, err)
	}
}

func TestSocketmapHostile(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"stall":   func(c net.Conn) { io.Copy(io.Discard, c) },
		"trickle": func(c net.Conn) { io.WriteString(c, "5:OK"); io.Copy(io.Discard, c) },
		"endless": func(c net.Conn) {
			for range 10 << 30 / 4096 {
				if _, err := c.Write([]byte(strings.Repeat("1", 4096))); err != nil {
					return
				}
			}
			t.Error("10 GB were read")
		},
		"huge": func(c net.Conn) { io.WriteString(c, "100001:"); io.Copy(io.Discard, c) },
		"cut":  func(c net.Conn) { c.Read(make([]byte, 100)); io.WriteString(c, "9:OK sec") },
	} {
		t.Run(name, func(t *testing.T) {
			m := Socketmap{"tcp", fmt.Sprint("127.0.0.1:", serveTCP(t, serve)), "postfix"}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if got, err := m.query(ctx, "example.com"); !errors.Is(err, errSocketmap) {
				t.Errorf("%q, %v; want errSocketmap", got, err)
			}
		})
	}
}
