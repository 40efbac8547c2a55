//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/eventgen"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
)

// mta sends datagrams, each from a socket of its own as smtp(8) does.
type mta struct {
	path string
	gate sync.RWMutex // held for writing while nothing may be sent

	mu      sync.Mutex
	sent    map[string]int64 // by domain: what the kernel took
	refused int64            // what it did not take, as no daemon was there
	err     error            // that there should not have been
}

// send sends one datagram. It waits where the queue is full.
func (m *mta) send(domain string, datagram []byte) bool {
	conn, err := net.Dial("unixgram", m.path)
	if err == nil {
		_, err = conn.Write(datagram)
		conn.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.sent[domain]++
		return true
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		m.refused++
	default:
		m.err = err
	}
	return false
}

// run sends a mixture until stop is closed, about so many datagrams a second.
func (m *mta) run(r *rand.Rand, rate int, stop <-chan struct{}) {
	kinds := []eventgen.Kind{eventgen.TLSA, eventgen.STS, eventgen.None}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		m.gate.RLock()
		for range 1 + r.IntN(2*rate/100) {
			i := r.IntN(socketDomains)
			kind := kinds[i%len(kinds)]
			if r.IntN(20) == 0 {
				kind = eventgen.Failure
			}
			domain, datagram := fmt.Sprintf("d%d.example.com", i), eventgen.Datagram(kind, i)
			if r.IntN(40) == 0 {
				domain, datagram = folded, hostile(r)
			}
			if !m.send(domain, datagram) {
				break
			}
		}
		m.gate.RUnlock()
	}
}

// hostile is a session with a policy, a host and a reason that no other one has.
func hostile(r *rand.Rand) []byte {
	return fmt.Appendf(nil, `{"dpv":"1","d":%q,"pr":"v=TLSRPTv1;rua=mailto:tls@%[1]s","policies":[{"policy-type":2,"policy-domain":%[1]q,`+
		`"policy-string":["version: STSv1","mode: enforce","mx: mx%[2]d.example"],"mx-host":["mx%[2]d.example"],`+
		`"failure-details":[{"c":202,"n":"mx%[2]d.example","f":"reason %[2]d"}],"t":1,"f":1}]}`, folded, r.Uint64())
}

// maillog is a log of Postfix that is written to and rotated.
type maillog struct {
	path string

	mu   sync.Mutex
	text *loggen.Log
	file *os.File
}

func newMaillog(path string, seed uint64, now func() time.Time) (*maillog, error) {
	l := &maillog{path: path, text: loggen.New(loggen.Options{Seed: seed, Domains: logDomains, Processes: 30, Now: now})}
	return l, l.open()
}

func (l *maillog) open() (err error) {
	l.file, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return err
}

func (l *maillog) write(lines int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b []byte
	for range lines {
		b = l.text.Append(b)
	}
	_, err := l.file.Write(b)
	return err
}

// finish writes what ends all that was begun.
func (l *maillog) finish() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.file.Write(l.text.AppendRest(nil))
	return err
}

// rotate renames the log, writes to it for a moment longer, and begins a new one.
func (l *maillog) rotate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.Rename(l.path+".1", l.path+".2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return err
	}
	_, err := l.file.Write(l.text.Append(l.text.Append(nil)))
	return errors.Join(err, l.file.Close(), l.open())
}

// isAmongNewest reports whether a file of the log stays when it is rotated.
func (l *maillog) isAmongNewest(inode uint64) bool {
	for _, name := range []string{l.path, l.path + ".1"} {
		if info, err := os.Stat(name); err == nil && inodeOf(info) == inode {
			return true
		}
	}
	return false
}

// end is where the log ends: its inode and its size.
func (l *maillog) end() (position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := l.file.Stat()
	if err != nil {
		return position{}, err
	}
	return position{Inode: inodeOf(info), Offset: info.Size()}, nil
}

func inodeOf(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// run writes until stop is closed, about so many lines a second.
func (l *maillog) run(r *rand.Rand, rate int, stop <-chan struct{}) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		if err := l.write(r.IntN(2 * rate / 50)); err != nil {
			return err
		}
	}
}
