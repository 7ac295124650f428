package admin_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/admin"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/names"
)

// scannerFn lets a test play the control cluster.
type scannerFn func(context.Context, names.TenantID) ([]string, error)

func (f scannerFn) Find(ctx context.Context, id names.TenantID) ([]string, error) { return f(ctx, id) }

func emptyControl(context.Context, names.TenantID) ([]string, error) { return nil, nil }

// fixture is an admin API on an etcd of its own.
type fixture struct {
	server      *admin.Server
	stop        func()
	dir         string
	ca, serving *localcluster.CA
}

func start(t *testing.T, scanner admin.NameScanner) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	f.ca, f.serving = newCA(t, f.dir, "admin-ca"), newCA(t, f.dir, "serving-ca")
	f.run(t, scanner)
	return f
}

// run starts the server; a stopped one can be run again and finds its objects.
func (f *fixture) run(t *testing.T, scanner admin.NameScanner) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	server, err := admin.New(ctx, f.config(t, scanner))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	f.server, f.stop = server, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	waitReady(t, server)
}

func (f *fixture) config(t *testing.T, scanner admin.NameScanner) admin.Config {
	t.Helper()
	pair, err := f.serving.Issue(localcluster.Request{Name: "serving", User: "admin", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	return admin.Config{
		Listen: "127.0.0.1:0", CertFile: pair.Cert, KeyFile: pair.Key, ClientCAFile: f.ca.Cert,
		Etcd: admin.Etcd{Dir: filepath.Join(f.dir, "etcd")}, Scanner: scanner,
	}
}

func waitReady(t *testing.T, server *admin.Server) {
	t.Helper()
	var err error
	for range 3600 {
		if err = server.Ready(t.Context()); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}

func newCA(t *testing.T, dir, name string) *localcluster.CA {
	t.Helper()
	ca, err := localcluster.OpenCA(filepath.Join(dir, name), name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// kubeconfig gives the path of a kubeconfig with a certificate from ca.
func (f *fixture) kubeconfig(t *testing.T, ca *localcluster.CA, user string, groups ...string) string {
	t.Helper()
	name := strings.NewReplacer(":", "-").Replace(user)
	pair, err := ca.Issue(localcluster.Request{Name: name, User: user, Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://" + f.server.Address().String(), CertificateAuthority: f.serving.Cert}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificate: pair.Cert, ClientKey: pair.Key}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	path := filepath.Join(f.dir, name+".kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f *fixture) operator(t *testing.T) client.WithWatch {
	t.Helper()
	return f.clientFor(t, f.kubeconfig(t, f.ca, "root", "system:masters"))
}

func (f *fixture) component(t *testing.T) client.WithWatch {
	t.Helper()
	return f.clientFor(t, f.kubeconfig(t, f.ca, "vivarium-syncer", admin.GroupComponents))
}

func (f *fixture) clientFor(t *testing.T, kubeconfig string) client.WithWatch {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, config)
}

func newClient(t *testing.T, config *rest.Config) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// kubectl runs the real kubectl and gives what it printed on both streams.
func kubectl(t *testing.T, kubeconfig, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kubectlPath(t), append([]string{"--kubeconfig", kubeconfig, "--cache-dir", t.TempDir()}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}

// mustKubectl is kubectl where it has to work.
func mustKubectl(t *testing.T, kubeconfig, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, err := kubectl(t, kubeconfig, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout + stderr
}

// kubectlPath finds the kubectl that was built with the other Kubernetes programs.
func kubectlPath(t *testing.T) string {
	t.Helper()
	source, err := localcluster.FindSource()
	if err != nil {
		t.Fatal(err)
	}
	binaries, err := localcluster.OpenBinaries(source)
	if err != nil {
		t.Fatal(err)
	}
	program := binaries.Path(localcluster.Kubectl)
	if _, err := os.Stat(program); err != nil {
		if kubetest.InCI() {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return program
}

func (f *fixture) httpClient(t *testing.T, kubeconfig string) (c *http.Client, base string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err = rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return c, config.Host
}
