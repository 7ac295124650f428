package admin

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/registry/rest"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/ranges"
)

// What VPCs, subnets, pools and tenants must agree on. All of it is read from what is stored, and writes of the kinds that
// are compared happen one after the other in this replica (kind.serial). Between replicas two subnets that overlap can both
// be stored; the network controller then serves the one that it saw first.

// rows lists what is stored of a kind.
func rows[L runtime.Object, T any](ctx context.Context, stored rest.Lister, items func(L) []T) ([]T, error) {
	list, err := stored.List(ctx, &metainternalversion.ListOptions{})
	if err != nil {
		return nil, err
	}
	return items(list.(L)), nil
}

func (g *gate) listPools(ctx context.Context) ([]v1alpha1.ResourcePool, error) {
	return rows(ctx, g.pools, func(l *v1alpha1.ResourcePoolList) []v1alpha1.ResourcePool { return l.Items })
}

func (g *gate) listTenants(ctx context.Context) ([]v1alpha1.Tenant, error) {
	return rows(ctx, g.tenants, func(l *v1alpha1.TenantList) []v1alpha1.Tenant { return l.Items })
}

func (g *gate) listVPCs(ctx context.Context) ([]v1alpha1.VPC, error) {
	return rows(ctx, g.vpcs, func(l *v1alpha1.VPCList) []v1alpha1.VPC { return l.Items })
}

func (g *gate) listSubnets(ctx context.Context, vpc string) ([]v1alpha1.Subnet, error) {
	all, err := rows(ctx, g.subnets, func(l *v1alpha1.SubnetList) []v1alpha1.Subnet { return l.Items })
	return slices.DeleteFunc(all, func(s v1alpha1.Subnet) bool { return vpc != "" && s.Spec.VPC != vpc }), err
}

// findVPC gives nil where there is no such VPC.
func (g *gate) findVPC(ctx context.Context, name string) (*v1alpha1.VPC, error) {
	vpcs, err := g.listVPCs(ctx)
	if i := slices.IndexFunc(vpcs, func(v v1alpha1.VPC) bool { return v.Name == name }); err == nil && i >= 0 {
		return &vpcs[i], nil
	}
	return nil, err
}

func (g *gate) vpc(ctx context.Context, a admission.Attributes, v *v1alpha1.VPC) error {
	if v.DeletionTimestamp != nil {
		return nil
	}
	pools, err := g.listPools(ctx)
	if err != nil {
		return err
	}
	spec := field.NewPath("spec")
	known := 0
	var problems field.ErrorList
	if old, ok := a.GetOldObject().(*v1alpha1.VPC); ok {
		known = len(old.Spec.CIDRs)
		problems = outgrown(v, old, pools, spec)
	} else {
		problems = nobodyCan(vpcNeeds(v), pools, "", spec)
	}
	problems = append(problems, poolsInTheWay(v.Spec.CIDRs, known, pools, spec.Child("cidrs"))...)
	return invalid("VPC", v.Name, problems)
}

// outgrown complains about what a change asks for and a pool that has the VPC already cannot do: its next pods would find
// no network there.
func outgrown(v, old *v1alpha1.VPC, pools []v1alpha1.ResourcePool, spec *field.Path) field.ErrorList {
	fields := map[v1alpha1.NetworkCapability]string{v1alpha1.CapabilitySecurityGroups: "securityGroups", v1alpha1.CapabilityDualStack: "cidrs"}
	had := vpcNeeds(old)
	var problems field.ErrorList
	for _, need := range vpcNeeds(v) {
		if slices.Contains(had, need) {
			continue
		}
		for _, pool := range pools {
			in := slices.ContainsFunc(old.Status.Pools, func(b v1alpha1.PoolBinding) bool { return b.Pool == pool.Name && b.Ready })
			if missing := lacks(pool, []v1alpha1.NetworkCapability{need}); in && missing != "" {
				problems = append(problems, field.Forbidden(spec.Child(fields[need]),
					fmt.Sprintf("resource pool %q has the VPC, and its network driver %q lacks %s", pool.Name, pool.Spec.Network.Driver, missing)))
			}
		}
	}
	return problems
}

// poolsInTheWay complains about prefixes, from the index first on, that a pool has for itself.
func poolsInTheWay(cidrs []string, first int, pools []v1alpha1.ResourcePool, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	for i := first; i < len(cidrs); i++ {
		prefix, err := ranges.ParsePrefix(cidrs[i])
		if err != nil {
			continue // Validation has spoken.
		}
		for _, pool := range pools {
			if taken, ok := ranges.Overlapping(prefix, prefixes(pool.Spec.Network.Reserved)); ok {
				problems = append(problems, field.Invalid(path.Index(i), cidrs[i],
					fmt.Sprintf("overlaps %s, which resource pool %q uses itself", taken, pool.Name)))
			}
		}
	}
	return problems
}

