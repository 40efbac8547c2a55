package main

import (
	"bytes"
	"os"
	"testing"
)

// TestPainter: colours are for terminals, and only where they are welcome.
func TestPainter(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if got := painter(&bytes.Buffer{})(red, "x"); got != "x" {
		t.Errorf("%q in a file", got)
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer tty.Close()
	if got := painter(tty)(red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("%q on a terminal", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := painter(tty)(red, "x"); got != "x" {
		t.Errorf("%q where NO_COLOR is set", got)
	}
}
