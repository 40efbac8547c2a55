package submitter

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"sync"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// ErrParcel means that a parcel cannot be sent as it is: a field has a form that
// does not belong into a message.
var ErrParcel = errors.New("submitter: malformed parcel")

// Parcel is one report, ready to be sent: all that is the same in every attempt
// and for every destination.
type Parcel struct {
	ReportID  string // as in the report, "left@right", without angle brackets
	Domain    string // whose TLSRPT record asked for the report; A-labels
	Submitter string // the domain of the contact address; A-labels
	FileName  string // of the attachment, "….json.gz"

	// From is the sender, "a@example.com" or "Name <a@example.com>". Its address
	// is the envelope sender, too, see [ReturnPath]: a bounce has to reach somebody.
	From      string
	MessageID string    // "left@right", without angle brackets
	Boundary  string    // between the parts of the message; occurs in none
	Date      time.Time // when the report was made

	// Text is the part for people: printable ASCII, lines end in "\n" and have at
	// most 76 bytes.
	Text string

	// Gzip is the report as JSON, compressed (RFC 8460, section 5.2).
	Gzip []byte
}

// Pack makes the parcel of r, which goes to those whom the TLSRPT record of
// domain names. from is as in [Parcel]; its domain must be the one of the
// contact address (RFC 8460, section 3: the signature is "by the reporting
// domain"). addsTo is the report-id of the report that r supplements, or "". The same
// arguments yield the same parcel.
func Pack(r *schema.Report, domain, from string, date time.Time, addsTo string) (Parcel, error) {
	if addsTo != "" && !isMsgID(addsTo) {
		return Parcel{}, fmt.Errorf("%w: it adds to %q, which is no report-id", ErrParcel, printable(addsTo, 80))
	}
	json, err := r.Encode()
	if err != nil {
		return Parcel{}, err
	}
	packed, err := compress(json)
	if err != nil {
		return Parcel{}, fmt.Errorf("submitter: compressing a report: %w", err)
	}
	p := Parcel{
		ReportID:  r.ReportID,
		Domain:    domain,
		Submitter: r.Submitter(),
		FileName:  schema.FileName(r, domain),
		From:      from,
		MessageID: "tlsrpt." + digest("message-id", r.ReportID) + "@" + r.Submitter(),
		Date:      date.UTC().Truncate(time.Second),
		Text:      reportText(r, domain, addsTo),
		Gzip:      packed,
	}
	p.Boundary = boundary(p.ReportID, p.Text)
	if err := p.check(); err != nil {
		return Parcel{}, err
	}
	return p, nil
}

// gzipWriters are kept: each takes the better part of a megabyte. A report is so
// small that most of the time goes into clearing tables for the next; the fastest
// level has few of them, takes half the time, and 6 % more bytes.
var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic("submitter: " + err.Error()) // there is such a level
	}
	return w
}}

// compress is gzip (RFC 1952) without a file name and a time.
func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	w.Reset(&b)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// digest is 32 hexadecimal digits that belong to s alone. use tells apart what
// is made of one s.
func digest(use, s string) string {
	sum := sha256.Sum256([]byte(use + "\x00" + s))
	return hex.EncodeToString(sum[:16])
}

// boundary is a string that occurs in no part: base64 has no "_", and the text
// is looked at.
func boundary(reportID, text string) string {
	b := "tlsrpt_" + digest("boundary", reportID)
	for strings.Contains(text, b) {
		b = "tlsrpt_" + digest("boundary", b)
	}
	return b
}

// check holds every field against the form that a message needs, so that none
// can end its line or its part. A parcel may have been stored by anybody.
func (p *Parcel) check() error {
	for _, d := range []string{p.Domain, p.Submitter} {
		if c, err := schema.ParseDomain(d); err != nil || c != d {
			return fmt.Errorf("%w: domain %q", ErrParcel, printable(d, 80))
		}
	}
	addr, _, err := parseFrom(p.From)
	switch {
	case err != nil:
		return err
	case schema.AddressDomain(addr) != p.Submitter:
		return fmt.Errorf("%w: the sender %s is not of the submitter %s", ErrParcel, addr, p.Submitter)
	case !isMsgID(p.ReportID):
		return fmt.Errorf("%w: report-id %q is no msg-id", ErrParcel, printable(p.ReportID, 80))
	case !isMsgID(p.MessageID):
		return fmt.Errorf("%w: message-id %q", ErrParcel, printable(p.MessageID, 80))
	case !isFileName(p.FileName):
		return fmt.Errorf("%w: file name %q", ErrParcel, printable(p.FileName, 80))
	case !isToken(p.Boundary, "_") || len(p.Boundary) > 70 || strings.Contains(p.Text, p.Boundary):
		return fmt.Errorf("%w: boundary %q", ErrParcel, printable(p.Boundary, 80))
	case len(p.Gzip) == 0:
		return fmt.Errorf("%w: no report", ErrParcel)
	}
	return checkText(p.Text)
}

func checkText(text string) error {
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > textWidth {
			return fmt.Errorf("%w: the text has a line of %d bytes", ErrParcel, len(line))
		}
		for i := range len(line) {
			if line[i] < ' ' || line[i] > '~' {
				return fmt.Errorf("%w: the text has the character %q", ErrParcel, line[i])
			}
		}
	}
	return nil
}

// Envelope is the envelope sender: the bare address of From.
func (p *Parcel) Envelope() string {
	addr, _, _ := parseFrom(p.From)
	return addr
}

// parseFrom is the address of a sender, and what stands in the From field.
func parseFrom(from string) (addr, field string, err error) {
	if addr, err := schema.ParseAddress(from); err == nil {
		return addr, addr, nil
	}
	fault := func() (string, string, error) {
		return "", "", fmt.Errorf("%w: sender %q", ErrParcel, printable(from, 80))
	}
	if strings.ContainsAny(from, "\r\n\x00") || len(from) > 512 {
		return fault()
	}
	a, err := mail.ParseAddress(from)
	if err != nil || a.Name == "" {
		return fault()
	}
	if addr, err = schema.ParseAddress(a.Address); err != nil {
		return fault()
	}
	name := strings.TrimSuffix((&mail.Address{Name: a.Name, Address: "a@example.com"}).String(), "<a@example.com>")
	return addr, name + "<" + addr + ">", nil
}

// maxMsgID is more than a day, two domains and a token take, and fits a line.
const maxMsgID = 600

// isMsgID reports whether s is a msg-id of RFC 5322, section 3.6.4, without its
// angle brackets.
func isMsgID(s string) bool {
	left, right, ok := strings.Cut(s, "@")
	return ok && len(s) <= maxMsgID && isDotAtom(left) && isDotAtom(right)
}

func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if !isToken(atom, "!#$%&'*+-/=?^_`{|}~") {
			return false
		}
	}
	return true
}

// isToken reports whether s consists of letters, digits and the others.
func isToken(s, others string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte(others, c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// maxFileName is more than two domains, two times and an id take, and fits a line.
const maxFileName = 600

func isFileName(s string) bool { return len(s) <= maxFileName && isToken(s, "!-._") }
