package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
)

// TestMain shares one control cluster and one gateway among the tests that need real ones; the others need neither.
func TestMain(m *testing.M) {
	if spec := os.Getenv(idleClients); spec != "" {
		fmt.Fprintln(os.Stderr, beIdleClients(spec))
		os.Exit(1)
	}
	code := m.Run()
	if stop := sharedWorld.stop; stop != nil {
		stop()
	}
	os.Exit(code)
}

// world is a whole gateway with both listeners in front of a real control cluster with its controllers.
type world struct {
	cluster  *kubetest.Cluster
	dir      string
	kubectl  string
	operator string // kubeconfig at the admin API
	control  string // kubeconfig of the control cluster's administrator
	health   *boot.Health
	server   *Server
	leaks    *leaks
}

var sharedWorld struct {
	once  sync.Once
	world *world
	stop  func()
	err   error
}

// theWorld starts it on first use.
func theWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a control cluster")
	}
	sharedWorld.once.Do(func() { sharedWorld.world, sharedWorld.stop, sharedWorld.err = newWorld(t) })
	if errors.Is(sharedWorld.err, kubetest.ErrNoPrograms) && !kubetest.InCI() {
		t.Skip(sharedWorld.err)
	}
	if sharedWorld.err != nil {
		t.Fatal(sharedWorld.err)
	}
	t.Cleanup(func() { sharedWorld.world.leaks.check(t) })
	return sharedWorld.world
}

func newWorld(t *testing.T) (_ *world, stop func(), err error) {
	dir, err := os.MkdirTemp("", "gateway-test-")
	if err != nil {
		return nil, nil, err
	}
	var stops []func()
	stop = func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
		_ = os.RemoveAll(dir)
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	// The cluster outlives the test that happens to start it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	stops = append(stops, cancel)
	listen, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	// Tokens name the gateway as their issuer, as the documentation tells operators.
	cluster, stopCluster, err := kubetest.Start(ctx, dir, kubetest.WithControllerManager(), kubetest.WithIssuer("https://"+listen))
	if err != nil {
		return nil, nil, err
	}
	stops = append(stops, stopCluster)
	w := &world{cluster: cluster, dir: dir, health: boot.NewHealth(), leaks: newLeaks()}
	source, err := localcluster.FindSource()
	if err != nil {
		return nil, nil, err
	}
	binaries, err := localcluster.OpenBinaries(source)
	if err != nil {
		return nil, nil, err
	}
	w.kubectl = binaries.Path(localcluster.Kubectl)
	w.control = cluster.Kubeconfig(t, "root", "system:masters")
	// What `vivarium up` applies.
	for _, files := range []string{"namespace.yaml", "rbac/gateway.yaml", "policy"} {
		if out, err := w.run(w.control, "", "apply", "-f", filepath.Join("..", "charts", "vivarium", "files", files)); err != nil {
			return nil, nil, fmt.Errorf("apply %s: %w\n%s", files, err, out)
		}
	}
	options, operators, err := w.options(t, listen)
	if err != nil {
		return nil, nil, err
	}
	if problems := options.Validate(); len(problems) > 0 {
		return nil, nil, errors.Join(problems...)
	}
	if w.server, err = New(ctx, options, w.health); err != nil {
		return nil, nil, err
	}
	w.server.front.observe = w.leaks.watch
	over := make(chan error, 1)
	runCtx, stopServer := context.WithCancel(ctx)
	go func() { over <- w.server.Run(runCtx) }()
	stops = append(stops, func() {
		stopServer()
		if err := <-over; err != nil {
			fmt.Fprintln(os.Stderr, "gateway:", err)
		}
	})
	_, adminAddr := w.server.Addresses()
	operator, err := operators.Issue(localcluster.Request{Name: "operator", User: "operator", Groups: []string{"system:masters"}})
	if err != nil {
		return nil, nil, err
	}
	w.operator = filepath.Join(dir, "operator.kubeconfig")
	config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}],
