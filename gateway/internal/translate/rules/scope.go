package rules

import "slices"

// clusterKinds are the cluster-scoped kinds that are built in; the value says whether their names carry the tenant's
// prefix in the control cluster. Classes do, save for those that the operator exports; kinds that belong to the control
// cluster keep their names.
var clusterKinds = map[groupKind]bool{
	{"", "Namespace"}:                                   true,
	{"", "Node"}:                                        false,
	{"metrics.k8s.io", "NodeMetrics"}:                   false,
	{"", "PersistentVolume"}:                            false,
	{"", "ComponentStatus"}:                             false,
	{"rbac.authorization.k8s.io", "ClusterRole"}:        true,
	{"rbac.authorization.k8s.io", "ClusterRoleBinding"}: true,
	{"storage.k8s.io", "StorageClass"}:                  true,
	{"storage.k8s.io", "VolumeAttributesClass"}:         true,
	{"storage.k8s.io", "VolumeAttachment"}:              false,
	{"storage.k8s.io", "CSIDriver"}:                     false,
	{"storage.k8s.io", "CSINode"}:                       false,
	{"scheduling.k8s.io", "PriorityClass"}:              true,
	{"node.k8s.io", "RuntimeClass"}:                     true,
	{"networking.k8s.io", "IngressClass"}:               true,
	{"resource.k8s.io", "DeviceClass"}:                  true,

	{"apiextensions.k8s.io", "CustomResourceDefinition"}:                 true,
	{"admissionregistration.k8s.io", "ValidatingWebhookConfiguration"}:   true,
	{"admissionregistration.k8s.io", "MutatingWebhookConfiguration"}:     true,
	{"admissionregistration.k8s.io", "ValidatingAdmissionPolicy"}:        true,
	{"admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"}: true,
	{"admissionregistration.k8s.io", "MutatingAdmissionPolicy"}:          true,
	{"admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"}:   true,
	{"apiregistration.k8s.io", "APIService"}:                             true,
	{"certificates.k8s.io", "CertificateSigningRequest"}:                 true,
	{"flowcontrol.apiserver.k8s.io", "FlowSchema"}:                       true,
	{"flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"}:       true,
}

// clusterResources are the same by resource, as RBAC and access reviews name them. What tenants cannot reach yet and
// would own is prefixed all the same: a rule about it must never name an object of the control cluster.
var clusterResources = map[groupKind]bool{
	{"", "namespaces"}:                                   true,
	{"", "nodes"}:                                        false,
	{"metrics.k8s.io", "nodes"}:                          false,
	{"", "persistentvolumes"}:                            false,
	{"", "componentstatuses"}:                            false,
	{"rbac.authorization.k8s.io", "clusterroles"}:        true,
	{"rbac.authorization.k8s.io", "clusterrolebindings"}: true,
	{"storage.k8s.io", "storageclasses"}:                 true,
	{"storage.k8s.io", "volumeattributesclasses"}:        true,
	{"storage.k8s.io", "volumeattachments"}:              false,
	{"storage.k8s.io", "csidrivers"}:                     false,
	{"storage.k8s.io", "csinodes"}:                       false,
	{"scheduling.k8s.io", "priorityclasses"}:             true,
	{"node.k8s.io", "runtimeclasses"}:                    true,
	{"networking.k8s.io", "ingressclasses"}:              true,
	{"resource.k8s.io", "deviceclasses"}:                 true,

	{"apiextensions.k8s.io", "customresourcedefinitions"}:                 true,
	{"admissionregistration.k8s.io", "validatingwebhookconfigurations"}:   true,
	{"admissionregistration.k8s.io", "mutatingwebhookconfigurations"}:     true,
	{"admissionregistration.k8s.io", "validatingadmissionpolicies"}:       true,
	{"admissionregistration.k8s.io", "validatingadmissionpolicybindings"}: true,
	{"admissionregistration.k8s.io", "mutatingadmissionpolicies"}:         true,
	{"admissionregistration.k8s.io", "mutatingadmissionpolicybindings"}:   true,
	{"apiregistration.k8s.io", "apiservices"}:                             true,
	{"certificates.k8s.io", "certificatesigningrequests"}:                 true,
	{"certificates.k8s.io", "signers"}:                                    true,
	{"flowcontrol.apiserver.k8s.io", "flowschemas"}:                       true,
	{"flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"}:       true,
	{"networking.k8s.io", "ipaddresses"}:                                  true,
	{"networking.k8s.io", "servicecidrs"}:                                 true,
}

// PrefixedResources gives the resources of a group whose names carry the tenant's prefix, in alphabetical order; of "*",
// those of every group.
func PrefixedResources(group string) []string {
	var out []string
	for resource, prefixed := range clusterResources {
		if prefixed && (group == "*" || group == resource.group) {
			out = append(out, resource.kind)
		}
	}
	slices.Sort(out)
	return out
}

// builtInGroups are the API groups that a control cluster serves by itself or through its usual extensions. Every other
// group is a tenant's own or one that the operator shares.
var builtInGroups = map[string]bool{
	"": true, "admissionregistration.k8s.io": true, "apiextensions.k8s.io": true, "apiregistration.k8s.io": true,
	"apidiscovery.k8s.io": true, "apps": true, "authentication.k8s.io": true, "authorization.k8s.io": true,
	"autoscaling": true, "batch": true, "certificates.k8s.io": true, "coordination.k8s.io": true,
	"custom.metrics.k8s.io": true, "discovery.k8s.io": true, "events.k8s.io": true, "extensions": true,
	"external.metrics.k8s.io": true, "flowcontrol.apiserver.k8s.io": true, "internal.apiserver.k8s.io": true,
	"meta.k8s.io": true, "metrics.k8s.io": true, "networking.k8s.io": true, "node.k8s.io": true, "policy": true,
	"rbac.authorization.k8s.io": true, "resource.k8s.io": true, "scheduling.k8s.io": true, "storage.k8s.io": true,
	"storagemigration.k8s.io": true,
}
