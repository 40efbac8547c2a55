package postfixlog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// script makes a log of lines such as "smtp[1]: text", one second apart, of a
// Postfix that has just been started. A line may begin with the seconds to wait
// before it, "+600 smtp[1]: text".
func script(lines ...string) []byte {
	return lateScript(slices.Concat([]string{"master[8]: daemon started -- version 3.7.11, configuration /etc/postfix"}, lines)...)
}

// lateScript is the log of a Postfix that was started before.
func lateScript(lines ...string) []byte {
	var b strings.Builder
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for _, l := range lines {
		wait := 1
		if strings.HasPrefix(l, "+") {
			fmt.Sscanf(l, "+%d ", &wait)
			_, l, _ = strings.Cut(l, " ")
		}
		if at = at.Add(time.Duration(wait) * time.Second); !strings.Contains(l, "/") || strings.Index(l, "/") > strings.Index(l, "[") {
			l = "postfix/" + l
		}
		fmt.Fprintf(&b, "%s out %s\n", at.Format("Jan _2 15:04:05"), l)
	}
	return []byte(b.String())
}

// Lines that many cases have.
const (
	seen    = "smtp[9]: Trusted TLS connection established to mx.seen.example[192.0.2.99]:25: TLSv1.3 with cipher X"
	trusted = "smtp[1]: Trusted TLS connection established to mx.example.com[192.0.2.1]:25: TLSv1.3 with cipher X (256/256 bits)"
	untrust = "smtp[1]: Untrusted TLS connection established to mx.example.com[192.0.2.1]:25: TLSv1.3 with cipher X (256/256 bits)"
	fields  = ", delay=0.1, delays=0/0/0.09/0.04, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as X)"
	relay   = ", relay=mx.example.com[192.0.2.1]:25"
	sent    = "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>" + relay + fields
	notVer  = ", delay=0.1, delays=0/0/0.09/0, dsn=4.7.5, status=deferred (Server certificate not verified)"
	noStart = ", delay=0.1, delays=0/0/0.09/0, dsn=4.7.4, status=deferred (TLS is required, but was not offered by host mx.example.com[192.0.2.1])"
	noShake = ", delay=0.1, delays=0/0/0.09/0, dsn=4.7.5, status=deferred (Cannot start TLS: handshake failure)"
)

// brief is a session in few words: domain, outcome, result, and the reason why
// it was dropped.
func (s told) brief() string {
	b := s.Domain + " " + s.Outcome.String()
	if s.Result != "" {
		b += " " + string(s.Result)
	}
	if s.drop != "" {
		b += " dropped:" + string(s.drop)
	}
	return b
}

func briefs(all []told) []string {
	var out []string
	for _, s := range all {
		out = append(out, s.brief())
	}
	return out
}

// same fails where the sessions of a dialogue are others.
func same(t *testing.T, name string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
	}
}

