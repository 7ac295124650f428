// Package kubetest gives tests a real Kubernetes API: a kube-apiserver on an etcd of its own, with a controller manager
// and a scheduler where a test asks for them. Only tests import it.
//
// The programs come from the cache that `make kubernetes` fills. Without it a test is skipped on a laptop and fails where
// CI is true. Start at [ControlPlane]; a package whose tests share one cluster calls [Start] from TestMain.
package kubetest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/localcluster/process"
)

// Cluster is a running control plane. It has no nodes; whoever wants one creates a Node object.
type Cluster struct {
	// Config is the cluster administrator's. Copy it before changing it.
	Config *rest.Config
	// Etcd says how to reach the cluster's etcd; a test may keep things of its own beside /registry.
	Etcd localcluster.EtcdAccess
	// CAFile is the authority that signs the API server, the clients made here and those kubelets that it trusts.
	CAFile string
	// FrontProxyCAFile is the authority that signs what the API server shows to extension API servers.
	FrontProxyCAFile string
	// KubeletClient is the common name of the certificate that the API server shows to kubelets.
	KubeletClient string

	plane     *localcluster.ControlPlane
	processes *process.Set
	dir       string

	mu sync.Mutex // guards starting, and revived
	// revived has how those ended that were started again.
	revived []error
}

// Option changes what a cluster is made of.
type Option func(*localcluster.ControlPlaneConfig)

// WithControllerManager adds the stock controllers: ServiceAccounts, garbage collection, Deployments and so on.
func WithControllerManager() Option {
	return func(c *localcluster.ControlPlaneConfig) { c.ControllerManager = true }
}

// WithScheduler adds the scheduler.
func WithScheduler() Option {
	return func(c *localcluster.ControlPlaneConfig) { c.Scheduler = true }
}

// WithIssuer has ServiceAccount tokens name a URL as their issuer.
func WithIssuer(url string) Option {
	return func(c *localcluster.ControlPlaneConfig) { c.Issuer = url }
}

// WithAPIServerFlags adds flags to kube-apiserver's own; they win.
func WithAPIServerFlags(flags ...string) Option {
	return func(c *localcluster.ControlPlaneConfig) { c.APIServerFlags = append(c.APIServerFlags, flags...) }
}

// ControlPlane starts a cluster that lives as long as the test. When the test fails, the logs are kept in $ARTIFACTS.
func ControlPlane(t testing.TB, options ...Option) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a control plane, which -short rules out")
	}
	dir := t.TempDir()
	cluster, stop, err := Start(t.Context(), dir, options...)
	if errors.Is(err, ErrNoPrograms) && !InCI() {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			keepLogs(t, dir)
		}
	})
	return cluster
}

// ErrNoPrograms says that a cluster cannot be started because the Kubernetes programs are not built.
var ErrNoPrograms = errors.New("the Kubernetes programs are not built; run `make kubernetes` first")

// InCI reports whether a missing prerequisite must fail a test rather than skip it.
func InCI() bool {
	switch os.Getenv("CI") {
	case "", "0", "false":
		return false
	}
	return true
}

// Start starts a cluster with its files in dir, for callers without a test at hand. The caller calls stop, once, after the
// last use; should it die before, the cluster dies with it.
func Start(ctx context.Context, dir string, options ...Option) (cluster *Cluster, stop func(), err error) {
	source, err := localcluster.FindSource()
	if err != nil {
		return nil, nil, err
	}
	binaries, err := localcluster.OpenBinaries(source)
	if err != nil {
		return nil, nil, err
	}
	if missing := binaries.Missing(); len(missing) > 0 {
		return nil, nil, fmt.Errorf("%w (%s lacks %s)", ErrNoPrograms, binaries.Dir(), strings.Join(missing, ", "))
	}
	// Between the choice of ports and their use another test may take one; then everything is tried again with others.
	for range 3 {
		cluster, stop, err = start(ctx, dir, binaries, options)
		if !errors.Is(err, process.ErrEnded) {
			break
		}
	}
	return cluster, stop, err
}

// Kubectls names the kubectls of the minors that are tested, the oldest first, for [Client].
var Kubectls = []string{"kubectl-1.33", "kubectl-1.34", "kubectl-1.35", localcluster.Kubectl}

