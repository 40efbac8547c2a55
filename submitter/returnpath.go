package submitter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ErrDelimiter means that a delivery cannot be named in the envelope sender.
var ErrDelimiter = errors.New("submitter: unusable bounce delimiter")

// ReturnPath is where bounces go: the sender's address, in which a delimiter and
// the id of a delivery may follow the local part, "reports+id@example.com".
type ReturnPath struct {
	Address   string // addr-spec
	Delimiter string // one of "+-=_.#~", or "": no id is added
}

// delimiters is what mail servers take a local part apart by. "%" and "!" have
// another meaning to some.
const delimiters = "+-=_.#~"

// maxLocalPart is how long a local part may be (RFC 5321, section 4.5.3.1.1).
const maxLocalPart = 64

// Check finds out whether every id of at most maxID bytes can be added. The error
// is [ErrDelimiter], or [schema.ErrAddress].
func (r ReturnPath) Check(maxID int) error {
	addr, err := schema.ParseAddress(r.Address)
	if err != nil || r.Delimiter == "" {
		return err
	}
	if len(r.Delimiter) != 1 || !strings.Contains(delimiters, r.Delimiter) {
		return fmt.Errorf("%w %q: want one of the characters %s", ErrDelimiter, printable(r.Delimiter, 40), delimiters)
	}
	if n, most := strings.LastIndexByte(addr, '@'), maxLocalPart-1-maxID; n > most {
		return fmt.Errorf("%w: the local part of %s has %d bytes, and with an id at most %d fit (RFC 5321, section 4.5.3.1.1)",
			ErrDelimiter, addr, n, most)
	}
	return nil
}

// With is the address with an id. It is the address alone where there is no
// delimiter, no id, or no room for it.
func (r ReturnPath) With(id string) string {
	at := strings.LastIndexByte(r.Address, '@')
	if at < 0 || r.Delimiter == "" || id == "" {
		return r.Address
	}
	addr, err := schema.ParseAddress(r.Address[:at] + r.Delimiter + id + r.Address[at:])
	if err != nil {
		return r.Address
	}
	return addr
}

// Read is the id in an address, "" if it has none. It is false for an address
// that is not of r. Case says nothing: servers may change it.
func (r ReturnPath) Read(address string) (id string, ours bool) {
	addr, err := schema.ParseAddress(address)
	if err != nil {
		return "", false
	}
	if strings.EqualFold(addr, r.Address) {
		return "", true
	}
	at := strings.LastIndexByte(r.Address, '@')
	local, domain, _ := strings.Cut(addr, "@")
	if at < 0 || r.Delimiter == "" || !strings.EqualFold(domain, r.Address[at+1:]) || len(local) <= at {
		return "", false
	}
	id, ok := strings.CutPrefix(local[at:], r.Delimiter)
	if !ok || !strings.EqualFold(local[:at], r.Address[:at]) || !isToken(id, "") {
		return "", false
	}
	return id, true
}
