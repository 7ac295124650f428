package kubeovn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/golden"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
	"vivarium.io/vivarium/network/internal/custom"
)

var (
	red  = network.Namespace{Name: "abc123-web", Tenant: "abc123"}
	blue = network.Namespace{Name: "zzz999-web", Tenant: "zzz999"}
)

// TestMain gives Kube-OVN's stand-in the time that a busy machine takes.
func TestMain(m *testing.M) {
	custom.Patience = 5 * time.Minute
	os.Exit(m.Run())
}

func redVPC() *network.VPC {
	return &network.VPC{
		Name: "abc123-main", UID: "5c2d1b0e-0000-4000-8000-000000000001", Tenant: red.Tenant, MTU: 1400,
		CIDRs:  []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd00:20::/48")},
		Egress: network.EgressNone, API: netip.MustParseAddrPort("192.0.2.10:6443"),
		SecurityGroups: []network.SecurityGroup{
			{Name: "web", Ingress: []network.SecurityRule{{Protocol: "TCP", Ports: []network.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8099}}}}},
			{Name: "db", Ingress: []network.SecurityRule{{Groups: []string{"web"}}, {Protocol: "ICMP", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.20.1.0/24")}}}},
		},
	}
}

func redSubnet() *network.Subnet {
	return &network.Subnet{
		Name: "abc123-web", UID: "5c2d1b0e-0000-4000-8000-000000000002", VPC: redVPC().UID, VNI: 7,
		CIDRs:   []netip.Prefix{netip.MustParsePrefix("fd00:20::/64"), netip.MustParsePrefix("10.20.0.0/24")},
		Gateway: []netip.Addr{netip.MustParseAddr("fd00:20::1"), netip.MustParseAddr("10.20.0.1")},
	}
}

func redPod() network.PodBinding {
	return network.PodBinding{
		Tenant: red.Tenant, Pod: network.PodKey{Namespace: red.Name, Name: "p", UID: "11111111-0000-0000-0000-000000000000"},
		VPC: redVPC(), Subnet: redSubnet(), MAC: "02:00:00:00:00:09", SecurityGroups: []string{"db", "web"},
		IPs: []netip.Addr{netip.MustParseAddr("fd00:20::9"), netip.MustParseAddr("10.20.0.9")},
	}
}

// spelled spells what a pool has of ours, without what changes by itself.
func spelled(t *testing.T, pool network.Pool) any {
	t.Helper()
	found := map[string]any{}
	for _, k := range inOrder {
		list, err := k.In(pool).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			found[k.Name+" "+o.GetName()] = map[string]any{"spec": o.Object["spec"], "labels": o.GetLabels(), "uid": o.GetUID(), "generation": o.GetGeneration()}
		}
	}
	for _, fence := range drivertest.Fences(t, pool) {
		found["NetworkPolicy "+fence.Namespace] = fence.Spec
	}
	return found
}

// markExternal makes the Subnet that an operator provides.
func markExternal(t *testing.T, pool network.Pool) {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"cidrBlock": "192.0.2.0/24", "gateway": "192.0.2.1", "provider": "external.kube-system"}}}
	o.SetGroupVersionKind(subnets.WithKind(subnets.Name))
	o.SetName("external")
	o.SetLabels(map[string]string{labelExternal: "true"})
	if _, err := subnets.In(pool).Create(t.Context(), o, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// harness is about pools that are made with what their administrator has them by.
func harness(pool func(*testing.T, ...network.Namespace) (platform, admin network.Pool)) drivertest.Harness {
	return drivertest.Harness{
		Driver: func(*testing.T) network.Driver { return Driver{} },
		Pool: func(t *testing.T, namespaces ...network.Namespace) network.Pool {
			p, admin := pool(t, namespaces...)
			markExternal(t, admin)
			simulateKubeOVN(t, admin)
			return p
		},
		Silent:   drivertest.SilentPool,
		Snapshot: func(t *testing.T, _ network.Driver, pool network.Pool) any { return spelled(t, pool) },
		Obstruct: drivertest.ForeignFence,
		Running:  running,
	}
}

// fakePool is a pool in memory.
func fakePool() network.Pool {
	kinds := map[schema.GroupVersionResource]string{}
	for _, k := range inOrder {
		kinds[k.WithResource(k.Plural)] = k.Name + "List"
	}
	return drivertest.FakePool(kinds)
}

func TestContract(t *testing.T) {
	drivertest.Run(t, harness(func(*testing.T, ...network.Namespace) (platform, admin network.Pool) {
		p := fakePool()
		return p, p
	}))
}

// definitions reads Kube-OVN's own custom resources of the version that hack/kubeovn pins, from the module cache.
func definitions(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	folder := filepath.Join("..", "..", "hack", "kubeovn")
	const module = "github.com/kubeovn/kube-ovn"
	raw, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(regexp.QuoteMeta(module) + ` (v\S+)`).FindSubmatch(raw)
	if version == nil {
		t.Fatalf("%s/go.mod does not pin %s", folder, module)
	}
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module+"@"+string(version[1]))
	download.Dir, download.Env = folder, append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := download.Output()
	var found struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &found); err != nil || jsonErr != nil {
		if !kubetest.InCI() {
			t.Skipf("%s %s is not to be had: %v %s", module, version[1], err, found.Error)
		}
		t.Fatalf("download %s %s: %v %s", module, version[1], err, found.Error)
	}
	file, err := os.Open(filepath.Join(found.Dir, "charts", "kube-ovn", "templates", "kube-ovn-crd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var wanted []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, k := range inOrder {
			if o.GetName() == k.Resource() {
				wanted = append(wanted, o)
			}
		}
	}
	if len(wanted) != len(inOrder) {
		t.Fatalf("%d of %d kinds are defined by %s %s", len(wanted), len(inOrder), module, version[1])
	}
	return wanted
}