"clusters":[{"name":"x","cluster":{"server":"https://%s","certificate-authority":%q}}],"users":[{"name":"x","user":{"client-certificate":%q,"client-key":%q}}]}`,
		adminAddr, options.ServingCAFile, operator.Cert, operator.Key)
	if err := os.WriteFile(w.operator, []byte(config), 0o600); err != nil {
		return nil, nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if err := w.health.Ready(); err == nil {
			return w, stop, nil
		} else if time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("the gateway does not get ready: %w", err)
		}
	}
}

// freeAddress is one that a gateway may listen at.
func freeAddress() (string, error) {
	ports, err := localcluster.FreePorts()
	return fmt.Sprintf("127.0.0.1:%d", ports.APIServer), err
}

func (w *world) options(t *testing.T, listen string) (*Options, *localcluster.CA, error) {
	t.Helper()
	var cas [3]*localcluster.CA
	for i, name := range []string{"serving", "tenants", "operators"} {
		ca, err := localcluster.OpenCA(filepath.Join(w.dir, "pki"), name)
		if err != nil {
			return nil, nil, err
		}
		cas[i] = ca
	}
	serving, err := cas[0].Issue(localcluster.Request{Name: "gateway", User: "gateway", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		return nil, nil, err
	}
	o := NewOptions()
	o.ControlKubeconfig = w.cluster.Kubeconfig(t, "vivarium-gateway")
	o.Etcd.Servers, o.Etcd.CAFile = []string{w.cluster.Etcd.Endpoint}, w.cluster.Etcd.CAFile
	o.Etcd.CertFile, o.Etcd.KeyFile = w.cluster.Etcd.Client.Cert, w.cluster.Etcd.Client.Key
	o.TLSCertFile, o.TLSPrivateKeyFile, o.ServingCAFile = serving.Cert, serving.Key, cas[0].Cert
	o.TenantCACertFile, o.TenantCAKeyFile, o.AdminClientCAFile = cas[1].Cert, cas[1].Key, cas[2].Cert
	o.TenantListen = listen
	o.AdminListen = "127.0.0.1:0"
	o.TenantURL = "https://" + o.TenantListen
	o.PodAddress = "192.0.2.1:6443"
	return o, cas[2], nil
}

// run runs kubectl and gives everything it says.
func (w *world) run(kubeconfig, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.kubectl, append([]string{"--kubeconfig", kubeconfig, "--cache-dir", kubeconfig + ".cache"}, args...)...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	err := cmd.Run()
	return out.String(), err
}

// must runs kubectl where it has to work.
func (w *world) must(t *testing.T, kubeconfig, stdin string, args ...string) string {
	t.Helper()
	out, err := w.run(kubeconfig, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// fails runs kubectl where it must not work and gives what it says.
func (w *world) fails(t *testing.T, kubeconfig, stdin string, args ...string) string {
	t.Helper()
	out, err := w.run(kubeconfig, stdin, args...)
	if err == nil {
		t.Errorf("kubectl %s: no error\n%s", strings.Join(args, " "), out)
	}
	return out
}

// tenant makes a tenant and gives the path of its kubeconfig.
func (w *world) tenant(t *testing.T, id string) string {
	t.Helper()
	w.leaks.know(id)
	w.must(t, w.operator, fmt.Sprintf(`{"apiVersion":"vivarium.io/v1alpha1","kind":"Tenant","metadata":{"name":%q}}`, id), "apply", "-f", "-")
	w.must(t, w.operator, "", "wait", "--for=condition=Ready", "tenant/"+id, "--timeout=180s")
	encoded := w.must(t, w.operator, "", "get", "tenant", id, "-o", `jsonpath={.metadata.annotations.vivarium\.io/tenant\.kubeconfig}`)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatalf("kubeconfig of %s: %v", id, err)
	}
	path := filepath.Join(w.dir, id+".kubeconfig")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	w.may(t, path, "*", "*", "-A")
	return path
}

// client gives the client configuration of a kubeconfig.
func client(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

// patience is how long something may take on a busy machine. Nothing waits for it to pass.
const patience = 3 * time.Minute

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// may waits until a right is in force, which it is a moment after its binding was made; args are those of `auth can-i`.
func (w *world) may(t *testing.T, kubeconfig string, args ...string) {
	t.Helper()
	eventually(t, "kubectl auth can-i "+strings.Join(args, " "), func() bool {
		_, err := w.run(kubeconfig, "", append([]string{"auth", "can-i"}, args...)...)
		return err == nil
	})
}

// aboutRights tells commands that depend on rights given a moment ago: those that ask about them, and those of others than
// the tenant's admin.
func aboutRights(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return arg == "can-i" || strings.HasPrefix(arg, "--as=") })
}