// prefixes reads what was validated when it was stored.
func prefixes(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		if prefix, err := ranges.ParsePrefix(text); err == nil {
			out = append(out, prefix)
		}
	}
	return out
}

func (g *gate) subnet(ctx context.Context, a admission.Attributes, s *v1alpha1.Subnet) error {
	if s.DeletionTimestamp != nil {
		return nil
	}
	pools, err := g.listPools(ctx)
	if err != nil {
		return err
	}
	spec := field.NewPath("spec")
	vpc, err := g.findVPC(ctx, s.Spec.VPC)
	if err != nil {
		return err
	}
	var known []string
	var problems field.ErrorList
	if old, ok := a.GetOldObject().(*v1alpha1.Subnet); ok {
		if slices.Equal(old.Spec.Pools, s.Spec.Pools) {
			// What pools can do may have changed since; that is no reason to refuse a label or a finalizer.
			return nil
		}
		known = old.Spec.Pools
	} else {
		siblings, err := g.listSubnets(ctx, s.Spec.VPC)
		if err != nil {
			return err
		}
		problems = append(problems, subnetInVPC(s, vpc, siblings)...)
	}
	if vpc != nil {
		problems = append(problems, placeProblems(subnetNeeds(vpc, s.Spec.CIDRs), vpc.Spec.CIDRs, s.Spec.Pools, known, s.Spec.Zone, pools, spec)...)
	}
	return invalid("Subnet", s.Name, problems)
}

func subnetInVPC(s *v1alpha1.Subnet, vpc *v1alpha1.VPC, siblings []v1alpha1.Subnet) field.ErrorList {
	path := field.NewPath("spec", "vpc")
	switch {
	case vpc == nil:
		return field.ErrorList{field.NotFound(path, s.Spec.VPC)}
	case vpc.DeletionTimestamp != nil:
		return field.ErrorList{field.Invalid(path, s.Spec.VPC, "is being deleted")}
	}
	others := map[string][]string{}
	for _, sibling := range siblings {
		if sibling.Name != s.Name {
			others[sibling.Name] = sibling.Spec.CIDRs
		}
	}
	return cidrsInVPC(s.Spec.CIDRs, vpc.Spec.CIDRs, "VPC "+vpc.Name, others, field.NewPath("spec", "cidrs"))
}

// cidrsInVPC complains about prefixes of a subnet that lie outside of its VPC's or on those of another one.
func cidrsInVPC(cidrs, vpc []string, whose string, others map[string][]string, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	for i, text := range cidrs {
		prefix, err := ranges.ParsePrefix(text)
		if err != nil {
			continue
		}
		if !ranges.Within(prefix, prefixes(vpc)) {
			problems = append(problems, field.Invalid(path.Index(i), text, fmt.Sprintf("must be within %s of %s", strings.Join(vpc, " or "), whose)))
		}
		for name, taken := range others {
			if other, ok := ranges.Overlapping(prefix, prefixes(taken)); ok {
				problems = append(problems, field.Invalid(path.Index(i), text, fmt.Sprintf("overlaps %s of subnet %q", other, name)))
			}
		}
	}
	return problems
}

// placeProblems complains about the pools that a subnet names anew, or about all where none can have it.
func placeProblems(needs []v1alpha1.NetworkCapability, vpcCIDRs, wanted, known []string, zone string, pools []v1alpha1.ResourcePool, spec *field.Path) field.ErrorList {
	var problems field.ErrorList
	for i, name := range wanted {
		if slices.Contains(known, name) {
			continue
		}
		path := spec.Child("pools").Index(i)
		at := slices.IndexFunc(pools, func(p v1alpha1.ResourcePool) bool { return p.Name == name })
		if at < 0 {
			problems = append(problems, field.NotFound(path, name))
			continue
		}
		pool := pools[at]
		if zone != "" && pool.Spec.Location.Zone != zone {
			problems = append(problems, field.Invalid(path, name, fmt.Sprintf("is in zone %q, not in spec.zone %q", pool.Spec.Location.Zone, zone)))
		}
		if missing := lacks(pool, needs); missing != "" {
			problems = append(problems, field.Invalid(path, name, fmt.Sprintf("cannot have it: network driver %q lacks %s", pool.Spec.Network.Driver, missing)))
		}
		for _, cidr := range prefixes(vpcCIDRs) {
			if taken, ok := ranges.Overlapping(cidr, prefixes(pool.Spec.Network.Reserved)); ok {
				problems = append(problems, field.Invalid(path, name, fmt.Sprintf("uses %s itself, which overlaps %s of the VPC", taken, cidr)))
			}
		}
	}
	if len(wanted) == 0 && len(known) == 0 {
		problems = append(problems, nobodyCan(needs, pools, zone, spec)...)
	}
	return problems
}

