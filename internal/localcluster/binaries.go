package localcluster

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

// The programs that are built from modules.
const (
	Etcd              = "etcd"
	KubeAPIServer     = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	KubeProxy         = "kube-proxy"
	Kubectl           = "kubectl"
	Kwok              = "kwok"
	MetricsServer     = "metrics-server"
	Helm              = "helm"
	Helm3             = "helm-3"
	Kustomize         = "kustomize"
	E2ETest           = "e2e.test"
	Ginkgo            = "ginkgo"
	Agnhost           = "agnhost"
)

// program is built from a main package or, when its name says so, from the tests of a package.
type program struct{ name, path string }

func (p program) test() bool { return strings.HasSuffix(p.name, ".test") }

// kubernetesPrograms are built in this order: what a control plane needs first.
var kubernetesPrograms = []program{
	{Etcd, "go.etcd.io/etcd/server/v3"},
	{KubeAPIServer, "k8s.io/kubernetes/cmd/kube-apiserver"},
	{ControllerManager, "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{Scheduler, "k8s.io/kubernetes/cmd/kube-scheduler"},
	{Kubectl, "k8s.io/kubernetes/cmd/kubectl"},
	{Kubelet, "k8s.io/kubernetes/cmd/kubelet"},
	{KubeProxy, "k8s.io/kubernetes/cmd/kube-proxy"},
}

// Binaries are programs of others, built from the modules that a folder of hack/ pins and kept in the user's cache
// directory: every checkout with the same pins, and every instance, shares them.
type Binaries struct {
	name     string
	programs []program
	module   string
	dir      string
	version  string
}

// OpenBinaries finds the programs of Kubernetes that belong to the checkout at source. It builds nothing.
func OpenBinaries(source string) (*Binaries, error) {
	return openBinaries(source, "kubernetes", "k8s.io/kubernetes", kubernetesPrograms)
}

// OpenKwok finds the program that simulates nodes. It is apart because few need it.
func OpenKwok(source string) (*Binaries, error) {
	return openBinaries(source, "kwok", "sigs.k8s.io/kwok", []program{{Kwok, "sigs.k8s.io/kwok/cmd/kwok"}})
}

// openMeasurer finds the program by which pools with real nodes measure what their pods use.
func openMeasurer(source string) (*Binaries, error) {
	return openBinaries(source, MetricsServer, "sigs.k8s.io/metrics-server", []program{{MetricsServer, "sigs.k8s.io/metrics-server/cmd/metrics-server"}})
}

// OpenClients finds the clients that the system is tested with, besides the kubectl of [OpenBinaries]. Every folder of
// hack/clients has a module graph of its own, because each kubectl is built with the libraries of its minor.
func OpenClients(source string) ([]*Binaries, error) {
	const kubectl = "k8s.io/kubernetes/cmd/kubectl"
	var clients []*Binaries
	for _, c := range []struct {
		folder, versionedBy string
		programs            []program
	}{
		{"helm", "helm.sh/helm/v4", []program{{Helm, "helm.sh/helm/v4/cmd/helm"}, {Helm3, "helm.sh/helm/v3/cmd/helm"}}},
		{"kustomize", "sigs.k8s.io/kustomize/kustomize/v5", []program{{Kustomize, "sigs.k8s.io/kustomize/kustomize/v5"}}},
		{"kubectl-1.35", "k8s.io/kubernetes", []program{{"kubectl-1.35", kubectl}}},
		{"kubectl-1.34", "k8s.io/kubernetes", []program{{"kubectl-1.34", kubectl}}},
		{"kubectl-1.33", "k8s.io/kubernetes", []program{{"kubectl-1.33", kubectl}}},
	} {
		binaries, err := openBinaries(source, filepath.Join("clients", c.folder), c.versionedBy, c.programs)
		if err != nil {
			return nil, err
		}
		clients = append(clients, binaries)
	}
	return clients, nil
}

// OpenSuite finds the conformance suite of Kubernetes, its runner, and the program that its images hold. It is apart
// because few need it and it takes as long to build as all the rest.
func OpenSuite(source string) (*Binaries, error) {
	return openBinaries(source, "conformance", "k8s.io/kubernetes", []program{
		{Ginkgo, "github.com/onsi/ginkgo/v2/ginkgo"},
		{Agnhost, "k8s.io/kubernetes/test/images/agnhost"},
		{E2ETest, "k8s.io/kubernetes/test/e2e"},
	})
}

// openBinaries finds the cache directory for programs whose version is that of the module versioned by.
func openBinaries(source, folder, versionedBy string, programs []program) (*Binaries, error) {
	name := filepath.Base(folder)
	b := &Binaries{name: name, programs: programs, module: filepath.Join(source, "hack", folder)}
	key := sha256.New()
	fmt.Fprintln(key, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	required := regexp.MustCompile(`(?m)^(?:require)?\s*` + regexp.QuoteMeta(versionedBy) + ` (v\d+\.\d+\.\d+)\s*$`)
	for _, file := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join(b.module, file))
		if err != nil {
			return nil, fmt.Errorf("read the pinned modules of %s: %w", name, err)
		}
		key.Write(raw)
		if match := required.FindSubmatch(raw); file == "go.mod" && match != nil {
			b.version = string(match[1])
		}
	}
	if b.version == "" {
		return nil, fmt.Errorf("%s/go.mod: no version of %s", b.module, versionedBy)
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	b.dir = filepath.Join(cache, fmt.Sprintf("%s-%s-%.12x", name, b.version, key.Sum(nil)))
	return b, nil
}

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

// Name is that of the folder that pins them.
func (b *Binaries) Name() string { return b.name }

// Version is the programs' version, as in v1.36.3.
func (b *Binaries) Version() string { return b.version }

// Dir is the directory that holds the programs.
func (b *Binaries) Dir() string { return b.dir }

// Path is where a program is, or will be once built.
func (b *Binaries) Path(name string) string { return filepath.Join(b.dir, name) }

// Programs names the programs.
func (b *Binaries) Programs() []string {
	var out []string
	for _, program := range b.programs {
		out = append(out, program.name)
	}
	return out
}

// Missing lists the programs that are yet to be built.
func (b *Binaries) Missing() []string {
	var missing []string
	for _, program := range b.programs {
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
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("make the cache directory: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(b.dir, ".lock"), func() {
		progress.Say("another process is building %s; waiting for it ...", b.name)
	})
	if err != nil {
		return err
	}
	defer unlock()
	progress.Say("%s %s is built from source, once, into %s; this takes minutes", b.name, b.version, b.dir)
	for i, program := range b.programs {
		if _, err := os.Stat(b.Path(program.name)); err == nil {
			continue
		}
		what := fmt.Sprintf("building %s (%d/%d)", program.name, i+1, len(b.programs))
		build := func() error { return goBuild(ctx, b.module, program, b.Path(program.name), b.ldflags()) }
		if err := progress.Step(what, build); err != nil {
			return err
		}
	}
	return nil
}

// ldflags stamps the version of Kubernetes, without which clients and kubelets see v0.0.0.
func (b *Binaries) ldflags() string {
	const at = "k8s.io/component-base/version."
	part := strings.Split(strings.TrimPrefix(b.version, "v"), ".")
	return fmt.Sprintf("-s -w -X %[1]sgitVersion=%[2]s -X %[1]sgitMajor=%[3]s -X %[1]sgitMinor=%[4]s", at, b.version, part[0], part[1])
}
