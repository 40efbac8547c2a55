package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func FuzzParseRecord(f *testing.F) {
	for _, c := range goodRecords {
		f.Add(c.txt)
	}
	for _, c := range badRecords {
		f.Add(c.txt)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		rec, err := schema.ParseRecord(txt)
		if (err == nil) != (len(rec.RUA) > 0) || len(rec.RUA) > schema.MaxRUA {
			t.Fatalf("%v, %v", rec.RUA, err)
		}
		if err != nil && !errors.Is(err, schema.ErrNoRecord) && !errors.Is(err, schema.ErrRecord) {
			t.Fatal(err)
		}
		for _, fault := range rec.Faults {
			if !utf8.ValidString(fault) || strings.ContainsAny(fault, "\r\n\x1b\x00") {
				t.Errorf("fault %q", fault)
			}
		}
		var b strings.Builder
		b.WriteString("v=TLSRPTv1;rua=")
		for i, rua := range rec.RUA {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(string(rua))
		}
		if err != nil || b.Len() > 8<<10 {
			return
		}
		again, err := schema.ParseRecord(b.String())
		if err != nil || !reflect.DeepEqual(again, schema.Record{RUA: rec.RUA}) {
			t.Errorf("%s is %+v, %v; want %v", b.String(), again, err, rec.RUA)
		}
	})
}

func FuzzParseRUA(f *testing.F) {
	for _, c := range goodRUAs {
		f.Add(c.uri)
	}
	for _, c := range badRUAs {
		f.Add(c.uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		rua, err := schema.ParseRUA(uri)
		if err != nil {
			if rua != "" || !errors.Is(err, schema.ErrRUA) {
				t.Fatalf("%q, %v", rua, err)
			}
			return
		}
		if again, err := schema.ParseRUA(string(rua)); again != rua || err != nil {
			t.Errorf("%q is %q, %v", rua, again, err)
		}
		if len(rua) > 2048 || strings.ContainsFunc(string(rua), func(r rune) bool { return r <= ' ' || r > '~' }) || strings.ContainsAny(string(rua), ",;!") {
			t.Errorf("%q does not fit into a record", rua)
		}
		if rua.Host() == "" {
			t.Errorf("%q leads nowhere", rua)
		}
		switch addr := rua.Address(); rua.Scheme() {
		case "mailto":
			if again, err := schema.ParseAddress(addr); again != addr || err != nil || !strings.HasSuffix(addr, "@"+rua.Host()) {
				t.Errorf("%q has the address %q", rua, addr)
			}
		case "https":
			if addr != "" || strings.ContainsAny(string(rua), "@#") && strings.Contains(strings.SplitN(string(rua), "/", 4)[2], "@") {
				t.Errorf("%q has a user", rua)
			}
		default:
			t.Errorf("%q has another scheme", rua)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(minimal))
	for _, c := range breakages {
		f.Add([]byte(strings.Replace(minimal, c.old, c.new, 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := schema.Decode(data)
		faults := schema.ValidateJSON(data)
		if (r == nil) == (err == nil) {
			t.Fatalf("%+v, %v", r, err)
		}
		if err != nil {
			if !errors.Is(err, schema.ErrReport) || len(faults) == 0 {
				t.Errorf("%v, %v", err, faults)
			}
			return
		}
		for _, p := range r.Policies {
			if p.Summary.Success < 0 || p.Summary.Failure < 0 {
				t.Errorf("negative counts: %+v", p.Summary)
			}
		}
		// What has no fault is JSON that all others read as we do.
		var loose map[string]any
		if len(faults) == 0 && !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
			if err := json.Unmarshal(data, &loose); err != nil || loose["report-id"] != r.ReportID {
				t.Errorf("report-id %q, others read %v, %v", r.ReportID, loose["report-id"], err)
			}
		}
		if r.Validate() != nil {
			return
		}
		encoded, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := schema.Decode(encoded)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Policies {
			p := &r.Policies[i]
			// These may be written as one that is empty, or as none.
			if len(p.Policy.Strings) == 0 {
				p.Policy.Strings = nil
			}
		}
		if !reflect.DeepEqual(again, r) {
			t.Errorf("%+v\nreads back as %+v", r, again)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { checkCanonical(t, anySession.Draw(t, "session")) }))
}
