package gen

import (
	"sort"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// groups are the group versions with a table. Their kinds come from the scheme, so that a new one is noticed.
var groups = []schema.GroupVersion{
	{Group: "admissionregistration.k8s.io", Version: "v1"}, {Group: "apiextensions.k8s.io", Version: "v1"},
	{Group: "", Version: "v1"}, {Group: "apps", Version: "v1"}, {Group: "authentication.k8s.io", Version: "v1"},
	{Group: "authorization.k8s.io", Version: "v1"}, {Group: "autoscaling", Version: "v1"}, {Group: "autoscaling", Version: "v2"},
	{Group: "batch", Version: "v1"}, {Group: "certificates.k8s.io", Version: "v1"}, {Group: "coordination.k8s.io", Version: "v1"}, {Group: "discovery.k8s.io", Version: "v1"},
	{Group: "events.k8s.io", Version: "v1"}, {Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}, {Group: "networking.k8s.io", Version: "v1"}, {Group: "node.k8s.io", Version: "v1"},
	{Group: "metrics.k8s.io", Version: "v1beta1"},
	{Group: "policy", Version: "v1"}, {Group: "rbac.authorization.k8s.io", Version: "v1"},
	{Group: "scheduling.k8s.io", Version: "v1"}, {Group: "storage.k8s.io", Version: "v1"},
}

// left are kinds of those groups without a table, and so refused, with the reason.
var left = map[string]string{
	"Binding":             "binding pods to nodes is the scheduler's",
	"ComponentStatus":     "shows the control cluster's own parts",
	"RangeAllocation":     "internal to the API server",
	"SerializedReference": "never served",
	"PersistentVolume":    "cut down by package offers, the rest translated by View.VolumeToTenant",
	"IPAddress":           "would show every Service of the control cluster",
	"ServiceCIDR":         "belongs to the control cluster",
	"CSIDriver":           "belongs to the control cluster",
	"CSINode":             "belongs to the control cluster",
	"CSIStorageCapacity":  "belongs to the control cluster",
	"VolumeAttachment":    "belongs to the control cluster",

	"MutatingWebhookConfiguration":   "webhooks of tenants are not called",
	"ValidatingWebhookConfiguration": "webhooks of tenants are not called",
}

// known holds the types of every group.
var known = func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(s))
	utilruntime.Must(apiextensionsv1.AddToScheme(s))
	utilruntime.Must(metricsv1beta1.AddToScheme(s))
	return s
}()

// notKinds are types that the scheme registers in every group for its own use.
var notKinds = map[string]bool{
	"WatchEvent": true, "ListOptions": true, "GetOptions": true, "DeleteOptions": true, "CreateOptions": true,
	"UpdateOptions": true, "PatchOptions": true, "List": true, "APIGroup": true, "APIVersions": true, "Status": true,
	"PodAttachOptions": true, "PodExecOptions": true, "PodLogOptions": true, "PodPortForwardOptions": true,
	"ConversionReview": true, "PodProxyOptions": true, "ServiceProxyOptions": true, "NodeProxyOptions": true, "PodStatusResult": true,
}

var clusterScopedReviews = map[string]bool{
	"TokenReview": true, "SelfSubjectReview": true, "SubjectAccessReview": true, "SelfSubjectAccessReview": true,
	"SelfSubjectRulesReview": true,
}

// Left gives the kinds of served groups that have no table, with the reason.
func Left() map[string]string {
	out := make(map[string]string, len(left))
	for k, v := range left {
		out[k] = v
	}
	return out
}

// Served gives every kind to make a table for, in a fixed order.
func Served() []Kind {
	var out []Kind
	for _, gv := range groups {
		var kinds []string
		for kind := range known.KnownTypes(gv) {
			if !notKinds[kind] && left[kind] == "" && !isList(kind) {
				kinds = append(kinds, kind)
			}
		}
		sort.Strings(kinds)
		for _, kind := range kinds {
			cluster, prefixed := rules.ClusterScoped(gv.Group, kind)
			out = append(out, Kind{gv.WithKind(kind), !cluster && !clusterScopedReviews[kind], prefixed})
		}
	}
	return out
}

func isList(kind string) bool { return len(kind) > 4 && kind[len(kind)-4:] == "List" }
