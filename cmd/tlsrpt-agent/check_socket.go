package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/postconf"
)

const (
	// wantQueue is how many datagrams the socket should hold in a burst.
	wantQueue = 512

	queueSetting    = "net.unix.max_dgram_qlen"
	queueLengthFile = "/proc/sys/net/unix/max_dgram_qlen"

	// maxSocketPath is what fits into sun_path with its final NUL.
	maxSocketPath = 107

	// defaultMailOwner is whom smtp(8) runs as.
	defaultMailOwner = "postfix"
)

// checkSockets looks at the libtlsrpt sources and at the Postfix that sends to them.
func (c *config) checkSockets(p *postconf.Settings) []finding {
	sources := c.Source.Libtlsrpt
	if len(sources) == 0 {
		return nil
	}
	owner := mailOwner(p)
	var found []finding
	for _, s := range sources {
		found = append(found, s.checkSocket(owner))
	}
	found = append(found, checkQueueLength(os.ReadFile(queueLengthFile)))
	found = append(found, checkEvents(p)...)
	if p == nil || !p.Known("smtp_tlsrpt_socket_name") {
		return append(found, noPostfix("smtp_tlsrpt_socket_name"))
	}
	return append(found, checkSocketName(sources, p))
}

// mailOwner is the user that Postfix runs as.
func mailOwner(p *postconf.Settings) string {
	if p != nil && p.Get("mail_owner") != "" {
		return p.Get("mail_owner")
	}
	return defaultMailOwner
}

// checkBounces: the socket for bounces is there. It is no fault that the mail server
// may not write to it: bounces also come by the command.
func (c *config) checkBounces(owner string) []finding {
	const check = "mail.bounce_socket"
	path := c.bounceSocket()
	if path == "" {
		return nil
	}
	missing := wrong(check, "tlsrpt-agent run", "%s is not there: the agent does not run, and bounces have to wait", path)
	if problem, ok := isSocket(check, path, missing); !ok {
		return []finding{problem}
	}
	who, err := lookUpUser(owner)
	if err != nil {
		return []finding{fine(check, "%s is there", path)}
	}
	return []finding{c.checkBounceRights(who)}
}

func (c *config) checkBounceRights(who account) finding {
	const check = "mail.bounce_socket"
	switch closed, err := who.reach(c.bounceSocket(), 2); {
	case err != nil:
		return skipped(check, "whether %s may write to %s is not known: %v", who.name, c.bounceSocket(), err)
	case closed == "":
		return fine(check, "%s is there, and the user %s may write to it", c.bounceSocket(), who.name)
	}
	return fine(check, "%s is there; the user %s may not write to it, so bounces come by \"tlsrpt-agent bounce\" only, not by LMTP",
		c.bounceSocket(), who.name)
}

// checkSocket: the socket is there, and the user called owner may write to it.
func (s libtlsrptConfig) checkSocket(owner string) finding {
	const check = "source.libtlsrpt.socket"
	if why := badSocketPath(s.Socket); why != "" {
		return wrong(check, "[[source.libtlsrpt]]\nsocket = \"/var/spool/postfix/run/tlsrpt/tlsrpt.sock\"", "%s: %s", s.Socket, why)
	}
	if problem, ok := isSocket(check, s.Socket, missingSocket(s.Socket, owner)); !ok {
		return problem
	}
	who, err := lookUpUser(owner)
	if err != nil {
		return skipped(check, "%s is there; whether Postfix may write to it is not known: %v", s.Socket, err)
	}
	return s.checkRights(who)
}

// isSocket reports whether there is a socket at path, or else the problem, which is
// missing where nothing is there.
func isSocket(check, path string, missing finding) (problem finding, ok bool) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing, false
	case err != nil:
		return wrong(check, "", "%v", err), false
	case info.Mode().Type() != fs.ModeSocket:
		return wrong(check, fmt.Sprintf("mv %s %[1]s.old", path), "%s is not a socket", path), false
	}
	return finding{}, true
}

func badSocketPath(path string) string {
	switch {
	case !filepath.IsAbs(path):
		return "it is not an absolute path"
	case len(path) > maxSocketPath:
		return fmt.Sprintf("it has %d bytes, and a socket's path has at most %d", len(path), maxSocketPath)
	}
	return ""
}

// missingSocket is the finding of a socket that nobody made yet.
func missingSocket(path, owner string) finding {
	const check = "source.libtlsrpt.socket"
	if dir := filepath.Dir(path); existingDir(dir) != dir {
		return wrong(check, fmt.Sprintf("install -d -o %d -g %s -m 0750 %s", os.Geteuid(), owner, dir),
			"%s is not there, and its folder neither", path)
	}
	return wrong(check, "tlsrpt-agent run", "%s is not there: the agent does not run", path)
}

