package receiver

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// checkGood holds what is the same however the report came.
func checkGood(t *testing.T, r Report) {
	t.Helper()
	if len(r.Problems) > 0 {
		t.Errorf("problems: %q", r.Problems)
	}
	day, err := schema.ParseDay("2026-11-22")
	if err != nil {
		t.Fatal(err)
	}
	if r.Domain != "example.org" || r.Submitter != "example.com" || r.ReportID != goodID || r.Day != day {
		t.Errorf("got %q from %q, id %q, day %s", r.Domain, r.Submitter, r.ReportID, r.Day)
	}
	if want := (schema.Summary{Success: 22, Failure: 3}); r.Sessions != want {
		t.Errorf("sessions %+v, want %+v", r.Sessions, want)
	}
	if string(r.JSON) != goodJSON || r.Content == nil {
		t.Errorf("JSON %q, content %v", r.JSON, r.Content)
	}
}

func TestGoodMail(t *testing.T) {
	f := newFixture(t)
	r := CheckMail(f.mail(), f.lookup)
	checkGood(t, r)
	if r.Via != "mailto" || !slices.Equal(r.To, []string{"tlsrpt@example.org"}) || !r.Time.Equal(arrival) {
		t.Errorf("via %q to %q at %s", r.Via, r.To, r.Time)
	}
	if len(r.Signatures) != 2 {
		t.Fatalf("%d signatures, want 2", len(r.Signatures))
	}
	// The second signature was put in front of the first.
	for i, want := range []string{"tlsrpt2 ed25519-sha256", "tlsrpt rsa-sha256"} {
		s := r.Signatures[i]
		if got := s.Selector + " " + s.Algorithm; got != want || s.Domain != "example.com" || s.Err != nil {
			t.Errorf("signature %d is %q of %q: %v; want %q", i, got, s.Domain, s.Err, want)
		}
		if n := countOf(s.Covered, "tls-report-domain"); n != 2 {
			t.Errorf("signature %d covers tls-report-domain %d times, want 2: it is over-signed", i, n)
		}
	}
}

func countOf(list []string, want string) (n int) {
	for _, s := range list {
		if s == want {
			n++
		}
	}
	return n
}

