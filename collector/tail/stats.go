package tail

import "sync/atomic"

// Stats says how reading goes, and what happened since Open.
type Stats struct {
	Lag         int64 // bytes still to be read, of the present and the newest file; 0 of other logs
	Rotations   int64 // times that reading went on in another file
	Truncations int64 // times that a file had less in it than was read, or something else
	Gaps        int64 // times that something may be missing between two lines
	Lost        int64 // bytes that are known to be missing
	Unreadable  int64 // rotated files that were passed over, or read in part
	Cut         int64 // lines that were longer than MaxLine
	Restarts    int64 // of the command that prints the journal
}

// numbers is Stats in the making.
type numbers struct {
	rotations, truncations, gaps, lost, unreadable, cut, restarts atomic.Int64
}

// Stats is a snapshot.
func (t *Tail) Stats() Stats {
	return Stats{
		Lag:         t.source.lag(),
		Rotations:   t.numbers.rotations.Load(),
		Truncations: t.numbers.truncations.Load(),
		Gaps:        t.numbers.gaps.Load(),
		Lost:        t.numbers.lost.Load(),
		Unreadable:  t.numbers.unreadable.Load(),
		Cut:         t.numbers.cut.Load(),
		Restarts:    t.numbers.restarts.Load(),
	}
}
