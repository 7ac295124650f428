package localcluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/localcluster/process"
)

// component is a program of the platform.
type component struct {
	name string
	// ports are the offsets of its ports; the last serves its health.
	ports []int
}

var components = []component{
	{"gateway", []int{portTenants, portAdmin, portGatewayHealth}},
	{"vk-provider", []int{portKubelets, portMetrics, portProviderHealth}},
	{"syncer", []int{portSyncerHealth}},
	{"network", []int{portNetworkHealth}},
}

// Where pods of VPCs find the gateway; network.APIAddress and its twin, which packages here may not import.
const (
	apiAddress  = "198.19.255.1"
	apiAddress6 = "fd00:76:6976::1"
)

// platform is what the components are given.
type platform struct {
	*starter
	control *ControlPlane
	// serving signs the gateway's certificate, tenants their clients', operators those of the admin API.
	serving, tenants, operators *CA
}

// componentGroup is the group whose members may do at the admin API what components do.
const componentGroup = "vivarium:components"

// startComponents starts the platform on a running control cluster.
func (s *starter) startComponents(ctx context.Context, control *ControlPlane) error {
	p := &platform{starter: s, control: control}
	pki := s.instance.path("pki")
	var errs [3]error
	p.serving, errs[0] = OpenCA(filepath.Join(pki, "gateway"), "serving-ca")
	p.tenants, errs[1] = OpenCA(filepath.Join(pki, "gateway"), "tenant-ca")
	p.operators, errs[2] = OpenCA(filepath.Join(pki, "gateway"), "admin-ca")
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if err := p.adminKubeconfigFile(s.instance.adminKubeconfig(), "admin", adminGroup); err != nil {
		return err
	}
	if err := p.apply(ctx); err != nil {
		return err
	}
	return s.Progress.Step("platform", func() error {
		if err := p.run(ctx, components[0], p.gatewayFlags); err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		for i, flags := range []func(string) ([]string, error){p.providerFlags, p.syncerFlags, p.networkFlags} {
			group.Go(func() error { return p.run(ctx, components[1+i], flags) })
		}
		return group.Wait()
	})
}

// apply gives the control cluster the platform's namespace, the components' rights and the way to metrics.k8s.io.
func (p *platform) apply(ctx context.Context) error {
	metrics, err := p.providerExtension().manifests(p.control.CAFile())
	if err != nil {
		return err
	}
	manifests := slices.Concat(p.Manifests, []byte("\n---\n"), metrics)
	if err := p.applyManifests(ctx, p.instance.controlKubeconfig(), manifests); err != nil {
		return fmt.Errorf("apply the components' rights to the control cluster: %w", err)
	}
	return nil
}

// run starts a component and returns when it is ready.
func (p *platform) run(ctx context.Context, c component, flags func(string) ([]string, error)) error {
	args, err := flags(c.name)
	if err != nil {
		return err
	}
	program := filepath.Join(filepath.Dir(p.Self), c.name)
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("start %s: %s is not built; run `make build`", c.name, program)
	}
	health := localAddress(p.state.PortBase + c.ports[len(c.ports)-1])
	child, err := p.ensure(process.Spec{Name: c.name, Path: program, Args: append(args, "--health-listen="+health)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readinessLimit, fmt.Errorf("waited %s", readinessLimit))
	defer cancel()
	probe := newProber(&tls.Config{MinVersion: tls.VersionTLS12})
	return child.Until(ctx, func(ctx context.Context) error { return probe.get(ctx, "http://"+health+"/readyz") })
}

func localAddress(port int) string { return net.JoinHostPort(localhost, strconv.Itoa(port)) }

