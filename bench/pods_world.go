package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	runtimeclient "sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/adminclient/admintest"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/localcluster/process"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network/vxlan"
)

const (
	// controlUser and poolUser are the provider's identities. The plain client has the pools' as well.
	controlUser = "vivarium-vk-provider"
	poolUser    = "vivarium"
	poolGroup   = "bench:pool"

	poolCount = 3
	// burstTenants have the pods between them, one namespace each; plainTenants likewise for the plain client.
	burstTenants = 10
)

// podsWorld is a control cluster with pools, for the vk-provider. Only the pools' nodes are simulated.
type podsWorld struct {
	dir       string
	provider  string
	binaries  *localcluster.Binaries
	kwok      *localcluster.Binaries
	processes *process.Set
	control   *cluster
	admin     runtimeclient.Client
	pools     []*benchPool
	args      []string
	// networks are the network drivers of the pools; as many as there are pools.
	networks []string
	// nodes are the virtual Nodes of each pool.
	nodes [][]string
	// perNode is how many pods a simulated node takes.
	perNode int
}

// cluster is a real control plane without nodes.
type cluster struct {
	name  string
	plane *localcluster.ControlPlane
	ports localcluster.Ports
	kube  kubernetes.Interface
	store *store
}

type benchPool struct {
	*cluster
	// network is the name of its network driver.
	network string
	// as is the pool for those functions of the platform that the provider uses itself.
	as *pools.Pool
	// plain acts with the provider's rights and the provider's limits.
	plain kubernetes.Interface
}

// newPodsWorld starts everything but the provider, with a pool of so many nodes for each of the network drivers. perNode is
// how many pods each node takes. The caller calls stop, also after an error.
func newPodsWorld(ctx context.Context, c config, dir, source string, networks []string, nodes, perNode int) (*podsWorld, error) {
	w := &podsWorld{dir: dir, provider: c.provider, binaries: c.binaries, processes: process.NewSet(), networks: networks, perNode: perNode}
	var err error
	if w.kwok, err = localcluster.OpenKwok(source); err != nil {
		return w, err
	}
	if err := w.kwok.Build(ctx, c.progress); err != nil {
		return w, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*startLimit)
	defer cancel()
	// One after the other: four at once on a small machine take longer, and give up.
	if w.control, err = w.start(ctx, "control", false); err != nil {
		return w, err
	}
	for n := range networks {
		plane, err := w.start(ctx, fmt.Sprintf("pool-%d", n), true)
		if err != nil {
			return w, err
		}
		w.pools = append(w.pools, &benchPool{cluster: plane})
	}
	if err := w.prepareControl(ctx); err != nil {
		return w, err
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range w.pools {
		p.network = networks[i]
		group.Go(func() error { return w.preparePool(ctx, p, nodes) })
	}
	return w, group.Wait()
}

func (w *podsWorld) stop() {
	for _, c := range w.clusters() {
		if c.store != nil {
			c.store.close()
		}
	}
	_ = w.processes.Stop(0, func(string) bool { return true })
}

func (w *podsWorld) clusters() []*cluster {
	var all []*cluster
	if w.control != nil {
		all = append(all, w.control)
	}
	for _, p := range w.pools {
		all = append(all, p.cluster)
	}
	return all
}

func (w *podsWorld) start(ctx context.Context, name string, scheduler bool) (*cluster, error) {
	c := &cluster{name: name}
	var err error
	if c.ports, err = localcluster.FreePorts(); err != nil {
		return nil, err
	}
	c.plane, err = localcluster.NewControlPlane(localcluster.ControlPlaneConfig{
		Name: name, Dir: filepath.Join(w.dir, name), LogDir: filepath.Join(w.dir, "logs"), Ports: c.ports,
		Binaries: w.binaries, Processes: w.processes, Scheduler: scheduler,
	})
	if err != nil {
		return nil, err
	}
	if err := c.plane.Start(ctx); err != nil {
		return nil, err
	}
	config, err := c.plane.AdminConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.ContentType = mediaProtobuf
	if c.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	c.store, err = openEtcd(c.plane)
	return c, err
}

// apply creates what manifests describe.
func (w *podsWorld) apply(ctx context.Context, c *cluster, manifests ...string) error {
	kubeconfig, err := c.plane.AdminKubeconfig()
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, c.name+".kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, w.binaries.Path(localcluster.Kubectl), "--kubeconfig="+file, "--cache-dir="+filepath.Join(w.dir, "cache", c.name),
		"apply", "--server-side", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Join(manifests, "\n---\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply to %s: %w\n%s", c.name, err, out)
	}
	return nil
}

