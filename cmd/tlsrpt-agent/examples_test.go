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
func exampleMainCF(t *testing.T) (settings []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "postfix", "main.cf"))
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

// TestExampleCommands: the commands of both READMEs make the settings of main.cf.
func TestExampleCommands(t *testing.T) {
	for _, readme := range []string{"postfix/README.md", "../README.md"} {
		text, err := os.ReadFile(filepath.Join(examples, readme))
		if err != nil {
			t.Fatal(err)
		}
		for _, setting := range exampleMainCF(t) {
			if set := strings.ReplaceAll(setting, " = ", "="); !strings.Contains(string(text), set) {
				t.Errorf("%s does not have %q", readme, set)
			}
		}
	}
}
