package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// Log formats.
const (
	logAuto     = "auto" // journald where standard error is systemd's journal, else text
	logText     = "text"
	logJSON     = "json"
	logJournald = "journald"
)

var logFormats = []string{logAuto, logText, logJSON, logJournald}

// newLogger writes records of level and above to w. Attributes come from
// strangers; every handler quotes what could disturb a terminal or forge a line.
func newLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	switch format {
	case logJSON:
		return slog.New(slog.NewJSONHandler(w, o))
	case logJournald:
		return slog.New(newJournald(w, level))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// logFormat is the format that a flag stands for.
func logFormat(flag string) (string, error) {
	switch {
	case !slices.Contains(logFormats, flag):
		return "", fmt.Errorf("--log-format %q is none of auto, text, json, journald", flag)
	case flag != logAuto:
		return flag, nil
	case underJournal():
		return logJournald, nil
	}
	return logText, nil
}

// underJournal reports whether standard error leads to systemd's journal.
func underJournal() bool {
	ok, err := journal.StderrIsJournalStream()
	return err == nil && ok && os.Getenv("JOURNAL_STREAM") != ""
}

// journald is a handler whose lines begin with their priority, as sd-daemon(3)
// has it. The journal knows the time itself.
type journald struct{ handlers [4]slog.Handler } // of errors, warnings, information, debug

// priorities are those of syslog(3), in the order of handlers.
var priorities = [4]string{"<3>", "<4>", "<6>", "<7>"}

func newJournald(w io.Writer, level slog.Level) *journald {
	j := &journald{}
	mu := new(sync.Mutex)
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}
	for i, p := range priorities {
		j.handlers[i] = slog.NewTextHandler(&prefixed{mu, w, p}, o)
	}
	return j
}

// prefixed puts a prefix before each line. A handler writes one line at a time.
type prefixed struct {
	mu     *sync.Mutex
	w      io.Writer
	prefix string
}

func (p *prefixed) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// of is the handler of a level.
func (j *journald) of(level slog.Level) slog.Handler {
	switch {
	case level >= slog.LevelError:
		return j.handlers[0]
	case level >= slog.LevelWarn:
		return j.handlers[1]
	case level >= slog.LevelInfo:
		return j.handlers[2]
	}
	return j.handlers[3]
}

func (j *journald) Enabled(ctx context.Context, level slog.Level) bool {
	return j.of(level).Enabled(ctx, level)
}

func (j *journald) Handle(ctx context.Context, r slog.Record) error {
	return j.of(r.Level).Handle(ctx, r)
}

func (j *journald) WithAttrs(attrs []slog.Attr) slog.Handler {
	return j.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (j *journald) WithGroup(name string) slog.Handler {
	return j.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (j *journald) with(f func(slog.Handler) slog.Handler) slog.Handler {
	next := &journald{}
	for i, h := range j.handlers {
		next.handlers[i] = f(h)
	}
	return next
}
