package receiver

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// gzipType is the media type of a compressed report (RFC 8460, section 6.5).
const gzipType = "application/tlsrpt+gzip"

// Lengths of a line without its end, in bytes.
const (
	maxLine       = 998 // RFC 5322, section 2.1.1
	maxBase64Line = 76  // RFC 2045, section 6.8
)

// onceEach is the header fields that have to be there once. RFC 8689, section 5,
// says so of TLS-Required, which RFC 8460 is too old to know.
var onceEach = []string{
	"From", "Date", "Message-ID", "Subject", "MIME-Version", "Content-Type",
	"TLS-Report-Domain", "TLS-Report-Submitter", "TLS-Required",
}

// mailCheck is the reading of one message.
type mailCheck struct {
	Report
	header mail.Header
	from   string // the domain of From
	name   string // the file name of the report
}

// CheckMail reads a message as a receiver does. lookup finds the keys of its
// signatures.
func CheckMail(m Mail, lookup LookupTXT) Report {
	c := &mailCheck{Report: Report{Via: "mailto", To: m.To, Time: m.Time}}
	c.bytes(m.Data)
	msg, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		c.problem("malformed message: %v", err)
		return c.Report
	}
	c.header = msg.Header
	c.fields()
	c.body(msg.Body)
	c.dkim(m.Data, lookup)
	if c.Content != nil {
		c.agreement()
	}
	return c.Report
}

// bytes holds the message against the rules for any message.
func (c *mailCheck) bytes(data []byte) {
	if len(data) > maxMessage {
		c.problem("a message of %d bytes, want at most %d", len(data), maxMessage)
	}
	rest := bytes.ReplaceAll(data, []byte("\r\n"), nil)
	if bytes.ContainsAny(rest, "\r\n") {
		c.problem("a line does not end in CRLF")
	}
	if slices.ContainsFunc(data, func(b byte) bool { return b >= 0x80 || b == 0 }) {
		c.problem("the message is not 7-bit")
	}
	for line := range bytes.SplitSeq(data, []byte("\r\n")) {
		if len(line) > maxLine {
			c.problem("a line of %d bytes, want at most %d", len(line), maxLine)
			return
		}
	}
}

// fields holds the header against RFC 8460, section 5.3, and RFC 5322.
func (c *mailCheck) fields() {
	for _, name := range onceEach {
		if n := len(c.header[textproto.CanonicalMIMEHeaderKey(name)]); n != 1 {
			c.problem("%s is there %d times", name, n)
		}
	}
	if v := c.header.Get("TLS-Required"); v != "No" && v != "" {
		c.problem("TLS-Required is %q, not No", v)
	}
	if _, err := c.header.Date(); err != nil && c.header.Get("Date") != "" {
		c.problem("Date is %q, not a date", c.header.Get("Date"))
	}
	if id := c.header.Get("Message-ID"); id != "" {
		if _, err := parseMsgID(id); err != nil {
			c.problem("Message-ID: %v", err)
		}
	}
	if v := c.header.Get("From"); v != "" {
		from, err := mail.ParseAddressList(v)
		if err != nil || len(from) != 1 {
			c.problem("From is %q, not one address", v)
		} else {
			_, domain, _ := strings.Cut(from[0].Address, "@") // no quoted local part: nobody sends reports from one
			c.from = strings.ToLower(domain)
		}
	}
	c.Domain = c.header.Get("TLS-Report-Domain")
	for _, name := range []string{"TLS-Report-Domain", "TLS-Report-Submitter"} {
		v := c.header.Get(name)
		if d, err := schema.ParseDomain(v); v != "" && (err != nil || d != v) {
			c.problem("%s is %q, not a domain in A-labels and lower case", name, v)
		}
	}
}

// body reads the two parts (RFC 8460, section 5.3).
func (c *mailCheck) body(r io.Reader) {
	kind, params, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		c.problem("Content-Type is %q, not multipart/report with report-type=tlsrpt", c.header.Get("Content-Type"))
	}
	parts, err := readParts(r, params["boundary"])
	if err != nil {
		c.problem("malformed multipart: %v", err)
		return
	}
	if len(parts) != 2 {
		c.problem("%d parts, want 2", len(parts))
		return
	}
	if kind := parts[0].kind(); kind != "text/plain" {
		c.problem("the first part is %q, not text/plain", kind)
	}
	if len(bytes.TrimSpace(parts[0].body)) == 0 {
		c.problem("the text for people is empty")
	}
	c.attachment(parts[1])
}

// part is one part of a multipart message, not decoded.
type part struct {
	header mail.Header
	body   []byte
}

func (p *part) kind() string {
	kind, _, _ := mime.ParseMediaType(p.header.Get("Content-Type"))
	return kind
}

// maxParts is how many parts are read. A third is one too many.
const maxParts = 3

// readParts reads a multipart body up to its final boundary.
func readParts(r io.Reader, boundary string) (parts []part, err error) {
	if boundary == "" {
		return nil, errors.New("no boundary")
	}
	for m := multipart.NewReader(r, boundary); len(parts) < maxParts; {
		// Raw: NextPart would hide a transfer encoding.
		p, err := m.NextRawPart()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{mail.Header(p.Header), body})
	}
	return parts, nil
}

