package dsn

import (
	"bufio"
	"io"
	"strings"
)

// parseStatusPart reads message/delivery-status (RFC 3464, section 2.1): blocks
// of fields with an empty line between them, the first about the message, each
// other one about a recipient. Exchange leaves out the first, and others put an
// empty line too many, so a block is about a recipient if it names one.
func parseStatusPart(r io.Reader) (n Notification) {
	lines := bufio.NewScanner(io.LimitReader(r, MaxSize))
	lines.Buffer(nil, MaxSize+1)
	block := fields{}
	end := func() {
		n.add(block)
		block = fields{}
	}
	name := ""
	for i := 0; i < maxLines && lines.Scan(); i++ {
		line := strings.TrimRight(lines.Text(), "\r")
		switch {
		case strings.Trim(line, " \t") == "":
			end()
			name = ""
		case line[0] == ' ' || line[0] == '\t':
			block.extend(name, line)
		default:
			name = block.begin(line)
		}
	}
	end()
	return n
}

// fields is one block: the first value of each field, by its name in lower case.
type fields map[string]string

// known is the fields that are read.
var known = map[string]int{
	"original-envelope-id": maxValue,
	"original-recipient":   maxValue,
	"final-recipient":      maxValue,
	"action":               maxValue,
	"status":               maxValue,
	"diagnostic-code":      2 * maxReason,
}

// begin takes the first line of a field, and is the name that what goes on in
// the next line belongs to, "" if to none.
func (f fields) begin(line string) string {
	name, value, ok := strings.Cut(line, ":")
	name = strings.ToLower(strings.TrimSpace(name))
	if _, again := f[name]; !ok || again || known[name] == 0 {
		return ""
	}
	f[name] = ""
	f.extend(name, value)
	return name
}

// extend adds text to a field, as much of it as is kept.
func (f fields) extend(name, text string) {
	if room := known[name] - len(f[name]); name != "" && room > 0 {
		f[name] += text[:min(len(text), room)]
	}
}

// add takes what a block says into n.
func (n *Notification) add(f fields) {
	if id := clean(f["original-envelope-id"], maxValue); n.EnvelopeID == "" {
		n.EnvelopeID = id
	}
	r := Recipient{
		Final:    untyped(f["final-recipient"]),
		Original: untyped(f["original-recipient"]),
		Action:   strings.ToLower(firstWord(f["action"])),
		Reason:   clean(f["diagnostic-code"], maxReason),
	}
	if r.Final == "" && r.Original == "" || r.Action == "" || len(n.Recipients) == maxRecipients {
		return
	}
	r.Status = status(f["status"], r)
	n.Recipients = append(n.Recipients, r)
}

// status is the status of a recipient. Where the field says no more than that it
// failed, what the other server said may say why: Postfix writes "5.0.0" beside
// "smtp; 550 5.1.1 no such user" if the reply had no status where one belongs.
func status(field string, r Recipient) Status {
	s, ok := ParseStatus(field)
	if !ok && r.Failed() {
		s = permanent
	}
	if s[1] == 0 && s[2] == 0 && s[0] > 0 {
		if said, ok := findStatus(r.Reason, s[0]); ok {
			return said
		}
	}
	return s
}

// untyped is the address of "rfc822; user@example.com". Some leave out the type.
func untyped(s string) string {
	if kind, addr, ok := strings.Cut(s, ";"); ok && !strings.Contains(kind, "@") {
		s = addr
	}
	return address(s)
}

// address is s without the brackets that some put around it.
func address(s string) string { return strings.Trim(clean(s, maxValue), "<> ") }

// firstWord is s up to a space: some add a comment, "failed (bad address)".
func firstWord(s string) string {
	word, _, _ := strings.Cut(clean(s, maxValue), " ")
	return word
}
