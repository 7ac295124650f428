// Package drivertest is the suite that every network driver must pass. A driver's own test calls [Run] with a [Harness];
// what the suite cannot know about a driver's objects, the harness tells.
//
// The package must never test one driver: what is here is the contract of network.Driver, sentence by sentence. Start at
// [Run].
package drivertest

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/ranges"
	"vivarium.io/vivarium/network"
)

// Harness tells the suite about one driver.
type Harness struct {
	// Driver makes a new driver. Required.
	Driver func(t *testing.T) network.Driver
	// Pool makes an empty pool, in which the given namespaces exist. Required.
	Pool func(t *testing.T, namespaces ...network.Namespace) network.Pool
	// Silent makes a pool whose API server accepts connections and never answers; nil for a driver that calls none.
	Silent func(t *testing.T) network.Pool
	// Snapshot tells everything that the driver may have made in a pool, versions of objects included, in any comparable
	// form. Required.
	Snapshot func(t *testing.T, driver network.Driver, pool network.Pool) any
	// Obstruct puts an object that is not ours where the driver would make the namespace's; nil where nothing can be in
	// the way.
	Obstruct func(t *testing.T, pool network.Pool, namespace network.Namespace)
	// Mapping is true for a driver that keeps nothing of VPCs and subnets in pools, because they exist at a provider: it cannot
	// know in what order they were ensured, nor what uses them.
	Mapping bool
	// Running turns a bound pool pod into one that runs with the addresses. Default: sets status.podIPs.
	Running func(pod *corev1.Pod, ips []netip.Addr)
}

var (
	red  = network.Namespace{Name: "abc123-web", Tenant: "abc123"}
	blue = network.Namespace{Name: "zzz999-web", Tenant: "zzz999"}
)

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	if h.Running == nil {
		h.Running = func(pod *corev1.Pod, ips []netip.Addr) {
			pod.Status.PodIPs = network.PodNetworkStatus{IPs: ips}.PodIPs()
			pod.Status.PodIP = ips[0].String()
		}
	}
	for name, test := range map[string]func(*testing.T, Harness){
		"NameAndCapabilities": testNameAndCapabilities,
		"BindPod":             testBindPod,
		"BindPodRefuses":      testBindPodRefuses,
		"ObservePod":          testObservePod,
		"EnsureNamespace":     testEnsureNamespace,
		"ForeignObjects":      testForeignObjects,
		"VPC":                 testVPC,
		"Endpoints":           testEndpoints,
		"Policies":            testPolicies,
		"Services":            testServices,
		"ReleasePod":          testReleasePod,
		"Sweep":               testSweep,
		"SilentPool":          testSilentPool,
	} {
		t.Run(name, func(t *testing.T) { test(t, h) })
	}
}

func testNameAndCapabilities(t *testing.T, h Harness) {
	driver := h.Driver(t)
	if problems := validation.IsDNS1123Label(driver.Name()); len(problems) > 0 {
		t.Errorf("name %q: %v", driver.Name(), problems)
	}
	if driver.Name() != h.Driver(t).Name() {
		t.Error("the name differs between two drivers of a kind")
	}
	c := driver.Capabilities()
	if c != driver.Capabilities() {
		t.Error("the capabilities are not constant")
	}
	if !c.VPC && (c.OverlappingCIDRs || c.CrossPool || c.ExplicitIP || c.SecurityGroups || c.NetworkPolicies || c.Services || c.Bandwidth || c.LeadsAPI) {
		t.Errorf("capabilities of VPCs without VPCs: %+v", c)
	}
	if c.Probes != network.ProbesAll && c.Probes != network.ProbesExecOnly {
		t.Errorf("probe mode %q", c.Probes)
	}
	if !driver.OwnedKeys(network.BindingAnnotation) {
		t.Error("the binding annotation is not among the owned keys")
	}
	if driver.OwnedKeys("app.kubernetes.io/name") {
		t.Error("an ordinary key is among the owned keys")
	}
}

// Binding gives the binding of a tenant's pod, as rich as the driver allows.
func Binding(driver network.Driver) network.PodBinding { return binding(driver, red) }

