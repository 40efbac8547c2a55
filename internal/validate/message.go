package validate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	gomessage "github.com/emersion/go-message"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Media types of RFC 8460, sections 6.4 and 6.5.
const (
	typeJSON = "application/tlsrpt+json"
	typeGzip = "application/tlsrpt+gzip"
)

// Bounds on a message.
const (
	maxHeader = 1 << 20 // bytes
	maxParts  = 16
	maxDepth  = 4 // of multiparts within each other
)

// part is a part that is no multipart, decoded.
type part struct {
	field     string // "part 2"
	mediaType string
	name      string // its file name
	body      []byte
}

// message judges a mail message (RFC 8460, section 5.3).
func message(data []byte, o Options) Result {
	j := &judge{Result: Result{Kind: Message}}
	if bytes.HasPrefix(data, []byte("From ")) { // an mbox of one message
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	e, err := gomessage.ReadWithOptions(bytes.NewReader(data), &gomessage.ReadOptions{MaxHeaderBytes: maxHeader})
	if e == nil {
		j.fault("message", twoParts, "it cannot be read: %v", err)
		return j.Result
	}
	j.fields(&e.Header)
	parts := j.body(e)
	if i := indexReport(parts); i < 0 {
		j.fault("message", twoParts, "there is no report in it")
	} else {
		j.attachment(parts, i)
	}
	j.agreement()
	j.dkim(&e.Header, data, o)
	return j.Result
}

// fields holds the header against RFC 8460, section 5.3.
func (j *judge) fields(h *gomessage.Header) {
	j.domain = j.domainField(h, "TLS-Report-Domain")
	j.submitter = j.domainField(h, "TLS-Report-Submitter")
	if !h.Has("Subject") {
		j.fault("Subject", subjectForm, "it is not there")
		return
	}
	subject, err := schema.ParseSubject(h.Get("Subject"))
	if err != nil {
		j.fault("Subject", subjectForm, "%s", reason(err))
		return
	}
	j.subject = &subject
}

// domainField is the domain in a header field that has to be there once, or "".
func (j *judge) domainField(h *gomessage.Header, name string) string {
	values := h.Values(name)
	if len(values) != 1 {
		j.fault(name, reportFields, "it is there %d times, want once", len(values))
		return ""
	}
	text := strings.TrimSpace(values[0])
	d, err := schema.ParseDomain(text)
	if err != nil || d != strings.ToLower(text) {
		j.fault(name, reportFields, "%q is not a domain in A-labels", short(text))
	}
	return d
}

// short is s, cut to what a fault quotes of it.
func short(s string) string {
	const size = 255
	if len(s) > size {
		return strings.ToValidUTF8(s[:size], "") + "..."
	}
	return s
}

// body is the parts of a message, itself the only one if it is no multipart.
func (j *judge) body(e *gomessage.Entity) []part {
	kind, params, err := e.Header.ContentType()
	switch {
	case err != nil || kind != "multipart/report":
		j.fault("Content-Type", twoParts, "%q is not multipart/report", short(e.Header.Get("Content-Type")))
	case !strings.EqualFold(params["report-type"], "tlsrpt"):
		j.fault("Content-Type", reportType, "report-type is %q, not tlsrpt", short(params["report-type"]))
	}
	c := collector{}
	if err := c.add(e, 0); errors.Is(err, io.ErrUnexpectedEOF) {
		j.fault("message", twoParts, "it ends before its last boundary")
		c.dropEmpty()
	} else if err != nil {
		j.fault("message", twoParts, "malformed parts: %v", err)
	}
	switch {
	case c.more:
		j.fault("message", twoParts, "more than %d parts, or parts within parts", maxParts)
	case strings.HasPrefix(kind, "multipart/") && len(c.parts) != 2:
		j.fault("message", twoParts, "%d parts, want 2", len(c.parts))
	}
	return c.parts
}

// collector gathers the parts of a message.
type collector struct {
	parts []part
	more  bool // than are read
}

// add adds e, or what it is made of. Parts that were read stay where a later one
// cannot be.
func (c *collector) add(e *gomessage.Entity, depth int) error {
	m := e.MultipartReader()
	if m == nil {
		return c.addLeaf(e)
	}
	if depth == maxDepth {
		c.more = true
		return nil
	}
	for {
		p, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		} else if p == nil {
			return err
		}
		if len(c.parts) == maxParts {
			c.more = true
			return nil
		}
		if err := c.add(p, depth+1); err != nil {
			return err
		}
	}
}

func (c *collector) addLeaf(e *gomessage.Entity) error {
	body, err := io.ReadAll(io.LimitReader(e.Body, MaxFile))
	p := part{field: fmt.Sprintf("part %d", len(c.parts)+1), body: body}
	var params, named map[string]string
	p.mediaType, params, _ = e.Header.ContentType()
	_, named, _ = e.Header.ContentDisposition()
	if p.name = named["filename"]; p.name == "" {
		p.name = params["name"]
	}
	if name, err := new(mime.WordDecoder).DecodeHeader(p.name); err == nil {
		p.name = name
	}
	c.parts = append(c.parts, p)
	return err
}

// dropEmpty takes away the part that a boundary in place of the last one began.
func (c *collector) dropEmpty() {
	if n := len(c.parts) - 1; n >= 0 && len(bytes.TrimSpace(c.parts[n].body)) == 0 {
		c.parts = c.parts[:n]
	}
}

// indexReport is which part holds the report: the first of a media type of
// RFC 8460, else the first that looks like one. -1 is none.
func indexReport(parts []part) int {
	for i := range parts {
		if strings.HasPrefix(parts[i].mediaType, "application/tlsrpt") {
			return i
		}
	}
	for i := range parts {
		if isGzip(parts[i].body) || bytes.HasPrefix(bytes.TrimSpace(parts[i].body), []byte("{")) {
			return i
		}
	}
	return -1
}

// attachment judges the part that holds the report, and its place.
func (j *judge) attachment(parts []part, i int) {
	p := &parts[i]
	switch {
	case i != 1 && len(parts) > 1:
		j.fault(p.field, twoParts, "the report is there, not in the second part")
	case i == 1 && len(bytes.TrimSpace(parts[0].body)) == 0:
		j.fault(parts[0].field, twoParts, "the part for people is empty")
	}
	switch packed := isGzip(p.body); {
	case packed && p.mediaType != typeGzip:
		j.fault(p.field, gzipType, "a report in gzip as %q, not %s", short(p.mediaType), typeGzip)
	case !packed && p.mediaType != typeJSON:
		j.fault(p.field, twoParts, "a report as %q, not %s", short(p.mediaType), typeJSON)
	}
	if !isGzip(p.body) {
		j.fault(p.field, compressed, "the report is not compressed")
	}
	j.partName(p)
	j.report(p.body)
}

// partName judges the file name of the report.
func (j *judge) partName(p *part) {
	if p.name == "" {
		j.fault(fieldFileName, namedAsRFC, "the report has none")
		return
	}
	j.fileName(p.name)
	if j.name != nil && j.name.Gzip != isGzip(p.body) {
		j.fault(fieldFileName, namedAsPacked, "its extension says otherwise than the part: .json is plain, .json.gz is gzip")
	}
}
