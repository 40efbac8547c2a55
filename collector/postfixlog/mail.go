package postfixlog

import (
	"bytes"
	"slices"
)

// ownMessageID is how the Message-ID of each report of ours begins.
const ownMessageID = "tlsrpt."

// ownMail is the queue ids of our own reports, by "host root id". A queue id
// is one of an instance, and short ones come again: "removed" ends one.
type ownMail struct {
	ids   map[string]bool
	order []string // oldest first
}

// maxOwn bounds the reports that are in the queue at one time.
const maxOwn = 4096

func newOwnMail() ownMail { return ownMail{ids: make(map[string]bool)} }

func ownKey(m *mta, id []byte) string { return m.host + " " + m.root + " " + string(id) }

func (o *ownMail) has(m *mta, id []byte) bool {
	return len(o.ids) > 0 && o.ids[ownKey(m, id)]
}

func (o *ownMail) add(key string) {
	if o.ids[key] {
		return
	}
	if len(o.order) >= maxOwn {
		delete(o.ids, o.order[0])
		o.order = o.order[1:]
	}
	o.ids[key] = true
	o.order = append(o.order, key)
}

func (o *ownMail) remove(key string) {
	if !o.ids[key] {
		return
	}
	delete(o.ids, key)
	for i, k := range o.order {
		if k == key {
			o.order = append(o.order[:i], o.order[i+1:]...)
			return
		}
	}
}

// isShort reports whether a queue id may come again (enable_long_queue_ids=no):
// it is a hexadecimal number.
func isShort(id []byte) bool {
	for _, c := range id {
		if c-'0' > 9 && c-'A' > 5 {
			return false
		}
	}
	return true
}

// mailLine reads "QUEUEID: from=<...>", "QUEUEID: message-id=<...>" and
// "QUEUEID: removed". It is false for other lines.
func (p *Parser) mailLine(m *mta, at int64, id, text []byte) bool {
	switch {
	case p.sieve.isOwnSender(text), isOwnMessageID(text):
		p.own.add(ownKey(m, id))
	case string(text) == "removed":
		if len(p.own.ids) > 0 {
			p.own.remove(ownKey(m, id))
		}
		if isShort(id) {
			m.ended.add(id, at)
		}
	default:
		return false
	}
	return true
}

// isOwnSender reports whether a text is "from=<one of Options.Senders>, ...".
func (s *sieve) isOwnSender(text []byte) bool {
	if len(s.senders) == 0 {
		return false
	}
	text, ok := cut(text, "from=<")
	if !ok {
		return false
	}
	end := bytes.IndexByte(text, '>')
	return end >= 0 && slices.ContainsFunc(s.senders, func(one string) bool { return isLowered(text[:end], one) })
}

// isLowered reports whether b in lower case is s.
func isLowered(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c-'A' < 26 {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

func isOwnMessageID(text []byte) bool { return hasPrefix(text, "message-id=<"+ownMessageID) }
