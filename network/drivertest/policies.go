package drivertest

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/network"
)

// testPolicies: a driver that holds pods to policies keeps exactly those that it is given, and none without their VPC.
func testPolicies(t *testing.T, h Harness) {
	driver, pool := h.Driver(t), h.Pool(t, red, blue)
	filterer, ok := driver.(network.Filterer)
	if ok != driver.Capabilities().NetworkPolicies {
		t.Errorf("a Filterer: %v; NetworkPolicies among its capabilities: %v", ok, driver.Capabilities().NetworkPolicies)
	}
	if !ok {
		return
	}
	if _, ok := driver.(network.Mesher); !ok {
		t.Error("it is not told who is in the sets that policies name")
	}
	empty := h.Snapshot(t, driver, pool)
	v, s := vpc(red.Tenant, "1"), subnet("1", "1")
	one := network.Policy{Pods: "one", Receive: true, From: []network.PolicyRule{{
		Sets: []string{"two"}, Blocks: []network.PolicyBlock{{CIDR: netip.MustParsePrefix("10.20.0.0/16"), Except: []netip.Prefix{netip.MustParsePrefix("10.20.1.0/24")}}},
		Ports: []network.PolicyPort{{Protocol: "TCP", First: 80, Last: 90}, {Protocol: "UDP"}, {Protocol: "SCTP", Name: "http"}},
	}}}
	two := network.Policy{Pods: "two", Receive: true, Send: true, To: []network.PolicyRule{{Anyone: true}}}
	if err := filterer.EnsurePolicies(t.Context(), pool, v, []network.Policy{one}); !errors.Is(err, network.ErrNotReady) {
		t.Errorf("before the VPC: %v, want ErrNotReady", err)
	}
	ensureBoth(t, driver, pool, v, s)
	bare := h.Snapshot(t, driver, pool)
	ensure := func(policies ...network.Policy) any {
		t.Helper()
		if err := filterer.EnsurePolicies(t.Context(), pool, v, policies); err != nil {
			t.Fatalf("EnsurePolicies: %v", err)
		}
		return h.Snapshot(t, driver, pool)
	}
	full := ensure(one, two)
	if cmp.Equal(bare, full) {
		t.Error("policies leave no trace in the pool")
	}
	if diff := cmp.Diff(full, ensure(one, two)); diff != "" {
		t.Errorf("the same again wrote (-once +again):\n%s", diff)
	}
	ensureBoth(t, driver, pool, v, s)
	for name, spoil := range map[string]func(*network.Policy){
		"NoSet": func(p *network.Policy) { p.Pods = "" },
		"Protocol": func(p *network.Policy) {
			p.To = []network.PolicyRule{{Ports: []network.PolicyPort{{Protocol: "tcp }"}}}}
		},
		"Ports": func(p *network.Policy) {
			p.To = []network.PolicyRule{{Ports: []network.PolicyPort{{Protocol: "TCP", First: 9, Last: 8}}}}
		},
		"Block": func(p *network.Policy) {
			p.To = []network.PolicyRule{{Blocks: []network.PolicyBlock{{CIDR: netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 8)}}}}
		},
		"Families": func(p *network.Policy) {
			p.To = []network.PolicyRule{{Blocks: []network.PolicyBlock{{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}}}}}
		},
	} {
		wrong := two
		spoil(&wrong)
		if err := filterer.EnsurePolicies(t.Context(), pool, v, []network.Policy{one, wrong}); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if diff := cmp.Diff(full, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("a VPC that was ensured again, or refused policies, changed something:\n%s", diff)
	}
	if cmp.Equal(full, ensure(one)) {
		t.Error("a policy that went still holds")
	}
	// When it was written last is another matter.
	if diff := cmp.Diff(bare, ensure(), cmpopts.IgnoreFields(metav1.ManagedFieldsEntry{}, "Time")); diff != "" {
		t.Errorf("the last policy left something:\n%s", diff)
	}
	ensure(one, two)
	if err := errors.Join(driver.DeleteSubnet(t.Context(), pool, s), driver.DeleteVPC(t.Context(), pool, v)); err != nil {
		t.Errorf("delete the VPC: %v", err)
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("policies outlived their VPC:\n%s", diff)
	}
}
