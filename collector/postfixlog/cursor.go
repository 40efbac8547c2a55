package postfixlog

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ErrCursor means that a stored position cannot be used. Nobody knows then what
// was counted before; starting anew is the operator's decision.
var ErrCursor = errors.New("postfixlog: unusable position")

// cursor is the position of a Source: everything that decides what is counted
// next.
type cursor struct {
	Version int       `json:"version"`
	Tail    []byte    `json:"tail"`
	Parser  []byte    `json:"parser"`
	Waiting []Session `json:"waiting,omitempty"` // for what DNS says

	// Spans is where those that the store has go on.
	Spans []schema.Span `json:"spans,omitempty"`
}

const cursorVersion = 1

func (c cursor) encode() ([]byte, error) {
	c.Version = cursorVersion
	return json.Marshal(c)
}

// decodeCursor reads a position; nil is that of a new source.
func decodeCursor(text []byte) (c cursor, err error) {
	if text == nil {
		return c, nil
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("%w: %w", ErrCursor, err)
	}
	if c.Version != cursorVersion {
		return c, fmt.Errorf("%w: it is of version %d", ErrCursor, c.Version)
	}
	return c, nil
}
