package translate

import (
	"slices"
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// nameClass says how the names of a resource differ between the tenant and the control cluster.
type nameClass uint8

const (
	plainNames    nameClass = 1 << iota // as they are: namespaced objects and what the operator offers
	prefixedNames                       // cluster-scoped objects of the tenant
	crdNames                            // "<plural>.<group>", the group translated
	userNames                           // for the verb impersonate
	groupNames
)

func (v View) nameClassOf(group, resource string) nameClass {
	switch {
	case resource == "users" && !strings.Contains(group, "."):
		return userNames
	case resource == "groups" && !strings.Contains(group, "."):
		return groupNames
	case resource == "users" && group == "authentication.k8s.io":
		return userNames
	case resource == "groups" && group == "authentication.k8s.io":
		return groupNames
	case resource == "customresourcedefinitions" && (group == "apiextensions.k8s.io" || group == "*"):
		return crdNames
	}
	if group == "*" {
		// In any group: prefixed if some built-in resource of that name is.
		for _, g := range []string{"", "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiregistration.k8s.io", "certificates.k8s.io", "flowcontrol.apiserver.k8s.io", "networking.k8s.io"} {
			if prefixed, known := rules.PrefixedResource(g, resource); known && prefixed {
				return prefixedNames
			}
		}
		return plainNames
	}
	if v.Customs != nil && !rules.BuiltInGroup(group) {
		if namespaced, known := v.Customs.ScopeOfResource(group, resource); known && !namespaced {
			return prefixedNames
		}
		return plainNames
	}
	if prefixed, _ := rules.PrefixedResource(group, resource); prefixed {
		return prefixedNames
	}
	return plainNames
}

func (v View) resourceNameToControl(class nameClass, name string) string {
	switch class {
	case prefixedNames:
		return v.Tenant.NameToControl(name)
	case crdNames:
		if plural, group, ok := names.SplitDefinition(name); ok {
			return names.JoinDefinition(plural, v.groupToControl(group))
		}
	case userNames:
		return v.Tenant.UserToControl(name)
	case groupNames:
		return v.Tenant.UserGroupToControl(name)
	}
	return name
}

// resourceNameToTenant is the inverse; false means that the name is not the tenant's.
func (v View) resourceNameToTenant(class nameClass, name string) (string, bool) {
	var own string
	var err error
	switch class {
	case prefixedNames:
		own, err = v.Tenant.NameToTenant(name)
	case crdNames:
		plural, group, ok := names.SplitDefinition(name)
		if !ok {
			return name, true
		}
		group, ok = v.groupToTenant(group)
		return names.JoinDefinition(plural, group), ok
	case userNames:
		own, err = v.Tenant.UserToTenant(name)
	case groupNames:
		own, err = v.Tenant.UserGroupToTenant(name)
	default:
		return name, true
	}
	return own, err == nil
}

func texts(list *jsonwire.Value) []string {
	out := make([]string, 0, len(list.Elems()))
	for _, e := range list.Elems() {
		out = append(out, e.Text())
	}
	return out
}

func (q *request) roleRefToControl(ref *jsonwire.Value, path string) error {
	kind, name := ref.Get("kind"), ref.Get("name")
	if name.Text() == "" {
		return nil
	}
	switch kind.Text() {
	case "ClusterRole":
		name.SetText(q.view.Tenant.NameToControl(name.Text()))
	case "Role":
	case "":
		return invalid(path, "name a role together with its kind")
	default:
		return invalid(path+".kind", "must be Role or ClusterRole")
	}
	return nil
}

// roleRefToTenant is the inverse; the name of another world's role is hidden.
func (r *response) roleRefToTenant(ref *jsonwire.Value) {
	if name := ref.Get("name"); ref.Get("kind").Text() == "ClusterRole" && name.Text() != "" {
		own, err := r.view.Tenant.NameToTenant(name.Text())
		if err != nil {
			own = ""
		}
		name.SetText(own)
	}
}

func (q *request) subjectsToControl(list *jsonwire.Value, path string) error {
	for _, s := range list.Elems() {
		name, ns := s.Get("name"), s.Get("namespace")
		switch s.Get("kind").Text() {
		case "User":
			if name.Text() != "" {
				name.SetText(q.view.Tenant.UserToControl(name.Text()))
			}
		case "Group":
			if name.Text() != "" {
				name.SetText(q.view.Tenant.UserGroupToControl(name.Text()))
			}
		case "ServiceAccount":
			if ns.Text() == "" {
				continue
			}
			control, err := q.view.namespaceToControl(ns.Text(), path+".namespace")
			if err != nil {
				return err
			}
			ns.SetText(control)
		default:
			if !isDirective(s) {
				return invalid(path+".kind", "must be User, Group or ServiceAccount")
			}
		}
	}
	return nil
}

// subjectsToTenant is the inverse; subjects of another world are left out.
func (r *response) subjectsToTenant(list *jsonwire.Value) {
	list.SetElems(slices.DeleteFunc(list.Elems(), func(s *jsonwire.Value) bool {
		name, ns := s.Get("name"), s.Get("namespace")
		var own string
		var err error
		switch s.Get("kind").Text() {
		case "User":
			own, err = r.view.Tenant.UserToTenant(name.Text())
		case "Group":
			own, err = r.view.Tenant.UserGroupToTenant(name.Text())
		case "ServiceAccount":
			own, name = r.namespaceToTenant(ns.Text()), ns
			if own == "" {
				return true
			}
		default:
			return true
		}
		if err != nil {
			return true
		}
		name.SetText(own)
		return false
	}))
}

// isDirective reports whether a list element is nothing but an instruction of a strategic merge patch.
func isDirective(v *jsonwire.Value) bool {
	return len(v.Members()) == 1 && directive(v.Members()[0].Key)
}

// aggregationToControl keeps an aggregated ClusterRole to roles of its own tenant.
func (q *request) aggregationToControl(rule *jsonwire.Value, path string) error {
	for _, sel := range rule.Get("clusterRoleSelectors").Elems() {
		if sel.Kind() != jsonwire.Object {
			// Readers take null for a selector of everything.
			return invalid(path+".clusterRoleSelectors", "must be label selectors, not %s", sel.Kind())
		}
		for _, m := range sel.Members() {
			if m.Key != "matchLabels" && m.Key != "matchExpressions" {
				return invalid(path, "unknown member %q of a label selector", m.Key)
			}
		}
		if err := q.keysToControl(rules.ClusterRoleLabels, sel.Get("matchLabels"), path); err != nil {
			return err
		}
		for _, req := range sel.Get("matchExpressions").Elems() {
			if key := req.Get("key"); key.Text() != "" {
				control, err := q.keyToControl(rules.ClusterRoleLabels, key.Text(), path)
				if err != nil {
					return err
				}
				key.SetText(control)
			}
		}
		if sel.Get("matchLabels").Kind() != jsonwire.Object {
			sel.Set("matchLabels", jsonwire.NewObject())
		}
		sel.Get("matchLabels").Set(names.LabelTenant, jsonwire.NewString(string(q.view.Tenant)))
	}
	return nil
}

// aggregationToTenant is the inverse.
func (r *response) aggregationToTenant(rule *jsonwire.Value) {
	for _, sel := range rule.Get("clusterRoleSelectors").Elems() {
		if labels := sel.Get("matchLabels"); labels.Kind() == jsonwire.Object {
			r.keysToTenant(rules.ClusterRoleLabels, labels)
			if len(labels.Members()) == 0 {
				sel.Delete("matchLabels")
			}
		}
		if requirements := sel.Get("matchExpressions"); requirements.Kind() == jsonwire.Array {
			requirements.SetElems(slices.DeleteFunc(requirements.Elems(), func(req *jsonwire.Value) bool {
				own, ok := keyToTenant(rules.ClusterRoleLabels, req.Get("key").Text())
				if ok && own != "" {
					req.Get("key").SetText(own)
				}
				return !ok
			}))
		}
	}
}