// checkRights: writing takes w on the socket, and x on every folder above it.
func (s libtlsrptConfig) checkRights(who account) finding {
	const check = "source.libtlsrpt.socket"
	switch closed, err := who.reach(s.Socket, 2); {
	case err != nil:
		return skipped(check, "whether %s may write to %s is not known: %v", who.name, s.Socket, err)
	case closed == "":
		return fine(check, "%s is there, and the user %s may write to it", s.Socket, who.name)
	case !sameFile(closed, s.Socket):
		return cannotEnter(who, closed, realPath(s.Socket))
	}
	return wrong(check, fmt.Sprintf("[[source.libtlsrpt]]\nsocket = %q\nmode = \"0660\"\ngroup = %q", s.Socket, who.name),
		"the user %s, who sends, may not write to %s", who.name, s.Socket)
}

// cannotEnter is the finding of a folder above path that is closed to who. That of
// the socket is the agent's own; the others are not given to another group.
func cannotEnter(who account, dir, path string) finding {
	mend := "chmod o+x " + dir
	if dir == filepath.Dir(path) {
		mend = fmt.Sprintf("chgrp %s %s && chmod g+x %[2]s", who.name, dir)
	}
	return wrong("source.libtlsrpt.socket", mend, "the user %s, who sends, may not enter %s", who.name, dir)
}

// account is a user as the kernel judges rights.
type account struct {
	name string
	uid  uint32
	gids []uint32
}

func lookUpUser(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return account{}, err
	}
	who := account{name: name}
	for i, id := range append([]string{u.Uid}, groups...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return account{}, err
		}
		if i == 0 {
			who.uid = uint32(n)
		} else {
			who.gids = append(who.gids, uint32(n))
		}
	}
	return who, nil
}

// may reports whether the mode of path gives who the right: 4, 2 or 1. Access
// control lists, which may give more, are not looked at.
func (who account) may(path string, right fs.FileMode) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	uid, gid, ok := ownerOf(info)
	switch mode := info.Mode().Perm(); {
	case !ok:
		return false, errors.ErrUnsupported
	case who.uid == 0:
		return true, nil
	case who.uid == uid:
		return mode&(right<<6) != 0, nil
	case slices.Contains(who.gids, gid):
		return mode&(right<<3) != 0, nil
	default:
		return mode&right != 0, nil
	}
}

// reach is the first on the way to path that keeps who from it, "" if nothing
// does: a folder that is closed, or path itself without the right.
func (who account) reach(path string, right fs.FileMode) (closed string, err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if ok, err := who.may(dir, 1); err != nil || !ok {
			return dir, err
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if ok, err := who.may(path, right); err != nil || !ok {
		return path, err
	}
	return "", nil
}

// checkQueueLength reads how many datagrams a socket made now can hold.
func checkQueueLength(text []byte, err error) finding {
	const check = queueSetting
	if err != nil {
		return skipped(check, "%v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return skipped(check, "%v", err)
	}
	if n < wantQueue {
		return wrong(check, fmt.Sprintf("echo net.unix.max_dgram_qlen=%d >/etc/sysctl.d/60-tlsrpt-agent.conf && sysctl --system   # then start the agent anew", wantQueue),
			"it is %d: events are lost in bursts of mail", n)
	}
	return fine(check, "%d", n)
}

// checkSocketName: Postfix sends to the socket of one of the sources.
func checkSocketName(sources []libtlsrptConfig, p *postconf.Settings) finding {
	const check = "smtp_tlsrpt_socket_name"
	name, queue := p.Get(check), p.Get("queue_directory")
	switch first, _, _ := strings.Cut(name, "/"); {
	case name == "":
		return wrong(check, mendSocketName(sources[0].Socket, p), "it is not set")
	case filepath.IsAbs(name) && p.Chroot:
		return wrong(check, mendSocketName(sources[0].Socket, p), "%s is absolute, but smtp(8) runs in a chroot, %s, and looks for it there", name, queue)
	case first == "private" || first == "public":
		return wrong(check, mendSocketName(filepath.Join(queue, "run/tlsrpt/tlsrpt.sock"), p), "%s is in a folder that belongs to Postfix's own services", name)
	}
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(queue, name)
	}
	for _, s := range sources {
		if sameFile(s.Socket, path) {
			return fine(check, "%s, the socket of the agent", name)
		}
	}
	return wrong(check, mendSocketName(sources[0].Socket, p), "Postfix sends to %s, and the agent listens at %s", path, sources[0].Socket)
}

// sameFile reports whether two paths lead to one place, there or not.
func sameFile(a, b string) bool {
	return realPath(a) == realPath(b)
}

// realPath is path with the links in its folder followed, as far as it exists.
func realPath(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, filepath.Base(path))
}

// mendSocketName makes Postfix send to socket: relative to the queue directory,
// which is right in a chroot and outside; or else moves the socket there.
func mendSocketName(socket string, p *postconf.Settings) string {
	const name = "smtp_tlsrpt_socket_name"
	queue := p.Get("queue_directory")
	rel, err := filepath.Rel(realPath(queue), realPath(socket))
	switch inside := err == nil && !strings.HasPrefix(rel, ".."); {
	case inside:
		return p.Set(name, rel)
	case !p.Chroot:
		return p.Set(name, socket)
	}
	return fmt.Sprintf("[[source.libtlsrpt]]\nsocket = %q\n%s", filepath.Join(queue, "run/tlsrpt/tlsrpt.sock"), p.Set(name, "run/tlsrpt/tlsrpt.sock"))
}