func TestGoodPost(t *testing.T) {
	ed := func(f *fixture) {
		f.httpKey = keys().ed
		f.params = strings.NewReplacer("tlsrpt._", "tlsrpt2._", "rsa-v1_5-sha256", "ed25519").Replace(f.params)
	}
	other := func(f *fixture) { f.params = f.swap(f.params, `tag="tlsrpt"`, `tag="proxy"`) }
	for _, c := range []struct {
		name   string
		change func(*fixture)
		want   []string
	}{
		{"rsa", func(*fixture) {}, []string{"tlsrpt rsa-v1_5-sha256"}},
		{"ed25519", ed, []string{"tlsrpt2 ed25519"}},
		{"unsigned", func(f *fixture) { f.unsigned = true }, nil},
		{"signed for something else", other, nil},
		{"signed by a proxy as well", func(f *fixture) {
			f.afterSign = func(p *Post) {
				p.Header.Add("Signature-Input", `proxy=("via");tag="proxy"`)
				p.Header.Add("Signature", `proxy=:AAAA:`)
			}
		}, []string{"tlsrpt rsa-v1_5-sha256"}},
		{"does not expire yet", func(f *fixture) { f.params += fmt.Sprintf(";expires=%d", arrival.Unix()+60) },
			[]string{"tlsrpt rsa-v1_5-sha256"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			c.change(f)
			r := CheckPost(f.post(), f.lookup)
			checkGood(t, r)
			if r.Via != "https" || !slices.Equal(r.To, []string{goodURL}) {
				t.Errorf("via %q to %q", r.Via, r.To)
			}
			var got []string
			for _, s := range r.Signatures {
				if got = append(got, s.Selector+" "+s.Algorithm); s.Err != nil || s.Domain != "example.com" {
					t.Errorf("signature of %q: %v", s.Domain, s.Err)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("signatures %q, want %q", got, c.want)
			}
		})
	}
}

// mutation is one thing that is wrong with a report, and what the receiver says.
type mutation struct {
	name   string
	spoil  func(*fixture)
	reason string // in one of the problems
}

// both go wrong the same by mail and by HTTPS.
var both = []mutation{
	{"not gzip", func(f *fixture) { f.packed = []byte("not gzip at all") }, "gzip: gzip: invalid header"},
	{"cut short", func(f *fixture) { b := f.gzip(); f.packed = b[:len(b)-4] }, "gzip: unexpected EOF"},
	{"spoilt within", func(f *fixture) { b := f.gzip(); b[len(b)-6] ^= 1; f.packed = b }, "gzip: gzip: invalid checksum"},
	{"second member", func(f *fixture) { f.packed = append(f.gzip(), f.gzip()...) }, "something follows the compressed report"},
	{"compressed twice", func(f *fixture) { f.packed = compress(f.t, f.gzip()) }, "the JSON is not UTF-8"},
	{"bomb", func(f *fixture) { f.packed = compress(f.t, make([]byte, maxJSON+1)) }, "more than 10000000 bytes when decompressed"},
	{"not UTF-8", func(f *fixture) { f.replace("Example Inc.", "Ex\xffmple") }, "the JSON is not UTF-8"},
	{"not JSON", func(f *fixture) { f.json = "{]" }, "malformed JSON: invalid character"},
	{"half JSON", func(f *fixture) { f.json = f.json[:40] }, "malformed JSON: unexpected EOF"},
	{"no JSON", func(f *fixture) { f.json = "" }, "malformed JSON: unexpected EOF"},
	{"an array for the object", func(f *fixture) { f.json = "[]" }, "schema: "},
	{"twice JSON", func(f *fixture) { f.json += "{}" }, "something follows the JSON"},
	{"deep JSON", func(f *fixture) {
		f.replace(`"failure-details": []`, `"failure-details": [], "x": `+strings.Repeat("[", 40)+strings.Repeat("]", 40))
	}, "malformed JSON: nested too deep"},
	{"null", func(f *fixture) { f.replace(`"tls-reports@example.com"`, "null") }, "contact-info is null"},
	{"null within", func(f *fixture) { f.replace(`"failure-details": []`, `"failure-details": null`) },
		"policies[1].failure-details is null"},
	{"empty string", func(f *fixture) { f.replace(`"2001:db8::25"`, `""`) },
		"policies[0].failure-details[0].sending-mta-ip is empty"},
	{"empty line of a policy", func(f *fixture) { f.replace(`"mode: enforce"`, `""`) },
		"policies[0].policy.policy-string[1] is empty"},
	{"member twice", func(f *fixture) { f.replace(`"policy-type": "sts",`, `"policy-type": "sts", "policy-type": "sts",`) },
		"policies[0].policy.policy-type is there twice"},
	{"mx-host a string", func(f *fixture) { f.replace(`["mx1.example.org"]`, `"mx1.example.org"`) },
		"policies[0].policy.mx-host is not an array"},
	{"policy-string a string", func(f *fixture) { f.replace(`["3 1 1 `, `"3 1 1 `); f.replace(`085D"]`, `085D"`) },
		"policies[1].policy.policy-string is not an array"},
	{"not an IP address", func(f *fixture) { f.replace("192.0.2.25", "192.0.2.256") }, "receiving-ip is \"192.0.2.256\", not an IP address"},
	{"long IPv6 address", func(f *fixture) { f.replace("2001:db8::25", "2001:db8:0:0:0:0:0:25") }, "sending-mta-ip is \"2001:db8:0:0:0:0:0:25\", not an IP"},
	{"IPv6 zone", func(f *fixture) { f.replace("2001:db8::25", "fe80::25%eth0") }, "sending-mta-ip is \"fe80::25%eth0\""},
	{"mapped IPv4", func(f *fixture) { f.replace("2001:db8::25", "::ffff:192.0.2.1") }, "sending-mta-ip is \"::ffff:192.0.2.1\""},
	{"fraction in a count", func(f *fixture) { f.replace("count\": 17", "count\": 17.5") }, "is 17.5, not a count of 32 bits"},
	{"negative count", func(f *fixture) { f.replace("count\": 17", "count\": -17") }, "is -17, not a count"},
	{"count beyond a double", func(f *fixture) { f.replace("count\": 17", "count\": 9007199254740992") }, "is 9007199254740992, not a count"},
	{"count beyond 32 bits", func(f *fixture) { f.replace("count\": 17", "count\": 4294967296") }, "is 4294967296, not a count of 32 bits"},
	{"no policy domain", func(f *fixture) { f.replace(`"policy-domain": "example.org",`, "") }, "policies[0].policy.policy-domain is missing"},
	{"no failures counted", func(f *fixture) { f.replace(`, "total-failure-session-count": 3`, "") },
		"policies[0].summary.total-failure-session-count is missing"},
	{"no summary", func(f *fixture) {
		f.replace(`"summary": {"total-successful-session-count": 5, "total-failure-session-count": 0},`, "")
	},
		"policies[1].summary is missing"},
	{"no contact", func(f *fixture) { f.replace(`"contact-info": "tls-reports@example.com",`, "") }, "contact-info is missing"},
	{"no failure details", func(f *fixture) {
		f.replace("\"total-failure-session-count\": 0},\n      \"failure-details\": []", "\"total-failure-session-count\": 0}")
	},
		"policies[1].failure-details is missing"},
	{"no failed sessions", func(f *fixture) { f.replace(",\n          \"failed-session-count\": 3", "") },
		"policies[0].failure-details[0].failed-session-count is missing"},
	{"policies an object", func(f *fixture) {
		f.json = strings.Replace(strings.Replace(f.json, `"policies": [`, `"policies": {"x": [`, 1), "\n  ]\n}", "\n  ]}\n}", 1)
	},
		"policies is not an array"},
	{"time with a fraction", func(f *fixture) { f.replace("00:00:00Z", "00:00:00.0Z") }, "date-range.start-datetime is \"2026-11-22T00:00:00.0Z\""},
	{"time with a zone", func(f *fixture) { f.replace("23:59:59Z", "23:59:59+00:00") }, "date-range.end-datetime is \"2026-11-22T23:59:59+00:00\""},
	{"time without a zone", func(f *fixture) { f.replace("23:59:59Z", "23:59:59") }, "date-range.end-datetime is \"2026-11-22T23:59:59\""},
	{"ends at midnight", func(f *fixture) { f.replace("2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z") }, "not one UTC day"},
	{"starts at noon", func(f *fixture) { f.replace("2026-11-22T00:00:00Z", "2026-11-22T12:00:00Z") }, "not one UTC day"},
	{"unknown result type", func(f *fixture) { f.replace("certificate-expired", "certificate-stale") }, "result-type"},
	{"unknown policy type", func(f *fixture) { f.replace(`"sts"`, `"mta-sts"`) }, "policy-type"},
	{"no policies", func(f *fixture) {
		f.json = f.json[:strings.Index(f.json, `"policies": [`)] + `"policies": []}`
	}, "policies"},
}

var byMail = []mutation{
	// Bytes.
	{"bare LF", func(f *fixture) { f.text = f.swap(f.text, "failed.\r\n", "failed.\nBye.\r\n") }, "a line does not end in CRLF"},
	{"bare CR", func(f *fixture) { f.text = f.swap(f.text, "failed.", "fai\rled.") }, "a line does not end in CRLF"},
	{"8-bit text", func(f *fixture) { f.text = f.swap(f.text, "17", "≥17") }, "the message is not 7-bit"},
	{"NUL", func(f *fixture) { f.text = f.swap(f.text, "17", "\x00") }, "the message is not 7-bit"},
	{"long line", func(f *fixture) { f.text += strings.Repeat("x", 999) + "\r\n" }, "a line of 999 bytes, want at most 998"},
	{"large", func(f *fixture) { f.dkim, f.text = nil, f.text+strings.Repeat(strings.Repeat("x", 900)+"\r\n", 17500) }, "want at most 15728640"},
	{"not a message", func(f *fixture) { f.dkim = nil; f.header[0] = "no header field" }, "malformed message"},

	// Header.
	{"no TLS-Required", func(f *fixture) { f.set("TLS-Required") }, "TLS-Required is there 0 times"},
	{"TLS-Required twice", func(f *fixture) { f.set("TLS-Required", "TLS-Required: No", "TLS-Required: No") }, "TLS-Required is there 2 times"},
	{"TLS-Required: Yes", func(f *fixture) { f.set("TLS-Required", "TLS-Required: Yes") }, `TLS-Required is "Yes", not No`},
	{"no From", func(f *fixture) { f.afterDKIM = dropLine(f, "From:") }, "From is there 0 times"},
	{"two addresses in From", func(f *fixture) { f.set("From", "From: a@example.com, b@example.com") }, "not one address"},
	{"no Date", func(f *fixture) { f.set("Date") }, "Date is there 0 times"},
	{"Date malformed", func(f *fixture) { f.set("Date", "Date: yesterday") }, `Date is "yesterday", not a date`},
	{"no Message-ID", func(f *fixture) { f.set("Message-ID") }, "Message-ID is there 0 times"},
	{"Message-ID without brackets", func(f *fixture) { f.set("Message-ID", "Message-ID: a@example.com") }, "Message-ID: \"a@example.com\" is not of the form"},
	{"Message-ID with an empty atom", func(f *fixture) { f.set("Message-ID", "Message-ID: <a..b@example.com>") }, "Message-ID: \"<a..b@example.com>\" is not"},
	{"no MIME-Version", func(f *fixture) { f.set("MIME-Version") }, "MIME-Version is there 0 times"},
	{"no TLS-Report-Domain", func(f *fixture) { f.set("TLS-Report-Domain") }, "TLS-Report-Domain is there 0 times"},
	{"TLS-Report-Domain twice", func(f *fixture) {
		f.set("TLS-Report-Domain", "TLS-Report-Domain: example.org", "TLS-Report-Domain: example.org")
	}, "TLS-Report-Domain is there 2 times"},
	{"TLS-Report-Domain in upper case", func(f *fixture) { f.set("TLS-Report-Domain", "TLS-Report-Domain: Example.ORG") },
		"not a domain in A-labels and lower case"},
	{"TLS-Report-Submitter no domain", func(f *fixture) { f.set("TLS-Report-Submitter", "TLS-Report-Submitter: Example Inc.") },
		"TLS-Report-Submitter is \"Example Inc.\", not a domain"},

	// Agreement of header and report.
	{"TLS-Report-Domain of another", func(f *fixture) {
		f.set("TLS-Report-Domain", "TLS-Report-Domain: example.net")
		f.json = f.json[:strings.LastIndex(f.json, "},\n    {")] + "}]}"
	}, "TLS-Report-Domain is \"example.net\", no policy is of that domain"},
	{"TLS-Report-Submitter of another", func(f *fixture) { f.set("TLS-Report-Submitter", "TLS-Report-Submitter: example.net") },
		`TLS-Report-Submitter is "example.net", contact-info "example.com"`},
	{"contact of another", func(f *fixture) { f.replace("tls-reports@example.com", "tls-reports@example.net") },
		`the domain of From is "example.com", contact-info "example.net"`},

	// Subject.
	{"no Subject", func(f *fixture) { f.set("Subject") }, "Subject is there 0 times"},
	{"Subject too short", func(f *fixture) { f.set("Subject", "Subject: TLS report for example.org") }, "Subject: 4 words, want 7"},
	{"Subject in other case", func(f *fixture) {
		f.set("Subject", "Subject: Report domain: example.org Submitter: example.com Report-ID: <"+goodID+">")
	}, `Subject: "domain:" where "Domain:" is due`},
	{"Subject with a bare id", func(f *fixture) {
		f.set("Subject", "Subject: Report Domain: example.org Submitter: example.com Report-ID: "+goodID)
	}, "Subject: Report-ID: "},
	{"Subject with a colon in the id", func(f *fixture) {
		f.set("Subject", "Subject: Report Domain: example.org Submitter: example.com Report-ID: <2026-11-22T00:00:00Z@example.com>")
	}, "is not of the form <left@right>"},
	{"Subject with another id", func(f *fixture) {
		f.set("Subject", "Subject: Report Domain: example.org Submitter: example.com Report-ID: <1@example.com>")
	}, `the Subject's Report-ID is "1@example.com"`},
	{"Subject with another domain", func(f *fixture) {
		f.set("Subject", "Subject: Report Domain: example.net Submitter: example.com Report-ID: <"+goodID+">")
	}, `the Subject's domain is "example.net"`},
	{"Subject with another submitter", func(f *fixture) {
		f.set("Subject", "Subject: Report Domain: example.org Submitter: example.net Report-ID: <"+goodID+">")
	}, `the Subject's submitter is "example.net"`},

	// MIME.
	{"multipart/mixed", func(f *fixture) { f.set("Content-Type", `Content-Type: multipart/mixed; boundary="b0"`) },
		"not multipart/report with report-type=tlsrpt"},
	{"no report-type", func(f *fixture) { f.set("Content-Type", `Content-Type: multipart/report; boundary="b0"`) },
		"not multipart/report with report-type=tlsrpt"},
	{"wrong report-type", func(f *fixture) {
		f.set("Content-Type", `Content-Type: multipart/report; report-type="delivery-status"; boundary="b0"`)
	}, "not multipart/report with report-type=tlsrpt"},
	{"no boundary", func(f *fixture) { f.set("Content-Type", `Content-Type: multipart/report; report-type="tlsrpt"`) },
		"malformed multipart: no boundary"},
	{"no final boundary", func(f *fixture) { f.tail = "" }, "malformed multipart"},
	{"cut short within the header of a part", func(f *fixture) {
		f.dkim = nil
		f.beforeDKIM = func(s string) string { return s[:strings.Index(s, "Content-Disposition")+10] }
	}, "malformed multipart"},
	{"one part", func(f *fixture) {
		f.beforeDKIM = func(s string) string {
			head, rest, _ := strings.Cut(s, "--b0\r\n")
			_, rest, _ = strings.Cut(rest, "--b0\r\n")
			return head + "--b0\r\n" + rest
		}
	}, "1 parts, want 2"},
	{"three parts", func(f *fixture) { f.tail = "--b0\r\nContent-Type: text/plain\r\n\r\nFooter.\r\n--b0--\r\n" }, "3 parts, want 2"},
	{"first part HTML", func(f *fixture) { f.text = f.swap(f.text, "text/plain", "text/html") }, `the first part is "text/html"`},
	{"first part empty", func(f *fixture) { f.text = "Content-Type: text/plain\r\n\r\n\r\n" }, "the text for people is empty"},
	{"second part application/tlsrpt", func(f *fixture) {
		f.setPart("Content-Type", "Content-Type: application/tlsrpt")
	}, `the second part is "application/tlsrpt"`},
	{"second part application/gzip", func(f *fixture) { f.setPart("Content-Type", "Content-Type: application/gzip") },
		`the second part is "application/gzip"`},
	{"no name", func(f *fixture) { f.setPart("Content-Type", "Content-Type: application/tlsrpt+gzip") }, `name of Content-Type is "", filename`},
	{"inline", func(f *fixture) {
		f.setPart("Content-Disposition", `Content-Disposition: inline; filename="`+goodName+`"`)
	}, "not attachment"},
	{"no disposition", func(f *fixture) { f.setPart("Content-Disposition") }, "the report has no file name"},
	{"quoted-printable", func(f *fixture) {
		f.setPart("Content-Transfer-Encoding", "Content-Transfer-Encoding: quoted-printable")
	}, `Content-Transfer-Encoding is "quoted-printable", not base64`},
	{"no transfer encoding", func(f *fixture) { f.setPart("Content-Transfer-Encoding") }, `Content-Transfer-Encoding is "", not base64`},
	{"not base64", func(f *fixture) { f.encode = func(b []byte) string { return "*" + base64Lines(b) } }, "base64: "},
	{"one long base64 line", func(f *fixture) {
		f.encode = func(b []byte) string { return strings.ReplaceAll(base64Lines(b)[:156], "\r\n", "") + "\r\n" }
	}, "base64: a line of 152 bytes, want at most 76"},

	// File name (RFC 8460, section 5.1).
	{"file name .gz", func(f *fixture) { f.rename(".json.gz", ".gz") }, "it does not end in .json.gz"},
	{"file name .json", func(f *fixture) { f.rename(".json.gz", ".json") }, "it does not end in .json.gz"},
	{"file name of three parts", func(f *fixture) { f.rename("!1795391999!0a1b2c3d4e5f6071", "") }, "3 parts between exclamation marks"},
	{"file name of six parts", func(f *fixture) { f.rename(".json", "!x.json") }, "6 parts between exclamation marks"},
	{"file name with a bad id", func(f *fixture) { f.rename("!0a1b2c3d4e5f6071", "!0a-1b") }, `unique-id "0a-1b" is not letters and digits`},
	{"file name with a date", func(f *fixture) { f.rename("!1795305600", "!2026-11-22") }, `timestamp "2026-11-22" is not digits`},
	{"file name with a sign", func(f *fixture) { f.rename("!1795305600", "!+1795305600") }, `timestamp "+1795305600" is not digits`},
	{"file name with no time", func(f *fixture) { f.rename("!1795305600", "!") }, "invalid syntax"},
	{"file name with another period", func(f *fixture) { f.rename("1795391999", "1795392000") }, "its period is not that of the report"},
	{"file name with another begin", func(f *fixture) { f.rename("1795305600", "1795305601") }, "its period is not that of the report"},
	{"file name with another submitter", func(f *fixture) { f.rename("example.com!", "example.net!") },
		`the file name's submitter is "example.net"`},
	{"file name with another domain", func(f *fixture) { f.rename("!example.org!", "!example.net!") },
		`the file name's domain is "example.net"`},

	// DKIM.
	{"not signed", func(f *fixture) { f.dkim = nil }, "no DKIM signature"},
	{"wrong key", func(f *fixture) { f.dkim[0].Signer = keys().other }, "DKIM signature of example.com: dkim: signature did not verify"},
	{"second signature with a wrong key", func(f *fixture) {
		f.records["tlsrpt2._domainkey.example.com"] = keyText(f.t, otherEd(f.t), "email:tlsrpt")
	}, "signature did not verify"},
	{"body altered", func(f *fixture) { f.afterDKIM = func(s string) string { return f.swap(s, "3 failed", "0 failed") } }, "body hash did not verify"},
	{"TLS-Report-Domain altered", func(f *fixture) {
		f.afterDKIM = func(s string) string {
			return f.swap(s, "\r\nTLS-Report-Domain: example.org", "\r\nTLS-Report-Domain: mx1.example.org")
		}
	}, "signature did not verify"},
	{"TLS-Report-Domain added", func(f *fixture) {
		f.afterDKIM = func(s string) string { return "TLS-Report-Domain: example.net\r\n" + s }
	}, "signature did not verify"},
	{"l= present", func(f *fixture) {
		f.afterDKIM = func(s string) string { return f.swap(s, " bh=", " l=10; bh=") }
	}, "it uses l="},
	{"nothing but a header", func(f *fixture) {
		f.afterDKIM = func(s string) string { return s[:strings.Index(s, "\r\n\r\n")+2] }
	}, "DKIM: 2 signatures, 0 verifications"},
	{"tag twice", func(f *fixture) {
		f.afterDKIM = func(s string) string { return f.swap(s, " bh=", " d=example.com; bh=") }
	}, `tag "d" is there twice`},
	{"tag without a value", func(f *fixture) {
		f.afterDKIM = func(s string) string { return f.swap(s, " bh=", " zz; bh=") }
	}, `tag "zz" is not of the form name=value`},
	{"signed by another domain", func(f *fixture) {
		f.dkim = f.dkim[:1]
		f.dkim[0].Domain = "mail.example.net"
		f.records["tlsrpt._domainkey.mail.example.net"] = f.records["tlsrpt._domainkey.example.com"]
	}, `the DKIM signature's domain is "mail.example.net", From "example.com"`},
	{"TLS-Report-Domain not signed", func(f *fixture) { f.unsign("TLS-Report-Domain") }, "it does not cover tls-report-domain"},
	{"TLS-Report-Submitter not signed", func(f *fixture) { f.unsign("TLS-Report-Submitter") }, "it does not cover tls-report-submitter"},
	{"key for email only", func(f *fixture) { f.setKey(keyText(f.t, keys().rsa, "email")) }, "the key's s= does not allow tlsrpt"},
	{"key for tlsrpt only", func(f *fixture) { f.setKey(keyText(f.t, keys().rsa, "tlsrpt")) }, "the key's s= does not allow email"},
	{"no key", func(f *fixture) { delete(f.records, "tlsrpt._domainkey.example.com") }, "no key"},
	{"two keys", func(f *fixture) { f.setKey(keyText(f.t, keys().rsa, "*") + "\x00" + keyText(f.t, keys().other, "*")) }, "2 key records, want 1"},
	{"revoked key", func(f *fixture) { f.setKey("v=DKIM1; p=") }, "no key in p="},
	{"key not base64", func(f *fixture) { f.setKey("v=DKIM1; p=#") }, "no key in p="},
	{"key of another version", func(f *fixture) { f.setKey("v=DKIM2; p=AAAA") }, `version "DKIM2"`},
	{"key for sha1", func(f *fixture) { f.setKey("v=DKIM1; h=sha1; p=AAAA") }, "it does not allow sha256"},
	{"key of another kind", func(f *fixture) { f.setKey("v=DKIM1; k=dsa; p=AAAA") }, `unknown key type "dsa"`},
	{"key cut short", func(f *fixture) { f.setKey("v=DKIM1; p=AAAA") }, "key record: asn1: "},
	{"Ed25519 key cut short", func(f *fixture) { f.setKey("v=DKIM1; k=ed25519; p=AAAA") }, "not an Ed25519 key"},
	{"key malformed", func(f *fixture) { f.setKey("no tags") }, `key record: tag "no tags"`},
	{"short RSA key", func(f *fixture) { f.setKey(keyText(f.t, shortKey(f.t), "*")) }, "at least 1024 bits"},
	{"selector without a key", func(f *fixture) { f.dkim[0].Selector = "other" }, "no TXT record at other._domainkey.example.com"},
}

// rename changes the file name of the report.
func (f *fixture) rename(old, new string) {
	f.t.Helper()
	f.setPart("Content-Disposition", `Content-Disposition: attachment; filename="`+f.swap(goodName, old, new)+`"`)
}

// unsign leaves a header field out of all signatures.
func (f *fixture) unsign(name string) {
	for _, o := range f.dkim {
		o.HeaderKeys = slices.DeleteFunc(o.HeaderKeys, func(s string) bool { return s == name })
	}
}

func (f *fixture) setKey(text string) { f.records["tlsrpt._domainkey.example.com"] = text }

func dropLine(f *fixture, prefix string) func(string) string {
	return func(s string) string {
		_, rest, _ := strings.Cut(s, "\r\n"+prefix)
		line, _, _ := strings.Cut(rest, "\r\n")
		return f.swap(s, "\r\n"+prefix+line, "")
	}
}

func TestBadMail(t *testing.T) {
	for _, m := range slices.Concat(both, byMail) {
		t.Run(m.name, func(t *testing.T) {
			f := newFixture(t)
			m.spoil(f)
			wantProblem(t, CheckMail(f.mail(), f.lookup), m.reason)
		})
	}
}

func TestTooMuchGzip(t *testing.T) {
	// By mail such a report is too large a message before it is too much gzip.
	f := newFixture(t)
	f.packed = make([]byte, maxGzip+1)
	wantProblem(t, CheckPost(f.post(), f.lookup), "gzip: 10000001 bytes, want at most 10000000")
}

func wantProblem(t *testing.T, r Report, reason string) {
	t.Helper()
	if !slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, reason) }) {
		t.Errorf("problems %q, want one with %q", r.Problems, reason)
	}
}

