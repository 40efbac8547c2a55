package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestReach: a closed folder and a file without the right are both found.
func TestReach(t *testing.T) {
	dir := t.TempDir()
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Skipf("%s is closed: %v", d, err)
			}
		}
	}
	log := filepath.Join(dir, "log", "mail.log")
	if err := os.Mkdir(filepath.Dir(log), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	stranger := account{name: "stranger", uid: 64123, gids: []uint32{64123}}
	for _, c := range []struct {
		dirMode, fileMode os.FileMode
		want              string
	}{
		{0o755, 0o644, ""},
		{0o755, 0o600, log},
		{0o700, 0o644, filepath.Dir(log)},
	} {
		if os.Chmod(filepath.Dir(log), c.dirMode) != nil || os.Chmod(log, c.fileMode) != nil {
			t.Fatal("chmod")
		}
		if got, err := stranger.reach(log, 4); err != nil || got != c.want {
			t.Errorf("%o %o: %q, %v, want %q", c.dirMode, c.fileMode, got, err, c.want)
		}
	}
}

// TestCheckSendmail: the unit is what decides.
func TestCheckSendmail(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	systemctl := func(script string) {
		if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const path = "/usr/sbin/sendmail"
	expect(t, checkSendmail(t.Context(), path), statusOK, path, "")
	systemctl("echo NoNewPrivileges=no")
	expect(t, checkSendmail(t.Context(), path), statusOK, path, "")
	systemctl("echo NoNewPrivileges=yes")
	expect(t, checkSendmail(t.Context(), path), statusProblem, "postdrop", "smtp://localhost:25")
}

// TestCheckServiceReads: Postfix 3.9 and newer makes a log that the service may not
// read, though root who looks may.
func TestCheckServiceReads(t *testing.T) {
	log := filepath.Join(t.TempDir(), "maillog")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	uid, _, _ := ownerOf(info)
	p := fakePostfix(t, "3.10.13", "maillog_file="+log)
	expect(t, checkServiceReads(account{name: "owner", uid: uid}, log, p), statusOK, "may be read by owner", "")
	for d := filepath.Dir(log); d != filepath.Dir(d); d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm()&0o001 == 0 && os.Chmod(d, 0o711) != nil {
			t.Skipf("%s is closed", d)
		}
	}
	expect(t, checkServiceReads(account{name: "stranger", uid: 64123}, log, p), statusProblem, "may not read", "maillog_file_permissions=0644")
}
