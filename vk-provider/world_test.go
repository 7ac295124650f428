package vkprovider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/adminclient/admintest"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/names"
)

// The tests here run the built program, with exactly the rights that are shipped, between real kube-apiservers: one as
// the control cluster, which also serves ResourcePools as custom resources, and two as pools. Only the pools' kubelets
// are simulated; see simulatedKubelet.

// program is the built vk-provider.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vk-provider-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	flag.Parse()
	if runtime.GOMAXPROCS(0) < worlds && flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = flag.Set("test.parallel", strconv.Itoa(worlds))
	}
	program = filepath.Join(dir, "vk-provider")
	return m.Run()
}

var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", program, "../cmd/vk-provider").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build vk-provider: %w\n%s", err, out)
	}
	return nil
})

// world is a control cluster with pools.
type world struct {
	control *kubetest.Cluster
	admin   client.Client
	pools   map[string]*pool

	controlClient kubernetes.Interface
	args          []string
}

// pool is one pool of a world.
type pool struct {
	cluster *kubetest.Cluster
	client  kubernetes.Interface
	uid     types.UID
	kubelet *simulatedKubelet
	// line is what the program's connections to the pool go through.
	line *line
}

// worlds is how many worlds there are at once at least: in each there is more waiting than work.
const worlds = 3

// newWorld starts clusters, and registers the pools. The test goes on beside others.
func newWorld(t *testing.T, pools ...string) *world {
	t.Helper()
	t.Parallel()
	w := &world{pools: map[string]*pool{}}
	var started sync.WaitGroup
	var mu sync.Mutex
	started.Go(func() {
		w.control = kubetest.ControlPlane(t, kubetest.WithControllerManager(), kubetest.WithScheduler())
	})
	for _, name := range pools {
		started.Go(func() {
			cluster := kubetest.ControlPlane(t, kubetest.WithControllerManager(), kubetest.WithScheduler())
			mu.Lock()
			defer mu.Unlock()
			w.pools[name] = &pool{cluster: cluster}
		})
	}
	started.Wait()
	if t.Skipped() {
		t.SkipNow()
	}
	if t.Failed() || w.control == nil || len(w.pools) < len(pools) {
		t.FailNow()
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	w.controlClient = kubernetes.NewForConfigOrDie(w.control.Config)
	w.namespace(t, names.SystemNamespace, nil)
	apply(t, w.control, "vivarium/files/rbac/vk-provider.yaml")
	var err error
	if w.admin, err = admintest.Install(t.Context(), w.control.Config); err != nil {
		t.Fatal(err)
	}
	for name, p := range w.pools {
		p.open(t)
		w.register(t, name, p)
	}
	pair := w.control.ServingPair(t, "127.0.0.1")
	w.args = []string{
		"--control-kubeconfig=" + w.control.Kubeconfig(t, "vivarium-vk-provider"),
		"--admin-kubeconfig=" + w.control.Kubeconfig(t, "admin", "system:masters"),
		"--node-address=127.0.0.1", "--tls-cert-file=" + pair.Cert, "--tls-private-key-file=" + pair.Key,
		"--client-ca-file=" + w.control.CAFile, "--client-name=" + w.control.KubeletClient,
		"--gateway-host=192.0.2.9", "--gateway-port=6443", "--leader-elect=false", "--v=1",
	}
	return w
}

// open prepares a cluster as a pool: the shipped rights for our user, and a node.
func (p *pool) open(t *testing.T) {
	t.Helper()
	p.client = kubernetes.NewForConfigOrDie(p.cluster.Config)
	system, err := p.client.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.uid = system.UID
	apply(t, p.cluster, "vivarium-pool/files/clusterrole.yaml")
	create(t, p.cluster, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: vivarium-pool}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: vivarium-pool}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: vivarium}]
