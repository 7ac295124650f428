package syncer

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient/admintest"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/engine"
)

// world is a control cluster and two pools, all real, and an admin API that is served by custom resources: what a
// component sees of it is the same.
type world struct {
	control *kubetest.Cluster
	pools   map[string]*kubetest.Cluster

	client     kubernetes.Interface
	poolClient map[string]kubernetes.Interface
	admin      client.WithWatch
	caFile     string
	controlUID types.UID
}

var shared *world

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	if testing.Short() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "syncer-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &world{pools: map[string]*kubetest.Cluster{}, poolClient: map[string]kubernetes.Interface{}}
	for _, name := range []string{"control", "pool-a", "pool-b"} {
		cluster, stop, err := kubetest.Start(ctx, dir, kubetest.WithControllerManager())
		if err != nil {
			if strings.Contains(err.Error(), kubetest.ErrNoPrograms.Error()) && !kubetest.InCI() {
				fmt.Fprintln(os.Stderr, "integration tests are skipped:", err)
				return m.Run()
			}
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer stop()
		if name == "control" {
			w.control = cluster
			w.client = kubernetes.NewForConfigOrDie(cluster.Config)
		} else {
			w.pools[name] = cluster
			w.poolClient[name] = kubernetes.NewForConfigOrDie(cluster.Config)
		}
	}
	w.caFile = filepath.Join(dir, "gateway-ca.crt")
	if err := w.prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = w
	return m.Run()
}

// prepare makes the admin API's kinds, the platform's namespace, and the rights that the component has in earnest.
func (w *world) prepare(ctx context.Context) error {
	ca, err := os.ReadFile(w.pools["pool-a"].CAFile)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.caFile, ca, 0o600); err != nil {
		return err
	}
	if w.admin, err = admintest.Install(ctx, w.control.Config); err != nil {
		return err
	}
	if _, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: names.SystemNamespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	kubeSystem, err := w.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return err
	}
	w.controlUID = kubeSystem.UID
	for _, file := range []string{"rbac/syncer.yaml", "policy/syncer-tokens.yaml"} {
		if err := applyFile(ctx, w.control, filepath.Join("..", "charts", "vivarium", "files", file)); err != nil {
			return err
		}
	}
	return nil
}

// applyFile creates every object of a YAML file.
func applyFile(ctx context.Context, cluster *kubetest.Cluster, file string) error {
	raw, err := os.Open(file)
	if err != nil {
		return err
	}
	defer raw.Close()
	c, err := client.New(cluster.Config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		return err
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(raw, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			if err.Error() == "EOF" {
				return nil
			}
			return err
		}
		if err := c.Create(ctx, object); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
}

// use gives the shared world, or skips.
func use(t *testing.T) *world {
	t.Helper()
	if shared == nil {
		t.Skip("it needs control planes: the Kubernetes programs are not built, or -short rules them out")
	}
	return shared
}

// tenantID makes an ID that no other test has.
func tenantID() names.TenantID {
	raw := make([]byte, 6)
	_, _ = rand.Read(raw)
	for i := range raw {
		raw[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[int(raw[i])%36]
	}
	return names.TenantID(raw)
}

// run starts a syncer with exactly the shipped rights; the returned function kills it.
func (w *world) run(t *testing.T, adjust ...func(*Syncer)) (stop func()) {
	t.Helper()
	options := NewOptions()
	options.ControlKubeconfig = w.control.Kubeconfig(t, "vivarium-syncer")
	options.AdminKubeconfig = w.control.Kubeconfig(t, "test-admin", "system:masters")
	options.GatewayCAFile = w.caFile
	options.LeaderElect = false
	s, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range adjust {
		a(s)
	}
	health := boot.NewHealth()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, health) }()
	kill := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the syncer does not stop")
		}
	})
	t.Cleanup(kill)
	eventually(t, "ready", health.Ready)
	return kill
}

