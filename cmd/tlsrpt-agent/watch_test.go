package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var dashboardURL = regexp.MustCompile(`msg=dashboard url=(\S+)/`)

// fetch asks a running daemon for a page.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: fetch LOG PATH [TOKEN]")
	}
	log, err := os.ReadFile(ts.MkAbs(args[0]))
	scriptError(ts, err)
	found := dashboardURL.FindSubmatch(log)
	if found == nil {
		ts.Fatalf("%s names no dashboard", args[0])
	}
	r, err := http.NewRequest(http.MethodGet, string(found[1])+args[1], nil)
	scriptError(ts, err)
	if len(args) == 3 {
		r.Header.Set("Authorization", "Bearer "+args[2])
	}
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Do(r)
	scriptError(ts, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	scriptError(ts, err)
	scriptError(ts, os.WriteFile(filepath.Join(ts.Getenv("WORK"), "fetched"), append([]byte(resp.Status+"\n"), body...), 0o600))
}

// TestJournald: each line has the priority of its level, and no text of a
// stranger begins another line.
func TestJournald(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(&b, slog.LevelDebug, logJournald).With("a", "b").WithGroup("g")
	log.Debug("one")
	log.Info("two", "error", "x\n<0>forged\x1b[2J\u202e")
	log.Warn("three")
	log.Error("four")
	want := strings.Join([]string{
		`<7>msg=one a=b`,
		`<6>msg=two a=b g.error="x\n<0>forged\x1b[2J\u202e"`,
		`<4>msg=three a=b`,
		`<3>msg=four a=b`, "",
	}, "\n")
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	newLogger(&b, slog.LevelWarn, logJournald).Info("not asked for")
	if b.Len() > 0 {
		t.Errorf("got %q at level warn", b.String())
	}
}

func TestLogFormat(t *testing.T) {
	for flag, want := range map[string]string{"auto": "text", "text": "text", "json": "json", "journald": "journald"} {
		if got, err := logFormat(flag); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", flag, got, err, want)
		}
	}
	if _, err := logFormat("xml"); err == nil {
		t.Error("xml is taken")
	}
}
