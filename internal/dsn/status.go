package dsn

import (
	"fmt"
	"strconv"
	"strings"
)

// Status is a status code of RFC 3463: class, subject and detail. The zero value
// is no status.
type Status [3]int

// permanent is a failure of which no more is known.
var permanent = Status{5, 0, 0}

// String is such as "5.1.1".
func (s Status) String() string { return fmt.Sprintf("%d.%d.%d", s[0], s[1], s[2]) }

// NoSuchRecipient reports whether s says for good that the recipient's address
// does not exist (RFC 3463, section 3.2). Of 5.1.x, servers say 5.1.0, 5.1.7 and
// 5.1.8 about the sender, who is us.
func (s Status) NoSuchRecipient() bool {
	if s[0] != 5 || s[1] != 1 {
		return false
	}
	switch s[2] {
	case 1, 2, 3, 4, 5, 6, 10:
		return true
	}
	return false
}

// MailboxDisabled reports whether s says for good that the mailbox exists and
// takes no mail (RFC 3463, section 3.3).
func (s Status) MailboxDisabled() bool { return s == Status{5, 2, 1} }

// ParseStatus reads "5.1.1". Some servers add a comment: "5.1.1 (bad address)".
func ParseStatus(text string) (s Status, ok bool) {
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	parts := strings.Split(word, ".")
	if len(parts) != len(s) {
		return Status{}, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || len(p) > 3 || i == 0 && n != 2 && n != 4 && n != 5 {
			return Status{}, false
		}
		s[i] = int(n)
	}
	return s, true
}

// findStatus is the first status of a class within text. Numbers of the form
// that are part of a longer one, an IP address, are none.
func findStatus(text string, class int) (Status, bool) {
	dotted := func(r rune) bool { return r != '.' && (r < '0' || r > '9') }
	for word := range strings.FieldsFuncSeq(text, dotted) {
		if s, ok := ParseStatus(strings.TrimRight(word, ".")); ok && s[0] == class {
			return s, true
		}
	}
	return Status{}, false
}
