package main

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// mayWrite reports whether this process may write path: for a folder, whether it
// may make files there.
func mayWrite(path string) error {
	info, err := statMode(path)
	if err != nil {
		return err
	}
	want := uint32(unix.W_OK)
	if info&unix.S_IFMT == unix.S_IFDIR {
		want |= unix.X_OK
	}
	return unix.Faccessat(unix.AT_FDCWD, path, want, unix.AT_EACCESS)
}

func statMode(path string) (uint32, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Mode, err
}

// networkFileSystems is those whose memory other hosts do not share.
var networkFileSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.CEPH_SUPER_MAGIC: "Ceph",
	unix.AFS_SUPER_MAGIC:  "AFS",
	unix.CODA_SUPER_MAGIC: "Coda",
	unix.V9FS_MAGIC:       "9p",
}

// networkFileSystem is the name of the network file system that path is on, "" if
// it is on none.
func networkFileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", err
	}
	return networkFileSystems[int64(uint32(st.Type))], nil
}

// ownerOf is the user and group that a file belongs to.
func ownerOf(info fs.FileInfo) (uid, gid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return st.Uid, st.Gid, true
}

// timeError is TIME_ERROR of adjtimex(2): the clock is not synchronised.
const timeError = 5

// clockSynchronised reports whether the kernel believes that its clock is right.
func clockSynchronised() (bool, error) {
	state, err := unix.Adjtimex(&unix.Timex{})
	if err != nil {
		return false, err
	}
	return state != timeError, nil
}
