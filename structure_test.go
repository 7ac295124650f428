// Package vivarium_test holds the tree to the rules of its structure: who may import whom, that every package says what
// it is for, and that every file knows where it runs.
package vivarium_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "vivarium.io/vivarium"

// rule says which packages of this module the packages under a folder may import; the longest matching folder wins.
type rule struct {
	folder  string
	imports []string
}

// rules is the import table, most special first. A component never imports another, and nothing imports a component but
// its command.
var rules = []rule{
	{"api", nil},
	{"internal", []string{"api", "internal"}},
	{"charts", nil},
	{"gateway", []string{"api", "internal", "gateway/internal"}},
	{"vk-provider", []string{"api", "internal", "network", "vk-provider/internal"}},
	{"syncer", []string{"api", "internal", "network", "syncer/internal"}},
	{"network", []string{"api", "internal", "network"}},
	{"cmd/gateway", []string{"gateway", "internal/boot"}},
	{"cmd/vk-provider", []string{"vk-provider", "network", "internal/boot"}},
	{"cmd/syncer", []string{"syncer", "internal/boot"}},
	{"cmd/network", []string{"network", "internal/boot"}},
	{"cmd/vpc-agent", []string{"network/vxlan", "internal/boot"}},
	{"cmd/vivarium-vpc", []string{"network/vxlan"}},
	{"cmd/vivarium", []string{"api", "internal", "charts"}},
	{"bench", []string{"api", "internal", "charts", "network"}},
	{"e2e", []string{"api", "internal/kubetest"}},
	{"hack", nil},
}

func TestImports(t *testing.T) {
	for _, p := range packages(t, "{{.ImportPath}}|{{.Name}}|{{join .Imports \" \"}}") {
		path, name, imports := p[0], p[1], strings.Fields(p[2])
		folder := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
		if folder == "" {
			continue
		}
		rule, ok := ruleFor(folder)
		if !ok {
			t.Errorf("%s: no rule says what it may import; add its folder to the table", folder)
			continue
		}
		for _, imported := range imports {
			inside, ours := strings.CutPrefix(imported, module+"/")
			if ours && !allowed(rule, folder, inside) {
				t.Errorf("%s (package %s) imports %s", folder, name, inside)
			}
			for _, banned := range []string{"k8s.io/kubernetes", "github.com/pkg/errors", "k8s.io/klog"} {
				if imported == banned || strings.HasPrefix(imported, banned+"/") && banned != "k8s.io/klog" {
					t.Errorf("%s imports %s", folder, imported)
				}
			}
		}
	}
}

func ruleFor(folder string) (rule, bool) {
	for _, r := range rules {
		if within(folder, r.folder) {
			return r, true
		}
	}
	return rule{}, false
}

func allowed(r rule, folder, imported string) bool {
	// The compiler guards internal folders; a package may always use what lies under it.
	if within(imported, folder) {
		return true
	}
	for _, a := range r.imports {
		if within(imported, a) {
			return true
		}
	}
	return false
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// TestPackageComments asks every package what it is for.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t, "{{.ImportPath}}|{{.Doc}}|{{len .GoFiles}}") {
		if p[1] == "" && p[2] != "0" {
			t.Errorf("%s has no package comment", p[0])
		}
	}
}

// packages runs go list with a format whose fields are separated by bars.
func packages(t *testing.T, format string) [][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", format, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var rows [][]string
	for line := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		rows = append(rows, strings.SplitN(line, "|", 3))
	}
	return rows
}
