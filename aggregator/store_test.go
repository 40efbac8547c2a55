package aggregator

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

func TestOpenAnyPath(t *testing.T) {
	for _, name := range []string{"plain.db", "a b.db", "a?b.db", "a#b.db", "100%.db", "%41.db", "a&mode=memory.db", "ü.db", "a+b.db"} {
		path := filepath.Join(t.TempDir(), "new", name)
		s := openStore(t, path, Options{})
		record(t, s, success("example.com", 1))
		must(t, s.Close())
		again := openStore(t, path, Options{})
		if got := total(t, again, domainDay(t, again, "example.com")); got.Success != 1 {
			t.Errorf("%s: %d sessions after opening again, want 1", name, got.Success)
		}
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm()&0o137 != 0 {
			t.Errorf("%s: mode %v, want at most 0640", name, info.Mode())
		}
		dir, err := os.Stat(filepath.Dir(path))
		must(t, err)
		if dir.Mode().Perm() != 0o750 {
			t.Errorf("%s: directory has mode %v, want 0750", name, dir.Mode())
		}
	}
}

func TestSettings(t *testing.T) {
	s := newStore(t)
	all, err := migrations()
	must(t, err)
	for _, c := range []struct {
		db            *sql.DB
		pragma, value string
	}{
		{s.writer, "journal_mode", "wal"},
		{s.writer, "synchronous", "2"},
		{s.writer, "query_only", "0"},
		{s.writer, "application_id", "1414288210"},
		{s.writer, "user_version", strconv.Itoa(len(all))},
		{s.readers, "query_only", "1"},
		{s.readers, "busy_timeout", "10000"},
	} {
		var got string
		must(t, c.db.QueryRow(`PRAGMA `+c.pragma).Scan(&got))
		if got != c.value {
			t.Errorf("PRAGMA %s = %s, want %s", c.pragma, got, c.value)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	edit := func(statement string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := sql.Open("sqlite3", path)
			must(t, err)
			defer db.Close()
			_, err = db.Exec(statement)
			must(t, err)
		}
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"newer", func(t *testing.T, path string) {
			must(t, openStore(t, path, Options{}).Close())
			edit(`PRAGMA user_version = 1000`)(t, path)
		}, ErrTooNew},
		{"another application", edit(`CREATE TABLE mine (x); PRAGMA application_id = 7`), ErrNotStore},
		{"another database", edit(`CREATE TABLE mine (x)`), ErrNotStore},
		{"no database", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, slices.Repeat([]byte("text "), 1000), 0o600))
		}, ErrNotStore},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			c.make(t, path)
			before, err := os.ReadFile(path)
			must(t, err)
			s, err := Open(path, Options{})
			if !errors.Is(err, c.want) || s != nil {
				t.Errorf("Open: %v, %v, want %v", s, err, c.want)
			}
			after, err := os.ReadFile(path)
			must(t, err)
			if !slices.Equal(before, after) {
				t.Error("Open has changed a file that it refused")
			}
		})
	}
}

func TestOpenWithoutRight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := Open(filepath.Join(path, "store.db"), Options{}); err == nil {
		t.Error("opened a store below a file")
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil {
		t.Error("opened a directory")
	}
}