// binding gives a pod's binding as rich as the driver allows.
func binding(driver network.Driver, namespace network.Namespace) network.PodBinding {
	in := network.PodBinding{Tenant: namespace.Tenant, Pod: network.PodKey{Namespace: namespace.Name, Name: "p", UID: "11111111-0000-0000-0000-000000000000"}}
	if driver.Capabilities().VPC {
		in.VPC, in.Subnet = vpc(namespace.Tenant, "1"), subnet("1", "1")
	}
	if driver.Capabilities().ExplicitIP {
		in.IPs, in.MAC = []netip.Addr{netip.MustParseAddr("10.20.0.9")}, "02:00:00:00:00:09"
	}
	return in
}

func vpc(tenant names.TenantID, uid types.UID) *network.VPC {
	return &network.VPC{
		Name: string(tenant) + "-main", UID: "vpc-" + uid, Tenant: tenant, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")},
		Egress: network.EgressSharedNAT, API: netip.MustParseAddrPort("192.0.2.10:6443"), ProviderID: "vpc-provider-" + string(uid),
	}
}

func subnet(vpcUID, uid types.UID) *network.Subnet {
	return &network.Subnet{
		Name: "web", UID: "subnet-" + uid, VPC: "vpc-" + vpcUID, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24")},
		Gateway: []netip.Addr{netip.MustParseAddr("10.20.0.1")}, VNI: 4242,
		Reserved:   []ranges.Range{{First: netip.MustParseAddr("10.20.0.2"), Last: netip.MustParseAddr("10.20.0.3")}},
		ProviderID: "subnet-provider-" + string(uid),
	}
}

func testBindPod(t *testing.T, h Harness) {
	driver := h.Driver(t)
	want, err := driver.BindPod(binding(driver, red))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := network.ParseBinding(want.Annotations[network.BindingAnnotation])
	if err != nil || parsed.Tenant != red.Tenant || parsed.Driver != driver.Name() {
		t.Errorf("binding %+v, %v", parsed, err)
	}
	for _, keys := range []map[string]string{want.Annotations, want.Labels} {
		for key := range keys {
			if !driver.OwnedKeys(key) {
				t.Errorf("sets %q, which is not among its owned keys", key)
			}
		}
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			in := binding(driver, red)
			before := binding(driver, red)
			got, err := driver.BindPod(in)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("BindPod again: %v (-first +again):\n%s", err, diff)
			}
			if diff := cmp.Diff(before, in, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
				t.Errorf("BindPod changed its input:\n%s", diff)
			}
			got.Annotations[network.BindingAnnotation] = "scribble"
		})
	}
	group.Wait()
	other, err := driver.BindPod(binding(driver, blue))
	if err != nil || other.Annotations[network.BindingAnnotation] == want.Annotations[network.BindingAnnotation] {
		t.Errorf("two tenants share a binding: %v, %v", other, err)
	}
}

func testBindPodRefuses(t *testing.T, h Harness) {
	driver := h.Driver(t)
	cases := map[string]func(*network.PodBinding){
		"NoTenant":        func(in *network.PodBinding) { in.Tenant = "" },
		"OtherTenant":     func(in *network.PodBinding) { in.Tenant = blue.Tenant },
		"OtherNamespace":  func(in *network.PodBinding) { in.Pod.Namespace = blue.Name },
		"NoTenantsPlace":  func(in *network.PodBinding) { in.Pod.Namespace = "kube-system" },
		"NoUID":           func(in *network.PodBinding) { in.Pod.UID = "" },
		"OtherTenantsVPC": func(in *network.PodBinding) { in.VPC, in.Subnet = vpc(blue.Tenant, "1"), subnet("1", "1") },
		"SubnetElsewhere": func(in *network.PodBinding) { in.VPC, in.Subnet = vpc(red.Tenant, "1"), subnet("2", "1") },
		"StrangeAddress": func(in *network.PodBinding) {
			in.IPs = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		},
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			in := binding(driver, red)
			spoil(&in)
			got, err := driver.BindPod(in)
			if !errors.Is(err, network.ErrInvalid) && !errors.Is(err, network.ErrCapability) {
				t.Errorf("BindPod = %v, %v; want ErrInvalid or ErrCapability", got, err)
			}
			if len(got.Annotations)+len(got.Labels) > 0 {
				t.Errorf("an error with a mutation: %v", got)
			}
		})
	}
	if !driver.Capabilities().SecurityGroups {
		in := binding(driver, red)
		if in.VPC != nil {
			in.VPC.SecurityGroups, in.SecurityGroups = []network.SecurityGroup{{Name: "web"}}, []string{"web"}
			if _, err := driver.BindPod(in); !errors.Is(err, network.ErrCapability) {
				t.Errorf("a pod in a security group: %v, want ErrCapability", err)
			}
		}
	}
	if in := binding(driver, red); in.VPC != nil {
		plain, _ := driver.BindPod(in)
		in.Bandwidth = netkeys.Rates{Ingress: 1e6, Egress: 2e6}
		switch got, err := driver.BindPod(in); {
		case !driver.Capabilities().Bandwidth && !errors.Is(err, network.ErrCapability):
			t.Errorf("a pod with a bandwidth: %v, want ErrCapability", err)
		case driver.Capabilities().Bandwidth && (err != nil || cmp.Equal(plain, got)):
			t.Errorf("a pod with a bandwidth: %v, %v; want something for it", got, err)
		}
	}
	if !driver.Capabilities().VPC {
		in := binding(driver, red)
		in.VPC, in.Subnet = vpc(red.Tenant, "1"), subnet("1", "1")
		if _, err := driver.BindPod(in); !errors.Is(err, network.ErrCapability) {
			t.Errorf("a pod in a VPC: %v, want ErrCapability", err)
		}
	}
}

