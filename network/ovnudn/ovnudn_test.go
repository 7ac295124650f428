package ovnudn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
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
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/ranges"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
	"vivarium.io/vivarium/network/internal/custom"
)

var (
	red  = network.Namespace{Name: "abc123-web", Tenant: "abc123"}
	blue = network.Namespace{Name: "zzz999-web", Tenant: "zzz999"}
)

// TestMain gives OVN-Kubernetes' stand-in the time that a busy machine takes.
func TestMain(m *testing.M) {
	custom.Patience = 5 * time.Minute
	os.Exit(m.Run())
}

func redVPC() *network.VPC {
	return &network.VPC{
		Name: "abc123-main", UID: "5c2d1b0e-0000-4000-8000-000000000001", Tenant: red.Tenant, MTU: 1300,
		CIDRs:  []netip.Prefix{netip.MustParsePrefix("fd00:20::/48"), netip.MustParsePrefix("10.20.0.0/16")},
		Egress: network.EgressSharedNAT, API: netip.MustParseAddrPort("192.0.2.10:6443"),
	}
}

func redSubnet() *network.Subnet {
	return &network.Subnet{
		Name: "abc123-web", UID: "5c2d1b0e-0000-4000-8000-000000000002", VPC: redVPC().UID, VNI: 7,
		CIDRs:   []netip.Prefix{netip.MustParsePrefix("fd00:20::/64"), netip.MustParsePrefix("10.20.0.0/24")},
		Gateway: []netip.Addr{netip.MustParseAddr("fd00:20::1"), netip.MustParseAddr("10.20.0.1")},
		Reserved: []ranges.Range{
			{First: netip.MustParseAddr("10.20.0.2"), Last: netip.MustParseAddr("10.20.0.9")},
			{First: netip.MustParseAddr("fd00:20::2"), Last: netip.MustParseAddr("fd00:20::2")},
		},
	}
}

func redPod() network.PodBinding {
	return network.PodBinding{
		Tenant: red.Tenant, Pod: network.PodKey{Namespace: red.Name, Name: "p", UID: "11111111-0000-0000-0000-000000000000"},
		VPC: redVPC(), Subnet: redSubnet(), MAC: "02:00:00:00:00:15",
		IPs: []netip.Addr{netip.MustParseAddr("fd00:20::15"), netip.MustParseAddr("10.20.0.21")},
	}
}

// furnish gives a pool what it has where OVN-Kubernetes takes addresses, and the namespaces, as its administrator.
func furnish(t *testing.T, pool network.Pool, namespaces ...network.Namespace) {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"config": "{}"}}}
	o.SetGroupVersionKind(attachments.WithKind(attachments.Name))
	o.SetName(defaultNetwork)
	o.SetNamespace(attachments.Namespace)
	_, err := attachments.In(pool).Create(t.Context(), o, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for _, ns := range namespaces {
		_, err := pool.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: string(ns.Name), Labels: map[string]string{
				netkeys.UserDefinedNetwork: "", names.LabelTenant: string(ns.Tenant), names.LabelControl: "control", names.LabelManagedBy: "vivarium",
			},
		}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

// spelled spells what a pool has of ours, without what changes by itself.
func spelled(t *testing.T, pool network.Pool) map[string]any {
	t.Helper()
	found := map[string]any{}
	list, err := networks.In(pool).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		o := &list.Items[i]
		found[o.GetName()] = map[string]any{"spec": o.Object["spec"], "labels": o.GetLabels(), "annotations": o.GetAnnotations(), "uid": o.GetUID(), "generation": o.GetGeneration()}
	}
	for _, fence := range drivertest.Fences(t, pool) {
		found["NetworkPolicy "+fence.Namespace] = fence.Spec
	}
	return found
}

// harness is about pools that are made with what their administrator has them by.
func harness(pool func(*testing.T, ...network.Namespace) (platform, admin network.Pool)) drivertest.Harness {
	return drivertest.Harness{
		Driver: func(*testing.T) network.Driver { return Driver{} },
		Pool: func(t *testing.T, namespaces ...network.Namespace) network.Pool {
			p, admin := pool(t, namespaces...)
			furnish(t, admin, namespaces...)
			simulate(t, admin)
			return p
		},
		Silent:   drivertest.SilentPool,
		Snapshot: func(t *testing.T, _ network.Driver, pool network.Pool) any { return spelled(t, pool) },
		Obstruct: drivertest.ForeignFence,
		Running:  running,
	}
}

