package postfixlog

import (
	"slices"
	"strings"
	"testing"
)

// TestRefusedRecipients counts the session once in which one recipient is refused,
// and then tried elsewhere, and others are not. The lines are after those of Postfix
// 3.7 and 3.10.
func TestRefusedRecipients(t *testing.T) {
	check := func(name string, want []string, lines ...string) {
		t.Helper()
		all, _ := parseAll(Options{ReportPlaintext: true}, script(append([]string{seen}, lines...)...))
		all = slices.DeleteFunc(all, func(s told) bool { return s.MX == "mx.seen.example" })
		same(t, name, briefs(all), want)
	}
	const (
		refused  = "smtp[26480]: 4jc92q72S4z6Q2y: host mx1.rc2.example.com[203.0.113.42] said: 452 4.2.2 mailbox full (in reply to RCPT TO command)"
		rejected = "smtp[26480]: 4jc92q72S4z6Q2y: to=<no525@rc2.example.com>, relay=mx1.rc2.example.com[203.0.113.42]:25, delay=2.4, delays=0.16/1.3/0.83/0.05, dsn=5.1.1, status=bounced (host mx1.rc2.example.com[203.0.113.42] said: 550 5.1.1 no such user (in reply to RCPT TO command))"
		taken    = "smtp[26480]: 4jc92q72S4z6Q2y: to=<ok410@rc2.example.com>, relay=mx1.rc2.example.com[203.0.113.42]:25, delay=2.4, delays=0.16/1.3/0.83/0.06, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as LAB)"
		later    = "smtp[26480]: 4jc92q72S4z6Q2y: to=<later30@rc2.example.com>, relay=mx2.rc2.example.com[203.0.113.43]:25, delay=2.6, delays=0.16/1.3/1.1/0.05, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as LAB)"
		lost     = "smtp[26480]: 4jc92q72S4z6Q2y: lost connection with mx1.rc2.example.com[203.0.113.42] while sending message body"
		tls      = "smtp[26480]: Trusted TLS connection established to mx1.rc2.example.com[203.0.113.42]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
		plain    = "rc2.example.com plaintext starttls-not-supported"
	)
	next := func(line string) string { return strings.ReplaceAll(line, "4jc92q72S4z6Q2y", "4jc92q72S4z6Q2z") }
	cached := func(line string) string { return strings.Replace(line, ", delay=", ", conn_use=2, delay=", 1) }
	check("then another MX", []string{plain, plain}, refused, refused, rejected, later)
	check("others are taken", []string{plain, plain}, refused, taken, strings.Replace(taken, "ok410", "ok411", 1), later)
	check("with TLS", []string{"rc2.example.com trusted", plain}, tls, refused, refused, taken, later)
	check("with TLS that is lost, then without", []string{"rc2.example.com plaintext dropped:plaintext-fallback", "rc2.example.com trusted"},
		tls, refused, lost, taken)
	check("all of them, and the connection is new", []string{plain, plain}, refused, later)
	check("the connection is a cached one", []string{plain}, refused, cached(rejected), cached(taken), later)
	check("all of them, where connections are cached", []string{plain, "rc2.example.com plaintext dropped:unjoined", plain},
		taken, cached(taken), next(refused), next(later))
	tls311 := strings.Replace(taken, ", dsn=", ", tls=may, dsn=", 1)
	check("Postfix 3.11 says later that it was TLS, whose line was lost", []string{plain}, refused, tls311, later)
	check("but of late none was", []string{plain, plain, plain}, taken, cached(taken), "+301 "+next(refused), next(later))
}

// TestRequireTLS reads how Postfix 3.11 ends an attempt where the sender asked for
// REQUIRETLS (RFC 8689). The lines are after real ones.
func TestRequireTLS(t *testing.T) {
	check := func(name string, want []string, lines ...string) {
		t.Helper()
		all, _ := parseAll(Options{}, script(lines...))
		got := briefs(all)
		for i, s := range all {
			got[i] += " " + s.TLSLevel
		}
		same(t, name, got, want)
	}
	const (
		mismatch  = "smtp[12582]: server certificate verification failed for mx.ma2.example.com[2001:db8::33]:25: num=62:hostname mismatch"
		first     = "smtp[12582]: Trusted TLS connection established to mx.ma2.example.com[2001:db8::33]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
		unmatched = "smtp[12582]: 4jc9Mw73Zkz7905: Sender requested REQUIRETLS, but no matching server certificate was found. The last attempted server was mx.ma2.example.com[2001:db8::33]"
		expired   = "smtp[12582]: server certificate verification failed for mx.ma2.example.com[203.0.113.9]:25: certificate has expired"
		second    = "smtp[12582]: Untrusted TLS connection established to mx.ma2.example.com[203.0.113.9]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
		untrusted = "smtp[12582]: 4jc9Mw73Zkz7905: Sender requested REQUIRETLS, but no trusted server certificate was found. The last attempted server was mx.ma2.example.com[203.0.113.9]"
		third     = "smtp[12582]: Verified TLS connection established to mx.ma2.example.com[203.0.113.10]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
		taken     = "smtp[12582]: 4jc9Mw73Zkz7905: to=<bob@ma2.example.com>, relay=mx.ma2.example.com[203.0.113.10]:25, delay=1.2, delays=0.21/0.15/0.6/0.24, tls=secure/requiretls, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as LAB)"
		final     = "smtp[12582]: 4jc9Mw73Zkz7905: to=<bob@ma2.example.com>, relay=mx.ma2.example.com[203.0.113.9]:25, delay=0.6, delays=0.21/0.15/0.24/0, tls=!secure/!requiretls:nocertmatch, dsn=5.7.10, status=bounced (Sender requested REQUIRETLS, but no trusted server certificate was found. The last attempted server was mx.ma2.example.com[203.0.113.9])"
		nostart   = "smtp[12602]: 4jc9N917zSz78xg: to=<bob@sts-nostarttls.example.com>, relay=mx.sts-nostarttls.example.com[192.0.2.55]:25, delay=0.08, delays=0.01/0/0.07/0, tls=!secure/!requiretls:nostarttls, dsn=5.7.30, status=bounced (Sender requested REQUIRETLS, but TLS service was not offered by host mx.sts-nostarttls.example.com[192.0.2.55])"
		forbidden = "smtp[12582]: 4jc9N917zSz78xh: to=<bob@pool-a.example.com>, relay=none, delay=0.02, delays=0.01/0/0/0, tls=may?/!requiretls:nocertmatch, dsn=5.7.10, status=bounced (Sender requested REQUIRETLS, but my configured TLS security level 'may' disables certificate matching. The last attempted server was mx1.pool.example)"
		unfit     = "smtp[12582]: 4jc9Mw73Zkz7905: Sender requested REQUIRETLS, but no server was found that supports REQUIRETLS. The last attempted server was mx.ma2.example.com[2001:db8::33]"
	)
	const verified = "ma2.example.com verified secure"
	check("another server is found", []string{"ma2.example.com trusted certificate-host-mismatch ", "ma2.example.com untrusted certificate-expired ", verified},
		mismatch, first, unmatched, expired, second, untrusted, third, taken)
	check("or none", []string{"ma2.example.com untrusted certificate-expired secure"}, expired, second, final)
	check("no STARTTLS", []string{"sts-nostarttls.example.com refused starttls-not-supported secure"}, nostart)
	check("no level that asks for a certificate: a fault of the sender", nil, forbidden)
	check("no REQUIRETLS", []string{"ma2.example.com trusted ", verified}, first, unfit, third, taken)
}
