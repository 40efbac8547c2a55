package tail

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

var (
	sum   = base64.StdEncoding.EncodeToString(make([]byte, digestSize))
	sums  = `,"head":"` + sum + `","tail":"` + sum + `"`
	longs = strings.Repeat("x", maxCursor)
)

var goodPositions = []string{
	`{"version":1,"file":{"offset":0}}`,
	`{"version":1,"file":{"offset":0,"time":1795429601884385000}}`,
	`{"version":1,"file":{"device":1,"inode":18446744073709551615,"offset":0}}`,
	`{"version":1,"file":{"offset":1` + sums + `}}`,
	`{"version":1,"file":{"name":"/var/log/mail-20261122","device":64768,"inode":12,"offset":9223372036854775807` + sums + `,"inside":true}}`,
	`{"version":1,"cursor":"s=2b974b40679f46e79ee92ecd65270887;i=167;b=03b1;m=8e5c809a;t=660ef07a3b8e1;x=59271bffb23abd38"}`,
	`{"version":1,"cursor":"` + longs + `"}`,
}

var badPositions = []struct{ text, why string }{
	{`x`, "invalid character"},
	{`{}`, "version 0"},
	{`{"version":2,"file":{"offset":0}}`, "version 2"},
	{`{"version":2,"new":true}`, "version 2"},
	{`{"version":1}`, "want one of"},
	{`{"version":1,"file":null}`, "want one of"},
	{`{"version":1,"file":{"offset":0},"cursor":"s=1"}`, "want one of"},
	{`{"version":1,"file":{"offset":0},"more":1}`, "unknown field"},
	{`{"version":1,"file":{"offset":0}}{}`, "after top-level value"},
	{`{"version":1,"file":{"offset":-1` + sums + `}}`, "negative"},
	{`{"version":1,"file":{"offset":1}}`, "digests"},
	{`{"version":1,"file":{"offset":0` + sums + `}}`, "digests"},
	{`{"version":1,"file":{"offset":1,"head":"AAAA","tail":"` + sum + `"}}`, "digests"},
	{`{"version":1,"file":{"offset":0,"inside":true}}`, "not within"},
	{`{"version":1,"file":{"offset":0,"name":"a\u0000b"}}`, "malformed name"},
	{`{"version":1,"file":{"offset":0,"name":"` + strings.Repeat("n", maxName+1) + `"}}`, "malformed name"},
	{`{"version":1,"cursor":"a b"}`, "malformed cursor"},
	{`{"version":1,"cursor":"a\"b"}`, "malformed cursor"},
	{`{"version":1,"cursor":"` + longs + `x"}`, "malformed cursor"},
	{strings.Repeat(" ", MaxPosition+1), "65537 bytes"},
}

func TestPosition(t *testing.T) {
	for _, text := range goodPositions {
		p, err := decodePosition([]byte(text))
		if err != nil {
			t.Errorf("%.80s: %v", text, err)
			continue
		}
		if again := p.encode(); string(again) != text {
			t.Errorf("%.200s became %.200s", text, again)
		}
	}
	for _, c := range badPositions {
		p, err := decodePosition([]byte(c.text))
		if p != nil || !errors.Is(err, ErrPosition) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%.80s: %+v, error %v, want %q", c.text, p, err, c.why)
		}
	}
	if p, err := decodePosition(nil); err != nil || p.encode() != nil {
		t.Errorf("nothing: %+v, %v", p, err)
	}
}

func FuzzPosition(f *testing.F) {
	for _, text := range goodPositions {
		f.Add([]byte(text))
	}
	for _, c := range badPositions {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := decodePosition(text)
		if (p == nil) == (err == nil) {
			t.Fatalf("%+v and error %v", p, err)
		}
		if err != nil {
			return
		}
		code := p.encode()
		if len(code) > MaxPosition {
			t.Fatalf("%d bytes", len(code))
		}
		again, err := decodePosition(code)
		if err != nil || !bytes.Equal(again.encode(), code) {
			t.Fatalf("%s became %s, %v", code, again.encode(), err)
		}
	})
}

// TestPositionOfAnotherKind gives each kind of log the position of another.
func TestPositionOfAnotherKind(t *testing.T) {
	file := []byte(`{"version":1,"file":{"offset":0}}`)
	journal := []byte(`{"version":1,"cursor":"s=1"}`)
	for _, c := range []struct {
		o        Options
		position []byte
	}{
		{Options{Path: "/nowhere", Follow: true}, journal},
		{Options{Journal: true}, file},
		{Options{Reader: strings.NewReader("")}, file},
		{Options{Reader: strings.NewReader("")}, journal},
	} {
		if _, err := Open(c.o, c.position); !errors.Is(err, ErrPosition) {
			t.Errorf("%+v: error %v", c.o, err)
		}
	}
}
