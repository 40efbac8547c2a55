package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// ReportID is the id of one report, the same in its JSON, its Subject and every
// attempt to deliver it. unique tells apart reports that the submitter sends
// about one domain and day; letters and digits, at least 8.
//
// RFC 8460, section 4.4, allows any scheme, but section 5.3 puts the id into a
// Subject as a msg-id of RFC 5322, which has no colon. So this has the form
// "2026-11-22.example.net.0a1b2c3d@example.com".
func ReportID(day Day, domain, unique, submitter string) string {
	return fmt.Sprintf("%s.%s.%s@%s", day, domain, unique, submitter)
}

// FileName is the name of a report as an attachment (RFC 8460, section 5.1):
// "submitter!domain!begin!end!id.json.gz". The last part tells apart reports of
// one submitter, domain and day; it is derived from the report-id. domain is
// the one whose TLSRPT record asked for the report.
func FileName(r *Report, domain string) string {
	sum := sha256.Sum256([]byte(r.ReportID))
	return fmt.Sprintf("%s!%s!%d!%d!%s.json.gz", r.Submitter(), domain,
		r.DateRange.Start.Unix(), r.DateRange.End.Unix(), hex.EncodeToString(sum[:8]))
}
