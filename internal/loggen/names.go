package loggen

import (
	"fmt"
	"net/netip"
	"strconv"
)

// words make domains differ in length, as real ones do.
var words = [...]string{
	"bakery", "north-shipping", "uni", "kanzlei-am-markt", "city-of-springs", "bank", "radio", "the-garden-club",
	"x", "hospital", "verlag", "observatory", "post", "school-district", "cooperative", "it",
}

// providers host the mail of a fifth of all domains.
const providers = 20

// Domain is the name of domain i, from 0.
func Domain(i int) string {
	return words[i%len(words)] + "-" + strconv.Itoa(i) + ".example"
}

// MX is the host that takes the mail of a domain of the log.
func MX(domain string) string {
	i, err := strconv.Atoi(domainNumber(domain))
	if err != nil {
		return ""
	}
	return mx(i)
}

// domainNumber is the digits before ".example".
func domainNumber(domain string) string {
	const suffix = len(".example")
	end := max(len(domain)-suffix, 0)
	from := end
	for from > 0 && domain[from-1]-'0' < 10 {
		from--
	}
	return domain[from:end]
}

func mx(i int) string {
	if i%5 == 0 {
		return fmt.Sprintf("in%d.provider-%d.example", i%3, i/5%providers)
	}
	return "mx." + Domain(i)
}

// address is that of the MX of domain i: IPv6 for every eighth.
func address(i int) netip.Addr {
	if i%5 == 0 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(i / 5 % providers)})
	}
	if i%8 == 0 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i >> 8), 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
}

// pickDomain is a domain: half of all mail goes to one in a hundred.
func (l *Log) pickDomain() int {
	if hot := l.o.Domains / 100; hot > 0 && l.rand.IntN(2) == 0 {
		return l.rand.IntN(hot)
	}
	return l.rand.IntN(l.o.Domains)
}

const base52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

// queueID is a new long queue id.
func (l *Log) queueID() string {
	l.messages++
	id := []byte("4j0000000zz6X6x")
	for i, n := 8, l.messages*2654435761%(1<<36); i >= 2; i-- {
		id[i] = base52[n%52]
		n /= 52
	}
	return string(id)
}
