package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// What keygen prints is a zone file: another DNS library reads the record from it
// and finds the value that is printed for web forms.
func TestKeyRecord(t *testing.T) {
	for _, algorithm := range []submitter.Algorithm{submitter.RSA, submitter.Ed25519} {
		key, err := submitter.GenerateKey(algorithm, "example.com", "tlsrpt")
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := (&app{stdout: &out}).writeKeyRecord(key); err != nil {
			t.Fatal(err)
		}
		zone := dns.NewZoneParser(strings.NewReader("$TTL 3600\n"+out.String()), ".", "")
		rr, ok := zone.Next()
		txt, isTXT := rr.(*dns.TXT)
		if !ok || !isTXT || txt.Hdr.Name != "tlsrpt._domainkey.example.com." || strings.Join(txt.Txt, "") != key.TXT() {
			t.Fatalf("%s: %v, %v", out.String(), rr, zone.Err())
		}
		for _, s := range txt.Txt {
			if len(s) > 255 {
				t.Errorf("a string of %d bytes", len(s))
			}
		}
		if rr, ok := zone.Next(); ok || zone.Err() != nil {
			t.Errorf("after the record: %v, %v", rr, zone.Err())
		}
		if !strings.HasSuffix(out.String(), "\n; value: "+key.TXT()+"\n") {
			t.Errorf("no value in %s", out.String())
		}
	}
}
