package tail

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	positionVersion = 1

	headSize = 1024 // bytes at the beginning of a file that tell it from others
	tailSize = 256  // bytes before an offset that do so

	digestSize = 16
	maxCursor  = 1024
)

// position is what Tail.Position encodes. At most one of Place and Cursor is
// set.
type position struct {
	Version int    `json:"version"`
	Place   *place `json:"file,omitempty"`
	Cursor  string `json:"cursor,omitempty"` // of the journal
}

// place is an offset in a file that may since have got another name, another
// inode, or have been compressed. Head and Tail then tell it from others.
type place struct {
	Name   string `json:"name,omitempty"`   // where a symbolic link led to, or ""
	Device uint64 `json:"device,omitempty"` // 0 where the system has no inodes
	Inode  uint64 `json:"inode,omitempty"`
	Offset int64  `json:"offset"`           // of the log, decompressed
	Head   []byte `json:"head,omitempty"`   // digest of the first bytes before Offset, nil if that is 0
	Tail   []byte `json:"tail,omitempty"`   // digest of the last ones
	Time   int64  `json:"time,omitempty"`   // when the file was changed last, nanoseconds since 1970
	Inside bool   `json:"inside,omitempty"` // Offset is within a line that was cut
}

func digest(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	sum := sha256.Sum256(b)
	return sum[:digestSize]
}

// encode returns nil for a position that says nothing.
func (p *position) encode() []byte {
	if p == nil || p.Place == nil && p.Cursor == "" {
		return nil
	}
	p.Version = positionVersion
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers, strings and bytes cannot fail
	}
	return text
}

// decodePosition is the position that text encodes. It says nothing if text is
// empty.
func decodePosition(text []byte) (*position, error) {
	p := new(position)
	if len(text) == 0 {
		return p, nil
	}
	if len(text) > MaxPosition {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrPosition, len(text))
	}
	var version struct{ Version int }
	if err := json.Unmarshal(text, &version); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPosition, err)
	}
	if version.Version != positionVersion {
		return nil, fmt.Errorf("%w: it is of version %d, this program knows version %d",
			ErrPosition, version.Version, positionVersion)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(p)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("something follows it")
		}
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPosition, err)
	}
	return p, nil
}

func (p *position) check() error {
	switch {
	case (p.Place == nil) == (p.Cursor == ""):
		return errors.New("want one of a file and a cursor")
	case p.Place != nil:
		return p.Place.check()
	case !validCursor(p.Cursor):
		return errors.New("malformed cursor")
	}
	return nil
}

func (p *place) check() error {
	want := 0
	if p.Offset > 0 {
		want = digestSize
	}
	switch {
	case p.Offset < 0:
		return errors.New("negative offset")
	case len(p.Head) != want, len(p.Tail) != want:
		return errors.New("digests of a wrong length")
	case p.Inside && p.Offset == 0:
		return errors.New("the beginning of a file is not within a line")
	case strings.IndexByte(p.Name, 0) >= 0, len(p.Name) > maxName, !utf8.ValidString(p.Name):
		return errors.New("malformed name")
	}
	return nil
}

// maxName is the longest path that Linux knows.
const maxName = 4096

// validCursor holds of what goes to a command line. The form is the journal's
// own business.
func validCursor(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= maxCursor
}
