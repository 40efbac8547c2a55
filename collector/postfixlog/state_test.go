package postfixlog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// TestStateBound keeps a state within its bound: the oldest sessions go, and are
// counted.
func TestStateBound(t *testing.T) {
	p := NewParser(Options{Latest: latest, Location: time.UTC})
	const n = 20000
	for i := range n {
		p.Parse(fmt.Appendf(nil, "Nov 23 10:%02d:%02d out postfix/smtp[%d]: Trusted TLS connection established to mx%d.example.com[192.0.2.1]:25: x\n",
			i/60/60, i/60%60, 1000+i, i), func(*Session) { t.Fatal("a session without recipient") })
	}
	state := p.State()
	dropped := p.Stats().Dropped[DropOverflow]
	if len(state) > maxState || len(state) < maxState/2 || dropped == 0 {
		t.Fatalf("%d bytes, %d dropped", len(state), dropped)
	}
	q := NewParser(Options{Latest: latest, Location: time.UTC})
	if err := q.Restore(state); err != nil {
		t.Fatal(err)
	}
	told := 0
	for i := range n {
		q.Parse(fmt.Appendf(nil, "Nov 23 10:10:00 out postfix/smtp[%d]: 4jY1xQ00Dlz6X7y: to=<bob@example.com>, relay=mx%d.example.com[192.0.2.1]:25%s\n",
			1000+i, i, fields), func(s *Session) {
			if i/60 < int(dropped)/60 { // 60 are of the same second
				t.Fatalf("session %d is told, and %d were dropped", i, dropped)
			}
			told++
		})
	}
	if told != n-int(dropped) {
		t.Errorf("%d sessions after the restart, want %d", told, n-int(dropped))
	}
}

// TestBadState refuses what is no state, and has then seen nothing.
func TestBadState(t *testing.T) {
	p := NewParser(Options{Latest: latest, Location: time.UTC})
	p.Parse(script(trusted), nil)
	state := p.State()
	for n := 1; n < len(state); n++ {
		q := NewParser(Options{Latest: latest, Location: time.UTC})
		err := q.Restore(state[:n])
		if err != nil && !errors.Is(err, ErrState) {
			t.Errorf("%d of %d bytes: %v", n, len(state), err)
		}
		if err != nil && len(q.State()) != len(NewParser(Options{Latest: latest}).State()) {
			t.Errorf("%d of %d bytes left something behind", n, len(state))
		}
	}
	for _, b := range []string{"x", "\x06", "\x02\xff\xff\xff\xff", "\x04\xff\xff\xff\xff", strings.Repeat("\xff", 100)} {
		if err := p.Restore([]byte(b)); !errors.Is(err, ErrState) {
			t.Errorf("%q: %v", b, err)
		}
	}
	if err := p.Restore(nil); err != nil {
		t.Error(err)
	}
	all := 0
	p.Parse(script(sent), func(*Session) { all++ })
	if all != 0 {
		t.Error("a session of before Restore is told")
	}
}

// TestOldState goes on from what version 1 wrote, in the middle of two deliveries
// and of a handshake of tlsproxy(8).
func TestOldState(t *testing.T) {
	var got []told
	p := NewParser(Options{
		Latest: latest, Location: time.UTC, ReportPlaintext: true,
		Dropped: func(s *Session, d Drop) { got = append(got, told{*s, d}) },
	})
	if err := p.Restore(readFile(t, "testdata/state-1")); err != nil {
		t.Fatal(err)
	}
	p.Parse(lateScript("smtp[2]: 4jY1xQ00Dlz6X7a: to=<bob@example.net>, relay=mx2.example.net[192.0.2.3]:25"+fields, sent), func(s *Session) {
		got = append(got, told{*s, ""})
	})
	want := []string{"example.net plaintext starttls-not-supported", "example.net plaintext starttls-not-supported", "example.com trusted"}
	if !slices.Equal(briefs(got), want) {
		t.Errorf("got  %q\nwant %q", briefs(got), want)
	}
	failures := p.mtas["out postfix"].failures
	if len(failures) != 1 || failures[0].peer.text != "[192.0.2.2]:25" {
		t.Errorf("failures of tlsproxy: %+v", failures)
	}
}

// TestMemoryIsBounded remembers the faults of the latest hosts.
func TestMemoryIsBounded(t *testing.T) {
	m := newMTA("out", "postfix")
	n := newNames()
	for i := range 3 * maxMemory {
		m.remember(n.peer(fmt.Appendf(nil, "mx%d.example.com[192.0.2.1]:25", i)), int64(i), finding{result: schema.CertificateExpired}, false)
	}
	keys := m.recent.oldestFirst()
	if len(m.memory) != maxMemory || len(keys) != maxMemory {
		t.Fatalf("%d remembered, %d keys", len(m.memory), len(keys))
	}
	if want := fmt.Sprintf("mx%d.example.com[192.0.2.1]:25", 2*maxMemory); keys[0] != want {
		t.Errorf("the oldest is %s, want %s", keys[0], want)
	}
}

// TestOwnMailIsBounded forgets the oldest message.
func TestOwnMailIsBounded(t *testing.T) {
	o := newOwnMail()
	for i := range maxOwn + 10 {
		o.add(fmt.Sprint(i))
		o.add(fmt.Sprint(i))
	}
	o.remove("20")
	if len(o.ids) != maxOwn-1 || len(o.order) != maxOwn-1 || o.ids["9"] || !o.ids["10"] || o.ids["20"] || slices.Contains(o.order, "20") {
		t.Errorf("%d ids, %d in order", len(o.ids), len(o.order))
	}
}

// TestProcessesAreForgotten keeps memory flat over a long log.
func TestProcessesAreForgotten(t *testing.T) {
	p := NewParser(Options{Latest: latest, Location: time.UTC})
	for i := range 20 * 3600 {
		p.Parse(fmt.Appendf(nil, "Nov 23 %02d:%02d:%02d out postfix/smtp[%d]: %s\n",
			i/3600, i/60%60, i%60, i, "Trusted TLS connection established to mx.example.com[192.0.2.1]:25: x"), nil)
	}
	if n := len(p.processes); n > 2*3600 {
		t.Errorf("%d processes", n)
	}
	if n := p.Stats().Dropped[DropExpired]; n < 17*3600 {
		t.Errorf("%d sessions expired", n)
	}
}
