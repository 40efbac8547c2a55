package policy

import (
	"bufio"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// FuzzReply: a reply is a policy text within its bound, or a fault with a code that
// a report can have.
func FuzzReply(f *testing.F) {
	for _, reply := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\nversion: STSv1",
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nversi\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>",
		"HTTP/1.0 200\r\nContent-Type: text/plain;;\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
		"HTTP/1.1 404 \x1b[31mno\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9999999999\r\n\r\nshort",
		"HTTP/1.1 999 odd\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat("x", maxPolicyText+1),
	} {
		f.Add(reply)
	}
	code := regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	f.Fuzz(func(t *testing.T, reply string) {
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(reply)), nil)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		text, err := replyText(resp)
		if err == nil && (resp.StatusCode != 200 || len(text) > maxPolicyText) {
			t.Errorf("status %d, %d bytes", resp.StatusCode, len(text))
		}
		if err == nil {
			return
		}
		if e := classify(err); text != "" || !code.MatchString(e.Reason) {
			t.Errorf("text %q, code %q: %v", text, e.Reason, err)
		}
	})
}
