package translate

import "vivarium.io/vivarium/internal/names"

// Kind says what a request is about. The front resolves it from the URL and the control cluster's discovery, never from
// a body.
type Kind struct {
	Group, Version, Resource string
	// Kind is the kind of the main resource, also where Subresource is set: "Pod" for pods/eviction.
	Kind       string
	Namespaced bool
	// Subresource is empty for the resource itself.
	Subresource string

	// Custom says that the kind is a custom resource's; Group is the tenant's word for its group. Its documents have their
	// keys in alphabetical order, so that what they are stands behind what they hold, and their lists are called ListKind.
	// Collection says that the answer may be a list of them, which nothing in it would tell in time.
	Custom     bool
	ListKind   string
	Collection bool
	// Columns are the columns of a custom kind's tables that show its metadata, one per line.
	Columns string
}

// Customs knows the custom kinds of one tenant, by the tenant's names.
type Customs interface {
	// ScopeOfKind and ScopeOfResource say whether objects live in namespaces; known is false for what is not there.
	ScopeOfKind(group, kind string) (namespaced, known bool)
	ScopeOfResource(group, resource string) (namespaced, known bool)
}

// View is the world of one tenant: who it is and what the translation must know besides. A View is immutable, cheap to
// make and safe for concurrent use.
type View struct {
	// Tenant is required; with the zero value everything is refused.
	Tenant names.TenantID
	// RootCA takes the place of data["ca.crt"] in ConfigMaps named kube-root-ca.crt, so that a tenant verifies the gateway
	// and not the control cluster. Empty leaves the ConfigMap without that key.
	RootCA string
	// TokenAudience is what a TokenRequest without audiences gets.
	TokenAudience string
	// ForbiddenAudiences are the audiences that the control API server itself accepts; no tenant gets a token for them.
	ForbiddenAudiences []string
	// SharedGroups are API groups of operator CRDs that this tenant may use under their own names.
	SharedGroups []string
	// Customs knows the tenant's custom kinds, shared ones included; nil for none.
	Customs Customs
	// Exported says which classes (kinds StorageClass, VolumeAttributesClass, PriorityClass, RuntimeClass, IngressClass) the
	// operator offers to this tenant under their own names; nil for none. A control cluster that fills in a default class
	// must export it, or objects that were given it cannot be updated by their tenant.
	Exported func(kind, name string) bool
	// VPC says that the tenant's pods are in a VPC of its own, so that it may choose among what that VPC has.
	VPC bool
	// Present gives the object that a patch is for as it is, in JSON and in the control cluster's words; nil, also as a function,
	// where it cannot be had. It is called at most once, for those patches that cannot be understood without it.
	Present func() []byte
	// Continue turns a continue token of the control cluster into the one that the tenant sees. Required for lists that can
	// be paged: without it a response with a token is refused, since such a token spells names of the control cluster.
	Continue func(controlToken string) (tenantToken string)
}
