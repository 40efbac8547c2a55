package submitter

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrSendmail means that a command cannot be used as sendmail.
var ErrSendmail = errors.New("submitter: unusable sendmail command")

// sendmailPaths is where the Filesystem Hierarchy Standard and its forebears
// have it.
var sendmailPaths = []string{"/usr/sbin/sendmail", "/usr/lib/sendmail"}

// killDelay is how long a killed command may hold its pipes.
const killDelay = 5 * time.Second

// Sendmail is a Mailer that gives mail to the sendmail command of this host. It
// is safe for concurrent use.
type Sendmail struct {
	path string
	dsn  bool // it takes -V, -N and -R
}

// NewSendmail makes a Sendmail of the command at path, which is absolute; ""
// means /usr/sbin/sendmail, or else /usr/lib/sendmail. The error is
// [ErrSendmail].
func NewSendmail(path string) (*Sendmail, error) {
	if path != "" {
		return newSendmail(path)
	}
	var first error
	for _, p := range sendmailPaths {
		m, err := newSendmail(p)
		if err == nil {
			return m, nil
		}
		first = cmp.Or(first, err)
	}
	return nil, first
}

func newSendmail(path string) (*Sendmail, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%w: %q is not an absolute path", ErrSendmail, path)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrSendmail, err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return nil, fmt.Errorf("%w: %s is not an executable file", ErrSendmail, path)
	}
	return &Sendmail{path: path, dsn: takesDSN(path)}, nil
}

// takesDSN reports whether the command at path has the options of RFC 3461 that
// Sendmail began with. Postfix has them. Exim does not: its -N plays a delivery
// and discards the message, its -R runs the queue. So they are used only where
// the file is no link to a program of another name and postconf lies beside it.
func takesDSN(path string) bool {
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	switch filepath.Base(file) {
	case "sendmail", "sendmail.postfix":
	default:
		return false
	}
	_, err = os.Stat(filepath.Join(filepath.Dir(file), "postconf"))
	return err == nil
}

// String is the path of the command.
func (m *Sendmail) String() string { return m.path }

// Mail hands over one message. The error is an [*Error], temporary and
// [Error.Ours]: what the command does not take is in its own configuration.
func (m *Sendmail) Mail(ctx context.Context, e Envelope, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, AttemptTimeout)
	defer cancel()
	said, err := m.run(ctx, e, message)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &Error{Temporary: true, Ours: true, Err: fmt.Errorf("%s: %w", m.path, err), Reply: said}
}

// run runs the command without a shell, in an environment that says nothing of
// ours, and kills it with all that it started once ctx ends. said is the
// beginning of what it printed.
func (m *Sendmail) run(ctx context.Context, e Envelope, message []byte) (said string, err error) {
	cmd := exec.CommandContext(ctx, m.path, m.arguments(e)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	// On its input lines end as in a file of this host; the command makes CRLF.
	cmd.Stdin = bytes.NewReader(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")))
	var out head
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = killDelay
	withChildren(cmd)
	err = cmd.Run()
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it took the message; what it left running holds a pipe
	case ok && exit.Exited():
		err = exitError(exit.ExitCode())
	case errors.Is(err, fs.ErrNotExist):
		err = fs.ErrNotExist // the path is said already
	}
	return printable(out.String(), maxReply), err
}

// arguments is the command line. Nothing in it can be taken for an option: a
// recipient comes after "--", and -f takes the next word whatever it is.
func (m *Sendmail) arguments(e Envelope) []string {
	args := []string{"-i", "-f", cmp.Or(e.From, "<>")}
	if e.ID != "" && m.dsn {
		args = append(args, "-V", e.ID, "-N", "failure", "-R", "hdrs")
	}
	return append(args, "--", e.To)
}

// exitError is the text of an exit code, with its name in sysexits.h.
func exitError(code int) error {
	name, ok := map[int]string{
		64: "EX_USAGE: it does not know the options",
		65: "EX_DATAERR: malformed message",
		66: "EX_NOINPUT: an input is missing",
		67: "EX_NOUSER: no such recipient",
		68: "EX_NOHOST: no such host",
		69: "EX_UNAVAILABLE: not available, or refused",
		70: "EX_SOFTWARE: internal error",
		71: "EX_OSERR: the system refuses",
		72: "EX_OSFILE: a system file is missing",
		73: "EX_CANTCREAT: it cannot write a file",
		74: "EX_IOERR: input or output failed",
		75: "EX_TEMPFAIL: try again later",
		76: "EX_PROTOCOL: the other side made a mistake",
		77: "EX_NOPERM: it may not do this for our user",
		78: "EX_CONFIG: its configuration is wrong",
	}[code]
	if !ok {
		return fmt.Errorf("exit code %d", code)
	}
	return fmt.Errorf("exit code %d (%s)", code, name)
}

// head keeps the beginning of what is written to it.
type head struct{ strings.Builder }

const maxHead = 4 * maxReply

func (h *head) Write(p []byte) (int, error) {
	h.Builder.Write(p[:max(0, min(len(p), maxHead-h.Len()))])
	return len(p), nil
}
