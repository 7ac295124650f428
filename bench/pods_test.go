package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
)

// TestPods measures the vk-provider once, on a scale that shows nothing but that it works, and publishes it beside what
// another run found out about the gateway. No time is looked at.
func TestPods(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts control planes, which -short rules out")
	}
	source, err := localcluster.FindSource()
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []func(string) (*localcluster.Binaries, error){localcluster.OpenBinaries, localcluster.OpenKwok} {
		binaries, err := open(source)
		if err != nil {
			t.Fatal(err)
		}
		if len(binaries.Missing()) > 0 && !kubetest.InCI() {
			t.Skip(kubetest.ErrNoPrograms)
		}
	}
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	file, other, page := filepath.Join(dir, "pods.json"), filepath.Join(dir, "other.json"), filepath.Join(dir, "page.md")
	args := append(programs(t, source, dir, "vk-provider"), "-scale", "smoke", "-only", podsPart, "-json", file)
	if err := command(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	report, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	if report.Pods == nil || len(report.Operations) > 0 {
		t.Fatalf("%+v", report)
	}
	var names []string
	values := map[string]float64{}
	for _, f := range report.Pods.Figures {
		names = append(names, f.Name)
		values[f.Name] = f.Value
	}
	want := []string{
		"burst-ratio", "writes-per-pod", "bind-to-create-p50", "bind-to-create-p99", "ready-to-ready-p50", "ready-to-ready-p99",
		"restart-writes", "restart-writes-nodes", "restart-time", "memory-live", "memory-resident", "takeover-killed", "takeover-stopped",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("what was measured (-want +got):\n%s", diff)
	}
	// These are counts, and do not depend on how fast the machine is.
	if values["restart-writes"] != 0 {
		t.Errorf("a restart writes %v times about pods", values["restart-writes"])
	}
	if n := values["writes-per-pod"]; n < 2 || n > 6 {
		t.Errorf("%v writes per pod", n)
	}
	for _, l := range report.Pods.Lanes {
		if l.Pods == 0 || l.PerSecond <= 0 || l.CPU["pools"] <= 0 {
			t.Errorf("%+v", l)
		}
	}
	if !strings.Contains(stdout.String(), "SIMULATED") {
		t.Errorf("it does not say that nodes are simulated:\n%s", stdout.String())
	}

	gateway := &Report{Date: "2026-01-01", Scale: Scale{Name: "full", Turn: time.Second}, Operations: []Operation{{Name: "get", What: "get a thing", Clients: 1}}}
	if err := writeReport(other, gateway); err != nil {
		t.Fatal(err)
	}
	if err := command(t.Context(), []string{"-render", file, "-with", other, "-json", other, "-markdown", page}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(raw, []byte("get a thing")) || !bytes.Contains(raw, []byte("## Pods in pools")) {
		t.Errorf("the page: %v\n%s", err, raw)
	}
	// The gateway's next run leaves the pods alone.
	both, err := readReport(other)
	if err != nil {
		t.Fatal(err)
	}
	if next := gateway.with(both); next.Pods == nil || next.Date != gateway.Date {
		t.Errorf("%+v", next)
	}
}
