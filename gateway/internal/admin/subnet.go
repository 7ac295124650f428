package admin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/ranges"
)

func subnetKind(serial *sync.Mutex) kind[v1alpha1.Subnet, *v1alpha1.Subnet] {
	return kind[v1alpha1.Subnet, *v1alpha1.Subnet]{
		resource:       "subnets",
		singular:       "subnet",
		serial:         serial,
		finalizers:     []string{v1alpha1.FinalizerNetwork},
		list:           func() runtime.Object { return &v1alpha1.SubnetList{} },
		columns:        subnetColumns(),
		validate:       validateSubnet,
		validateUpdate: validateSubnetUpdate,
		validateStatus: validateSubnetStatus,
		parts: func(s *v1alpha1.Subnet) parts {
			return parts{
				spec:       s.Spec,
				status:     s.Status,
				conditions: s.Status.Conditions,
				copySpec:   func(from runtime.Object) { s.Spec = from.(*v1alpha1.Subnet).Spec },
				copyStatus: func(from runtime.Object) { s.Status = from.(*v1alpha1.Subnet).Status },
			}
		},
	}
}

func subnetColumns() []column[*v1alpha1.Subnet] {
	type subnet = *v1alpha1.Subnet
	return []column[subnet]{
		nameOf[subnet](),
		{name: "VPC", kind: text, description: "VPC that the subnet is a part of.", value: func(s subnet) any { return s.Spec.VPC }},
		{name: "CIDRs", kind: text, description: "Prefixes of the subnet.", value: func(s subnet) any { return strings.Join(s.Spec.CIDRs, ",") }},
		{name: "Used", kind: number, description: "Addresses that are taken or in quarantine.", value: func(s subnet) any { return s.Status.Used }},
		{name: "Total", kind: number, description: "Addresses that there are for pods.", value: func(s subnet) any { return s.Status.Total }},
		{name: "Ready", kind: text, description: "Whether pods can be put in it in every pool that it is meant for.", value: func(s subnet) any { return conditionStatus(s.Status.Conditions, v1alpha1.SubnetReady) }},
		ageOf[subnet](),
		{name: "Zone", kind: text, wide: true, description: "Zone that the subnet is limited to.", value: func(s subnet) any { return s.Spec.Zone }},
		{name: "Pools", kind: text, wide: true, description: "Pools in which the subnet is ready, of those it is meant for.", value: func(s subnet) any { return readyPools(s.Status.Pools) }},
		{name: "VNI", kind: number, wide: true, description: "Number of the subnet's segment.", value: func(s subnet) any { return int64(s.Status.VNI) }},
		{name: "Message", kind: text, wide: true, description: "What the subnet waits for.", value: func(s subnet) any { return trouble(s.Status.Conditions, v1alpha1.SubnetReady) }},
	}
}

// mostReserved bounds the ranges that every allocation steps around.
const mostReserved = 256

func validateSubnet(s *v1alpha1.Subnet) field.ErrorList {
	var problems field.ErrorList
	spec := field.NewPath("spec")
	if s.Spec.VPC == "" {
		problems = append(problems, field.Required(spec.Child("vpc"), "name of the VPC that the subnet is a part of"))
	} else if id, _, ok := names.SplitNamespace(names.ControlNamespace(s.Spec.VPC)); !ok {
		problems = append(problems, field.Invalid(spec.Child("vpc"), s.Spec.VPC, "must be a tenant's ID, a dash and a name, as every VPC's name is"))
	} else {
		problems = append(problems, validateName(s.Name, id)...)
	}
	prefixes, found := validateSubnetCIDRs(s.Spec.CIDRs, spec.Child("cidrs"))
	problems = append(problems, found...)
	problems = append(problems, validateSubnetPlace(s.Spec.Pools, s.Spec.Zone, spec)...)
	problems = append(problems, validateProviderID(s.Spec.ProviderID, spec.Child("providerID"))...)
	if len(found) > 0 {
		// What gateways and reserved addresses must lie in is not known.
		return problems
	}
	problems = append(problems, validateGateway(s.Spec.Gateway, prefixes, spec.Child("gateway"))...)
	return append(problems, validateReserved(s.Spec.Reserved, prefixes, spec.Child("reserved"))...)
}

// validateSubnetCIDRs and validateSubnetPlace are what a Subnet and a Tenant's template of one have in common.
func validateSubnetCIDRs(cidrs []string, path *field.Path) ([]netip.Prefix, field.ErrorList) {
	if len(cidrs) == 0 {
		return nil, field.ErrorList{field.Required(path, "one prefix of IPv4, of IPv6 or of each, as in 10.0.1.0/24")}
	}
	prefixes, problems := parsePrefixes(cidrs, path)
	if len(problems) > 0 {
		return prefixes, problems
	}
	families := map[bool]bool{}
	for i, prefix := range prefixes {
		if families[prefix.Addr().Is4()] {
			problems = append(problems, field.Invalid(path.Index(i), cidrs[i], "must be the only prefix of its family: make another subnet"))
		}
		families[prefix.Addr().Is4()] = true
	}
	return prefixes, problems
}

