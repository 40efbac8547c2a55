package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
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

// ErrName means that a file name or a Subject is not made as RFC 8460 wants it.
var ErrName = errors.New("schema: malformed name of a report")

// FileNameParts is what the file name of a report says (RFC 8460, section 5.1).
// It is a name and proves nothing: the report is authoritative (section 5.6).
type FileNameParts struct {
	Submitter, Domain string // A-labels, lower case
	Begin, End        int64  // Unix seconds
	Unique            string // letters and digits; "" if there is none
	Gzip              bool   // it ends in ".json.gz", not in ".json"
}

// ParseFileName reads the file name of a report of any sender. The error is
// [ErrName], and [ErrDomain] as well if a domain is not in A-labels.
func ParseFileName(s string) (p FileNameParts, err error) {
	refuse := func(format string, args ...any) (FileNameParts, error) {
		return FileNameParts{}, fmt.Errorf("%w %q: "+format, append([]any{ErrName, clean(s, maxField)}, args...)...)
	}
	stem, ok := strings.CutSuffix(s, ".json.gz")
	if p.Gzip = ok; !ok {
		if stem, ok = strings.CutSuffix(s, ".json"); !ok {
			return refuse("it ends neither in .json nor in .json.gz")
		}
	}
	parts := strings.Split(stem, "!")
	if len(parts) != 4 && len(parts) != 5 {
		return refuse("%d parts between exclamation marks, want 4 or 5", len(parts))
	}
	for i, to := range []*string{&p.Submitter, &p.Domain} {
		if *to, ok = aLabels(parts[i]); !ok {
			return FileNameParts{}, fmt.Errorf("%w %q: %w %q: not in A-labels", ErrName, clean(s, maxField), ErrDomain, clean(parts[i], maxField))
		}
	}
	for i, to := range []*int64{&p.Begin, &p.End} {
		if *to, err = strconv.ParseInt(parts[2+i], 10, 64); err != nil || !isDigits(parts[2+i]) {
			return refuse("%q is not a number of seconds", clean(parts[2+i], maxField))
		}
	}
	if len(parts) == 5 {
		if p.Unique = parts[4]; p.Unique == "" || !isAlphanumeric(p.Unique) {
			return refuse("unique-id %q is not letters and digits", clean(p.Unique, maxField))
		}
	}
	return p, nil
}

// SubjectParts is what the Subject of a report says (RFC 8460, section 5.3).
type SubjectParts struct {
	Domain, Submitter string // A-labels, lower case
	ReportID          string // without angle brackets
}

// ParseSubject reads the unfolded Subject of a report of any sender. The error
// is [ErrName].
func ParseSubject(s string) (SubjectParts, error) {
	refuse := func(format string, args ...any) (SubjectParts, error) {
		return SubjectParts{}, fmt.Errorf("%w %q: "+format, append([]any{ErrName, clean(s, 2*maxField)}, args...)...)
	}
	words := strings.Fields(s)
	want := []string{"Report", "Domain:", "", "Submitter:", "", "Report-ID:", ""}
	if len(words) != len(want) {
		return refuse("%d words, want %d", len(words), len(want))
	}
	for i, w := range want {
		if w != "" && words[i] != w { // the words have a case
			return refuse("%q where %q is due", clean(words[i], maxField), w)
		}
	}
	domain, ok := aLabels(words[2])
	submitter, ok2 := aLabels(words[4])
	if !ok || !ok2 {
		return refuse("a domain is not in A-labels")
	}
	id, opened := strings.CutPrefix(words[6], "<")
	id, closed := strings.CutSuffix(id, ">")
	left, right, _ := strings.Cut(id, "@")
	if !opened || !closed || !isDotAtom(left) || !isDotAtom(right) {
		return refuse("its Report-ID is not of the form <left@right>")
	}
	return SubjectParts{domain, submitter, id}, nil
}

// aLabels is a domain in lower case, if it is in A-labels.
func aLabels(s string) (string, bool) {
	d, err := ParseDomain(s)
	return d, err == nil && d == lowerASCII(s)
}

// isAlphanumeric reports whether s is ASCII letters and digits.
func isAlphanumeric(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		default:
			return false
		}
	}
	return true
}
