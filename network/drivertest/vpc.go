package drivertest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
)

func testVPC(t *testing.T, h Harness) {
	driver, pool := h.Driver(t), h.Pool(t, red, blue)
	if !driver.Capabilities().VPC {
		testNoVPC(t, h, driver, pool)
		return
	}
	empty := h.Snapshot(t, driver, pool)
	v, s := vpc(red.Tenant, "1"), subnet("1", "1")

	if got, err := driver.EnsureSubnet(t.Context(), pool, v, s); !h.Mapping && (!errors.Is(err, network.ErrNotReady) || got.Ready) {
		t.Errorf("a subnet before its VPC: %+v, %v; want ErrNotReady", got, err)
	}
	for range 2 {
		if got, err := driver.EnsureVPC(t.Context(), pool, v); err != nil || !got.Ready || got.Reason != network.ReasonReady {
			t.Fatalf("EnsureVPC = %+v, %v", got, err)
		}
		if got, err := driver.EnsureSubnet(t.Context(), pool, v, s); err != nil || !got.Ready {
			t.Fatalf("EnsureSubnet = %+v, %v", got, err)
		}
	}
	full := h.Snapshot(t, driver, pool)
	if got, err := h.Driver(t).EnsureVPC(t.Context(), pool, v); err != nil || !got.Ready {
		t.Errorf("by another process: %+v, %v", got, err)
	}
	if _, err := driver.EnsureSubnet(t.Context(), pool, v, subnet("2", "2")); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("a subnet of another VPC: %v, want ErrInvalid", err)
	}
	if err := driver.DeleteVPC(t.Context(), pool, v); !h.Mapping && !errors.Is(err, network.ErrInUse) {
		t.Errorf("DeleteVPC with a subnet: %v, want ErrInUse", err)
	}
	live := network.LiveSet{AsOf: time.Now().Add(time.Hour), VPCs: map[types.UID]bool{v.UID: true}, Subnets: map[types.UID]bool{s.UID: true}}
	if err := driver.Sweep(t.Context(), pool, live); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if diff := cmp.Diff(full, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("what must change nothing changed (-before +after):\n%s", diff)
	}
	if driver.Capabilities().OverlappingCIDRs {
		twin := vpc(blue.Tenant, "3")
		if got, err := driver.EnsureVPC(t.Context(), pool, twin); err != nil || !got.Ready {
			t.Errorf("a VPC with the same addresses: %+v, %v", got, err)
		}
		if err := driver.DeleteVPC(t.Context(), pool, twin); err != nil {
			t.Errorf("delete it: %v", err)
		}
	}
	for range 2 {
		if err := driver.DeleteSubnet(t.Context(), pool, s); err != nil {
			t.Errorf("DeleteSubnet: %v", err)
		}
	}
	for range 2 {
		if err := driver.DeleteVPC(t.Context(), pool, v); err != nil {
			t.Errorf("DeleteVPC: %v", err)
		}
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("deleting left something (-empty +left):\n%s", diff)
	}
	for _, ensure := range []func() (network.PoolBinding, error){
		func() (network.PoolBinding, error) { return driver.EnsureVPC(t.Context(), pool, v) },
		func() (network.PoolBinding, error) { return driver.EnsureSubnet(t.Context(), pool, v, s) },
	} {
		if _, err := ensure(); err != nil {
			t.Fatal(err)
		}
	}
	if err := driver.Sweep(t.Context(), pool, network.LiveSet{AsOf: time.Now().Add(time.Hour)}); err != nil {
		t.Errorf("Sweep of orphans: %v", err)
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("Sweep left orphans (-empty +left):\n%s", diff)
	}
}

// testNoVPC: a driver that knows no VPCs refuses to make one, and has none to delete.
func testNoVPC(t *testing.T, h Harness, driver network.Driver, pool network.Pool) {
	t.Helper()
	before := h.Snapshot(t, driver, pool)
	v, s := vpc(red.Tenant, "1"), subnet("1", "1")
	if got, err := driver.EnsureVPC(t.Context(), pool, v); !errors.Is(err, network.ErrCapability) || got.Ready || got.Reason != network.ReasonCapabilityMissing {
		t.Errorf("EnsureVPC = %+v, %v; want ErrCapability", got, err)
	}
	if got, err := driver.EnsureSubnet(t.Context(), pool, v, s); !errors.Is(err, network.ErrCapability) || got.Ready {
		t.Errorf("EnsureSubnet = %+v, %v; want ErrCapability", got, err)
	}
	if err := driver.DeleteSubnet(t.Context(), pool, s); err != nil {
		t.Errorf("DeleteSubnet of what never was: %v", err)
	}
	if err := driver.DeleteVPC(t.Context(), pool, v); err != nil {
		t.Errorf("DeleteVPC of what never was: %v", err)
	}
	if diff := cmp.Diff(before, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("something was written:\n%s", diff)
	}
}
