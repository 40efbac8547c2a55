package postconf

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrVersion means that mail_version is none of Postfix's.
var ErrVersion = errors.New("postconf: malformed version")

// Version is that of a Postfix. A snapshot or release candidate, "3.12-20260821"
// or "3.10.0-RC1", counts as the release that it precedes.
type Version struct{ Major, Minor, Patch int }

// ParseVersion reads the value of mail_version. The error is [ErrVersion].
func ParseVersion(s string) (v Version, err error) {
	number, _, _ := strings.Cut(s, "-")
	parts := strings.Split(number, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return Version{}, fmt.Errorf("%w %q", ErrVersion, s)
	}
	for i, into := range []*int{&v.Major, &v.Minor, &v.Patch}[:len(parts)] {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("%w %q", ErrVersion, s)
		}
		*into = int(n)
	}
	return v, nil
}

// Before reports whether v is older than the release major.minor.patch.
func (v Version) Before(major, minor, patch int) bool {
	return cmp.Or(cmp.Compare(v.Major, major), cmp.Compare(v.Minor, minor), cmp.Compare(v.Patch, patch)) < 0
}

// String is "3.10.4".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }
