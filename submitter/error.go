package submitter

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ErrNoTransport means that there is nothing to send by: a mailto destination
// without a [Mailer], or mail that nobody would sign. The configuration is
// incomplete.
var ErrNoTransport = errors.New("submitter: no transport")

// Error is how an attempt to deliver a report failed, or a look-up of a record.
type Error struct {
	// RUA is the destination, or "" where there is none yet.
	RUA schema.RUA

	// Temporary says that another attempt may succeed. If not, give up.
	Temporary bool

	// RetryAfter is how long the destination asks to be left alone, at most
	// 24 h; 0 means that it did not say.
	RetryAfter time.Duration

	// Ours says that our own relay refused, not the destination. It says
	// nothing about the destination, and all deliveries by that relay fail alike.
	Ours bool

	// NoSuchRecipient says that the address of a mailto destination does not
	// exist, for good: to mail to it again would be a nuisance.
	NoSuchRecipient bool

	// Reply is what the other side answered: one line of printable ASCII, at
	// most 512 bytes, or "".
	Reply string

	// Err is the cause, or nil if Reply is all there is.
	Err error
}

// Error is "submitter: destination: cause: reply" in printable ASCII.
func (e *Error) Error() string {
	parts := []string{"submitter"}
	if e.RUA != "" {
		parts = append(parts, string(e.RUA))
	}
	if e.Err != nil {
		parts = append(parts, strings.TrimPrefix(e.Err.Error(), "submitter: "))
	}
	if e.Reply != "" {
		parts = append(parts, e.Reply)
	}
	return printable(strings.Join(parts, ": "), maxErrorText)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsTemporary reports whether the same call may succeed later. It looks into
// wrapped and joined errors; of several, one that is temporary is enough.
func IsTemporary(err error) bool {
	switch e := err.(type) {
	case nil:
		return false
	case *Error:
		return e.Temporary
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if IsTemporary(err) {
				return true
			}
		}
		return false
	case interface{ Unwrap() error }:
		return IsTemporary(e.Unwrap())
	}
	return err == context.Canceled || err == context.DeadlineExceeded
}

// asError is err as an Error about rua. A cause that is no Error, from a Mailer
// of somebody else for instance, is taken to be temporary.
func asError(rua schema.RUA, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		about := *e
		about.RUA = rua
		return &about
	}
	return &Error{RUA: rua, Temporary: true, Err: err}
}

// Bounds on what is kept of what others say.
const (
	maxErrorText = 4 << 10 // bytes; a rua takes up to 2 KiB
	maxReply     = 512
)

// printable is s in one line of printable ASCII: white space is one space, all
// else is "?". It is cut to size bytes, at least 3, and then ends in "...".
func printable(s string, size int) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		switch {
		case r == ' ', '\t' <= r && r <= '\r':
			space = b.Len() > 0
			continue
		case r < ' ' || r > '~':
			r = '?'
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteByte(byte(r))
		if b.Len() > size {
			return b.String()[:size-3] + "..."
		}
	}
	return b.String()
}
