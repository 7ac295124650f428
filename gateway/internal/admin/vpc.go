package admin

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/ranges"
)

func vpcKind(serial *sync.Mutex) kind[v1alpha1.VPC, *v1alpha1.VPC] {
	return kind[v1alpha1.VPC, *v1alpha1.VPC]{
		resource:       "vpcs",
		singular:       "vpc",
		serial:         serial,
		finalizers:     []string{v1alpha1.FinalizerNetwork},
		list:           func() runtime.Object { return &v1alpha1.VPCList{} },
		columns:        vpcColumns(),
		validate:       validateVPC,
		validateUpdate: validateVPCUpdate,
		parts: func(v *v1alpha1.VPC) parts {
			return parts{
				spec:       v.Spec,
				status:     v.Status,
				conditions: v.Status.Conditions,
				copySpec:   func(from runtime.Object) { v.Spec = from.(*v1alpha1.VPC).Spec },
				copyStatus: func(from runtime.Object) { v.Status = from.(*v1alpha1.VPC).Status },
			}
		},
	}
}

func vpcColumns() []column[*v1alpha1.VPC] {
	type vpc = *v1alpha1.VPC
	return []column[vpc]{
		nameOf[vpc](),
		{name: "Tenant", kind: text, description: "Tenant whose pods may join.", value: func(v vpc) any { return v.Spec.Tenant }},
		{name: "CIDRs", kind: text, description: "Prefixes of the VPC.", value: func(v vpc) any { return strings.Join(v.Spec.CIDRs, ",") }},
		{name: "Ready", kind: text, description: "Whether every pool that it was asked for in can have its pods.", value: func(v vpc) any { return conditionStatus(v.Status.Conditions, v1alpha1.VPCReady) }},
		ageOf[vpc](),
		{name: "Egress", kind: text, wide: true, description: "How pods reach what is outside of the VPC.", value: func(v vpc) any { return string(v.Spec.Egress) }},
		{name: "Pools", kind: text, wide: true, description: "Pools in which the VPC is ready, of those it was asked for in.", value: func(v vpc) any { return readyPools(v.Status.Pools) }},
		{name: "Message", kind: text, wide: true, description: "What the VPC waits for.", value: func(v vpc) any { return trouble(v.Status.Conditions, v1alpha1.VPCReady) }},
	}
}