`)
	p.kubelet = startSimulatedKubelet(t, p.client, "node-0")
}

// register makes the ResourcePool and its Secret.
func (w *world) register(t *testing.T, name string, p *pool) {
	t.Helper()
	kubeconfig, err := os.ReadFile(p.cluster.Kubeconfig(t, "vivarium"))
	if err != nil {
		t.Fatal(err)
	}
	p.line = newLine(t, strings.TrimPrefix(p.cluster.Config.Host, "https://"))
	kubeconfig = bytes.ReplaceAll(kubeconfig, []byte(p.cluster.Config.Host), []byte("https://"+p.line.address))
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"kubeconfig": kubeconfig}}
	if _, err := w.controlClient.CoreV1().Secrets(names.SystemNamespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	resource := &v1alpha1.ResourcePool{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.FinalizerPool}},
		Spec:       v1alpha1.ResourcePoolSpec{ClusterUID: p.uid, Credentials: v1alpha1.PoolCredentials{KubeconfigSecret: name}},
	}
	if err := w.admin.Create(t.Context(), resource); err != nil {
		t.Fatal(err)
	}
}

// tenant makes a tenant's namespace as the gateway does, and waits until pods can be made in it.
func (w *world) tenant(t *testing.T, namespace string) {
	t.Helper()
	id, _, ok := names.SplitNamespace(names.ControlNamespace(namespace))
	if !ok {
		t.Fatalf("%q is not a tenant's namespace", namespace)
	}
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: string(id)}}
	if err := w.admin.Create(t.Context(), tenant); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	w.namespace(t, namespace, map[string]string{names.LabelTenant: string(id)})
}

func (w *world) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := w.controlClient.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ServiceAccount in "+name, func() error {
		_, err := w.controlClient.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
}

// provider is one run of the program.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	// health is the address of its metrics.
	health string
	done   chan error
	log    *bytes.Buffer
	mu     *sync.Mutex // guards log
}

// start runs the program; more flags win over the world's.
func (w *world) start(t *testing.T, more ...string) *running {
	t.Helper()
	ports, err := localcluster.FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	local := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	r := &running{t: t, health: local(ports.EtcdClient), done: make(chan error, 1), log: &bytes.Buffer{}, mu: &sync.Mutex{}}
	r.cmd = exec.Command(program, slices.Concat([]string{"--listen=" + local(ports.APIServer), "--health-listen=" + r.health}, w.args, more)...)
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.cmd.Wait() }()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
		if t.Failed() {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Logf("vk-provider said:\n%s", tail(r.log.String(), 200))
			r.keepLog(t)
		}
	})
	return r
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

// kill ends the program as kill -9 does.
func (r *running) kill() {
	r.t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	err := <-r.done
	r.done <- err
}

// shiftClock has the program believe that it is earlier or later than it is; once it has ended that is no matter.
func (r *running) shiftClock(by time.Duration) {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return
	default:
	}
	if err := kubetest.ShiftClock(r.cmd.Process.Pid, by); errors.Is(err, kubetest.ErrOneClock) {
		r.t.Skip(err)
	} else if err != nil {
		r.t.Fatal(err)
	}
}

// mustRun ends the test when the program has ended by itself.
func (r *running) mustRun() {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		r.t.Fatalf("vk-provider ended by itself: %v", err)
	default:
	}
}

// ready waits until the pools' virtual Nodes are Ready and takes pods.
func (w *world) ready(t *testing.T, pools ...string) {
	t.Helper()
	for _, name := range pools {
		eventually(t, "virtual node of "+name, func() error {
			list, err := w.controlClient.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{LabelSelector: names.LabelPool + "=" + name})
			if err != nil {
				return err
			}
			for _, node := range list.Items {
				if nodeReady(&node) && len(node.Spec.Taints) == 0 && !node.Spec.Unschedulable {
					return nil
				}
			}
			return fmt.Errorf("%d nodes, none ready", len(list.Items))
		})
	}
}

func nodeReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// patience is how long something may take on a busy machine. Nothing waits for it to pass.
const patience = 6 * time.Minute

// eventually asks until there is no error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// apply creates every object of a shipped file.
func apply(t *testing.T, cluster *kubetest.Cluster, file string) {
	t.Helper()
	raw, err := charts.FS.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	create(t, cluster, string(raw))
}

func create(t *testing.T, cluster *kubetest.Cluster, manifests string) {
	t.Helper()
	c, err := client.New(cluster.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := c.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatalf("create %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// simulatedKubelet plays the kubelet of one pool node by writing what a kubelet writes: pods that are bound to the node
// run at once, and pods that are deleted end and go. No container exists; tests that need one are in e2e.
type simulatedKubelet struct {
	client kubernetes.Interface
	node   string

	mu sync.Mutex // guards paused
	// paused keeps pods as they are.
	paused bool
	stop   func()
}

func startSimulatedKubelet(t *testing.T, c kubernetes.Interface, node string) *simulatedKubelet {
	t.Helper()
	k := &simulatedKubelet{client: c, node: node}
	k.register(t)
	k.begin(t.Context())
	t.Cleanup(func() { k.stop() })
	return k
}

func (k *simulatedKubelet) begin(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { k.heartbeat(ctx) })
	running.Go(func() { k.run(ctx) })
	k.stop = func() { cancel(); running.Wait() }
}

// again restarts it: it knows nothing but what the pool's API server tells.
func (k *simulatedKubelet) again(t *testing.T) {
	t.Helper()
	k.stop()
	k.begin(t.Context())
}

func (k *simulatedKubelet) pause(paused bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paused = paused
}

func (k *simulatedKubelet) isPaused() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.paused
}

func (k *simulatedKubelet) patchPod(ctx context.Context, pod *corev1.Pod, status any) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err == nil {
		_, _ = k.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
}
