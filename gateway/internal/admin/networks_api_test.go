package admin_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func vpc(name string, cidrs ...string) *v1alpha1.VPC {
	id, _, _ := strings.Cut(name, "-")
	return &v1alpha1.VPC{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VPCSpec{Tenant: id, CIDRs: cidrs}}
}

func subnet(name, vpc string, cidrs ...string) *v1alpha1.Subnet {
	return &v1alpha1.Subnet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SubnetSpec{VPC: vpc, CIDRs: cidrs}}
}

// TestNetworksAgree tries what no object alone can tell: what VPCs, subnets, pools and tenants must agree on.
func TestNetworksAgree(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	c := f.operator(t)
	made := func(o client.Object) {
		t.Helper()
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string, is func(error) bool, err error, reasons ...string) {
		t.Helper()
		if !is(err) {
			t.Errorf("%s: %v", what, err)
			return
		}
		for _, reason := range reasons {
			if !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: %v does not say %s", what, err, reason)
			}
		}
	}
	pools := map[string]*v1alpha1.ResourcePool{}
	for name, reserved := range map[string][]string{"west": {"172.16.0.0/16", "10.96.0.0/16"}, "east": nil, "flat": nil} {
		p := pool(name, types.UID("uid-"+name))
		p.Spec.Location.Zone, p.Spec.Network.Reserved = "zone-"+name, reserved
		made(p)
		if name != "west" {
			p.Status.Network = &v1alpha1.PoolNetworkStatus{Driver: p.Spec.Network.Driver}
			if name == "east" {
				p.Status.Network.Capabilities = []v1alpha1.NetworkCapability{v1alpha1.CapabilityVPC}
			}
			if err := c.Status().Update(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		pools[name] = p
	}

	// VPCs, and what pools use.
	refused("a VPC on a pool's nodes", apierrors.IsInvalid, c.Create(t.Context(), vpc("demo01-bad", "172.16.8.0/24")),
		`spec.cidrs[0]: Invalid value: "172.16.8.0/24": overlaps 172.16.0.0/16, which resource pool "west" uses itself`)
	main := vpc("demo01-main", "10.0.0.0/16")
	made(main)
	made(vpc("demo02-main", "10.0.0.0/16")) // another tenant's: equal addresses are their own affair
	grown := main.DeepCopy()
	grown.Spec.CIDRs = append(grown.Spec.CIDRs, "10.96.0.0/20")
	refused("a VPC that grows onto Services", apierrors.IsInvalid, c.Update(t.Context(), grown), "spec.cidrs[1]", "10.96.0.0/16")

	// Subnets, and their VPC and each other.
	refused("a subnet of nothing", apierrors.IsInvalid, c.Create(t.Context(), subnet("demo01-x", "demo01-nothing", "10.0.1.0/24")), `spec.vpc: Not found: "demo01-nothing"`)
	refused("a subnet outside", apierrors.IsInvalid, c.Create(t.Context(), subnet("demo01-x", "demo01-main", "10.1.1.0/24")), `spec.cidrs[0]: Invalid value: "10.1.1.0/24": must be within 10.0.0.0/16 of VPC demo01-main`)
	web := subnet("demo01-web", "demo01-main", "10.0.1.0/24")
	made(web)
	if web.Spec.Gateway[0] != "10.0.1.1" || web.Finalizers[0] != v1alpha1.FinalizerNetwork {
		t.Errorf("a new subnet: %+v", web)
	}
	refused("a subnet on another", apierrors.IsInvalid, c.Create(t.Context(), subnet("demo01-x", "demo01-main", "10.0.1.128/25")), `overlaps 10.0.1.0/24 of subnet "demo01-web"`)
	made(subnet("demo02-web", "demo02-main", "10.0.1.0/24"))
	refused("another tenant's VPC", apierrors.IsInvalid, c.Create(t.Context(), subnet("demo01-x", "demo02-main", "10.0.2.0/24")), "metadata.name")

	// Subnets, and pools.
	placed := func(zone string, pools ...string) *v1alpha1.Subnet {
		s := subnet("demo01-db", "demo01-main", "10.0.2.0/24")
		s.Spec.Zone, s.Spec.Pools = zone, pools
		return s
	}
	refused("a pool that is not there", apierrors.IsInvalid, c.Create(t.Context(), placed("", "north")), `spec.pools[0]: Not found: "north"`)
	refused("a pool of another zone", apierrors.IsInvalid, c.Create(t.Context(), placed("zone-west", "east")), `spec.pools[0]: Invalid value: "east": is in zone "zone-east"`)
	refused("a driver that cannot", apierrors.IsInvalid, c.Create(t.Context(), placed("", "flat")), `spec.pools[0]: Invalid value: "flat": cannot have it: network driver "flat" lacks VPC`)
	refused("a zone that cannot", apierrors.IsInvalid, c.Create(t.Context(), placed("zone-flat")), `no pool can have it`, `lacks VPC`)
	db := placed("", "east")
	made(db)

	// A VPC outgrows the pool that has it.
	main.Status.Pools = []v1alpha1.PoolBinding{{Pool: "east", Ready: true}}
	if err := c.Status().Update(t.Context(), main); err != nil {
		t.Fatal(err)
	}
	grown = main.DeepCopy()
	grown.Spec.SecurityGroups = []v1alpha1.SecurityGroup{{Name: "web"}}
	refused("security groups where there are none", apierrors.IsInvalid, c.Update(t.Context(), grown),
		`spec.securityGroups: Forbidden: resource pool "east" has the VPC, and its network driver "flat" lacks SecurityGroups`)
	grown = main.DeepCopy()
	grown.Spec.CIDRs = append(grown.Spec.CIDRs, "fd00:1::/48")
	refused("a second family where there is one", apierrors.IsInvalid, c.Update(t.Context(), grown), "spec.cidrs: Forbidden", "lacks DualStack")
	main.Status.Pools[0].Ready = false
	if err := c.Status().Update(t.Context(), main); err != nil {
		t.Fatal(err)
	}

	six := subnet("demo01-six", "demo01-main", "10.0.3.0/24")
	six.Spec.Pools = []string{"east"}
	main.Spec.CIDRs = append(main.Spec.CIDRs, "fd00:1::/48")
	if err := c.Update(t.Context(), main); err != nil {
		t.Fatal(err)
	}
	six.Spec.CIDRs = append(six.Spec.CIDRs, "fd00:1::/64")
	refused("two families where one is all there is", apierrors.IsInvalid, c.Create(t.Context(), six), "lacks DualStack")
	db.Spec.Pools = []string{"east", "flat"}
	refused("growth to a driver that cannot", apierrors.IsInvalid, c.Update(t.Context(), db), "spec.pools[1]", "lacks VPC")
	db.Spec.Pools = []string{"east", "west"}
	if err := c.Update(t.Context(), db); err != nil {
		t.Errorf("growth: %v", err)
	}
	// What a driver can do may become less; what is there can still be labelled, and let go of.
	east := pools["east"]
	east.Status.Network.Capabilities = nil
	west := pools["west"]
	west.Status.Network = &v1alpha1.PoolNetworkStatus{Driver: west.Spec.Network.Driver}
	for _, p := range []*v1alpha1.ResourcePool{east, west} {
		if err := c.Status().Update(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	refused("a VPC that no pool can have", apierrors.IsInvalid, c.Create(t.Context(), vpc("demo03-x", "10.5.0.0/16")), "no pool can have it", `network driver "flat" of resource pool "west" lacks VPC`)
	web.Labels = map[string]string{"a": "b"}
	if err := c.Update(t.Context(), web); err != nil {
		t.Errorf("a label: %v", err)
	}
	p := pools["east"]
	p.Spec.Network.Reserved = []string{"10.0.0.0/24"}
	refused("a pool on a VPC", apierrors.IsInvalid, c.Update(t.Context(), p), `spec.network.reserved[0]: Invalid value: "10.0.0.0/24": overlaps 10.0.0.0/16 of VPC "demo01-main"`)

	// Tenants.
	withNetwork := func(id string, n v1alpha1.TenantNetwork) *v1alpha1.Tenant {
		x := tenant(id)
		n.Mode = v1alpha1.NetworkVPC
		x.Spec.Network = n
		return x
	}
	refused("a VPC that is not there", apierrors.IsInvalid, c.Create(t.Context(), withNetwork("demo01", v1alpha1.TenantNetwork{VPC: "demo01-nothing"})), `spec.network.vpc: Not found: "demo01-nothing"`)
	template := &v1alpha1.VPCTemplate{CIDRs: []string{"10.0.0.0/16"}, Subnets: []v1alpha1.SubnetTemplate{{Name: "web", CIDRs: []string{"10.0.1.0/24"}}}}
	refused("a VPC that is there", apierrors.IsInvalid, c.Create(t.Context(), withNetwork("demo01", v1alpha1.TenantNetwork{Template: template})), `VPC "demo01-main" exists already`)
	onNodes := template.DeepCopy()
	onNodes.CIDRs, onNodes.Subnets[0].CIDRs = []string{"172.16.0.0/16"}, []string{"172.16.1.0/24"}
	onNodes.Subnets[0].Pools = []string{"north"}
	refused("a template on a pool's nodes", apierrors.IsInvalid, c.Create(t.Context(), withNetwork("demo03", v1alpha1.TenantNetwork{Template: onNodes})),
		"spec.network.template.cidrs[0]", `spec.network.template.subnets[0].pools[0]: Not found: "north"`)
	refused("a default subnet that is not there", apierrors.IsInvalid, c.Create(t.Context(), withNetwork("demo01", v1alpha1.TenantNetwork{VPC: "demo01-main", DefaultSubnets: []string{"web", "x"}})), `spec.network.defaultSubnets[1]: Not found: "x"`)
	x := withNetwork("demo01", v1alpha1.TenantNetwork{VPC: "demo01-main", DefaultSubnets: []string{"web"}})
	made(x)
	changed := x.DeepCopy()
	changed.Spec.Network.VPC = "demo01-other"
	refused("another VPC later", apierrors.IsInvalid, c.Update(t.Context(), changed), "spec.network.vpc: Forbidden")
	changed = x.DeepCopy()
	changed.Spec.Network = v1alpha1.TenantNetwork{}
	refused("back to Flat", apierrors.IsInvalid, c.Update(t.Context(), changed), "spec.network.mode: Forbidden")
	x.Spec.Network.DefaultSubnets = []string{"db", "web"}
	if err := c.Update(t.Context(), x); err != nil {
		t.Errorf("other default subnets: %v", err)
	}

	// Deletion.
	refused("a VPC with subnets", apierrors.IsConflict, c.Delete(t.Context(), main), "it cannot be deleted: it has subnets: demo01-db, demo01-web")
	refused("all VPCs", apierrors.IsConflict, c.DeleteAllOf(t.Context(), &v1alpha1.VPC{}), "it has subnets")
	component := f.component(t)
	block := &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IPBlockName(web.UID, 0), Labels: map[string]string{names.LabelSubnetUID: string(web.UID)}},
		Spec: v1alpha1.IPBlockSpec{Subnet: web.Name, SubnetUID: web.UID, VPCUID: main.UID, Size: 256}}
	if err := component.Create(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	block.Status.Allocations = []v1alpha1.IPAllocation{{Index: 2, PodUID: "p", Namespace: "demo01-shop", Name: "web-0", Pool: "east"}}
	stale := block.DeepCopy()
	if err := component.Status().Update(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	refused("a second allocator", apierrors.IsConflict, component.Status().Update(t.Context(), stale))
	stale.ResourceVersion = ""
	if err := component.Status().Update(t.Context(), stale); err == nil {
		t.Error("an allocation was written over a version that nobody read")
	}
	refused("a subnet with pods", apierrors.IsConflict, c.Delete(t.Context(), web), "it cannot be deleted: pods have addresses of it: demo01-shop/web-0")
	block.Status.Allocations[0].Released = &metav1.Time{Time: web.CreationTimestamp.Time}
	if err := component.Status().Update(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*v1alpha1.Subnet{web, db} {
		if err := c.Delete(t.Context(), s); err != nil {
			t.Errorf("a subnet without pods: %v", err)
		}
		release(t, component, s)
	}
	refused("a tenant's VPC", apierrors.IsConflict, c.Delete(t.Context(), main), `it is the network of tenant "demo01"`)
	refused("a subnet that is made by a component", apierrors.IsForbidden, component.Create(t.Context(), subnet("demo01-x", "demo01-main", "10.0.9.0/24")))
}

// release does what the network controller does with its finalizer.
func release(t *testing.T, component client.Client, o client.Object) {
	t.Helper()
	if err := component.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	o.SetFinalizers(nil)
	if err := component.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// TestSubnetsRace makes many subnets of the same addresses at once: one is made, and the others are told.
func TestSubnetsRace(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	c := newClient(t, f.server.LoopbackConfig()) // whose requests nothing spreads over time
	if err := c.Create(t.Context(), vpc("demo01-main", "10.0.0.0/16")); err != nil {
		t.Fatal(err)
	}
	for round := range 10 {
		var racing sync.WaitGroup
		made := make(chan string, 16)
		for i := range cap(made) {
			racing.Go(func() {
				s := subnet(fmt.Sprintf("demo01-s%d-%d", round, i), "demo01-main", fmt.Sprintf("10.0.%d.0/24", round))
				err := c.Create(t.Context(), s)
				switch {
				case err == nil:
					made <- s.Name
				case !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "overlaps"):
					t.Errorf("create %s: %v", s.Name, err)
				}
			})
		}
		racing.Wait()
		if len(made) != 1 {
			t.Errorf("%d subnets have the same addresses", len(made))
		}
	}
}

func TestKubectlNetworks(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	operator := f.kubeconfig(t, f.ca, "root", "system:masters")
	const manifest = `
apiVersion: vivarium.io/v1alpha1
kind: VPC
metadata: {name: demo01-main}
spec: {tenant: demo01, cidrs: [10.0.0.0/16]}
---
apiVersion: vivarium.io/v1alpha1
kind: Subnet
metadata: {name: demo01-web}
spec: {vpc: demo01-main, cidrs: [10.0.1.0/24]}
`
	for _, want := range []string{"created", "unchanged"} {
		if out := mustKubectl(t, operator, manifest, "apply", "-f", "-"); strings.Count(out, want) != 2 {
			t.Errorf("apply: %s", out)
		}
	}
	for args, want := range map[string]string{
		"get vpcs":                  "NAME          TENANT   CIDRS         READY     AGE",
		"get subnets -o wide":       "NAME         VPC           CIDRS         USED   TOTAL   READY     AGE",
		"explain subnet.spec.cidrs": "Required; immutable.",
		"explain vpc.spec.egress":   "SharedNAT",
		"get vivarium -o name":      "subnet.vivarium.io/demo01-web",
		"explain ipblock.status":    "allocations",
		"get subnet demo01-web -o jsonpath={.spec.gateway[0]}": "10.0.1.1",
	} {
		if out := mustKubectl(t, operator, "", strings.Fields(args)...); !strings.Contains(out, want) {
			t.Errorf("kubectl %s: %q is not in:\n%s", args, want, out)
		}
	}
}
