package receiver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxNesting is how deep JSON may be nested. A report needs 6.
const maxNesting = 32

// jsonProblems is what receivers reject in the text of a report, whatever it
// means: the types that a lenient decoder makes of it no longer show it. Package
// schema checks much of it too, but the sender is built on that package: what
// it does not see, it does not see on either side.
func jsonProblems(text []byte) []string {
	if !utf8.Valid(text) {
		return []string{"the JSON is not UTF-8"}
	}
	w := &walker{dec: json.NewDecoder(bytes.NewReader(text))}
	w.dec.UseNumber()
	if err := w.value("", "", 0); err != nil {
		w.problem("malformed JSON: %v", err)
	} else if _, err := w.dec.Token(); err != io.EOF {
		w.problem("something follows the JSON")
	}
	return w.problems
}

// walker reads JSON token by token.
type walker struct {
	dec      *json.Decoder
	problems []string
}

func (w *walker) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// required is the members of each object that receivers do without in no report,
// by the name of the member that it is, or is an element of: parsedmarc stops at
// the first that is missing. Only failure-details is more than that: no receiver
// misses it, but the sender promises an array.
var required = map[string][]string{
	"":                {"organization-name", "date-range", "contact-info", "report-id", "policies"},
	"date-range":      {"start-datetime", "end-datetime"},
	"policies":        {"policy", "summary", "failure-details"},
	"policy":          {"policy-type", "policy-domain"},
	"summary":         {"total-successful-session-count", "total-failure-session-count"},
	"failure-details": {"result-type", "failed-session-count"},
}

// value reads one value. name is that of the member whose value it is, or is an
// element of; "" for the report.
func (w *walker) value(path, name string, depth int) error {
	token, err := w.dec.Token()
	if err != nil {
		return noEOF(err)
	}
	if depth > maxNesting {
		return errors.New("nested too deep")
	}
	w.scalar(path, name, token)
	switch token {
	case json.Delim('{'):
		return w.object(path, name, depth)
	case json.Delim('['):
		for i := 0; w.dec.More(); i++ {
			if err := w.element(fmt.Sprintf("%s[%d]", path, i), name, depth+1); err != nil {
				return err
			}
		}
		_, err = w.dec.Token()
	}
	return noEOF(err)
}

// element reads an element of the array that the member name is. Of strings in an
// array nothing is demanded but that they are not empty.
func (w *walker) element(path, name string, depth int) error {
	if _, ok := required[name]; !ok {
		name = anyName
	}
	return w.value(path, name, depth)
}

// anyName is the name of what has none, and of which nothing is demanded.
const anyName = "[]"

func (w *walker) object(path, name string, depth int) error {
	seen := map[string]bool{}
	for w.dec.More() {
		token, err := w.dec.Token()
		if err != nil {
			return noEOF(err)
		}
		name, _ := token.(string)
		member := strings.TrimPrefix(path+"."+name, ".")
		if seen[name] {
			w.problem("%s is there twice", member)
		}
		seen[name] = true
		if err := w.value(member, name, depth+1); err != nil {
			return err
		}
	}
	for _, want := range required[name] {
		if !seen[want] {
			w.problem("%s is missing", strings.TrimPrefix(path+"."+want, "."))
		}
	}
	_, err := w.dec.Token()
	return noEOF(err)
}

// noEOF says in words that JSON ended too early.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// arrays is the members that are an array even for one.
var arrays = map[string]bool{"mx-host": true, "policy-string": true, "policies": true, "failure-details": true}

// scalar holds one value against the rules for all values and for its member.
func (w *walker) scalar(path, name string, token json.Token) {
	switch v := token.(type) {
	case nil:
		w.problem("%s is null", path)
	case json.Number:
		// RFC 7493, section 2.2, allows what a double holds exactly. mail-auth
		// reads 32 bits.
		if n, err := strconv.ParseInt(v.String(), 10, 64); err != nil || n < 0 || n > math.MaxUint32 {
			w.problem("%s is %s, not a count of 32 bits", path, v)
		}
	case string:
		if v == "" {
			w.problem("%s is empty", path)
		} else {
			w.text(path, name, v)
		}
	}
	if arrays[name] && token != json.Delim('[') && !strings.HasSuffix(path, "]") {
		w.problem("%s is not an array", path)
	}
}

// text holds a string against the form that its member has.
func (w *walker) text(path, name, v string) {
	switch name {
	case "sending-mta-ip", "receiving-ip":
		// RFC 8460, section 4.4, wants IPv6 in the form of RFC 5952.
		if a, err := netip.ParseAddr(v); err != nil || a.Zone() != "" || a.Is4In6() || a.String() != v {
			w.problem("%s is %q, not an IP address", path, v)
		}
	case "start-datetime", "end-datetime":
		if _, err := time.Parse("2006-01-02T15:04:05Z", v); err != nil || len(v) != len("2006-01-02T15:04:05Z") {
			w.problem("%s is %q, not of the form 2026-11-22T23:59:59Z", path, v)
		}
	}
}
