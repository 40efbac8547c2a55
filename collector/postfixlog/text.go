package postfixlog

import "bytes"

// endKind is what the end of an attempt with an MX says about its TLS.
type endKind uint8

const (
	endOther       endKind = iota
	endNotVerified endKind = iota // the certificate did not match
	endNotTrusted  endKind = iota // Postfix 3.4 and 3.5: no trusted issuer
	endHandshake   endKind = iota
	endRefused     endKind = iota // TLS is required, STARTTLS was not to be had
	endSender      endKind = iota // the sender's own fault
	endSaid        endKind = iota // a mail command was refused: the session may go on, for other recipients
	endUsed        endKind = iota // it was lost, after mail commands were sent
	endBroken      endKind = iota // the connection ended early
	endUnfit       endKind = iota // TLS was as it should be, and the server does not know REQUIRETLS
)

// end is how Postfix says that an attempt is over.
type end struct {
	kind endKind
	host []byte // "host[address]" where the text names it
}

// readEnd reads the text of "QUEUEID: text", and of "status=deferred (text)".
func readEnd(b []byte) end {
	if len(b) == 0 {
		return end{}
	}
	switch b[0] {
	case 'S':
		if hasPrefix(b, "Server certificate not verified") {
			return end{kind: endNotVerified}
		}
		if hasPrefix(b, "Server certificate not trusted") {
			return end{kind: endNotTrusted}
		}
		if rest, ok := cut(b, "Sender requested REQUIRETLS, but "); ok {
			return readRequireTLS(rest)
		}
	case 'C':
		if hasPrefix(b, "Cannot start TLS: handshake failure") {
			return end{kind: endHandshake}
		}
	case 'T':
		return readRequired(b)
	case 'h':
		return readSaid(b)
	case 'l', 'c':
		return readBroken(b)
	case 'p':
		if hasPrefix(b, "policy table lookup error") {
			return end{kind: endSender}
		}
	}
	return end{}
}

// readRequired reads "TLS is required, but was not offered by host H" and "TLS
// is required, but host H refused to start TLS: ...".
func readRequired(b []byte) end {
	rest, ok := cut(b, "TLS is required, but ")
	if !ok {
		return end{}
	}
	if h, ok := cut(rest, "was not offered by host "); ok {
		return end{endRefused, hostText(h)}
	}
	if h, ok := cut(rest, "host "); ok {
		host := hostText(h)
		if hasPrefix(h[len(host):], " refused to start TLS") {
			return end{endRefused, host}
		}
		return end{}
	}
	return end{kind: endSender}
}

// readRequireTLS reads what Postfix 3.11 says where the sender asked for TLS to be
// required (RFC 8689): it takes the place of other texts.
func readRequireTLS(b []byte) end {
	if hasPrefix(b, "no matching server certificate ") {
		return end{endNotVerified, lastServer(b)}
	}
	if hasPrefix(b, "no trusted server certificate ") {
		return end{endNotTrusted, lastServer(b)}
	}
	if hasPrefix(b, "my configured TLS security level ") {
		return end{kind: endSender}
	}
	if h, ok := cut(b, "TLS service was not offered by host "); ok {
		return end{endRefused, hostText(h)}
	}
	if h, ok := cut(b, "host "); ok {
		return end{endRefused, hostText(h)} // "refused to start TLS: ..."
	}
	if hasPrefix(b, "no server was found that supports REQUIRETLS") {
		return end{endUnfit, lastServer(b)}
	}
	return end{} // not offered, and the delivery goes on
}

// lastServer is the host of "... The last attempted server was H", nil if b does
// not name one.
func lastServer(b []byte) []byte {
	if _, h, ok := bytes.Cut(b, []byte(". The last attempted server was ")); ok {
		return hostText(h)
	}
	return nil
}

// readSaid reads "host H said: 450 ..." and "host H refused to talk to me: ...".
func readSaid(b []byte) end {
	h, ok := cut(b, "host ")
	if !ok {
		return end{}
	}
	host := hostText(h)
	switch rest := h[len(host):]; {
	case hasPrefix(rest, " said: "):
		return end{endSaid, host}
	case hasPrefix(rest, " refused to talk to me: "):
		return end{endBroken, host}
	}
	return end{}
}

// readBroken reads "lost connection with H while ..." and "conversation with H
// timed out while ...".
func readBroken(b []byte) end {
	h, ok := cut(b, "lost connection with ")
	if !ok {
		if h, ok = cut(b, "conversation with "); !ok {
			if hasPrefix(b, "client TLS configuration problem") {
				return end{kind: endSender}
			}
			return end{}
		}
	}
	host := hostText(h)
	rest, _ := cut(h[len(host):], " timed out")
	if hasPrefix(rest, " while sending ") {
		return end{endUsed, host}
	}
	if hasPrefix(rest, " while ") {
		return end{endBroken, host}
	}
	return end{}
}

// hostText is the "host[address]" that b begins with.
func hostText(b []byte) []byte {
	if i := bytes.IndexByte(b, ']'); i >= 0 {
		return b[:i+1]
	}
	return b[:0]
}

