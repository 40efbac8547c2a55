package main

import (
	"errors"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/resolve"
)

func TestCheckSPF(t *testing.T) {
	check := func(err error, texts ...string) finding {
		return checkSPF(t.Context(), records{texts, err}, "example.com")
	}
	expect(t, check(resolve.ErrNotFound), statusOK, "no SPF record", "v=spf1 mx -all")
	expect(t, check(nil, "v=spf10 -all", "v=spf1x", "google-site-verification=x"), statusOK, "no SPF record", "v=spf1 mx -all")
	expect(t, check(errors.New("timeout")), statusSkipped, "timeout", "")
	expect(t, check(nil, "x", "v=spf1 ip4:192.0.2.1 -all"), statusOK, `"v=spf1 ip4:192.0.2.1 -all"; whether`, "")
	expect(t, check(nil, "v=spf1"), statusOK, `"v=spf1"; whether`, "")
	expect(t, check(nil, "v=spf1 mx -all", "V=SPF1 ~all"), statusProblem, "2 SPF records", "v=spf1 mx -all")
	expect(t, check(nil, "v=spf1  -ALL"), statusProblem, "no host sends its mail", "v=spf1 mx -all")
}
