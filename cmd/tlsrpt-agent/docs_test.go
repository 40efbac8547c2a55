package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the generated pages and golden files")

// golden compares got with the file at path, or writes it under -update.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
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
		t.Errorf("%s is not what the code says; \"go test ./cmd/tlsrpt-agent -update\" writes it anew", path)
	}
}

// TestSettingsPage makes the page of settings from the configuration's types, so
// that a setting without a description, or a page without it, fails.
func TestSettingsPage(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/elsewhere") // it is no matter of who makes the page
	var b bytes.Buffer
	b.WriteString("# Settings\n\nThe configuration is one TOML file, `" + defaultConfig + "` or the one that `-c` names.\n" +
		"Unknown settings are refused. Durations are such as `90s`, `15m`, `4h`, `30d`. Generated; do not edit.\n")
	for _, section := range settingsSections() {
		fmt.Fprintf(&b, "\n## %s\n\n", section.head())
		if section.repeated {
			b.WriteString("Once per source. Without any source, there is one libtlsrpt source with its defaults.\n\n")
		}
		b.WriteString("| key | default | meaning |\n|---|---|---|\n")
		for _, s := range section.settings {
			if s.key == "" || s.doc == "" {
				t.Errorf("setting %q of section %q has no key or no description", s.key, section.name)
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", s.key, s.value, s.doc)
		}
	}
	golden(t, "../../docs/settings.md", b.Bytes())
}

// TestCommandsPage makes the page of commands from the commands themselves.
func TestCommandsPage(t *testing.T) {
	a := &app{}
	var b bytes.Buffer
	b.WriteString("# Commands\n\nResults go to standard output, all else to standard error. Exit code 0 is success, 1 failure,\n" +
		"2 a wrong call. Generated; do not edit.\n")
	writeCommand(t, &b, a.root())
	golden(t, "../../docs/commands.md", b.Bytes())
}

func writeCommand(t *testing.T, b *bytes.Buffer, cmd *cobra.Command) {
	if cmd.Name() == "help" {
		return
	}
	if cmd.Short == "" || cmd.HasParent() && cmd.Runnable() && cmd.Example == "" && cmd.Name() != "version" {
		t.Errorf("%s has no description or no example", cmd.CommandPath())
	}
	fmt.Fprintf(b, "\n## %s\n\n", cmd.CommandPath())
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(b, "%s\n\n    %s\n", text, cmd.UseLine())
	if cmd.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n%s\n", indent(cmd.Example))
	}
	var flags bytes.Buffer
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { writeFlag(&flags, f) })
	if !cmd.HasParent() {
		cmd.PersistentFlags().VisitAll(func(f *pflag.Flag) { writeFlag(&flags, f) })
	}
	if flags.Len() > 0 {
		fmt.Fprintf(b, "\n%s", &flags)
	}
	for _, c := range cmd.Commands() {
		writeCommand(t, b, c)
	}
}

func writeFlag(b *bytes.Buffer, f *pflag.Flag) {
	if f.Name == "help" {
		return
	}
	name, text := pflag.UnquoteUsage(f)
	fmt.Fprintf(b, "- `--%s`: %s\n", strings.TrimSpace(f.Name+" "+name), text)
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(s, "\n", "\n  ")
}
