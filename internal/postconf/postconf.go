// Package postconf reads the settings of a Postfix with its own postconf(1), so
// that what it says is what Postfix does: defaults, $name and all.
package postconf

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// ErrNotInstalled means that there is no postconf on this host. Whoever asks may
// go without.
var ErrNotInstalled = errors.New("postconf: not installed")

const (
	// defaultTimeout is ample: postconf reads two files.
	defaultTimeout = 10 * time.Second

	// maxOutput bounds what is kept of an output; some settings are long lists.
	maxOutput = 256 << 10

	// sbin is where postconf is, which is not in everybody's PATH.
	sbin = "/usr/sbin/postconf"
)

// smtp is the service of master.cf that delivers by SMTP.
const smtp = "smtp/unix"

// Command is a postconf for one instance of Postfix. The zero value is that of
// PATH for the default instance.
type Command struct {
	// Path of the program; "" looks for it in PATH and in /usr/sbin.
	Path string

	// Dir is the configuration directory of the instance; "" is Postfix's default.
	Dir string

	// Timeout bounds each run; 0 means 10 s.
	Timeout time.Duration
}

// Settings are those that smtp(8) runs with: of main.cf, and of the service smtp
// of master.cf where that says otherwise. Names that this Postfix does not know
// are not there.
type Settings struct {
	Version Version

	// Chroot says that smtp(8) runs in the queue directory.
	Chroot bool

	values    map[string]string
	overrides map[string]bool // from master.cf
}

// New is settings of which values are those of main.cf. mail_version must be
// among them.
func New(values map[string]string) (*Settings, error) {
	version, err := ParseVersion(values["mail_version"])
	if err != nil {
		return nil, err
	}
	return &Settings{Version: version, values: values, overrides: map[string]bool{}}, nil
}

// Get is the value of a setting, "" if it is empty or not known.
func (s *Settings) Get(name string) string { return s.values[name] }

// Known reports whether this Postfix has a setting of that name.
func (s *Settings) Known(name string) bool {
	_, ok := s.values[name]
	return ok
}

// Set is the command that gives a setting a value where it takes effect for
// smtp(8).
func (s *Settings) Set(name, value string) string {
	if s.overrides[name] {
		return "postconf -P " + quote(smtp+"/"+name+"="+value)
	}
	return "postconf -e " + quote(name+"="+value)
}

// quote is s as one word of a shell.
func quote(s string) string {
	if !strings.ContainsAny(s, " \t\"'$&;|<>(){}[]*?~#!`\\") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Read asks for the settings called names, with $name expanded. The error is
// [ErrNotInstalled], or says what postconf did.
func (c Command) Read(ctx context.Context, names ...string) (*Settings, error) {
	names = append([]string{"mail_version", "compatibility_level"}, names...)
	out, err := c.run(ctx, append([]string{"-x"}, names...)...)
	if err != nil {
		return nil, err
	}
	s, err := New(parse(out))
	if err != nil {
		return nil, err
	}
	if out, err = c.run(ctx, "-x", "-P", smtp); err != nil {
		return nil, err
	}
	for name, value := range parse(out) {
		name = strings.TrimPrefix(name, smtp+"/")
		s.values[name], s.overrides[name] = value, true
	}
	if out, err = c.run(ctx, "-F", smtp+"/chroot"); err != nil {
		return nil, err
	}
	s.Chroot = chrooted(parse(out)[smtp+"/chroot"], s.values["compatibility_level"])
	return s, nil
}

// chrooted reads the column of master.cf, whose default was y before
// compatibility level 1: see postconf(5), compatibility_level.
func chrooted(column, level string) bool {
	return column == "y" || column == "-" && (level == "" || level == "0")
}

// parse reads lines of "name = value".
func parse(out []byte) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(line, "="); ok {
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return values
}

// run is what one run prints on standard output. Warnings, for example of names
// that this version does not know, are no error.
func (c Command) run(ctx context.Context, args ...string) ([]byte, error) {
	path, err := c.find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(c.Timeout, defaultTimeout), errors.New("no answer in time"))
	defer cancel()
	if c.Dir != "" {
		args = append([]string{"-c", c.Dir}, args...)
	}
	var out, errs bounded
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second // its children may hold the pipe
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("postconf: %s: %w", path, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("postconf: %s: %w: %s", path, err, lastLine(errs.kept.Bytes()))
	case out.cut:
		return nil, fmt.Errorf("postconf: %s: more than %d bytes of output", path, maxOutput)
	}
	return out.kept.Bytes(), nil
}

func (c Command) find() (string, error) {
	if c.Path != "" {
		return c.Path, nil
	}
	for _, name := range []string{"postconf", sbin} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}

// lastLine is the last line of what a program complained about.
func lastLine(text []byte) string {
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

// bounded keeps the first maxOutput bytes. It embeds no buffer: io.Copy would
// find its ReadFrom, which knows no bound.
type bounded struct {
	kept bytes.Buffer
	cut  bool // there was more
}

// Write never fails: a program that is not read would wait for ever.
func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), maxOutput-b.kept.Len())
	b.cut = b.cut || keep < len(p)
	b.kept.Write(p[:keep])
	return len(p), nil
}
