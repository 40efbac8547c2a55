// Package validate judges the reports of any sender: bare JSON, gzip, or a mail
// message. It is as strict as RFC 8460 and names the rule behind each fault; what
// one receiver rejects beyond that is the business of package receiver.
//
// Its input is a stranger's: sizes, depths and numbers of parts are bounded, and
// faults quote it escaped.
package validate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// MaxFile is how many bytes of a file are read at most: a message whose report
// is as large as [schema.Decode] takes.
const MaxFile = 32 << 20

// Kind is how a report is packed.
type Kind string

const (
	JSON    Kind = "json"
	Gzip    Kind = "json.gz"
	Message Kind = "eml"
)

// Options says how to judge. The zero value asks nobody.
type Options struct {
	// LookupTXT finds DKIM keys: the TXT records of a name, each with its
	// character-strings joined. Nil verifies no signature.
	LookupTXT func(name string) ([]string, error)
}

// Result is what a file holds.
type Result struct {
	Kind   Kind
	Report *schema.Report // nil where none can be read
	Faults schema.Faults  // nil if there are none
}

// File judges a file. Of its name, which may be "", only a form that RFC 8460,
// section 5.1, might have given it counts.
func File(name string, data []byte, o Options) Result {
	kind := kindOf(data)
	if kind == Message {
		return message(data, o)
	}
	j := judge{Result: Result{Kind: kind}}
	if name = filepath.Base(name); strings.Contains(name, "!") {
		j.fileName(name)
	}
	j.report(data)
	j.agreement()
	return j.Result
}

// kindOf is what data begins like. What begins like nothing is JSON, if it has no
// header.
func kindOf(data []byte) Kind {
	text := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), " \t\r\n")
	field, _, ok := bytes.Cut(text, []byte(":"))
	switch {
	case isGzip(data):
		return Gzip
	case bytes.HasPrefix(text, []byte("{")), bytes.HasPrefix(text, []byte("[")):
		return JSON
	case ok && len(field) > 0 && bytes.IndexFunc(field, notFieldName) < 0, bytes.HasPrefix(text, []byte("From ")):
		return Message
	}
	return JSON
}

// notFieldName is what the name of a header field does not have (RFC 5322,
// section 3.6.8).
func notFieldName(r rune) bool { return r <= ' ' || r > '~' }

func isGzip(data []byte) bool { return bytes.HasPrefix(data, []byte{0x1f, 0x8b}) }

// Who demands what of a message. Numbers are those of docs/conformance.md.
type demand struct {
	section string
	rule    int
}

var (
	validSignature = demand{"3", 30}
	wholeBody      = demand{"3", 31}
	keyForReports  = demand{"3", 32}
	namedAsRFC     = demand{"5.1", 50}
	namedInALabels = demand{"5.1", 52}
	namedAsPacked  = demand{"5.1", 53}
	compressed     = demand{"5.2", 55}
	twoParts       = demand{"5.3", 57}
	gzipType       = demand{"5.3", 58}
	reportFields   = demand{"5.3", 59}
	sameSubmitter  = demand{"5.3", 60}
	fieldsSigned   = demand{"5.3", 61}
	subjectForm    = demand{"5.3", 62}
	agrees         = demand{"5.6", 64}
	reportType     = demand{"6.2", 73}
)

// judge is the reading of one file.
type judge struct {
	Result
	name      *schema.FileNameParts
	subject   *schema.SubjectParts
	domain    string // TLS-Report-Domain
	submitter string // TLS-Report-Submitter
}

// maxFaults is how many faults anybody wants to read.
const maxFaults = 200

func (j *judge) fault(field string, by demand, format string, args ...any) {
	if len(j.Faults) < maxFaults {
		j.Faults = append(j.Faults, schema.Fault{
			Field: field, Problem: fmt.Sprintf(format, args...), Source: "RFC 8460, section " + by.section, Rule: by.rule,
		})
	}
}

// report reads the report itself, plain or gzip.
func (j *judge) report(data []byte) {
	j.Faults = append(j.Faults, schema.ValidateJSON(data)...)
	j.Report, _ = schema.Decode(data) // the faults say why not
}

const fieldFileName = "file name"

func (j *judge) fileName(name string) {
	parts, err := schema.ParseFileName(name)
	if errors.Is(err, schema.ErrDomain) {
		j.fault(fieldFileName, namedInALabels, "%s", reason(err))
		return
	} else if err != nil {
		j.fault(fieldFileName, namedAsRFC, "%s", reason(err))
		return
	}
	j.name = &parts
}

// reason is an error about a name without its beginning, which says nothing new.
func reason(err error) string {
	return strings.Replace(strings.TrimPrefix(err.Error(), schema.ErrName.Error()+" "), ": schema: ", ": ", 1)
}

// agreement holds what is around a report against it, where both are there. RFC
// 8460, section 5.6: the report is authoritative, so the fault is with the other.
func (j *judge) agreement() {
	if j.Report == nil {
		return
	}
	j.sameSubmitter("TLS-Report-Submitter", j.submitter, sameSubmitter)
	if j.domain != "" && !about(j.Report, j.domain) {
		j.fault("TLS-Report-Domain", agrees, "%q is the domain of no policy in the report", j.domain)
	}
	if s := j.subject; s != nil {
		j.sameSubmitter("Subject", s.Submitter, agrees)
		j.sameDomain("Subject", s.Domain)
	}
	if n := j.name; n != nil {
		j.sameSubmitter(fieldFileName, n.Submitter, agrees)
		j.sameDomain(fieldFileName, n.Domain)
		if r := j.Report.DateRange; n.Begin != r.Start.Unix() || n.End != r.End.Unix() {
			j.fault(fieldFileName, agrees, "its period %d to %d is not that of the report, %d to %d", n.Begin, n.End, r.Start.Unix(), r.End.Unix())
		}
	}
}

// sameSubmitter notes that got is not the domain of contact-info. What is absent
// was noted where it was missed.
func (j *judge) sameSubmitter(field, got string, by demand) {
	if want := j.Report.Submitter(); got != want && got != "" && want != "" {
		j.fault(field, by, "the submitter is %q, the domain of contact-info is %q", got, want)
	}
}

// sameDomain notes that got is not the domain of TLS-Report-Domain, or without
// one, of no policy.
func (j *judge) sameDomain(field, got string) {
	switch {
	case j.domain != "" && got != j.domain:
		j.fault(field, agrees, "the domain is %q, TLS-Report-Domain is %q", got, j.domain)
	case j.domain == "" && !about(j.Report, got):
		j.fault(field, agrees, "%q is the domain of no policy in the report", got)
	}
}

// about reports whether one policy at least is that of domain. A TLSA base
// domain is mostly the name of an MX host, which may lie anywhere.
func about(r *schema.Report, domain string) bool {
	for _, p := range r.Policies {
		d, _ := schema.ParseDomain(p.Policy.Domain)
		// A policy without a domain, as Google once sent, contradicts nobody.
		if d = cmp.Or(d, domain); d == domain || p.Policy.Type == schema.TLSA {
			return true
		}
	}
	return len(r.Policies) == 0
}
