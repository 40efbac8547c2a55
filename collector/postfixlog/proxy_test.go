package postfixlog

import (
	"strings"
	"testing"
)

// TestProxy joins what tlsproxy(8) and smtp(8) say about a handshake.
func TestProxy(t *testing.T) {
	const (
		connect  = "tlsproxy[5]: CONNECT to [192.0.2.1]:25"
		failed   = "tlsproxy[5]: TLS handshake failed for service=smtp peer=[192.0.2.1]:25"
		failed2  = "tlsproxy[5]: TLS handshake failed for service=smtp peer=[192.0.2.2]:25"
		hostless = "smtp[1]: 4jY1xQ00Dlz6X7y: Cannot start TLS: handshake failure"
		deferred = "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>" + relay + noShake
		status   = "tlsproxy[5]: TLSRPT: status=failure, domain=example.com, receiving_mx=mx.example.com[192.0.2.1], failure_type=validation_failure, failure_reason=tls-handshake-failure"
		other    = "smtp[2]: 4jY1xQ00Dlz6X7a: to=<eve@example.net>, relay=mx.example.net[192.0.2.2]:25" + noShake
		verify   = "tlsproxy[5]: server certificate verification failed for mx.example.com[192.0.2.1]:25: "
	)
	check := func(name string, log []byte, want ...string) {
		t.Helper()
		all, _ := parseAll(Options{}, log)
		got := briefs(all)
		for i := range all {
			if got[i] += " " + all[i].MX; all[i].MX == "" {
				got[i] += all[i].IP.String()
			}
			if all[i].Native {
				got[i] += " native"
			}
		}
		same(t, name, got, want)
	}
	const fail, drop = "example.com failed validation-failure", "example.com failed validation-failure dropped:unjoined"
	const plain = "example.com plaintext dropped:plaintext-fallback mx.example.com"
	check("the last line names the host", script(connect, failed, deferred), fail+" mx.example.com")
	check("for two recipients", script(connect, failed, deferred, strings.Replace(deferred, "bob", "eve", 1)), fail+" mx.example.com")
	check("tlsproxy is late", script(connect, deferred, failed), fail+" mx.example.com")
	check("tlsproxy says nothing: a fault of the sender", script(connect, deferred), drop+" mx.example.com")
	check("it is another host", script(connect, failed2, deferred), drop+" mx.example.com")
	check("it is long ago", script(failed, "+60 "+deferred), drop+" mx.example.com")
	check("plaintext with the same host follows", script(failed, failed2, hostless, sent), plain, fail+" mx.example.com")
	check("and with a message that failed there before", script(failed, deferred, "+5 "+failed, failed2, hostless, sent),
		fail+" mx.example.com", plain, fail+" mx.example.com")
	check("another host follows, and one failure it can be", script(failed2, hostless, trusted, sent),
		fail+" 192.0.2.2", "example.com trusted mx.example.com")
	check("another host follows, and it can be two", script(failed, failed2, hostless, strings.ReplaceAll(trusted, "192.0.2.1", "192.0.2.3"), strings.ReplaceAll(sent, "192.0.2.1", "192.0.2.3")),
		drop+" invalid IP", "example.com trusted mx.example.com")
	check("unless the other one is another's", script(failed, failed2, other, hostless, strings.ReplaceAll(trusted, "192.0.2.1", "192.0.2.3"), strings.ReplaceAll(sent, "192.0.2.1", "192.0.2.3")),
		"example.net failed validation-failure mx.example.net", fail+" 192.0.2.1", "example.com trusted mx.example.com")
	check("or a TLSRPT line says so", script(failed, status, failed2, hostless, strings.ReplaceAll(trusted, "192.0.2.1", "192.0.2.3"), strings.ReplaceAll(sent, "192.0.2.1", "192.0.2.3")),
		fail+" 192.0.2.1 native", "example.com trusted mx.example.com")
	again := "tlsproxy[6]: mx.example.com[192.0.2.1]:25: re-using session with untrusted peer credential, look for details earlier in the log"
	notVerified := "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>" + relay + notVer
	check("a resumed session has the fault of before", script(verify+"self-signed certificate", untrust, notVerified, "+60 "+again, untrust, notVerified),
		"example.com untrusted certificate-not-trusted mx.example.com", "example.com untrusted certificate-not-trusted mx.example.com")
	check("even if that is long ago", script(verify+"certificate has expired", untrust, notVerified, "+3000 "+again, untrust, notVerified),
		"example.com untrusted certificate-expired mx.example.com", "example.com untrusted certificate-expired mx.example.com")
	check("or nobody knows which", script(again, untrust, notVerified), "example.com untrusted certificate-not-trusted mx.example.com")
	check("the TLSRPT line comes first", script(status, failed, deferred), fail+" mx.example.com native")
	check("of the server side", script(strings.Replace(failed, "=smtp", "=smtpd", 1), deferred), drop+" mx.example.com")
	bad := "smtp[1]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>" + relay + notVer
	summary := strings.Replace(untrust, "smtp[1]", "tlsproxy[5]", 1)
	check("the reason is tlsproxy's", script(verify+"certificate has expired", summary, untrust, bad), "example.com untrusted certificate-expired mx.example.com")
	check("or one of two", script(verify+"certificate has expired", verify+"num=62:hostname mismatch", summary, untrust, bad), "example.com untrusted validation-failure mx.example.com")
	check("or an old one", script(verify+"certificate has expired", "+60 "+summary, untrust, bad), "example.com untrusted validation-failure mx.example.com")
	check("the TLSA records are unusable",
		script("tlsproxy[5]: warning: mx.example.com[192.0.2.1]:25: all TLSA records unusable, fallback to unauthenticated TLS", summary, untrust, sent, untrust, sent),
		"example.com untrusted tlsa-invalid mx.example.com", "example.com untrusted mx.example.com")
}
