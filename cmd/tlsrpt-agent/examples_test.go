package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// examples is where the set-ups that operators copy are.
const examples = "../../examples"

// TestExampleConfigs: every configuration in examples is one that the program
// takes.
func TestExampleConfigs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*", "*.toml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no example configuration: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseConfig(file, text)
		if err != nil {
			t.Error(err)
		}
		if c.Organization.Contact == "" || c.DKIM.Key == "" {
			t.Errorf("%s would send nothing", file)
		}
	}
}

// exampleMainCF is the settings of examples/postfix/main.cf, "name = value".
func exampleMainCF(t *testing.T) []string {
	t.Helper()
	return exampleSettings(t, "main.cf")
}

// exampleSettings is the settings of a file in examples/postfix, "name = value".
func exampleSettings(t *testing.T, file string) (settings []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "postfix", file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			settings = append(settings, line)
		}
	}
	return settings
}

// TestExampleCommands: the commands of both READMEs make the settings of main.cf,
// and those of the example's the settings of main-log.cf.
func TestExampleCommands(t *testing.T) {
	for _, c := range []struct{ readme, file string }{
		{"postfix/README.md", "main.cf"}, {"../README.md", "main.cf"}, {"postfix/README.md", "main-log.cf"},
	} {
		text, err := os.ReadFile(filepath.Join(examples, c.readme))
		if err != nil {
			t.Fatal(err)
		}
		for _, setting := range exampleSettings(t, c.file) {
			if set := strings.ReplaceAll(setting, " = ", "="); !strings.Contains(string(text), set) {
				t.Errorf("%s does not have %q of %s", c.readme, set, c.file)
			}
		}
	}
}
