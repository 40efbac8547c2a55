package libtlsrpt

import (
	"errors"
	"fmt"
	"strings"
)

// ErrDatagram means that a datagram is not one of the protocol. Nothing of it
// may be counted. The error that wraps it names the member that is at fault.
var ErrDatagram = errors.New("libtlsrpt: malformed datagram")

// class groups faults for a metric.
type class string

const (
	badSyntax    class = "syntax"    // not JSON
	badType      class = "type"      // a member of a wrong JSON type
	badMember    class = "member"    // a member that is missing or there twice
	badValue     class = "value"     // a member of a wrong value
	badVersion   class = "version"   // another version of the protocol
	badDomain    class = "domain"    // not the name of a domain
	badBounds    class = "bounds"    // too much of something
	badTruncated class = "truncated" // longer than the receive buffer
	badInternal  class = "internal"  // a defect of ours, see Source.decode
)

// classes is all of them.
var classes = [...]class{
	badSyntax, badType, badMember, badValue, badVersion, badDomain, badBounds, badTruncated, badInternal,
}

// fault is an ErrDatagram.
type fault struct {
	class class
	field string // a path such as "policies[0].f"; "" is the datagram as a whole
	why   string
}

func bad(c class, format string, args ...any) error {
	return &fault{class: c, why: fmt.Sprintf(format, args...)}
}

func (f *fault) Error() string {
	if f.field == "" {
		return fmt.Sprintf("%v: %s", ErrDatagram, f.why)
	}
	return fmt.Sprintf("%v: %.100q: %s", ErrDatagram, f.field, f.why)
}

func (f *fault) Unwrap() error { return ErrDatagram }

// within puts the name of a member or an index before the path of a fault.
func within(name string, err error) error {
	f, ok := errors.AsType[*fault](err)
	if !ok {
		return err
	}
	sep := "."
	if f.field == "" || strings.HasPrefix(f.field, "[") {
		sep = ""
	}
	f.field = name + sep + f.field
	return f
}
