package names

import (
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Domain is the label and annotation domain that belongs to the platform; tenants may neither see nor set its keys.
const Domain = "vivarium.io"

// Keys of labels that the platform puts on objects.
const (
	// LabelTenant carries the tenant ID, on every namespace the gateway makes in control and on everything in a pool.
	LabelTenant = Domain + "/tenant"
	// LabelPool carries a ResourcePool's name, on its virtual Nodes in control and on everything of ours in that pool.
	LabelPool = Domain + "/pool"
	// LabelControl carries the identity of the control cluster (the UID of its kube-system namespace), on everything in a
	// pool: two control clusters may share a pool.
	LabelControl = Domain + "/control"
	// LabelControlUID carries the UID of the control object that a pool object stands for.
	LabelControlUID = Domain + "/control-uid"
	// LabelSubnetUID carries the UID of the Subnet that an IPBlock is of, so that a subnet's blocks are read without the others'.
	LabelSubnetUID = Domain + "/subnet-uid"
	// LabelAggregateTo, followed by a role's name, is what a tenant's label rbac.authorization.k8s.io/aggregate-to-... is in
	// control, where the tenant's own would feed everybody's roles.
	LabelAggregateTo = "rbac." + Domain + "/aggregate-to-"
	// LabelSplitRules marks a ClusterRole in control that has more rules than its tenant wrote, because some of them mean
	// names of two kinds and are kept in parts.
	LabelSplitRules = Domain + "/split-rules"
	// TaintTenants is on the virtual Nodes of a pool that takes chosen tenants only, with the pool's name as its value; the
	// control cluster's admission has the pods of those tenants tolerate it.
	TaintTenants = Domain + "/tenants"
	// TaintSecurity is on the virtual Nodes of a pool that asks for more than every pod must meet anyway; its value is the
	// Pod Security level.
	TaintSecurity = Domain + "/pod-security"
	// LabelManagedBy names the component that made a pool object and alone may change or delete it.
	LabelManagedBy = Domain + "/managed-by"
)

// SystemNamespace is where the platform keeps its own objects in the control cluster: pool credentials and leases. Its
// shape cannot be a tenant's.
const SystemNamespace = "vivarium-system"

// Names of pool objects that have no counterpart in the control cluster.
const (
	// RootCAConfigMap is how the tenant's kube-root-ca.crt is called in a pool, whose own controller manager publishes the
	// pool's CA under the usual name in every namespace.
	RootCAConfigMap = "kube-root-ca.crt.tenant"
	// rootCAConfigMap is the usual name.
	rootCAConfigMap = "kube-root-ca.crt"
)

// ConfigMapToPool gives the pool name of a tenant's ConfigMap: its own, save for the root CA.
func ConfigMapToPool(name string) string {
	if name == rootCAConfigMap {
		return RootCAConfigMap
	}
	return name
}

// ConfigMapToControl is the inverse of [ConfigMapToPool].
func ConfigMapToControl(pool string) string {
	if pool == RootCAConfigMap {
		return rootCAConfigMap
	}
	return pool
}

const tokenSecretPrefix = "vivarium-token-"

// TokenSecret names the Secret in a pool that holds every projected ServiceAccount token of one control pod.
func TokenSecret(controlPod types.UID) string { return tokenSecretPrefix + string(controlPod) }

// TokenSecretOwner is the inverse of [TokenSecret].
func TokenSecretOwner(secret string) (types.UID, bool) {
	uid, ok := strings.CutPrefix(secret, tokenSecretPrefix)
	return types.UID(uid), ok && uid != ""
}

// Reserved reports whether a label or annotation key lies in the platform's domain or below it.
func Reserved(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	return ok && (domain == Domain || strings.HasSuffix(domain, "."+Domain))
}
