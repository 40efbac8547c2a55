package collector

import "strings"

// texts keeps strings, many in one piece of memory: the garbage collector would
// have to look at each that has one of its own.
type texts struct{ chunk strings.Builder }

const textsChunk = 32 << 10 // bytes

// keep is a copy of s.
func (t *texts) keep(s string) string {
	if len(s) > textsChunk/8 {
		return strings.Clone(s)
	}
	if t.chunk.Cap()-t.chunk.Len() < len(s) {
		t.chunk = strings.Builder{}
		t.chunk.Grow(textsChunk)
	}
	start := t.chunk.Len()
	t.chunk.WriteString(s)
	return t.chunk.String()[start:]
}