func testObservePod(t *testing.T, h Harness) {
	driver := h.Driver(t)
	in := binding(driver, red)
	mutation, err := driver.BindPod(in)
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *corev1.Pod {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: string(red.Name), Name: in.Pod.Name}}
		mutation.Apply(&pod.ObjectMeta)
		return pod
	}
	ips := in.IPs
	if len(ips) == 0 {
		ips = []netip.Addr{netip.MustParseAddr("10.244.1.9")}
		if in.Subnet != nil {
			ips = []netip.Addr{netip.MustParseAddr("10.20.0.9")}
		}
	}
	running := fresh()
	h.Running(running, ips)

	before := running.DeepCopy()
	got, err := driver.ObservePod(running)
	if err != nil || !got.Ready || len(got.IPs) != len(ips) || got.IPs[0] != ips[0] {
		t.Errorf("a running pod: %+v, %v", got, err)
	}
	if diff := cmp.Diff(before, running); diff != "" {
		t.Errorf("ObservePod changed the pod:\n%s", diff)
	}
	if got, err := driver.ObservePod(fresh()); err != nil || got.Ready || len(got.IPs) > 0 || got.Reason == "" {
		t.Errorf("a pod without a network yet: %+v, %v", got, err)
	}
	cases := map[string]func(*corev1.Pod){
		"Unbound":      func(pod *corev1.Pod) { delete(pod.Annotations, network.BindingAnnotation) },
		"OtherTenant":  func(pod *corev1.Pod) { pod.Namespace = string(blue.Name) },
		"NotATenant":   func(pod *corev1.Pod) { pod.Namespace = "kube-system" },
		"OtherDriver":  func(pod *corev1.Pod) { pod.Annotations[network.BindingAnnotation] = "tenant=abc123,driver=other" },
		"Scribble":     func(pod *corev1.Pod) { pod.Annotations[network.BindingAnnotation] = "yes" },
		"Metadata":     func(pod *corev1.Pod) { h.Running(pod, []netip.Addr{netip.MustParseAddr("169.254.169.254")}) },
		"Loopback":     func(pod *corev1.Pod) { h.Running(pod, []netip.Addr{netip.MustParseAddr("127.0.0.1")}) },
		"LoopbackSix":  func(pod *corev1.Pod) { h.Running(pod, []netip.Addr{netip.MustParseAddr("::1")}) },
		"NotAnAddress": func(pod *corev1.Pod) { pod.Status.PodIPs = []corev1.PodIP{{IP: "10.1"}} },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			pod := running.DeepCopy()
			spoil(pod)
			if got, err := driver.ObservePod(pod); !errors.Is(err, network.ErrBindingMismatch) || len(got.IPs) > 0 {
				t.Errorf("ObservePod = %+v, %v; want ErrBindingMismatch and no address", got, err)
			}
		})
	}
}

