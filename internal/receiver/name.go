package receiver

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// fileName is the name of a report as an attachment (RFC 8460, section 5.1).
type fileName struct {
	sender, domain string
	begin, end     int64 // Unix seconds
}

// parseFileName reads "sender!domain!begin!end!id.json.gz"; the id may be
// missing.
func parseFileName(s string) (f fileName, err error) {
	stem, ok := strings.CutSuffix(s, ".json.gz")
	if !ok {
		return f, errors.New("it does not end in .json.gz")
	}
	parts := strings.Split(stem, "!")
	if len(parts) != 4 && len(parts) != 5 {
		return f, fmt.Errorf("%d parts between exclamation marks, want 4 or 5", len(parts))
	}
	f.sender, f.domain = parts[0], parts[1]
	for i, to := range []*int64{&f.begin, &f.end} {
		if *to, err = parseDigits(parts[2+i]); err != nil {
			return f, err
		}
	}
	if len(parts) == 5 && !isAlphanumeric(parts[4]) {
		return f, fmt.Errorf("unique-id %q is not letters and digits", parts[4])
	}
	return f, nil
}

// parseDigits reads 1*DIGIT, without the sign that strconv takes.
func parseDigits(s string) (int64, error) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("timestamp %q is not digits", s)
	}
	return strconv.ParseInt(s, 10, 64)
}

func isAlphanumeric(s string) bool {
	return s != "" && strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

// subject is the Subject of a report (RFC 8460, section 5.3).
type subject struct{ domain, submitter, id string } // id without angle brackets

// parseSubject reads an unfolded Subject. Its words have a case.
func parseSubject(s string) (subject, error) {
	words := strings.Fields(s)
	if len(words) != 7 {
		return subject{}, fmt.Errorf("%d words, want 7", len(words))
	}
	for i, want := range []string{"Report", "Domain:", "", "Submitter:", "", "Report-ID:", ""} {
		if want != "" && words[i] != want {
			return subject{}, fmt.Errorf("%q where %q is due", words[i], want)
		}
	}
	id, err := parseMsgID(words[6])
	if err != nil {
		return subject{}, fmt.Errorf("Report-ID: %w", err)
	}
	return subject{words[2], words[4], id}, nil
}

// parseMsgID reads a msg-id of RFC 5322, section 3.6.4, "<left@right>", and is
// what stands between the brackets.
func parseMsgID(s string) (string, error) {
	id, open := strings.CutPrefix(s, "<")
	id, shut := strings.CutSuffix(id, ">")
	left, right, _ := strings.Cut(id, "@")
	if !open || !shut || !isDotAtom(left) || !isDotAtom(right) {
		return "", fmt.Errorf("%q is not of the form <left@right>", s)
	}
	return id, nil
}

// isDotAtom reports whether s is a dot-atom-text of RFC 5322, section 3.2.3.
func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if !isAlphanumeric(atom[i:i+1]) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", atom[i]) < 0 {
				return false
			}
		}
	}
	return true
}
