package localcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// The programs that [Binaries] builds.
const (
	Etcd              = "etcd"
	KubeAPIServer     = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	KubeProxy         = "kube-proxy"
	Kubectl           = "kubectl"
)

// programs maps each program to its package, in the order in which they are built: what a control plane needs first.
var programs = []struct{ name, path string }{
	{Etcd, "go.etcd.io/etcd/server/v3"},
	{KubeAPIServer, "k8s.io/kubernetes/cmd/kube-apiserver"},
	{ControllerManager, "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{Scheduler, "k8s.io/kubernetes/cmd/kube-scheduler"},
	{Kubectl, "k8s.io/kubernetes/cmd/kubectl"},
	{Kubelet, "k8s.io/kubernetes/cmd/kubelet"},
	{KubeProxy, "k8s.io/kubernetes/cmd/kube-proxy"},
}

// ErrNotBuilt says that Kubernetes programs are not in the cache yet.
var ErrNotBuilt = errors.New("not built yet")

// Binaries are the Kubernetes programs, built from the modules that hack/kubernetes pins and kept in the user's cache
// directory: every checkout with the same pins, and every instance, shares them.
type Binaries struct {
	module  string
	dir     string
	version string
}

// OpenBinaries finds the cache directory that belongs to the checkout at source. It builds nothing.
func OpenBinaries(source string) (*Binaries, error) {
	b := &Binaries{module: filepath.Join(source, "hack", "kubernetes")}
	key := sha256.New()
	fmt.Fprintln(key, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join(b.module, name))
		if err != nil {
			return nil, fmt.Errorf("read the pinned Kubernetes modules: %w", err)
		}
		key.Write(raw)
		if match := kubernetesVersion.FindSubmatch(raw); name == "go.mod" && match != nil {
			b.version = string(match[1])
		}
	}
	if b.version == "" {
		return nil, fmt.Errorf("%s/go.mod: no version of k8s.io/kubernetes", b.module)
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	b.dir = filepath.Join(cache, fmt.Sprintf("kubernetes-%s-%.12x", b.version, key.Sum(nil)))
	return b, nil
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v1\.\d+\.\d+)\s*$`)

// cacheDir is where built things are kept for every checkout of this user.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		// No HOME, as in some CI jobs: a directory that only this user can have made.
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("vivarium-cache-%d", os.Getuid()))
		if err := os.MkdirAll(cache, 0o700); err != nil {
			return "", fmt.Errorf("make a cache directory: %w", err)
		}
		info, err := os.Lstat(cache)
		if err != nil {
			return "", fmt.Errorf("make a cache directory: %w", err)
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() {
			return "", fmt.Errorf("%s is not ours; set HOME or XDG_CACHE_HOME", cache)
		}
	}
	return filepath.Join(cache, "vivarium"), nil
}

// Version is the version of Kubernetes, as in v1.36.3.
func (b *Binaries) Version() string { return b.version }

// Dir is the directory that holds the programs.
func (b *Binaries) Dir() string { return b.dir }

// Path is where a program is, or will be once built.
func (b *Binaries) Path(name string) string { return filepath.Join(b.dir, name) }

// Missing lists the programs that are yet to be built.
func (b *Binaries) Missing() []string {
	var missing []string
	for _, program := range programs {
		if _, err := os.Stat(b.Path(program.name)); err != nil {
			missing = append(missing, program.name)
		}
	}
	return missing
}

// Build builds what is missing, one program after the other. An interrupted build keeps the programs that were ready, and
// the compiler's own cache keeps the rest of the work. When another process builds, it waits for that.
func (b *Binaries) Build(ctx context.Context, progress *Progress) error {
	if len(b.Missing()) == 0 {
		return nil
	}
	unlock, err := b.lock(ctx, progress)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("build Kubernetes %s: %w; install Go %s or newer", b.version, err, strings.TrimPrefix(runtime.Version(), "go"))
	}
	if len(b.Missing()) == len(programs) {
		progress.Say("Kubernetes %s is built from source once, into %s; about 6 minutes on 2 cores", b.version, b.dir)
	}
	for i, program := range programs {
		if _, err := os.Stat(b.Path(program.name)); err == nil {
			continue
		}
		what := fmt.Sprintf("building %s (%d/%d)", program.name, i+1, len(programs))
		if err := progress.Step(what, func() error { return b.build(ctx, program.name, program.path) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *Binaries) build(ctx context.Context, name, path string) error {
	unfinished := b.Path(name) + ".unfinished"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", b.ldflags(), "-o", unfinished, path)
	cmd.Dir = b.module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, lastLines(out, 20))
	}
	if err := os.Rename(unfinished, b.Path(name)); err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	return nil
}

// ldflags stamps the version, without which clients and kubelets see v0.0.0.
func (b *Binaries) ldflags() string {
	const at = "k8s.io/component-base/version."
	minor := strings.Split(b.version, ".")[1]
	return fmt.Sprintf("-s -w -X %[1]sgitVersion=%[2]s -X %[1]sgitMajor=1 -X %[1]sgitMinor=%[3]s", at, b.version, minor)
}

// lock keeps other processes from building the same programs.
func (b *Binaries) lock(ctx context.Context, progress *Progress) (unlock func(), err error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache directory: %w", err)
	}
	return lockFile(ctx, filepath.Join(b.dir, ".lock"), func() {
		progress.Say("another process is building Kubernetes; waiting for it ...")
	})
}

// lockFile takes an exclusive lock that ends with the process at the latest. It calls waiting when it has to wait.
func lockFile(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", path, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func lastLines(out []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
