package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// Custom resources come from an encoder that knows no type: keys stand in alphabetical order, so kind comes behind items
// and may come behind any other member. What a document is about is known from the URL; what it says of itself is checked
// when it comes, and a document that turns out to be something else breaks.

// customRoot finds the table of a custom kind: its metadata and nothing else. Its group is the control cluster's.
func (v View) customRoot(k Kind) (rules.Root, bool) {
	switch k.Subresource {
	case "", "status":
		return rules.Custom(v.groupToControl(k.Group), k.Version, k.Kind, k.Namespaced), true
	case "scale":
		return rules.CustomScale(k.Namespaced), true
	}
	return rules.Root{}, false
}

// listKind is what lists of the kind are called.
func (r *response) listKind() string {
	if r.kind.ListKind != "" {
		return r.kind.ListKind
	}
	return r.root.List
}

// assume fills in what a document has not said of itself yet.
func (r *response) assume(kind, apiVersion string) (string, string) {
	if kind == "" {
		kind = r.root.Kind
		if r.kind.Collection {
			kind = r.listKind()
		}
	}
	if apiVersion == "" {
		apiVersion = r.groupVersion()
	}
	return kind, apiVersion
}

// late is a member handler that checks what a document says of itself in the middle.
func (r *response) late(kind, apiVersion string, f member) member {
	return func(r *response, key string) error {
		if key != "kind" && key != "apiVersion" {
			return f(r, key)
		}
		text, err := r.captureText()
		if err != nil {
			return err
		}
		if key == "kind" && text != kind || key == "apiVersion" && text != apiVersion {
			return foreign("%s %q where %s %s was asked for", key, text, apiVersion, kind)
		}
		if key == "apiVersion" {
			text, _ = r.view.groupVersionToTenant(text)
		}
		return r.emitText(text)
	}
}

// ofRoot walks a member of a whole object.
func (r *response) ofRoot(key string) error { return r.child(r.root.Place, key) }

func (r *response) emitText(s string) error {
	r.scratch = jsonwire.AppendQuoted(r.scratch[:0], s)
	return r.Emit(r.scratch)
}

// kindClass says how the names of objects of a kind differ between the tenant and the control cluster. apiVersion is the
// tenant's; references may leave it out, and the few cluster-scoped kinds that they then can mean have names of their own.
func (v View) kindClass(apiVersion, kind string) nameClass {
	group, _, given := cutGroupVersion(apiVersion)
	switch {
	case group == "apiextensions.k8s.io" && kind == "CustomResourceDefinition":
		return crdNames
	case given && v.Customs != nil && !rules.BuiltInGroup(group):
		if namespaced, known := v.Customs.ScopeOfKind(group, kind); known && !namespaced {
			return prefixedNames
		}
		return plainNames
	}
	if cluster, prefixed := scopeOf(apiVersion, kind); cluster && prefixed {
		return prefixedNames
	}
	return plainNames
}

// clusterKind reports whether a kind is cluster-scoped. apiVersion is the tenant's.
func (v View) clusterKind(apiVersion, kind string) bool {
	if group, _, given := cutGroupVersion(apiVersion); given && v.Customs != nil && !rules.BuiltInGroup(group) {
		namespaced, known := v.Customs.ScopeOfKind(group, kind)
		return known && !namespaced
	}
	cluster, _ := scopeOf(apiVersion, kind)
	return cluster
}

// scopeOf finds the scope of a built-in kind. References may leave out the version; the few cluster-scoped kinds that a
// tenant can refer to have names of their own.
func scopeOf(apiVersion, kind string) (cluster, prefixed bool) {
	if apiVersion == "" {
		for _, group := range [...]string{"", "rbac.authorization.k8s.io"} {
			if cluster, prefixed = rules.ClusterScoped(group, kind); cluster {
				break
			}
		}
		return cluster, prefixed
	}
	group, _, _ := cutGroupVersion(apiVersion)
	return rules.ClusterScoped(group, kind)
}

// kindNameToTenant is the inverse of resourceNameToControl for what a reference names; false means that it is not the
// tenant's. Of a kind of the tenant's own that is gone, nobody knows how its names were written.
func (v View) kindNameToTenant(apiVersion, kind, name string) (string, bool) {
	class := v.kindClass(apiVersion, kind)
	group, _, given := cutGroupVersion(apiVersion)
	if class == prefixedNames && (!given || rules.BuiltInGroup(group)) {
		return v.objectToTenant(kind, name)
	}
	own, ok := v.resourceNameToTenant(class, name)
	if !given || v.sharedGroup(group) || class == crdNames {
		return own, ok
	}
	if ok && class == prefixedNames {
		return own, true
	}
	if v.Customs != nil {
		if _, known := v.Customs.ScopeOfKind(group, kind); known {
			return name, true
		}
	}
	if own, err := v.Tenant.NameToTenant(name); err == nil {
		return own, true
	}
	return name, true
}

// definitionToControl translates the name of a CustomResourceDefinition.
func (q *request) definitionToControl(name, path string) (string, error) {
	if name == "" {
		return "", nil
	}
	control, err := q.view.Tenant.DefinitionToControl(name)
	if err != nil {
		return "", invalid(path, "%s", err)
	}
	return control, nil
}

func isDefinition(k Kind) bool {
	return k.Group == "apiextensions.k8s.io" && k.Resource == "customresourcedefinitions"
}

// conversionToControl refuses what would have the control cluster call a tenant.
func conversionToControl(strategy, path string) error {
	if strategy != "None" {
		return forbidden(path, "conversion webhooks are not served yet: serve versions of one schema with strategy None")
	}
	return nil
}

// definitionGroupToControl translates the group of a CustomResourceDefinition, which must be the tenant's own.
func (q *request) definitionGroupToControl(group, path string) (string, error) {
	if q.view.sharedGroup(group) || names.Reserved(group+"/") {
		return "", forbidden(path, "the API group %q belongs to Kubernetes or to the platform: use a group of your own", group)
	}
	control, err := q.view.Tenant.GroupToControl(group)
	if err != nil {
		return "", invalid(path, "%s", err)
	}
	return control, nil
}

// columnRules are the columns of a custom kind's table: its own, and the object's name, which the API server adds.
func (k Kind) columnRules() map[string]columnRule {
	out := map[string]columnRule{}
	for name := range strings.SplitSeq(k.Columns, "\n") {
		out[name] = textCell
	}
	if !k.Namespaced {
		out["Name"] = nameCell
	}
	return out
}
