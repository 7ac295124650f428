package process_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/internal/localcluster/process"
)

func everything(string) bool { return true }

func openSet(t *testing.T, dir, mark string) *process.Set {
	t.Helper()
	set, err := process.OpenSet(dir, mark)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Stop(0, everything) })
	return set
}

func TestSet(t *testing.T) {
	dir, mark := t.TempDir(), "PROCESS_TEST="+t.Name()+t.TempDir()
	spec := process.Spec{Name: "one", Path: "/bin/sleep", Args: []string{"1000"}, Log: filepath.Join(dir, "one.log")}
	ensure := func(set *process.Set, spec process.Spec, want process.Outcome) *process.Process {
		t.Helper()
		p, got, err := set.Ensure(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", spec.Name, got, want)
		}
		return p
	}

	first := openSet(t, dir, mark)
	p := ensure(first, spec, process.Started)
	ensure(first, spec, process.Kept)

	later := openSet(t, dir, mark)
	if diff := cmp.Diff(p.ID(), ensure(later, spec, process.Kept).ID()); diff != "" {
		t.Errorf("a later program found another process:\n%s", diff)
	}
	changed := spec
	changed.Args = []string{"2000"}
	ensure(later, changed, process.Replaced)
	if p.Alive() {
		t.Error("the replaced process still runs")
	}
	if err := later.Get("one").Stop(0); err != nil {
		t.Fatal(err)
	}
	p = ensure(later, changed, process.Restarted)

	// A process that was started but not recorded is found by its mark alone.
	if err := os.Remove(filepath.Join(dir, "one.json")); err != nil {
		t.Fatal(err)
	}
	var strays []process.ID
	for _, stray := range process.Marked(mark) {
		strays = append(strays, stray.ID())
	}
	if _, err := os.Stat("/proc/self/environ"); err == nil {
		if diff := cmp.Diff([]process.ID{p.ID()}, strays); diff != "" {
			t.Errorf("strays (-want +got):\n%s", diff)
		}
	}

	if err := later.Stop(0, everything); err != nil {
		t.Fatal(err)
	}
	if p.Alive() || len(later.All()) != 0 || len(process.Marked(mark)) != 0 {
		t.Error("something is left after Stop")
	}
}
