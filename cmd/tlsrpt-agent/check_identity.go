package main

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// goodRSABits is what RFC 8301, section 3.2, asks signers for.
const goodRSABits = 2048

// checkIdentity looks at who reports, and at the signatures that prove it.
func (c *config) checkIdentity(ctx context.Context) []finding {
	contact := checkContact(c.Organization.Contact)
	if contact.Status != statusOK {
		return []finding{contact, skipped("dkim", "without organization.contact there is no domain to sign for")}
	}
	domain := schema.AddressDomain(c.Organization.Contact)
	found := []finding{contact, checkFrom(c.Mail.From, domain), c.checkVia(ctx), c.checkSigned(domain)}
	if c.Mail.Via != "" {
		found = append(found, checkSPF(ctx, c.resolver(), domain))
	}
	for _, k := range c.DKIM.settings() {
		key, f := k.check(domain)
		if found = append(found, f); key != nil {
			found = append(found, checkKeyRecord(ctx, c.resolver(), k.setting+".record", key))
		}
	}
	return found
}

func checkContact(contact string) finding {
	const check = "organization.contact"
	if contact == "" {
		return wrong(check, "[organization]\ncontact = \"tls-reports@example.com\"",
			"it is not set: sessions are counted, and nothing is sent")
	}
	if _, err := schema.ParseAddress(contact); err != nil {
		return wrong(check, "[organization]\ncontact = \"tls-reports@example.com\"", "%v", err)
	}
	return fine(check, "%s", contact)
}

// checkFrom holds the sender to the domain of the contact: From, d= and
// TLS-Report-Submitter are one domain (RFC 8460, sections 3 and 5.3).
func checkFrom(from, domain string) finding {
	const check = "mail.from"
	switch {
	case from == "":
		return fine(check, "organization.contact is the sender")
	case schema.AddressDomain(from) != domain:
		return wrong(check, fmt.Sprintf("[mail]\nfrom = \"tls-reports@%s\"", domain),
			"%s is not an address in %s, the domain of organization.contact that signs", from, domain)
	}
	return fine(check, "%s", from)
}

// checkVia looks at how report mail leaves. Nothing is sent and nobody contacted.
func (c *config) checkVia(ctx context.Context) finding {
	const check = "mail.via"
	if c.Mail.Via == "" {
		return fine(check, "it is empty: reports go by HTTPS only")
	}
	m, err := c.mailer()
	if err != nil {
		return wrong(check, "[mail]\nvia = \"smtp://localhost:25\"", "%v", err)
	}
	switch m := m.(type) {
	case *submitter.Sendmail:
		return checkSendmail(ctx, m.String())
	case *submitter.Direct:
		return c.checkDirect(m.HELO())
	}
	return fine(check, "%s", c.Mail.Via)
}

// checkDirect looks at the name that MX hosts will see.
func (c *config) checkDirect(helo string) finding {
	const check = "mail.via"
	if !strings.Contains(helo, ".") {
		return wrong(check, "[mail]\nhelo = \"mail.example.com\"   # a name with an address, to which that address leads back",
			"many MX hosts refuse the EHLO name %q: it is not fully qualified", helo)
	}
	return fine(check, "mx: this host must reach port 25 of all the world, which check does not try, and says EHLO %s", helo)
}

// checkSigned says which reports would go out without a signature.
func (c *config) checkSigned(domain string) finding {
	const check = "dkim"
	keygen := fmt.Sprintf("tlsrpt-agent keygen --domain %s --selector %s /etc/tlsrpt-agent/dkim.pem\n[dkim]\nkey = \"/etc/tlsrpt-agent/dkim.pem\"",
		domain, cmp.Or(c.DKIM.Selector, "tlsrpt"))
	switch {
	case len(c.DKIM.settings()) > 0:
		return fine(check, "mail and HTTPS are signed for %s", domain)
	case c.DKIM.External:
		return fine(check, "the relay signs mail; HTTPS goes unsigned, because there is no key").advise(keygen)
	case c.Mail.Via != "":
		return wrong(check, keygen, "there is no key: mail would go unsigned, receivers must ignore that, and \"run\" does not start")
	}
	return fine(check, "HTTPS goes unsigned, because there is no key").advise(keygen)
}

// keySetting is one of the two keys of a configuration.
type keySetting struct{ setting, path, selector string }

