// Package conformance is RFC 8460 as a list of numbered rules for whoever sends
// reports, with what this program does about each and the tests that hold it to
// that. docs/conformance.md and the table of the README are generated from it.
//
// Numbers never change: faults that "tlsrpt-agent validate" finds name them.
package conformance

// Level is how much a rule demands, in the words of RFC 2119. Words in lower case
// demand nothing (RFC 8460, section 1.1), but are followed here.
type Level string

const (
	Must       Level = "MUST"
	Should     Level = "SHOULD"
	May        Level = "MAY"
	Lower      Level = "should" // in lower case
	Definition Level = "defines"
	Silent     Level = "silent" // the RFC leaves it open
)

// Rule is one demand of RFC 8460.
type Rule struct {
	Number  int
	Section string
	Level   Level
	Rule    string   // in our words
	Agent   string   // what the agent does
	Tests   []string // "package.Test"; TestRuleN of this package is found by its name
}

// Rules is every rule, by its number. Numbers that are missing repeat another
// rule, or are for receivers and registries.
var Rules = []Rule{
	{1, "1.1", Definition, "The policy domain is the recipient domain, or the smarthost that mail for it is routed to.", "It takes the domain that the mail server reports; a log source takes the recipient domain.", []string{"collector/postfixlog.TestDomains"}},
	{2, "1.1", Definition, "For DANE the policy domain is the TLSA base domain.", "The `policy-domain` of a tlsa policy is the base domain; the report goes to the recipient domain, and with `submit.mx_host_reports` to a record of the MX host, too.", []string{"internal/policy.TestLookupTLSA", "agent.TestMXHostReports"}},
	{5, "3", Definition, "The record is a TXT record at `_smtp._tls.` and the policy domain; no parent is asked.", "It asks for exactly this name.", []string{"submitter.TestDiscover"}},
	{6, "3", Must, "The version is `TLSRPTv1`.", "Another version is no record.", []string{"schema.TestSelectRecord"}},
	{7, "3", Definition, "The version comes first, then at least one field; a semicolon may end the record.", "As the RFC says.", []string{"schema.TestParseRecord"}},
	{8, "3", Definition, "Fields are separated by a semicolon with white space around it.", "As the RFC says.", []string{"schema.TestParseRecord"}},
	{9, "3", Definition, "A record has a `rua` field; the grammar allows several.", "All `rua` fields count together.", []string{"schema.TestParseRecord"}},
	{10, "3", Definition, "The version has a case and no white space in it.", "As the RFC says; `lookup` points out what is nearly right.", []string{"schema.TestWhyNoRecord"}},
	{11, "3", Definition, "`rua` is a list of URIs with commas between them.", "One bad URI drops only itself; at most 8 are used, each once.", []string{"schema.TestParseRUA"}},
	{12, "3", Must, "Within a URI comma, exclamation mark and semicolon are percent-encoded.", "A URI with a bare one is dropped, a size such as `!10m` included.", []string{"schema.TestParseRUA"}},
	{13, "3", Definition, "The schemes are mailto and https.", "A URI of another scheme is dropped.", []string{"schema.TestParseRUA"}},
	{14, "3", Definition, "An extension has a name of at most 32 characters and a value.", "One that is malformed is dropped and named by `lookup`.", []string{"schema.TestParseRecord"}},
	{15, "3", Must, "Unknown fields are ignored.", "They are.", []string{"schema.TestParseRecord"}},
	{16, "3", Must, "Of several TXT records only those that begin with `v=TLSRPTv1;` count; unless exactly one is left, the domain does not take part.", "As the RFC says: two records are none.", []string{"schema.TestSelectRecord"}},
	{17, "3", Must, "The character-strings of a record are joined without spaces.", "They are.", []string{"internal/resolve.TestLookupTXT"}},
	{18, "3", Silent, "Aliases, malformed records, failing name servers.", "A CNAME is followed; a record without a usable `rua` is none; while DNS fails, the look-up is repeated.", []string{"internal/resolve.TestCNAME", "submitter.TestDiscoverFailure", "agent.TestHostileDomain"}},
	{19, "3", Silent, "The text wants `v=TLSRPTv1;`, the grammar allows white space before the semicolon.", "A record in the form of the text goes before one that only the grammar allows.", []string{"schema.TestSelectRecord"}},
	{20, "3", May, "A report may go to each destination.", "It goes to each, see `submit.all_rua`.", []string{"aggregator.TestPlanReport"}},
	{21, "3", May, "The reporter may try one destination only (erratum 8070).", "With `submit.all_rua = false` the next is tried only after a failure.", []string{"aggregator.TestInTurn"}},
	{22, "3", Should, "A report is delivered only when one destination took it.", "Each destination is tried until it took the report or refused it for good.", []string{"agent.TestRetry", "aggregator.TestInTurn"}},
	{23, "3", Silent, "Nobody verifies that a destination wants the reports of another domain.", "Destinations are bounded in number and rate, and never private.", []string{"submitter.TestPrivateDestination", "aggregator.TestClaimPerHost"}},
	{24, "3", Lower, "https: the report is sent by POST.", "It is.", []string{"submitter.TestUpload"}},
	{25, "3", May, "Certificate errors may be ignored for https.", "Certificates are verified, unless `https.on_certificate_error` says otherwise.", []string{"submitter.TestBadCertificate"}},
	{26, "3", Lower, "mailto: the report is mailed to the address.", "It is; the address is percent-decoded, header fields in the URI are ignored.", []string{"submitter.TestSubmitMail"}},
	{27, "3", Must, "A report is mailed whatever is wrong with TLS.", "It carries `TLS-Required: No` (RFC 8689); `check` prints the transport that a relay needs which does not know it.", []string{"internal/lab.TestPostfixEvents", "cmd/tlsrpt-agent.TestCheckReportMail"}},
	{28, "5.3.1", Must, "Failures of DANE and MTA-STS do not hold up report mail.", "With `mail.via = \"mx\"` any certificate will do, and where TLS fails the mail goes without; a relay decides by `TLS-Required: No`, or by its transport.", []string{"internal/lab.TestPostfixEvents", "submitter.TestDirectWithoutTLS"}},
	{29, "3", Should, "The session that carried a report is not reported.", "Log sources leave out mail of the agent's own sender; Postfix 3.10.4 and newer makes no event of it; for 3.10.0 to 3.10.3 there is `source.libtlsrpt.counts_reports`.", []string{"collector/postfixlog.TestOwnReports", "agent.TestOwnReports", "internal/lab.TestPostfixEvents"}},
	{30, "3", Must, "A mailed report has a valid DKIM signature of the reporting domain.", "RSA first, Ed25519 as a second one, `d=` the domain of contact and From; without a key no mail is sent.", []string{"submitter.TestDKIM", "submitter.TestDKIMIndependently"}},
	{31, "3", Must, "The signature has no `l=`.", "It never has.", []string{"submitter.TestDKIM"}},
	{32, "3", Should, "The key record names the service `tlsrpt`.", "`keygen` prints `s=email:tlsrpt`, for with `tlsrpt` alone RFC 6376 has ordinary verifiers ignore the key; `check` compares it with DNS. dkimpy takes the list for one word and finds no key.", []string{"submitter.TestParseKeyRecord", "cmd/tlsrpt-agent.TestCheckKeyRecord"}},
	{34, "4", Definition, "A report is I-JSON (RFC 7493).", "UTF-8 without control or noncharacters, whole numbers below 2^53, no name twice.", []string{"schema.TestEncodeGolden", "schema.TestEncodeRefuses"}},
	{35, "4", Definition, "It has organization, contact, id, date range, policies and counts.", "All are always there; what is unknown is left out, never `\"\"` or null.", []string{"schema.TestEncodeGolden"}},
	{36, "4", Must, "`policies` is an array, even of one.", "Always.", []string{"schema.TestEncodeGolden"}},
	{37, "4", Definition, "A session with several faults counts under each.", "Once under each result type, and once among the failed sessions.", []string{"schema.TestEncodeManyFaultsPerSession"}},
	{38, "4.2.1", Definition, "Successful sessions are those with TLS as the policy wants it.", "As the mail server judged them.", []string{"collector/libtlsrpt.TestCaptured"}},
	{39, "4.2.2", Definition, "Failed sessions are counted.", "Exactly, over restarts and crashes.", []string{"aggregator.TestModel", "cmd/tlsrpt-agent.TestLogChaos"}},
	{40, "4.3.1", Should, "`certificate-not-trusted` comes with a `failure-reason-code`.", "With the one that the mail server or its log gives.", []string{"collector/postfixlog.TestCertificateReasons"}},
	{41, "4.3.3", Should, "What has no type of its own is a `validation-failure`, with a `failure-reason-code`.", "A type that is not registered becomes the reason.", []string{"schema.TestCanonicalDetails"}},
	{42, "4.3.4", Silent, "Transient errors need no report.", "A log source reports none that it cannot pin on the domain.", []string{"collector/postfixlog.TestVerdict"}},
	{43, "4.4", Lower, "The range is a full UTC day.", "Always, from 00:00:00Z to 23:59:59Z.", []string{"schema.TestDayProperties"}},
	{44, "4.4", Must, "`policy-domain` is in A-labels.", "Always, in lower case.", []string{"schema.TestCanonicalPolicy"}},
	{45, "4.4", Must, "`mx-host` patterns are in A-labels.", "Always, in lower case.", []string{"schema.TestCanonicalPolicy"}},
	{46, "4.5", Lower, "Several `mx` are elements of one array.", "They are.", []string{"schema.TestEncodeGolden"}},
	{47, "4.1", Should, "A report covers a full UTC day.", "Always; what is counted after it was sent makes a supplement with an id of its own.", []string{"agent.TestDay", "agent.TestLateSession"}},
	{48, "4.1", Lower, "It is sent after a delay, so that receivers are not overloaded.", "A day closes after a grace, and first attempts are spread.", []string{"agent.TestReleasing"}},
	{49, "4.1", Lower, "For instance a random delay of up to four hours.", "Each domain has its own random moment within four hours.", []string{"agent.TestSpread", "aggregator.TestSpread"}},
	{50, "5.1", Should, "The file name is submitter, policy domain, begin, end and an id, with exclamation marks between them.", "It is.", []string{"schema.TestNames"}},
	{51, "5.1", Definition, "Its parts: the domain of the contact, Unix seconds, letters and digits.", "The id is derived from the report-id.", []string{"schema.TestNames"}},
	{52, "5.1", Must, "Domains in the file name are in A-labels.", "Always.", []string{"schema.TestNames"}},
	{53, "5.1", Must, "The extension is `json`, or `json.gz` for gzip.", "Always `json.gz`.", []string{"schema.TestNames"}},
	{54, "5.1", May, "The id tells apart reports of several sources about one domain.", "No two agents make the same one.", []string{"schema.TestNames"}},
	{55, "5.2", Should, "A report is compressed with gzip.", "Always.", []string{"submitter.TestPackIsDeterministic"}},
	{56, "5.3", May, "A report may be mailed.", "See `mail.via`.", []string{"submitter.TestSubmitMail"}},
	{57, "5.3", Definition, "The message is multipart/report with report-type tlsrpt: a part for people, then the report.", "It is; the part for people says in words what the report says.", []string{"submitter.TestMessageGolden"}},
	{58, "5.3", Lower, "A compressed report is `application/tlsrpt+gzip`.", "It is.", []string{"submitter.TestMessageGolden"}},
	{59, "5.3", Must, "`TLS-Report-Domain` and `TLS-Report-Submitter` are there.", "They are, once each.", []string{"submitter.TestMessage"}},
	{60, "5.3", Must, "`TLS-Report-Submitter` is the domain of `contact-info`.", "One domain for From, contact, `d=`, header and file name, checked at start.", []string{"submitter.TestMessage", "agent.TestOptions"}},
	{61, "5.3", Should, "DKIM covers both.", "It does, and over-signs them.", []string{"submitter.TestDKIMCovers"}},
	{62, "5.3", Should, "The Subject has a grammar, and its Report-ID is a msg-id.", "It has; the id has no colon and is that of the report.", []string{"submitter.TestMessage", "schema.TestReportIDIsMsgID"}},
	{63, "5.3", Silent, "The Report-ID lets receivers recognise a repetition.", "It is the same in every attempt and for every destination.", []string{"agent.TestKill", "agent.TestRetry"}},
	{64, "5.6", Must, "Where Subject or file name disagree, the report counts.", "They are made from it.", []string{"internal/receiver.TestBadMail", "internal/validate.TestMessage"}},
	{65, "5.3", Silent, "Charset, disposition, encoding, Date, Message-ID, envelope.", "7-bit, base64, one Date and Message-ID per report, a sender that bounces reach, `Auto-Submitted`.", []string{"submitter.TestMessageGolden"}},
	{66, "5.4", May, "A report may go by HTTPS.", "It does, with an RFC 9421 signature that others may ignore.", []string{"submitter.TestUpload"}},
	{67, "5.4", Should, "The media type is `application/tlsrpt+gzip`, or `application/tlsrpt+json`.", "The former, without Content-Encoding.", []string{"submitter.TestUpload"}},
	{68, "5.4", Silent, "A receiver answers 200 or 201; what others mean is local policy.", "Any 2xx is delivered; 408, 425, 429 and 5xx are retried, with Retry-After; others end it.", []string{"submitter.TestReplies", "submitter.TestRetryAfter"}},
	{69, "5.4", Silent, "Redirects, authentication, size of the reply.", "Redirects are not followed; the reply is bounded.", []string{"submitter.TestRedirectToLoopback", "submitter.TestEndlessReply"}},
	{70, "5.5", Should, "Delivery is attempted for 24 hours after the first attempt.", "It is, over restarts.", []string{"agent.TestExpiry", "agent.TestRetry"}},
	{71, "5.5", Should, "Retries back off exponentially.", "5 minutes doubled up to 4 hours, with jitter.", []string{"agent.TestBackoff"}},
	{72, "6.1", Definition, "The two header fields are registered.", "Named so.", []string{"submitter.TestMessageGolden"}},
	{73, "6.2", Definition, "The report-type is `tlsrpt`.", "It is.", []string{"submitter.TestMessageGolden"}},
	{75, "6.4, 6.5", Definition, "The media types are registered, without parameters of their own.", "Named so.", []string{"submitter.TestMessageGolden"}},
	{76, "6.6", Definition, "Result types are registered; there are eleven.", "No other is ever sent.", []string{"schema.TestResultWords"}},
	{77, "7", Silent, "What strangers write ends up in reports.", "It is bounded, valid UTF-8 and without control characters.", []string{"schema.TestCanonicalBounds", "aggregator.TestRecordFoldsDetails"}},
	{80, "7", Silent, "A record may aim reports at a victim.", "At most 8 destinations a record, two attempts at once per host, no private address, checked when it is dialled.", []string{"internal/guard.TestNoPrivateAddressIsDialled", "agent.TestRecordBounds"}},
	{81, "8", Silent, "Reports disclose how the sender works.", "A private sending address is never sent.", []string{"collector/libtlsrpt.TestSendingIP"}},
	{82, "4.4", Definition, "Each member has one JSON type, and none is null.", "As the RFC says.", []string{"schema.TestSchemaRefuses", "schema.TestDecodeDeviations"}},
	{83, "4.4", Definition, "`contact-info` is an addr-spec: no name, no `mailto:`.", "Checked at start.", []string{"schema.TestEncodeRefuses", "agent.TestOptions"}},
	{84, "4.4", Definition, "`policy-type` is tlsa, sts or no-policy-found.", "Nothing else is counted.", []string{"schema.TestCanonicalRefuses"}},
	{85, "4.4", Definition, "`policy-string` is an array: a line of the policy, or a TLSA record, each.", "It is; left out where there is no policy.", []string{"schema.TestCanonicalPolicy"}},
	{86, "4.4", Definition, "Addresses are dotted IPv4, or IPv6 as in RFC 5952.", "Without zone, never IPv4 as IPv6; left out where unknown.", []string{"schema.TestCanonicalDetails"}},
	{87, "4.4", Definition, "`additional-information` is a URI.", "What is none becomes the reason.", []string{"schema.TestCanonicalDetails"}},
	{88, "4.4", Definition, "Times are those of RFC 3339.", "In UTC, whole seconds, `Z`.", []string{"schema.TestTimestamp"}},
	{89, "4.4", Definition, "`mx-host` is an array (erratum 6241).", "It is, though the example in Appendix B has a string.", []string{"schema.TestEncodeGolden"}},
}
