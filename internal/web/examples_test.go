package web

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const examples = "../../examples"

// TestExamplesNames: the rules and the dashboard ask for metrics that there are.
func TestExamplesNames(t *testing.T) {
	s := small(t)
	s.o.Metrics.TopDomains = 1
	metrics := get(s, "/metrics").Body.String()
	for _, file := range []string{"prometheus/rules.yml", "prometheus/rules_test.yml", "grafana/tlsrpt-agent.json"} {
		text, err := os.ReadFile(filepath.Join(examples, file))
		must(t, err)
		names := regexp.MustCompile(`\btlsrpt_[a-z_]+|\bprocess_[a-z_]+`).FindAllString(string(text), -1)
		if len(names) < 10 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, name := range names {
			if !strings.Contains(metrics, "\n"+name+"{") && !strings.Contains(metrics, "\n"+name+" ") {
				t.Errorf("%s asks for %s, which is not there", file, name)
			}
		}
	}
}

// TestDashboardFile: it is JSON, and each panel has a place and a query.
func TestDashboardFile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(examples, "grafana", "tlsrpt-agent.json"))
	must(t, err)
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	must(t, json.Unmarshal(text, &d))
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %+v", p)
		}
		ids[p.ID] = true
	}
	if len(ids) < 10 {
		t.Errorf("%d panels", len(ids))
	}
}

// TestRules runs the tests of the alert rules.
func TestRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool of the Debian package prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(examples, "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
