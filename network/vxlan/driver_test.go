package vxlan

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"vivarium.io/vivarium/internal/golden"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

func pool(*testing.T, ...network.Namespace) network.Pool { return drivertest.FakePool(nil) }

func harness(driver network.Driver) drivertest.Harness {
	return drivertest.Harness{
		Driver: func(*testing.T) network.Driver { return driver },
		Pool:   pool,
		Silent: drivertest.SilentPool,
		Snapshot: func(t *testing.T, _ network.Driver, pool network.Pool) any {
			t.Helper()
			objects, err := pool.Client.CoreV1().ConfigMaps(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return struct {
				Fences  []networkingv1.NetworkPolicy
				Objects []corev1.ConfigMap
			}{drivertest.Fences(t, pool), append([]corev1.ConfigMap(nil), objects.Items...)}
		},
		Obstruct: drivertest.ForeignFence,
		// The node knows the pod by an address of its own; any other is what it is.
		Running: func(pod *corev1.Pod, ips []netip.Addr) {
			if netip.MustParsePrefix("10.20.0.0/16").Contains(ips[0]) {
				ips = []netip.Addr{netip.MustParseAddr("198.18.0.7")}
			}
			pod.Status.PodIPs = network.PodNetworkStatus{IPs: ips}.PodIPs()
			pod.Status.PodIP = ips[0].String()
		},
	}
}

func TestContract(t *testing.T) {
	for _, driver := range []network.Driver{Driver{}, Multus{}} {
		t.Run(driver.Name(), func(t *testing.T) { drivertest.Run(t, harness(driver)) })
	}
}

// TestMultus keeps what Multus is asked for as a text to read, and what it must say of a pod for a tenant to see it.
func TestMultus(t *testing.T) {
	in := network.PodBinding{
		Tenant: "abc123", Pod: network.PodKey{Namespace: "abc123-web", Name: "p", UID: "u-1"},
		VPC:    &network.VPC{UID: "v-1", Tenant: "abc123", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}},
		Subnet: &network.Subnet{UID: "s-1", VPC: "v-1", VNI: 7, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Gateway: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		IPs:    []netip.Addr{netip.MustParseAddr("10.0.0.9")}, MAC: "02:00:00:00:00:09",
	}
	var out strings.Builder
	for _, in := range []network.PodBinding{in, {Tenant: in.Tenant, Pod: in.Pod}} {
		mutation, err := Multus{}.BindPod(in)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.MarshalIndent(map[string]any{"annotations": mutation.Annotations, "labels": mutation.Labels}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n", raw)
		// Without what Multus is asked for, a pod of a VPC is in the pool's network, and nobody sees it.
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web"}, Status: corev1.PodStatus{PodIP: "10.244.0.9"}}
		mutation.Apply(&pod.ObjectMeta)
		if got, err := (Multus{}).ObservePod(pod); (in.VPC == nil) != got.Ready || in.VPC != nil && !errors.Is(err, network.ErrBindingMismatch) {
			t.Errorf("in the pool's network: %+v, %v", got, err)
		}
		if got, err := (Driver{}).ObservePod(pod); !errors.Is(err, network.ErrBindingMismatch) {
			t.Errorf("by another driver: %+v, %v", got, err)
		}
	}
	golden.Compare(t, "multus.txt", out.String())
}

// TestOtherNetwork: what a plugin other than ours gave a pod of a VPC is shown to nobody, nor the other way round.
func TestOtherNetwork(t *testing.T) {
	in := network.PodBinding{
		Tenant: "abc123", Pod: network.PodKey{Namespace: "abc123-web", Name: "p", UID: "1"},
		VPC:    &network.VPC{UID: "v", Tenant: "abc123", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}},
		Subnet: &network.Subnet{UID: "s", VPC: "v", VNI: 7, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Gateway: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		IPs:    []netip.Addr{netip.MustParseAddr("10.0.0.9")}, MAC: "02:00:00:00:00:09",
	}
	flatPod := network.PodBinding{Tenant: in.Tenant, Pod: in.Pod}
	for name, tc := range map[string]struct {
		in   network.PodBinding
		ip   string
		want []netip.Addr
	}{
		"VPC":        {in, "198.18.3.4", in.IPs},
		"VPCSix":     {in, "fd00:76:6976:1::4", in.IPs},
		"Bridge":     {in, "10.244.0.9", nil},
		"EvenItsOwn": {in, "10.0.0.9", nil},
		"Flat":       {flatPod, "10.244.0.9", []netip.Addr{netip.MustParseAddr("10.244.0.9")}},
		"FlatInVPC":  {flatPod, "198.18.3.4", nil},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web"}, Status: corev1.PodStatus{PodIP: tc.ip}}
			mutation, err := Driver{}.BindPod(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			mutation.Apply(&pod.ObjectMeta)
			got, err := Driver{}.ObservePod(pod)
			if tc.want == nil && !errors.Is(err, network.ErrBindingMismatch) || tc.want != nil && (err != nil || !slices.Equal(got.IPs, tc.want)) {
				t.Errorf("ObservePod = %+v, %v; want %v", got, err, tc.want)
			}
		})
	}
	for name, spoil := range map[string]func(*network.PodBinding){
		"NoMAC":     func(in *network.PodBinding) { in.MAC = "" },
		"Multicast": func(in *network.PodBinding) { in.MAC = "03:00:00:00:00:09" },
		"Gateways":  func(in *network.PodBinding) { in.MAC = state.GatewayMAC.String() },
		"NoIP":      func(in *network.PodBinding) { in.IPs = nil },
		"TwoIPs":    func(in *network.PodBinding) { in.IPs = append(in.IPs, netip.MustParseAddr("10.0.0.10")) },
		"Gateway":   func(in *network.PodBinding) { in.IPs = in.Subnet.Gateway },
		"NoVNI":     func(in *network.PodBinding) { s := *in.Subnet; s.VNI = 0; in.Subnet = &s },
	} {
		wrong := in
		spoil(&wrong)
		if got, err := (Driver{}).BindPod(wrong); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("%s: %v, %v; want ErrInvalid", name, got, err)
		}
	}
}

