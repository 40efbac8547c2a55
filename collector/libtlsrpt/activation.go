package libtlsrpt

import (
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// passed is the files that systemd passed. They are kept: a file that is dropped
// is closed, and others may want the sockets that this package does not.
var passed = sync.OnceValue(func() []*os.File { return activation.Files(false) })

// Activated is the datagram socket at path among those that systemd passed to
// the process (sd_listen_fds), or nil. It is for [Options.File]. It must not be
// closed, so that it can be found again.
func Activated(path string) *os.File { return socketAt(path, passed()) }

func socketAt(path string, files []*os.File) *os.File {
	for _, f := range files {
		conn, err := fromFile(f)
		if err != nil {
			continue // it is for others
		}
		conn.Close()
		if conn.LocalAddr().String() == path {
			return f
		}
	}
	return nil
}
