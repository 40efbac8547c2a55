package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestReadSecret: a credential of systemd comes before the file, whichever way it
// was named; without one it is the file.
func TestReadSecret(t *testing.T) {
	etc, run := t.TempDir(), t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	write := func(dir, name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(filepath.Base(dir)+"/"+name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write(etc, "credentials/dkim.pem")
	expectSecret := func(want string) {
		t.Helper()
		if got, err := readSecret(key); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	expectSecret(filepath.Base(etc) + "/credentials/dkim.pem")
	t.Setenv("CREDENTIALS_DIRECTORY", run)
	expectSecret(filepath.Base(etc) + "/credentials/dkim.pem")
	write(run, "credentials_dkim.pem")
	expectSecret(filepath.Base(run) + "/credentials_dkim.pem")
	write(run, "dkim.pem")
	expectSecret(filepath.Base(run) + "/dkim.pem")
	if _, err := readSecret(filepath.Join(etc, "other.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
