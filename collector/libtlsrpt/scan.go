package libtlsrpt

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds how deep values may nest. The protocol needs 5.
const maxDepth = 16

// scanner reads JSON (RFC 8259) from front to back. It makes no tree: whoever
// calls it knows what must come next. Its errors are of type *fault.
type scanner struct {
	text string
	pos  int
}

// peek is the next byte that is not white space, or 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// accept takes c if it is next.
func (s *scanner) accept(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

// open takes the bracket c; want says what it begins.
func (s *scanner) open(c byte, want string) error {
	if !s.accept(c) {
		return s.unexpected(want)
	}
	return nil
}

// unexpected is the fault that another value than want is next, or none.
func (s *scanner) unexpected(want string) error {
	if c := s.peek(); c != 0 && strings.IndexByte(`{["-0123456789tfn`, c) >= 0 {
		return bad(badType, "want %s", want)
	}
	return s.lacks(want)
}

// lacks is the fault that the text, at the position, is not JSON.
func (s *scanner) lacks(want string) error {
	c := s.peek()
	if s.pos == len(s.text) {
		return bad(badSyntax, "it ends where %s is due", want)
	}
	return bad(badSyntax, "%q where %s is due", c, want)
}

// end makes sure that nothing follows.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.text) {
		return bad(badSyntax, "something follows the end")
	}
	return nil
}

// object reads an object. read is called for each member of names, which may
// come in any order but not twice, and must read the value. The first required
// of names must be there. Members of other names are skipped.
func (s *scanner) object(names []string, required int, read func(name string) error) error {
	if err := s.open('{', "an object"); err != nil {
		return err
	}
	var seen uint // bits, by index in names
	for more := !s.accept('}'); more; {
		name, err := s.name()
		if err != nil {
			return err
		}
		if i := slices.Index(names, name); i < 0 {
			err = s.skip(maxDepth)
		} else if seen&(1<<i) != 0 {
			err = bad(badMember, "it is there twice")
		} else {
			seen |= 1 << i
			err = read(name)
		}
		if err != nil {
			return within(name, err)
		}
		if more, err = s.more('}'); err != nil {
			return err
		}
	}
	for i, name := range names[:required] {
		if seen&(1<<i) == 0 {
			return within(name, bad(badMember, "it is missing"))
		}
	}
	return nil
}

// name reads the name of a member and the colon.
func (s *scanner) name() (string, error) {
	name, err := s.str()
	if err != nil {
		return "", err
	}
	if !s.accept(':') {
		return "", s.lacks("a colon")
	}
	return name, nil
}

// more takes the comma between two elements, or the bracket that ends them.
func (s *scanner) more(end byte) (bool, error) {
	if s.accept(',') {
		return true, nil
	}
	if s.accept(end) {
		return false, nil
	}
	return false, s.lacks("a comma or a bracket")
}