func (p *platform) gatewayFlags(name string) ([]string, error) {
	controlKubeconfig, err := p.control.kubeconfigFile(name, "vivarium-"+name)
	if err != nil {
		return nil, err
	}
	etcd, err := p.control.Etcd()
	if err != nil {
		return nil, err
	}
	// Pods of VPCs know it by two addresses, and by the names that every cluster has for it.
	hosts := []string{
		localhost, "localhost", apiAddress, apiAddress6,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	if address := p.state.address(); address != localhost {
		hosts = append(hosts, address)
	}
	// Others may know the machine by its name.
	if hostname, err := os.Hostname(); err == nil && hostname != "localhost" {
		hosts = append(hosts, hostname)
	}
	serving, err := p.serving.Issue(Request{Name: "serving", User: "vivarium-gateway", Hosts: hosts})
	if err != nil {
		return nil, err
	}
	base := p.state.PortBase
	return []string{
		"--control-kubeconfig=" + controlKubeconfig,
		"--etcd-servers=" + etcd.Endpoint, "--etcd-cafile=" + etcd.CAFile,
		"--etcd-certfile=" + etcd.Client.Cert, "--etcd-keyfile=" + etcd.Client.Key,
		// On all addresses: this machine's users come by the loopback, its pods by the bridge.
		"--tenant-listen=" + fmt.Sprintf("0.0.0.0:%d", base+portTenants),
		"--tenant-url=https://" + localAddress(base+portTenants),
		"--pod-address=" + net.JoinHostPort(p.podAddress(), strconv.Itoa(base+portTenants)),
		"--admin-listen=" + localAddress(base+portAdmin),
		"--tls-cert-file=" + serving.Cert, "--tls-private-key-file=" + serving.Key,
		"--serving-ca-file=" + p.serving.Cert,
		"--tenant-ca-cert-file=" + p.tenants.Cert, "--tenant-ca-key-file=" + p.tenants.Key,
		"--admin-client-ca-file=" + p.operators.Cert,
	}, nil
}

// podAddress is the address at which pods find the gateway. Simulated pods never look, but Kubernetes wants one that is not
// the loopback's.
func (p *platform) podAddress() string {
	if p.state.Nodes == NodesReal {
		return p.state.address()
	}
	return hostAddress(networks(p.state.PortBase)[0]).String()
}

// clientFlags are those of every component but the gateway: how to reach the control cluster and the admin API.
func (p *platform) clientFlags(name string) ([]string, error) {
	controlKubeconfig, err := p.control.kubeconfigFile(name, "vivarium-"+name)
	if err != nil {
		return nil, err
	}
	adminKubeconfig := p.instance.path("pki", name+".admin.kubeconfig")
	if err := p.adminKubeconfigFile(adminKubeconfig, "vivarium-"+name, componentGroup); err != nil {
		return nil, err
	}
	return []string{
		"--control-kubeconfig=" + controlKubeconfig, "--admin-kubeconfig=" + adminKubeconfig,
		// There is but one, and after a kill it need not wait until its predecessor's lease expires.
		"--leader-elect=false",
	}, nil
}

func (p *platform) providerFlags(name string) ([]string, error) {
	flags, err := p.clientFlags(name)
	if err != nil {
		return nil, err
	}
	address, metrics := p.state.address(), p.providerExtension()
	// kube-apiserver trusts it as it trusts kubelets.
	serving, err := p.control.Issue(Request{Name: name, User: "vivarium-" + name, Hosts: p.control.hosts(address, metrics.host())})
	if err != nil {
		return nil, err
	}
	base := p.state.PortBase
	return append(flags,
		"--listen="+net.JoinHostPort(address, strconv.Itoa(base+portKubelets)),
		"--node-address="+address,
		"--tls-cert-file="+serving.Cert, "--tls-private-key-file="+serving.Key,
		"--client-ca-file="+p.control.CAFile(),
		"--client-name="+KubeletClient,
		"--metrics-listen="+net.JoinHostPort(address, strconv.Itoa(metrics.Port)),
		"--metrics-client-ca-file="+p.control.FrontProxyCAFile(),
		"--gateway-host="+address, "--gateway-port="+strconv.Itoa(base+portTenants),
	), nil
}

func (p *platform) syncerFlags(name string) ([]string, error) {
	flags, err := p.clientFlags(name)
	return append(flags, "--gateway-ca-file="+p.serving.Cert), err
}

func (p *platform) networkFlags(name string) ([]string, error) {
	flags, err := p.clientFlags(name)
	return append(flags, "--gateway="+net.JoinHostPort(p.state.address(), strconv.Itoa(p.state.PortBase+portTenants))), err
}

// adminKubeconfigFile writes a kubeconfig for the admin API.
func (p *platform) adminKubeconfigFile(path, user, group string) error {
	client, err := p.operators.Issue(Request{Name: "client-" + user, User: user, Groups: []string{group}})
	if err != nil {
		return err
	}
	return kubeconfig{
		context: "vivarium", server: "https://" + localAddress(p.state.PortBase+portAdmin), ca: p.serving.Cert, client: client,
	}.write(path)
}

// ensureTenants makes those tenants that do not exist, and writes every tenant's kubeconfig.
func (s *starter) ensureTenants(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, id := range s.Tenants {
		group.Go(func() error {
			exists, err := s.exists(ctx, "tenants", id)
			if err == nil && !exists {
				err = s.vivarium(ctx, append([]string{"tenant", "create", id}, s.TenantFlags...)...)
			}
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(s.instance.TenantKubeconfig(id)), 0o755); err != nil {
				return fmt.Errorf("make a directory for kubeconfigs: %w", err)
			}
			return s.vivarium(ctx, "tenant", "kubeconfig", id, "--output", s.instance.TenantKubeconfig(id))
		})
	}
	return group.Wait()
}

// ensureRegistered registers a pool, or brings one up to date that is registered: this may be another release.
func (s *starter) ensureRegistered(ctx context.Context, pool string) error {
	exists, err := s.exists(ctx, "resourcepools", pool)
	switch {
	case err != nil:
		return err
	case exists:
		return s.vivarium(ctx, "pool", "refresh", pool, "--kubeconfig", s.instance.poolKubeconfig(pool))
	}
	args := []string{"pool", "register", pool, "--kubeconfig", s.instance.poolKubeconfig(pool)}
	if network := s.state.Pools[s.state.poolIndex(pool)].Network; network != "" {
		args = append(args, "--network="+network)
	}
	if s.state.Nodes == NodesReal {
		args = append(args, "--reserved="+s.state.Network.String()+","+serviceCIDR)
	}
	return s.vivarium(ctx, args...)
}

// vivarium runs this program as the operator would.
func (s *starter) vivarium(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.Self, args...)
	cmd.Env = append(os.Environ(), "RUN_DIR="+s.instance.dir)
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("vivarium %s: %w\n%s", strings.Join(args[:min(3, len(args))], " "), err, lastLines(out, 12))
	}
	return nil
}

// exists asks the admin API for an object.
func (s *starter) exists(ctx context.Context, resource, name string) (bool, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.instance.adminKubeconfig())
	if err != nil {
		return false, fmt.Errorf("make a client of the admin API: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return false, fmt.Errorf("make a client of the admin API: %w", err)
	}
	_, err = client.Resource(v1alpha1.GroupVersion.WithResource(resource)).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s/%s: %w", resource, name, err)
	}
	return true, nil
}
