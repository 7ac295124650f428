package translate

import (
	"slices"

	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// bodyRoot finds the table of what a request to a resource or subresource carries and its answer shows.
func (v View) bodyRoot(k Kind) (rules.Root, bool) {
	if k.Custom {
		return v.customRoot(k)
	}
	return bodyRoot(k)
}

func bodyRoot(k Kind) (rules.Root, bool) {
	switch k.Subresource {
	case "", "status":
		return rules.For(k.Group, k.Version, k.Kind)
	case "finalize":
		if k.Group == "" && k.Resource == "namespaces" {
			return rules.For("", "v1", "Namespace")
		}
	case "approval":
		if k.Group == "certificates.k8s.io" && k.Resource == "certificatesigningrequests" {
			return rules.For(k.Group, k.Version, k.Kind)
		}
	case "scale":
		if k.Group == "apps" || k.Group == "" && k.Resource == "replicationcontrollers" {
			return rules.For("autoscaling", "v1", "Scale")
		}
	case "eviction":
		if k.Group == "" && k.Resource == "pods" {
			return rules.For("policy", "v1", "Eviction")
		}
	case "token":
		if k.Group == "" && k.Resource == "serviceaccounts" {
			return rules.For("authentication.k8s.io", "v1", "TokenRequest")
		}
	case "ephemeralcontainers", "resize":
		if k.Group == "" && k.Resource == "pods" {
			return rules.For("", "v1", "Pod")
		}
	}
	return rules.Root{}, false
}

// Supported reports whether there is a rule table for a kind and its subresource. Everything else must be refused.
// Subresources that carry no object (log, exec, attach, portforward, proxy) have none: only their query is translated.
func Supported(k Kind) bool {
	r, ok := View{}.bodyRoot(k)
	return ok && (k.Subresource != "" || r.Namespaced == k.Namespaced)
}

// groupToControl gives the control cluster's name of an API group. "*" is every group there is, and a tenant's requests
// only ever name its own.
func (v View) groupToControl(group string) string {
	if v.sharedGroup(group) || group == "*" || group == "" {
		return group
	}
	return v.Tenant.NameToControl(group)
}

// groupToTenant is the inverse of groupToControl; false means that the group is not the tenant's to see.
func (v View) groupToTenant(group string) (string, bool) {
	if v.sharedGroup(group) || group == "*" || group == "" {
		return group, true
	}
	name, err := v.Tenant.NameToTenant(group)
	if err != nil || v.sharedGroup(name) {
		return "", false
	}
	return name, true
}

func (v View) sharedGroup(group string) bool {
	return rules.BuiltInGroup(group) || slices.Contains(v.SharedGroups, group)
}

// groupVersionToControl does the same with "group/version"; the core group's "v1" has no group to translate.
func (v View) groupVersionToControl(gv string) string {
	group, version, ok := cutGroupVersion(gv)
	if !ok {
		return gv
	}
	return v.groupToControl(group) + "/" + version
}

// groupVersionToTenant is the inverse of groupVersionToControl.
func (v View) groupVersionToTenant(gv string) (string, bool) {
	group, version, ok := cutGroupVersion(gv)
	if !ok {
		return gv, true
	}
	group, ok = v.groupToTenant(group)
	return group + "/" + version, ok
}

func cutGroupVersion(gv string) (group, version string, ok bool) {
	for i := range len(gv) {
		if gv[i] == '/' {
			return gv[:i], gv[i+1:], true
		}
	}
	return "", gv, false
}
