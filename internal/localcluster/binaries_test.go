package localcluster

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// tinyModule is a checkout that pins two small programs.
func tinyModule(t *testing.T, second string) *Binaries {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GOCACHE", goCache(t))
	source := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":      "module example.com/tiny\n\ngo 1.26.0\n\nrequire example.com/versioned v1.2.3\nreplace example.com/versioned => ./versioned\n",
		"go.sum":      "",
		"one/main.go": "package main\n\nfunc main() {}\n",
		"two/main.go": second,
		// The version is read from the module file alone.
		"versioned/go.mod": "module example.com/versioned\n",
	} {
		path := filepath.Join(source, "hack", "tiny", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := openBinaries(source, "tiny", "example.com/versioned", []program{{"one", "./one"}, {"two", "./two"}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goCache keeps the compiler's cache warm across tests with a HOME of their own.
func goCache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GOCACHE"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(cache, "go-build")
}

func TestBuildResumes(t *testing.T) {
	b := tinyModule(t, "package main\n\nfunc main() { broken }\n")
	if b.Version() != "v1.2.3" {
		t.Errorf("version %q", b.Version())
	}
	err := b.Build(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Fatalf("a program that does not compile: %v", err)
	}
	if missing := b.Missing(); len(missing) != 1 || missing[0] != "two" {
		t.Fatalf("missing after a build that was cut short: %v", missing)
	}
	first, err := os.Stat(b.Path("one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.module, "two", "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := b.Build(t.Context(), NewProgress(&out)); err != nil {
		t.Fatal(err)
	}
	if missing := b.Missing(); len(missing) != 0 {
		t.Errorf("still missing: %v", missing)
	}
	if again, err := os.Stat(b.Path("one")); err != nil || !again.ModTime().Equal(first.ModTime()) {
		t.Errorf("what was ready was built again: %v", err)
	}
	if !strings.Contains(out.String(), "building two (2/2)") || strings.Contains(out.String(), "building one") {
		t.Errorf("progress:\n%s", out.String())
	}
}

func TestBuildWaitsForAnother(t *testing.T) {
	b := tinyModule(t, "package main\n\nfunc main() {}\n")
	if err := os.MkdirAll(b.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := tryLock(filepath.Join(b.Dir(), ".lock"))
	if err != nil || unlock == nil {
		t.Fatal(err)
	}
	waiting, done := make(chan struct{}), make(chan error, 1)
	told := sync.OnceFunc(func() { close(waiting) })
	go func() { done <- b.Build(t.Context(), NewProgress(onWrite(told))) }()
	<-waiting
	select {
	case err := <-done:
		t.Fatalf("two built at once: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	// The other one finishes its work, and there is nothing left to do.
	for _, name := range b.Missing() {
		if err := os.WriteFile(b.Path(name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(b.Path("one")); err != nil || info.Size() != 0 {
		t.Errorf("the other's program was built again: %v", err)
	}
}

// onWrite calls a function at every write.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func TestKeyFollowsThePins(t *testing.T) {
	b := tinyModule(t, "package main\n\nfunc main() {}\n")
	if err := os.WriteFile(filepath.Join(b.module, "go.sum"), []byte("changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := openBinaries(filepath.Dir(filepath.Dir(b.module)), "tiny", "example.com/versioned", b.programs)
	if err != nil {
		t.Fatal(err)
	}
	if again.Dir() == b.Dir() {
		t.Error("other sums, same programs")
	}
	if _, err := openBinaries(filepath.Dir(filepath.Dir(b.module)), "tiny", "example.com/absent", nil); err == nil {
		t.Error("no version was found, and that is no error")
	}
}

func TestCacheWithoutHome(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	t.Setenv("TMPDIR", t.TempDir())
	dir, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Dir(dir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", dir, info, err)
	}
}
