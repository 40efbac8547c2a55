package postfixlog

import (
	"bytes"
	"net/netip"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/guard"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// names keeps what was made of names that come again and again, so that a line
// costs no allocation. It is a cache: to forget it changes nothing.
type names struct {
	texts      table[string]
	recipients table[*recipient]
	peers      table[*peer]
}

// recipient is the domain of a recipient.
type recipient struct {
	domain string  // canonical, "" if it is none
	known  tallied // what its last success was counted in, without Tally if that was forgotten
}

func newNames() names {
	return names{newTable[string](), newTable[*recipient](), newTable[*peer]()}
}

// text is b as a string.
func (n *names) text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	d := digestOf(b)
	if s, ok := n.texts.find(d); ok {
		return s
	}
	s := string(b)
	n.texts.add(d, s)
	return s
}

// domain is the canonical form of the domain b, "" if it is none.
func (n *names) domain(b []byte) string { return n.recipient(b).domain }

// recipient is that of the domain b.
func (n *names) recipient(b []byte) *recipient { return n.recipientOf(digestOf(b), b) }

func (n *names) recipientOf(text digest, b []byte) *recipient {
	if r, ok := n.recipients.find(text); ok {
		return r
	}
	r := new(recipient)
	if d, err := schema.ParseDomain(string(b)); err == nil {
		r.domain = d
	}
	n.recipients.add(text, r)
	return r
}

// peer is whom Postfix talks to: "host[address]:port", or "host[address]" with
// port 0. It is shared, and only its cache changes.
type peer struct {
	text string // as logged
	host string
	ip   netip.Addr
	port uint16
	drop Drop // why no session with it counts, or ""

	lastText digest     // of the domain of the last recipient there
	last     *recipient // or nil
}

// recipientAt is recipient of b, whose mail went to at. Most hosts have few.
func (n *names) recipientAt(at *peer, b []byte) *recipient {
	if at == nil {
		return n.recipient(b)
	}
	if text := digestOf(b); at.last == nil || at.lastText != text {
		at.last, at.lastText = n.recipientOf(text, b), text
	}
	return at.last
}

// same reports whether a and b are one address and, where both are known, port.
func (a *peer) same(b *peer) bool {
	return a != nil && b != nil && a.ip == b.ip && a.ip.IsValid() && (a.port == b.port || a.port == 0 || b.port == 0)
}

// peer reads "host[address]:port" or "host[address]", nil if b is neither.
func (n *names) peer(b []byte) *peer {
	if len(b) == 0 {
		return nil
	}
	d := digestOf(b)
	if p, ok := n.peers.find(d); ok {
		return p
	}
	p := parsePeer(string(b))
	n.peers.add(d, p)
	return p
}

func parsePeer(s string) *peer {
	b := []byte(s)
	open := bytes.IndexByte(b, '[')
	end := bytes.IndexByte(b, ']')
	if open < 0 || end < open {
		return nil
	}
	ip, err := netip.ParseAddr(s[open+1 : end])
	if err != nil {
		return nil
	}
	port, ok := parsePort(b[end+1:])
	if !ok {
		return nil
	}
	p := &peer{text: s, host: s[:open], ip: ip.Unmap().WithZone(""), port: port}
	p.drop = p.hop()
	return p
}

// hop says why p cannot be an MX of a recipient domain.
func (p *peer) hop() Drop {
	_, err := netip.ParseAddr(p.host)
	switch {
	case p.port != smtpPort && p.port != 0:
		return DropPort
	case !guard.Public(p.ip):
		return DropAddress
	case err == nil:
		// An MX record names a host (RFC 5321, section 5.1): this is the
		// next hop of a transport map.
		return DropLiteral
	}
	return ""
}

const smtpPort = 25

// parsePort reads ":25"; nothing is 0.
func parsePort(b []byte) (uint16, bool) {
	if len(b) == 0 {
		return 0, true
	}
	if b[0] != ':' {
		return 0, false
	}
	n, rest := leadingNumber(b[1:])
	return uint16(n), len(b) > 1 && len(b) <= 6 && len(rest) == 0 && n > 0 && n < 1<<16
}

// leadingNumber is the number that b begins with, and what follows.
func leadingNumber(b []byte) (int, []byte) {
	n, i := 0, 0
	for i < len(b) && i < 18 && b[i]-'0' < 10 {
		n = n*10 + int(b[i]-'0')
		i++
	}
	return n, b[i:]
}
