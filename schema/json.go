package schema

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds on what is read as a report. mox takes as many bytes; a report needs a
// depth of 6.
const (
	maxDecode = 20_000_000 // bytes of JSON
	maxDepth  = 32
	maxValues = 500_000
)

// unpack is the JSON within data, which may be gzip (RFC 8460, section 5.2).
func unpack(data []byte) ([]byte, error) {
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		if data, err = io.ReadAll(io.LimitReader(z, maxDecode+1)); err != nil {
			return nil, err
		}
	}
	if len(data) > maxDecode {
		return nil, fmt.Errorf("more than %d bytes", maxDecode)
	}
	return data, nil
}

// object is a JSON object with its members in their order, repeated names
// included.
type object []member

type member struct {
	name  string
	value any // nil, bool, string, json.Number, []any or object
}

// treeReader reads one JSON value into a tree.
type treeReader struct {
	dec    *json.Decoder
	values int
	path   []string // of the value that is being read
	faults *Faults
}

// readTree is the first JSON value of data. It notes what I-JSON forbids; what
// is not JSON at all is the error.
func readTree(data []byte, faults *Faults) (any, error) {
	if rest, ok := bytes.CutPrefix(data, []byte("\xef\xbb\xbf")); ok {
		faults.add("", rfc8259BOM, "it begins with a byte order mark")
		data = rest
	}
	if !utf8.Valid(data) {
		faults.add("", rfc7493UTF8, "not UTF-8")
	} else if hasLoneSurrogate(data) {
		faults.add("", rfc7493UTF8, "half of a surrogate pair")
	}
	t := treeReader{dec: json.NewDecoder(bytes.NewReader(data)), faults: faults}
	t.dec.UseNumber()
	v, err := t.value()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.New("it ends too early")
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(data[t.dec.InputOffset():])) > 0 {
		faults.add("", rfc8259, "something follows the report")
	}
	return v, nil
}

func (t *treeReader) value() (any, error) {
	if t.values++; t.values > maxValues {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	if len(t.path) > maxDepth {
		return nil, fmt.Errorf("deeper than %d levels", maxDepth)
	}
	token, err := t.dec.Token()
	switch token {
	case json.Delim('{'):
		return t.object()
	case json.Delim('['):
		return t.array()
	}
	return token, err
}

func (t *treeReader) object() (any, error) {
	o := object{}
	for t.dec.More() {
		token, err := t.dec.Token()
		if err != nil {
			return nil, err
		}
		name := token.(string) // the decoder refuses all else here
		t.path = append(t.path, name)
		v, err := t.value()
		if err != nil {
			return nil, err
		}
		t.path = t.path[:len(t.path)-1]
		o = append(o, member{name, v})
	}
	t.checkNames(o)
	_, err := t.dec.Token()
	return o, err
}

// checkNames notes names that o has more than once.
func (t *treeReader) checkNames(o object) {
	names := make([]string, len(o))
	for i := range o {
		names[i] = o[i].name
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			t.faults.add(clean(strings.Join(append(t.path, names[i]), "."), maxField), rfc7493Names, "there more than once")
		}
	}
}

func (t *treeReader) array() (any, error) {
	a := []any{}
	t.path = append(t.path, "[]")
	for t.dec.More() {
		v, err := t.value()
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	t.path = t.path[:len(t.path)-1]
	_, err := t.dec.Token()
	return a, err
}

// hasLoneSurrogate reports whether a string of data has a \u escape that is
// half of a surrogate pair. The decoder replaces it silently.
func hasLoneSurrogate(data []byte) bool {
	for {
		i := bytes.IndexByte(data, '\\')
		if i < 0 || i+1 >= len(data) {
			return false
		}
		data = data[i:]
		switch c := surrogate(data); {
		case c == 0:
			data = data[2:]
		case c < 0xdc00 && surrogate(data[6:]) >= 0xdc00:
			data = data[12:]
		default:
			return true
		}
	}
}

// surrogate is the code of the surrogate that data begins with as \uXXXX, or 0.
func surrogate(data []byte) uint64 {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return 0
	}
	code, err := strconv.ParseUint(string(data[2:6]), 16, 16)
	if err != nil || code < 0xd800 || code > 0xdfff {
		return 0
	}
	return code
}
