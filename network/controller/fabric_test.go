package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient/admintest"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/fake"
)

// vpcWorld is a control cluster, which also serves the admin API as custom resources, and a pool. The pool's driver is one
// in memory, and there is no vk-provider: the test makes the pool's pods.
type vpcWorld struct {
	t             *testing.T
	control, pool kubernetes.Interface
	admin         client.WithWatch
	driver        *fake.Driver
	options       *Options
	controlUID    types.UID
	// broken makes the driver's calls of a method fail.
	broken atomic.Pointer[string]
}

func newVPCWorld(t *testing.T) *vpcWorld {
	t.Helper()
	var control, pool *kubetest.Cluster
	var started sync.WaitGroup
	started.Go(func() { control = kubetest.ControlPlane(t) })
	started.Go(func() { pool = kubetest.ControlPlane(t) })
	started.Wait()
	if t.Skipped() {
		t.SkipNow()
	}
	if control == nil || pool == nil {
		t.FailNow()
	}
	w := &vpcWorld{t: t, control: kubernetes.NewForConfigOrDie(control.Config), pool: kubernetes.NewForConfigOrDie(pool.Config), driver: fake.New()}
	w.driver.Fail = func(c fake.Call) error {
		if method := w.broken.Load(); method != nil && *method == c.Method {
			return errors.New("broken")
		}
		return nil
	}
	var err error
	if w.admin, err = admintest.Install(t.Context(), control.Config); err != nil {
		t.Fatal(err)
	}
	w.namespace(w.control, names.SystemNamespace, nil)
	applyFile(t, control, filepath.Join("..", "..", "charts", "vivarium", "files", "rbac", "network.yaml"))
	applyFile(t, pool, filepath.Join("..", "..", "charts", "vivarium-pool", "files", "clusterrole.yaml"))
	w.must(w.pool.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "vivarium-pool"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "vivarium-pool"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "vivarium"}},
	}, metav1.CreateOptions{}))
	kubeconfig, err := os.ReadFile(pool.Kubeconfig(t, "vivarium"))
	if err != nil {
		t.Fatal(err)
	}
	w.must(w.control.CoreV1().Secrets(names.SystemNamespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}, Data: map[string][]byte{pools.KubeconfigKey: kubeconfig},
	}, metav1.CreateOptions{}))
	system := func(c kubernetes.Interface) types.UID {
		ns, err := c.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return ns.UID
	}
	w.controlUID = system(w.control)
	w.create(&v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}, Spec: v1alpha1.ResourcePoolSpec{
		ClusterUID: system(w.pool), Credentials: v1alpha1.PoolCredentials{KubeconfigSecret: "pool-a"}, Network: v1alpha1.PoolNetwork{Driver: fake.Name},
	}})
	w.must(w.control.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pool-a-0", Labels: map[string]string{names.LabelPool: "pool-a"}}}, metav1.CreateOptions{}))
	node, err := w.pool.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-0"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}}
	w.must(w.pool.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}))

	w.options = NewOptions()
	w.options.ControlKubeconfig = control.Kubeconfig(t, "vivarium-network")
	w.options.AdminKubeconfig = control.Kubeconfig(t, "admin", "system:masters")
	w.options.LeaderElect = false
	return w
}

func (w *vpcWorld) must(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *vpcWorld) create(o client.Object) {
	w.t.Helper()
	if err := w.admin.Create(w.t.Context(), o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *vpcWorld) namespace(c kubernetes.Interface, name string, labels map[string]string) {
	w.t.Helper()
	w.must(c.CoreV1().Namespaces().Create(w.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}))
	// There is no controller manager to make it.
	w.must(c.CoreV1().ServiceAccounts(name).Create(w.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}))
}