func fakePool() network.Pool {
	return drivertest.FakePool(map[schema.GroupVersionResource]string{
		networks.WithResource(networks.Plural):       networks.Name + "List",
		attachments.WithResource(attachments.Plural): attachments.Name + "List",
	})
}

func TestContract(t *testing.T) {
	drivertest.Run(t, harness(func(*testing.T, ...network.Namespace) (platform, admin network.Pool) {
		p := fakePool()
		return p, p
	}))
}

// TestOnRealServer runs the suite, and a tenant's pod, where a real API server holds what is written to the rules, and the
// platform to its rights and policies.
func TestOnRealServer(t *testing.T) {
	cluster := kubetest.ControlPlane(t)
	cluster.Config.QPS = -1 // the stand-in asks often
	admin := network.Pool{Name: "pool-a", ControlUID: "control", Client: kubernetes.NewForConfigOrDie(cluster.Config), Dynamic: dynamic.NewForConfigOrDie(cluster.Config)}
	define(t, admin)
	if _, err := admin.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: attachments.Namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pool := drivertest.Chart(t, cluster.Config, Name)
	t.Run("Policy", func(t *testing.T) { testPolicy(t, pool, admin) })
	t.Run("Contract", func(t *testing.T) {
		drivertest.Run(t, harness(func(t *testing.T, namespaces ...network.Namespace) (network.Pool, network.Pool) {
			for _, ns := range namespaces {
				err := admin.Client.NetworkingV1().NetworkPolicies(string(ns.Name)).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
			}
			return pool, admin
		}))
	})
	t.Run("Pod", func(t *testing.T) { testPod(t, pool, admin) })
	t.Run("Stays", func(t *testing.T) { testStays(t, pool, admin) })
}

// define makes a cluster serve the kinds.
func define(t *testing.T, pool network.Pool) {
	t.Helper()
	file, err := os.Open("testdata/definition.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	crds := pool.Dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for decoder := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := crds.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []custom.Kind{networks, attachments} {
		err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
			_, err := k.In(pool).List(ctx, metav1.ListOptions{})
			return err == nil, nil
		})
		if err != nil {
			t.Fatalf("%s is not served: %v", k.Resource(), err)
		}
	}
}

