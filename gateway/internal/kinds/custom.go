package kinds

import "slices"

// Custom is what a CustomResourceDefinition says of its kind besides what every [Kind] has.
type Custom struct {
	// Shared says that the group is the operator's and has the same name in both worlds. Otherwise it is the tenant's own and
	// carries its prefix in the control cluster.
	Shared bool
	// ListKind is the kind of a list.
	ListKind string
	// Columns are, by version, the columns of a table that show an object's metadata, one per line.
	Columns map[string]string
}

// NewCustom makes a custom kind; status and scale hold the versions that have the subresource.
func NewCustom(group, resource, kind string, isNamespaced bool, versions, status, scale []string, custom *Custom) *Kind {
	k := namespaced(group, resource, kind, everything)
	k.Versions, k.Custom = versions, custom
	if !isNamespaced {
		k.Namespaced, k.Confined = false, ByName
	}
	for name, with := range map[string][]string{"status": status, "scale": scale} {
		if len(with) == 0 {
			continue
		}
		k.sub(name, statusWrites)
		if k.only == nil {
			k.only = map[string][]string{}
		}
		k.only[name] = with
	}
	return k
}

// NewNetwork makes a kind of the tenant's network: it looks like a custom kind, and can be read alone.
func NewNetwork(group, resource, kind, version string, custom *Custom) *Kind {
	k := cluster(group, resource, kind, reading).because(whyNetwork).versions(version)
	k.Confined, k.Custom = Network, custom
	return k
}

// has reports whether a version has a subresource.
func (k *Kind) has(version, subresource string) bool {
	only, limited := k.only[subresource]
	return !limited || slices.Contains(only, version)
}

// definitions are the CustomResourceDefinitions themselves.
func definitions() *Kind {
	k := cluster("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition", everything).
		sub("status", statusWrites)
	k.Confined = ByDefinition
	return k
}
