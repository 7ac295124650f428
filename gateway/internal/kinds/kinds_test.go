package kinds

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/route"
)

func TestDecide(t *testing.T) {
	cases := map[string]struct {
		method, uri string
		// code is 0 where the request is allowed and -1 for a plain 404.
		code int
		says string
	}{
		"Get":                     {"GET", "/api/v1/namespaces/web/pods/a", 0, ""},
		"ListEverywhere":          {"GET", "/api/v1/pods", 0, ""},
		"WatchEverywhere":         {"GET", "/apis/apps/v1/deployments?watch=true", 0, ""},
		"Exec":                    {"POST", "/api/v1/namespaces/web/pods/a/exec", 0, ""},
		"ExecByGet":               {"GET", "/api/v1/namespaces/web/pods/a/exec", 0, ""},
		"Scale":                   {"PATCH", "/apis/apps/v1/namespaces/web/deployments/a/scale", 0, ""},
		"BothVersions":            {"GET", "/apis/autoscaling/v1/horizontalpodautoscalers", 0, ""},
		"Review":                  {"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 0, ""},
		"LocalReview":             {"POST", "/apis/authorization.k8s.io/v1/namespaces/web/localsubjectaccessreviews", 0, ""},
		"Nodes":                   {"GET", "/api/v1/nodes", 0, ""},
		"Collection":              {"DELETE", "/api/v1/namespaces/web/pods", 0, ""},
		"CollectionEverywhere":    {"DELETE", "/api/v1/pods", 404, ""},
		"CollectionOfNodes":       {"DELETE", "/api/v1/nodes", 403, "nodes are the platform's"},
		"CollectionOfRoles":       {"DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles", 0, ""},
		"CollectionOfNamespaces":  {"DELETE", "/api/v1/namespaces", 405, ""},
		"PutCollection":           {"PUT", "/api/v1/namespaces", 405, ""},
		"PostNamed":               {"POST", "/api/v1/namespaces/web/pods/a", 405, ""},
		"CreateWithoutNamespace":  {"POST", "/api/v1/pods", 404, ""},
		"NamedWithoutNamespace":   {"GET", "/apis/apps/v1/deployments/a", 404, ""},
		"ClusterScopedNamespaced": {"GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/web/clusterroles/a", 404, ""},
		"NamespaceInNamespace":    {"GET", "/api/v1/namespaces/web/namespaces/x", 404, ""},
		"UnknownGroup":            {"GET", "/apis/example.com/v1/foos", -1, ""},
		"OtherTenantsGroup":       {"GET", "/apis/zzz999-example.com/v1/foos", -1, ""},
		"PlatformGroup":           {"GET", "/apis/vivarium.io/v1alpha1/tenants", -1, ""},
		"UnknownVersion":          {"GET", "/apis/apps/v2/deployments", 404, ""},
		"UnknownCoreVersion":      {"GET", "/api/v2/pods", 404, ""},
		"UpperCaseVersion":        {"GET", "/api/V1/pods", 404, ""},
		"UnknownResource":         {"GET", "/apis/apps/v1/foos", 404, ""},
		"KindOfOtherGroup":        {"GET", "/apis/apps/v1/namespaces/web/pods", 404, ""},
		"UnknownSubresource":      {"GET", "/api/v1/namespaces/web/pods/a/foo", 404, ""},
		"PluralSubresource":       {"GET", "/api/v1/namespaces/web/pods/a/logs", 404, ""},
		"VersionOfSibling":        {"GET", "/apis/autoscaling/v2beta2/horizontalpodautoscalers", 404, ""},
		"Finalize":                {"PUT", "/api/v1/namespaces/web/finalize", 0, ""},
		"FinalizePatch":           {"PATCH", "/api/v1/namespaces/web/finalize", 405, ""},
		"NamespaceStatus":         {"PATCH", "/api/v1/namespaces/web/status", 0, ""},
		"NodeStatus":              {"PATCH", "/api/v1/nodes/a/status", 403, "platform"},
		"NodeProxy":               {"GET", "/api/v1/nodes/a/proxy", 403, "platform"},
		"NodeDelete":              {"DELETE", "/api/v1/nodes/a", 403, "nodes are the platform's"},
		"PodProxy":                {"GET", "/api/v1/namespaces/web/pods/a/proxy", 0, ""},
		"PodProxyPost":            {"POST", "/api/v1/namespaces/web/pods/https:a:443/proxy/x//../y?a;b", 0, ""},
		"ServiceProxyHead":        {"HEAD", "/api/v1/namespaces/web/services/a/proxy/", 0, ""},
		"QuotaStatus":             {"PATCH", "/api/v1/namespaces/web/resourcequotas/a/status", 0, ""},
		"ServiceStatus":           {"PUT", "/api/v1/namespaces/web/services/a/status", 403, "routes on every node"},
		"ClaimStatus":             {"PATCH", "/api/v1/namespaces/web/persistentvolumeclaims/a/status", 403, "platform's storage"},
		"PodBinding":              {"POST", "/api/v1/namespaces/web/pods/a/binding", 403, "scheduler"},
		"DaemonSetRead":           {"GET", "/apis/apps/v1/daemonsets", 0, ""},
		"DaemonSetCreate":         {"POST", "/apis/apps/v1/namespaces/web/daemonsets", 403, "use a Deployment"},
		"Volumes":                 {"GET", "/api/v1/persistentvolumes", 0, ""},
		"VolumeCreate":            {"POST", "/api/v1/persistentvolumes", 403, "PersistentVolumeClaim"},
		"VolumeDelete":            {"DELETE", "/api/v1/persistentvolumes/a", 403, "PersistentVolumeClaim"},
		"ClassRead":               {"GET", "/apis/node.k8s.io/v1/runtimeclasses", 0, ""},
		"ClassCreate":             {"POST", "/apis/storage.k8s.io/v1/storageclasses", 403, "classes are the operator's"},
		"ClassDelete":             {"DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/a", 403, "classes are the operator's"},
		"DeviceClassRead":         {"GET", "/apis/resource.k8s.io/v1/deviceclasses/gpu", 0, ""},
		"DeviceClassBeta":         {"GET", "/apis/resource.k8s.io/v1beta1/deviceclasses/gpu", 404, ""},
		"ClaimRead":               {"GET", "/apis/resource.k8s.io/v1/resourceclaims", 0, ""},
		"ClaimCreate":             {"POST", "/apis/resource.k8s.io/v1/namespaces/web/resourceclaims", 403, "cannot claim"},
		"WebhooksRead":            {"GET", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations?watch=true", 0, ""},
		"CertificateCreate":       {"POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", 0, ""},
		"CertificateApproval":     {"PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/a/approval", 0, ""},
		"GatedKind":               {"GET", "/apis/certificates.k8s.io/v1beta1/clustertrustbundles", 404, ""},
		"GatedStatus":             {"PUT", "/apis/scheduling.k8s.io/v1alpha2/namespaces/web/podgroups/a/status", 404, ""},
		"GatedGroup":              {"GET", "/apis/internal.apiserver.k8s.io/v1alpha1/storageversions", -1, ""},
		"ComponentStatuses":       {"GET", "/api/v1/componentstatuses", 0, ""},
		"CustomResources":         {"POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", 0, ""},
		"CustomResourcesDeleted":  {"DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", 0, ""},
		"CustomResourcesRead":     {"GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", 0, ""},
		"Webhooks":                {"POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", 403, "admission"},
		"EndpointsWrite":          {"PUT", "/api/v1/namespaces/web/endpoints/a", 403, "endpoints are kept"},
	}
	table := NewTable()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r, err := route.Parse(tc.method, tc.uri)
			if err != nil {
				t.Fatal(err)
			}
			_, err = table.Decide(r)
			code := 0
			var status apierrors.APIStatus
			switch {
			case errors.Is(err, ErrNoSuchPath):
				code = -1
			case errors.As(err, &status):
				code = int(status.Status().Code)
			case err != nil:
				t.Fatal(err)
			}
			if code != tc.code || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("Decide(%s %s): %d %v, want %d %q", tc.method, tc.uri, code, err, tc.code, tc.says)
			}
		})
	}
}

