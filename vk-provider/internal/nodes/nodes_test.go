package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/bounce"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/poolcache"
)

var good = pools.Finding{Status: metav1.ConditionTrue, Reason: "Checked"}

func bad(reason string) pools.Finding {
	return pools.Finding{Status: metav1.ConditionFalse, Reason: reason, Message: "detail"}
}

func allGood() pools.Status {
	return pools.Status{Reachable: good, Identified: good, Authorized: good, Version: "v1.36.3"}
}

// registry is what a Registry knows, for one pool.
type registry struct {
	resource *v1alpha1.ResourcePool
	status   pools.Status
	// neighbour is another pool, when there is one.
	neighbour *pools.Status
}

func (r *registry) Resource(name string) (*v1alpha1.ResourcePool, bool) {
	return r.resource, r.resource != nil && r.resource.Name == name
}
func (r *registry) Resources() []*v1alpha1.ResourcePool {
	if r.resource == nil {
		return nil
	}
	all := []*v1alpha1.ResourcePool{r.resource}
	if r.neighbour != nil {
		all = append(all, &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "neighbour"}})
	}
	return all
}
func (r *registry) Status(name string) (pools.Status, bool) {
	if name == "neighbour" {
		return *r.neighbour, true
	}
	return r.status, true
}
func (r *registry) HasSynced() bool                      { return true }
func (r *registry) Silence(string) (time.Duration, bool) { return 0, true }

// world is a Controller between fakes.
type world struct {
	t          *testing.T
	control    *fake.Clientset
	pool       *fake.Clientset
	admin      client.Client
	registry   *registry
	below      *poolcache.Cache
	controller *Controller
}

func newWorld(t *testing.T, resource *v1alpha1.ResourcePool, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{t: t, registry: &registry{resource: resource, status: allGood()}}
	w.pool = fake.NewClientset(objects...)
	w.control = fake.NewClientset()
	// The fake has no admission; a real API server puts this on every new Node.
	w.control.PrependReactor("create", "nodes", func(a k8stesting.Action) (bool, runtime.Object, error) {
		node := a.(k8stesting.CreateAction).GetObject().(*corev1.Node)
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
		node.UID = "uid-" + types.UID(node.Name)
		return false, nil, nil
	})
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w.admin = ctrlfake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.ResourcePool{}).WithObjects(resource).Build()
	w.reread()
	cache, err := control.New(w.control)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go cache.Run(ctx)
	if !cache.Wait(ctx) {
		t.Fatal("no cache")
	}
	w.controller, err = New(Config{
		Control: w.control, Cache: cache, Registry: w.registry, Admin: w.admin, Recorder: &record.FakeRecorder{},
		Metrics: NewMetrics(prometheus.NewRegistry()), Books: bounce.NewBooks(time.Now), Chosen: func(*v1alpha1.TenantChoice) []string { return []string{"abc123"} }, Address: netip.MustParseAddr("192.0.2.1"), Port: 10250, RetireAfter: time.Nanosecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	below, err := poolcache.New(pools.NewPool(resource, "control-1", nil, w.pool), Component)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.controller.Attach(ctx, below); err != nil {
		t.Fatal(err)
	}
	go below.Run(ctx)
	if !below.Wait(ctx) {
		t.Fatal("no pool cache")
	}
	w.below = below
	return w
}

// reread takes the ResourcePool from the admin API, as an informer would.
func (w *world) reread() {
	w.t.Helper()
	if w.registry.resource == nil {
		return
	}
	got := &v1alpha1.ResourcePool{}
	err := w.admin.Get(w.t.Context(), types.NamespacedName{Name: w.registry.resource.Name}, got)
	if apierrors.IsNotFound(err) {
		w.registry.resource = nil
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.registry.resource = got
}

// until reconciles until the check holds: the controller works on caches.
func (w *world) until(what string, check func(nodes map[string]*corev1.Node) error) {
	w.t.Helper()
	var err error
	for range 500 {
		w.reread()
		if err = w.controller.reconcile(w.t.Context(), "pool-a"); err == nil || apierrors.IsConflict(err) {
			var list *corev1.NodeList
			if list, err = w.control.CoreV1().Nodes().List(w.t.Context(), metav1.ListOptions{}); err == nil {
				nodes := map[string]*corev1.Node{}
				for i := range list.Items {
					nodes[list.Items[i].Name] = &list.Items[i]
				}
				err = check(nodes)
			}
		}
		if err == nil {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	w.t.Fatalf("%s: %v", what, err)
}

func poolNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")},
		Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		NodeInfo:    corev1.NodeSystemInfo{OperatingSystem: "linux", Architecture: "amd64", KubeletVersion: "v1.36.3"},
	}}
}

func resourcePool() *v1alpha1.ResourcePool {
	return &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "pool-a", Generation: 3, Finalizers: []string{v1alpha1.FinalizerPool, "vivarium.test/other"}}}
}

