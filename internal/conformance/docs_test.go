package conformance_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tlsrpt-agent/tlsrpt-agent/internal/conformance"
)

var update = flag.Bool("update", false, "write the generated pages")

const root = "../.."

// tests is the tests of a package, by reading its files.
func tests(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	check(t, err)
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		check(t, err)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") {
				names = append(names, fn.Name.Name)
			}
		}
	}
	return names
}

const here = "internal/conformance"

// ruleTest is the name of a test that holds one rule or several.
var ruleTest = regexp.MustCompile(`^TestRule(\d+)(?:(And|To)(\d+))?$`)

// byNumber is the tests of this package by the rules that they hold.
func byNumber(t *testing.T) map[int][]string {
	t.Helper()
	held := map[int][]string{}
	for _, name := range tests(t, here) {
		m := ruleTest.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		first, _ := strconv.Atoi(m[1])
		last := first
		if m[3] != "" {
			last, _ = strconv.Atoi(m[3])
		}
		for n := first; n <= last; n++ {
			held[n] = append(held[n], here+"."+name)
		}
	}
	return held
}

// held is the rules with all their tests. A rule whose test does not exist fails,
// and so does a MUST or SHOULD that no test holds.
func held(t *testing.T) []conformance.Rule {
	t.Helper()
	numbered := byNumber(t)
	known := map[string][]string{}
	rules := slices.Clone(conformance.Rules)
	for i := range rules {
		r := &rules[i]
		if i > 0 && r.Number <= rules[i-1].Number {
			t.Errorf("rule %d comes after rule %d", r.Number, rules[i-1].Number)
		}
		r.Tests = append(numbered[r.Number], r.Tests...)
		delete(numbered, r.Number)
		for _, name := range r.Tests {
			dir, test, _ := strings.Cut(name, ".")
			if _, ok := known[dir]; !ok {
				known[dir] = tests(t, dir)
			}
			if !slices.Contains(known[dir], test) {
				t.Errorf("rule %d: there is no test %s in %s", r.Number, test, dir)
			}
		}
		if (r.Level == conformance.Must || r.Level == conformance.Should) && len(r.Tests) == 0 {
			t.Errorf("rule %d is a %s and has no test", r.Number, r.Level)
		}
	}
	for n, names := range numbered {
		t.Errorf("%v: there is no rule %d", names, n)
	}
	return rules
}

// TestPages makes docs/conformance.md and the table of the README from the rules.
func TestPages(t *testing.T) {
	rules := held(t)
	var page bytes.Buffer
	page.WriteString("# RFC 8460, rule by rule\n\n" +
		"Every rule of RFC 8460 for whoever sends reports, in our words, and what this program does. MUST, SHOULD and\n" +
		"MAY are the RFC's; \"should\" is a word in lower case, which demands nothing; \"defines\" is grammar or meaning;\n" +
		"\"silent\" is what the RFC leaves open. `tlsrpt-agent validate` names faults by these numbers, which never change;\n" +
		"those that are missing repeat another, or are for receivers and registries. The tests of the last column hold the program to it.\n" +
		"Generated; do not edit.\n\n" +
		"| rule | section | level | RFC 8460 | the agent | tests |\n|---|---|---|---|---|---|\n")
	var table bytes.Buffer
	table.WriteString("| rule | section | level | RFC 8460 | the agent |\n|---|---|---|---|---|\n")
	for _, r := range rules {
		row := fmt.Sprintf("| %d | %s | %s | %s | %s |", r.Number, r.Section, r.Level, r.Rule, r.Agent)
		fmt.Fprintf(&page, "%s %s |\n", row, code(r.Tests))
		if r.Level == conformance.Must || r.Level == conformance.Should {
			fmt.Fprintln(&table, row)
		}
	}
	golden(t, "docs/conformance.md", page.Bytes())
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	check(t, err)
	golden(t, "README.md", between(t, readme, table.Bytes()))
}

// code is names as code.
func code(names []string) string {
	var list []string
	for _, n := range names {
		list = append(list, "`"+n+"`")
	}
	return strings.Join(list, " ")
}

// demandRule is a demand of packages schema and validate, with its rule.
var demandRule = regexp.MustCompile(`demand\{[^}]*, (\d+)\}`)

// Every rule that a fault names is in the list.
func TestFaultsNameRules(t *testing.T) {
	n := 0
	for _, file := range []string{"schema/fault.go", "internal/validate/validate.go"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		check(t, err)
		for _, m := range demandRule.FindAllStringSubmatch(string(text), -1) {
			number, _ := strconv.Atoi(m[1])
			listed := slices.ContainsFunc(conformance.Rules, func(r conformance.Rule) bool { return r.Number == number })
			if n++; number != 0 && !listed {
				t.Errorf("%s: %s is not in the list", file, m[0])
			}
		}
	}
	if n < 35 {
		t.Errorf("%d demands found", n)
	}
}

// Marks of the generated part of the README.
const (
	begin = "<!-- generated from internal/conformance -->\n"
	end   = "<!-- end -->\n"
)

// between is text with what stands between the marks exchanged.
func between(t *testing.T, text, table []byte) []byte {
	t.Helper()
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("README.md does not have %q and %q", begin, end)
	}
	return slices.Concat(before, []byte(begin), table, []byte(end), after)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join(root, name)
	if *update {
		check(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the rules say; \"go test ./%s -update\" writes it anew", name, here)
	}
}