// Client gives the path of a client program that is not ours: one of [Kubectls], Helm or kustomize. Where it is not built
// the test is skipped, and fails in CI.
func Client(t testing.TB, name string) string {
	t.Helper()
	source, err := localcluster.FindSource()
	if err != nil {
		t.Fatal(err)
	}
	kubernetes, err := localcluster.OpenBinaries(source)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := localcluster.OpenClients(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, binaries := range append(clients, kubernetes) {
		if path := binaries.Path(name); slices.Contains(binaries.Programs(), name) {
			switch _, err := os.Stat(path); {
			case err == nil:
				return path
			case InCI():
				t.Fatalf("%s is not built; run `make clients` first", path)
			default:
				t.Skipf("%s is not built; run `make clients` first", path)
			}
		}
	}
	t.Fatalf("no client is called %s", name)
	return ""
}

func start(ctx context.Context, parent string, binaries *localcluster.Binaries, options []Option) (*Cluster, func(), error) {
	dir, err := os.MkdirTemp(parent, "cluster-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory for the cluster: %w", err)
	}
	ports, err := localcluster.FreePorts()
	if err != nil {
		return nil, nil, err
	}
	processes := process.NewSet()
	var supervised sync.WaitGroup
	ended := make(chan struct{})
	stop := func() {
		close(ended)
		supervised.Wait()
		_ = processes.Stop(0, func(string) bool { return true })
	}
	config := localcluster.ControlPlaneConfig{
		Name: "test", Dir: dir, LogDir: filepath.Join(parent, "logs"), Ports: ports, Binaries: binaries, Processes: processes,
	}
	for _, option := range options {
		option(&config)
	}
	plane, err := localcluster.NewControlPlane(config)
	if err != nil {
		return nil, nil, err
	}
	if err := plane.Start(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	c := &Cluster{CAFile: plane.CAFile(), FrontProxyCAFile: plane.FrontProxyCAFile(), KubeletClient: localcluster.KubeletClient, plane: plane, processes: processes, dir: dir}
	if c.Config, err = plane.AdminConfig(); err == nil {
		c.Etcd, err = plane.Etcd()
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	// Tests are bursts.
	c.Config.QPS, c.Config.Burst = -1, 0
	supervised.Go(func() { c.supervise(ended) })
	return c, stop, nil
}

// supervise starts the controller manager and the scheduler again when they end by themselves.
func (c *Cluster) supervise(ended <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		revived, err := c.plane.Revive()
		c.revived = append(c.revived, revived...)
		if err != nil {
			c.revived = append(c.revived, err)
		}
		c.mu.Unlock()
	}
}

// Revived tells of the controller manager and the scheduler how they ended when they did so by themselves; they were started
// again. It forgets what it has told.
func (c *Cluster) Revived() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	revived := c.revived
	c.revived = nil
	return revived
}

// KillAPIServer kills the API server, which says goodbye to nobody.
func (c *Cluster) KillAPIServer(t testing.TB) {
	t.Helper()
	if err := c.processes.Stop(0, func(name string) bool { return strings.HasSuffix(name, "-"+localcluster.KubeAPIServer) }); err != nil {
		t.Fatalf("kill the API server: %v", err)
	}
}

// FreezeAPIServer stops the API server where it stands, or lets it go on: connections are taken and nobody answers.
func (c *Cluster) FreezeAPIServer(t testing.TB, frozen bool) {
	t.Helper()
	signal := syscall.SIGCONT
	if frozen {
		signal = syscall.SIGSTOP
	}
	p := c.processes.Get(c.plane.ProcessName(localcluster.KubeAPIServer))
	if err := syscall.Kill(p.ID().PID, signal); err != nil {
		t.Fatalf("%s the API server: %v", signal, err)
	}
}

