package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
)

// archive keeps a copy of every report in a directory, as
// "2026-11-22/<file name of RFC 8460>", for the operator: nothing reads or
// deletes it. What cannot be written is logged and counted, and sent all the
// same.
type archive struct {
	dir string // "": none
	log *slog.Logger

	mu     sync.Mutex
	failed int64
	told   time.Time // when a failure was logged last
}

// archiveTold is the time between two lines about a full disk.
const archiveTold = time.Minute

// keep writes r. It is called before r is stored: what is stored is in the
// archive, or was counted as missing. Who makes the same report again after a
// crash writes the same file.
func (v *archive) keep(r *aggregator.Report) {
	if v.dir == "" {
		return
	}
	err := guarded(func() error { return v.write(r) })
	if err == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed++
	if now := time.Now(); now.Sub(v.told) >= archiveTold {
		v.told = now
		v.log.Error("a report is not in the archive, it is sent all the same", "report", r.ID, "error", err, "missing", v.failed)
	}
}

// failures is how many reports could not be written.
func (v *archive) failures() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

// write makes the file all at once: whoever looks finds a whole report or none.
func (v *archive) write(r *aggregator.Report) (err error) {
	if err := os.MkdirAll(v.dir, 0o750); err != nil {
		return err
	}
	root, err := os.OpenRoot(v.dir) // whatever the name is, it stays in there
	if err != nil {
		return err
	}
	defer root.Close()
	day := r.Day.String()
	if err := root.Mkdir(day, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	name := path.Join(day, DiskName(r.FileName))
	// The id is of the store alone, and one process plans a domain-day at a time.
	unfinished := path.Join(day, fmt.Sprintf(".%s.%d", r.MessageID, os.Getpid()))
	if err := writeFile(root, unfinished, r.Gzip); err != nil {
		return errors.Join(err, ignoreMissing(root.Remove(unfinished)))
	}
	if err := root.Rename(unfinished, name); err != nil {
		return errors.Join(err, ignoreMissing(root.Remove(unfinished)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// writeFile writes data and has it on the disk when it returns.
func writeFile(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// DiskName is the file name of a report as file systems take it. A domain of a
// stranger may be so long that the name of RFC 8460 is not; the id at its end is
// unique.
func DiskName(name string) string {
	const most = 255 // bytes
	if len(name) <= most {
		return name
	}
	return name[len(name)-most:]
}