func readyOf(node *corev1.Node) corev1.NodeCondition {
	if c := condition(node, corev1.NodeReady); c != nil {
		return *c
	}
	return corev1.NodeCondition{}
}

func TestAPoolBecomesNodes(t *testing.T) {
	w := newWorld(t, resourcePool(), poolNode("a"), poolNode("b"))
	w.until("two nodes that take pods", func(nodes map[string]*corev1.Node) error {
		for _, name := range []string{"pool-a-0", "pool-a-1"} {
			node := nodes[name]
			if node == nil || readyOf(node).Status != corev1.ConditionTrue || len(node.Spec.Taints) > 0 || node.Spec.Unschedulable {
				return errors.New(name + " is not there or not ready")
			}
		}
		return nil
	})
	node, err := w.control.CoreV1().Nodes().Get(t.Context(), "pool-a-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantAddresses := []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: "pool-a-0"}}
	if diff := cmp.Diff(wantAddresses, node.Status.Addresses); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if node.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 || node.Status.Allocatable.Cpu().String() != "4" || len(node.Status.DeclaredFeatures) > 0 {
		t.Errorf("status %+v", node.Status)
	}
	w.reread()
	status := w.registry.resource.Status
	if status.Nodes != 2 || status.VirtualNodes != 2 || status.Allocatable.Cpu().String() != "8" || status.ObservedGeneration != 3 ||
		!meta.IsStatusConditionTrue(status.Conditions, v1alpha1.PoolReady) {
		t.Errorf("ResourcePool status %+v", status)
	}

	// Once the caches have caught up, another look writes nothing.
	w.until("another look that writes nothing", func(map[string]*corev1.Node) error {
		before := w.registry.resource.ResourceVersion
		w.control.ClearActions()
		if err := w.controller.reconcile(t.Context(), "pool-a"); err != nil {
			return err
		}
		for _, a := range w.control.Actions() {
			if a.GetVerb() != "list" && a.GetVerb() != "watch" && a.GetVerb() != "get" {
				return errors.New("it does " + a.GetVerb() + " " + a.GetResource().Resource)
			}
		}
		if w.reread(); w.registry.resource.ResourceVersion != before {
			return errors.New("it writes the ResourcePool")
		}
		return nil
	})
}

func TestHealthReachesTheNodes(t *testing.T) {
	w := newWorld(t, resourcePool(), poolNode("a"))
	well := allGood()
	w.registry.neighbour = &well
	ready := func(want corev1.ConditionStatus, reason string, unschedulable bool) func(map[string]*corev1.Node) error {
		return func(nodes map[string]*corev1.Node) error {
			node := nodes["pool-a-0"]
			if node == nil {
				return errors.New("no node")
			}
			if c := readyOf(node); c.Status != want || c.Reason != reason || node.Spec.Unschedulable != unschedulable {
				return errors.New(string(c.Status) + " " + c.Reason)
			}
			return nil
		}
	}
	w.until("good", ready(corev1.ConditionTrue, reasonReady, false))
	w.registry.status.Reachable = bad("NoAnswer")
	w.until("silent", ready(corev1.ConditionFalse, reasonUnreachable, false))
	w.registry.status.Reachable = good
	w.registry.status.Authorized = bad("MissingRights")
	w.until("without rights", ready(corev1.ConditionTrue, reasonReady, true))
	w.registry.status.Authorized = good
	w.registry.status.Identified = bad("OtherCluster")
	w.until("another cluster", ready(corev1.ConditionTrue, control.ReasonHeld, true))
	w.reread()
	if c := meta.FindStatusCondition(w.registry.resource.Status.Conditions, v1alpha1.PoolReady); c == nil || c.Status != metav1.ConditionFalse || c.Reason != "OtherCluster" {
		t.Errorf("condition %+v", c)
	}
}

func TestAShrunkenPoolKeepsNodesThatHavePods(t *testing.T) {
	w := newWorld(t, resourcePool(), poolNode("a"), poolNode("b"))
	w.until("two nodes", func(nodes map[string]*corev1.Node) error {
		if len(nodes) != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "abc123-default", UID: "u"}, Spec: corev1.PodSpec{NodeName: "pool-a-1"}}
	if _, err := w.control.CoreV1().Pods("abc123-default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for len(w.controller.config.Cache.PodsOnNode("pool-a-1")) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := w.pool.CoreV1().Nodes().Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("the second one takes no more pods", func(nodes map[string]*corev1.Node) error {
		if node := nodes["pool-a-1"]; node == nil || !node.Spec.Unschedulable {
			return errors.New("not yet")
		}
		return nil
	})
	for range 3 {
		w.until("it stays", func(nodes map[string]*corev1.Node) error {
			if nodes["pool-a-1"] == nil {
				t.Fatal("a node with a pod was deleted")
			}
			return nil
		})
	}
	if err := w.control.CoreV1().Pods("abc123-default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("the empty one goes", func(nodes map[string]*corev1.Node) error {
		if len(nodes) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
}

// TestRestore: what is known of a pool before it is restored from a backup is not written down for what comes after; and the
// operator's word about one restore does not stand for the next.
func TestRestore(t *testing.T) {
	w := newWorld(t, resourcePool(), poolNode("a"))
	w.below.Pool.Saw("900")
	written := func(want string, restored *pools.Finding, word bool) {
		t.Helper()
		w.until("revision "+want, func(map[string]*corev1.Node) error {
			w.reread()
			resource := w.registry.resource
			c := meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolRestored)
			_, has := resource.Annotations[v1alpha1.AnnotationRestored]
			if resource.Status.Revision != want || has != word || (c == nil) != (restored == nil) || c != nil && c.Message != restored.Message {
				return fmt.Errorf("revision %s, word %t, %+v", resource.Status.Revision, has, c)
			}
			return nil
		})
	}
	confirm := func() {
		t.Helper()
		w.reread()
		metav1.SetMetaDataAnnotation(&w.registry.resource.ObjectMeta, v1alpha1.AnnotationRestored, "true")
		if err := w.admin.Update(t.Context(), w.registry.resource); err != nil {
			t.Fatal(err)
		}
	}
	written("900", nil, false)
	if w.below.Pool.Continues(w.below.Pool.Mark(), "500") {
		t.Fatal("it goes on")
	}
	first, second := good, good
	first.Message, second.Message = "900 to 500", "600 to 400"
	w.registry.status.Restored = first
	written("", &first, false)
	confirm()
	written("", &first, true)
	w.registry.status.Restored = second
	written("", &second, false)
	confirm()
	w.registry.status.Restored = pools.Finding{}
	written("", nil, false)
}