// laterThan waits until a network is older than the second that it returns.
func laterThan(t *testing.T, pool network.Pool, name string) time.Time {
	t.Helper()
	o, err := networks.In(pool).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if now := time.Now().Truncate(time.Second); now.After(o.GetCreationTimestamp().Time) {
			return now
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// testPod takes a pod of a dual-stack subnet through a pool.
func testPod(t *testing.T, pool, admin network.Pool) {
	furnish(t, admin, red)
	simulate(t, admin)
	vpc, subnet := redVPC(), redSubnet()
	if got, err := (Driver{}).EnsureVPC(t.Context(), pool, vpc); err != nil || !got.Ready || got.Ref != networks.Resource()+"/"+networkName(vpc) {
		t.Fatalf("EnsureVPC = %+v, %v", got, err)
	}
	before := laterThan(t, pool, networkName(vpc))
	if got, err := (Driver{}).EnsureSubnet(t.Context(), pool, vpc, subnet); err != nil || !got.Ready {
		t.Fatalf("EnsureSubnet = %+v, %v", got, err)
	}
	mutation, err := (Driver{}).BindPod(redPod())
	if err != nil {
		t.Fatal(err)
	}
	no := false
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: string(red.Name), Name: "p"},
		Spec:       corev1.PodSpec{AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/pause"}}},
	}
	mutation.Apply(&pod.ObjectMeta)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := admin.Client.CoreV1().ServiceAccounts(pod.Namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	pods := pool.Client.CoreV1().Pods(pod.Namespace)
	if pod, err = pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"DeleteSubnet": (Driver{}).DeleteSubnet(t.Context(), pool, subnet),
		"Sweep":        (Driver{}).Sweep(t.Context(), pool, network.LiveSet{AsOf: time.Now().Add(time.Hour)}),
	} {
		if !errors.Is(err, network.ErrInUse) {
			t.Errorf("%s with a pod: %v, want ErrInUse", name, err)
		}
	}
	running(pod, redPod().IPs)
	if got, err := (Driver{}).ObservePod(pod); err != nil || !got.Ready || fmt.Sprint(got.IPs) != fmt.Sprint(redPod().IPs) {
		t.Errorf("in its network: %+v, %v", got, err)
	}
	// A subnet may be younger than the set that lacks it, in a network that is older.
	live := network.LiveSet{AsOf: before, VPCs: map[types.UID]bool{vpc.UID: true}}
	if err := (Driver{}).Sweep(t.Context(), pool, live); err != nil {
		t.Errorf("Sweep with a set that is older: %v", err)
	}
	if err := (Driver{}).DeleteVPC(t.Context(), pool, vpc); !errors.Is(err, network.ErrInUse) {
		t.Errorf("DeleteVPC with a subnet: %v, want ErrInUse", err)
	}
	// A network never changes: neither does what it is made of.
	for name, change := range map[string]func(*network.VPC){
		"Range": func(v *network.VPC) { v.CIDRs[1] = netip.MustParsePrefix("10.21.0.0/16") },
		"MTU":   func(v *network.VPC) { v.MTU = 1500 },
	} {
		other := redVPC()
		change(other)
		if got, err := (Driver{}).EnsureVPC(t.Context(), pool, other); !errors.Is(err, network.ErrInvalid) || got.Ready {
			t.Errorf("%s of a network changes: %+v, %v; want ErrInvalid", name, got, err)
		}
	}
	second := redVPC()
	second.Name, second.UID = "abc123-second", "5c2d1b0e-0000-4000-8000-000000000009"
	if got, err := (Driver{}).EnsureVPC(t.Context(), pool, second); !errors.Is(err, network.ErrCapability) || got.Ready {
		t.Errorf("a tenant's second VPC: %+v, %v; want ErrCapability", got, err)
	}
	force := int64(0)
	if err := pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &force}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join((Driver{}).DeleteSubnet(t.Context(), pool, subnet), (Driver{}).DeleteVPC(t.Context(), pool, vpc)); err != nil {
		t.Error(err)
	}
	if list, err := custom.Ours(t.Context(), pool, networks, ""); err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}