// attachment reads the part that holds the report.
func (c *mailCheck) attachment(p part) {
	if kind := p.kind(); kind != gzipType {
		c.problem("the second part is %q, not %s", kind, gzipType)
	}
	disposition, params, err := mime.ParseMediaType(p.header.Get("Content-Disposition"))
	if err != nil || disposition != "attachment" {
		c.problem("Content-Disposition is %q, not attachment", p.header.Get("Content-Disposition"))
	}
	if c.name = params["filename"]; c.name == "" {
		c.problem("the report has no file name")
	}
	// Some receivers know the report by this name.
	if _, params, err := mime.ParseMediaType(p.header.Get("Content-Type")); err == nil && params["name"] != c.name {
		c.problem("name of Content-Type is %q, filename %q", params["name"], c.name)
	}
	if v := p.header.Get("Content-Transfer-Encoding"); !strings.EqualFold(v, "base64") {
		c.problem("Content-Transfer-Encoding is %q, not base64", v)
		return
	}
	packed, err := decodeBase64(p.body)
	if err != nil {
		c.problem("base64: %v", err)
		return
	}
	c.unpack(packed)
}

func decodeBase64(body []byte) ([]byte, error) {
	for line := range bytes.Lines(body) {
		if n := len(bytes.TrimRight(line, "\r\n")); n > maxBase64Line {
			return nil, fmt.Errorf("a line of %d bytes, want at most %d", n, maxBase64Line)
		}
	}
	return base64.StdEncoding.Strict().DecodeString(string(body)) // skips line ends
}

// dkim verifies all signatures. RFC 8460, section 3: a report by mail without a
// valid one is ignored.
func (c *mailCheck) dkim(data []byte, lookup LookupTXT) {
	fields := c.header["Dkim-Signature"]
	if len(fields) == 0 {
		c.problem("no DKIM signature")
		return
	}
	verified, err := dkim.VerifyWithOptions(bytes.NewReader(data), &dkim.VerifyOptions{LookupTXT: lookup})
	if err != nil || len(verified) != len(fields) {
		c.problem("DKIM: %d signatures, %d verifications: %v", len(fields), len(verified), err)
		return
	}
	for i, v := range verified {
		tags, err := parseTags(fields[i])
		if err == nil {
			err = v.Err
		}
		c.Signatures = append(c.Signatures, Signature{
			Domain:    strings.ToLower(tags["d"]),
			Selector:  tags["s"],
			Algorithm: tags["a"],
			Covered:   strings.Split(strings.ToLower(tags["h"]), ":"),
			Err:       err,
		})
		if err != nil {
			c.problem("DKIM signature of %s: %v", tags["d"], err)
		}
		c.dkimPolicy(c.Signatures[i], tags, lookup)
	}
}

// dkimPolicy is what RFC 8460 and receivers demand of a signature that verifies.
func (c *mailCheck) dkimPolicy(s Signature, tags map[string]string, lookup LookupTXT) {
	if _, ok := tags["l"]; ok {
		c.problem("DKIM signature of %s: it uses l=", s.Domain) // RFC 8460, section 3
	}
	// mox accepts the organizational domain of From as well. A report about TLS
	// needs no such room: exact is what all accept.
	c.agree("the DKIM signature's domain", s.Domain, "From", c.from)
	for _, name := range []string{"tls-report-domain", "tls-report-submitter"} {
		if !slices.Contains(s.Covered, name) {
			c.problem("DKIM signature of %s: it does not cover %s", s.Domain, name)
		}
	}
	record, err := lookupKey(lookup, s.Selector, s.Domain)
	if err != nil {
		c.problem("DKIM signature of %s: %v", s.Domain, err)
		return
	}
	for _, service := range []string{"email", "tlsrpt"} {
		// RFC 6376, section 3.6.1, wants email, RFC 8460, section 3, tlsrpt.
		if !record.allows(service) {
			c.problem("DKIM signature of %s: the key's s= does not allow %s", s.Domain, service)
		}
	}
}

// agreement holds header, Subject and file name against the report. The report
// is authoritative (RFC 8460, section 5.6).
func (c *mailCheck) agreement() {
	c.agree("TLS-Report-Submitter", c.header.Get("TLS-Report-Submitter"), "contact-info", c.Submitter)
	c.agree("the domain of From", c.from, "contact-info", c.Submitter)
	if c.Domain != "" && !aboutDomain(c.Content, c.Domain) {
		c.problem("TLS-Report-Domain is %q, no policy is of that domain", c.Domain)
	}
	if s, err := parseSubject(c.header.Get("Subject")); err != nil {
		c.problem("Subject: %v", err)
	} else {
		c.agree("the Subject's domain", s.domain, "TLS-Report-Domain", c.Domain)
		c.agree("the Subject's submitter", s.submitter, "contact-info", c.Submitter)
		c.agree("the Subject's Report-ID", s.id, "report-id", c.ReportID)
	}
	if c.name == "" {
		return
	}
	f, err := parseFileName(c.name)
	if err != nil {
		c.problem("file name %q: %v", c.name, err)
		return
	}
	c.agree("the file name's submitter", f.sender, "contact-info", c.Submitter)
	c.agree("the file name's domain", f.domain, "TLS-Report-Domain", c.Domain)
	if r := c.Content.DateRange; f.begin != r.Start.Unix() || f.end != r.End.Unix() {
		c.problem("file name %q: its period is not that of the report", c.name)
	}
}
