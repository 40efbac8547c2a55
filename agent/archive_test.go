package agent

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// files is what there is below dir.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	}))
	return names
}

// TestArchive: every report is there as it was sent, and nothing else is.
func TestArchive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	bubble(t, func(b *bench) {
		b.restart(Options{Archive: dir})
		b.session("example.org", true)
		b.session("silent.example", true)
		b.until(day0+1, "06:00")
		b.want("example.org 2000-01-01 0/1")
		got := files(b.T, dir)
		if len(got) != 1 || !strings.HasPrefix(got[0], "2000-01-01/example.com!example.org!") {
			b.Fatalf("the archive has %q", got)
		}
		f, err := os.Open(filepath.Join(dir, got[0]))
		check(b.T, err)
		defer f.Close()
		z, err := gzip.NewReader(f)
		check(b.T, err)
		text, err := io.ReadAll(z)
		check(b.T, err)
		r, err := schema.Decode(text)
		check(b.T, err)
		if want := b.reports(b.T)[0].ReportID; r.ReportID != want {
			b.Errorf("it has %s, and %s was sent", r.ReportID, want)
		}
	}, "example.org")
}

// TestArchiveFails: what cannot be written is sent all the same, and counted.
func TestArchiveFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(dir, nil, 0o600))
	bubble(t, func(b *bench) {
		b.restart(Options{Archive: dir})
		b.session("example.org", true)
		b.session("example.net", true)
		b.until(day0+1, "06:00")
		b.want("example.org 2000-01-01 0/1", "example.net 2000-01-01 0/1")
		if got := b.Stats().Unarchived; got != 2 {
			b.Errorf("%d reports are counted as missing, want 2", got)
		}
	}, "example.org", "example.net")
}

// TestArchiveNames: a name that is too long or leads out does no harm, and what
// could not be finished is taken away.
func TestArchiveNames(t *testing.T) {
	dir := t.TempDir()
	v := &archive{dir: dir}
	r := &aggregator.Report{Day: day0, FileName: strings.Repeat("a", 300) + ".json.gz", MessageID: "m@example.com", Gzip: []byte("report")}
	check(t, v.write(r))
	got := files(t, dir)
	if len(got) != 1 || len(filepath.Base(got[0])) != 255 {
		t.Fatalf("a long name: %q", got)
	}
	check(t, v.write(r)) // again after a crash
	r.FileName = "../../outside"
	if err := v.write(r); err == nil {
		t.Error("a file outside the directory was written")
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
}