// TestOnRealDefinitions runs the suite, and a tenant's pod, where a real API server serves Kube-OVN's real custom resources and
// holds the platform to its rights and policies.
func TestOnRealDefinitions(t *testing.T) {
	cluster := kubetest.ControlPlane(t)
	cluster.Config.QPS = -1 // the stand-in asks often
	client, custom := kubernetes.NewForConfigOrDie(cluster.Config), dynamic.NewForConfigOrDie(cluster.Config)
	crds := custom.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for _, crd := range definitions(t) {
		if _, err := crds.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []network.Namespace{red, blue} {
		marked := map[string]string{names.LabelTenant: string(ns.Tenant), names.LabelControl: "control", names.LabelManagedBy: "vivarium"}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: string(ns.Name), Labels: marked}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CoreV1().ServiceAccounts(string(red.Name)).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	admin := network.Pool{Name: "pool-a", ControlUID: "control", Client: client, Dynamic: custom}
	for _, k := range inOrder {
		err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
			_, err := k.In(admin).List(ctx, metav1.ListOptions{})
			return err == nil, nil
		})
		if err != nil {
			t.Fatalf("%s is not served: %v", k.Resource(), err)
		}
	}
	pool := drivertest.Chart(t, cluster.Config, Name)
	t.Run("Policy", func(t *testing.T) { testPolicy(t, pool, admin) })
	t.Run("Contract", func(t *testing.T) {
		drivertest.Run(t, harness(func(t *testing.T, namespaces ...network.Namespace) (network.Pool, network.Pool) {
			for _, ns := range namespaces {
				if err := client.NetworkingV1().NetworkPolicies(string(ns.Name)).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			return pool, admin
		}))
	})
	t.Run("Pod", func(t *testing.T) { testPod(t, pool, admin) })
	t.Run("Stays", func(t *testing.T) { testStays(t, pool, admin) })
}