func readyPools(pools []v1alpha1.PoolBinding) string {
	ready := 0
	for _, p := range pools {
		if p.Ready {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, len(pools))
}

// mostCIDRs bounds the prefixes of one VPC.
const mostCIDRs = 4

// sizeProblem says what a prefix of a VPC or of a subnet may not be.
func sizeProblem(prefix netip.Prefix) string {
	least, most := 16, 28
	if prefix.Addr().Is6() {
		least, most = 48, 120
	}
	if bits := prefix.Bits(); bits < least || bits > most {
		return fmt.Sprintf("must be from /%d to /%d", least, most)
	}
	return ""
}

// parsePrefixes reads the prefixes of a VPC or of a subnet, and complains about each that no VPC may have.
func parsePrefixes(texts []string, path *field.Path) ([]netip.Prefix, field.ErrorList) {
	var problems field.ErrorList
	var prefixes []netip.Prefix
	for i, text := range texts {
		prefix, err := ranges.ParsePrefix(text)
		if err != nil {
			problems = append(problems, field.Invalid(path.Index(i), text, err.Error()))
			continue
		}
		if problem := sizeProblem(prefix); problem != "" {
			problems = append(problems, field.Invalid(path.Index(i), text, problem))
		}
		if taken, reason, ok := ranges.Reserved(prefix); ok {
			problems = append(problems, field.Invalid(path.Index(i), text, fmt.Sprintf("overlaps %s, which is for %s", taken, reason)))
		}
		if other, ok := ranges.Overlapping(prefix, prefixes); ok {
			problems = append(problems, field.Invalid(path.Index(i), text, fmt.Sprintf("overlaps %s beside it", other)))
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, problems
}

// validateName checks a name that is made of a tenant's ID and a label.
func validateName(name string, id names.TenantID) field.ErrorList {
	path := field.NewPath("metadata", "name")
	label, err := id.NameToTenant(name)
	if err != nil {
		return field.ErrorList{field.Invalid(path, name, fmt.Sprintf("must be the tenant's ID, a dash and a name, as in %q", id.NameToControl("main")))}
	}
	var problems field.ErrorList
	for _, problem := range validation.IsDNS1123Label(label) {
		problems = append(problems, field.Invalid(path, name, "after the tenant's ID and a dash: "+problem))
	}
	return problems
}

func validateVPC(v *v1alpha1.VPC) field.ErrorList {
	var problems field.ErrorList
	spec := field.NewPath("spec")
	if v.Spec.Tenant == "" {
		problems = append(problems, field.Required(spec.Child("tenant"), "ID of the tenant whose pods may join"))
	} else if id, err := names.ParseTenantID(v.Spec.Tenant); err != nil {
		problems = append(problems, field.Invalid(spec.Child("tenant"), v.Spec.Tenant, err.Error()))
	} else {
		problems = append(problems, validateName(v.Name, id)...)
	}
	return append(problems, validateVPCSpec(&v.Spec, spec)...)
}

// validateVPCSpec is what a VPC and a Tenant's template of one have in common.
func validateVPCSpec(v *v1alpha1.VPCSpec, spec *field.Path) field.ErrorList {
	var problems field.ErrorList
	cidrs := spec.Child("cidrs")
	switch n := len(v.CIDRs); {
	case n == 0:
		problems = append(problems, field.Required(cidrs, "prefixes of the VPC, as in 10.0.0.0/16"))
	case n > mostCIDRs:
		problems = append(problems, field.TooMany(cidrs, n, mostCIDRs))
	}
	_, found := parsePrefixes(v.CIDRs, cidrs)
	problems = append(problems, found...)
	if v.MTU != 0 {
		problems = append(problems, outOfRange(spec.Child("mtu"), v.MTU, 1280, 9000)...)
	}
	if modes := v1alpha1.EgressModes(); !slices.Contains(modes, v.Egress) {
		problems = append(problems, field.NotSupported(spec.Child("egress"), v.Egress, modes))
	}
	problems = append(problems, validateProviderID(v.ProviderID, spec.Child("providerID"))...)
	return append(problems, validateSecurityGroups(v.SecurityGroups, spec.Child("securityGroups"))...)
}

var providerIDs = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// validateProviderID checks what becomes a part of annotations that are lists.
func validateProviderID(id string, path *field.Path) field.ErrorList {
	if id == "" || providerIDs.MatchString(id) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, id, "must be 1 to 128 letters, digits, dots, dashes and underscores")}
}

// validateProviderIDUpdate keeps what pods that run are in.
func validateProviderIDUpdate(id, old string, path *field.Path) field.ErrorList {
	if old == "" || id == old {
		return nil
	}
	return field.ErrorList{field.Forbidden(path, "cannot be changed: pods that run are there")}
}

func validateVPCUpdate(v, old *v1alpha1.VPC) field.ErrorList {
	var problems field.ErrorList
	spec := field.NewPath("spec")
	if v.Spec.Tenant != old.Spec.Tenant {
		problems = append(problems, field.Forbidden(spec.Child("tenant"), "cannot be changed: a VPC is one tenant's for good"))
	}
	if n := len(old.Spec.CIDRs); len(v.Spec.CIDRs) < n || !slices.Equal(v.Spec.CIDRs[:n], old.Spec.CIDRs) {
		problems = append(problems, field.Forbidden(spec.Child("cidrs"), fmt.Sprintf("may only be appended to: must begin with %s", strings.Join(old.Spec.CIDRs, ", "))))
	}
	if v.Spec.MTU != old.Spec.MTU {
		problems = append(problems, field.Forbidden(spec.Child("mtu"), "cannot be changed: pods that run keep theirs"))
	}
	return append(problems, validateProviderIDUpdate(v.Spec.ProviderID, old.Spec.ProviderID, spec.Child("providerID"))...)
}

// mostGroups and mostRules bound what every node that has pods of a VPC must filter by.
const (
	mostGroups = 64
	mostRules  = 64
)

func validateSecurityGroups(groups []v1alpha1.SecurityGroup, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	if len(groups) > mostGroups {
		problems = append(problems, field.TooMany(path, len(groups), mostGroups))
	}
	known := map[string]bool{}
	for i, g := range groups {
		name := path.Index(i).Child("name")
		for _, problem := range validation.IsDNS1123Label(g.Name) {
			problems = append(problems, field.Invalid(name, g.Name, problem))
		}
		if known[g.Name] {
			problems = append(problems, field.Duplicate(name, g.Name))
		}
		known[g.Name] = true
		problems = append(problems, validateProviderID(g.ProviderID, path.Index(i).Child("providerID"))...)
		if g.ProviderID != "" && len(g.Ingress)+len(g.Egress) > 0 {
			problems = append(problems, field.Forbidden(path.Index(i).Child("providerID"), "a group of a provider has its rules there, and none here"))
		}
	}
	for i, g := range groups {
		for direction, rules := range map[string][]v1alpha1.SecurityRule{"ingress": g.Ingress, "egress": g.Egress} {
			at := path.Index(i).Child(direction)
			if len(rules) > mostRules {
				problems = append(problems, field.TooMany(at, len(rules), mostRules))
			}
			for j, rule := range rules {
				problems = append(problems, validateRule(rule, known, at.Index(j))...)
			}
		}
	}
	return problems
}

func validateRule(rule v1alpha1.SecurityRule, groups map[string]bool, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	if known := v1alpha1.Protocols(); rule.Protocol != "" && !slices.Contains(known, rule.Protocol) {
		problems = append(problems, field.NotSupported(path.Child("protocol"), rule.Protocol, known))
	}
	if len(rule.Ports) > 0 && rule.Protocol != v1alpha1.ProtocolTCP && rule.Protocol != v1alpha1.ProtocolUDP {
		problems = append(problems, field.Forbidden(path.Child("ports"), "only protocols TCP and UDP have ports"))
	}
	for i, ports := range rule.Ports {
		if problem := portsProblem(ports); problem != "" {
			problems = append(problems, field.Invalid(path.Child("ports").Index(i), ports, problem))
		}
	}
	for i, cidr := range rule.CIDRs {
		if _, err := ranges.ParsePrefix(cidr); err != nil {
			problems = append(problems, field.Invalid(path.Child("cidrs").Index(i), cidr, err.Error()))
		}
	}
	for i, group := range rule.Groups {
		if !groups[group] {
			problems = append(problems, field.NotFound(path.Child("groups").Index(i), group))
		}
	}
	return problems
}

func portsProblem(ports string) string {
	const want = "must be a port or a range of ports from 1 to 65535, as in 443 or 8000-8099"
	from, to, isRange := strings.Cut(ports, "-")
	first, ok := port(from)
	if !ok {
		return want
	}
	if !isRange {
		return ""
	}
	if last, ok := port(to); !ok || last < first {
		return want
	}
	return ""
}

func port(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == text
}
