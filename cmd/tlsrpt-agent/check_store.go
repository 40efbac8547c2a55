package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// checkStore looks at the store from outside: nothing is opened that SQLite
// would make files for, or lock.
func checkStore(path string) []finding {
	path, err := filepath.Abs(path)
	if err != nil {
		return []finding{wrong("store.path", "", "%v", err)}
	}
	found := []finding{checkStorePlace(path), checkFileSystem(filepath.Dir(path))}
	info, err := os.Stat(path)
	if err != nil {
		return found // checkStorePlace has said it
	}
	return append(found, checkStoreMode(path, info.Mode().Perm()), checkStoreFile(path))
}

// checkStorePlace: SQLite writes the file, and makes others beside it.
func checkStorePlace(path string) finding {
	const check = "store.path"
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return checkNewStore(path)
	case err != nil:
		return wrong(check, "", "%v", err)
	case !info.Mode().IsRegular():
		return wrong(check, "[store]\npath = \"/var/lib/tlsrpt-agent/tlsrpt.db\"", "%s is not a file", path)
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		if err := mayWrite(p); err != nil {
			return lacksRight(check, p, fmt.Sprintf("chown %d %s", os.Geteuid(), p), err)
		}
	}
	// A store that root put there, from a backup for example.
	if who, ok := serviceAccount(); ok {
		if closed, err := who.reach(path, 2); err == nil && closed != "" {
			return wrong(check, fmt.Sprintf("chown %s: %s*", who.name, path), "%s, the user of the service, may not write %s", who.name, closed)
		}
	}
	return fine(check, "%s may be written", path)
}

// checkNewStore: "run" makes the file and the folders that lack.
func checkNewStore(path string) finding {
	const check = "store.path"
	dir := existingDir(filepath.Dir(path))
	if err := mayWrite(dir); err != nil {
		return lacksRight(check, dir, fmt.Sprintf("install -d -o %d -m 0750 %s", os.Geteuid(), filepath.Dir(path)), err)
	}
	return fine(check, "%s is not there yet; \"tlsrpt-agent run\" makes it", path)
}

// existingDir is the nearest folder above or at dir that exists.
func existingDir(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func lacksRight(check, path, mend string, err error) finding {
	if errors.Is(err, errors.ErrUnsupported) {
		return skipped(check, "whether %s may be written is not known on this system", path)
	}
	return wrong(check, mend, "%s may not be written by the user who runs this: %v", path, err)
}

// checkFileSystem: the write-ahead log of SQLite is in memory that processes
// share, which network file systems do not have.
func checkFileSystem(dir string) finding {
	const check = "store.filesystem"
	name, err := networkFileSystem(existingDir(dir))
	switch {
	case err != nil:
		return skipped(check, "%s: %v", dir, err)
	case name != "":
		return wrong(check, "[store]\npath = \"/var/lib/tlsrpt-agent/tlsrpt.db\"   # on a local disk",
			"%s is on %s; a store on a network file system is damaged sooner or later", dir, name)
	}
	return fine(check, "%s is on a local file system", dir)
}

func checkStoreMode(path string, mode fs.FileMode) finding {
	const check = "store.mode"
	if mode&0o007 != 0 {
		return wrong(check, "chmod o= "+path, "%s has mode %04o: every user may see whom this server writes to", path, mode)
	}
	return fine(check, "%04o", mode)
}

// What a file of SQLite begins with: https://www.sqlite.org/fileformat.html,
// section 1.3.
const (
	sqliteMagic     = "SQLite format 3\x00"
	sqliteHeader    = 100
	userVersionAt   = 60
	applicationIDAt = 68
	storeID         = 0x544c5352 // aggregator's application_id
)

func checkStoreFile(path string) finding {
	const check = "store.format"
	header, err := readHeader(path)
	switch {
	case err != nil:
		return wrong(check, "", "%v", err)
	case len(header) == 0:
		return fine(check, "%s is empty; \"tlsrpt-agent run\" fills it", path)
	case len(header) < sqliteHeader || string(header[:len(sqliteMagic)]) != sqliteMagic:
		return notAStore(check, path)
	}
	version := binary.BigEndian.Uint32(header[userVersionAt:])
	switch id := binary.BigEndian.Uint32(header[applicationIDAt:]); {
	case id == storeID:
		return fine(check, "schema version %d", version)
	case id == 0 && version == 0 && hasLog(path):
		// The first pages of a new store move into its file later.
		return fine(check, "a new store, whose pages are still in its write-ahead log")
	}
	return notAStore(check, path)
}

func notAStore(check, path string) finding {
	return wrong(check, "[store]\npath = \"/var/lib/tlsrpt-agent/tlsrpt.db\"", "%s is another program's file, not a store", path)
}

// hasLog reports whether the database at path has a write-ahead log.
func hasLog(path string) bool {
	info, err := os.Stat(path + "-wal")
	return err == nil && info.Size() > 0
}

// readHeader is the first bytes of a file, fewer if it is shorter.
func readHeader(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, sqliteHeader))
}
