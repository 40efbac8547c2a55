package submitter

import (
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/dsn"
)

// smtpRefusal is a reply that says no.
type smtpRefusal struct {
	command  string // that it answers, "" for the greeting
	code     int
	enhanced [3]int // RFC 3463; zero if there is none
	text     string // what follows the codes
}

// Error is the codes and the text as they came.
func (r *smtpRefusal) Error() string { return r.codes() + " " + r.text }

// codes is "550 5.1.1", or "550" where there is no enhanced code.
func (r *smtpRefusal) codes() string {
	if e := r.enhanced; e[0] != 0 {
		return fmt.Sprintf("%d %d.%d.%d", r.code, e[0], e[1], e[2])
	}
	return strconv.Itoa(r.code)
}

// permanent reports whether r is a 5yz (RFC 5321, section 4.2.1). What is no
// reply code at all may be another one next time.
func (r *smtpRefusal) permanent() bool { return r.code >= 500 && r.code <= 599 }

// closing reports whether the server ends the session with r (RFC 5321, section 3.8).
func (r *smtpRefusal) closing() bool { return r.code == 421 }

// noSuchRecipient reports whether r is about the recipient's address.
func (r *smtpRefusal) noSuchRecipient() bool {
	return r.command == "RCPT" && r.permanent() && dsn.Status(r.enhanced).NoSuchRecipient()
}

// replyTo is err, of reading the reply to command, as an smtpRefusal where the
// server did reply.
func replyTo(command string, err error) error {
	reply, ok := errors.AsType[*textproto.Error](err)
	if !ok {
		return err
	}
	r := &smtpRefusal{command: command, code: reply.Code, text: reply.Msg}
	if word, rest, _ := strings.Cut(reply.Msg, " "); parseEnhanced(word, &r.enhanced) {
		// RFC 2034, section 4: every line begins with it.
		r.text = strings.ReplaceAll(rest, "\n"+word+" ", "\n")
	}
	return r
}

// parseEnhanced reads an enhanced code such as 5.1.1 (RFC 3463, section 2).
func parseEnhanced(s string, code *[3]int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || s[0] != '2' && s[0] != '4' && s[0] != '5' {
		return false
	}
	var parsed [3]int
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil || n > 999 {
			return false
		}
		parsed[i] = int(n)
	}
	*code = parsed
	return true
}
