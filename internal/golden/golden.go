// Package golden keeps what a program writes as files to read: a test compares with the file, and -update writes it anew.
// Only tests import it. It must never decide what is right: whoever updates reads the difference. Start at [Compare].
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew; review them as prose")

// Compare compares with testdata/name of the test's package.
func Compare(t testing.TB, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("against %s (-want +got), which -update writes anew:\n%s", file, diff)
	}
}
