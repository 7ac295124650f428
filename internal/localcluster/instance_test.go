package localcluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vivarium.io/vivarium/internal/localcluster/image"
)

func TestCreateRefusesForeignDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := create(dir, 16000); err == nil || !strings.Contains(err.Error(), "RUN_DIR") {
		t.Errorf("create: %v", err)
	}
	if err := Down(t.Context(), dir, false, nil); err != nil {
		t.Errorf("down: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "thesis.txt")); err != nil {
		t.Errorf("down removed what is not ours: %v", err)
	}
}

func TestStateSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, err := Open(dir); !errors.Is(err, ErrNoInstance) || !strings.Contains(err.Error(), "vivarium up") {
		t.Errorf("open nothing: %v", err)
	}
	i, err := create(dir, 17000)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.save(func(s *state) {
		s.Nodes, s.Network, s.Pools = NodesReal, networks(17000)[0], []poolState{{Name: "pool-a", Nodes: 1, Register: true}}
	}); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := again.current()
	if s.ID != instanceID(dir) || s.PortBase != 17000 || s.poolIndex("pool-a") != 0 || s.poolIndex("pool-b") != -1 || s.Network != networks(17000)[0] {
		t.Errorf("state after opening again: %+v", s)
	}
	if err := Down(t.Context(), dir, true, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrNoInstance) {
		t.Errorf("after down --keep: %v", err)
	}
}

func TestTornState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if _, err := create(dir, 17000); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(`{"id":`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), stateFile) {
		t.Errorf("open: %v", err)
	}
	if err := Down(t.Context(), dir, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("down left the directory: %v", err)
	}
}

// TestMismatches asks an instance to become another one.
func TestMismatches(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	i, err := create(dir, 17000)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.save(func(s *state) { s.Nodes = NodesReal }); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		config UpConfig
		want   string
	}{
		"OtherPorts": {UpConfig{RunDir: dir, PortBase: 16000}, "PORT_BASE=17000"},
		"OtherNodes": {UpConfig{RunDir: dir, Nodes: NodesKwok}, "NODES=real"},
		"LowPorts":   {UpConfig{RunDir: filepath.Join(dir, "new"), PortBase: 80}, "choose one from"},
		"HighPorts":  {UpConfig{RunDir: filepath.Join(dir, "new"), PortBase: 65500}, "choose one from"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &starter{UpConfig: tc.config}
			err := s.open()
			if err == nil {
				err = s.choose(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestOneAtATime(t *testing.T) {
	i, err := newInstance(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := i.lock(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("no patience"))
	defer cancel()
	if _, err := i.lock(impatient, nil); err == nil || !strings.Contains(err.Error(), "no patience") {
		t.Errorf("a second lock: %v", err)
	}
	// Whoever had the lock removes the directory, and the lock with it; the next one makes its own.
	second := make(chan error, 1)
	go func() {
		unlock, err := i.lock(t.Context(), nil)
		if err == nil {
			defer unlock()
			_, err = os.Stat(i.path(lockName))
		}
		second <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if err := os.RemoveAll(i.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(i.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	picked := ports.all()
	slices.Sort(picked)
	if len(slices.Compact(picked)) != 5 || picked[0] < 1024 || picked[4] >= 32768 {
		t.Errorf("%+v: outgoing connections may have such ports", ports)
	}
	if err := checkFree(picked); err != nil {
		t.Error(err)
	}
}

func TestCheckFree(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	err = checkFree([]int{port})
	if err == nil || !strings.Contains(err.Error(), "PORT_BASE") {
		t.Errorf("a port in use: %v", err)
	}
	if holder := portHolder(port); holder != "" && !strings.Contains(err.Error(), holder) {
		t.Errorf("%q does not name %s", err, holder)
	}
	listener.Close()
	if err := checkFree([]int{port}); err != nil {
		t.Errorf("a free port: %v", err)
	}
}

func TestNeedSpace(t *testing.T) {
	dir := t.TempDir()
	if err := needSpace(dir, 1, "a byte", ""); err != nil {
		t.Error(err)
	}
	if err := needSpace(dir, 1<<62, "the instance", "set RUN_DIR"); err == nil || !strings.Contains(err.Error(), "set RUN_DIR") {
		t.Errorf("a full disk: %v", err)
	}
}

func TestFindSource(t *testing.T) {
	here, err := FindSource()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	t.Chdir(elsewhere)
	t.Setenv(SourceEnv, here)
	if found, err := FindSource(); err != nil || found != here {
		t.Errorf("by %s: %q, %v", SourceEnv, found, err)
	}
	t.Setenv(SourceEnv, elsewhere)
	if _, err := FindSource(); !errors.Is(err, ErrNoSource) {
		t.Errorf("where there is none: %v", err)
	}
	t.Setenv(SourceEnv, "")
	if _, err := FindSource(); !errors.Is(err, ErrNoSource) || !strings.Contains(err.Error(), SourceEnv) {
		t.Errorf("outside of a checkout: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	i, err := create(filepath.Join(t.TempDir(), "run"), 17000)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Load(t.Context(), []string{"/nonexistent.tar"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := i.Load(t.Context(), []string{t.TempDir()}, nil); err == nil || !strings.Contains(err.Error(), "docker save") {
		t.Errorf("a directory: %v", err)
	}
	text := filepath.Join(t.TempDir(), "image.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("no image\n", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := i.Load(t.Context(), []string{text}, nil); err == nil || !strings.Contains(err.Error(), "docker save") {
		t.Errorf("a text: %v", err)
	}
	var packed bytes.Buffer
	out := gzip.NewWriter(&packed)
	if err := (image.Image{Name: "vivarium.test/x:v1", Layers: []image.Layer{{}}}).Write(out); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar.gz")
	if err := os.WriteFile(file, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := i.Load(t.Context(), []string{file}, nil); err == nil || !strings.Contains(err.Error(), "vivarium up") {
		t.Errorf("no node: %v", err)
	}
	if err := i.save(func(s *state) { s.Nodes = NodesKwok }); err != nil {
		t.Fatal(err)
	}
	if err := i.Load(t.Context(), []string{file}, nil); !errors.Is(err, ErrSimulated) {
		t.Errorf("simulated nodes: %v", err)
	}
}
