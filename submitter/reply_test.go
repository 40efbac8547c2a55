package submitter

import (
	"bufio"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// FuzzReply: a reply by HTTP is a success, or an error that an operator can read
// and that says when to try again, if ever.
func FuzzReply(f *testing.F) {
	for _, reply := range []string{
		"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\n\r\n",
		"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>\x1b]0;owned\a\r\nno",
		"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 503 Service Unavailable\r\nRetry-After: Sun, 29 Nov 2026 00:00:00 GMT\r\n\r\n",
		"HTTP/1.1 500 \xff\xfe\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\nx",
		"HTTP/1.1 503 \r\nRetry-After: -1\r\n\r\n" + strings.Repeat("x", 3*maxReply),
		"HTTP/1.1 999 odd\r\n\r\n",
	} {
		f.Add(reply)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(reply)), nil)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		err = classify("https://tls.example.com/v1", resp, readReply(resp.Body, func() {}))
		if (err == nil) != (resp.StatusCode/100 == 2) {
			t.Fatalf("status %d: %v", resp.StatusCode, err)
		}
		if err == nil {
			return
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Ours || len(e.Reply) > maxReply || e.Reply != printable(e.Reply, maxReply) {
			t.Errorf("%#v", err)
		}
		if e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter || e.RetryAfter > 0 && !e.Temporary {
			t.Errorf("retry after %s, temporary: %t", e.RetryAfter, e.Temporary)
		}
	})
}
