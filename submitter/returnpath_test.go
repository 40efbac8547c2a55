package submitter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestReturnPath(t *testing.T) {
	plus := ReturnPath{"tls-reports@example.com", "+"}
	for _, c := range []struct {
		path     ReturnPath
		id, want string
	}{
		{plus, "abc1", "tls-reports+abc1@example.com"},
		{plus, "", "tls-reports@example.com"},
		{ReturnPath{"tls-reports@example.com", ""}, "abc1", "tls-reports@example.com"},
		{ReturnPath{"tls-reports@example.com", "-"}, "abc1", "tls-reports-abc1@example.com"},
		{plus, strings.Repeat("a", 52), "tls-reports+" + strings.Repeat("a", 52) + "@example.com"},
		{plus, strings.Repeat("a", 53), "tls-reports@example.com"},
		{plus, "a b>\r\n", "tls-reports@example.com"},
	} {
		if got := c.path.With(c.id); got != c.want {
			t.Errorf("%v with %q: %s, want %s", c.path, c.id, got, c.want)
		}
	}
	for _, c := range []struct {
		addr, id string
		ours     bool
	}{
		{"tls-reports+abc1@example.com", "abc1", true},
		{"TLS-Reports+ABC1@Example.COM", "ABC1", true},
		{"tls-reports@example.com", "", true},
		{"TLS-REPORTS@example.com", "", true},
		{"tls-reports+@example.com", "", false},
		{"tls-reports+a+b@example.com", "", false},
		{"tls-reports-abc1@example.com", "", false},
		{"tls-reportsabc1@example.com", "", false},
		{"tls+abc1@example.com", "", false},
		{"tls-reports+abc1@example.org", "", false},
		{"tls-reports+abc1", "", false},
		{"", "", false},
		{"<tls-reports@example.com>", "", false},
	} {
		if id, ours := plus.Read(c.addr); id != c.id || ours != c.ours {
			t.Errorf("%q: %q, %t, want %q, %t", c.addr, id, ours, c.id, c.ours)
		}
	}
	if _, ours := (ReturnPath{"tls-reports@example.com", ""}).Read("tls-reports+abc1@example.com"); ours {
		t.Error("an id was read without a delimiter")
	}
}

func TestReturnPathCheck(t *testing.T) {
	for _, c := range []struct {
		path ReturnPath
		want error
		why  string
	}{
		{ReturnPath{"tls-reports@example.com", ""}, nil, "no id is added"},
		{ReturnPath{"tls-reports@example.com", "+"}, nil, "the usual"},
		{ReturnPath{strings.Repeat("a", 34) + "@example.com", "+"}, nil, "34 + 1 + 29"},
		{ReturnPath{strings.Repeat("a", 35) + "@example.com", "+"}, ErrDelimiter, "one too many"},
		{ReturnPath{strings.Repeat("a", 64) + "@example.com", ""}, nil, "long, and no id"},
		{ReturnPath{"tls-reports@example.com", "++"}, ErrDelimiter, "two"},
		{ReturnPath{"tls-reports@example.com", "@"}, ErrDelimiter, "no part of a local part"},
		{ReturnPath{"tls-reports@example.com", "x"}, ErrDelimiter, "part of an id"},
		{ReturnPath{"nobody", "+"}, schema.ErrAddress, "no address"},
	} {
		if err := c.path.Check(29); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.why, err, c.want)
		}
	}
}

// envelopes takes mail and keeps what goes with it, and its From.
type envelopes struct {
	taken    []Envelope
	messages [][]byte
}

func (e *envelopes) Mail(_ context.Context, envelope Envelope, message []byte) error {
	e.taken, e.messages = append(e.taken, envelope), append(e.messages, message)
	return nil
}

// TestSubmitNamed: the envelope names the delivery, and the message does not.
func TestSubmitNamed(t *testing.T) {
	var out envelopes
	for _, delimiter := range []string{"", "+"} {
		s := &Submitter{Mail: &out, ExternalDKIM: true, BounceDelimiter: delimiter}
		if err := s.Submit(t.Context(), parcel(t), "mailto:tls@example.org", "abc1"); err != nil {
			t.Fatal(err)
		}
	}
	want := []Envelope{
		{From: from, To: "tls@example.org", ID: "abc1"},
		{From: "tls-reports+abc1@example.net", To: "tls@example.org", ID: "abc1"},
	}
	if !slices.Equal(out.taken, want) {
		t.Errorf("%+v, want %+v", out.taken, want)
	}
	for _, m := range out.messages {
		if got := parse(t, m).Header.Get("From"); got != from {
			t.Errorf("From: %s, want %s", got, from)
		}
	}
}
