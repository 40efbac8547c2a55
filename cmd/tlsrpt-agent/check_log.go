package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/postconf"
)

// checkLogs looks at the log sources and at the Postfix that logs.
func (c *config) checkLogs(p *postconf.Settings) []finding {
	sources := c.Source.PostfixLog
	if len(sources) == 0 {
		return nil
	}
	var found []finding
	for _, s := range sources {
		found = append(found, s.checkReadable(p))
	}
	if p == nil {
		return append(found, noPostfix("syslog_name"), noPostfix("smtp_tls_loglevel"))
	}
	found = append(found, checkInstance(sources, p.Get("syslog_name")))
	watching := ofInstance(sources, p.Get("syslog_name"))
	if len(watching) == 0 {
		watching = sources // most likely the name is what is wrong
	}
	for _, s := range watching {
		found = append(found, checkLogLevel(s, p), checkDANE(s, p), checkMTASTS(s, p))
	}
	if len(c.Source.Libtlsrpt) == 0 {
		found = append(found, logSecurity.check(p))
	}
	return found
}

// checkReadable: this user may read the log.
func (s postfixLogConfig) checkReadable(p *postconf.Settings) finding {
	switch {
	case s.Journal:
		return checkJournal("/")
	case s.Path == "-":
		return skipped("source.postfix_log.path", "standard input is not looked at")
	}
	return checkLogFile(s.Path, p)
}

func checkLogFile(path string, p *postconf.Settings) finding {
	const check = "source.postfix_log.path"
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return wrong(check, logSourceLines(p), "%s is not there", path)
	case errors.Is(err, fs.ErrPermission):
		return wrong(check, grantLog(path, p, userName()), "%v", err)
	case err != nil:
		return wrong(check, "", "%v", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return wrong(check, "", "%s is not a file", path)
	}
	if p != nil && strings.HasPrefix(p.Get("maillog_file"), "/") && !sameFile(p.Get("maillog_file"), path) {
		return wrong(check, logSourceLines(p), "Postfix logs to %s, and the agent reads %s", p.Get("maillog_file"), path)
	}
	if who, ok := serviceAccount(); ok {
		return checkServiceReads(who, path, p)
	}
	return fine(check, "%s may be read", path)
}

// checkServiceReads: the user of the service may read the log that root may.
func checkServiceReads(who account, path string, p *postconf.Settings) finding {
	const check = "source.postfix_log.path"
	switch closed, err := who.reach(path, 4); {
	case err != nil:
		return skipped(check, "whether %s may read %s is not known: %v", who.name, path, err)
	case closed == "":
		return fine(check, "%s may be read by %s", path, who.name)
	case sameFile(closed, path):
		return wrong(check, grantLog(path, p, who.name), "%s, the user of the service, may not read %s", who.name, path)
	default:
		return wrong(check, "setfacl -m u:"+who.name+":x "+closed, "%s, the user of the service, may not enter %s", who.name, closed)
	}
}

// grantLog lets the user called name read a log. From 3.9 on, Postfix itself makes it with
// mode 0600 (maillog_file_permissions).
func grantLog(path string, p *postconf.Settings, name string) string {
	if p != nil && sameFile(p.Get("maillog_file"), path) {
		if p.Version.Before(3, 9, 0) {
			return "chmod 0644 " + path
		}
		return "postconf -e maillog_file_permissions=0644\nchmod 0644 " + path
	}
	if group := readingGroup(path); group != "" {
		return "usermod -a -G " + group + " " + name
	}
	return "setfacl -m u:" + name + ":r " + path
}

// readingGroup is the group that may read path, "" if none may but root's.
func readingGroup(path string) string {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o040 == 0 {
		return ""
	}
	_, gid, ok := ownerOf(info)
	if !ok || gid == 0 {
		return ""
	}
	g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10))
	if err != nil {
		return ""
	}
	return g.Name
}

// userName is who runs this.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}

// checkJournal: this user may read the journal of the system, below root.
func checkJournal(root string) finding {
	const check = "source.postfix_log.journal"
	if _, err := exec.LookPath("journalctl"); err != nil {
		return wrong(check, "[[source.postfix_log]]\npath = \"/var/log/mail.log\"", "%v", err)
	}
	var files []string
	for _, dir := range []string{"var/log/journal", "run/log/journal"} {
		f, _ := filepath.Glob(filepath.Join(root, dir, "*", "system.journal")) // an error is of the pattern
		files = append(files, f...)
	}
	for _, path := range files {
		if f, err := os.Open(path); err == nil {
			f.Close()
			return fine(check, "it may be read")
		}
	}
	return wrong(check, "usermod -a -G systemd-journal "+userName(), "the user %s may not read the system's journal, or there is none", userName())
}

// ofInstance is the sources that read what the instance called syslogName logs.
func ofInstance(sources []postfixLogConfig, syslogName string) (matching []postfixLogConfig) {
	for _, s := range sources {
		if s.Instance == "*" || s.Instance == syslogName {
			matching = append(matching, s)
		}
	}
	return matching
}