func TestCheckDelete(t *testing.T) {
	table := NewTable()
	for uri, allowed := range map[string]bool{
		"/api/v1/namespaces/default":                                          false,
		"/api/v1/namespaces/kube-system":                                      false,
		"/api/v1/namespaces/kube-public":                                      false,
		"/api/v1/namespaces/kube-node-lease":                                  false,
		"/api/v1/namespaces/web":                                              true,
		"/api/v1/namespaces/web/configmaps/default":                           true,
		"/api/v1/namespaces/default/pods/kube-system":                         true,
		"/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/default": true,
	} {
		t.Run(uri, func(t *testing.T) {
			r, err := route.Parse("DELETE", uri)
			if err != nil {
				t.Fatal(err)
			}
			k, err := table.Decide(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.CheckDelete(r); (err == nil) != allowed {
				t.Errorf("CheckDelete(%s) = %v", uri, err)
			}
		})
	}
}

// TestNothingIsHalfDecided keeps the table consistent: what is refused has a reason, what has subresources is known.
func TestNothingIsHalfDecided(t *testing.T) {
	known := map[string]bool{"create": true, "delete": true, "deletecollection": true, "get": true, "list": true, "patch": true, "update": true, "watch": true}
	seen := map[string]bool{}
	for _, k := range stock() {
		if readOnly := !k.Allows("", "create"); readOnly != (k.reason != "") {
			t.Errorf("%s/%s: read-only is %v and the reason %q", k.Group, k.Resource, readOnly, k.reason)
		}
		id := k.Group + "/" + k.Resource
		if seen[id] {
			t.Errorf("%s is in the table twice", id)
		}
		seen[id] = true
		if len(k.verbs) == 0 && k.reason == "" {
			t.Errorf("%s is refused without a reason", id)
		}
		for sub, verbs := range k.subresources {
			if _, both := k.reasons[sub]; both {
				t.Errorf("%s/%s is both served and refused", id, sub)
			}
			for _, verb := range verbs {
				if !known[verb] {
					t.Errorf("%s/%s: unknown verb %q", id, sub, verb)
				}
			}
		}
		for _, verb := range k.verbs {
			if !known[verb] {
				t.Errorf("%s: unknown verb %q", id, verb)
			}
		}
	}
}
