package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// checkSPF looks at the SPF record of the domain in the envelope sender. It is
// not evaluated: which address the mail leaves from, a relay's perhaps, nobody
// here knows. A missing record is no fault, for DKIM is what RFC 8460 demands.
func checkSPF(ctx context.Context, r submitter.TXTResolver, domain string) finding {
	const check = "mail.from.spf"
	texts, err := r.LookupTXT(ctx, domain)
	if err != nil && !errors.Is(err, resolve.ErrNotFound) {
		return skipped(check, "asking for the SPF record of %s: %v", domain, err)
	}
	publish := fmt.Sprintf("%s. IN TXT \"v=spf1 mx -all\"   # and whatever else sends mail of the domain", domain)
	switch records := spfRecords(texts); {
	case len(records) == 0:
		return fine(check, "%s has no SPF record: receivers have the DKIM signature alone to go by", domain).advise(publish)
	case len(records) > 1:
		return wrong(check, publish, "%s has %d SPF records, which is an error for receivers (RFC 7208, section 4.5)", domain, len(records))
	case strings.EqualFold(strings.Join(strings.Fields(records[0]), " "), "v=spf1 -all"):
		return wrong(check, publish, "%s says %q: no host sends its mail, so reports may be refused", domain, records[0])
	default:
		return fine(check, "%s says %q; whether that names the host that mails reports was not looked at", domain, records[0])
	}
}

// spfRecords is the SPF records among TXT records (RFC 7208, section 4.5).
func spfRecords(texts []string) (records []string) {
	for _, text := range texts {
		version, _, _ := strings.Cut(text, " ")
		if strings.EqualFold(version, "v=spf1") {
			records = append(records, text)
		}
	}
	return records
}