// testPolicy: of OVN-Kubernetes' networks the platform has its own alone, and no pod comes that its network does not know.
func testPolicy(t *testing.T, pool, admin network.Pool) {
	furnish(t, admin, red)
	good := func() *unstructured.Unstructured {
		want := userDefinedNetwork(pool, redVPC())
		o := &unstructured.Unstructured{Object: map[string]any{"spec": want.Spec}}
		o.SetGroupVersionKind(networks.WithKind(networks.Name))
		o.SetName(want.Name)
		o.SetLabels(want.Labels(pool))
		return o
	}
	for name, tc := range map[string]struct {
		spoil func(*unstructured.Unstructured)
		says  string
	}{
		"Unlabelled": {func(o *unstructured.Unstructured) { o.SetLabels(nil) }, "only what it made"},
		"OtherName":  {func(o *unstructured.Unstructured) { o.SetName("operators") }, "only what it made"},
		"Everybody": {func(o *unstructured.Unstructured) {
			unstructured.RemoveNestedField(o.Object, "spec", "namespaceSelector", "matchLabels")
		}, "one tenant"},
		"OtherTenants": {func(o *unstructured.Unstructured) { relabel(o, names.LabelTenant, "zzz999") }, "one tenant"},
		"OtherControl": {func(o *unstructured.Unstructured) { relabel(o, names.LabelControl, "another") }, "one tenant"},
	} {
		o := good()
		tc.spoil(o)
		t.Run(name, func(t *testing.T) {
			drivertest.Refused(t, tc.says, func() error { _, err := networks.In(pool).Create(t.Context(), o, drivertest.DryRun); return err })
		})
	}
	if _, err := networks.In(pool).Create(t.Context(), good(), drivertest.DryRun); err != nil {
		t.Errorf("its own: %v", err)
	}
	foreign := good()
	foreign.SetName("operators")
	if _, err := networks.In(admin).Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	drivertest.Refused(t, "only what it made", func() error { return networks.In(pool).Delete(t.Context(), "operators", metav1.DeleteOptions{}) })
	if err := networks.In(admin).Delete(t.Context(), "operators", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if err := attachments.In(pool).Delete(t.Context(), defaultNetwork, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("delete OVN-Kubernetes' own attachment: %v", err)
	}
	// Pods, whoever makes them.
	mutation, err := (Driver{}).BindPod(redPod())
	if err != nil {
		t.Fatal(err)
	}
	bare := network.Namespace{Name: "abc123-bare", Tenant: "abc123"}
	if _, err := admin.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: string(bare.Name), Labels: map[string]string{names.LabelTenant: "abc123", names.LabelControl: "control", names.LabelManagedBy: "vivarium"},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []network.Namespace{red, bare} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		if _, err := admin.Client.CoreV1().ServiceAccounts(string(ns.Name)).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create := func(ns network.Namespace, without string) error {
		no := false
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: string(ns.Name), Name: "p"},
			Spec:       corev1.PodSpec{AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/pause"}}},
		}
		mutation.Apply(&pod.ObjectMeta)
		delete(pod.Annotations, without)
		_, err := admin.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, drivertest.DryRun)
		return err
	}
	drivertest.Refused(t, "without OVN-Kubernetes' label", func() error { return create(bare, "") })
	drivertest.Refused(t, "must ask for the address", func() error { return create(red, keyAsk) })
	drivertest.Refused(t, network.BindingAnnotation, func() error { return create(red, network.BindingAnnotation) })
	if err := create(red, ""); err != nil {
		t.Errorf("a pod as it has to be: %v", err)
	}
}

// relabel changes whose namespaces a network chooses.
func relabel(o *unstructured.Unstructured, key, value string) {
	_ = unstructured.SetNestedField(o.Object, value, "spec", "namespaceSelector", "matchLabels", key)
}

// testStays: what another control cluster made is neither taken nor touched.
func testStays(t *testing.T, pool, admin network.Pool) {
	furnish(t, admin)
	simulate(t, admin)
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
		"DeleteSubnet": (Driver{}).DeleteSubnet(t.Context(), pool, redSubnet()),
		"DeleteVPC":    (Driver{}).DeleteVPC(t.Context(), pool, redVPC()),
		"Sweep":        (Driver{}).Sweep(t.Context(), pool, network.LiveSet{AsOf: time.Now().Add(time.Hour)}),
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

// TestRefuses: what OVN-Kubernetes cannot do is refused before anything is written.
func TestRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*network.VPC, *network.Subnet)
		want  error
		says  string
		// subnet says that the VPC is fine and its subnet is not.
		subnet bool
	}{
		"NoEgress":       {func(v *network.VPC, _ *network.Subnet) { v.Egress = network.EgressNone }, network.ErrCapability, "egress None", false},
		"SecurityGroups": {func(v *network.VPC, _ *network.Subnet) { v.SecurityGroups = []network.SecurityGroup{{Name: "web"}} }, network.ErrCapability, "security groups", false},
		"TwoRanges": {func(v *network.VPC, _ *network.Subnet) {
			v.CIDRs = append(v.CIDRs, netip.MustParsePrefix("10.30.0.0/16"))
		}, network.ErrCapability, "two ranges", false},
		"Theirs":     {func(v *network.VPC, _ *network.Subnet) { v.CIDRs[0] = netip.MustParsePrefix("fd99::/48") }, network.ErrInvalid, "fd99::/64", false},
		"OneFamily":  {func(_ *network.VPC, s *network.Subnet) { s.CIDRs = s.CIDRs[:1] }, network.ErrCapability, "family", true},
		"Outside":    {func(_ *network.VPC, s *network.Subnet) { s.CIDRs[1] = netip.MustParsePrefix("10.21.0.0/24") }, network.ErrInvalid, "10.21.0.0/24", true},
		"Gateway":    {func(_ *network.VPC, s *network.Subnet) { s.Gateway = nil }, network.ErrInvalid, "fd00:20::1", true},
		"Management": {func(_ *network.VPC, s *network.Subnet) { s.Reserved = s.Reserved[1:] }, network.ErrInvalid, "10.20.0.2", true},
	} {
		t.Run(name, func(t *testing.T) {
			pool := fakePool()
			furnish(t, pool)
			simulate(t, pool)
			vpc, subnet := redVPC(), redSubnet()
			tc.spoil(vpc, subnet)
			got, err := (Driver{}).EnsureVPC(t.Context(), pool, vpc)
			if tc.subnet {
				if err != nil {
					t.Fatal(err)
				}
				got, err = (Driver{}).EnsureSubnet(t.Context(), pool, vpc, subnet)
			} else if found := spelled(t, pool); len(found) > 0 {
				t.Errorf("something was written: %v", found)
			}
			if got.Ready || !errors.Is(err, tc.want) || !strings.Contains(got.Message, tc.says) {
				t.Errorf("got %+v, %v; want %v that names %s", got, err, tc.want, tc.says)
			}
		})
	}
	// Elsewhere in the VPC nothing has to be reserved.
	pool := fakePool()
	furnish(t, pool)
	simulate(t, pool)
	vpc, subnet := redVPC(), redSubnet()
	subnet.CIDRs, subnet.Reserved = []netip.Prefix{netip.MustParsePrefix("fd00:20:0:1::/64"), netip.MustParsePrefix("10.20.1.0/24")}, nil
	if _, err := (Driver{}).EnsureVPC(t.Context(), pool, vpc); err != nil {
		t.Fatal(err)
	}
	if got, err := (Driver{}).EnsureSubnet(t.Context(), pool, vpc, subnet); err != nil || !got.Ready {
		t.Errorf("a subnet elsewhere: %+v, %v", got, err)
	}
}

