package libtlsrpt

import (
	"cmp"
	"errors"
	"net/netip"
	"strconv"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// version is the only version of the datagram protocol that there is. Libraries
// before 0.5.0, Debian 13 has one, do not say their version.
const version = "1"

// Bounds of schema.Session, held here too so that what exceeds them costs little.
const (
	maxResults = 16
	maxDetails = 64
)

// Decode reads one datagram. The session is in canonical form; its time is
// zero. The error is [ErrDatagram].
//
// A datagram counts as a whole or not at all. What could make a count wrong is
// refused: members that are missing, there twice or of a wrong type, another
// version, an unknown policy type, a number of failures that does not match.
// What is only unknown, or only text, is let through: members of other names
// are skipped, bytes that are not UTF-8 become U+FFFD, and an address that is
// none is left out.
func Decode(datagram []byte) (schema.Session, error) {
	d := decoder{scanner{text: string(datagram)}}
	s, err := d.session()
	if err != nil {
		return schema.Session{}, err
	}
	s, err = s.Canonical()
	switch {
	case errors.Is(err, schema.ErrDomain):
		return schema.Session{}, within("d", bad(badDomain, "%v", err))
	case err != nil:
		return schema.Session{}, bad(badValue, "%v", err)
	}
	return s, nil
}

// decoder has one method per level of a datagram.
type decoder struct{ scanner }

var datagramMembers = []string{"d", "pr", "policies", "dpv"}

func (d *decoder) session() (s schema.Session, err error) {
	err = d.object(datagramMembers, 3, func(name string) (err error) {
		switch name {
		case "dpv":
			err = d.version()
		case "d":
			s.Domain, err = d.str()
		case "pr":
			s.Record, err = d.str()
		case "policies":
			s.Results, err = d.results()
		}
		return err
	})
	if err != nil {
		return schema.Session{}, err
	}
	return s, d.end()
}

func (d *decoder) version() error {
	v, err := d.str()
	if err == nil && v != version {
		err = bad(badVersion, "want version %q", version)
	}
	return err
}

func (d *decoder) results() (all []schema.Result, err error) {
	err = d.array(func(i int) error {
		if i == maxResults {
			return bad(badBounds, "more than %d policies", maxResults)
		}
		r, err := d.result()
		all = append(all, r)
		return err
	})
	if err == nil && len(all) == 0 {
		err = bad(badValue, "it has no policy")
	}
	return all, err
}

var resultMembers = []string{"policy-type", "t", "f", "policy-domain", "policy-string", "mx-host", "failure-details"}

func (d *decoder) result() (r schema.Result, err error) {
	var faults int
	err = d.object(resultMembers, 3, func(name string) (err error) {
		switch name {
		case "policy-type":
			r.Policy.Type, err = d.policyType()
		case "policy-domain":
			r.Policy.Domain, err = d.str()
		case "policy-string":
			r.Policy.Strings, err = d.strs()
		case "mx-host":
			r.Policy.MXHosts, err = d.strs()
		case "failure-details":
			r.Details, err = d.details()
		case "t":
			faults, err = d.integer()
		case "f":
			r.Failed, err = d.failed()
		}
		return err
	})
	if err == nil && faults != len(r.Details) {
		err = within("t", bad(badValue, "it is %d, but there are %d failure-details", faults, len(r.Details)))
	}
	return r, err
}

func (d *decoder) policyType() (schema.PolicyType, error) {
	n, err := d.integer()
	if err != nil {
		return "", err
	}
	switch n {
	case 1:
		return schema.TLSA, nil
	case 2:
		return schema.STS, nil
	case 9:
		return schema.NoPolicyFound, nil
	}
	return "", bad(badValue, "%d is no policy type", n)
}

// failed reads the final result of a policy. It does not follow from the
// failure details: a session may recover, or fail without a known reason.
func (d *decoder) failed() (bool, error) {
	n, err := d.integer()
	if err == nil && n != 0 && n != 1 {
		err = bad(badValue, "it is %d, want 0 or 1", n)
	}
	return n == 1, err
}

func (d *decoder) strs() (all []string, err error) {
	err = d.array(func(int) error {
		if all == nil {
			all = make([]string, 0, 4) // the lines of most MTA-STS policies
		}
		s, err := d.str()
		all = append(all, s)
		return err
	})
	return all, err
}

func (d *decoder) details() (all []schema.FailureDetails, err error) {
	err = d.array(func(i int) error {
		if i == maxDetails {
			return bad(badBounds, "more than %d failures", maxDetails)
		}
		f, err := d.failure()
		all = append(all, f)
		return err
	})
	return all, err
}

var failureMembers = []string{"c", "s", "n", "h", "r", "a", "f"}

func (d *decoder) failure() (f schema.FailureDetails, err error) {
	code := 0
	err = d.object(failureMembers, 1, func(name string) (err error) {
		switch name {
		case "c":
			code, err = d.integer()
		case "s":
			f.SendingMTAIP, err = d.addr()
		case "n":
			f.ReceivingMXHostname, err = d.str()
		case "h":
			f.ReceivingMXHelo, err = d.str()
		case "r":
			f.ReceivingIP, err = d.addr()
		case "a":
			f.AdditionalInformation, err = d.str()
		case "f":
			f.FailureReasonCode, err = d.str()
		}
		return err
	})
	return failureDetails(code, f), err
}

// resultTypes are the codes of the protocol.
var resultTypes = map[int]schema.ResultType{
	201: schema.StartTLSNotSupported,
	202: schema.CertificateHostMismatch,
	203: schema.CertificateNotTrusted,
	204: schema.CertificateExpired,
	205: schema.ValidationFailure,
	301: schema.STSPolicyFetchError,
	302: schema.STSPolicyInvalid,
	303: schema.STSWebPKIInvalid,
	304: schema.TLSAInvalid,
	305: schema.DNSSECInvalid,
	306: schema.DANERequired,
}

// failureDetails reads code as the result type of f.
//
// The library hands on any code. RFC 8460, section 4.3.3, calls what has no
// type of its own a validation-failure; the code is then the reason, such as
// "tlsrpt-code-999", unless the MTA gave one.
func failureDetails(code int, f schema.FailureDetails) schema.FailureDetails {
	known := false
	if f.ResultType, known = resultTypes[code]; !known {
		f.ResultType = schema.ValidationFailure
		f.FailureReasonCode = cmp.Or(f.FailureReasonCode, "tlsrpt-code-"+strconv.Itoa(code))
	}
	return f
}

// addr reads an address. What is none, "" for instance, is the zero address:
// the failure counts without it.
func (d *decoder) addr() (netip.Addr, error) {
	s, err := d.str()
	if err != nil {
		return netip.Addr{}, err
	}
	a, _ := netip.ParseAddr(s)
	return a, nil
}
