package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/localcluster/process"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/operator"
)

const (
	localhost  = "127.0.0.1"
	startLimit = 5 * time.Minute
	// tenant is whose requests are measured. Neighbours come after it in the alphabet, so that a list of its objects that
	// asks for too many gets theirs.
	tenant = names.TenantID("bench1")
)

// limits are beyond whatever is measured: not fairness is, and the control cluster gives the tenant the largest weight for
// the same reason.
var limits = v1alpha1.TenantSpec{Weight: 100, Limits: v1alpha1.TenantLimits{
	RequestsPerSecond: 1e6, Burst: 1e6, MaxInFlight: 1e5, MaxWatches: 1e5, MaxStreams: 1e5,
}}

// direct may do everything, by RBAC as the administrator of a cluster that kubeadm made: members of system:masters would
// be spared authorization, and fairness among requests.
const (
	directUser  = "bench-admin"
	directGroup = "bench:admins"
	directRole  = `---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bench-admins}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "bench:admins"}]
`
)

// world is a control cluster with a gateway and a plain proxy in front of it, and one tenant.
type world struct {
	dir       string
	gatewayAt string
	// besideAt is another build of the gateway, with a lane of its own; empty if there is none.
	besideAt  string
	progress  *localcluster.Progress
	binaries  *localcluster.Binaries
	processes *process.Set
	plane     *localcluster.ControlPlane
	ports     localcluster.Ports
	// front has the ports of the gateway and the proxy.
	front localcluster.Ports
	// beside has those of the other build.
	beside   localcluster.Ports
	operator *operator.Operator
	// admin is a client of the control cluster, tenantConfig a tenant's configuration.
	admin        kubernetes.Interface
	tenantConfig *rest.Config
}

// newWorld starts one in dir. The caller calls stop, also after an error.
func newWorld(ctx context.Context, c config, dir string) (*world, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	w := &world{dir: dir, gatewayAt: c.gateway, besideAt: c.beside, progress: c.progress, binaries: c.binaries, processes: process.NewSet()}
	var errs [3]error
	w.ports, errs[0] = localcluster.FreePorts()
	w.front, errs[1] = localcluster.FreePorts()
	w.beside, errs[2] = localcluster.FreePorts()
	if err := errors.Join(errs[:]...); err != nil {
		return w, err
	}
	var err error
	w.plane, err = localcluster.NewControlPlane(localcluster.ControlPlaneConfig{
		Name: "control", Dir: filepath.Join(dir, "control"), LogDir: w.logs(), Ports: w.ports, Binaries: w.binaries, Processes: w.processes,
	})
	if err != nil {
		return w, err
	}
	if err := w.plane.Start(ctx); err != nil {
		return w, err
	}
	if err := w.apply(ctx); err != nil {
		return w, err
	}
	if err := w.startGateway(ctx); err != nil {
		return w, err
	}
	if err := w.startProxy(ctx); err != nil {
		return w, err
	}
	if err := w.makeTenant(ctx); err != nil || w.besideAt == "" {
		return w, err
	}
	return w, w.startBeside(ctx)
}

// stop ends every process. The files are the caller's.
func (w *world) stop() { _ = w.processes.Stop(2*time.Second, func(string) bool { return true }) }

func (w *world) logs() string { return filepath.Join(w.dir, "logs") }

func (w *world) apply(ctx context.Context) error {
	manifests, err := charts.ControlManifests()
	if err != nil {
		return err
	}
	kubeconfig, err := w.plane.AdminKubeconfig()
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, "admin.kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, w.binaries.Path(localcluster.Kubectl), "--kubeconfig="+file, "--cache-dir="+filepath.Join(w.dir, "cache"),
		"apply", "--server-side", "-f", "-")
	cmd.Stdin = bytes.NewReader(append(manifests, directRole...))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply the gateway's rights: %w\n%s", err, out)
	}
	admin, err := w.plane.AdminConfig()
	if err != nil {
		return err
	}
	admin.QPS = -1
	w.admin, err = kubernetes.NewForConfig(admin)
	return err
}

func address(port int) string { return net.JoinHostPort(localhost, strconv.Itoa(port)) }

// The ports in front are those of a control plane by type alone.
func tenantAddress(p localcluster.Ports) string  { return address(p.APIServer) }
func adminAddress(p localcluster.Ports) string   { return address(p.EtcdClient) }
func metricsAddress(p localcluster.Ports) string { return address(p.Scheduler) }

func (w *world) proxyAddress() string { return address(w.front.EtcdPeer) }

// startGateway starts the gateway, again if it has been stopped.
func (w *world) startGateway(ctx context.Context) error {
	operators, err := w.startOne(ctx, "gateway", w.gatewayAt, w.front)
	if err != nil {
		return err
	}
	admin, err := adminclient.New(operators)
	w.operator = &operator.Operator{Admin: admin}
	return err
}

// startBeside starts the other build, in front of the same control cluster and the same etcd.
func (w *world) startBeside(ctx context.Context) error {
	operators, err := w.startOne(ctx, "beside", w.besideAt, w.beside)
	if err != nil {
		return err
	}
	admin, err := adminclient.New(operators)
	if err != nil {
		return err
	}
	_, err = (&operator.Operator{Admin: admin}).AwaitTenant(ctx, string(tenant))
	return err
}

