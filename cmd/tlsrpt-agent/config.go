package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// defaultConfig is read where no file is named; it need not exist.
const defaultConfig = "/etc/tlsrpt-agent/config.toml"

// config is the configuration file. The doc tags make the page of settings.
type config struct {
	Organization organizationConfig `toml:"organization"`
	Store        storeConfig        `toml:"store"`
	Source       sourceConfig       `toml:"source"`
	DNS          dnsConfig          `toml:"dns"`
	Submit       submitConfig       `toml:"submit"`
	Mail         mailConfig         `toml:"mail"`
	DKIM         dkimConfig         `toml:"dkim"`
	HTTPS        httpsConfig        `toml:"https"`
	Web          webConfig          `toml:"web"`
	Alerts       alertsConfig       `toml:"alerts"`
}

type organizationConfig struct {
	Name    string `toml:"name" doc:"The organization-name of every report. Empty: the domain of contact."`
	Contact string `toml:"contact" doc:"The contact-info of every report, a mail address; its domain is the submitter. Empty: sessions are counted, nothing is sent."`
}

type storeConfig struct {
	Path string   `toml:"path" doc:"The SQLite file. Its directory is made if missing."`
	Keep duration `toml:"keep" doc:"How long counts and reports are kept."`
}

type sourceConfig struct {
	Libtlsrpt  []libtlsrptConfig  `toml:"libtlsrpt"`
	PostfixLog []postfixLogConfig `toml:"postfix_log"`
}

type postfixLogConfig struct {
	Path            string `toml:"path" doc:"The log file, followed over rotation; \"-\" is standard input. smtp_tls_loglevel must be 1 or more."`
	Journal         bool   `toml:"journal" doc:"Read systemd's journal instead of a file."`
	Instance        string `toml:"instance" doc:"The syslog_name of the Postfix instance; \"*\" is any."`
	DANE            bool   `toml:"dane" doc:"This MTA enforces DANE. The resolver must validate DNSSEC and be trusted."`
	MTASTS          bool   `toml:"mta_sts" doc:"This MTA enforces MTA-STS."`
	PolicyDaemon    string `toml:"policy_daemon" doc:"The socketmap that Postfix asks for MTA-STS, as smtp_tls_policy_maps names it without \"socketmap:\". It says whether MTA-STS or DANE applied. With mta_sts, too, policies are fetched for their text, which not every daemon tells, and failures to fetch them are reported."`
	ReportPlaintext bool   `toml:"report_plaintext" doc:"Count plaintext deliveries at level may as starttls-not-supported."`

	Relays []string `toml:"relays" doc:"Hosts, addresses and networks that this MTA hands mail to and that are no MX of its domain: relays and filters. Sessions with them are not counted. Most are known without it: by port, by a private address, and by DNS, which says what the MX hosts of a domain are."`
}

type libtlsrptConfig struct {
	Socket        string `toml:"socket" doc:"The datagram socket that Postfix >= 3.10 sends to; smtp_tlsrpt_socket_name names the same file. Under systemd socket activation the passed socket of this path is used. Where /var/spool/postfix/run/tlsrpt is there, as with our package, the default is tlsrpt.sock in it."`
	Mode          string `toml:"mode" doc:"Its mode, octal."`
	User          string `toml:"user" doc:"Its owner, a name or a number. Empty: the user of the agent."`
	Group         string `toml:"group" doc:"Its group, a name or a number. Empty: the group of the agent."`
	CountsReports bool   `toml:"counts_reports" doc:"For Postfix 3.10.0 to 3.10.3, which tells of the sessions of report mail too: days of a mail domain that reports alone may explain are not reported, so that reports do not cause reports. It is decided a day later."`
	SendingIP     string `toml:"sending_ip" doc:"What stands in reports for a private sending address (NAT, containers). Empty: it is left out."`
}

type dnsConfig struct {
	Servers  []string `toml:"servers" doc:"Resolvers, \"192.0.2.53\" or \"192.0.2.53:53\". Empty: those of /etc/resolv.conf."`
	Parallel int      `toml:"parallel" doc:"How many questions are asked at once."`
}