// Several processes may make the same store at once: they get the same secret.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var wg sync.WaitGroup
	tokens := make([]string, 4)
	for i := range tokens {
		wg.Go(func() {
			s, err := Open(path, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			tokens[i] = s.Token(testDay, "example.com", 0)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(slices.Compact(tokens)) != 1 || len(tokens[0]) != 16 {
		t.Errorf("tokens %q, want one of 16 characters", tokens)
	}
}

func TestOpenLogs(t *testing.T) {
	var log bytes.Buffer
	o := Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	path := filepath.Join(t.TempDir(), "store.db")
	for range 2 {
		must(t, openStore(t, path, o).Close())
	}
	if n := strings.Count(log.String(), "store brought up to date"); n != 1 {
		t.Errorf("logged %d times that the store was made, want once: %s", n, &log)
	}
}

func TestClosedStore(t *testing.T) {
	s := newStore(t)
	must(t, s.Close())
	must(t, s.Close())
	if err := s.Record(context.Background(), "test", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Record: %v, want %v", err, ErrClosed)
	}
	if _, err := s.Cursor(context.Background(), "test"); !errors.Is(err, ErrClosed) {
		t.Errorf("Cursor: %v, want %v", err, ErrClosed)
	}
	if _, err := os.Stat(s.path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the write-ahead log is still there: %v", err)
	}
}

func TestCloseWaitsForReads(t *testing.T) {
	s := newStore(t)
	closed := make(chan error, 1)
	must(t, s.read(context.Background(), "testing", func(tx *sql.Tx) error {
		go func() { closed <- s.Close() }()
		for s.life.TryRLock() { // until Close waits
			s.life.RUnlock()
			runtime.Gosched()
		}
		select {
		case <-closed:
			t.Error("Close did not wait for a read")
		default:
		}
		var n int
		return tx.QueryRow(`SELECT count(*) FROM tally`).Scan(&n)
	}))
	must(t, <-closed)
}

func TestReadersDoNotBlockTheWriter(t *testing.T) {
	s := newStore(t)
	record(t, s, success("example.com", 1))
	must(t, s.read(context.Background(), "testing", func(tx *sql.Tx) error {
		var before, after int
		must(t, tx.QueryRow(`SELECT sum(success) FROM tally`).Scan(&before))
		record(t, s, success("example.com", 1))
		must(t, tx.QueryRow(`SELECT sum(success) FROM tally`).Scan(&after))
		if before != 1 || after != 1 {
			t.Errorf("a reader saw %d, then %d sessions, want 1 and 1", before, after)
		}
		return nil
	}))
	if got := total(t, s, domainDay(t, s, "example.com")); got.Success != 2 {
		t.Errorf("%d sessions, want 2", got.Success)
	}
}

func TestContext(t *testing.T) {
	s := newStore(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if err := s.Record(ctx, "test", []byte("1"), []schema.Count{success("example.com", 1)}); !errors.Is(err, why) {
		t.Errorf("Record: %v, want %v", err, why)
	}
	if _, err := s.Cursor(ctx, "test"); !errors.Is(err, why) {
		t.Errorf("Cursor: %v, want %v", err, why)
	}

	// It ends within a transaction.
	ctx, cancel = context.WithCancelCause(context.Background())
	err := s.write(ctx, "testing", func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO meta VALUES ('test', 1)`)
		must(t, err)
		cancel(why)
		for err == nil {
			_, err = tx.Exec(`UPDATE meta SET value = value + 1 WHERE name = 'test'`)
		}
		return err
	})
	if !errors.Is(err, why) {
		t.Errorf("write: %v, want %v", err, why)
	}
	record(t, s, success("example.com", 1)) // the writer goes on
	if n := rows(t, s, "meta WHERE name = 'test'"); n != 0 {
		t.Error("a transaction was kept although its context had ended")
	}
}

func TestStatsAndCheckpoint(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	record(t, s, success("example.com", 1))
	release(t, s)
	stats, err := s.Stats(ctx)
	must(t, err)
	if stats.Waiting != 1 || stats.Pending != 0 || stats.Size == 0 || stats.Log == 0 {
		t.Errorf("%+v", stats)
	}
	must(t, s.Checkpoint(ctx))
	planned(t, s, "example.net", "mailto:a@example.net", "mailto:b@example.net")
	must(t, s.Checkpoint(ctx))
	if stats, err = s.Stats(ctx); err != nil || stats.Log != 0 || stats.Waiting != 1 || stats.Pending != 2 {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestVersion(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	other := openStore(t, s.path, Options{})
	first, err := s.Version(ctx)
	must(t, err)
	record(t, s, success("example.com", 1))
	if v, err := s.Version(ctx); err != nil || v != first {
		t.Errorf("version %d, %v after a change of its own, want %d", v, err, first)
	}
	record(t, other, success("example.com", 1))
	if v, err := s.Version(ctx); err != nil || v == first {
		t.Errorf("version %d, %v after another's change, want another one", v, err)
	}
}
