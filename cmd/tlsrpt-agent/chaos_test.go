package main

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/loggen"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/receiver"
)

var (
	chaosRounds = flag.Int("chaos.rounds", 6, "rounds of each chaos test")
	chaosSeed   = flag.Uint64("chaos.seed", 0, "of what chaos tests do; 0 is a random one")
)

const chaosDomains = 40

// chaos is a log that is written, rotated and read while everything goes wrong.
type chaos struct {
	*testing.T
	rand   *rand.Rand
	log    *logWriter
	config string
	store  string // path
	daemon *process
	did    map[string]int

	// fill makes the disk of the store full; drain makes room again. Nil: it
	// cannot be done.
	fill, drain func()
}

// newChaos makes a log, and a DNS where every other domain asks for reports.
func newChaos(t *testing.T, storeDir string) *chaos {
	t.Helper()
	seed := cmp.Or(*chaosSeed, rand.Uint64())
	t.Logf("-chaos.seed=%d", seed)
	zone, err := receiver.StartZone()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { zone.Close() })
	for i := range chaosDomains {
		if domain := loggen.Domain(i); i%2 == 0 {
			zone.SetTXT("_smtp._tls."+domain, "v=TLSRPTv1; rua=mailto:tls@"+domain)
			zone.SetMX(domain, loggen.MX(domain))
		}
	}
	dir := t.TempDir()
	c := &chaos{
		T: t, rand: rand.New(rand.NewPCG(seed, 0)), did: map[string]int{},
		config: filepath.Join(dir, "config.toml"), store: filepath.Join(storeDir, "tlsrpt.db"),
	}
	c.log = newLogWriter(t, filepath.Join(dir, "mail.log"), c.rand)
	text := fmt.Sprintf("[web]\nlisten = \"\"\n[store]\npath = %q\n[dns]\nservers = [%q]\n[[source.postfix_log]]\npath = %q\n",
		c.store, zone.Addr(), c.log.path)
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLogChaos writes a log while the daemon is killed, stopped and locked out
// of its store, and the log is rotated in every way. Each session is counted
// exactly once: those too whose lines lie before and after a restart.
func TestLogChaos(t *testing.T) {
	t.Parallel() // it waits most of the time
	newChaos(t, t.TempDir()).run(*chaosRounds)
}

// run does so many rounds and compares what was counted with what was written.
func (c *chaos) run(rounds int) {
	c.daemon = startProcess(c.T, c.config)
	waitFor(c.T, "the first position", func() bool { return c.position() != nil })
	for round := range rounds {
		if c.daemon == nil {
			c.daemon = startProcess(c.T, c.config)
		}
		if round == rounds/2 {
			c.catchUp()
			c.log.link()
		}
		for range 1 + c.rand.IntN(2) {
			c.log.write(c.rand.IntN(150))
			c.misfortune()
		}
		c.log.write(c.rand.IntN(50))
		c.end()
	}
	if c.daemon == nil {
		c.daemon = startProcess(c.T, c.config)
	}
	c.log.finish()
	c.compare()
	c.Logf("%d sessions, %d lines, %v", c.log.text.Stats().Sessions, c.log.text.Stats().Lines, c.did)
}

// compare waits until all is counted, and a moment more.
func (c *chaos) compare() {
	want := c.log.text.Sessions()
	var got map[loggen.Key]int64
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if got = countedSessions(c.T, c.config); sum(got) >= sum(want) || time.Now().After(deadline) {
			break
		}
	}
	c.daemon.stop(syscall.SIGTERM)
	got = countedSessions(c.T, c.config)
	keys := maps.Clone(want)
	maps.Copy(keys, got)
	for k := range keys {
		if got[k] != want[k] {
			c.Errorf("%s %q: %d sessions counted, %d written", k.Domain, k.Result, got[k], want[k])
		}
	}
}

// misfortune is something that happens to a daemon that goes on.
func (c *chaos) misfortune() {
	all := []struct {
		name string
		do   func()
	}{
		{"rename", c.rename}, {"rename", c.rename}, {"copytruncate", c.copyTruncate}, {"lock", c.lock},
		{"pause", c.pause}, {"slow", c.slow}, {"wait", func() { c.sleep(1000) }},
	}
	if c.fill != nil {
		all = append(all, struct {
			name string
			do   func()
		}{"full", c.full})
	}
	m := all[c.rand.IntN(len(all))]
	c.did[m.name]++
	m.do()
}