// counted has the API server count a user's writes by what they are about: it tells how many requests each flow schema
// matched. The level is the one that the requests had anyway.
func counted(user string) string {
	const verbs = "[create, update, patch, delete, deletecollection]"
	schema := func(name string, precedence int, groups, resources string) string {
		return fmt.Sprintf(`
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: %s}
spec:
  matchingPrecedence: %d
  priorityLevelConfiguration: {name: global-default}
  distinguisherMethod: {type: ByUser}
  rules:
  - subjects: [{kind: User, user: {name: %s}}]
    resourceRules:
    - {verbs: %s, apiGroups: [%s], resources: [%s], namespaces: ["*"], clusterScope: true}
`, name, precedence, user, verbs, groups, resources)
	}
	// A review is a question, though it is asked by a create.
	return schema("bench-reviews", 299, `authorization.k8s.io`, `"*"`) + "---" +
		schema(writesOfNodes, 300, `"", coordination.k8s.io`, `leases, nodes, nodes/status`) + "---" +
		schema(writesOfEvents, 301, `"", events.k8s.io`, `events`) + "---" +
		schema(writesOfPods, 302, `"*"`, `"*"`)
}

// What a user's writes are about.
const (
	writesOfNodes  = "bench-nodes"
	writesOfEvents = "bench-events"
	writesOfPods   = "bench-pods"
)

func (w *podsWorld) prepareControl(ctx context.Context) error {
	manifests, err := charts.ControlManifests()
	if err != nil {
		return err
	}
	if err := w.apply(ctx, w.control, string(manifests), counted(controlUser)); err != nil {
		return err
	}
	config, err := w.control.plane.AdminConfig()
	if err != nil {
		return err
	}
	if w.admin, err = admintest.Install(ctx, config); err != nil {
		return err
	}
	for n := range burstTenants {
		if err := w.tenant(ctx, burstNamespace(n)); err != nil {
			return err
		}
	}
	if err := w.tenant(ctx, lateNamespace); err != nil {
		return err
	}
	return w.arguments()
}

// arguments are the provider's, as they are in an installation.
func (w *podsWorld) arguments() error {
	file := func(name, user string, groups ...string) (string, error) {
		raw, err := w.control.plane.Kubeconfig(name, user, groups...)
		if err != nil {
			return "", err
		}
		path := filepath.Join(w.dir, name+".kubeconfig")
		return path, os.WriteFile(path, raw, 0o600)
	}
	own, err := file("provider", controlUser)
	if err != nil {
		return err
	}
	admin, err := file("provider-admin", "bench-resources", "system:masters")
	if err != nil {
		return err
	}
	pair, err := w.control.plane.Issue(localcluster.Request{Name: "kubelet", User: "system:node:kubelet", Groups: []string{"system:nodes"}, Hosts: []string{localhost}})
	if err != nil {
		return err
	}
	w.args = []string{
		"--control-kubeconfig=" + own, "--admin-kubeconfig=" + admin,
		"--node-address=" + localhost, "--tls-cert-file=" + pair.Cert, "--tls-private-key-file=" + pair.Key,
		"--client-ca-file=" + w.control.plane.CAFile(), "--client-name=" + localcluster.KubeletClient,
		"--gateway-host=192.0.2.9", "--gateway-port=6443",
	}
	return nil
}

// tenant makes a tenant's namespace as the gateway does, and the ServiceAccount as a controller would.
func (w *podsWorld) tenant(ctx context.Context, namespace string) error {
	id, _, _ := names.SplitNamespace(names.ControlNamespace(namespace))
	if err := w.admin.Create(ctx, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: string(id)}}); runtimeclient.IgnoreAlreadyExists(err) != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{names.LabelTenant: string(id)}}}
	if _, err := w.control.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	return serviceAccount(ctx, w.control, namespace)
}

