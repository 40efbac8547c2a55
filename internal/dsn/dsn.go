package dsn

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/emersion/go-message"
)

// ErrNotDSN means that a message tells of no delivery: a person's answer, a
// vacation notice, spam. There is nothing to do about it.
var ErrNotDSN = errors.New("dsn: not a delivery status notification")

// Bounds on what is read of a message. What exceeds them is left out.
const (
	MaxSize       = 1 << 20   // bytes; what tells of the failure comes before the returned message
	maxHeader     = 256 << 10 // bytes of the header of the message, or of a part
	maxParts      = 32
	maxDepth      = 4  // of parts within parts
	maxRecipients = 64 // that are told of
	maxLines      = 4096
	maxValue      = 1024 // bytes of an address or id
	maxReason     = 512  // bytes
)

// Notification is what a message says of one delivery.
type Notification struct {
	// To is the address that the notification was sent to, or "". It is the
	// envelope sender of what it tells of.
	To string

	// EnvelopeID is the ENVID that was given with the message (RFC 3461,
	// section 4.4), or "".
	EnvelopeID string

	// Recipients is at least one.
	Recipients []Recipient
}

// Recipient is what became of the mail to one recipient.
type Recipient struct {
	// Final is the address that it was to be delivered to in the end, and
	// Original the one that the sender gave; "" is unknown. Both are as they were
	// written, without the type.
	Final, Original string

	// Action is "failed", "delayed", "delivered", "relayed", "expanded", or what
	// else was written, in lower case.
	Action string

	// Status is why. A failure whose status is unknown is 5.0.0.
	Status Status

	// Reason is what the other server said, in one line, or "".
	Reason string
}

// Failed reports whether the mail will not be delivered.
func (r *Recipient) Failed() bool { return r.Action == "failed" }

// Is reports whether r is about mail to an address. Its local part is compared
// without case, and its Original form as it is in a message and as it was in the
// envelope (RFC 3461, section 4: xtext): servers do both.
func (r *Recipient) Is(address string) bool {
	return strings.EqualFold(r.Final, address) || strings.EqualFold(r.Original, address) ||
		strings.EqualFold(fromXtext(r.Original), address)
}

// fromXtext is s decoded, or as it is where it is no xtext.
func fromXtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return s
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return s
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String()
}

// Parse reads one message. The error is [ErrNotDSN], or that of r.
func Parse(r io.Reader) (Notification, error) {
	watched := &watched{r: io.LimitReader(r, MaxSize)}
	e, err := readEntity(watched)
	var n Notification
	if err == nil {
		n = read(e)
	}
	switch {
	case watched.err != nil:
		return Notification{}, watched.err
	case len(n.Recipients) == 0:
		return Notification{}, ErrNotDSN
	}
	return n, nil
}

func read(e *message.Entity) Notification {
	w := walker{parts: maxParts}
	w.walk(e, 0)
	n := w.found
	if len(n.Recipients) == 0 {
		n = Notification{Recipients: plainFailures(e.Header.Get("X-Failed-Recipients"), w.text)}
	}
	n.To = bareAddress(e.Header.Get("To"))
	return n
}

// watched keeps the error of a reader from being taken for a malformed message.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = fmt.Errorf("dsn: reading the message: %w", err)
	}
	return n, err
}

// readEntity reads a message. An encoding or character set that nobody knows is
// no reason not to read the rest.
func readEntity(r io.Reader) (*message.Entity, error) {
	e, err := message.ReadWithOptions(r, &message.ReadOptions{MaxHeaderBytes: maxHeader})
	if message.IsUnknownCharset(err) || message.IsUnknownEncoding(err) {
		err = nil
	}
	return e, err
}

// walker looks for the part that tells of recipients.
type walker struct {
	parts int // that may still be looked at
	found Notification
	text  string // the first text part
}

// walk looks at a part and at those within it. A returned message is not looked
// into: what it says is not about this delivery.
func (w *walker) walk(e *message.Entity, depth int) {
	kind, _, _ := e.Header.ContentType()
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		w.walkParts(e.MultipartReader(), depth)
	case kind == "message/delivery-status", kind == "message/global-delivery-status":
		if len(w.found.Recipients) == 0 {
			w.found = parseStatusPart(e.Body)
		}
	case (kind == "text/plain" || kind == "") && w.text == "":
		text, _ := io.ReadAll(io.LimitReader(e.Body, maxText))
		w.text = string(text)
	}
}

func (w *walker) walkParts(parts message.MultipartReader, depth int) {
	if parts == nil || depth == maxDepth {
		return
	}
	defer parts.Close()
	for w.parts > 0 && len(w.found.Recipients) == 0 {
		w.parts--
		part, err := parts.NextPart()
		if part == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
			return
		}
		w.walk(part, depth+1)
	}
}

// bareAddress is the one address of a To field.
func bareAddress(field string) string {
	if _, rest, ok := strings.Cut(field, "<"); ok {
		field, _, _ = strings.Cut(rest, ">")
	}
	return address(field)
}

// clean is s in one line, cut to size bytes: white space is one space, and what is
// not printable is "?".
func clean(s string, size int) string {
	var b strings.Builder
	for word := range strings.FieldsSeq(strings.Map(visible, strings.ToValidUTF8(s, "?"))) {
		if b.Len()+1+len(word) > size {
			word = word[:max(size-b.Len()-1, 0)]
		}
		if word = strings.ToValidUTF8(word, ""); word == "" {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
	}
	return b.String()
}

func visible(r rune) rune {
	if unicode.IsPrint(r) || unicode.IsSpace(r) {
		return r
	}
	return '?'
}
