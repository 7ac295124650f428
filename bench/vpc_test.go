package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
)

// vpcPrograms are what the parts about VPCs run.
var vpcPrograms = []string{"vivarium-vpc", "vpc-agent", "network", "vk-provider"}

// TestVPC measures everything about VPCs once, on a scale that shows nothing but that it works. No time is looked at.
func TestVPC(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts control planes, which -short rules out")
	}
	source, err := localcluster.FindSource()
	if err != nil {
		t.Fatal(err)
	}
	binaries, err := localcluster.OpenBinaries(source)
	if err != nil {
		t.Fatal(err)
	}
	if len(binaries.Missing()) > 0 && !kubetest.InCI() {
		t.Skip(kubetest.ErrNoPrograms)
	}
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	file, page := filepath.Join(dir, "vpc.json"), filepath.Join(dir, "page.md")
	arguments := programs(t, source, dir, vpcPrograms...)
	if _, err := possibleVPCNode(dir); err != nil && kubetest.InCI() && os.Getuid() == 0 {
		t.Fatalf("%v; run `make tools` first", err)
	}
	args := append(arguments, "-scale", "smoke", "-only", "^"+vpcPart, "-json", file)
	if err := command(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	report, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		vpcPart + "-node": {
			"add-stock-bridge", "add-stock-bridge-cpu", "add-vpc", "add-vpc-cpu", "add-ratio", "del-stock-bridge", "del-stock-bridge-cpu", "del-vpc", "del-vpc-cpu", "del-ratio",
			"known", "known-cpu", "first-pod", "first-pod-p99", "first-pod-cpu", "agent-memory", "agent-memory-each", "kernel-memory-each", "add-many", "add-many-ratio", "add-many-cpu",
		},
		vpcPart + "-places": {
			"idle-place-p50", "idle-place-p99", "idle-plain-p50", "idle-own-p50", "idle-added-p50",
			"burst-place-p50", "burst-place-p99", "burst-plain-p50", "burst-own-p50", "burst-added-p50",
		},
		vpcPart + "-addresses": {"addresses", "writes"},
	}
	for _, section := range vpcSections {
		t.Run(section.name, func(t *testing.T) {
			at := -1
			for i, r := range report.VPCs {
				if r.Name == section.name {
					at = i
				}
			}
			if at < 0 {
				t.Fatal("it was not measured")
			}
			r := report.VPCs[at]
			switch {
			case r.Name == vpcPart+"-containers":
				// A whole system takes too long; what it would measure with is what the node's pods do.
				if r.Skipped == "" {
					t.Error("a small run starts a whole system")
				}
				return
			case r.Skipped != "":
				t.Skip(r.Skipped)
			}
			var names []string
			for _, f := range r.Figures {
				names = append(names, f.Name)
			}
			if diff := cmp.Diff(want[section.name], names); diff != "" {
				t.Errorf("what was measured (-want +got):\n%s", diff)
			}
			for _, traffic := range r.Traffic {
				for _, l := range traffic.Lanes {
					if l.PerSecond <= 0 || l.Ratio.Median <= 0 {
						t.Errorf("%s, %s: %+v", traffic.Name, l.Name, l)
					}
				}
				if traffic.Aim == "" {
					t.Errorf("%s has no aim", traffic.Name)
				}
			}
			if !strings.Contains(stdout.String(), r.title()) {
				t.Errorf("the table has no %s:\n%s", r.title(), stdout.String())
			}
		})
	}
	// What another run found out about something else stays.
	other := filepath.Join(dir, "other.json")
	if err := writeReport(other, &Report{Pods: &PodsReport{Date: "2026-01-01", Scale: Scale{PoolRounds: 1}}, VPCs: []*VPCReport{{Name: vpcPart + "-node", Date: "2025-01-01"}, {Name: vpcPart + "-containers", Date: "2026-01-01"}}}); err != nil {
		t.Fatal(err)
	}
	if err := command(t.Context(), []string{"-render", file, "-with", other, "-json", other, "-markdown", page}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	both, err := readReport(other)
	if err != nil {
		t.Fatal(err)
	}
	if both.Pods == nil || len(both.VPCs) != 4 || both.VPCs[0].Date != "2026-01-01" {
		t.Errorf("%+v", both)
	}
	if raw, err := os.ReadFile(page); err != nil || !bytes.Contains(raw, []byte("## VPCs")) {
		t.Errorf("the page: %v\n%s", err, raw)
	}
}
