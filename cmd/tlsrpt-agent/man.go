package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man [DIR]",
		Short: "Write the man pages",
		Long: `man writes a page per command, tlsrpt-agent.1 and others, into DIR/man1, and one
about the configuration file, tlsrpt-agent.toml.5, into DIR/man5. Without DIR it
prints tlsrpt-agent.1.`,
		Example: `  tlsrpt-agent man | man -l -
  tlsrpt-agent man /usr/local/share/man`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(cmd, fmt.Errorf("want one DIR, got %d arguments", len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := io.WriteString(a.stdout, commandPage(cmd.Root()))
				return err
			}
			return writeManPages(args[0], cmd.Root())
		},
	}
}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what makes a shell complete commands and flags",
		Long: `completion prints a script for a shell. The packages install it; elsewhere, put
it where the shell looks.`,
		Example: `  tlsrpt-agent completion bash > /etc/bash_completion.d/tlsrpt-agent
  tlsrpt-agent completion zsh > /usr/local/share/zsh/site-functions/_tlsrpt-agent
  tlsrpt-agent completion fish > ~/.config/fish/completions/tlsrpt-agent.fish`,
		Args:      oneArg("shell"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.stdout)
			case "fish":
				return cmd.Root().GenFishCompletion(a.stdout, true)
			}
			return usage(cmd, fmt.Errorf("unknown shell %q: want bash, zsh or fish", args[0]))
		},
	}
}

// writeManPages writes every page below dir, as man(1) wants them there.
func writeManPages(dir string, root *cobra.Command) error {
	pages := map[string]string{"man5/tlsrpt-agent.toml.5": settingsPage()}
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		pages["man1/"+pageName(cmd)+".1"] = commandPage(cmd)
		for _, c := range documented(cmd) {
			add(c)
		}
	}
	add(root)
	for name, text := range pages {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// documented is the commands below cmd that have a page.
func documented(cmd *cobra.Command) (commands []*cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			commands = append(commands, c)
		}
	}
	return commands
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// exitStatus is the same for every command.
const exitStatus = `0 is success, 1 failure, 2 a wrong call.`

// commandPage is the man page of a command. The generator of cobra would read
// our texts as Markdown, which they are not.
func commandPage(cmd *cobra.Command) string {
	p := newManPage(pageName(cmd), "1", strings.ToLower(cmd.Short[:1])+cmd.Short[1:])
	p.section("SYNOPSIS")
	p.text(cmd.UseLine())
	p.section("DESCRIPTION")
	if cmd.Long != "" {
		p.text(cmd.Long)
	} else {
		p.text(cmd.Short + ".")
	}
	p.options("OPTIONS", cmd.NonInheritedFlags())
	p.options("OPTIONS OF EVERY COMMAND", cmd.InheritedFlags())
	p.section("EXIT STATUS")
	p.text(exitStatus)
	if cmd.Example != "" {
		p.section("EXAMPLES")
		p.text(cmd.Example)
	}
	var also []string
	if cmd.HasParent() {
		also = append(also, pageName(cmd.Parent())+"(1)")
	}
	for _, c := range documented(cmd) {
		also = append(also, pageName(c)+"(1)")
	}
	p.seeAlso(append(also, "tlsrpt-agent.toml(5)"))
	return p.b.String()
}

// settingsPage is the man page of the configuration file.
func settingsPage() string {
	p := newManPage("tlsrpt-agent.toml", "5", "settings of tlsrpt-agent")
	p.section("DESCRIPTION")
	p.text("The configuration is one TOML file, " + defaultConfig + " or the one that -c names. Unknown\n" +
		"settings are refused. Durations are such as 90s, 15m, 4h, 30d.")
	for _, s := range settingsSections() {
		p.section(s.head())
		if s.repeated {
			p.text("Once per source. Without any source, there is one libtlsrpt source with its defaults.")
		}
		for _, o := range s.settings {
			p.tagged(o.key+" = "+o.value, o.doc)
		}
	}
	p.section("FILES")
	p.text(defaultConfig)
	p.seeAlso([]string{"tlsrpt-agent(1)", "tlsrpt-agent-check(1)", "tlsrpt-agent-run(1)"})
	return p.b.String()
}

// manPage is a page in the language of man(7).
type manPage struct {
	b     strings.Builder
	below bool // something stands in this section
}

func newManPage(name, section, short string) *manPage {
	p := &manPage{}
	fmt.Fprintf(&p.b, ".TH %s %s \"%s\" \"tlsrpt\\-agent %s\"\n.nh\n.ad l\n", roff(strings.ToUpper(name)), section, pageDate(), roff(version))
	p.section("NAME")
	fmt.Fprintf(&p.b, "%s \\- %s\n", roff(name), roff(short))
	return p
}

// pageDate is that of the source, where a build says it: the same source makes
// the same page.
func pageDate() string {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
}

func (p *manPage) section(title string) {
	fmt.Fprintf(&p.b, ".SH \"%s\"\n", roff(title))
	p.below = false
}

// text writes paragraphs. Lines that are indented stay as they are.
func (p *manPage) text(s string) {
	for paragraph := range strings.SplitSeq(s, "\n\n") {
		if p.below {
			p.b.WriteString(".PP\n")
		}
		p.below = true
		if strings.HasPrefix(paragraph, " ") {
			fmt.Fprintf(&p.b, ".EX\n%s\n.EE\n", roff(paragraph))
			continue
		}
		fmt.Fprintf(&p.b, "%s\n", roff(paragraph))
	}
}

// tagged writes a term and what it means.
func (p *manPage) tagged(term, meaning string) {
	fmt.Fprintf(&p.b, ".TP\n\\fB%s\\fR\n%s\n", roff(term), roff(meaning))
}

func (p *manPage) options(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.section(title)
	flags.VisitAll(func(f *pflag.Flag) {
		name, meaning := pflag.UnquoteUsage(f)
		term := strings.TrimSpace("--" + f.Name + " " + name)
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		p.tagged(term, meaning)
	})
}

func (p *manPage) seeAlso(pages []string) {
	p.section("SEE ALSO")
	p.text(strings.Join(pages, ", "))
}

// roff is text that means itself: no escape, no control line, and hyphens that
// can be searched for and copied.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
