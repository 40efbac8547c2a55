package validate_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/validate"
)

var update = flag.Bool("update", false, "write the golden file")

// sampleDir is not part of this repository: its files have other licences.
const sampleDir = "../../../shared/data/sample-reports"

// quotation is what a fault quotes of a report. The golden file does without it.
var quotation = regexp.MustCompile(`"[^"]*"`)

// TestSamples judges reports of Google, Microsoft, mail.ru, Stalwart and others.
// The golden file was read by hand against what is known of each sender.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(sampleDir, "*.[je][sm]*"))
	if err != nil || len(files) == 0 {
		t.Skipf("no sample reports of other senders in %s", sampleDir)
	}
	var b bytes.Buffer
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := validate.File(file, data, validate.Options{})
		fmt.Fprintf(&b, "%s (%s)\n", filepath.Base(file), r.Kind)
		for _, f := range r.Faults {
			fmt.Fprintf(&b, "\t%s\n", quotation.ReplaceAllString(f.String(), `"..."`))
		}
	}
	golden(t, "samples.golden", b.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says; \"go test ./internal/validate -update\" writes it anew", path)
	}
}