// TestShards: many endpoints come back whole, and one more rewrites one ConfigMap.
func TestShards(t *testing.T) {
	p := pool(t)
	v := &network.VPC{Name: "v", UID: "v", Tenant: "abc123", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if _, err := (Driver{}).EnsureVPC(t.Context(), p, v); err != nil {
		t.Fatal(err)
	}
	var endpoints []network.Endpoint
	for i := range 1000 {
		endpoints = append(endpoints, network.Endpoint{
			Subnet: "s", IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, Node: netip.MustParseAddr("192.0.2.1"),
			MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}.String(), Pod: network.PodKey{UID: types.UID(fmt.Sprint("pod-", i))},
		})
	}
	writes := func() (n int) {
		for _, action := range p.Client.(*fake.Clientset).Actions() {
			if action.GetVerb() == "create" || action.GetVerb() == "update" {
				n++
			}
		}
		return n
	}
	if err := (Driver{}).EnsureEndpoints(t.Context(), p, v, endpoints[:999]); err != nil {
		t.Fatal(err)
	}
	before := writes()
	if err := (Driver{}).EnsureEndpoints(t.Context(), p, v, endpoints); err != nil {
		t.Fatal(err)
	}
	if n := writes() - before; n != 1 {
		t.Errorf("one more endpoint took %d writes", n)
	}
	list, err := p.Client.CoreV1().ConfigMaps(state.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: state.LabelVPC + "=v"})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, object := range list.Items {
		if state.IsShard("v", object.Name) {
			part, err := state.ReadShard(object.Data)
			if err != nil {
				t.Fatal(err)
			}
			seen += len(part)
		}
	}
	if seen != len(endpoints) {
		t.Errorf("%d of %d endpoints came back", seen, len(endpoints))
	}
}

// TestGroups: security groups come to the nodes whole, as rules that nodes know, and a pod's with the pod.
func TestGroups(t *testing.T) {
	p := pool(t)
	v := &network.VPC{Name: "v", UID: "v", Tenant: "abc123", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, SecurityGroups: []network.SecurityGroup{{
		Name:    "web",
		Ingress: []network.SecurityRule{{}, {Protocol: "ICMP"}, {Protocol: "TCP", Ports: []network.PortRange{{First: 80, Last: 90}}, CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Groups: []string{"db"}}},
	}}}
	if _, err := (Driver{}).EnsureVPC(t.Context(), p, v); err != nil {
		t.Fatal(err)
	}
	object, err := p.Client.CoreV1().ConfigMaps(state.Namespace).Get(t.Context(), state.VPCName("v"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := state.ReadVPC(object.Data)
	if err != nil {
		t.Fatal(err)
	}
	want := []network.Policy{{Pods: "web", Receive: true, Send: true, From: []network.PolicyRule{
		{Anyone: true},
		{Anyone: true, Ports: []network.PolicyPort{{Protocol: "ICMP"}}},
		{
			Sets: []string{"db"}, Blocks: []network.PolicyBlock{{CIDR: netip.MustParsePrefix("192.0.2.0/24")}},
			Ports: []network.PolicyPort{{Protocol: "TCP", First: 80, Last: 90}},
		},
	}}}
	if !reflect.DeepEqual(got.Groups, want) {
		t.Errorf("groups are %+v, want %+v", got.Groups, want)
	}
	mutation, err := Driver{}.BindPod(network.PodBinding{
		Tenant: "abc123", Pod: network.PodKey{Namespace: "abc123-web", Name: "p", UID: "1"}, VPC: v, SecurityGroups: []string{"web"},
		Subnet: &network.Subnet{UID: "s", VPC: "v", VNI: 7, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Gateway: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		IPs:    []netip.Addr{netip.MustParseAddr("10.0.0.9")}, MAC: "02:00:00:00:00:09",
	})
	if err != nil || !strings.Contains(mutation.Annotations[state.PlaceAnnotation], `"groups":["web"]`) {
		t.Errorf("BindPod = %+v, %v", mutation, err)
	}
}