// Fill has the store refuse to take anything more, as when it has reached its quota, or lets it go on. What is there can
// still be read and removed.
func (c *Cluster) Fill(t testing.TB, full bool) {
	t.Helper()
	etcd := c.EtcdClient(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	if full {
		_, err = etcdserverpb.NewMaintenanceClient(etcd.ActiveConnection()).Alarm(ctx, &etcdserverpb.AlarmRequest{
			Action: etcdserverpb.AlarmRequest_ACTIVATE, Alarm: etcdserverpb.AlarmType_NOSPACE,
		})
	} else {
		_, err = etcd.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		t.Fatalf("fill the store %t: %v", full, err)
	}
}

// KillEtcd kills the store, which says goodbye to nobody either. What it was told is on its disk.
func (c *Cluster) KillEtcd(t testing.TB) {
	t.Helper()
	if err := c.processes.Stop(0, func(name string) bool { return strings.HasSuffix(name, "-"+localcluster.Etcd) }); err != nil {
		t.Fatalf("kill etcd: %v", err)
	}
}

// KillScheduler kills the scheduler. It is started again like one that ended by itself.
func (c *Cluster) KillScheduler(t testing.TB) {
	t.Helper()
	if err := c.processes.Get(c.plane.ProcessName(localcluster.Scheduler)).Stop(0); err != nil {
		t.Fatalf("kill the scheduler: %v", err)
	}
}

// Backup takes a copy of everything that the cluster has stored, and gives what puts it back: the cluster is then what it was,
// under the same UID, as after a restore of a backup of etcd. The whole control plane restarts each time.
func (c *Cluster) Backup(t testing.TB) (restore func()) {
	t.Helper()
	data, copied := filepath.Join(c.dir, "etcd"), filepath.Join(t.TempDir(), "etcd")
	still := func(act func() error) {
		t.Helper()
		c.mu.Lock()
		err := c.processes.Stop(5*time.Second, func(string) bool { return true })
		if err == nil {
			err = act()
		}
		c.mu.Unlock()
		if err != nil {
			t.Fatalf("copy what the cluster has stored: %v", err)
		}
		c.RestartAPIServer(t)
	}
	still(func() error { return os.CopyFS(copied, os.DirFS(data)) })
	return func() {
		t.Helper()
		still(func() error {
			if err := os.RemoveAll(data); err != nil {
				return err
			}
			return os.CopyFS(data, os.DirFS(copied))
		})
	}
}

// RestartAPIServer starts whatever does not run, and returns when all of it is ready.
func (c *Cluster) RestartAPIServer(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	// On a busy machine one may give up on the others before all are there.
	for range 5 {
		if err = c.plane.Start(context.WithoutCancel(t.Context())); !errors.Is(err, process.ErrEnded) {
			break
		}
	}
	if err != nil {
		t.Fatalf("start the API server again: %v", err)
	}
}

// Kubeconfig gives the path of a kubeconfig for any user; what the user may do is for the test to say by RBAC.
func (c *Cluster) Kubeconfig(t testing.TB, user string, groups ...string) string {
	t.Helper()
	raw, name := c.kubeconfig(t, user, groups)
	path := filepath.Join(c.dir, name+".kubeconfig")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ConfigFor gives a client configuration for any user, as [Cluster.Kubeconfig] does.
func (c *Cluster) ConfigFor(t testing.TB, user string, groups ...string) *rest.Config {
	t.Helper()
	raw, _ := c.kubeconfig(t, user, groups)
	config, err := clientcmd.RESTConfigFromKubeConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = -1, 0
	return config
}

func (c *Cluster) kubeconfig(t testing.TB, user string, groups []string) (raw []byte, name string) {
	t.Helper()
	// Users may hold characters that file names cannot.
	name = fmt.Sprintf("user-%.8x", sha256.Sum256(fmt.Appendf(nil, "%q %q", user, groups)))
	raw, err := c.plane.Kubeconfig(name, user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	return raw, name
}

// ServingPair gives the files of a serving certificate for the hosts, signed by the authority that the API server trusts
// kubelets by.
func (c *Cluster) ServingPair(t testing.TB, hosts ...string) localcluster.Pair {
	t.Helper()
	name := fmt.Sprintf("serving-%.8x", sha256.Sum256(fmt.Appendf(nil, "%q", hosts)))
	pair, err := c.plane.Issue(localcluster.Request{Name: name, User: "system:node:" + name, Groups: []string{"system:nodes"}, Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// keepLogs copies the cluster's logs to where CI collects them.
func keepLogs(t testing.TB, dir string) {
	t.Helper()
	artifacts := os.Getenv("ARTIFACTS")
	if artifacts == "" {
		return
	}
	// A test may have several clusters.
	to := filepath.Join(artifacts, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()), filepath.Base(dir))
	if err := os.CopyFS(to, os.DirFS(filepath.Join(dir, "logs"))); err != nil {
		t.Logf("keep the logs: %v", err)
	}
}

// EtcdClient gives a client of the cluster's etcd, for as long as the test lasts.
func (c *Cluster) EtcdClient(t testing.TB) *clientv3.Client {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.Etcd.Client.Cert, c.Etcd.Client.Key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(c.Etcd.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{c.Etcd.Endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