// serviceAccount makes the one that every namespace has where a controller manager runs, which admission looks for.
func serviceAccount(ctx context.Context, c *cluster, namespace string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err := c.kube.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	return err
}

// preparePool gives a pool its rights, its second wall, its nodes and its place in the control cluster.
func (w *podsWorld) preparePool(ctx context.Context, p *benchPool, nodes int) error {
	var manifests []string
	files := []string{"vivarium-pool/files/clusterrole.yaml", "vivarium-pool/files/policy.yaml"}
	if p.network == vxlan.Name {
		files = append(files, "vivarium-pool/files/vxlan/access.yaml")
	}
	for _, file := range files {
		raw, err := charts.FS.ReadFile(file)
		if err != nil {
			return err
		}
		manifests = append(manifests, string(raw))
	}
	manifests = append(manifests, counted(poolUser), `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: vivarium-pool}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: vivarium-pool}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: vivarium}]
`)
	if err := w.apply(ctx, p.cluster, manifests...); err != nil {
		return err
	}
	if err := w.simulate(ctx, p, nodes); err != nil {
		return err
	}
	if err := w.register(ctx, p); err != nil {
		return err
	}
	all := []string{lateNamespace, vpcNamespace}
	for n := range burstTenants {
		all = append(all, burstNamespace(n), plainNamespace(n))
	}
	for _, namespace := range all {
		if err := pools.EnsureNamespace(ctx, p.as, names.ControlNamespace(namespace)); err != nil {
			return err
		}
		if err := serviceAccount(ctx, p.cluster, namespace); err != nil {
			return err
		}
	}
	return nil
}

// simulate has KWOK play nodes.
func (w *podsWorld) simulate(ctx context.Context, p *benchPool, nodes int) error {
	raw, err := p.plane.Kubeconfig("kwok", "kwok", "system:masters")
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(w.dir, p.name+"-kwok.kubeconfig")
	if err := os.WriteFile(kubeconfig, raw, 0o600); err != nil {
		return err
	}
	name := p.name + "-kwok"
	if _, _, err := w.processes.Ensure(process.Spec{Name: name, Path: w.kwok.Path(localcluster.Kwok), Log: filepath.Join(w.dir, "logs", name+".log"), Args: []string{
		"--kubeconfig=" + kubeconfig, "--manage-nodes-with-label-selector=" + localcluster.SimulatedLabel + "=true",
		// No controller manager runs here, whose port is free.
		"--cidr=" + podRange(p.network), "--node-ip=" + localhost, "--server-address=" + address(p.ports.ControllerManager),
	}}); err != nil {
		return err
	}
	for n := range nodes {
		node := simulatedNode(fmt.Sprintf("node-%d", n), w.perNode)
		// The one that it has is every node's.
		node.Annotations = map[string]string{"network.vivarium.io/tunnel-address": fmt.Sprintf("10.99.0.%d", n+1)}
		made, err := p.kube.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		// Admission taints a new node, and a controller manager would take that away.
		made.Spec.Taints = nil
		for {
			_, err := p.kube.CoreV1().Nodes().Update(ctx, made, metav1.UpdateOptions{})
			if !apierrors.IsConflict(err) {
				if err != nil {
					return err
				}
				break
			}
			if made, err = p.kube.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{}); err != nil {
				return err
			}
			made.Spec.Taints = nil
		}
	}
	return nil
}

// podRange is what the pods of a pool have their addresses from. The driver vxlan wants those by which a node alone knows them.
func podRange(driver string) string {
	if driver == vxlan.Name {
		return "198.18.0.0/16"
	}
	return "10.128.0.0/12"
}

func simulatedNode(name string, pods int) *corev1.Node {
	size := corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewQuantity(int64(pods), resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("2Ti"),
		corev1.ResourcePods: *resource.NewQuantity(int64(pods), resource.DecimalSI),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			localcluster.SimulatedLabel: "true", corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		}},
		Status: corev1.NodeStatus{Capacity: size, Allocatable: size},
	}
}

