package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
)

// TestMain is the plain proxy, or a node, where the program under test starts itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == proxyCommand {
		exit(runProxy(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == vpcNodeCommand {
		exit(runVPCNode(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// TestRun measures everything once, on a scale that shows nothing but that it works. No time is looked at.
func TestRun(t *testing.T) {
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
	if missing := binaries.Missing(); len(missing) > 0 && !kubetest.InCI() {
		t.Skip(kubetest.ErrNoPrograms)
	}
	dir := t.TempDir()
	built := programs(t, source, dir, "gateway", "vk-provider")
	var stdout, stderr bytes.Buffer
	file, page := filepath.Join(dir, "bench.json"), filepath.Join(dir, "page.md")
	args := append(built, "-scale", "smoke", "-only", "get|create|list|watch", "-json", file)
	if err := command(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	report, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, op := range report.Operations {
		names = append(names, op.Name)
		for _, l := range op.Lanes {
			if l.Requests == 0 || l.P50 <= 0 || l.P99 < l.P50 || l.PeakMemory <= 0 || l.Ratio.Median <= 0 {
				t.Errorf("%s, %s: %+v", op.Name, l.Name, l)
			}
		}
		if len(op.Aims) == 0 {
			t.Errorf("%s has no aim", op.Name)
		}
	}
	for _, f := range report.Figures {
		names = append(names, f.Name)
	}
	want := []string{
		"get-json", "get-protobuf", "create", "list-json", "list-json-gzip", "list-protobuf", "list-table", "get-throughput", "list-throughput",
		"watch-latency", "list-everywhere", "idle-watch", "idle-watch-rss", "idle-watch-goroutines", "list-memory-JSON", "list-memory-protobuf",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("what was measured (-want +got):\n%s", diff)
	}
	if !strings.Contains(stdout.String(), laneProxy) {
		t.Errorf("the table has no %s:\n%s", laneProxy, stdout.String())
	}
	if err := command(t.Context(), []string{"-render", file, "-markdown", page}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(page); err != nil || !bytes.Contains(raw, []byte("## Aims")) {
		t.Errorf("the page: %v\n%s", err, raw)
	}
}

// programs builds what is measured, and gives the flags that say where it is. What is not built has this program in its place.
func programs(t *testing.T, source, dir string, names ...string) []string {
	t.Helper()
	arguments := []string{"build", "-o", dir}
	at := map[string]string{"gateway": os.Args[0], "vk-provider": os.Args[0]}
	for _, name := range names {
		arguments = append(arguments, "./cmd/"+name)
		at[name] = filepath.Join(dir, name)
	}
	build := exec.CommandContext(t.Context(), "go", arguments...)
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return []string{"-gateway", at["gateway"], "-vk-provider", at["vk-provider"], "-programs", dir}
}

// TestStops shows that a run that is given up ends, and leaves nothing.
func TestStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	if err := command(ctx, []string{"-scale", "smoke", "-gateway", os.Args[0], "-vk-provider", os.Args[0]}, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
		t.Error("no error")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestSummarize(t *testing.T) {
	lanes := []*lane{{name: "a"}, {name: "b"}}
	ms := func(n ...int) (all []time.Duration) {
		for _, n := range n {
			all = append(all, time.Duration(n)*time.Millisecond)
		}
		return all
	}
	of := func(latencies []time.Duration) turn {
		return turn{latencies: latencies, elapsed: time.Second, cpu: 30 * time.Millisecond}
	}
	// The machine is twice as slow in the second round: ratios do not see it.
	op := summarize(lanes, [][]turn{
		{of(ms(10, 10, 20)), of(ms(20, 20, 40)), of(ms(10, 10, 20))},
		{of(ms(15, 15)), of(ms(30, 30)), of(ms(15, 15))},
	})
	if a := op.Lanes[0]; a.Ratio.Median != 1 || a.RateRatio.Median != 1 || a.P50 != 20000 || a.CPU != 10000 {
		t.Errorf("the first lane: %+v", a)
	}
	if b := op.Lanes[1]; b.Ratio != (Spread{1.5, 1.5, 1.5}) || b.Requests != 6 || b.RateRatio.Median != 2.0/3 {
		t.Errorf("the second lane: %+v", b)
	}
}

func TestParseBenchmarks(t *testing.T) {
	out := "goos: linux\nBenchmarkToTenant/JSON \t 5 \t 1000 ns/op\t1500.5 MB/s\t 8 B/op\t 1 allocs/op\nBenchmarkOther-2 10 20 ns/op\nPASS\n"
	want := []Benchmark{{Name: "ToTenant/JSON", Nanoseconds: 1000, MBPerSecond: 1500.5, Bytes: 8, Allocations: 1}, {Name: "Other-2", Nanoseconds: 20}}
	if diff := cmp.Diff(want, parseBenchmarks([]byte(out))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPage holds docs/benchmarks.md to its report.
func TestPage(t *testing.T) {
	report, err := readReport(filepath.Join("..", "docs", "benchmarks.json"))
	if os.IsNotExist(err) {
		t.Skip("no report has been published yet")
	}
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report.markdown(), string(page)); diff != "" {
		t.Errorf("docs/benchmarks.md is not what benchmarks.json says; run go run ./bench -render docs/benchmarks.json -markdown docs/benchmarks.md (-want +got):\n%s", diff)
	}
}