// register makes a ResourcePool of one of the pools, with the rights of the shipped role and no more.
func (w *world) register(t *testing.T, pool string) {
	t.Helper()
	cluster := w.pools[pool]
	if err := applyFile(t.Context(), cluster, filepath.Join("..", "charts", "vivarium-pool", "files", "clusterrole.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := w.poolClient[pool].RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "vivarium-pool"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "vivarium-pool"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "vivarium"}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(cluster.Kubeconfig(t, "vivarium"))
	if err != nil {
		t.Fatal(err)
	}
	w.registerAs(t, pool, flatten(t, kubeconfig))
}

func (w *world) registerAs(t *testing.T, pool string, kubeconfig []byte) {
	t.Helper()
	kubeSystem, err := w.poolClient[pool].CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secrets := w.client.CoreV1().Secrets(names.SystemNamespace)
	_, err = secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pool-" + pool}, Data: map[string][]byte{pools.KubeconfigKey: kubeconfig},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	resource := &v1alpha1.ResourcePool{
		ObjectMeta: metav1.ObjectMeta{Name: pool},
		Spec:       v1alpha1.ResourcePoolSpec{Credentials: v1alpha1.PoolCredentials{KubeconfigSecret: "pool-" + pool}, ClusterUID: kubeSystem.UID},
	}
	if err := w.admin.Create(t.Context(), resource); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if err := w.node(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		live := &v1alpha1.ResourcePool{}
		if err := w.admin.Get(ctx, client.ObjectKey{Name: pool}, live); err == nil {
			live.Finalizers = nil
			_ = w.admin.Update(ctx, live)
			_ = w.admin.Delete(ctx, live)
		}
		_ = secrets.Delete(ctx, "pool-"+pool, metav1.DeleteOptions{})
	})
}

// node makes the pool's virtual Node, as vk-provider would.
func (w *world) node(ctx context.Context, pool string) error {
	_, err := w.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: pool + "-0", Labels: map[string]string{names.LabelPool: pool, "type": "virtual-kubelet"},
	}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// flatten embeds the files that a kubeconfig names, as the registration of a pool wants it.
func flatten(t *testing.T, kubeconfig []byte) []byte {
	t.Helper()
	for _, forbidden := range []string{"client-certificate:", "certificate-authority:"} {
		if strings.Contains(string(kubeconfig), forbidden) {
			t.Fatalf("the test kubeconfig names files: %s", forbidden)
		}
	}
	return kubeconfig
}

// tenant makes a tenant's namespace in control, as the gateway would.
func (w *world) tenant(t *testing.T, id names.TenantID, namespaces ...string) {
	t.Helper()
	for _, namespace := range namespaces {
		name := id.Prefix() + namespace
		_, err := w.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{names.LabelTenant: string(id)},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}) })
		eventually(t, "ServiceAccount default in "+name, func() error {
			_, err := w.client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
			return err
		})
	}
}

// pod makes a pod that is bound to the pool's virtual Node.
func (w *world) pod(t *testing.T, namespace, name, pool string, adjust func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{{Name: "c", Image: "vivarium.test/shell:v1"}},
			TerminationGracePeriodSeconds: new(int64),
		},
	}
	if adjust != nil {
		adjust(pod)
	}
	made, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = w.client.CoreV1().Pods(namespace).Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Target:     corev1.ObjectReference{Kind: "Node", Name: pool + "-0"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.client.CoreV1().Pods(namespace).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	})
	return made
}

// patience is how long something may take on a busy machine. Nothing waits for it to pass.
const patience = 6 * time.Minute

// eventually waits until check returns nil.
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
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *world) poolSecret(t *testing.T, pool, namespace, name string) *corev1.Secret {
	t.Helper()
	var got *corev1.Secret
	eventually(t, "Secret "+namespace+"/"+name+" in "+pool, func() (err error) {
		got, err = w.poolClient[pool].CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err
	})
	return got
}

func (w *world) poolConfigMap(t *testing.T, pool, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	var got *corev1.ConfigMap
	eventually(t, "ConfigMap "+namespace+"/"+name+" in "+pool, func() (err error) {
		got, err = w.poolClient[pool].CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
		return err
	})
	return got
}

func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("still there (%v)", err)
}

// event waits for an event on a control pod.
func (w *world) event(t *testing.T, pod *corev1.Pod, reason string) *corev1.Event {
	t.Helper()
	var got *corev1.Event
	eventually(t, "event "+reason+" on "+pod.Name, func() error {
		list, err := w.client.CoreV1().Events(pod.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			e := &list.Items[i]
			if e.InvolvedObject.UID == pod.UID && e.Reason == reason {
				got = e
				return nil
			}
		}
		return fmt.Errorf("not among %d events", len(list.Items))
	})
	return got
}

func quick(s *Syncer) {
	s.timing = engine.Timing{Unreferenced: time.Second, SourceGone: 300 * time.Millisecond, BetweenWrites: 50 * time.Millisecond}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