// sleep sleeps up to so many milliseconds.
func (c *chaos) sleep(ms int) { time.Sleep(time.Duration(c.rand.IntN(ms)) * time.Millisecond) }

// end ends the daemon, or not. What is written until the next one starts, and
// how the log is rotated, nobody sees.
func (c *chaos) end() {
	switch n := c.rand.IntN(5); n {
	case 0:
		c.did["go on"]++
		return
	case 1:
		c.did["SIGTERM"]++
		c.daemon.stop(syscall.SIGTERM)
	default:
		c.did["kill -9"]++
		c.sleep(400)
		c.daemon.stop(os.Kill)
	}
	c.daemon = nil
	c.log.write(c.rand.IntN(60))
	if c.rand.IntN(3) == 0 && !c.log.linked {
		c.did["rename unseen"]++
		c.log.rename()
	}
}

func (c *chaos) rename() {
	if !c.log.linked {
		c.log.rename()
		return
	}
	// The daemon knows which file it was in, but not how many others there have
	// been since.
	c.arrive()
	c.log.relink()
}

// copyTruncate waits until all is read: what is truncated unread is destroyed.
func (c *chaos) copyTruncate() {
	c.catchUp()
	c.log.copyTruncate()
}

// pause has the daemon stand still.
func (c *chaos) pause() {
	c.daemon.signal(syscall.SIGSTOP)
	c.log.write(c.rand.IntN(100))
	c.sleep(300)
	c.daemon.signal(syscall.SIGCONT)
}

// slow has the daemon stand still most of the time.
func (c *chaos) slow() {
	for range 15 {
		c.daemon.signal(syscall.SIGSTOP)
		c.log.write(c.rand.IntN(20))
		c.sleep(20)
		c.daemon.signal(syscall.SIGCONT)
		c.sleep(3)
	}
}

// lock has another process hold the store's lock.
func (c *chaos) lock() {
	db, err := sql.Open("sqlite3", "file:"+c.store+"?_busy_timeout=10000&_txlock=immediate")
	if err != nil {
		c.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		c.Fatal(err)
	}
	c.log.write(c.rand.IntN(200))
	c.sleep(1500)
	c.log.write(c.rand.IntN(20))
	if err := tx.Rollback(); err != nil {
		c.Fatal(err)
	}
}

// full fills the disk of the store. The daemon may be killed then.
func (c *chaos) full() {
	c.fill()
	c.log.write(c.rand.IntN(300))
	c.sleep(1500)
	if c.rand.IntN(3) == 0 {
		c.did["kill -9 when full"]++
		c.daemon.stop(os.Kill)
		c.log.write(c.rand.IntN(30))
		c.drain()
		c.daemon = startProcess(c.T, c.config)
		return
	}
	c.drain()
	c.log.write(c.rand.IntN(20))
}

// position is where the daemon will go on if it is killed now. Inode is 0 at the
// beginning of a file.
type position struct {
	Inode  uint64
	Offset int64
}

// position is nil as long as none is stored.
func (c *chaos) position() *position {
	c.Helper()
	db, err := sql.Open("sqlite3", "file:"+c.store+"?mode=ro&_busy_timeout=10000")
	if err != nil {
		c.Fatal(err)
	}
	defer db.Close()
	var text []byte
	if err := db.QueryRow("SELECT cursor FROM source").Scan(&text); err != nil && !errors.Is(err, sql.ErrNoRows) {
		c.Fatal(err)
	}
	var cursor struct{ Tail []byte }
	var tail struct{ File *position }
	if text != nil {
		if err := json.Unmarshal(text, &cursor); err != nil {
			c.Fatal(err)
		}
	}
	if cursor.Tail != nil {
		if err := json.Unmarshal(cursor.Tail, &tail); err != nil {
			c.Fatal(err)
		}
	}
	return tail.File
}

// arrive waits until the daemon is in the file that is written to.
func (c *chaos) arrive() {
	c.Helper()
	c.log.write(1)
	waitFor(c.T, "the file that is written to", func() bool { return c.position().Inode == c.log.inode() })
}

// catchUp waits until all is read, and committed.
func (c *chaos) catchUp() {
	c.Helper()
	c.log.write(1)
	waitFor(c.T, "the end of the log", func() bool { return *c.position() == position{c.log.inode(), c.log.size()} })
}
