// Package tail reads logs as they grow: a file that is followed by its name
// through every way of rotating it, the journal, or any io.Reader.
//
// [Tail.Next] returns whole lines, and [Tail.Position] says where they end. Who
// stores a position in one transaction with what was made of the lines before it
// gets each line exactly once, however often the process is killed in between: a
// Tail that is opened with that position goes on with the next line, even if the
// file has been renamed, copied or compressed meanwhile. To find it again, a
// position knows a file by its content, not by its name or inode alone.
package tail