// register makes the ResourcePool, and a client with the very credentials and limits that the provider has in the pool.
func (w *podsWorld) register(ctx context.Context, p *benchPool) error {
	raw, err := p.plane.Kubeconfig("vivarium", poolUser, poolGroup)
	if err != nil {
		return err
	}
	config, err := pools.ParseKubeconfig(raw)
	if err != nil {
		return err
	}
	config.ContentType = mediaProtobuf
	config.UserAgent = "bench"
	if p.plain, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: p.name}, Data: map[string][]byte{pools.KubeconfigKey: raw}}
	if _, err := w.control.kube.CoreV1().Secrets(names.SystemNamespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	system, err := p.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return err
	}
	control, err := w.control.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return err
	}
	registered := &v1alpha1.ResourcePool{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Finalizers: []string{v1alpha1.FinalizerPool}},
		Spec: v1alpha1.ResourcePoolSpec{
			ClusterUID: system.UID, Credentials: v1alpha1.PoolCredentials{KubeconfigSecret: p.name}, Network: v1alpha1.PoolNetwork{Driver: p.network},
		},
	}
	p.as = pools.NewPool(registered, control.UID, config, p.kube)
	// The definition takes a moment to be served.
	return until(ctx, func() error { return runtimeclient.IgnoreAlreadyExists(w.admin.Create(ctx, registered.DeepCopy())) })
}

// instance is one run of the provider.
type instance struct {
	*process.Process
	health string
}

func (i *instance) pid() int { return i.ID().PID }

// startProvider starts the provider and returns when its pools' Nodes take pods.
func (w *podsWorld) startProvider(ctx context.Context, name string, more ...string) (*instance, error) {
	ports, err := localcluster.FreePorts()
	if err != nil {
		return nil, err
	}
	i := &instance{health: address(ports.EtcdClient)}
	args := append([]string{"--listen=" + address(ports.APIServer), "--health-listen=" + i.health}, w.args...)
	i.Process, err = process.Start(process.Spec{
		Name: name, Path: w.provider, Log: filepath.Join(w.dir, "logs", name+".log"), Args: append(args, more...),
	})
	return i, err
}

// alone starts the one provider there is.
func (w *podsWorld) alone(ctx context.Context) (*instance, error) {
	i, err := w.startProvider(ctx, "vk-provider", "--leader-elect=false")
	if err != nil {
		return nil, err
	}
	if err := w.awaitNodes(ctx, i); err != nil {
		_ = i.Stop(0)
		return nil, err
	}
	return i, nil
}

// awaitNodes waits until every pool has virtual Nodes that take pods.
func (w *podsWorld) awaitNodes(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return i.Until(ctx, func(ctx context.Context) error {
		list, err := w.control.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: names.LabelPool})
		if err != nil {
			return err
		}
		nodes := make([][]string, len(w.pools))
		for k := range list.Items {
			node := &list.Items[k]
			if !takesPods(node) {
				return fmt.Errorf("node %s is not ready", node.Name)
			}
			for n, p := range w.pools {
				if node.Labels[names.LabelPool] == p.name {
					nodes[n] = append(nodes[n], node.Name)
				}
			}
		}
		for n, p := range w.pools {
			if len(nodes[n]) == 0 {
				return fmt.Errorf("%s has no node", p.name)
			}
		}
		w.nodes = nodes
		return nil
	})
}

func takesPods(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return !node.Spec.Unschedulable
		}
	}
	return false
}

// until asks until there is no error or ctx is done.
func until(ctx context.Context, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// scrape reads metrics; keys have their labels.
func scrape(raw []byte) map[string]float64 {
	values := map[string]float64{}
	for line := range bytes.Lines(raw) {
		text := strings.TrimSpace(string(line))
		at := strings.LastIndexByte(text, ' ')
		if at < 0 || text[0] == '#' {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(text[at+1:], &value); err == nil {
			values[text[:at]] = value
		}
	}
	return values
}
