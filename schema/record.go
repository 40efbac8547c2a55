package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// ErrNoRecord means that nobody asked for reports about the domain. It is
	// not a fault: nothing is owed.
	ErrNoRecord = errors.New("schema: no TLSRPT record")

	// ErrManyRecords means that the domain has several TLSRPT records. RFC 8460,
	// section 3: it is then taken not to take part, so nothing is owed.
	ErrManyRecords = errors.New("schema: more than one TLSRPT record")

	// ErrRecord means that the domain has a TLSRPT record without one usable
	// rua. Nothing can be delivered.
	ErrRecord = errors.New("schema: malformed TLSRPT record")
)

// MaxRUA is how many destinations of one record are used. The RFC has no limit;
// without one a record could make every sender of the world an amplifier.
const MaxRUA = 8

// Record is a TLSRPT record, RFC 8460, section 3.
type Record struct {
	// RUA says where reports go, in the order of the record, each once.
	RUA []RUA

	// Faults says what is wrong with a record that can be used all the same:
	// a rua that was dropped, a field that is not of the form name=value.
	Faults []string
}

// RecordName is where the TLSRPT record of domain is published. RFC 8460,
// section 3: at this very name, and not at that of a parent.
func RecordName(domain string) string { return "_smtp._tls." + domain }

// version is the version field without its delimiter.
const version = "v=TLSRPTv1"

// SelectRecord picks the TLSRPT record among the TXT records at
// _smtp._tls.<domain>, each with its character-strings joined without spaces
// (RFC 8460, section 3). The error is [ErrNoRecord] or [ErrManyRecords].
//
// The text discards what does not begin with "v=TLSRPTv1;", the ABNF allows
// white space before the semicolon. Postfix and mox follow the ABNF. Here a
// record in the form of the text goes before those of the ABNF alone.
func SelectRecord(txts []string) (string, error) {
	var strict, loose []string
	for _, txt := range txts {
		rest, ok := strings.CutPrefix(txt, version)
		switch {
		case !ok:
		case strings.HasPrefix(rest, ";"):
			strict = append(strict, txt)
		case strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";"):
			loose = append(loose, txt)
		}
	}
	found := strict
	if len(found) == 0 {
		found = loose
	}
	switch len(found) {
	case 0:
		return "", ErrNoRecord
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%w: %d of them", ErrManyRecords, len(found))
}

// WhyNoRecord says in words why a TXT record at [RecordName] is not taken for a
// TLSRPT record, "" if it is one. What is close to one is most likely a slip.
func WhyNoRecord(txt string) string {
	if _, err := SelectRecord([]string{txt}); err == nil {
		return ""
	}
	rest, ok := strings.CutPrefix(txt, version)
	bare := strings.Join(strings.Fields(strings.Trim(txt, `"'`)), "")
	switch {
	case strings.HasPrefix(rest, `\;`) && ok:
		return `a backslash stands before the semicolon: it belongs into a zone file only`
	case ok && strings.Trim(rest, " \t") == "":
		return "nothing follows the version: it has no rua field"
	case ok:
		return fmt.Sprintf("no semicolon follows %q", version)
	case strings.HasPrefix(bare, version):
		return fmt.Sprintf("it must begin with %q, without white space or quotation marks", version+";")
	case len(bare) >= len(version) && strings.EqualFold(bare[:len(version)], version):
		return fmt.Sprintf("%q has a case: it must be written so", version)
	}
	return fmt.Sprintf("it does not begin with %q", version+";")
}

// ParseRecord reads the text of one TLSRPT record. One bad rua drops only
// itself, one bad field only itself, several rua fields are joined, unknown
// fields are ignored (RFC 8460, section 3). The error is [ErrNoRecord] if txt is
// not a TLSRPT record at all, or [ErrRecord] if it names no usable rua; the
// Faults then say why.
func ParseRecord(txt string) (Record, error) {
	if _, err := SelectRecord([]string{txt}); err != nil {
		return Record{}, err
	}
	if len(txt) > maxRecord {
		return Record{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrRecord, len(txt), maxRecord)
	}
	var rec Record
	_, fields, _ := strings.Cut(txt, ";")
	for field := range strings.SplitSeq(strings.TrimRight(fields, "; \t"), ";") {
		rec.addField(strings.Trim(field, " \t"))
	}
	if len(rec.RUA) == 0 {
		if len(rec.Faults) == 0 {
			rec.fault("it has no rua field")
		}
		return rec, fmt.Errorf("%w: %s", ErrRecord, strings.Join(rec.Faults, "; "))
	}
	return rec, nil
}

// addField adds one field after the version.
func (r *Record) addField(field string) {
	name, value, ok := strings.Cut(field, "=")
	switch {
	case !ok || !isFieldName(name):
		r.fault("field %q is not of the form name=value", field)
	case name == "rua": // the name is case-sensitive
		r.addRUA(value)
	case strings.EqualFold(name, "rua"):
		r.fault("field %q is ignored: \"rua\" must be in lower case", name)
	case !isFieldValue(value):
		r.fault("field %q has a malformed value", name)
	}
}

// addRUA adds the URIs of one rua field.
func (r *Record) addRUA(list string) {
	for uri := range strings.SplitSeq(list, ",") {
		uri = strings.Trim(uri, " \t")
		rua, err := ParseRUA(uri)
		switch {
		case err != nil:
			r.fault("%s", strings.TrimPrefix(err.Error(), "schema: "))
		case slices.Contains(r.RUA, rua):
			r.fault("rua %q is there twice", clean(uri, maxField))
		case len(r.RUA) == MaxRUA:
			r.fault("rua %q is ignored: at most %d are used", clean(uri, maxField), MaxRUA)
		default:
			r.RUA = append(r.RUA, rua)
		}
	}
}

// fault notes a fault, as long as a reader would go on reading them.
func (r *Record) fault(format string, args ...any) {
	if len(r.Faults) < 2*MaxRUA {
		r.Faults = append(r.Faults, clean(fmt.Sprintf(format, args...), 2*maxField))
	}
}

// isFieldName reports whether s is a tlsrpt-ext-name of RFC 8460, section 3.
func isFieldName(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return true
}

// isFieldValue reports whether s is a tlsrpt-ext-value of RFC 8460, section 3.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '=' {
			return false
		}
	}
	return s != ""
}