// settings is the keys that are set.
func (c *dkimConfig) settings() []keySetting {
	return slices.DeleteFunc([]keySetting{
		{"dkim.key", c.Key, c.Selector}, {"dkim.key2", c.Key2, c.Selector2},
	}, func(k keySetting) bool { return k.path == "" })
}

// check looks at the file of a key. The key is nil if it cannot be used.
func (k keySetting) check(domain string) (*submitter.Key, finding) {
	keygen := fmt.Sprintf("tlsrpt-agent keygen --domain %s --selector %s %s", domain, k.selector, k.path)
	text, err := readSecret(k.path)
	if err != nil {
		return nil, wrong(k.setting, keygen, "%v", err)
	}
	key, err := submitter.ParseKey(text, domain, k.selector)
	if err != nil {
		return nil, wrong(k.setting, keygen, "%s: %v", k.path, err)
	}
	if mode := modeOf(k.path); mode&0o007 != 0 {
		return key, wrong(k.setting, "chmod o= "+k.path, "%s has mode %04o: every user may sign as %s", k.path, mode, domain)
	}
	if bits := rsaBits(key); bits > 0 && bits < goodRSABits {
		return key, wrong(k.setting, keygen+".new", "%s is RSA of %d bits, and many receivers want %d", k.path, bits, goodRSABits)
	}
	return key, fine(k.setting, "%s is usable", k.path)
}

// modeOf is the permissions of a file, 0 if it is not to be seen: a credential.
func modeOf(path string) fs.FileMode {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Mode().Perm()
}

// rsaBits is the size of an RSA key, 0 for another one.
func rsaBits(key *submitter.Key) int {
	der, err := base64.StdEncoding.DecodeString(keyTags(key.TXT())["p"])
	if err != nil {
		return 0
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return 0
	}
	if pub, ok := pub.(*rsa.PublicKey); ok {
		return pub.N.BitLen()
	}
	return 0
}

// checkKeyRecord compares a key with what receivers find in its place.
func checkKeyRecord(ctx context.Context, r submitter.TXTResolver, check string, key *submitter.Key) finding {
	publish := fmt.Sprintf("%s. IN TXT (%s)", key.Name(), quoted(key.TXT()))
	records, err := r.LookupTXT(ctx, key.Name())
	switch {
	case errors.Is(err, resolve.ErrNotFound):
		return wrong(check, publish, "there is no TXT record at %s: no signature can be verified", key.Name())
	case err != nil:
		return wrong(check, "", "%s: %v", key.Name(), err)
	case len(records) > 1:
		return wrong(check, publish, "there are %d TXT records at %s: which one counts is undefined", len(records), key.Name())
	}
	if why := keyFault(keyTags(records[0]), keyTags(key.TXT())); why != "" {
		return wrong(check, publish, "the record at %s %s", key.Name(), why)
	}
	return fine(check, "%s is published", key.Name())
}

// keyTags is the tags of a key record (RFC 6376, section 3.6.1), without white space.
func keyTags(record string) map[string]string {
	tags := map[string]string{}
	for tag := range strings.SplitSeq(record, ";") {
		name, value, _ := strings.Cut(tag, "=")
		tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
	}
	return tags
}

// keyFault is what in a published record keeps receivers from verifying reports,
// "" if nothing does.
func keyFault(got, want map[string]string) string {
	has := func(tag, word string) bool { return slices.Contains(strings.Split(got[tag], ":"), word) }
	switch {
	case got["v"] != "" && got["v"] != "DKIM1":
		return "is none of DKIM's: v=" + got["v"]
	case got["p"] == "":
		return "has no p=: it revokes the key"
	case got["p"] != want["p"] || cmp.Or(got["k"], "rsa") != want["k"]:
		return "is that of another key"
	case got["s"] != "" && !has("s", "*") && !has("s", "tlsrpt"):
		return "has s=" + got["s"] + ": a receiver of reports may ignore it (RFC 8460, section 3)"
	case got["s"] != "" && !has("s", "*") && !has("s", "email"):
		return "has s=" + got["s"] + ": ordinary verifiers, and DMARC, ignore it (RFC 6376, section 3.6.1)"
	case got["h"] != "" && !has("h", "sha256"):
		return "has h=" + got["h"] + ": it forbids sha256"
	case has("t", "y"):
		return "has t=y: receivers treat the mail as unsigned"
	}
	return ""
}
