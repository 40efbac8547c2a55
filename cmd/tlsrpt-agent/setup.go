package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/policy"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// errNoContact means that nothing can be sent because nobody would sign for it.
var errNoContact = hint(errors.New("organization.contact is not set, so no report can be made"),
	"set it to an address that receivers of reports may write to")

// openExisting opens the store that the daemon made.
func (a *app) openExisting() (*aggregator.Store, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	return open(c, existing, nil)
}

// storeMode says whether a store may be made.
type storeMode bool

const (
	existing storeMode = false
	orNew    storeMode = true
)

func open(c config, mode storeMode, log *slog.Logger) (*aggregator.Store, error) {
	if _, err := os.Stat(c.Store.Path); mode == existing && errors.Is(err, fs.ErrNotExist) {
		return nil, hint(fmt.Errorf("there is no store at %s", c.Store.Path),
			`"tlsrpt-agent run" makes it; --db names another one`)
	}
	return aggregator.Open(c.Store.Path, aggregator.Options{Spread: c.Submit.Spread.Duration, Logger: log})
}

// setup is what a configuration makes.
type setup struct {
	config    config
	store     *aggregator.Store
	submitter *submitter.Submitter // nil without organization.contact
	agent     *agent.Agent         // without sources
	finders   []*policy.Finder     // of the log sources
	watch     *watch               // nil: nobody looks
}

// close ends what the setup began, but for the sources, which end with the agent
// that runs them.
func (s *setup) close() error {
	for _, f := range s.finders {
		f.Close()
	}
	s.closeIdle()
	return s.store.Close()
}

// closeIdle closes the connections of a submitter that is not used any more.
func (s *setup) closeIdle() {
	if s.submitter != nil {
		s.submitter.Close()
	}
}

// setUp makes everything but the sources.
func (a *app) setUp(mode storeMode) (*setup, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	return c.setUp(mode, nil, nil)
}

// setUp makes everything but the sources. The store is opened late: what it
// waits for is the disk.
func (c config) setUp(mode storeMode, log *slog.Logger, w *watch) (*setup, error) {
	s := &setup{config: c, watch: w}
	if err := s.makeSubmitter(); err != nil {
		return nil, err
	}
	var err error
	if s.store, err = open(c, mode, log); err != nil {
		return nil, err
	}
	if err := s.makeAgent(log); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *setup) makeSubmitter() (err error) {
	if s.config.Organization.Contact == "" {
		return nil
	}
	if s.submitter, err = s.config.submitter(); err == nil {
		s.watch.countLookups(s.submitter)
	}
	return err
}

func (s *setup) makeAgent(log *slog.Logger) (err error) {
	c := &s.config
	s.agent, err = agent.New(agent.Options{
		Store:         s.store,
		Submitter:     s.submitter,
		Organization:  c.Organization.Name,
		Contact:       c.Organization.Contact,
		From:          c.Mail.From,
		Schedule:      c.Submit.Schedule,
		Grace:         orNone(c.Submit.Grace.Duration),
		MaxAge:        c.Submit.MaxAge.Duration,
		Keep:          c.Store.Keep.Duration,
		PerHost:       c.Submit.PerHost,
		Choice:        c.Submit.choice(),
		OneRUA:        !c.Submit.AllRUA,
		DryRun:        c.Submit.DryRun,
		Archive:       c.Submit.Archive,
		BCC:           c.Submit.BCC,
		CountsReports: c.countsReports(),
		MXHostReports: c.Submit.MXHostReports,
		Attempted:     s.watch.attempted(),
		Logger:        log,
	})
	return err
}

// orNone is d, or what stands for none where zero stands for the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// resolver asks the servers of the configuration.
func (c *config) resolver() *resolve.Resolver {
	return &resolve.Resolver{Servers: c.DNS.Servers, Parallel: c.DNS.Parallel}
}

// submitter makes the submitter of the configuration.
func (c *config) submitter() (*submitter.Submitter, error) {
	contact, err := schema.ParseAddress(c.Organization.Contact)
	if err != nil {
		return nil, fmt.Errorf("organization.contact: %w", err)
	}
	s := &submitter.Submitter{
		Resolver:      c.resolver(),
		Addresses:     c.resolver(), // with slots of its own: hosts of strangers hold up no look-up of a record
		ExternalDKIM:  c.DKIM.External,
		AllowPrivate:  c.Submit.AllowPrivate,
		Ports:         c.HTTPS.Ports,
		RetryInsecure: c.HTTPS.OnCertificateError == "retry-insecure",
		Version:       version,

		BounceDelimiter: c.Mail.BounceDelimiter,
	}
	domain := schema.AddressDomain(contact)
	if s.Keys, err = c.DKIM.keys(domain); err != nil {
		return nil, err
	}
	if s.RootCAs, err = c.HTTPS.rootCAs(); err != nil {
		return nil, err
	}
	if c.Mail.Via == "" {
		return s, nil
	}
	if len(s.Keys) == 0 && !c.DKIM.External {
		return nil, hint(errors.New("reports would be mailed without a signature, and receivers must ignore those"),
			`"tlsrpt-agent keygen" makes a key for dkim.key`,
			"dkim.external = true says that the relay signs; mail.via = \"\" mails no reports")
	}
	if s.Mail, err = c.mailer(); err != nil {
		return nil, fmt.Errorf("mail.via: %w", err)
	}
	return s, nil
}

// keys reads the keys that sign for domain.
func (c *dkimConfig) keys(domain string) (keys []*submitter.Key, err error) {
	for _, k := range []struct{ setting, path, selector string }{
		{"dkim.key", c.Key, c.Selector}, {"dkim.key2", c.Key2, c.Selector2},
	} {
		if k.path == "" {
			continue
		}
		text, err := readSecret(k.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, hint(fmt.Errorf("%s: %w", k.setting, err), fmt.Sprintf("\"tlsrpt-agent keygen --domain %s %s\" makes it", domain, k.path))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.setting, err)
		}
		key, err := submitter.ParseKey(text, domain, k.selector)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", k.setting, k.path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// rootCAs reads the certificates that are trusted; nil means the system's.
func (c *httpsConfig) rootCAs() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("https.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("https.ca_file: no certificate in %s", c.CAFile)
	}
	return pool, nil
}

// mailer makes what takes report mail.
func (c *config) mailer() (submitter.Mailer, error) {
	path, sendmail := c.Mail.sendmail()
	switch {
	case c.Mail.Via != viaMX && !sendmail:
		return c.Mail.relay()
	case c.Mail.PasswordFile != "":
		return nil, errors.New("mail.password_file goes with a user in submission:// or smtps://")
	case sendmail:
		return submitter.NewSendmail(path)
	}
	return submitter.NewDirect(submitter.DirectOptions{
		HELO: c.Mail.Helo, Resolver: c.resolver(), AllowPrivate: c.Submit.AllowPrivate,
	})
}

// viaMX is the value of mail.via that means MX hosts.
const viaMX = "mx"

// sendmail reports whether mail.via names a sendmail command, and which; "" means
// the usual one.
func (c *mailConfig) sendmail() (path string, ok bool) {
	name, path, named := strings.Cut(c.Via, ":")
	return path, name == "sendmail" && named == (path != "")
}

// relay makes the relay of the configuration.
func (c *mailConfig) relay() (submitter.Mailer, error) {
	var password string
	if c.PasswordFile != "" {
		text, err := readSecret(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		password = string(bytes.TrimRight(text, "\r\n"))
	}
	return submitter.ParseRelay(c.Via, password, submitter.RelayOptions{HELO: c.Helo})
}
