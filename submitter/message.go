package submitter

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-msgauth/dkim"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Bounds on a line of a message (RFC 5322, section 2.1.1). The hard one of 998
// bytes holds because every word is shorter; see maxMsgID and maxFileName.
const foldAt = 78

// Message is the message of RFC 8460, section 5.3, to the address to, unsigned
// and with CRLF line ends. The error is [ErrParcel] or [schema.ErrAddress].
func (p *Parcel) Message(to string) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	to, err := schema.ParseAddress(to)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := message.CreateWriter(&b, header(p.fields(to)))
	if err == nil {
		err = p.writeParts(w)
	}
	if err != nil {
		return nil, fmt.Errorf("submitter: composing a message: %w", err)
	}
	return b.Bytes(), nil
}

// fields is the header. A receiver compares the TLS-Report fields with the
// report, and ours are equal by construction.
func (p *Parcel) fields(to string) []string {
	_, from, _ := parseFrom(p.From) // checked
	return []string{
		fold("From", strings.Split(from, " ")...),
		fold("To", to),
		fold("Date", strings.Split(p.Date.UTC().Format(time.RFC1123Z), " ")...),
		fold("Message-ID", "<"+p.MessageID+">"),
		fold("Subject", "Report", "Domain:", p.Domain, "Submitter:", p.Submitter, "Report-ID:", "<"+p.ReportID+">"),
		fold("TLS-Report-Domain", p.Domain),
		fold("TLS-Report-Submitter", p.Submitter),
		// RFC 8460, section 5.3.1: a report is to arrive although TLS is broken.
		// RFC 8689, section 5, is how a relay gets to know.
		fold("TLS-Required", "No"),
		fold("Auto-Submitted", "auto-generated"), // RFC 3834: no vacation notices
		fold("MIME-Version", "1.0"),
		fold("Content-Type", "multipart/report;", `report-type="tlsrpt";`, `boundary="`+p.Boundary+`"`),
	}
}

func (p *Parcel) writeParts(w *message.Writer) error {
	err := writePart(w, strings.NewReader(strings.ReplaceAll(p.Text, "\n", "\r\n")),
		fold("Content-Type", "text/plain;", "charset=us-ascii"),
		fold("Content-Transfer-Encoding", "7bit"))
	if err != nil {
		return err
	}
	// Some receivers look at the media type, some at the name.
	err = writePart(w, bytes.NewReader(p.Gzip),
		fold("Content-Type", mediaType+";", `name="`+p.FileName+`"`),
		fold("Content-Transfer-Encoding", "base64"),
		fold("Content-Disposition", "attachment;", `filename="`+p.FileName+`"`))
	if err != nil {
		return err
	}
	return w.Close()
}

func writePart(w *message.Writer, body io.Reader, fields ...string) error {
	part, err := w.CreatePart(header(fields))
	if err != nil {
		return err
	}
	if _, err := io.Copy(part, body); err != nil {
		return err
	}
	return part.Close()
}

// header has the fields as they are, in their order.
func header(fields []string) (h message.Header) {
	for i := len(fields) - 1; i >= 0; i-- {
		h.AddRaw([]byte(fields[i])) // at the top
	}
	return h
}

// fold is a field with CRLF, its words a space apart, on a new line each that
// would not fit. Unlike the folding of go-message it never cuts a word.
func fold(name string, words ...string) string {
	var b strings.Builder
	b.WriteString(name + ":")
	column := b.Len()
	for _, w := range words {
		if column+1+len(w) > foldAt && column > len(name)+1 {
			b.WriteString("\r\n")
			column = 0
		}
		b.WriteString(" " + w)
		column += 1 + len(w)
	}
	return b.String() + "\r\n"
}

// signedFields are signed, and over-signed: each stands in h= once more than in
// the message, so that nobody can add another (RFC 6376, section 8.15).
var signedFields = []string{
	"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type",
	"TLS-Report-Domain", "TLS-Report-Submitter", "TLS-Required", "Auto-Submitted",
}

var oversigned = slices.Concat(signedFields, signedFields)

// sign puts one DKIM signature per key in front of a message, in the order of
// keys. There is never an l= (RFC 8460, section 3).
func sign(msg []byte, keys []*Key) ([]byte, error) {
	var signed bytes.Buffer
	for _, k := range keys {
		s, err := dkim.NewSigner(&dkim.SignOptions{
			Domain:                 k.domain,
			Selector:               k.selector,
			Signer:                 k.signer,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed,
			BodyCanonicalization:   dkim.CanonicalizationRelaxed,
			HeaderKeys:             oversigned,
		})
		if err != nil {
			return nil, fmt.Errorf("submitter: signing: %w", err)
		}
		_, err = s.Write(msg)
		if fault := s.Close(); err == nil {
			err = fault
		}
		if err != nil {
			return nil, fmt.Errorf("submitter: signing with %s: %w", k.Name(), err)
		}
		signed.WriteString(s.Signature())
	}
	signed.Write(msg)
	return signed.Bytes(), nil
}