// TestOldPool: where OVN-Kubernetes takes no addresses from us, there are no VPCs.
func TestOldPool(t *testing.T) {
	pool := fakePool()
	got, err := (Driver{}).EnsureVPC(t.Context(), pool, redVPC())
	if !errors.Is(err, network.ErrCapability) || got.Reason != network.ReasonCapabilityMissing || !strings.Contains(got.Message, "--enable-preconfigured-udn-addresses") {
		t.Errorf("EnsureVPC = %+v, %v; want ErrCapability", got, err)
	}
	if found := spelled(t, pool); len(found) > 0 {
		t.Errorf("something was written: %v", found)
	}
}

// TestUnlabelledNamespace: pods of a namespace without the label would be in the pool's own network.
func TestUnlabelledNamespace(t *testing.T) {
	pool := fakePool()
	if _, err := pool.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: string(blue.Name)}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).EnsureNamespace(t.Context(), pool, blue); !errors.Is(err, network.ErrInvalid) || !strings.Contains(err.Error(), netkeys.UserDefinedNetwork) {
		t.Errorf("EnsureNamespace: %v, want ErrInvalid", err)
	}
}

// TestObjects keeps what is written for a VPC and its pod as a text to read.
func TestObjects(t *testing.T) {
	pool := fakePool()
	furnish(t, pool)
	simulate(t, pool)
	vpc, subnet := redVPC(), redSubnet()
	if _, err := (Driver{}).EnsureVPC(t.Context(), pool, vpc); err != nil {
		t.Fatal(err)
	}
	if _, err := (Driver{}).EnsureSubnet(t.Context(), pool, vpc, subnet); err != nil {
		t.Fatal(err)
	}
	o, err := networks.In(pool).Get(t.Context(), networkName(vpc), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mutation, err := (Driver{}).BindPod(redPod())
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, part := range []struct {
		title string
		value any
	}{
		{networks.Name + " " + o.GetName(), map[string]any{"labels": o.GetLabels(), "annotations": o.GetAnnotations(), "spec": o.Object["spec"]}},
		{"Pod", map[string]any{"annotations": mutation.Annotations, "labels": mutation.Labels}},
	} {
		raw, err := json.MarshalIndent(part.value, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n%s\n", part.title, raw)
	}
	golden.Compare(t, "objects.txt", out.String())
}

func TestBindPodRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*network.PodBinding)
		want  error
	}{
		"Flat":      {func(in *network.PodBinding) { in.VPC, in.Subnet, in.IPs, in.MAC = nil, nil, nil, "" }, network.ErrCapability},
		"NoAddress": {func(in *network.PodBinding) { in.IPs = nil }, network.ErrInvalid},
		"OneFamily": {func(in *network.PodBinding) { in.IPs = in.IPs[:1] }, network.ErrInvalid},
		"TwiceOne":  {func(in *network.PodBinding) { in.IPs[0] = netip.MustParseAddr("10.20.0.22") }, network.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			in := redPod()
			tc.spoil(&in)
			if got, err := (Driver{}).BindPod(in); !errors.Is(err, tc.want) || got.Annotations != nil {
				t.Errorf("BindPod = %v, %v; want %v", got, err, tc.want)
			}
		})
	}
}