func validateSubnetPlace(pools []string, zone string, spec *field.Path) field.ErrorList {
	var problems field.ErrorList
	for i, pool := range pools {
		for _, problem := range validation.IsDNS1123Label(pool) {
			problems = append(problems, field.Invalid(spec.Child("pools").Index(i), pool, problem))
		}
		if slices.Contains(pools[:i], pool) {
			problems = append(problems, field.Duplicate(spec.Child("pools").Index(i), pool))
		}
	}
	return append(problems, labelValue(spec.Child("zone"), zone)...)
}

func validateGateway(gateways []string, prefixes []netip.Prefix, path *field.Path) field.ErrorList {
	if len(gateways) != len(prefixes) {
		return field.ErrorList{field.Invalid(path, strings.Join(gateways, ","), "must have one address for each of spec.cidrs, in their order")}
	}
	var problems field.ErrorList
	for i, text := range gateways {
		gateway, err := ranges.ParseAddr(text)
		switch {
		case err != nil:
			problems = append(problems, field.Invalid(path.Index(i), text, err.Error()))
		case !prefixes[i].Contains(gateway):
			problems = append(problems, field.Invalid(path.Index(i), text, fmt.Sprintf("must be in %s", prefixes[i])))
		case gateway == prefixes[i].Addr():
			problems = append(problems, field.Invalid(path.Index(i), text, "must not be the first of the prefix, which stands for the subnet itself"))
		case gateway.Is4() && gateway == ranges.Last(prefixes[i]):
			problems = append(problems, field.Invalid(path.Index(i), text, "must not be the last of the prefix, which is for broadcasts"))
		}
	}
	return problems
}

func validateReserved(reserved []string, prefixes []netip.Prefix, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	if len(reserved) > mostReserved {
		problems = append(problems, field.TooMany(path, len(reserved), mostReserved))
	}
	for i, text := range reserved {
		r, err := ranges.ParseRange(text)
		if err != nil {
			problems = append(problems, field.Invalid(path.Index(i), text, err.Error()))
		} else if !slices.ContainsFunc(prefixes, r.Within) {
			problems = append(problems, field.Invalid(path.Index(i), text, "must be in one of spec.cidrs"))
		}
	}
	return problems
}

func validateSubnetUpdate(s, old *v1alpha1.Subnet) field.ErrorList {
	var problems field.ErrorList
	spec := field.NewPath("spec")
	if s.Spec.VPC != old.Spec.VPC {
		problems = append(problems, field.Forbidden(spec.Child("vpc"), "cannot be changed: a subnet is a part of one VPC for good"))
	}
	if !slices.Equal(s.Spec.CIDRs, old.Spec.CIDRs) {
		problems = append(problems, field.Forbidden(spec.Child("cidrs"), "cannot be changed: make another subnet"))
	}
	if s.Spec.Zone != old.Spec.Zone {
		problems = append(problems, field.Forbidden(spec.Child("zone"), "cannot be changed: make another subnet"))
	}
	if !slices.Equal(s.Spec.Gateway, old.Spec.Gateway) {
		problems = append(problems, field.Forbidden(spec.Child("gateway"), "cannot be changed: pods that run have it as their router"))
	}
	if lost := lostPools(s.Spec.Pools, old.Spec.Pools); lost != "" {
		problems = append(problems, field.Forbidden(spec.Child("pools"), "may only grow: "+lost))
	}
	return append(problems, validateProviderIDUpdate(s.Spec.ProviderID, old.Spec.ProviderID, spec.Child("providerID"))...)
}

// lostPools says which pools a change of spec.pools takes away; none of them named means all of them.
func lostPools(now, before []string) string {
	switch {
	case len(now) == 0:
		return ""
	case len(before) == 0:
		return "it was every pool"
	}
	for _, pool := range before {
		if !slices.Contains(now, pool) {
			return fmt.Sprintf("%q is missing", pool)
		}
	}
	return ""
}

// validateSubnetStatus keeps a segment's number: pods that run speak under it.
func validateSubnetStatus(s, old *v1alpha1.Subnet) field.ErrorList {
	if old.Status.VNI == 0 || s.Status.VNI == old.Status.VNI {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("status", "vni"), "cannot be changed: pods that run speak under it")}
}
