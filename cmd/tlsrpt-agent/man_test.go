package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// TestManPage: text stands in a page as it is, and a line of it is no command of
// the page.
func TestManPage(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1795046400")
	root := &cobra.Command{Use: "tlsrpt-agent", Short: "Do things"}
	root.PersistentFlags().StringP("config", "c", "", "read settings from `FILE`")
	cmd := &cobra.Command{
		Use:     "frob DOMAIN",
		Short:   "Frob a domain",
		Long:    "frob looks at _smtp._tls. It's a\n.line that begins with a dot, and a \\back-slash.\n\n    indented:  \"kept\"\n\nThe end.",
		Example: "  tlsrpt-agent frob example.com | jq '.a'",
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	cmd.Flags().Bool("json", false, "print one JSON object a line")
	root.AddCommand(cmd)
	golden(t, "testdata/tlsrpt-agent-frob.1", []byte(commandPage(cmd)))
}
