package policy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bounds on an exchange with a policy daemon; the size is Postfix's own.
const (
	socketmapTimeout  = 30 * time.Second
	socketmapMaxReply = 100_000 // bytes
)

var (
	// errSocketmap means that a policy daemon gave no answer that can be used: it
	// is not there, or said TEMP, TIMEOUT or PERM, or broke the protocol. Postfix
	// defers mail then, so there is no session either.
	errSocketmap = errors.New("policy: policy daemon")

	// errNotListed means that a policy daemon has nothing about a domain: the
	// settings of Postfix apply.
	errNotListed = errors.New("policy: the policy daemon says NOTFOUND")
)

// Socketmap is a policy daemon that Postfix asks, such as postfix-tlspol and
// postfix-mta-sts-resolver: socketmap_table(5).
type Socketmap struct {
	network, address, name string
}

// ParseSocketmap reads what smtp_tls_policy_maps of main.cf has:
// "socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT" or
// "socketmap:unix:/run/mta-sts/daemon.sock:postfix", with or without the first
// word. The last part is the name that begins each request.
func ParseSocketmap(s string) (Socketmap, error) {
	fault := func(want string) (Socketmap, error) {
		return Socketmap{}, fmt.Errorf("policy: malformed socketmap %q: want %s", s, want)
	}
	rest := strings.TrimPrefix(s, "socketmap:")
	kind, rest, _ := strings.Cut(rest, ":")
	i := strings.LastIndexByte(rest, ':')
	if i < 0 || kind != "unix" && kind != "inet" {
		return fault("unix:PATH:NAME or inet:HOST:PORT:NAME")
	}
	m := Socketmap{network: "unix", address: rest[:i], name: rest[i+1:]}
	if m.name == "" || strings.ContainsAny(m.name, " \t\r\n") {
		return fault("a name at the end")
	}
	if kind == "unix" {
		if !filepath.IsAbs(m.address) {
			return fault("an absolute path")
		}
		return m, nil
	}
	m.network = "tcp"
	host, port, err := net.SplitHostPort(m.address)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || host == "" || n == 0 {
		return fault("a host and a port")
	}
	return m, nil
}

// String is the form of [ParseSocketmap].
func (m Socketmap) String() string {
	kind := m.network
	if kind == "tcp" {
		kind = "inet"
	}
	return kind + ":" + m.address + ":" + m.name
}

// query is what the daemon says about domain. The error is errNotListed,
// errSocketmap or that of ctx.
func (m Socketmap) query(ctx context.Context, domain string) (string, error) {
	within, cancel := context.WithTimeout(ctx, socketmapTimeout)
	defer cancel()
	reply, err := m.exchange(within, m.name+" "+domain)
	if ctx.Err() != nil {
		return "", fmt.Errorf("%w %s: %w", errSocketmap, m, context.Cause(ctx))
	}
	if err != nil {
		return "", fmt.Errorf("%w %s: %w", errSocketmap, m, err)
	}
	status, text, _ := strings.Cut(reply, " ")
	switch status {
	case "OK":
		return text, nil
	case "NOTFOUND":
		return "", errNotListed
	}
	return "", fmt.Errorf("%w %s: it says %q", errSocketmap, m, clip(reply))
}

// exchange sends one request and reads one reply.
func (m Socketmap) exchange(ctx context.Context, request string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, m.network, m.address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(appendNetstring(nil, request)); err != nil {
		return "", err
	}
	return readNetstring(bufio.NewReader(conn), socketmapMaxReply)
}

// appendNetstring appends s as "length:bytes,".
func appendNetstring(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	b = append(b, s...)
	return append(b, ',')
}

var errNetstring = errors.New("malformed netstring")

// readNetstring reads one netstring of at most limit bytes, and never more.
func readNetstring(r *bufio.Reader, limit int) (string, error) {
	size := 0
	for digits := 0; ; digits++ {
		c, err := r.ReadByte()
		if err != nil {
			return "", noEOF(err)
		}
		if c == ':' && digits > 0 {
			break
		}
		if c < '0' || c > '9' || digits > 0 && size == 0 { // no leading zeros
			return "", errNetstring
		}
		if size = size*10 + int(c-'0'); size > limit {
			return "", fmt.Errorf("%w: more than %d bytes", errNetstring, limit)
		}
	}
	data := make([]byte, size+1)
	if _, err := io.ReadFull(r, data); err != nil {
		return "", noEOF(err)
	}
	if data[size] != ',' {
		return "", errNetstring
	}
	return string(data[:size]), nil
}

// noEOF is err, for an end that came too early.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