// array reads an array. read is called for each element and must read it.
func (s *scanner) array(read func(i int) error) error {
	if err := s.open('[', "an array"); err != nil {
		return err
	}
	more := !s.accept(']')
	for i := 0; more; i++ {
		if err := read(i); err != nil {
			return within(index(i), err)
		}
		var err error
		if more, err = s.more(']'); err != nil {
			return err
		}
	}
	return nil
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// skip reads any value that nests at most depth deep.
func (s *scanner) skip(depth int) error {
	if depth == 0 {
		return bad(badBounds, "it nests too deep")
	}
	switch c := s.peek(); c {
	case '{':
		s.pos++
		return s.skipAll('}', depth)
	case '[':
		s.pos++
		return s.skipAll(']', depth)
	case '"':
		_, err := s.str()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		_, err := s.number()
		return err
	}
}

// skipAll skips what is left of an array or object that end ends.
func (s *scanner) skipAll(end byte, depth int) error {
	for more := !s.accept(end); more; {
		if end == '}' {
			if _, err := s.name(); err != nil {
				return err
			}
		}
		if err := s.skip(depth - 1); err != nil {
			return err
		}
		var err error
		if more, err = s.more(end); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) literal(word string) error {
	if !strings.HasPrefix(s.text[s.pos:], word) {
		return bad(badSyntax, "neither true, false nor null")
	}
	s.pos += len(word)
	return nil
}

// integer reads a number without fraction and exponent that fits an int32, the
// int of the library.
func (s *scanner) integer() (int, error) {
	text, err := s.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, bad(badType, "want an integer")
	}
	return int(n), nil
}

// number reads any number, as text.
func (s *scanner) number() (string, error) {
	s.peek()
	start := s.pos
	s.take("-")
	whole := s.digits()
	if whole == 0 {
		s.pos = start
		return "", s.unexpected("a number")
	}
	if whole > 1 && s.text[s.pos-whole] == '0' {
		return "", bad(badSyntax, "a number that begins with 0")
	}
	ok := true
	if s.take(".") {
		ok = s.digits() > 0
	}
	if ok && s.take("eE") {
		s.take("+-")
		ok = s.digits() > 0
	}
	if !ok {
		return "", bad(badSyntax, "a number that lacks its end")
	}
	return s.text[start:s.pos], nil
}

// take takes the next byte if it is one of set.
func (s *scanner) take(set string) bool {
	if s.pos == len(s.text) || strings.IndexByte(set, s.text[s.pos]) < 0 {
		return false
	}
	s.pos++
	return true
}

// digits takes all digits that are next, and returns how many there were.
func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

// str reads a string. Without escapes it is a part of the text. What is not
// UTF-8 becomes U+FFFD: the library copies bytes from 0x80 as they are.
func (s *scanner) str() (string, error) {
	if err := s.open('"', "a string"); err != nil {
		return "", err
	}
	start, ascii := s.pos, true
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == '"':
			part := s.text[start:s.pos]
			s.pos++
			if ascii {
				return part, nil
			}
			return validUTF8(part), nil
		case c == '\\':
			return s.unescape(start)
		case c < ' ':
			return "", bad(badSyntax, "a control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", bad(badSyntax, "a string that lacks its end")
}

// validUTF8 is s with each byte that is not part of UTF-8 replaced.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// unescape reads the string that begins at start and has its first backslash at
// the position.
func (s *scanner) unescape(start int) (string, error) {
	var b strings.Builder
	b.WriteString(s.text[start:s.pos])
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		s.pos++
		switch {
		case c == '"':
			return validUTF8(b.String()), nil
		case c < ' ':
			return "", bad(badSyntax, "a control character in a string")
		case c != '\\':
			b.WriteByte(c)
		default:
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		}
	}
	return "", bad(badSyntax, "a string that lacks its end")
}

// escape reads what follows a backslash.
func (s *scanner) escape() (rune, error) {
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if s.pos == len(s.text) {
		return 0, bad(badSyntax, "a string that lacks its end")
	}
	c := s.text[s.pos]
	s.pos++
	if i := strings.IndexByte(from, c); i >= 0 {
		return rune(to[i]), nil
	}
	if c != 'u' {
		return 0, bad(badSyntax, "an unknown escape in a string")
	}
	r, ok := s.hex()
	if !ok {
		return 0, bad(badSyntax, "an unknown escape in a string")
	}
	if !utf16.IsSurrogate(r) {
		return r, nil
	}
	// The second half counts only if both make a character. Else it stands for
	// itself, and each half alone is U+FFFD.
	second := s.pos
	if strings.HasPrefix(s.text[s.pos:], `\u`) {
		s.pos += 2
		if low, ok := s.hex(); ok {
			if r := utf16.DecodeRune(r, low); r != utf8.RuneError {
				return r, nil
			}
		}
	}
	s.pos = second
	return utf8.RuneError, nil
}

// hex reads the four digits of a \u escape.
func (s *scanner) hex() (rune, bool) {
	if len(s.text)-s.pos < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(s.text[s.pos:s.pos+4], 16, 16)
	if err != nil {
		return 0, false
	}
	s.pos += 4
	return rune(n), true
}