func TestALostResourcePoolCordonsAndDeletesNothing(t *testing.T) {
	w := newWorld(t, resourcePool(), poolNode("a"))
	w.until("a node", func(nodes map[string]*corev1.Node) error {
		if len(nodes) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	w.registry.resource = nil
	w.until("cordoned", func(nodes map[string]*corev1.Node) error {
		if node := nodes["pool-a-0"]; node == nil || !node.Spec.Unschedulable {
			return errors.New("not yet")
		}
		return nil
	})
	if !w.controller.leases.wanted("pool-a-0") {
		t.Error("its Lease is not renewed: its pods would be evicted")
	}
}

func TestADeletedPoolIsDrainedAndLetGo(t *testing.T) {
	w := newWorld(t, resourcePool(), poolNode("a"))
	w.until("a node", func(nodes map[string]*corev1.Node) error {
		if len(nodes) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := w.admin.Delete(t.Context(), w.registry.resource); err != nil {
		t.Fatal(err)
	}
	w.reread()
	w.until("no node", func(nodes map[string]*corev1.Node) error {
		if len(nodes) != 0 {
			return errors.New("not yet")
		}
		return nil
	})
	w.reread()
	if diff := cmp.Diff([]string{"vivarium.test/other"}, w.registry.resource.Finalizers); diff != "" {
		t.Errorf("finalizers (-want +got):\n%s", diff)
	}
}

func TestLabelsThatAreNoLongerWantedGo(t *testing.T) {
	h := health{known: true, ready: true, open: true}
	first := shell(nil, capacity.Node{Name: "n", Labels: map[string]string{names.LabelPool: "p", "tier": "gold"}}, h, metav1.Now())
	first.Labels["somebody.test/else"] = "x"
	second := shell(first, capacity.Node{Name: "n", Labels: map[string]string{names.LabelPool: "p"}}, h, metav1.Now())
	want := map[string]string{names.LabelPool: "p", "somebody.test/else": "x"}
	if diff := cmp.Diff(want, second.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestConditionsRest(t *testing.T) {
	h := health{known: true, ready: true, open: true, reason: reasonReady, message: "the pool answers"}
	node := &corev1.Node{}
	at := metav1.NewTime(time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC))
	node.Status = status(node, &capacity.Node{Ready: true}, h, place{"192.0.2.1", 1}, at)
	soon := status(node, &capacity.Node{Ready: true}, h, place{"192.0.2.1", 1}, metav1.NewTime(at.Add(time.Minute)))
	if !same(node.Status, soon) {
		t.Error("an unchanged status is written each time")
	}
	late := status(node, &capacity.Node{Ready: true}, h, place{"192.0.2.1", 1}, metav1.NewTime(at.Add(heartbeatEvery)))
	if same(node.Status, late) || late.Conditions[0].LastTransitionTime != at {
		t.Error("the heartbeat is missing, or moves the transition")
	}
	mirrored := status(node, &capacity.Node{Ready: false}, h, place{"192.0.2.1", 1}, at)
	if mirrored.Conditions[0].Status != corev1.ConditionFalse || mirrored.Conditions[0].Reason != reasonNodeDown {
		t.Errorf("a mirrored node that is down: %+v", mirrored.Conditions[0])
	}
}

// TestSilenceOfAllPoolsIsOurs: one pool may die, all at once do not.
func TestSilenceOfAllPoolsIsOurs(t *testing.T) {
	two := &severalPools{names: []string{"a", "b"}, silent: map[string]bool{}}
	c := &Controller{config: Config{Registry: two, FreezeFor: time.Hour}}
	step := func(want bool, silent ...string) {
		t.Helper()
		two.silent = map[string]bool{}
		for _, name := range silent {
			two.silent[name] = true
		}
		c.judgeSilence(t.Context())
		if c.frozen() != want {
			t.Errorf("silent %v: frozen %t", silent, c.frozen())
		}
	}
	step(false)
	step(false, "a")
	step(true, "a", "b")
	step(false, "b")
	// The first one to be given up must not be judged alone when the other one has fallen silent with it.
	two.silence = map[string]time.Duration{"b": 15 * time.Second}
	step(true, "a")
	two.silence = map[string]time.Duration{"b": 4 * time.Second}
	step(false, "a")
	two.names = []string{"a"}
	step(false, "a")
}

type severalPools struct {
	names   []string
	silent  map[string]bool
	silence map[string]time.Duration
}

func (s *severalPools) Resource(string) (*v1alpha1.ResourcePool, bool) { return nil, false }
func (s *severalPools) HasSynced() bool                                { return true }
func (s *severalPools) Silence(name string) (time.Duration, bool) {
	return s.silence[name], true
}
func (s *severalPools) Resources() []*v1alpha1.ResourcePool {
	var out []*v1alpha1.ResourcePool
	for _, name := range s.names {
		out = append(out, &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return out
}
func (s *severalPools) Status(name string) (pools.Status, bool) {
	status := allGood()
	if s.silent[name] {
		status.Reachable = bad("NoAnswer")
	}
	return status, true
}