type submitConfig struct {
	Schedule       string   `toml:"schedule" doc:"When closed days are submitted: a cron expression of five fields, in UTC."`
	Grace          duration `toml:"grace" doc:"How long after midnight UTC a day stays open for late sessions."`
	Spread         duration `toml:"spread" doc:"Each domain gets one random moment within this time after the run; its record is looked up and its report sent then."`
	MaxAge         duration `toml:"max_age" doc:"Days that ended longer ago are not sent any more."`
	PerHost        int      `toml:"per_host" doc:"How many deliveries go to one destination host at the same time."`
	AllRUA         bool     `toml:"all_rua" doc:"Send a report to every rua of a record. False: to the first, and to the next only after a failure."`
	OnlyFailures   bool     `toml:"only_failures" doc:"Report only days of a domain with a failed session."`
	MinSessions    int64    `toml:"min_sessions" doc:"Report only days of a domain with this many sessions."`
	OnlyDomains    []string `toml:"only_domains" doc:"Report only about these domains: \"example.com\", \"*.example.com\" for every domain below it, or \"*\". Empty: about all."`
	ExcludeDomains []string `toml:"exclude_domains" doc:"Report nothing about these domains, in the same form, whatever only_domains says."`
	ExcludeRUA     []string `toml:"exclude_rua" doc:"Send nothing to these destinations: \"a@example.com\", \"*@example.com\", \"*@*.example.com\", \"https://example.com\" (every path), \"https://*.example.com/v1/*\". Case does not count."`
	MXHostReports  bool     `toml:"mx_host_reports" doc:"Report sessions with DANE to the TLSA base domain too, normally the MX host, where it has a TLSRPT record of its own. Not those of libtlsrpt sources."`
	Archive        string   `toml:"archive" doc:"A local directory for a copy of every report, one directory a day; nothing is ever deleted there. Empty: none is kept."`
	BCC            string   `toml:"bcc" doc:"A mail address that gets a copy of every report, also of those sent by HTTPS. Empty: none."`
	DryRun         bool     `toml:"dry_run" doc:"Make and archive reports, and send none: their deliveries end as suppressed."`
	AllowPrivate   bool     `toml:"allow_private" doc:"For tests only: https destinations, MX hosts of via = \"mx\" and MTA-STS hosts may have private and loopback addresses."`
}

type mailConfig struct {
	From         string `toml:"from" doc:"The sender of report mail, in the domain of organization.contact. Empty: organization.contact."`
	Via          string `toml:"via" doc:"How report mail leaves. A relay: smtp://host:25 (no authentication; no STARTTLS on loopback), submission://user@host:587 or smtps://user@host:465 (verified TLS). \"sendmail\" or \"sendmail:/path\": the command of this host. \"mx\": straight to the MX hosts of each domain, with TLS where it works and without where not. Empty: no report is mailed."`
	PasswordFile string `toml:"password_file" doc:"The file with the password of the user in via, or a systemd credential of that name."`
	Helo         string `toml:"helo" doc:"The EHLO name, for relays and \"mx\". Empty: the host's name."`

	BounceDelimiter string `toml:"bounce_delimiter" doc:"One of \"+-=_.#~\". The envelope sender of report mail is then \"reports+ID@example.com\" with a signed id of the delivery, so that a bounce from anywhere names it. Empty: the sender is plain, and only a relay that offers DSN (RFC 3461) returns the id."`
	BounceSocket    string `toml:"bounce_socket" doc:"The Unix socket on which bounces are taken by LMTP. Empty: bounce.sock beside the agent's own socket if bounce_delimiter is set, else none."`
	BounceMode      string `toml:"bounce_mode" doc:"Its mode, octal."`
	BounceUser      string `toml:"bounce_user" doc:"Its owner, a name or a number. Empty: the user of the agent."`
	BounceGroup     string `toml:"bounce_group" doc:"Its group, a name or a number. Empty: the group of the agent."`
}

