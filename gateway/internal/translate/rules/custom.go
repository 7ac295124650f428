package rules

// Objects of custom kinds have metadata like any other; what else is in them is their owner's word and passes. Their table
// is therefore one for all namespaced and one for all cluster-scoped kinds.

var (
	customNamespaced = customPlace("Role", "")
	customCluster    = customPlace("ClusterRoleBinding", "")
	scaleCluster     = customPlace("ClusterRoleBinding", "autoscaling/v1")
)

// customPlace takes the metadata of a built-in kind that has nothing of its own there. With apiVersion the object is of a
// built-in version, which passes.
func customPlace(like, apiVersion string) *Place {
	of := table[rootKey{"rbac.authorization.k8s.io", "v1", like}]
	p := &Place{Shape: Object, Fields: []Field{{"metadata", of.Child([]byte("metadata"))}}, Wire: []WireField{*of.OnWire(1)}}
	if apiVersion == "" {
		p.Fields = append(p.Fields, Field{"apiVersion", &Place{Op: GroupVersion, Value: WireString}})
	}
	return p
}

// The tables for answers of custom kinds.
var (
	customNamespacedAnswer = ToTenant(customNamespaced)
	customClusterAnswer    = ToTenant(customCluster)
	scaleClusterAnswer     = ToTenant(scaleCluster)
)

// Custom makes the table of a custom kind, whose group is the tenant's word for it.
func Custom(group, version, kind string, namespaced bool) Root {
	r := Root{Group: group, Version: version, Kind: kind, Namespaced: namespaced, Prefixed: !namespaced, Custom: true,
		Place: customNamespaced, ToTenant: customNamespacedAnswer}
	if !namespaced {
		r.Place, r.ToTenant = customCluster, customClusterAnswer
	}
	return r.Named()
}

// CustomScale makes the table of the Scale of a custom kind.
func CustomScale(namespaced bool) Root {
	r := table[rootKey{"autoscaling", "v1", "Scale"}]
	if !namespaced {
		r.Namespaced, r.Prefixed, r.Place, r.ToTenant = false, true, scaleCluster, scaleClusterAnswer
	}
	return r
}