// TestObservePodTrustsNobody: whatever OVN-Kubernetes did that was not planned is a mismatch.
func TestObservePodTrustsNobody(t *testing.T) {
	mutation, err := (Driver{}).BindPod(redPod())
	if err != nil {
		t.Fatal(err)
	}
	bound := func() *corev1.Pod {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: string(red.Name), Name: "p"}}
		mutation.Apply(&pod.ObjectMeta)
		return pod
	}
	is := func(addresses ...string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			var ips []netip.Addr
			for _, a := range addresses {
				ips = append(ips, netip.MustParseAddr(a))
			}
			running(pod, ips)
		}
	}
	for name, spoil := range map[string]func(*corev1.Pod){
		"OtherAddress": is("fd00:20::15", "10.20.0.22"),
		"OneFamily":    is("10.20.0.21"),
		"TwiceOne":     is("10.20.0.21", "10.20.0.21"),
		"OneMore":      is("fd00:20::15", "10.20.0.21", "10.20.0.22"),
		"DefaultNetwork": func(pod *corev1.Pod) {
			pod.Annotations[keyGot] = `{"default":{"ip_addresses":["10.20.0.21/16"],"role":"primary"}}`
		},
		"OtherNetwork": func(pod *corev1.Pod) {
			pod.Annotations[keyGot] = strings.Replace(pod.Annotations[keyGot], "viv-abc123-main", "viv-zzz999-main", 1)
		},
		"SecondNetwork": func(pod *corev1.Pod) {
			pod.Annotations[keyGot] = strings.Replace(pod.Annotations[keyGot], "{", `{"abc123-web/more":{"ip_addresses":["10.9.0.1/24"],"role":"secondary"},`, 1)
		},
		"NothingWritten": func(pod *corev1.Pod) { delete(pod.Annotations, keyGot) },
		"Scribble":       func(pod *corev1.Pod) { pod.Annotations[keyGot] = "yes" },
		"NoPlan":         func(pod *corev1.Pod) { delete(pod.Annotations, annotationPlan) },
		"Unbound":        func(pod *corev1.Pod) { pod.Annotations[network.BindingAnnotation] = "tenant=abc123,driver=ovn-udn" },
	} {
		t.Run(name, func(t *testing.T) {
			pod := bound()
			running(pod, redPod().IPs)
			if got, err := (Driver{}).ObservePod(pod); err != nil || !got.Ready {
				t.Fatalf("as planned: %+v, %v", got, err)
			}
			spoil(pod)
			if got, err := (Driver{}).ObservePod(pod); !errors.Is(err, network.ErrBindingMismatch) || len(got.IPs) > 0 {
				t.Errorf("ObservePod = %+v, %v; want ErrBindingMismatch", got, err)
			}
		})
	}
	// The default network is written first.
	pod := bound()
	pod.Annotations[keyGot] = `{"default":{"ip_addresses":["10.244.0.7/24"],"role":"infrastructure-locked"}}`
	if got, err := (Driver{}).ObservePod(pod); err != nil || got.Ready {
		t.Errorf("half made: %+v, %v; want not ready", got, err)
	}
}