type dkimConfig struct {
	Selector  string `toml:"selector" doc:"The selector of key, one for reports only. The record is <selector>._domainkey.<domain of contact>."`
	Key       string `toml:"key" doc:"The private key in PEM, RSA (first choice, every receiver can check it) or Ed25519. It signs mail and HTTPS. Made by \"tlsrpt-agent keygen\". A systemd credential of that name comes first: see docs/operations.md."`
	Selector2 string `toml:"selector2" doc:"The selector of key2."`
	Key2      string `toml:"key2" doc:"An Ed25519 key for a second signature. Where it is set, it signs HTTPS."`
	External  bool   `toml:"external" doc:"The relay signs the mail, with the domain of contact. Needed to mail reports without key: receivers must ignore unsigned ones."`
}

type httpsConfig struct {
	OnCertificateError string   `toml:"on_certificate_error" doc:"\"fail\", or \"retry-insecure\", which RFC 8460 (section 3) allows."`
	CAFile             string   `toml:"ca_file" doc:"Certificates in PEM that are trusted instead of the system's."`
	Ports              []uint16 `toml:"ports" doc:"The ports that an https destination may name. One that names another gets no report."`
}

// defaults is the configuration without a file.
func defaults() config {
	var c config
	c.Store.Path = filepath.Join(stateDir(), "tlsrpt.db")
	c.Store.Keep = duration{30 * 24 * time.Hour}
	c.DNS.Parallel = 32
	c.Submit = submitConfig{
		Schedule:    agent.DefaultSchedule,
		Grace:       duration{15 * time.Minute},
		Spread:      duration{4 * time.Hour},
		MaxAge:      duration{agent.DefaultMaxAge},
		PerHost:     agent.DefaultPerHost,
		AllRUA:      true,
		MinSessions: 1,
	}
	c.Mail.Via = "smtp://localhost:25"
	c.Mail.BounceMode = defaultMode
	c.DKIM.Selector = "tlsrpt"
	c.HTTPS.OnCertificateError = "fail"
	c.HTTPS.Ports = []uint16{443}
	c.Web = webConfig{Listen: "127.0.0.1:8460", SilentAfter: duration{24 * time.Hour}}
	c.Alerts = alertsConfig{Threshold: 0.1, MinSessions: 20, Window: duration{time.Hour}, Pause: duration{6 * time.Hour}}
	return c
}

// postfixSocketDir is where the socket unit of our package makes its socket.
const postfixSocketDir = "/var/spool/postfix/run/tlsrpt"

// defaultSource stands in where the file names no source: the socket within
// Postfix's queue directory where its folder is there, or else one of our own.
func defaultSource() libtlsrptConfig {
	dir := runtimeDir()
	if existingDir(postfixSocketDir) == postfixSocketDir {
		dir = postfixSocketDir
	}
	return libtlsrptConfig{Socket: filepath.Join(dir, "tlsrpt.sock")}
}

// defaultInstance is the syslog_name of a Postfix that is not told otherwise.
const defaultInstance = "postfix"

// defaultMode lets the group of the socket write to it.
const defaultMode = "0660"

// Where a service has its store and its socket.
const (
	systemState   = "/var/lib/tlsrpt-agent"
	systemRuntime = "/run/tlsrpt-agent"
)

// stateDir is where the store lies: systemd's StateDirectory, or its usual
// place for root, or a place of the user's own.
func stateDir() string {
	return firstDir(os.Getenv("STATE_DIRECTORY"), systemState, os.Getenv("XDG_STATE_HOME"), ".local/state")
}

// runtimeDir is where the socket lies.
func runtimeDir() string {
	return firstDir(os.Getenv("RUNTIME_DIRECTORY"), systemRuntime, os.Getenv("XDG_RUNTIME_DIR"), ".local/state")
}

// firstDir is the first of: what systemd says, system for root, base of the
// user, home under the user's home directory.
func firstDir(systemd, system, base, home string) string {
	if dir, _, _ := strings.Cut(systemd, ":"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return system
	}
	if base == "" {
		h, err := os.UserHomeDir()
		if err != nil {
			return system
		}
		base = filepath.Join(h, home)
	}
	return filepath.Join(base, "tlsrpt-agent")
}

