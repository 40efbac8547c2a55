package aggregator

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// crashEnv names the store that a child process is to record into.
const crashEnv = "AGGREGATOR_TEST_RECORD_UNTIL_KILLED"

const crashDomains = 20

// recordUntilKilled counts one session of each domain again and again. The
// position is how many it counted; it also says it on standard output.
func recordUntilKilled(path string) {
	s, err := Open(path, Options{})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	n, err := crashPosition(s)
	if err != nil {
		panic(err)
	}
	for {
		n++
		var counts []schema.Count
		for i := range crashDomains {
			c := failure(fmt.Sprintf("domain-%d.example", i), 1, schema.CertificateExpired)
			c.Details[0].Details = detailsText(schema.CertificateExpired, fmt.Sprintf("mx-%d.example.net", n%7))
			counts = append(counts, c)
		}
		if err := s.Record(ctx, "crash", strconv.AppendInt(nil, n, 10), counts); err != nil {
			panic(err)
		}
		fmt.Println(n)
	}
}

func crashPosition(s *Store) (int64, error) {
	cursor, err := s.Cursor(context.Background(), "crash")
	if err != nil || cursor == nil {
		return 0, err
	}
	return strconv.ParseInt(string(cursor), 10, 64)
}

// A process that is killed at any instant has counted exactly what its position
// says.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for range 10 {
		said := killAfter(t, path, 1+rand.IntN(30))
		s := openStore(t, path, Options{})
		n, err := crashPosition(s)
		must(t, err)
		if n < said {
			t.Fatalf("position %d, but %d was committed", n, said)
		}
		for i := range crashDomains {
			checkCrashed(t, s, fmt.Sprintf("domain-%d.example", i), n)
		}
		must(t, s.Close())
	}
}

// A write-ahead log that a crash of the disk cut off anywhere gives a store of some
// time before, in which counts and position agree.
func TestTruncatedWAL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	shorter := 0
	for range 10 {
		said := killAfter(t, path, 5+rand.IntN(30))
		info, err := os.Stat(path + "-wal")
		must(t, err)
		must(t, os.Truncate(path+"-wal", rand.Int64N(info.Size()+1)))
		s := openStore(t, path, Options{})
		n, err := crashPosition(s)
		must(t, err)
		if n < said {
			shorter++
		}
		if n > 0 {
			for i := range crashDomains {
				checkCrashed(t, s, fmt.Sprintf("domain-%d.example", i), n)
			}
		}
		must(t, s.Close())
	}
	if shorter == 0 {
		t.Error("nothing was ever cut off")
	}
}

func checkCrashed(t *testing.T, s *Store, domain string, n int64) {
	t.Helper()
	results, err := s.Aggregate(context.Background(), domainDay(t, s, domain))
	must(t, err)
	var details int64
	for _, d := range results[0].FailureDetails {
		details += d.FailedSessionCount
	}
	if results[0].Summary.Failure != n || details != n {
		t.Fatalf("%s: %d sessions, %d details; the position says %d", domain, results[0].Summary.Failure, details, n)
	}
}

// killAfter runs a child, kills it some time after the given number of commits,
// and returns the last commit that it spoke of.
func killAfter(t *testing.T, path string, commits int) (said int64) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashEnv+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if said, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if i == commits {
			for range rand.IntN(200_000) { // somewhere within the next commits
				_ = i
			}
			must(t, child.Process.Kill())
		}
	}
	child.Wait() // killed, as it was meant to be
	return said
}