// vpcNeeds is what a VPC asks of a driver, subnetNeeds what a subnet of it does.
func vpcNeeds(v *v1alpha1.VPC) []v1alpha1.NetworkCapability {
	needs := []v1alpha1.NetworkCapability{v1alpha1.CapabilityVPC}
	families := map[bool]bool{}
	for _, prefix := range prefixes(v.Spec.CIDRs) {
		families[prefix.Addr().Is4()] = true
	}
	if len(families) > 1 {
		needs = append(needs, v1alpha1.CapabilityDualStack)
	}
	if len(v.Spec.SecurityGroups) > 0 {
		needs = append(needs, v1alpha1.CapabilitySecurityGroups)
	}
	return needs
}

func subnetNeeds(v *v1alpha1.VPC, cidrs []string) []v1alpha1.NetworkCapability {
	needs := vpcNeeds(v)
	if len(cidrs) > 1 && !slices.Contains(needs, v1alpha1.CapabilityDualStack) {
		needs = append(needs, v1alpha1.CapabilityDualStack)
	}
	return needs
}

// lacks names what a pool's driver is known not to do; empty while nobody has told.
func lacks(pool v1alpha1.ResourcePool, needs []v1alpha1.NetworkCapability) string {
	told := pool.Status.Network
	if told == nil || told.Driver != pool.Spec.Network.Driver {
		return ""
	}
	var missing []string
	for _, need := range needs {
		if !slices.Contains(told.Capabilities, need) {
			missing = append(missing, string(need))
		}
	}
	return strings.Join(missing, ", ")
}

// nobodyCan complains where every pool is known to lack something: what is made would wait for good. Pools of
// other zones do not count.
func nobodyCan(needs []v1alpha1.NetworkCapability, pools []v1alpha1.ResourcePool, zone string, path *field.Path) field.ErrorList {
	var why []string
	for _, pool := range pools {
		if zone != "" && pool.Spec.Location.Zone != zone {
			continue
		}
		missing := lacks(pool, needs)
		if missing == "" {
			return nil
		}
		why = append(why, fmt.Sprintf("network driver %q of resource pool %q lacks %s", pool.Spec.Network.Driver, pool.Name, missing))
	}
	if len(why) == 0 {
		return nil
	}
	return field.ErrorList{field.Forbidden(path, "no pool can have it: "+strings.Join(why, "; "))}
}

// reservedByVPCs complains about prefixes that a pool says it uses and that a VPC with a subnet for the pool has already.
func (g *gate) reservedByVPCs(ctx context.Context, p, old *v1alpha1.ResourcePool) (field.ErrorList, error) {
	if len(p.Spec.Network.Reserved) == 0 || old != nil && slices.Equal(p.Spec.Network.Reserved, old.Spec.Network.Reserved) {
		return nil, nil
	}
	vpcs, err := g.listVPCs(ctx)
	if err != nil {
		return nil, err
	}
	subnets, err := g.listSubnets(ctx, "")
	if err != nil {
		return nil, err
	}
	var problems field.ErrorList
	path := field.NewPath("spec", "network", "reserved")
	for _, vpc := range vpcs {
		here := slices.ContainsFunc(subnets, func(s v1alpha1.Subnet) bool {
			return s.Spec.VPC == vpc.Name && s.Serves(p)
		})
		if !here {
			continue
		}
		for i, text := range p.Spec.Network.Reserved {
			if old != nil && slices.Contains(old.Spec.Network.Reserved, text) {
				continue
			}
			for _, prefix := range prefixes([]string{text}) {
				if taken, ok := ranges.Overlapping(prefix, prefixes(vpc.Spec.CIDRs)); ok {
					problems = append(problems, field.Invalid(path.Index(i), text, fmt.Sprintf("overlaps %s of VPC %q, which has a subnet for this pool", taken, vpc.Name)))
				}
			}
		}
	}
	return problems, nil
}

// deleteVPC refuses to take a VPC away from its subnets or its tenant.
func (g *gate) deleteVPC(ctx context.Context, v *v1alpha1.VPC) error {
	subnets, err := g.listSubnets(ctx, v.Name)
	if err != nil {
		return err
	}
	if len(subnets) > 0 {
		var left []string
		for _, s := range subnets {
			left = append(left, s.Name)
		}
		return inUse("vpcs", v.Name, "it has subnets: "+some(left))
	}
	tenants, err := g.listTenants(ctx)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		if t.DeletionTimestamp == nil && names.TenantID(t.Name).VPC(t.Spec.Network) == v.Name {
			return inUse("vpcs", v.Name, fmt.Sprintf("it is the network of tenant %q", t.Name))
		}
	}
	return nil
}

