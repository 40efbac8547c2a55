package tail

import (
	"io/fs"
	"syscall"
)

// openFlags keeps an open of a pipe that took the place of a file from waiting.
const openFlags = syscall.O_NONBLOCK

// inode is what the system knows a file by.
func inode(info fs.FileInfo) (device, number uint64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev), st.Ino //nolint:unconvert // it is shorter on some processors
	}
	return 0, 0
}