func testEnsureNamespace(t *testing.T, h Harness) {
	driver, pool := h.Driver(t), h.Pool(t, red, blue)
	empty := h.Snapshot(t, driver, pool)
	for _, wrong := range []network.Namespace{{Name: red.Name, Tenant: blue.Tenant}, {Name: "kube-system", Tenant: red.Tenant}, {Name: red.Name}} {
		if err := driver.EnsureNamespace(t.Context(), pool, wrong); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("EnsureNamespace(%+v): %v, want ErrInvalid", wrong, err)
		}
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("a refused namespace left something:\n%s", diff)
	}
	var group sync.WaitGroup
	for range 4 {
		for _, namespace := range []network.Namespace{red, blue} {
			group.Go(func() {
				if err := driver.EnsureNamespace(t.Context(), pool, namespace); err != nil {
					t.Errorf("EnsureNamespace(%+v): %v", namespace, err)
				}
			})
		}
	}
	group.Wait()
	once := h.Snapshot(t, driver, pool)
	if err := h.Driver(t).EnsureNamespace(t.Context(), pool, red); err != nil {
		t.Errorf("by another process: %v", err)
	}
	if err := driver.EnsureNamespace(t.Context(), pool, red); err != nil {
		t.Errorf("again: %v", err)
	}
	if diff := cmp.Diff(once, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("a repeated call wrote (-once +again):\n%s", diff)
	}
}

func testForeignObjects(t *testing.T, h Harness) {
	if h.Obstruct == nil {
		t.Skip("nothing can be in this driver's way")
	}
	driver, pool := h.Driver(t), h.Pool(t, red, blue)
	h.Obstruct(t, pool, red)
	before := h.Snapshot(t, driver, pool)
	if err := driver.EnsureNamespace(t.Context(), pool, red); !errors.Is(err, network.ErrForeign) {
		t.Errorf("EnsureNamespace: %v, want ErrForeign", err)
	}
	if err := driver.Sweep(t.Context(), pool, network.LiveSet{AsOf: time.Now().Add(time.Hour)}); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if diff := cmp.Diff(before, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("a foreign object was touched:\n%s", diff)
	}
}

func testReleasePod(t *testing.T, h Harness) {
	driver, pool := h.Driver(t), h.Pool(t, red)
	for range 2 {
		if err := driver.ReleasePod(t.Context(), pool, network.PodKey{Namespace: red.Name, Name: "never-was", UID: "1"}); err != nil {
			t.Errorf("ReleasePod of a pod that never was: %v", err)
		}
	}
}

func testSweep(t *testing.T, h Harness) {
	driver, pool := h.Driver(t), h.Pool(t, red, blue)
	empty := h.Snapshot(t, driver, pool)
	for _, namespace := range []network.Namespace{red, blue} {
		if err := driver.EnsureNamespace(t.Context(), pool, namespace); err != nil {
			t.Fatal(err)
		}
	}
	full := h.Snapshot(t, driver, pool)
	both := map[names.ControlNamespace]names.TenantID{red.Name: red.Tenant, blue.Name: blue.Tenant}
	for name, live := range map[string]network.LiveSet{
		"EverybodyLives": {AsOf: time.Now().Add(time.Hour), Namespaces: both},
		"YoungerThanSet": {AsOf: time.Now().Add(-time.Hour)},
	} {
		if err := driver.Sweep(t.Context(), pool, live); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(full, h.Snapshot(t, driver, pool)); diff != "" {
			t.Errorf("%s: Sweep removed something:\n%s", name, diff)
		}
	}
	if err := driver.Sweep(t.Context(), pool, network.LiveSet{AsOf: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("Sweep left something (-empty +left):\n%s", diff)
	}
}

// testSilentPool proves that a pool that never answers ends with the context and holds up no other pool.
func testSilentPool(t *testing.T, h Harness) {
	if h.Silent == nil {
		t.Skip("this driver calls no pool")
	}
	driver, silent, healthy := h.Driver(t), h.Silent(t), h.Pool(t, red)
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan error, 1)
	go func() { stuck <- driver.EnsureNamespace(ctx, silent, red) }()
	if err := driver.EnsureNamespace(t.Context(), healthy, red); err != nil {
		t.Errorf("beside a silent pool: %v", err)
	}
	cancel()
	if err := <-stuck; err == nil {
		t.Error("a pool that never answered is reported as done")
	}
}