// deleteSubnet refuses to take a subnet away from its pods. Addresses in quarantine keep nobody: a subnet made anew is
// another segment.
func (g *gate) deleteSubnet(ctx context.Context, s *v1alpha1.Subnet) error {
	blocks, err := rows(ctx, g.blocks, func(l *v1alpha1.IPBlockList) []v1alpha1.IPBlock { return l.Items })
	if err != nil {
		return err
	}
	var pods []string
	for _, b := range blocks {
		if b.Spec.SubnetUID != s.UID {
			continue
		}
		for _, a := range b.Status.Allocations {
			if a.Released == nil {
				pods = append(pods, a.Namespace+"/"+a.Name)
			}
		}
	}
	if len(pods) > 0 {
		return inUse("subnets", s.Name, "pods have addresses of it: "+some(pods))
	}
	return nil
}

// inUse is what Kubernetes answers to a request that what is there does not allow: 409.
func inUse(resource, name, why string) error {
	return apierrors.NewConflict(v1alpha1.Resource(resource), name, fmt.Errorf("it cannot be deleted: %s", why))
}

// some names a few things and counts the rest.
func some(things []string) string {
	const few = 5
	if n := len(things); n > few {
		return fmt.Sprintf("%s and %d more", strings.Join(things[:few], ", "), n-few)
	}
	return strings.Join(things, ", ")
}

// defaultSubnets complains about default subnets that the tenant's VPC does not have.
func (g *gate) defaultSubnets(ctx context.Context, t *v1alpha1.Tenant) (field.ErrorList, error) {
	network := t.Spec.Network
	if len(network.DefaultSubnets) == 0 || network.Mode != v1alpha1.NetworkVPC {
		return nil, nil
	}
	id := names.TenantID(t.Name)
	known := map[string]bool{}
	if network.Template != nil {
		for _, s := range network.Template.Subnets {
			known[id.NameToControl(s.Name)] = true
		}
	}
	subnets, err := g.listSubnets(ctx, id.VPC(network))
	if err != nil {
		return nil, err
	}
	for _, s := range subnets {
		known[s.Name] = true
	}
	var problems field.ErrorList
	for i, label := range network.DefaultSubnets {
		if !known[id.NameToControl(label)] {
			problems = append(problems, field.NotFound(field.NewPath("spec", "network", "defaultSubnets").Index(i), label))
		}
	}
	return problems, nil
}

// tenantNetwork checks what a new tenant's network refers to, so that nothing is half-created.
func (g *gate) tenantNetwork(ctx context.Context, t *v1alpha1.Tenant) (field.ErrorList, error) {
	network := t.Spec.Network
	if network.Mode != v1alpha1.NetworkVPC {
		return nil, nil
	}
	path := field.NewPath("spec", "network")
	id := names.TenantID(t.Name)
	vpc, err := g.findVPC(ctx, id.VPC(network))
	if err != nil {
		return nil, err
	}
	template := network.Template
	if template == nil {
		switch {
		case vpc == nil:
			return field.ErrorList{field.NotFound(path.Child("vpc"), network.VPC)}, nil
		case vpc.DeletionTimestamp != nil:
			return field.ErrorList{field.Invalid(path.Child("vpc"), network.VPC, "is being deleted")}, nil
		}
		return nil, nil
	}
	if vpc != nil {
		return field.ErrorList{field.Forbidden(path.Child("template"), fmt.Sprintf("VPC %q exists already: refer to it by spec.network.vpc, or delete it", vpc.Name))}, nil
	}
	pools, err := g.listPools(ctx)
	if err != nil {
		return nil, err
	}
	subnets, err := g.listSubnets(ctx, "")
	if err != nil {
		return nil, err
	}
	at := path.Child("template")
	problems := poolsInTheWay(template.CIDRs, 0, pools, at.Child("cidrs"))
	wanted := &v1alpha1.VPC{Spec: v1alpha1.VPCSpec{CIDRs: template.CIDRs}}
	for i, s := range template.Subnets {
		here := at.Child("subnets").Index(i)
		if name := id.NameToControl(s.Name); slices.ContainsFunc(subnets, func(s v1alpha1.Subnet) bool { return s.Name == name }) {
			problems = append(problems, field.Invalid(here.Child("name"), s.Name, fmt.Sprintf("subnet %q exists already", name)))
		}
		problems = append(problems, placeProblems(subnetNeeds(wanted, s.CIDRs), template.CIDRs, s.Pools, nil, s.Zone, pools, here)...)
	}
	return problems, nil
}