// delivery is a line "QUEUEID: to=<...>, relay=..., ... status=...".
type delivery struct {
	recipient []byte // with its quotation marks, if any
	relay     []byte // "host[address]:port", "none", or what other daemons write
	reused    bool   // conn_use=2 or more
	delays    uint64 // of the first three delays: the same for all recipients of one attempt
	tls       []byte // Postfix 3.11: "may:none"
	sent      bool   // or could be
	text      []byte // within the parentheses
	tail      int    // bytes from the status to the end of the line
}

// readDelivery reads what follows "to=<". Both the local part of an address and
// the text of the receiver may hold anything, even what looks like a field. So
// an address ends where all fields follow in their order, and if it could end in
// two places nobody knows which.
func readDelivery(b []byte) (d delivery, found bool) {
	for i := quotedLength(b); i < len(b); {
		n := bytes.IndexByte(b[i:], '>')
		if n < 0 {
			break
		}
		i += n
		if !hasPrefix(b[i:], ">, ") {
			i++
			continue
		}
		var one delivery
		if !one.readFields(b[i+len(">, "):]) {
			i++
			continue
		}
		if found {
			return d, false
		}
		one.recipient = b[:i]
		d, found = one, true
		i = len(b) - d.tail
	}
	return d, found
}

// quotedLength is how long the quoted local part is that b begins with, 0 if it
// begins with none.
func quotedLength(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// readFields reads "relay=H, delay=0.1, delays=0/0/0.09/0.04, dsn=2.0.0,
// status=sent (text)", with "orig_to=<...>, " before it or not.
func (d *delivery) readFields(b []byte) (ok bool) {
	if rest, ok := cut(b, "orig_to=<"); ok {
		i := quotedLength(rest)
		if i = i + bytes.Index(rest[i:], []byte(">, relay=")); i < 0 || !hasPrefix(rest[i:], ">, relay=") {
			return false
		}
		b = rest[i+len(">, "):]
	}
	if b, ok = cut(b, "relay="); !ok {
		return false
	}
	if d.relay, b, ok = cutField(b); !ok {
		return false
	}
	if rest, ok := cut(b, "conn_use="); ok {
		if _, b, ok = cutField(rest); !ok {
			return false
		}
		d.reused = true
	}
	if b, ok = cut(b, "delay="); !ok {
		return false
	}
	if _, b, ok = cutField(b); !ok {
		return false
	}
	return d.readDelays(b)
}

// readDelays is the second half of readFields.
func (d *delivery) readDelays(b []byte) bool {
	b, ok := cut(b, "delays=")
	if !ok {
		return false
	}
	delays, b, ok := cutField(b)
	if !ok {
		return false
	}
	if rest, ok := cut(b, "tls="); ok {
		if d.tls, b, ok = cutField(rest); !ok {
			return false
		}
	}
	if b, ok = cut(b, "dsn="); !ok {
		return false
	}
	if _, b, ok = cutField(b); !ok {
		return false
	}
	if b, ok = cut(b, "status="); !ok {
		return false
	}
	d.delays = fnv1a(delays[:max(0, bytes.LastIndexByte(delays, '/'))])
	d.tail = len(b)
	d.sent = hasPrefix(b, "sent ") || hasPrefix(b, "deliverable ") // a probe, see verify(8)
	if i := bytes.IndexByte(b, '('); i >= 0 {
		d.text = bytes.TrimSuffix(b[i+1:], []byte(")"))
	}
	return true
}

// cutField is what comes before the next ", ", which must be on the line.
func cutField(b []byte) (field, rest []byte, ok bool) {
	i := bytes.IndexByte(b, ',')
	if i < 0 || i+1 >= len(b) || b[i+1] != ' ' {
		return nil, nil, false
	}
	return b[:i], b[i+2:], true
}

// fnv1a is a hash that may go into a state: it is the same in every process.
func fnv1a(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// recipientDomain is what follows the last "@", nil if there is none.
func recipientDomain(b []byte) []byte {
	i := bytes.LastIndexByte(b, '@')
	if i < 0 {
		return nil
	}
	return b[i+1:]
}

// usedTLS reports whether Postfix 3.11 says that TLS was used.
func (d delivery) usedTLS() bool {
	level, actual, undecided := readTLS(d.tls)
	return len(level) > 0 && !undecided && string(level) != "none" && string(actual) != "none"
}

// readTLS reads "may", "!secure", "may:none", "dane:encrypt", "may?" and
// "unknown?" (Postfix 3.11), with "/requiretls" or more after it or not. actual is
// "" unless another level was used.
func readTLS(b []byte) (level, actual []byte, undecided bool) {
	b, _, _ = bytes.Cut(b, []byte("/"))
	b = bytes.TrimPrefix(b, []byte("!"))
	b, undecided = bytes.CutSuffix(b, []byte("?"))
	level, actual, _ = bytes.Cut(b, []byte(":"))
	return level, actual, undecided
}
