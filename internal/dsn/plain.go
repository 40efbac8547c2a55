package dsn

import "strings"

// maxText is how much of a text for people is read.
const maxText = 64 << 10

// qmailBegins begins the text of qmail's bounces (QSBMF), in a paragraph that
// names the host.
const qmailBegins = "Hi. This is the"

// copyBegins are the lines at which the returned message begins.
var copyBegins = []string{
	"--- Below this line is a copy of the message.", // qmail
	"------ This is a copy of ",                     // Exim, in its versions
	"------ The body of the message is ",
}

// plainFailures is the recipients of whose failure only a text tells. failed is
// the field X-Failed-Recipients, by which Exim marks permanent failures and no
// delay.
func plainFailures(failed, text string) []Recipient {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for _, begin := range copyBegins {
		text, _, _ = strings.Cut(text, begin)
	}
	if strings.HasPrefix(text, qmailBegins) {
		return qmailFailures(text)
	}
	var all []Recipient
	for addr := range strings.SplitSeq(failed, ",") {
		if addr = address(addr); addr != "" && len(all) < maxRecipients {
			all = append(all, plainFailure(addr, paragraph(text, addr)))
		}
	}
	return all
}

// qmailFailures is the paragraphs that begin with a recipient, "<a@example.com>:".
func qmailFailures(text string) (all []Recipient) {
	for p := range strings.SplitSeq(text, "\n\n") {
		head, why, _ := strings.Cut(strings.Trim(p, "\n"), "\n")
		rest, begins := strings.CutPrefix(strings.TrimSpace(head), "<")
		addr, ends := strings.CutSuffix(rest, ">:")
		if addr = address(addr); begins && ends && addr != "" && len(all) < maxRecipients {
			all = append(all, plainFailure(addr, why))
		}
	}
	return all
}

// paragraph is what stands in text after a line that is addr alone, up to an
// empty line.
func paragraph(text, addr string) string {
	for p := range strings.SplitSeq(text, "\n\n") {
		for rest := p; rest != ""; {
			var line string
			line, rest, _ = strings.Cut(rest, "\n")
			if strings.EqualFold(strings.TrimSpace(line), addr) {
				return rest
			}
		}
	}
	return ""
}

// plainFailure is a failure of which why is all that is known. The status is in
// it: "(#5.1.1)" with qmail, the reply of the other server with Exim. Both give up
// on a temporary failure too, when it has lasted.
func plainFailure(addr, why string) Recipient {
	r := Recipient{Final: addr, Action: "failed", Status: permanent, Reason: clean(why, maxReason)}
	five, isFive := findStatus(why, 5)
	four, isFour := findStatus(why, 4)
	switch {
	case isFour: // in doubt, no more than that
		r.Status = four
	case isFive:
		r.Status = five
	}
	return r
}
