package names

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// MaxTenantGroup is the longest API group a tenant may have: a control group is a DNS subdomain, and the prefix takes
// seven characters of it.
const MaxTenantGroup = validation.DNS1123SubdomainMaxLength - idLength - 1

// MaxTenantDefinition is the longest name of a CustomResourceDefinition a tenant may have, for the same reason.
const MaxTenantDefinition = validation.DNS1123SubdomainMaxLength - idLength - 1

// GroupToControl gives the control form of an API group of the tenant's own. It fails, in the tenant's words, on a group
// that is longer than [MaxTenantGroup]; whether it is a group at all is the API server's to say. Groups of Kubernetes and
// of the operator have no control form: whoever calls knows that it is none of them.
func (t TenantID) GroupToControl(group string) (string, error) {
	if len(group) > MaxTenantGroup {
		return "", fmt.Errorf("API group %q: must be no more than %d characters", group, MaxTenantGroup)
	}
	return t.Prefix() + group, nil
}

// GroupToTenant is the inverse of [TenantID.GroupToControl]; it returns [ErrForeign] for a group that is not the tenant's.
func (t TenantID) GroupToTenant(control string) (string, error) { return t.NameToTenant(control) }

// SplitGroup finds the tenant of a control API group by its shape. It does not know whether that Tenant exists, nor
// whether the group is the operator's by chance: whoever acts on the answer must check.
func SplitGroup(control string) (id TenantID, group string, ok bool) {
	return SplitName(control)
}

// SplitDefinition cuts the name of a CustomResourceDefinition, in either world, into its plural and its group. A plural is
// a DNS label, so the first dot decides.
func SplitDefinition(name string) (plural, group string, ok bool) {
	plural, group, ok = strings.Cut(name, ".")
	return plural, group, ok && plural != "" && group != ""
}

// JoinDefinition is the inverse of [SplitDefinition].
func JoinDefinition(plural, group string) string { return plural + "." + group }

// DefinitionToControl gives the control name of a CustomResourceDefinition of the tenant, "widgets.example.com": the group
// is prefixed, not the name. It fails, in the tenant's words, on a name that is too long or has no group.
func (t TenantID) DefinitionToControl(name string) (string, error) {
	if len(name) > MaxTenantDefinition {
		return "", fmt.Errorf("name %q: must be no more than %d characters", name, MaxTenantDefinition)
	}
	plural, group, ok := SplitDefinition(name)
	if !ok {
		return "", fmt.Errorf("name %q: must be the plural and the group, as in \"widgets.example.com\"", name)
	}
	return JoinDefinition(plural, t.Prefix()+group), nil
}

// DefinitionToTenant is the inverse of [TenantID.DefinitionToControl]; it returns [ErrForeign] for a definition in another
// group than the tenant's.
func (t TenantID) DefinitionToTenant(control string) (string, error) {
	plural, group, ok := SplitDefinition(control)
	if !ok {
		return "", ErrForeign
	}
	own, err := t.GroupToTenant(group)
	if err != nil {
		return "", err
	}
	return JoinDefinition(plural, own), nil
}