// startOne starts a gateway and gives what its operators need. All of them tell tenants one URL: they keep the same tenants.
func (w *world) startOne(ctx context.Context, name, path string, ports localcluster.Ports) (*rest.Config, error) {
	pki := filepath.Join(w.dir, "pki")
	var cas [3]*localcluster.CA
	for i, name := range []string{"serving", "tenants", "operators"} {
		ca, err := localcluster.OpenCA(pki, name)
		if err != nil {
			return nil, err
		}
		cas[i] = ca
	}
	serving, err := cas[0].Issue(localcluster.Request{Name: "gateway", User: "gateway", Hosts: []string{localhost}})
	if err != nil {
		return nil, err
	}
	own, err := w.plane.Kubeconfig("gateway", "vivarium-gateway")
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(w.dir, "gateway.kubeconfig")
	if err := os.WriteFile(kubeconfig, own, 0o600); err != nil {
		return nil, err
	}
	etcd, err := w.plane.Etcd()
	if err != nil {
		return nil, err
	}
	p, _, err := w.processes.Ensure(process.Spec{Name: name, Path: path, Log: filepath.Join(w.logs(), name+".log"), Args: []string{
		"--control-kubeconfig=" + kubeconfig, "--health-listen=" + metricsAddress(ports),
		"--etcd-servers=" + etcd.Endpoint, "--etcd-cafile=" + etcd.CAFile, "--etcd-certfile=" + etcd.Client.Cert, "--etcd-keyfile=" + etcd.Client.Key,
		"--tenant-listen=" + tenantAddress(ports), "--tenant-url=https://" + tenantAddress(w.front), "--pod-address=192.0.2.1:6443",
		"--admin-listen=" + adminAddress(ports), "--tls-cert-file=" + serving.Cert, "--tls-private-key-file=" + serving.Key,
		"--serving-ca-file=" + cas[0].Cert, "--tenant-ca-cert-file=" + cas[1].Cert, "--tenant-ca-key-file=" + cas[1].Key,
		"--admin-client-ca-file=" + cas[2].Cert,
	}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := p.Until(ctx, func(ctx context.Context) error { return answers(ctx, "http://"+metricsAddress(ports)+"/readyz") }); err != nil {
		return nil, err
	}
	client, err := cas[2].Issue(localcluster.Request{Name: "operator", User: "operator", Groups: []string{"system:masters"}})
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: "https://" + adminAddress(ports), QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAFile: cas[0].Cert, CertFile: client.Cert, KeyFile: client.Key,
	}}, nil
}

// restartGateway gives the gateway a fresh start: nothing that it did before can be seen in its memory.
func (w *world) restartGateway(ctx context.Context) error {
	if err := w.processes.Get("gateway").Stop(10 * time.Second); err != nil {
		return err
	}
	return w.startGateway(ctx)
}

func answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}

// startProxy starts the plain proxy, which acts as the same administrator as the direct lane.
func (w *world) startProxy(ctx context.Context) error {
	serving, err := w.plane.Issue(localcluster.Request{Name: "proxy", User: "proxy", Hosts: []string{localhost}})
	if err != nil {
		return err
	}
	client, err := w.directPair()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p, _, err := w.processes.Ensure(process.Spec{Name: "proxy", Path: self, Log: filepath.Join(w.logs(), "proxy.log"), Args: []string{
		proxyCommand, "-listen", w.proxyAddress(), "-target", w.plane.Server(), "-cert", serving.Cert, "-key", serving.Key,
		"-client-cert", client.Cert, "-client-key", client.Key, "-ca", w.plane.CAFile(),
	}})
	if err != nil {
		return err
	}
	return p.Until(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.proxyAddress())
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

func (w *world) directPair() (localcluster.Pair, error) {
	return w.plane.Issue(localcluster.Request{Name: "direct", User: directUser, Groups: []string{directGroup}})
}

func (w *world) makeTenant(ctx context.Context) error {
	if err := w.operator.CreateTenant(ctx, string(tenant), limits); err != nil {
		return err
	}
	made, err := w.operator.AwaitTenant(ctx, string(tenant))
	if err != nil {
		return err
	}
	raw, err := operator.Kubeconfig(made)
	if err != nil {
		return err
	}
	w.tenantConfig, err = clientcmd.RESTConfigFromKubeConfig(raw)
	return err
}

// namespace makes a namespace of the tenant, as the tenant.
func (w *world) namespace(ctx context.Context, name string) error {
	kube, err := kubernetes.NewForConfig(w.tenantConfig)
	if err != nil {
		return err
	}
	_, err = kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

// The lanes, in the order of the tables.
func (w *world) lanes() ([]*lane, error) {
	client, err := w.directPair()
	if err != nil {
		return nil, err
	}
	control := rest.TLSClientConfig{CAFile: w.plane.CAFile(), CertFile: client.Cert, KeyFile: client.Key}
	specs := []struct {
		name, address, process string
		prefix                 string
		tls                    rest.TLSClientConfig
	}{
		{laneDirect, address(w.ports.APIServer), "control-" + localcluster.KubeAPIServer, tenant.Prefix(), control},
		{laneProxy, w.proxyAddress(), "proxy", tenant.Prefix(), control},
		{laneGateway, tenantAddress(w.front), "gateway", "", w.tenantConfig.TLSClientConfig},
	}
	if w.besideAt != "" {
		other := specs[2]
		other.name, other.address, other.process = laneBeside, tenantAddress(w.beside), "beside"
		specs = append(specs, other)
	}
	var lanes []*lane
	for _, s := range specs {
		tlsConfig, err := rest.TLSConfigFor(&rest.Config{TLSClientConfig: s.tls})
		if err != nil {
			return nil, err
		}
		pid := func(name string) func() int { return func() int { return w.processes.Get(name).ID().PID } }
		lanes = append(lanes, &lane{
			name: s.name, base: "https://" + s.address, prefix: s.prefix, tls: tlsConfig,
			pid: pid(s.process), controlPID: pid("control-" + localcluster.KubeAPIServer),
		})
	}
	return lanes, nil
}