// testPod takes a pod of a dual-stack subnet with security groups through a pool.
func testPod(t *testing.T, pool, admin network.Pool) {
	markExternal(t, admin)
	simulateKubeOVN(t, admin)
	vpc, subnet := redVPC(), redSubnet()
	if got, err := (Driver{}).EnsureVPC(t.Context(), pool, vpc); err != nil || !got.Ready || got.Ref != "vpcs.kubeovn.io/"+vpcName(vpc) {
		t.Fatalf("EnsureVPC = %+v, %v", got, err)
	}
	if got, err := (Driver{}).EnsureSubnet(t.Context(), pool, vpc, subnet); err != nil || !got.Ready {
		t.Fatalf("EnsureSubnet = %+v, %v", got, err)
	}
	mutation, err := (Driver{}).BindPod(redPod())
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: string(red.Name), Name: "p"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/pause"}}},
	}
	mutation.Apply(&pod.ObjectMeta)
	pod.Spec.AutomountServiceAccountToken = new(bool)
	if pod, err = pool.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := (Driver{}).ObservePod(pod); err != nil || got.Ready || got.Reason != network.ReasonNoAddress {
		t.Errorf("before Kube-OVN: %+v, %v", got, err)
	}
	pod = simulateCNI(t, admin, pod)
	got, err := (Driver{}).ObservePod(pod)
	if want := "[fd00:20::9 10.20.0.9]"; err != nil || !got.Ready || fmt.Sprint(got.IPs) != want {
		t.Errorf("in its network: %+v, %v; want %s", got, err, want)
	}

	// Kube-OVN counts the pod: the subnet stays until it is gone.
	setUsing(t, admin, subnetName(subnet), 1)
	if err := (Driver{}).DeleteSubnet(t.Context(), pool, subnet); !errors.Is(err, network.ErrInUse) {
		t.Errorf("DeleteSubnet with a pod: %v, want ErrInUse", err)
	}
	if err := (Driver{}).Sweep(t.Context(), pool, network.LiveSet{AsOf: time.Now().Add(time.Hour)}); !errors.Is(err, network.ErrInUse) {
		t.Errorf("Sweep with a pod: %v, want ErrInUse", err)
	}
	setUsing(t, admin, subnetName(subnet), 0)
	moved := redSubnet()
	moved.CIDRs[1] = netip.MustParsePrefix("10.20.9.0/24")
	moved.Gateway[1] = netip.MustParseAddr("10.20.9.1")
	if got, err := (Driver{}).EnsureSubnet(t.Context(), pool, vpc, moved); !errors.Is(err, network.ErrInvalid) || got.Ready {
		t.Errorf("a subnet that changes its range: %+v, %v; want ErrInvalid", got, err)
	}
	// A group that its VPC loses is closed, not gone; the way out follows the VPC.
	vpc.SecurityGroups, vpc.API = vpc.SecurityGroups[:1], netip.AddrPort{}
	if _, err := (Driver{}).EnsureVPC(t.Context(), pool, vpc); err != nil {
		t.Fatal(err)
	}
	closed, err := groups.In(pool).Get(t.Context(), groupName(vpc, "db"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if rules, _, _ := unstructured.NestedSlice(closed.Object, "spec", "ingressRules"); len(rules) > 0 {
		t.Errorf("the lost group still allows %v", rules)
	}
	for _, k := range []custom.Kind{gateways, balancers} {
		if list, err := custom.Ours(t.Context(), pool, k, vpc.UID); err != nil || len(list) > 0 {
			t.Errorf("%s of a VPC that leads nowhere: %v, %v", k.Name, list, err)
		}
	}
	if err := errors.Join((Driver{}).DeleteSubnet(t.Context(), pool, subnet), (Driver{}).DeleteVPC(t.Context(), pool, vpc)); err != nil {
		t.Fatal(err)
	}
	for _, k := range inOrder {
		if list, err := custom.Ours(t.Context(), pool, k, ""); err != nil || len(list) > 0 {
			t.Errorf("left of %s: %v, %v", k.Name, list, err)
		}
	}
}

func setUsing(t *testing.T, pool network.Pool, name string, n int) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"status":{"v4usingIPs":%d,"v6usingIPs":%d}}`, n, n)
	if _, err := subnets.In(pool).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

// testPolicy: of Kube-OVN's objects the platform has its own alone, and those in VPCs of its own.
func testPolicy(t *testing.T, pool, admin network.Pool) {
	vpc := redVPC()
	make := func(want custom.Object) *unstructured.Unstructured {
		o := (&unstructured.Unstructured{Object: map[string]any{"spec": want.Spec}}).DeepCopy()
		o.SetGroupVersionKind(want.Kind.WithKind(want.Kind.Name))
		o.SetName(want.Name)
		o.SetNamespace(want.Kind.Namespace)
		o.SetLabels(want.Labels(pool))
		o.SetAnnotations(want.Annotations)
		return o
	}
	own := "only what it made of Kube-OVN"
	into := "only in VPCs that it made"
	for name, tc := range map[string]struct {
		want  custom.Object
		spoil func(*unstructured.Unstructured)
		says  string
	}{
		"Unlabelled":       {router(vpc), func(o *unstructured.Unstructured) { o.SetLabels(nil) }, own},
		"OtherName":        {router(vpc), func(o *unstructured.Unstructured) { o.SetName("ovn-cluster") }, own},
		"DefaultVPC":       {subnet(vpc, redSubnet()), func(o *unstructured.Unstructured) { set(o, "ovn-cluster", "spec", "vpc") }, into},
		"NoVPC":            {subnet(vpc, redSubnet()), func(o *unstructured.Unstructured) { unstructured.RemoveNestedField(o.Object, "spec", "vpc") }, into},
		"NamespaceAsWhole": {subnet(vpc, redSubnet()), func(o *unstructured.Unstructured) { set(o, []any{"kube-system"}, "spec", "namespaces") }, into},
		"GatewayElsewhere": {wayOut(vpc, "external")[0], func(o *unstructured.Unstructured) { set(o, "ovn-cluster", "spec", "vpc") }, into},
	} {
		o := make(tc.want)
		tc.spoil(o)
		t.Run(name, func(t *testing.T) {
			drivertest.Refused(t, tc.says, func() error { _, err := tc.want.Kind.In(pool).Create(t.Context(), o, drivertest.DryRun); return err })
		})
	}
	for _, stage := range [][]custom.Object{securityGroups(vpc), {router(vpc), subnet(vpc, redSubnet())}, transit(vpc), wayOut(vpc, "external")} {
		for _, want := range stage {
			if _, err := want.Kind.In(pool).Create(t.Context(), make(want), drivertest.DryRun); err != nil {
				t.Errorf("its own %s %s: %v", want.Kind.Name, want.Name, err)
			}
		}
	}
	markExternal(t, admin)
	drivertest.Refused(t, own, func() error { return subnets.In(pool).Delete(t.Context(), "external", metav1.DeleteOptions{}) })
	taken, err := subnets.In(pool).Get(t.Context(), "external", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	taken.SetLabels(router(vpc).Labels(pool))
	drivertest.Refused(t, own, func() error {
		_, err := subnets.In(pool).Update(t.Context(), taken, metav1.UpdateOptions{})
		return err
	})
	// What is not among its rights at all.
	for _, other := range []string{"ips", "vlans", "provider-networks", "vpc-nat-gateways"} {
		if _, err := pool.Dynamic.Resource(vpcs.WithResource(other)).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list %s: %v, want it forbidden", other, err)
		}
	}
	patch := []byte(`{"status":{"v4usingIPs":0}}`)
	if _, err := subnets.In(pool).Patch(t.Context(), "external", types.MergePatchType, patch, metav1.PatchOptions{}, "status"); !apierrors.IsForbidden(err) {
		t.Errorf("write a status: %v, want it forbidden", err)
	}
}

func set(o *unstructured.Unstructured, value any, path ...string) {
	_ = unstructured.SetNestedField(o.Object, value, path...)
}

// testStays: what is not ours, and another control cluster's, is neither taken nor touched.
func testStays(t *testing.T, pool, admin network.Pool) {
	markExternal(t, admin)
	simulateKubeOVN(t, admin)
	theirs := pool
	theirs.ControlUID = "another"
	if _, err := (Driver{}).EnsureVPC(t.Context(), theirs, redVPC()); err != nil {
		t.Fatal(err)
	}
	before := spelled(t, pool)
	if got, err := (Driver{}).EnsureVPC(t.Context(), pool, redVPC()); !errors.Is(err, network.ErrForeign) || got.Reason != network.ReasonForeignObject {
		t.Errorf("EnsureVPC: %+v, %v; want ErrForeign", got, err)
	}
	if got, err := (Driver{}).EnsureSubnet(t.Context(), pool, redVPC(), redSubnet()); !errors.Is(err, network.ErrForeign) || got.Ready {
		t.Errorf("EnsureSubnet: %+v, %v; want ErrForeign", got, err)
	}
	for name, err := range map[string]error{
		"DeleteVPC": (Driver{}).DeleteVPC(t.Context(), pool, redVPC()),
		"Sweep":     (Driver{}).Sweep(t.Context(), pool, network.LiveSet{AsOf: time.Now().Add(time.Hour)}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, spelled(t, pool)); diff != "" {
		t.Errorf("another's objects were touched:\n%s", diff)
	}
	if err := (Driver{}).DeleteVPC(t.Context(), theirs, redVPC()); err != nil {
		t.Error(err)
	}
}

// TestNoWayOut: a pool that has nothing to go out by refuses the VPC, and writes nothing.
func TestNoWayOut(t *testing.T) {
	pool := fakePool()
	if got, err := (Driver{}).EnsureVPC(t.Context(), pool, redVPC()); !errors.Is(err, network.ErrCapability) || got.Reason != network.ReasonCapabilityMissing || !strings.Contains(got.Message, labelExternal) {
		t.Errorf("EnsureVPC = %+v, %v; want ErrCapability", got, err)
	}
	if found, ok := spelled(t, pool).(map[string]any); !ok || len(found) > 0 {
		t.Errorf("something was written: %v", found)
	}
}

// TestObjects keeps what is written for a VPC as a text to read.
func TestObjects(t *testing.T) {
	vpc := redVPC()
	var out strings.Builder
	for _, stage := range [][]custom.Object{securityGroups(vpc), {router(vpc)}, transit(vpc), wayOut(vpc, "external"), {subnet(vpc, redSubnet())}} {
		for _, o := range stage {
			raw, err := json.MarshalIndent(o.Spec, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "%s %s\n%s\n", o.Kind.Name, o.Name, raw)
		}
	}
	mutation, err := (Driver{}).BindPod(redPod())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.MarshalIndent(mutation.Annotations, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "Pod\n%s\n", raw)
	golden.Compare(t, "objects.txt", out.String())
}

func TestBindPodWantsEveryAddress(t *testing.T) {
	for name, spoil := range map[string]func(*network.PodBinding){
		"NoAddress":   func(in *network.PodBinding) { in.IPs = nil },
		"OneFamily":   func(in *network.PodBinding) { in.IPs = in.IPs[:1] },
		"TwiceOne":    func(in *network.PodBinding) { in.IPs[0] = netip.MustParseAddr("10.20.0.10") },
		"NoMAC":       func(in *network.PodBinding) { in.MAC = "" },
		"NoSuchGroup": func(in *network.PodBinding) { in.SecurityGroups = []string{"other"} },
	} {
		t.Run(name, func(t *testing.T) {
			in := redPod()
			spoil(&in)
			if got, err := (Driver{}).BindPod(in); !errors.Is(err, network.ErrInvalid) || got.Annotations != nil {
				t.Errorf("BindPod = %v, %v; want ErrInvalid", got, err)
			}
		})
	}
}

// TestObservePodTrustsNobody: whatever Kube-OVN did that was not planned is a mismatch.
func TestObservePodTrustsNobody(t *testing.T) {
	mutation, err := (Driver{}).BindPod(redPod())
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*corev1.Pod){
		"OtherSwitch":  func(pod *corev1.Pod) { pod.Annotations[keySwitch] = "ovn-default" },
		"OtherRouter":  func(pod *corev1.Pod) { pod.Annotations[keyRouter] = "ovn-cluster" },
		"OtherAddress": func(pod *corev1.Pod) { pod.Annotations[keyAddress] = "10.20.0.10,fd00:20::9" },
		"OtherMAC":     func(pod *corev1.Pod) { pod.Annotations[keyMAC] = "02:00:00:00:00:0a" },
		"NotByKubeOVN": func(pod *corev1.Pod) { delete(pod.Annotations, keyAllocated) },
		"NoPlan":       func(pod *corev1.Pod) { delete(pod.Annotations, annotationPlan) },
		"OneFamily":    func(pod *corev1.Pod) { pod.Status.PodIPs = pod.Status.PodIPs[:1] },
		"OtherPodIP":   func(pod *corev1.Pod) { pod.Status.PodIPs[0].IP = "10.20.0.10" },
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: string(red.Name), Name: "p"}}
			mutation.Apply(&pod.ObjectMeta)
			running(pod, []netip.Addr{netip.MustParseAddr("10.20.0.9"), netip.MustParseAddr("fd00:20::9")})
			if got, err := (Driver{}).ObservePod(pod); err != nil || !got.Ready {
				t.Fatalf("as planned: %+v, %v", got, err)
			}
			spoil(pod)
			if got, err := (Driver{}).ObservePod(pod); !errors.Is(err, network.ErrBindingMismatch) || len(got.IPs) > 0 {
				t.Errorf("ObservePod = %+v, %v; want ErrBindingMismatch", got, err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a-", 40)
	seen := map[string]bool{}
	for _, name := range []string{
		custom.Name("abc123-main", "1"), custom.Name("abc123-main", "2"), custom.Name(long, "1"), custom.Name(long+"b", "2"),
		groupName(redVPC(), "web"), groupName(redVPC(), "db"), wayOutName(redVPC()), vpcName(redVPC()), subnetName(redSubnet()),
	} {
		if seen[name] || len(name) > custom.MostName || strings.Contains(name, "--") {
			t.Errorf("name %q (%d letters)", name, len(name))
		}
		seen[name] = true
	}
}