// TestDeliveries holds short dialogues against the sessions that they are.
func TestDeliveries(t *testing.T) {
	check := func(name string, log []byte, want ...string) {
		t.Helper()
		all, _ := parseAll(Options{ReportPlaintext: true}, log)
		if got := briefs(all); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q\n%s", name, got, want, log)
		}
	}
	check("several recipients are one session",
		script(trusted, sent, strings.Replace(sent, "bob@", "eve@", 1)), "example.com trusted")
	check("a message to two domains of one provider is two sessions",
		script(trusted, sent, trusted, strings.Replace(sent, "@example.com", "@example.net", 1)),
		"example.com trusted", "example.net trusted")
	check("a cached connection is no session",
		script(trusted, sent,
			"smtp[1]: Trusted TLS connection reused to mx.example.com[192.0.2.1]:25: TLSv1.3 with cipher X",
			"smtp[1]: 4jY1xQ00Dlz6X7z: to=<bob@example.com>"+relay+", conn_use=2"+fields), "example.com trusted")
	check("nor is one that failed before a mail was sent on it",
		script(seen, "smtp[1]: Trusted TLS connection reused to mx.example.com[192.0.2.1]:25: TLSv1.3",
			"smtp[1]: 4jY1xQ00Dlz6X7z: host mx.example.com[192.0.2.1] said: 450 4.2.0 later (in reply to MAIL FROM command)",
			"smtp[1]: 4jY1xQ00Dlz6X7z: to=<bob@example.com>, relay=none"+fields),
		" trusted dropped:expired")
	check("a verdict of Postfix 3.5 without reason: the name",
		script(trusted, "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+notVer), "example.com trusted certificate-host-mismatch")
	check("and the issuer",
		script(untrust, "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+strings.Replace(notVer, "verified", "trusted", 1)),
		"example.com untrusted certificate-not-trusted")
	check("a verdict whose reason is not there",
		script(untrust, "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+notVer), "example.com untrusted validation-failure")
	check("the reason of another host is not taken",
		script("smtp[1]: server certificate verification failed for mx.example.com[192.0.2.7]:25: certificate has expired",
			untrust, "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+notVer), "example.com untrusted validation-failure")
	check("the verdict is known at log level 0 too",
		script("smtp[1]: CA certificate verification failed for mx.example.com[192.0.2.1]:25: certificate has expired",
			"smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+notVer,
			"smtp[1]: 4jY1xQ00Dlz6X7y: to=<eve@example.com>"+relay+notVer), "example.com untrusted certificate-expired")
	check("STARTTLS is required and refused, for two recipients",
		script("smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+noStart,
			"smtp[1]: 4jY1xQ00Dlz6X7y: to=<eve@example.com>"+relay+noStart), "example.com refused starttls-not-supported")
	check("and for another MX before",
		script("smtp[1]: 4jY1xQ00Dlz6X7y: TLS is required, but host mx2.example.com[192.0.2.2] refused to start TLS: 454 no",
			trusted, sent), "example.com refused starttls-not-supported", "example.com trusted")
	check("a fault of the sender",
		script("smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+strings.Replace(noStart, "was not offered by host mx.example.com[192.0.2.1]", "our TLS engine is unavailable", 1)))
	check("a handshake that no line tells of: a fault of the sender too",
		script("smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+noShake), "example.com failed validation-failure dropped:unjoined")
	check("a handshake that failed, then plaintext",
		script("smtp[1]: SSL_connect error to mx.example.com[192.0.2.1]:25: lost connection",
			"smtp[1]: 4jY1xQ00Dlz6X7y: Cannot start TLS: handshake failure", sent),
		"example.com plaintext dropped:plaintext-fallback", "example.com failed validation-failure")
	lost := "smtp[1]: 4jY1xQ00Dlz6X7y: lost connection with mx.example.com[192.0.2.1] while performing the EHLO handshake"
	none := strings.Replace(sent, ", dsn=", ", tls=may:none, dsn=", 1)
	check("a connection that was lost after TLS began, which level 0 does not show, then plaintext",
		script(lost, none), "example.com plaintext dropped:plaintext-fallback")
	check("but another host is tried anew",
		script(strings.Replace(lost, "192.0.2.1]", "192.0.2.2]", 1), none), "example.com plaintext starttls-not-supported")
	check("no TLS line, and none was ever seen", script(sent), "example.com plaintext dropped:level-unknown")
	check("no TLS line, and Postfix was reloaded since the last one",
		script(trusted, sent, "master[8]: reload -- version 3.7.11, configuration /etc/postfix",
			"smtp[2]: 4jY1xQ00Dlz6X7z: to=<bob@example.net>, relay=mx.example.net[192.0.2.2]:25"+fields),
		"example.com trusted", "example.net plaintext dropped:level-unknown")
	other := "smtp[2]: 4jY1xQ00Dlz6X7z: to=<bob@example.net>, relay=mx.example.net[192.0.2.2]:25" + fields
	check("a delivery that was under way when Postfix was reloaded shows the level of before",
		script("smtp[3]: 4jY1xQ00Dlz6X7w: to=<x@y.example>, relay=none"+fields, "master[8]: reload -- version 3.7.11, configuration /etc/postfix", trusted, sent, "+500 "+other),
		"example.com trusted", "example.net plaintext dropped:level-unknown")
	check("later ones show that of now",
		script("master[8]: reload -- version 3.7.11, configuration /etc/postfix", trusted, sent, "+650 "+trusted, sent, other),
		"example.com trusted", "example.com trusted", "example.net plaintext starttls-not-supported")
	check("and after a start all do", script(trusted, sent, other), "example.com trusted", "example.net plaintext starttls-not-supported")
	check("a delivery that was under way when the log began",
		lateScript(trusted, sent, "+500 "+other), "example.com trusted", "example.net plaintext dropped:level-unknown")
	check("plaintext", script(seen, sent), "example.com plaintext starttls-not-supported", " trusted dropped:expired")
	check("a probe without TLS",
		script(seen, "smtp[9318]: 4jc98D47xkz6b93: to=<ok579@plain-c.example.com>, relay=mx1.plain.example[203.0.113.48]:25, delay=0.18, delays=0.01/0.03/0.11/0.03, dsn=2.1.5, status=deliverable (250 2.1.5 Ok)"),
		"plain-c.example.com plaintext starttls-not-supported", " trusted dropped:expired")
	check("plaintext to many", script(seen, sent, sent, sent), "example.com plaintext starttls-not-supported", " trusted dropped:expired")
	check("a level seen in one instance says nothing of another",
		script("postfix/relay/"+seen, sent), "example.com plaintext dropped:level-unknown", " trusted dropped:expired")
	check("TLS was not to be used (3.11)",
		script(seen, strings.Replace(sent, ", dsn=", ", tls=none, dsn=", 1)), "example.com plaintext dropped:policy-none", " trusted dropped:expired")
	check("TLS was not to be used (smtp_tls_note_starttls_offer)",
		script(seen, "smtp[1]: Host offered STARTTLS: [mx.example.com]", sent), "example.com plaintext dropped:policy-none", " trusted dropped:expired")
	check("3.11 tells plaintext without a TLS line before",
		script(strings.Replace(sent, ", dsn=", ", tls=may:none, dsn=", 1)), "example.com plaintext starttls-not-supported")
	check("and TLS", script(strings.Replace(sent, ", dsn=", ", tls=may, dsn=", 1)), "example.com encrypted")
	check("and TLS that went on after a recipient was refused",
		script("smtp[1]: 4jY1xQ00Dlz6X7y: host mx.example.com[192.0.2.1] said: 452 4.2.2 mailbox full (in reply to RCPT TO command)",
			strings.Replace(sent, ", dsn=", ", tls=may, dsn=", 1)), "example.com encrypted")
	check("and TLSA records that are unusable",
		script("smtp[1]: warning: mx.example.com[192.0.2.1]:25: all TLSA records unusable, fallback to unauthenticated TLS",
			strings.Replace(sent, ", dsn=", ", tls=dane:encrypt, dsn=", 1)), "example.com encrypted tlsa-invalid")
	check("and a match", script(strings.Replace(sent, ", dsn=", ", tls=dane, dsn=", 1)), "example.com verified")
	check("the TLSA records are unusable",
		script("smtp[1]: warning: mx.example.com[192.0.2.1]:25: all TLSA records unusable, fallback to unauthenticated TLS", untrust, sent),
		"example.com untrusted tlsa-invalid")
	check("DANE is required",
		script("smtp[1]: warning: TLS policy lookup for example.com/mx.example.com: non DNSSEC destination",
			"smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>, relay=none"+strings.Replace(fields, "sent (", "deferred (non DNSSEC destination ", 1)),
		"example.com no-session dane-required")
	check("and the next hop is another",
		script("smtp[1]: warning: TLS policy lookup for relay.example/mx.relay.example: no TLSA records found",
			"smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>, relay=none"+fields), "example.com no-session dane-required dropped:other-nexthop")
	check("the queue manager's echo",
		script("error[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>, relay=none"+strings.Replace(fields, "sent (", "deferred (delivery temporarily suspended: Server certificate not verified ", 1)))
	check("LMTP", script(strings.Replace(trusted, "smtp", "lmtp", 1), strings.Replace(sent, "smtp", "lmtp", 1)), "example.com trusted dropped:lmtp")
	check("a filter", script(strings.ReplaceAll(trusted, "192.0.2.1]:25", "127.0.0.1]:10024"), strings.ReplaceAll(sent, "192.0.2.1]:25", "127.0.0.1]:10024")),
		"example.com trusted dropped:port")
	check("a private next hop", script(strings.ReplaceAll(trusted, "192.0.2.1", "10.0.0.1"), strings.ReplaceAll(sent, "192.0.2.1", "10.0.0.1")),
		"example.com trusted dropped:private-address")
	check("an address as next hop", script(strings.ReplaceAll(trusted, "mx.example.com", "192.0.2.1"), strings.ReplaceAll(sent, "mx.example.com", "192.0.2.1")),
		"example.com trusted dropped:address-literal")
	check("no domain", script(trusted, strings.Replace(sent, "@example.com", "", 1)), " trusted dropped:no-domain")
	check("an address as domain", script(trusted, strings.Replace(sent, "@example.com", "@[192.0.2.1]", 1)), " trusted dropped:no-domain")
	check("the recipient comes within the hour", script(trusted, "+3500 "+sent), "example.com trusted")
	check("it does not", script(trusted, "+3700 "+sent), " trusted dropped:expired", "example.com plaintext starttls-not-supported")
	check("it went on elsewhere, without an end",
		script(trusted, "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>, relay=mx2.example.com[192.0.2.2]:25"+fields),
		"example.com plaintext dropped:unjoined", "example.com trusted dropped:unjoined")
	check("a delivery that was cut off, then another message",
		script(trusted, "smtp[1]: 4jY1xQ00Dlz6X7y: lost connection with mx.example.com[192.0.2.1] while sending RCPT TO", trusted,
			"smtp[1]: 4jY1xQ00Dlz6X7z: to=<bob@example.net>"+relay+fields),
		" trusted dropped:unjoined", "example.net trusted")
	check("a short queue id that came again",
		script(seen, strings.Replace(sent, "4jY1xQ00Dlz6X7y", "4F2A1B3C4D", 1), "qmgr[3]: 4F2A1B3C4D: removed",
			"+5 "+strings.Replace(sent, "4jY1xQ00Dlz6X7y", "4F2A1B3C4D", 1)),
		"example.com plaintext starttls-not-supported", "example.com plaintext starttls-not-supported", " trusted dropped:expired")
	check("another instance", script(strings.Replace(trusted, "smtp", "postfix-out/smtp", 1), strings.Replace(sent, "smtp", "postfix-out/smtp", 1)))
	check("smtpd and postscreen",
		script("smtpd[1]: Anonymous TLS connection established from client.example.com[192.0.2.1]: TLSv1.3",
			"postscreen[1]: CONNECT from [192.0.2.1]:4711 to [192.0.2.2]:25"))
}

// TestRecipients takes the domain out of what Postfix logs as an address.
func TestRecipients(t *testing.T) {
	check := func(logged, want string) {
		t.Helper()
		line := strings.Replace(sent, "to=<bob@example.com>", "to=<"+logged+">", 1)
		all, _ := parseAll(Options{}, script(trusted, line))
		if len(all) != 1 || all[0].Domain != want {
			t.Errorf("%s: got %q, want %q", logged, briefs(all), want)
		}
	}
	const other = ", relay=mx.evil.example[192.0.2.66]:25, delay=1, delays=1/1/1/1, dsn=2.0.0, status=sent (250"
	check("bob@Example.COM", "example.com")
	check("bob@bücher.example.com", "xn--bcher-kva.example.com")
	check(`"b b>, relay=x"@example.com`, "example.com")
	check(`"a@evil.example>`+other+`"@example.com`, "example.com")
	check(`"a\">, relay=x"@example.com`, "example.com")
	check("a>b@example.com", "example.com")
	check("a>, relay=b@example.com", "example.com")
	check("a@evil.example>, relay=none@example.com", "example.com")
	check("bob@example.com>, orig_to=<root", "example.com")
	check("bob@example.com>, orig_to=<root@example.net", "example.com")
	check("a@evil.example>"+other+"@example.com", "") // internal form: nobody knows
	check("bob@", "")
	check("", "")

	// What a receiver says is no field.
	for _, said := range []string{
		"250 to=<eve@evil.example>" + other, "250 <eve@evil.example>, relay=none, delay=1", "250 ok>, orig_to=<x>, relay=none",
	} {
		all, _ := parseAll(Options{}, script(trusted, strings.Replace(sent, "250 2.0.0 Ok: queued as X", said, 1)))
		for _, s := range kept(all) {
			if s.Domain != "example.com" {
				t.Errorf("%q: domain %q", said, s.Domain)
			}
		}
	}
}

// TestCertificateReasons reads every reason of tls_verify.c, of all versions.
func TestCertificateReasons(t *testing.T) {
	for why, want := range map[string]schema.ResultType{
		"certificate has expired":                              schema.CertificateExpired,
		"certificate not yet valid":                            schema.ValidationFailure,
		"untrusted issuer /O=TLS Lab/CN=Some Other Root":       schema.CertificateNotTrusted,
		"self-signed certificate":                              schema.CertificateNotTrusted,
		"not trusted by local or TLSA policy":                  schema.CertificateNotTrusted,
		"not designated for use as a server certificate":       schema.ValidationFailure,
		"certificate chain longer than limit(9)":               schema.ValidationFailure,
		"num=62:hostname mismatch":                             schema.CertificateHostMismatch,
		"num=65:no matching DANE TLSA records":                 schema.CertificateNotTrusted,
		"num=94:something new":                                 schema.ValidationFailure,
		"external policy failure (sts-webpki-invalid)":         schema.STSWebPKIInvalid,
		"external policy failure (sts-policy-invalid)":         schema.STSPolicyInvalid,
		"external policy failure (sts-policy-fetch-error)":     schema.STSPolicyFetchError,
		"external policy failure (validation-failure)":         schema.ValidationFailure,
		"certificate has expired, or whatever they say in 4.0": schema.CertificateExpired,
	} {
		all, _ := parseAll(Options{}, script(
			"smtp[1]: server certificate verification failed for mx.example.com[192.0.2.1]:25: "+why, untrust,
			"smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>"+relay+notVer))
		if len(all) != 1 || all[0].Result != want || !all[0].Enforced || all[0].Finding != "" {
			t.Errorf("%s: %+v, want %s", why, all, want)
		}
		all, _ = parseAll(Options{}, script(
			"smtp[1]: certificate verification failed for mx.example.com[192.0.2.1]:25: "+why, untrust, sent))
		if len(all) != 1 || all[0].Result != "" || all[0].Finding != want || all[0].Enforced {
			t.Errorf("%s, but delivered: %+v, want a finding %s", why, all, want)
		}
	}
}

// TestResumed takes the reason of a resumed session from an earlier line.
func TestResumed(t *testing.T) {
	bad := "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>" + relay + notVer
	for _, text := range []string{"certificate", "peer credential"} {
		all, _ := parseAll(Options{}, script(
			"smtp[2]: server certificate verification failed for mx.example.com[192.0.2.1]:25: certificate has expired",
			"smtp[1]: mx.example.com[192.0.2.1]:25: re-using session with untrusted "+text+", look for details earlier in the log",
			untrust, bad))
		if len(all) != 1 || all[0].Result != schema.CertificateExpired || !all[0].Resumed {
			t.Errorf("%s: %+v", text, all)
		}
	}
	all, _ := parseAll(Options{}, script(
		"smtp[1]: mx.example.com[192.0.2.1]:25: re-using session with untrusted certificate, look for details earlier in the log",
		untrust, bad))
	if len(all) != 1 || all[0].Result != schema.CertificateNotTrusted {
		t.Errorf("the earlier line is not there: %+v", all)
	}
}

// TestOwnReports keeps the mail that we send ourselves out of the count.
func TestOwnReports(t *testing.T) {
	o := Options{Senders: []string{"TLS-Reports@example.org"}}
	from := "qmgr[3]: 4jY1xQ00Dlz6X7y: from=<tls-reports@example.org>, size=332, nrcpt=1 (queue active)"
	check := func(name string, want string, lines ...string) {
		t.Helper()
		all, _ := parseAll(o, script(lines...))
		if len(all) == 0 || all[len(all)-1].brief() != want {
			t.Errorf("%s: %q, want %q last", name, briefs(all), want)
		}
	}
	const own = "example.com trusted dropped:own-report"
	check("by sender", own, from, trusted, sent)
	check("by Message-ID", own, "cleanup[3]: 4jY1xQ00Dlz6X7y: message-id=<tlsrpt.2026@example.org>", trusted, sent)
	check("another sender", "example.com trusted", strings.Replace(from, "tls-reports", "bob", 1), trusted, sent)
	check("another message", "example.com trusted", strings.Replace(from, "X7y", "X7z", 1), trusted, sent)
	check("another instance", "example.com trusted", "postfix-out/"+from, trusted, sent)
	check("removed, and the id came again", "example.com trusted", from, trusted, sent, "qmgr[3]: 4jY1xQ00Dlz6X7y: removed", "+3 "+trusted, sent)
	check("a Message-ID within", "example.com trusted", "cleanup[3]: 4jY1xQ00Dlz6X7y: message-id=<x.tlsrpt.2026@example.org>", trusted, sent)
}

// TestNative tells which sessions libtlsrpt has, and which it lost.
func TestNative(t *testing.T) {
	status := "smtp[1]: TLSRPT: status=success, domain=example.com, receiving_mx=mx.example.com[192.0.2.1]"
	lost := "smtp[1]: warning: Could not report TLS handshake result to tlsrpt library: No such file or directory (errno 2)"
	refused := "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>" + relay + noStart
	check := func(name string, native, nativeLost bool, lines ...string) {
		t.Helper()
		all, stats := parseAll(Options{}, script(lines...))
		if len(all) != 1 || all[0].drop != "" || all[0].Native != native || all[0].NativeLost != nativeLost {
			t.Errorf("%s: %+v", name, all)
		}
		if (stats.NativeLost["postfix"] == 1) != nativeLost {
			t.Errorf("%s: NativeLost is %v", name, stats.NativeLost)
		}
	}
	check("none", false, false, trusted, sent)
	check("after the session", true, false, trusted, status, sent)
	check("before it", true, false, status, untrust, sent)
	check("without TLS", true, false, status, refused)
	check("lost after", true, true, trusted, status, lost, sent)
	check("lost before", true, true, status, lost, untrust, sent)
	check("of another host", false, false, trusted, strings.Replace(status, "192.0.2.1]", "192.0.2.7]", 1), sent)
	all, _ := parseAll(Options{}, script(trusted, strings.Replace(status, "domain=example.com", "domain=relay.example", 1), sent))
	if got := briefs(all); !slices.Equal(got, []string{"example.com trusted dropped:other-nexthop"}) {
		t.Errorf("another next hop: %q", got)
	}
}
