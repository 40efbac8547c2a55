package validate

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-msgauth/dkim"
)

// maxSignatures is how many signatures of a message are looked at.
const maxSignatures = 10

const fieldDKIM = "DKIM-Signature"

// dkim judges the signatures of the reporting domain. Those of others, a mailing
// list for instance, prove nothing about the report (RFC 8460, section 3).
func (j *judge) dkim(h *gomessage.Header, data []byte, o Options) {
	fields := h.Values(fieldDKIM)
	if len(fields) == 0 {
		j.fault(fieldDKIM, validSignature, "the message is not signed")
		return
	}
	fields = fields[:min(len(fields), maxSignatures)]
	signer := j.submitter
	if j.Report != nil && j.Report.Submitter() != "" {
		signer = j.Report.Submitter()
	}
	verdicts := verify(data, o)
	var others, bad []string
	good, covered := false, false
	for i, field := range fields {
		tags := parseTags(field)
		domain := strings.ToLower(tags["d"])
		switch {
		case signer != "" && !aligned(domain, signer):
			others = append(others, short(domain))
		case verdicts != nil && verdicts[i] != nil:
			bad = append(bad, fmt.Sprintf("that of %q: %v", short(domain), verdicts[i]))
		default: // it verifies, for all that is known
			good, covered = true, covered || coversFields(tags["h"])
			j.signature(tags, o)
		}
	}
	switch {
	case good && !covered:
		j.fault(fieldDKIM, fieldsSigned, "no signature covers TLS-Report-Domain and TLS-Report-Submitter")
	case good:
	case len(bad) > 0:
		j.fault(fieldDKIM, validSignature, "no signature of the reporting domain verifies; %s", strings.Join(bad, "; "))
	default:
		j.fault(fieldDKIM, validSignature, "no signature is of %s, the domain of contact-info, but of %s", signer, strings.Join(others, ", "))
	}
}

// signature judges what is in a good signature, and the record of its key.
func (j *judge) signature(tags map[string]string, o Options) {
	if _, ok := tags["l"]; ok {
		j.fault(fieldDKIM, wholeBody, "the signature of %q uses l=: it covers a part of the body only", short(tags["d"]))
	}
	if o.LookupTXT != nil {
		j.keyRecord(tags, o)
	}
}

// aligned reports whether two domains are one, or one is above the other. RFC 8460
// does not say how near the signing domain has to be to that of contact-info;
// mox takes a parent, and mail.ru signs as a child.
func aligned(a, b string) bool { return a == b || isAbove(a, b) || isAbove(b, a) }

func isAbove(parent, child string) bool {
	return strings.Contains(parent, ".") && strings.HasSuffix(child, "."+parent)
}

func coversFields(h string) bool {
	names := strings.Split(strings.ToLower(h), ":")
	return slices.Contains(names, "tls-report-domain") && slices.Contains(names, "tls-report-submitter")
}

// verify is why each signature does not verify, in the order of the message; nil
// if nobody is to be asked for keys. The library takes lines that have lost their
// CR, as those of files often have.
func verify(data []byte, o Options) []error {
	if o.LookupTXT == nil {
		return nil
	}
	errs := slices.Repeat([]error{errNotVerified}, maxSignatures)
	found, err := verifications(data, o)
	for i := range errs {
		switch {
		case i < len(found):
			errs[i] = found[i].Err
		case err != nil:
			errs[i] = err
		}
	}
	return errs
}

var errNotVerified = errors.New("it was not verified")

// verifications verifies the first signatures. The library reads what a stranger
// wrote; that it stops at some of it must not stop us.
func verifications(data []byte, o Options) (found []*dkim.Verification, err error) {
	defer func() {
		if r := recover(); r != nil {
			found, err = nil, fmt.Errorf("the signature cannot be read: %v", r)
		}
	}()
	return dkim.VerifyWithOptions(bytes.NewReader(data), &dkim.VerifyOptions{LookupTXT: o.LookupTXT, MaxVerifications: maxSignatures})
}

// keyRecord holds the record of a key that verified against RFC 8460, section 3.
func (j *judge) keyRecord(tags map[string]string, o Options) {
	records, err := o.LookupTXT(tags["s"] + "._domainkey." + tags["d"])
	if err != nil || len(records) == 0 {
		return // it was there a moment ago
	}
	// RFC 6376, section 3.6.1: without s= a key is for all services.
	services, ok := parseTags(records[0])["s"]
	if list := strings.Split(services, ":"); ok && !slices.Contains(list, "*") && !slices.Contains(list, "tlsrpt") {
		j.fault(fieldDKIM, keyForReports, "the key of %q is for s=%s, not for tlsrpt", short(tags["d"]), short(services))
	}
}

// parseTags reads a tag-list (RFC 6376, section 3.2), white space within values
// dropped; the last of two tags counts.
func parseTags(list string) map[string]string {
	tags := map[string]string{}
	for tag := range strings.SplitSeq(list, ";") {
		if name, value, ok := strings.Cut(tag, "="); ok {
			tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
		}
	}
	return tags
}
