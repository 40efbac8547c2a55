// Package eventgen makes the datagrams that the MTAs of a relay send through
// libtlsrpt, and sends them as Postfix does, or faster, to any collector of the
// protocol. It is for tests and benchmarks.
package eventgen

import "fmt"

// Kind is what a datagram tells.
type Kind string

const (
	// None is a success without policy.
	None Kind = "none"
	// TLSA is a success under DANE, with two TLSA records.
	TLSA Kind = "tlsa"
	// STS is a success under an MTA-STS policy of four lines.
	STS Kind = "sts"
	// Failure is an expired certificate, with an EHLO reply of four lines.
	Failure Kind = "failure"
)

var policies = map[Kind]string{
	None: `{"policy-type":9,"policy-domain": "d%[1]d.example.com","t":0,"f":0}`,
	TLSA: `{"policy-type":1,"policy-domain": "mx.d%[1]d.example.com","policy-string":[` +
		`"3 1 1 1F850A337E6DB9C609C522D136A475638CC43E1ED424F8EEC8513D747D%06[1]X",` +
		`"2 1 1 8BD1DA95272F7FA4FFB24137FC0ED03AAE67E5C4D8B3C50734E1050A7920B922"],"t":0,"f":0}`,
	STS: `{"policy-type":2,"policy-domain": "d%[1]d.example.com","policy-string":[` +
		`"version: STSv1","mode: enforce","mx: mx.d%[1]d.example.com","max_age: 86400"],"mx-host":["mx.d%[1]d.example.com"],"t":0,"f":0}`,
	Failure: `{"policy-type":9,"policy-domain": "d%[1]d.example.com","failure-details":[{"c":204,"s": "192.0.2.1",` +
		`"n": "mx.d%[1]d.example.com","h": "250-mx.d%[1]d.example.com\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 8BITMIME",` +
		`"r": "198.51.100.7"}],"t":1,"f":1}`,
}

// Datagram is one event of the domain of number n, byte for byte as libtlsrpt
// writes it.
func Datagram(kind Kind, n int) []byte {
	return fmt.Appendf(nil, `{"dpv": "1","d": "d%d.example.com","pr": "v=TLSRPTv1; rua=mailto:tlsrpt@d%[1]d.example.com","policies":[%s]}`,
		n, fmt.Sprintf(policies[kind], n))
}

// Mixture is what a relay reports: 40 % of its domains have DANE, 40 % MTA-STS.
type Mixture struct {
	domains, failures int
	success, failure  [][]byte
	sent, failed      int
}

// NewMixture is a mixture of so many domains, in which failures of 1,000 sessions
// fail.
func NewMixture(domains, failures int) *Mixture {
	kinds := []Kind{TLSA, STS, TLSA, STS, None}
	m := &Mixture{domains: domains, failures: failures}
	for i := range domains {
		m.success = append(m.success, Datagram(kinds[i%len(kinds)], i))
		if failures > 0 {
			m.failure = append(m.failure, Datagram(Failure, i))
		}
	}
	return m
}

// Next is the next datagram: the domains take turns. It must not be changed.
func (m *Mixture) Next() []byte {
	i := m.sent % m.domains
	m.sent++
	if m.sent*m.failures/1000 > m.failed {
		m.failed++
		return m.failure[i]
	}
	return m.success[i]
}
