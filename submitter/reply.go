package submitter

import (
	"errors"
	"fmt"
	"net/textproto"
	"strconv"

	"github.com/emersion/go-smtp"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/dsn"
)

// smtpRefusal is a reply that says no.
type smtpRefusal struct {
	*smtp.SMTPError
	command string // that it answers; EHLO has the greeting too
}

// refused is err, of command, as an smtpRefusal where the server did reply.
func refused(command string, err error) error {
	if reply, ok := errors.AsType[*textproto.Error](err); ok { // to a command that go-smtp did not send
		return &smtpRefusal{&smtp.SMTPError{Code: reply.Code, Message: reply.Msg}, command}
	}
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return &smtpRefusal{reply, command}
	}
	return err
}

// Error is the codes and the text as they came.
func (r *smtpRefusal) Error() string { return r.codes() + " " + r.Message }

// codes is "550 5.1.1", or "550" where there is no enhanced code (RFC 3463).
func (r *smtpRefusal) codes() string {
	if r.EnhancedCode != smtp.EnhancedCodeNotSet {
		return fmt.Sprintf("%d %s", r.Code, dsn.Status(r.EnhancedCode))
	}
	return strconv.Itoa(r.Code)
}

// permanent reports whether r is a 5yz (RFC 5321, section 4.2.1). What is no
// reply code at all may be another one next time.
func (r *smtpRefusal) permanent() bool { return r.Code >= 500 && r.Code <= 599 }

// closing reports whether the server ends the session with r (RFC 5321, section 3.8).
func (r *smtpRefusal) closing() bool { return r.Code == 421 }

// noSuchRecipient reports whether r is about the recipient's address.
func (r *smtpRefusal) noSuchRecipient() bool {
	status := dsn.Status(r.EnhancedCode)
	if r.EnhancedCode == smtp.EnhancedCodeNotSet { // go-smtp takes a code without text for text
		status, _ = dsn.ParseStatus(r.Message)
	}
	return r.command == "RCPT" && r.permanent() && status.NoSuchRecipient()
}
