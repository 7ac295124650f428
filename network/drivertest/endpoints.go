package drivertest

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
)

func endpoint(subnet types.UID, name, ip, mac, node, pool string) network.Endpoint {
	return network.Endpoint{
		Subnet: subnet, IPs: []netip.Addr{netip.MustParseAddr(ip)}, MAC: mac, Node: netip.MustParseAddr(node), Pool: pool,
		Pod: network.PodKey{Namespace: red.Name, Name: name, UID: types.UID("uid-" + name)},
	}
}

// testEndpoints: a driver that meshes keeps exactly the endpoints that it is given, and none without their VPC.
func testEndpoints(t *testing.T, h Harness) {
	driver, pool := h.Driver(t), h.Pool(t, red, blue)
	mesher, ok := driver.(network.Mesher)
	if !ok {
		t.Skip("this driver is not told where pods are")
	}
	empty := h.Snapshot(t, driver, pool)
	v, s := vpc(red.Tenant, "1"), subnet("1", "1")
	one := endpoint(s.UID, "one", "10.20.0.9", "02:00:00:00:00:09", "192.0.2.1", pool.Name)
	two := endpoint(s.UID, "two", "10.20.0.10", "02:00:00:00:00:0a", "192.0.2.2", "another")
	if err := mesher.EnsureEndpoints(t.Context(), pool, v, []network.Endpoint{one}); !errors.Is(err, network.ErrNotReady) {
		t.Errorf("before the VPC: %v, want ErrNotReady", err)
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("endpoints without a VPC left something:\n%s", diff)
	}
	ensureBoth(t, driver, pool, v, s)
	bare := h.Snapshot(t, driver, pool)
	ensure := func(endpoints ...network.Endpoint) any {
		t.Helper()
		if err := mesher.EnsureEndpoints(t.Context(), pool, v, endpoints); err != nil {
			t.Fatalf("EnsureEndpoints: %v", err)
		}
		return h.Snapshot(t, driver, pool)
	}
	full := ensure(one, two)
	if cmp.Equal(bare, full) {
		t.Error("endpoints leave no trace in the pool")
	}
	given := []network.Endpoint{two, one}
	if diff := cmp.Diff(full, ensure(given...)); diff != "" {
		t.Errorf("the same in another order wrote (-once +again):\n%s", diff)
	}
	if given[0].Pod != two.Pod {
		t.Error("EnsureEndpoints changed its input")
	}
	if err := h.Driver(t).(network.Mesher).EnsureEndpoints(t.Context(), pool, v, []network.Endpoint{one, two}); err != nil {
		t.Errorf("by another process: %v", err)
	}
	for name, spoil := range map[string]func(*network.Endpoint){
		"NoAddress":        func(e *network.Endpoint) { e.IPs = nil },
		"NoMAC":            func(e *network.Endpoint) { e.MAC = "" },
		"NoNode":           func(e *network.Endpoint) { e.Node = netip.Addr{} },
		"TakenAddress":     func(e *network.Endpoint) { e.IPs = one.IPs },
		"TakenMAC":         func(e *network.Endpoint) { e.MAC = one.MAC },
		"AddressElsewhere": func(e *network.Endpoint) { e.IPs = []netip.Addr{netip.MustParseAddr("192.0.2.9")} },
	} {
		wrong := two
		spoil(&wrong)
		if err := mesher.EnsureEndpoints(t.Context(), pool, v, []network.Endpoint{one, wrong}); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if diff := cmp.Diff(full, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("refused endpoints changed something:\n%s", diff)
	}
	if cmp.Equal(full, ensure(one)) {
		t.Error("a pod that went is still known")
	}
	if diff := cmp.Diff(bare, ensure()); diff != "" {
		t.Errorf("the last endpoint left something:\n%s", diff)
	}
	ensure(one, two)
	if err := driver.DeleteSubnet(t.Context(), pool, s); err != nil {
		t.Errorf("DeleteSubnet: %v", err)
	}
	if err := driver.DeleteVPC(t.Context(), pool, v); err != nil {
		t.Errorf("DeleteVPC: %v", err)
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("endpoints outlived their VPC:\n%s", diff)
	}
}

func ensureBoth(t *testing.T, driver network.Driver, pool network.Pool, v *network.VPC, s *network.Subnet) {
	t.Helper()
	if got, err := driver.EnsureVPC(t.Context(), pool, v); err != nil || !got.Ready {
		t.Fatalf("EnsureVPC = %+v, %v", got, err)
	}
	if got, err := driver.EnsureSubnet(t.Context(), pool, v, s); err != nil || !got.Ready {
		t.Fatalf("EnsureSubnet = %+v, %v", got, err)
	}
}