// load reads the configuration file, or the defaults where there is none.
func (a *app) load() (config, error) {
	path := a.configPath
	if path == "" {
		path = defaultConfig
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.configPath == "":
		text = nil
	case err != nil:
		return config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := parseConfig(path, text)
	if err != nil {
		return config{}, err
	}
	if a.dbPath != "" {
		c.Store.Path = a.dbPath
	}
	return c, nil
}

// parseConfig reads the text of the file at path. Unknown keys are refused: a
// setting that was misspelt would otherwise be one that is not in force.
func parseConfig(path string, text []byte) (config, error) {
	c := defaults()
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return config{}, located(path, err)
	}
	if len(c.Source.Libtlsrpt)+len(c.Source.PostfixLog) == 0 {
		c.Source.Libtlsrpt = []libtlsrptConfig{defaultSource()}
	}
	for i := range c.Source.PostfixLog {
		if s := &c.Source.PostfixLog[i]; s.Instance == "" {
			s.Instance = defaultInstance
		}
	}
	for i := range c.Source.Libtlsrpt {
		if s := &c.Source.Libtlsrpt[i]; s.Mode == "" {
			s.Mode = defaultMode
		}
	}
	if err := c.check(); err != nil {
		return config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// located names the file, line and key of a fault.
func located(path string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		row, _ := e.Position()
		return hint(fmt.Errorf("%s:%d: unknown setting %q", path, row, strings.Join(e.Key(), ".")),
			"docs/settings.md lists every setting")
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := e.Position()
		return fmt.Errorf("%s:%d: %s", path, row, strings.TrimPrefix(e.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", path, err)
}

// check finds values that no part of the program could use.
func (c *config) check() error {
	if _, err := agent.ParseSchedule(c.Submit.Schedule); err != nil {
		return fmt.Errorf("submit.schedule: %w", err)
	}
	if c.Submit.PerHost < 1 || c.Submit.PerHost > 64 {
		return fmt.Errorf("submit.per_host: %d is not between 1 and 64", c.Submit.PerHost)
	}
	if keep, least := c.Store.Keep.Duration, c.Submit.MaxAge.Duration+48*time.Hour; keep != 0 && keep < least {
		return fmt.Errorf("store.keep: %s is too short: days are submitted for submit.max_age and retried for a day more, so keep them %s at least", c.Store.Keep, duration{least})
	}
	if c.Submit.MaxAge.Duration == 0 {
		return errors.New("submit.max_age: 0 would submit no day at all")
	}
	if err := c.checkChoice(); err != nil {
		return err
	}
	if spread := c.Submit.Spread.Duration; spread > 24*time.Hour {
		return fmt.Errorf("submit.spread: %s is more than a day", c.Submit.Spread)
	}
	for _, server := range c.DNS.Servers {
		if _, err := netip.ParseAddrPort(server); err == nil {
			continue
		}
		if _, err := netip.ParseAddr(strings.Trim(server, "[]")); err != nil {
			return fmt.Errorf("dns.servers: %q is not an address such as \"192.0.2.53\" or \"192.0.2.53:53\"", server)
		}
	}
	if c.DNS.Parallel < 1 {
		return fmt.Errorf("dns.parallel: %d is less than 1", c.DNS.Parallel)
	}
	if s := c.HTTPS.OnCertificateError; s != "fail" && s != "retry-insecure" {
		return fmt.Errorf("https.on_certificate_error: %q is neither \"fail\" nor \"retry-insecure\"", s)
	}
	if len(c.HTTPS.Ports) == 0 || slices.Contains(c.HTTPS.Ports, 0) {
		return errors.New("https.ports: want at least one port, and none that is 0")
	}
	for _, s := range c.Source.PostfixLog {
		if (s.Path == "") != s.Journal {
			return errors.New("source.postfix_log: want either path or journal = true")
		}
		if _, err := postfixlog.ParseRelays(s.Relays); err != nil {
			return fmt.Errorf("source.postfix_log.relays: %w", err)
		}
	}
	for _, s := range c.Source.Libtlsrpt {
		if s.Socket == "" {
			return errors.New("source.libtlsrpt.socket: not set")
		}
		if _, err := parseMode(s.Mode); err != nil {
			return fmt.Errorf("source.libtlsrpt.mode: %w", err)
		}
	}
	if err := errors.Join(c.Web.check(), c.Alerts.check()); err != nil {
		return err
	}
	if _, err := parseMode(c.Mail.BounceMode); err != nil {
		return fmt.Errorf("mail.bounce_mode: %w", err)
	}
	if c.Organization.Contact == "" {
		return nil // nobody to send as
	}
	if err := c.returnPath().Check(aggregator.MaxBounceToken); errors.Is(err, submitter.ErrDelimiter) {
		return fmt.Errorf("mail.bounce_delimiter: %w", err)
	}
	return nil
}

// checkChoice finds faults in the settings of who gets reports.
func (c *config) checkChoice() error {
	s := &c.Submit
	for _, p := range []struct {
		name   string
		choice agent.Choice
	}{
		{"only_domains", agent.Choice{OnlyDomains: s.OnlyDomains}},
		{"exclude_domains", agent.Choice{ExcludeDomains: s.ExcludeDomains}},
		{"exclude_rua", agent.Choice{ExcludeRUA: s.ExcludeRUA}},
	} {
		if err := p.choice.Check(); err != nil {
			return fmt.Errorf("submit.%s: %s", p.name, strings.TrimPrefix(err.Error(), "agent: "))
		}
	}
	if s.MinSessions < 0 {
		return fmt.Errorf("submit.min_sessions: %d is less than 0", s.MinSessions)
	}
	if s.BCC == "" {
		return c.checkCountsReports()
	}
	if _, err := schema.ParseAddress(s.BCC); err != nil {
		return fmt.Errorf("submit.bcc: %q is not a mail address", s.BCC)
	}
	if c.Mail.Via == "" {
		return errors.New("submit.bcc: no mail is sent, because mail.via is empty")
	}
	return c.checkCountsReports()
}

// checkCountsReports finds a max_age that leaves no time to find out.
func (c *config) checkCountsReports() error {
	if c.countsReports() && c.Submit.MaxAge.Duration < 48*time.Hour {
		return fmt.Errorf("submit.max_age: %s is too short for source.libtlsrpt.counts_reports, which decides a day later: want 2d at least", c.Submit.MaxAge)
	}
	return nil
}

// countsReports reports whether sessions of report mail are counted.
func (c *config) countsReports() bool {
	return slices.ContainsFunc(c.Source.Libtlsrpt, func(s libtlsrptConfig) bool { return s.CountsReports })
}

// choice is who gets reports.
func (c *submitConfig) choice() agent.Choice {
	return agent.Choice{
		OnlyDomains: c.OnlyDomains, ExcludeDomains: c.ExcludeDomains, ExcludeRUA: c.ExcludeRUA,
		OnlyFailures: c.OnlyFailures, MinSessions: c.MinSessions,
	}
}

// parseMode reads the mode of a file.
func parseMode(s string) (fs.FileMode, error) {
	mode, err := strconv.ParseUint(s, 8, 9)
	if err != nil {
		return 0, fmt.Errorf("%q is not an octal mode such as \"0660\"", s)
	}
	return fs.FileMode(mode), nil
}

// duration is a time.Duration that also reads days, "30d". It is a struct so
// that a bare number, whose unit nobody knows, is refused.
type duration struct{ time.Duration }

// UnmarshalText reads "90s", "15m", "4h", "30d" and sums such as "1d12h".
func (d *duration) UnmarshalText(text []byte) error {
	s, days := string(text), time.Duration(0)
	if head, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.Atoi(head)
		if err != nil || n > 36500 {
			return fmt.Errorf("malformed duration %q: want such as \"4h\" or \"30d\"", text)
		}
		days = time.Duration(n) * 24 * time.Hour
		if s = rest; s == "" {
			s = "0s"
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil || v+days < 0 || days < 0 {
		return fmt.Errorf("malformed duration %q: want such as \"4h\" or \"30d\"", text)
	}
	d.Duration = v + days
	return nil
}

// String is the shortest form that UnmarshalText reads.
func (d duration) String() string {
	const day = 24 * time.Hour
	if t := d.Duration; t != 0 && t%day == 0 {
		return fmt.Sprintf("%dd", t/day)
	}
	s := d.Duration.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
