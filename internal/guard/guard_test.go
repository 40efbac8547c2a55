package guard

import (
	"net/netip"
	"testing"
)

func TestPublic(t *testing.T) {
	good := func(s string) {
		t.Helper()
		if !Public(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
	}
	bad := func(s string) {
		t.Helper()
		if Public(netip.MustParseAddr(s)) {
			t.Errorf("%s is public", s)
		}
	}

	good("192.0.2.1")                        // documentation
	good("198.51.100.7")                     // documentation
	good("203.0.113.255")                    // documentation
	good("2001:db8::1")                      // documentation
	good("3fff::1")                          // documentation
	good("::ffff:192.0.2.1")                 // mapped, of a public one
	good("64:ff9b::c000:201")                // NAT64 of 192.0.2.1
	good("2002:c000:201::1")                 // 6to4 of 192.0.2.1
	good("2001:0:c000:201:0:ffff:3fff:fdfe") // Teredo, server and client 192.0.2.1
	good("9.255.255.255")                    // just below 10/8
	good("11.0.0.0")                         // just above 10/8
	good("100.63.255.255")                   // just below 100.64/10
	good("100.128.0.0")                      // just above
	good("172.15.255.255")                   // just below 172.16/12
	good("172.32.0.0")                       // just above
	good("198.17.255.255")                   // just below 198.18/15
	good("198.20.0.0")                       // just above
	good("223.255.255.255")                  // just below multicast
	good("2001:200::1")                      // just above 2001::/23
	good("2001:db8::1%eth0")                 // a zone does not count

	for _, s := range private {
		bad(s)
	}
	if Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

// private spells destinations that must never be dialled.
var private = []string{
	"0.0.0.0", "0.1.2.3", // this network
	"10.0.0.0", "10.1.2.3", "10.255.255.255",
	"100.64.0.0", "100.127.255.255", // CGNAT
	"127.0.0.1", "127.0.0.2", "127.255.255.254",
	"169.254.0.1", "169.254.169.254", // link-local, metadata
	"172.16.0.1", "172.31.255.255",
	"192.0.0.1", "192.0.0.170", // protocol assignments
	"192.88.99.1", // 6to4 relay
	"192.168.0.1", "192.168.255.255",
	"198.18.0.1", "198.19.255.255", // benchmarks
	"224.0.0.1", "239.255.255.255", // multicast
	"240.0.0.1", "255.255.255.255", // reserved, broadcast

	"::", "::1", "::1%lo",
	"::127.0.0.1", "::10.0.0.1", // IPv4-compatible, RFC 4291
	"::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:0.0.0.0", "::ffff:169.254.169.254",
	"::ffff:0:127.0.0.1",                                                            // IPv4-translated, RFC 2765
	"64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", // NAT64
	"64:ff9b:1::1", "64:ff9b:1:7f00:0:100::", "64:ff9b:1::c0a8:1", // local NAT64
	"100::1",                           // discard only
	"100:0:0:1::1",                     // dummy prefix, RFC 9780
	"2001::7f00:1",                     // Teredo by a server at 0.0.0.0
	"2001:0:7f00:1:0:ffff:3fff:fdfe",   // Teredo by a server at 127.0.0.1
	"2001:0:c000:201:0:ffff:80ff:fffe", // Teredo of the client 127.0.0.1
	"2001:0:c000:201:0:ffff:f5ff:fffe", // Teredo of the client 10.0.0.1
	"2001:2::1",                        // benchmarks
	"2001:10::1", "2001:20::1",         // ORCHID
	"2002:7f00:1::1", "2002:a00:1::", "2002:c0a8:101::1", "2002:a9fe:a9fe::1", // 6to4
	"3ffe::1",                            // 6bone
	"5f00::1",                            // segment routing
	"fc00::1", "fd00::1", "fdff:ffff::1", // unique local
	"fe80::1", "fe80::1%lo", "febf::1", // link-local
	"fec0::1", "feff::1", // site-local
	"ff00::1", "ff02::1", "ff02::1%lo", "ff0e::1", // multicast
}