// checkInstance: a source reads the lines of this Postfix.
func checkInstance(sources []postfixLogConfig, syslogName string) finding {
	const check = "syslog_name"
	if len(ofInstance(sources, syslogName)) > 0 {
		return fine(check, "%s", syslogName)
	}
	return wrong(check, fmt.Sprintf("[[source.postfix_log]]\ninstance = %q", syslogName),
		"Postfix logs as %s, and the agent reads what %s logs; --postfix names the folder of another Postfix", syslogName, sources[0].Instance)
}

// logSecurity is what makes Postfix use TLS at all, as a log source needs it.
var logSecurity = need{"smtp_tls_security_level", usesTLS, "may", "Postfix uses no TLS"}

// usesTLS knows the settings that went before smtp_tls_security_level.
func usesTLS(p *postconf.Settings, level string) bool {
	return isSecured(p, level) || level == "" && (p.Get("smtp_use_tls") == "yes" || p.Get("smtp_enforce_tls") == "yes")
}

// logLevels is the words of smtp_tls_loglevel that no other one stands for. The
// others, numbers among them, imply summary, or are not for us.
var logLevels = map[string]bool{
	"summary": true, "untrusted": true, "peercert": true, "certmatch": true, "verbose": true, "cache": true, "dane": true,
	"ssl-debug": true, "ssl-handshake-packet-dump": true, "ssl-session-packet-dump": true,
}

// logWords is what a value of smtp_tls_loglevel logs. An unknown word, which
// makes Postfix log nothing, is returned.
func logWords(value string) (words map[string]bool, unknown string) {
	words = map[string]bool{}
	for _, word := range strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		switch {
		case word == "0" || word == "none":
		case len(word) == 1 && '1' <= word[0] && word[0] <= '9',
			word == "routine", word == "debug", word == "ssl-expert", word == "ssl-developer":
			words["summary"] = true
		case logLevels[word]:
			words[word] = true
		default:
			return nil, word
		}
	}
	return words, ""
}

// goodLogLevel is the value that shows the most without noise. From 3.10 on
// "untrusted" changes what Postfix itself reports; before 3.6 "dane" is unknown,
// and an unknown word turns all logging off.
func goodLogLevel(v postconf.Version) string {
	switch {
	case !v.Before(3, 10, 0):
		return "1"
	case !v.Before(3, 6, 0):
		return "summary, untrusted, certmatch, dane"
	}
	return "summary, untrusted, certmatch"
}

// checkLogLevel: at level 0 nothing can be counted. What level 1 does not show
// matters where policies are enforced.
func checkLogLevel(s postfixLogConfig, p *postconf.Settings) finding {
	const check = "smtp_tls_loglevel"
	value, good := p.Get(check), goodLogLevel(p.Version)
	words, unknown := logWords(value)
	if words["dane"] && p.Version.Before(3, 6, 0) {
		words, unknown = nil, "dane"
	}
	mend := p.Set(check, good)
	switch {
	case unknown != "":
		return wrong(check, mend, "Postfix %s does not know the word %q, and so logs nothing", p.Version, unknown)
	case !words["summary"]:
		return wrong(check, mend, "it is %q: Postfix logs no sessions, so none can be counted", value)
	}
	lacks := missing(words, good)
	switch {
	case lacks == "":
		return fine(check, "%s", value)
	case s.DANE || s.MTASTS:
		return wrong(check, mend, "it is %q: without %s the log does not tell whether a policy was met", value, lacks)
	}
	return fine(check, "%s; with %s too, it tells why certificates fail", value, lacks).advise(mend)
}

// missing is the words of the level good that are not among words.
func missing(words map[string]bool, good string) string {
	want, _ := logWords(good)
	var lacks []string
	for _, word := range []string{"untrusted", "certmatch", "dane"} {
		if want[word] && !words[word] {
			lacks = append(lacks, word)
		}
	}
	return strings.Join(lacks, ", ")
}

// checkDANE: the source says of Postfix what is true of it.
func checkDANE(s postfixLogConfig, p *postconf.Settings) finding {
	const check = "source.postfix_log.dane"
	level := p.Get("smtp_tls_security_level")
	enforced := level == "dane" || level == "dane-only" || level == "half-dane"
	switch {
	case enforced && !s.DANE:
		return wrong(check, "[[source.postfix_log]]\ndane = true", "it is false, but Postfix enforces DANE: reports would say that domains have no policy")
	case s.DANE && !enforced && p.Get("smtp_tls_policy_maps") == "":
		return wrong(check, "postconf -e smtp_tls_security_level=dane smtp_dns_support_level=dnssec   # or dane = false",
			"it is true, but Postfix enforces no DANE: smtp_tls_security_level is %q", level)
	case s.DANE && p.Get("smtp_dns_support_level") != "dnssec":
		return wrong(check, p.Set("smtp_dns_support_level", "dnssec"), "it is true, but Postfix finds no TLSA records: smtp_dns_support_level is %q", p.Get("smtp_dns_support_level"))
	}
	return fine(check, "%t", s.DANE)
}

func checkMTASTS(s postfixLogConfig, p *postconf.Settings) finding {
	const check = "source.postfix_log.mta_sts"
	if s.MTASTS && p.Get("smtp_tls_policy_maps") == "" {
		return wrong(check, "[[source.postfix_log]]\nmta_sts = false", "it is true, but Postfix enforces no MTA-STS: smtp_tls_policy_maps is empty")
	}
	return fine(check, "%t", s.MTASTS)
}
