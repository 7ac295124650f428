package tenants

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podsecurity"
)

// This file says what the control cluster holds of every tenant. It is pure: provide.go makes it so.

// The tenant's names of what every cluster has.
const (
	defaultNamespace   = "default"
	kubernetesService  = "kubernetes"
	defaultAccount     = "default"
	clusterAdmin       = "cluster-admin"
	portName           = "https"
	servicePort        = 443
	mastersGroup       = "system:masters"
	authenticatedGroup = "system:authenticated"
)

// baseNamespaces are those that every cluster has from its first moment.
func baseNamespaces() []names.TenantNamespace {
	return []names.TenantNamespace{defaultNamespace, "kube-system", "kube-public", "kube-node-lease"}
}

// userRoles are the roles of the control cluster that every tenant gets a copy of, with the rules they have there.
func userRoles() []string { return []string{"admin", "edit", "view"} }

// stockRoles are roles of every cluster that its users bind to, and that stay the same. Others of a stock cluster are for its
// own parts, which a tenant's has none of, or come to everybody without a binding of the tenant's.
func stockRoles() map[string][]rbacv1.PolicyRule {
	create := []string{"create"}
	return map[string][]rbacv1.PolicyRule{
		"system:service-account-issuer-discovery": {{Verbs: []string{"get"}, NonResourceURLs: []string{
			"/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/",
		}}},
		"system:auth-delegator": {
			{Verbs: create, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}},
			{Verbs: create, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}},
		},
	}
}

// controlNamespace cannot fail for the base namespaces, which are all valid and short.
func controlNamespace(id names.TenantID, ns names.TenantNamespace) string {
	return id.NameToControl(string(ns))
}

func tenantLabels(id names.TenantID) map[string]string {
	return map[string]string{names.LabelTenant: string(id)}
}

func namespaceOf(id names.TenantID, ns names.TenantNamespace) *corev1.Namespace {
	labels := tenantLabels(id)
	labels[podsecurity.Enforce] = podsecurity.Baseline
	labels[podsecurity.EnforceVersion] = podsecurity.Latest
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: controlNamespace(id, ns), Labels: labels}}
}

// accountOf is the ServiceAccount that pods get by default. The control cluster's own controller makes it too, but takes
// tens of seconds when many tenants come at once; whoever is second finds it there.
func accountOf(id names.TenantID, ns names.TenantNamespace) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: defaultAccount, Namespace: controlNamespace(id, ns)}}
}

// Marks that Kubernetes puts on the roles it makes by itself, for tools that look for them.
const (
	bootstrapLabel       = "kubernetes.io/bootstrapping"
	bootstrapRBAC        = "rbac-defaults"
	autoupdateAnnotation = "rbac.authorization.kubernetes.io/autoupdate"
)

func rbacMeta(id names.TenantID, name string) metav1.ObjectMeta {
	labels := tenantLabels(id)
	labels[bootstrapLabel] = bootstrapRBAC
	return metav1.ObjectMeta{Name: id.NameToControl(name), Labels: labels, Annotations: map[string]string{autoupdateAnnotation: "true"}}
}

func stockRole(id names.TenantID, name string, rules []rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: rbacMeta(id, name), Rules: rules}
}

// clusterAdminRole lets its holder do everything. What keeps that inside the tenant is the gateway, which names nothing
// outside the prefix, and the control cluster's admission policy on writes.
func clusterAdminRole(id names.TenantID) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: rbacMeta(id, clusterAdmin),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{rbacv1.APIGroupAll}, Resources: []string{rbacv1.ResourceAll}, Verbs: []string{rbacv1.VerbAll}},
			{NonResourceURLs: []string{rbacv1.NonResourceAll}, Verbs: []string{rbacv1.VerbAll}},
		},
	}
}

func clusterAdminBinding(id names.TenantID) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: rbacMeta(id, clusterAdmin),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: id.NameToControl(clusterAdmin)},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: id.UserGroupToControl(mastersGroup)}},
	}
}

// userRole is the tenant's copy of one of [userRoles].
func userRole(id names.TenantID, name string, rules []rbacv1.PolicyRule) *rbacv1.ClusterRole {
	role := &rbacv1.ClusterRole{ObjectMeta: rbacMeta(id, name), Rules: rules}
	// As everywhere, for a tenant's own roles that aggregate what others aggregate.
	switch name {
	case "view":
		role.Labels[names.LabelAggregateTo+"edit"] = "true"
	case "edit":
		role.Labels[names.LabelAggregateTo+"admin"] = "true"
	}
	return role
}

// serviceOf is how pods find the API: no selector, because what is behind it is the gateway.
func serviceOf(id names.TenantID, pods netip.AddrPort) *corev1.Service {
	labels := tenantLabels(id)
	labels["component"], labels["provider"] = "apiserver", "kubernetes"
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: kubernetesService, Namespace: controlNamespace(id, defaultNamespace), Labels: labels},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{
				Name: portName, Protocol: corev1.ProtocolTCP, Port: servicePort, TargetPort: intstr.FromInt32(int32(pods.Port())),
			}},
		},
	}
}

func endpointSliceOf(id names.TenantID, pods netip.AddrPort) *discoveryv1.EndpointSlice {
	labels := tenantLabels(id)
	labels[discoveryv1.LabelServiceName] = kubernetesService
	family := discoveryv1.AddressTypeIPv4
	if pods.Addr().Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	name, protocol, port, ready := portName, corev1.ProtocolTCP, int32(pods.Port()), true
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: kubernetesService, Namespace: controlNamespace(id, defaultNamespace), Labels: labels},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{pods.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}
}

// endpointsOf says the same as the slice in the older form, which every cluster still has for this Service.
func endpointsOf(id names.TenantID, pods netip.AddrPort) *corev1.Endpoints { //nolint:staticcheck // see above
	labels := tenantLabels(id)
	// The slice is made beside it; a mirrored one would be a second.
	labels[discoveryv1.LabelSkipMirror] = "true"
	return &corev1.Endpoints{ //nolint:staticcheck // see above
		ObjectMeta: metav1.ObjectMeta{Name: kubernetesService, Namespace: controlNamespace(id, defaultNamespace), Labels: labels},
		Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck // see above
			Addresses: []corev1.EndpointAddress{{IP: pods.Addr().String()}},                                            //nolint:staticcheck // see above
			Ports:     []corev1.EndpointPort{{Name: portName, Port: int32(pods.Port()), Protocol: corev1.ProtocolTCP}}, //nolint:staticcheck // see above
		}},
	}
}

// putBack adds to have what is missing of want, leaving other values alone, and reports whether it had to.
func putBack(have *map[string]string, want map[string]string) bool {
	changed := false
	for key, value := range want {
		if _, ok := (*have)[key]; !ok {
			if *have == nil {
				*have = map[string]string{}
			}
			(*have)[key] = value
			changed = true
		}
	}
	return changed
}

// addMissing adds to have the elements of want that it lacks.
func addMissing[T any](have, want []T, same func(a, b T) bool) (_ []T, changed bool) {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h T) bool { return same(h, w) }) {
			have = append(have, w)
			changed = true
		}
	}
	return have, changed
}
