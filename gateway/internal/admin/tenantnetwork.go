package admin

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// mostSubnets bounds the subnets that one Tenant object makes.
const mostSubnets = 32

func validateTenantNetwork(id names.TenantID, network v1alpha1.TenantNetwork, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	switch network.Mode {
	case v1alpha1.NetworkFlat:
		for part, set := range map[string]bool{"vpc": network.VPC != "", "template": network.Template != nil, "defaultSubnets": len(network.DefaultSubnets) > 0} {
			if set {
				problems = append(problems, field.Forbidden(path.Child(part), fmt.Sprintf("is for mode %s alone", v1alpha1.NetworkVPC)))
			}
		}
		return problems
	case v1alpha1.NetworkVPC:
	default:
		return field.ErrorList{field.NotSupported(path.Child("mode"), network.Mode, v1alpha1.NetworkModes())}
	}
	switch {
	case network.VPC == "" && network.Template == nil:
		problems = append(problems, field.Required(path.Child("vpc"), "name of the tenant's VPC, or spec.network.template to make one with the tenant"))
	case network.VPC != "" && network.Template != nil:
		problems = append(problems, field.Forbidden(path.Child("template"), "excludes spec.network.vpc: a tenant has one VPC"))
	case network.VPC != "" && !id.Owns(network.VPC):
		problems = append(problems, field.Invalid(path.Child("vpc"), network.VPC, fmt.Sprintf("is not this tenant's: its VPCs are named as in %q", id.NameToControl("main"))))
	}
	if network.Template != nil {
		problems = append(problems, validateTemplate(network.Template, path.Child("template"))...)
	}
	for i, name := range network.DefaultSubnets {
		at := path.Child("defaultSubnets").Index(i)
		for _, problem := range validation.IsDNS1123Label(name) {
			problems = append(problems, field.Invalid(at, name, problem))
		}
		if slices.Contains(network.DefaultSubnets[:i], name) {
			problems = append(problems, field.Duplicate(at, name))
		}
	}
	return problems
}

func validateTemplate(template *v1alpha1.VPCTemplate, path *field.Path) field.ErrorList {
	vpc := v1alpha1.VPC{Spec: v1alpha1.VPCSpec{CIDRs: template.CIDRs, MTU: template.MTU, Egress: template.Egress}}
	v1alpha1.SetDefaultsVPC(&vpc)
	problems := validateVPCSpec(&vpc.Spec, path)
	at := path.Child("subnets")
	switch n := len(template.Subnets); {
	case n == 0:
		problems = append(problems, field.Required(at, "pods have addresses of subnets alone"))
	case n > mostSubnets:
		problems = append(problems, field.TooMany(at, n, mostSubnets))
	}
	others := map[string][]string{}
	for i, s := range template.Subnets {
		here := at.Index(i)
		for _, problem := range validation.IsDNS1123Label(s.Name) {
			problems = append(problems, field.Invalid(here.Child("name"), s.Name, problem))
		}
		if others[s.Name] != nil {
			problems = append(problems, field.Duplicate(here.Child("name"), s.Name))
		}
		_, found := validateSubnetCIDRs(s.CIDRs, here.Child("cidrs"))
		problems = append(problems, found...)
		problems = append(problems, validateSubnetPlace(s.Pools, s.Zone, here)...)
		problems = append(problems, cidrsInVPC(s.CIDRs, template.CIDRs, "the VPC", others, here.Child("cidrs"))...)
		others[s.Name] = append([]string{}, s.CIDRs...)
	}
	return problems
}
