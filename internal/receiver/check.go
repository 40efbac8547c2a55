package receiver

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Report is what arrived, as a strict receiver reads it.
type Report struct {
	Via       string    // "mailto" or "https"
	To        []string  // envelope recipients, or the one URI
	Time      time.Time // of arrival
	Domain    string    // whom it is about: TLS-Report-Domain, or by HTTPS the first policy domain
	Submitter string    // the domain of contact-info
	ReportID  string
	Day       schema.Day     // that its period begins on
	Sessions  schema.Summary // of all policies
	JSON      []byte         // decompressed; nil where that failed
	Content   *schema.Report // nil where JSON does not decode

	// Signatures is every signature that is there, in its order. A report by
	// HTTPS may have none: nothing in RFC 8460 asks for one.
	Signatures []Signature

	// Problems says why a receiver may reject it, one reason each. Empty means
	// that every receiver accepts it.
	Problems []string
}

// Limits that receivers are known to have.
const (
	maxJSON = schema.MaxReport // bytes
	maxGzip = schema.MaxReport // bytes; RFC 8460, section 5.2
)

// CheckPost reads a request as a receiver does. lookup finds the keys of its
// signatures.
func CheckPost(p Post, lookup LookupTXT) Report {
	r := Report{Via: "https", To: []string{p.URL}, Time: p.Time}
	if p.Method != "POST" {
		r.problem("the method is %s, not POST", p.Method)
	}
	if got := p.Header.Values("Content-Type"); len(got) != 1 || got[0] != gzipType {
		r.problem("Content-Type is %q, not %q", got, gzipType)
	}
	if got := p.Header.Values("Content-Encoding"); len(got) > 0 {
		// The media type says gzip already: a receiver would unpack it twice.
		r.problem("Content-Encoding is %q", got)
	}
	r.unpack(p.Body)
	r.Domain = firstDomain(r.Content)
	var err error
	if r.Signatures, err = verifyPost(&p, lookup); err != nil {
		r.problem("HTTP signature: %v", err)
	}
	for _, s := range r.Signatures {
		if s.Err != nil {
			r.problem("HTTP signature of %s: %v", s.Domain, s.Err)
		}
		r.agree("the HTTP signature's domain", s.Domain, "contact-info", r.Submitter)
	}
	return r
}

// firstDomain is the first policy domain that is a recipient domain; a TLSA base
// domain where there is none.
func firstDomain(c *schema.Report) string {
	if c == nil || len(c.Policies) == 0 {
		return ""
	}
	for _, p := range c.Policies {
		if p.Policy.Type != schema.TLSA {
			return p.Policy.Domain
		}
	}
	return c.Policies[0].Policy.Domain
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// agree says so where two things that have to be equal differ. What is absent
// was reported where it was missed.
func (r *Report) agree(a, got, b, want string) {
	if got != want && got != "" && want != "" {
		r.problem("%s is %q, %s %q", a, got, b, want)
	}
}

// unpack decompresses and reads the report itself.
func (r *Report) unpack(packed []byte) {
	text, err := gunzip(packed)
	if err != nil {
		r.problem("gzip: %v", err)
		return
	}
	r.JSON = text
	r.Problems = append(r.Problems, jsonProblems(text)...)
	content, err := schema.Decode(text)
	if err != nil {
		r.problem("%v", err)
		return
	}
	for _, fault := range content.Validate() {
		r.problem("%s", fault)
	}
	r.Content = content
	r.ReportID, r.Submitter = content.ReportID, content.Submitter()
	r.Day, r.Sessions = schema.DayOf(content.DateRange.Start.Time), content.Totals()
	if want := r.Day.Range(); !content.DateRange.Start.Equal(want.Start.Time) || !content.DateRange.End.Equal(want.End.Time) {
		r.problem("date-range is %s to %s, not one UTC day", content.DateRange.Start, content.DateRange.End)
	}
}

// gunzip is the one member (RFC 1952, section 2.2) that packed has to be.
func gunzip(packed []byte) ([]byte, error) {
	if len(packed) > maxGzip {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(packed), maxGzip)
	}
	in := bytes.NewReader(packed)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	text, err := io.ReadAll(io.LimitReader(z, maxJSON+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxJSON {
		return nil, fmt.Errorf("more than %d bytes when decompressed", maxJSON)
	}
	if in.Len() > 0 {
		return nil, errors.New("something follows the compressed report")
	}
	return text, nil
}

// aboutDomain reports whether one policy at least belongs to domain, as mox
// demands. A TLSA base domain is mostly the name of an MX host, which may lie
// anywhere.
func aboutDomain(c *schema.Report, domain string) bool {
	for _, p := range c.Policies {
		if p.Policy.Type == schema.TLSA || p.Policy.Domain == domain || strings.HasSuffix(p.Policy.Domain, "."+domain) {
			return true
		}
	}
	return false
}
