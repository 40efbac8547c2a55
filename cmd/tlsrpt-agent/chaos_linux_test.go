package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lab"
)

// smallDisk is the directory of a disk of 4 MB, in the namespace of the test.
func smallDisk(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestLogChaosFullDisk is TestLogChaos with a store on a disk of its own, which
// is full now and then.
func TestLogChaosFullDisk(t *testing.T) {
	t.Parallel()
	if !lab.InNamespace(t) {
		return
	}
	dir := smallDisk(t)
	c := newChaos(t, dir)
	filler := filepath.Join(dir, "filler")
	c.fill = func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for piece := make([]byte, 4096); err == nil; {
			_, err = f.Write(piece)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	c.drain = func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	c.run(*chaosRounds)
}