// lead starts a controller; stop ends it and waits.
func (w *vpcWorld) lead() (stop func()) {
	w.t.Helper()
	c, err := New(w.options, func(string) (network.Driver, error) { return w.driver, nil })
	if err != nil {
		w.t.Fatal(err)
	}
	c.timing = timing{resync: time.Minute, sweep: time.Second, look: time.Second, quarantine: time.Hour}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, boot.NewHealth()) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("Run: %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *vpcWorld) makePod(name string, annotations map[string]string) *corev1.Pod {
	w.t.Helper()
	pod, err := w.control.CoreV1().Pods("red001-web").Create(w.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       corev1.PodSpec{NodeName: "pool-a-0", Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return pod
}

// places gives who has what, and fails when an index is given twice or a pod has two.
func (w *vpcWorld) places() map[types.UID]v1alpha1.IPAllocation {
	w.t.Helper()
	var blocks v1alpha1.IPBlockList
	if err := w.admin.List(w.t.Context(), &blocks); err != nil {
		w.t.Fatal(err)
	}
	out, taken := map[types.UID]v1alpha1.IPAllocation{}, map[string]bool{}
	for _, b := range blocks.Items {
		for _, a := range b.Status.Allocations {
			at := fmt.Sprint(b.Spec.SubnetUID, a.Index)
			if _, twice := out[a.PodUID]; twice || taken[at] {
				w.t.Fatalf("%s or %s is there twice", a.PodUID, at)
			}
			out[a.PodUID], taken[at] = a, true
		}
	}
	return out
}

func (w *vpcWorld) placed(pods ...*corev1.Pod) {
	w.t.Helper()
	eventually(w.t, "places", func() error {
		has := w.places()
		for _, pod := range pods {
			if a, ok := has[pod.UID]; !ok || a.Released != nil {
				return fmt.Errorf("pod %s has none of %d", pod.Name, len(has))
			}
		}
		return nil
	})
}

func (w *vpcWorld) told(pod *corev1.Pod, status corev1.ConditionStatus, reason network.Reason, message string) {
	w.t.Helper()
	eventually(w.t, "condition of "+pod.Name, func() error {
		got, err := w.control.CoreV1().Pods(pod.Namespace).Get(w.t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range got.Status.Conditions {
			if c.Type == network.PodReady && c.Status == status && c.Reason == string(reason) && strings.Contains(c.Message, message) {
				return nil
			}
		}
		return fmt.Errorf("has %+v", got.Status.Conditions)
	})
}

func (w *vpcWorld) remove(c kubernetes.Interface, pod *corev1.Pod) {
	w.t.Helper()
	var now int64
	if err := c.CoreV1().Pods(pod.Namespace).Delete(w.t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
		w.t.Fatal(err)
	}
}

// latency measures how long a pod that is bound waits for its address, as whoever watches the record sees it.
func (w *vpcWorld) latency(pods int) time.Duration {
	w.t.Helper()
	watch, err := w.admin.Watch(w.t.Context(), &v1alpha1.IPBlockList{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer watch.Stop()
	var took []time.Duration
	for i := range pods {
		since := time.Now()
		pod := w.makePod(fmt.Sprintf("timed-%d", i), nil)
		for event := range watch.ResultChan() {
			if block, ok := event.Object.(*v1alpha1.IPBlock); ok && slices.ContainsFunc(block.Status.Allocations, func(a v1alpha1.IPAllocation) bool { return a.PodUID == pod.UID }) {
				break
			}
		}
		took = append(took, time.Since(since))
	}
	slices.Sort(took)
	return took[len(took)/2].Round(time.Millisecond)
}

// TestVPCs follows VPCs, subnets and pods on real clusters, with the shipped rights and a driver in memory.
func TestVPCs(t *testing.T) {
	w := newVPCWorld(t)
	t.Run("NumbersRace", func(t *testing.T) { numbersRace(t, w) })
	stop := w.lead()
	tenantLabels := map[string]string{names.LabelTenant: "red001"}
	w.namespace(w.control, "red001-web", tenantLabels)
	w.create(&v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "red001"}, Spec: v1alpha1.TenantSpec{Network: v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, VPC: "red001-main"}}})
	vpc := &v1alpha1.VPC{ObjectMeta: metav1.ObjectMeta{Name: "red001-main", Finalizers: []string{v1alpha1.FinalizerNetwork}}, Spec: v1alpha1.VPCSpec{Tenant: "red001", CIDRs: []string{"10.0.0.0/16"}}}
	w.create(vpc)
	first := w.makePod("first", nil)
	w.told(first, corev1.ConditionFalse, network.ReasonVPCNotReady, "")

	broken := "EnsureSubnet"
	w.broken.Store(&broken)
	subnet := func(name, cidr string) *v1alpha1.Subnet {
		s := &v1alpha1.Subnet{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.FinalizerNetwork}}, Spec: v1alpha1.SubnetSpec{VPC: "red001-main", CIDRs: []string{cidr}}}
		w.create(s)
		return s
	}
	web := subnet("red001-web", "10.0.0.0/22")
	w.told(first, corev1.ConditionFalse, network.ReasonSubnetNotReady, "subnet web")
	w.broken.Store(nil)
	w.placed(first)
	w.told(first, corev1.ConditionTrue, network.ReasonReady, "")
	calls := w.driver.Calls()
	if vpcAt, subnetAt := slices.IndexFunc(calls, func(c fake.Call) bool { return c.Method == "EnsureVPC" }), slices.IndexFunc(calls, func(c fake.Call) bool { return c.Method == "EnsureSubnet" }); vpcAt < 0 || subnetAt < vpcAt {
		t.Errorf("the order of calls is wrong: %v", calls)
	}

	// Two subnets with the same addresses, as two gateways asked at once would let pass: the later one waits for the end of
	// the earlier.
	twins := map[bool]*v1alpha1.Subnet{}
	both := []*v1alpha1.Subnet{subnet("red001-twin-a", "10.0.20.0/24"), subnet("red001-twin-b", "10.0.20.128/25")}
	eventually(t, "one of the twins is refused", func() error {
		clear(twins)
		for _, s := range both {
			if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
				return err
			}
			ready := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.VPCReady)
			if ready == nil || ready.Reason != reasonOverlap && ready.Status != metav1.ConditionTrue {
				return fmt.Errorf("%s is %+v", s.Name, ready)
			}
			twins[s.Status.VNI != 0] = s
		}
		if len(twins) != 2 {
			return fmt.Errorf("both have a number, or neither: %v", twins)
		}
		return nil
	})
	if err := w.admin.Delete(t.Context(), twins[true]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other twin's turn", func() error {
		s := twins[false]
		if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if s.Status.VNI == 0 || !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.VPCReady) {
			return fmt.Errorf("status %+v", s.Status)
		}
		return nil
	})
	if err := w.admin.Delete(t.Context(), twins[false]); err != nil {
		t.Fatal(err)
	}

	// A tiny subnet fills up; a chosen address is had once.
	tiny := subnet("red001-tiny", "10.0.9.0/29")
	inTiny := map[string]string{"network.vivarium.io/subnets": "tiny"}
	var five []*corev1.Pod
	for i := range 5 {
		five = append(five, w.makePod(fmt.Sprintf("tiny-%d", i), inTiny))
	}
	w.placed(five...)
	sixth := w.makePod("tiny-5", inTiny)
	w.told(sixth, corev1.ConditionFalse, network.ReasonIPExhausted, "subnet tiny")
	eventually(t, "figures", func() error {
		if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(tiny), tiny); err != nil {
			return err
		}
		if tiny.Status.Total != 5 || tiny.Status.Used != 5 || !meta.IsStatusConditionTrue(tiny.Status.Conditions, v1alpha1.SubnetExhausted) || tiny.Status.VNI == 0 {
			return fmt.Errorf("status %+v", tiny.Status)
		}
		return nil
	})
	chosen := w.makePod("chosen", map[string]string{"network.vivarium.io/ip": "10.0.3.77"})
	w.placed(chosen)
	if got := w.places()[chosen.UID].Index; got != 3*256+77 {
		t.Errorf("the chosen address became index %d", got)
	}
	w.told(w.makePod("too-late", map[string]string{"network.vivarium.io/ip": "10.0.3.77"}), corev1.ConditionFalse, network.ReasonInvalidSelection, "taken by pod web/chosen")
	w.told(w.makePod("outside", map[string]string{"network.vivarium.io/ip": "10.0.8.1"}), corev1.ConditionFalse, network.ReasonInvalidSelection, "10.0.8.1")
	w.told(w.makePod("nowhere", map[string]string{"network.vivarium.io/subnets": "db"}), corev1.ConditionFalse, network.ReasonInvalidSelection, `"db"`)
	w.told(w.makePod("grouped", map[string]string{"network.vivarium.io/security-groups": "x"}), corev1.ConditionFalse, network.ReasonCapabilityMissing, "security groups")

	w.told(w.makePod("bounded", map[string]string{"network.vivarium.io/bandwidth": "10M"}), corev1.ConditionFalse, network.ReasonCapabilityMissing, "bandwidth")

	// Where a pod runs below is told, until it is gone; its address rests only then.
	w.namespace(w.pool, "red001-web", nil)
	mutation, err := w.driver.BindPod(network.PodBinding{
		Tenant: "red001", Pod: network.PodKey{Namespace: "red001-web", Name: "first", UID: first.UID},
		VPC: &network.VPC{UID: vpc.UID, Tenant: "red001"}, Subnet: &network.Subnet{UID: web.UID, VPC: vpc.UID},
	})
	if err != nil {
		t.Fatal(err)
	}
	poolPod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red001-web", Name: "first", Labels: map[string]string{
			names.LabelTenant: "red001", names.LabelControl: string(w.controlUID), names.LabelControlUID: string(first.UID), names.LabelPool: "pool-a", names.LabelManagedBy: "vk-provider",
		}},
		Spec: corev1.PodSpec{NodeName: "node-0", Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}}},
	}
	mutation.Apply(&poolPod.ObjectMeta)
	w.must(w.pool.CoreV1().Pods("red001-web").Create(t.Context(), poolPod, metav1.CreateOptions{}))
	eventually(t, "endpoint", func() error {
		got := w.driver.Endpoints("pool-a", vpc.UID)
		if len(got) != 1 || got[0].Node.String() != "192.0.2.7" || got[0].Pod.UID != first.UID || got[0].IPs[0].String() != "10.0.0.2" {
			return fmt.Errorf("endpoints %+v", got)
		}
		return nil
	})
	// The groups that a running pod is in are told when they change, for it alone or for its namespace.
	grouped := func(want string) {
		t.Helper()
		eventually(t, "groups", func() error {
			if got := w.driver.Endpoints("pool-a", vpc.UID); len(got) != 1 || strings.Join(got[0].SecurityGroups, ",") != want {
				return fmt.Errorf("endpoints %+v", got)
			}
			return nil
		})
	}
	annotate := func(value string) []byte {
		return []byte(`{"metadata":{"annotations":{"network.vivarium.io/security-groups":` + value + `}}}`)
	}
	w.must(w.control.CoreV1().Namespaces().Patch(t.Context(), "red001-web", types.MergePatchType, annotate(`"db,web"`), metav1.PatchOptions{}))
	grouped("db,web")
	w.must(w.control.CoreV1().Pods("red001-web").Patch(t.Context(), "first", types.MergePatchType, annotate(`"web"`), metav1.PatchOptions{}))
	grouped("web")
	w.must(w.control.CoreV1().Namespaces().Patch(t.Context(), "red001-web", types.MergePatchType, annotate(`null`), metav1.PatchOptions{}))

	// A policy of the tenant's is told before who is in its sets, which follows labels; another tenant's is nobody's here.
	policies := w.control.NetworkingV1().NetworkPolicies
	policy := func(namespace string) *networkingv1.NetworkPolicy {
		made, err := policies(namespace).Create(t.Context(), &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
				Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "x"}}}}}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	w.namespace(w.control, "zzz999-web", map[string]string{names.LabelTenant: "zzz999"})
	policy("zzz999-web")
	own := policy("red001-web")
	eventually(t, "policy", func() error {
		if got := w.driver.Policies("pool-a", vpc.UID); len(got) != 1 || !got[0].Receive || got[0].Send || len(got[0].From) != 1 {
			return fmt.Errorf("policies %+v", got)
		}
		return nil
	})
	inSets := func(want int) {
		t.Helper()
		eventually(t, "sets", func() error {
			if got := w.driver.Endpoints("pool-a", vpc.UID); len(got) != 1 || len(got[0].Sets) != want {
				return fmt.Errorf("endpoints %+v", got)
			}
			return nil
		})
	}
	inSets(0)
	label := func(value string) []byte { return []byte(`{"metadata":{"labels":{` + value + `}}}`) }
	w.must(w.control.CoreV1().Pods("red001-web").Patch(t.Context(), "first", types.MergePatchType, label(`"app":"a"`), metav1.PatchOptions{}))
	inSets(1)
	w.must(w.control.CoreV1().Namespaces().Patch(t.Context(), "red001-web", types.MergePatchType, label(`"tier":"x"`), metav1.PatchOptions{}))
	inSets(2)
	w.must(nil, policies("red001-web").Delete(t.Context(), own.Name, metav1.DeleteOptions{}))
	inSets(0)
	if got := w.driver.Policies("pool-a", vpc.UID); len(got) != 0 {
		t.Errorf("policies %+v", got)
	}
	t.Run("Services", func(t *testing.T) { servicesOf(t, w, vpc.UID) })
	// A driver that cannot says so to the tenant.
	w.driver.Unfiltered.Store(true)
	policy("red001-web")
	eventually(t, "event", func() error {
		list, err := w.control.CoreV1().Events("red001-web").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=NetworkPolicy"})
		if err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Reason != reasonNotEnforced || !strings.Contains(list.Items[0].Message, "pool-a-0") {
			return fmt.Errorf("events %+v", list.Items)
		}
		return nil
	})
	w.remove(w.control, first)
	time.Sleep(2 * time.Second) // what must not happen has time to
	if w.places()[first.UID].Released != nil {
		t.Error("an address was taken back while the pod ran in its pool")
	}
	w.remove(w.pool, poolPod)
	eventually(t, "quarantine", func() error {
		if w.places()[first.UID].Released == nil || len(w.driver.Endpoints("pool-a", vpc.UID)) > 0 {
			return errors.New("not yet")
		}
		return nil
	})

	t.Logf("from a bound pod to its address in the record, one after the other: p50 %s", w.latency(25))

	// The leader is killed in the middle of a burst, and its successor is there at once.
	var burst []*corev1.Pod
	for i := range 150 {
		burst = append(burst, w.makePod(fmt.Sprintf("burst-%d", i), nil))
		if i == 60 {
			go stop()
			w.lead()
		}
	}
	w.placed(burst...)

	// A subnet goes when its pods have, and the VPC after its subnets.
	for _, o := range []client.Object{vpc, web, tiny} {
		if err := w.admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it says what holds it", func() error {
		if err := errors.Join(w.admin.Get(t.Context(), client.ObjectKeyFromObject(web), web), w.admin.Get(t.Context(), client.ObjectKeyFromObject(vpc), vpc)); err != nil {
			return err
		}
		for _, c := range [][]metav1.Condition{web.Status.Conditions, vpc.Status.Conditions} {
			if ready := meta.FindStatusCondition(c, v1alpha1.VPCReady); ready == nil || ready.Reason != reasonInUse {
				return fmt.Errorf("conditions %+v", c)
			}
		}
		return nil
	})
	list, err := w.control.CoreV1().Pods("red001-web").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		w.remove(w.control, &list.Items[i])
	}
	eventually(t, "everything goes", func() error {
		var vpcs v1alpha1.VPCList
		var subnets v1alpha1.SubnetList
		var blocks v1alpha1.IPBlockList
		if err := errors.Join(w.admin.List(t.Context(), &vpcs), w.admin.List(t.Context(), &subnets), w.admin.List(t.Context(), &blocks)); err != nil {
			return err
		}
		if left := len(vpcs.Items) + len(subnets.Items) + len(blocks.Items); left > 0 || len(w.driver.Dump("pool-a")) > 0 {
			return fmt.Errorf("%d objects are left, and %v", left, w.driver.Dump("pool-a"))
		}
		return nil
	})
}

// TestFreeVNI: numbers go round once before one comes back.
func TestFreeVNI(t *testing.T) {
	for _, tc := range []struct {
		cursor string
		taken  map[uint32]bool
		want   uint32
	}{
		{"", nil, 1}, {"nonsense", nil, 1}, {"0", nil, 1}, {"7", nil, 7}, {"7", map[uint32]bool{7: true, 8: true}, 9},
		{fmt.Sprint(maxVNI), nil, maxVNI}, {fmt.Sprint(maxVNI), map[uint32]bool{maxVNI: true}, 1}, {fmt.Sprint(maxVNI + 1), map[uint32]bool{1: true}, 2},
	} {
		if got := freeVNI(tc.cursor, tc.taken); got != tc.want {
			t.Errorf("freeVNI(%q, %v) = %d, want %d", tc.cursor, tc.taken, got, tc.want)
		}
	}
}