// The reader must not take a message for good because it could not read it.
func TestDKIMOfManySignatures(t *testing.T) {
	f := newFixture(t)
	var signed bytes.Buffer
	if err := dkim.Sign(&signed, bytes.NewReader(f.message()), f.dkim[0]); err != nil {
		t.Fatal(err)
	}
	m := f.mail()
	m.Data = signed.Bytes()
	if r := CheckMail(m, f.lookup); len(r.Signatures) != 3 || len(r.Problems) > 0 {
		t.Errorf("%d signatures, problems %q; want 3 and none", len(r.Signatures), r.Problems)
	}
}

func TestPolicyOfDomain(t *testing.T) {
	of := func(kind schema.PolicyType, domain string) *schema.Report {
		return &schema.Report{Policies: []schema.PolicyResult{{Policy: schema.Policy{Type: kind, Domain: domain}}}}
	}
	for _, c := range []struct {
		report *schema.Report
		about  bool
		first  string
	}{
		{of(schema.STS, "example.org"), true, "example.org"},
		{of(schema.STS, "mail.example.org"), true, "mail.example.org"},
		{of(schema.STS, "badexample.org"), false, "badexample.org"},
		{of(schema.TLSA, "mx.example.net"), true, "mx.example.net"}, // an MX host may lie anywhere
		{of(schema.NoPolicyFound, "example.net"), false, "example.net"},
		{&schema.Report{}, false, ""},
	} {
		if got := aboutDomain(c.report, "example.org"); got != c.about {
			t.Errorf("%+v is about example.org: %t, want %t", c.report.Policies, got, c.about)
		}
		if got := firstDomain(c.report); got != c.first {
			t.Errorf("first domain of %+v is %q, want %q", c.report.Policies, got, c.first)
		}
	}
}

func shortKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	k, err := rsa.GenerateKey(rand.Reader, 768)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
