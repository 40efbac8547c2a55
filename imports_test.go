// Package tlsrptagent_test holds the module to its layout: imports point down
// only.
package tlsrptagent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tlsrpt-agent/tlsrpt-agent"

// pkg is what `go list -json` says of a package. Imports are those of the
// program: tests may import what they like.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string // what it imports, directly or not
}

// layer is the first element of a path within the module, two elements within
// internal, or "" for another module.
func layer(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	first, rest, _ := strings.Cut(rest, "/")
	if first == "internal" {
		second, _, _ := strings.Cut(rest, "/")
		return first + "/" + second
	}
	return first
}

var (
	// middle is the layers that do not know each other.
	middle = []string{"collector", "aggregator", "submitter"}

	// leaves may be imported from everywhere, so they import nothing of ours.
	leaves = []string{"internal/guard", "internal/resolve"}
)

// violations is every import that does not point down.
func violations(pkgs []pkg) (found []string) {
	for _, p := range pkgs {
		from := layer(p.ImportPath)
		for _, dep := range p.Deps {
			if to := layer(dep); to != "" && to != from && !mayUse(from, to) {
				found = append(found, p.ImportPath+" must not import "+dep)
			}
		}
		for _, dep := range p.Imports {
			if from == "schema" && !mayUseOutside(dep) {
				found = append(found, p.ImportPath+" must not import "+dep)
			}
		}
	}
	return found
}

// mayUse reports whether a layer may import another one.
func mayUse(from, to string) bool {
	switch {
	case to == "cmd":
		return false
	case to == "agent":
		return from == "cmd"
	case from == "schema", slices.Contains(leaves, from):
		return false
	}
	return !slices.Contains(middle, from) || !slices.Contains(middle, to)
}

// mayUseOutside reports whether schema may import path: the standard library,
// whose paths begin without a dot, and IDNA.
func mayUseOutside(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") || path == "golang.org/x/net/idna"
}

func TestImportsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...").Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	for _, want := range slices.Concat([]string{"cmd", "agent", "schema"}, middle, leaves) {
		// A layer that was renamed must not escape the test.
		if !slices.ContainsFunc(pkgs, func(p pkg) bool { return layer(p.ImportPath) == want }) {
			t.Errorf("no package in %s", want)
		}
	}
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
}

func TestViolations(t *testing.T) {
	for _, c := range []struct {
		from, to string
		bad      bool
	}{
		{"cmd/tlsrpt-agent", "agent", false},
		{"cmd/tlsrpt-agent", "aggregator", false},
		{"agent", "collector", false},
		{"agent", "submitter", false},
		{"collector/libtlsrpt", "collector", false},
		{"collector", "schema", false},
		{"aggregator", "schema", false},
		{"submitter", "internal/guard", false},
		{"internal/receiver", "schema", false},

		{"collector", "aggregator", true},
		{"collector/libtlsrpt", "submitter", true},
		{"aggregator", "submitter", true},
		{"aggregator", "collector/tail", true},
		{"submitter", "aggregator", true},
		{"agent", "cmd/tlsrpt-agent", true},
		{"submitter", "agent", true},
		{"internal/lab", "agent", true},
		{"schema", "agent", true},
		{"schema", "internal/resolve", true},
		{"internal/guard", "schema", true},
		{"internal/resolve", "internal/guard", true},
	} {
		from, to := module+"/"+c.from, module+"/"+c.to
		got := violations([]pkg{{ImportPath: from, Imports: []string{to}, Deps: []string{"fmt", to}}})
		if bad := len(got) > 0; bad != c.bad {
			t.Errorf("%s -> %s: violations %q, want some: %t", c.from, c.to, got, c.bad)
		}
	}
}

func TestViolationsOfOtherModules(t *testing.T) {
	for path, bad := range map[string]bool{
		"encoding/json":                          false,
		"golang.org/x/net/idna":                  false,
		"golang.org/x/net/http2":                 true,
		"github.com/emersion/go-smtp":            true,
		"github.com/tlsrpt-agent/other/aggregat": true,
	} {
		schema := pkg{ImportPath: module + "/schema", Imports: []string{path}}
		if got := violations([]pkg{schema}); (len(got) > 0) != bad {
			t.Errorf("schema -> %s: violations %q, want some: %t", path, got, bad)
		}
		other := pkg{ImportPath: module + "/submitter", Imports: []string{path}, Deps: []string{path}}
		if got := violations([]pkg{other}); len(got) > 0 {
			t.Errorf("submitter -> %s: %q", path, got)
		}
	}
}

// An import that goes a long way round points up all the same.
func TestViolationsThroughAnother(t *testing.T) {
	p := pkg{
		ImportPath: module + "/collector/tail",
		Imports:    []string{module + "/internal/web"},
		Deps:       []string{module + "/internal/web", module + "/aggregator"},
	}
	want := fmt.Sprintf("%s must not import %s/aggregator", p.ImportPath, module)
	if got := violations([]pkg{p}); !slices.Equal(got, []string{want}) {
		t.Errorf("got %q, want %q", got, want)
	}
}
