package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	apidiscovery "k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/client-go/dynamic"
)

// definition writes a CustomResourceDefinition whose objects have one field of their own.
func definition(plural, kind, group, scope, field string) string {
	return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: %[1]s.%[3]s
  labels: {app: widgets}
spec:
  group: %[3]s
  scope: %[4]s
  names: {plural: %[1]s, singular: %[6]s, kind: %[2]s, listKind: %[2]ses, shortNames: [%[7]s], categories: [all, gadgets]}
  conversion: {strategy: None}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    additionalPrinterColumns:
    - {name: Field, type: string, jsonPath: .spec.%[5]s}
    - {name: Where, type: string, jsonPath: .metadata.namespace}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.%[5]s}]
    schema:
      openAPIV3Schema:
        type: object
        description: A %[2]s of abc has a %[5]s.
        properties:
          data: {type: object, x-kubernetes-preserve-unknown-fields: true}
          spec:
            type: object
            properties:
              %[5]s: {type: string, description: What the %[2]s has.}
              replicas: {type: integer}
          status:
            type: object
            properties:
              replicas: {type: integer}
              selector: {type: string}
              phase: {type: string}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
`, plural, kind, group, scope, field, strings.ToLower(kind), plural[:2])
}

// TestCustomResources takes two tenants that have the same definition with different schemas through everything that
// clients do with custom resources.
func TestCustomResources(t *testing.T) {
	w := theWorld(t)
	one, two := w.tenant(t, "crda01"), w.tenant(t, "crdb02")
	for kubeconfig, field := range map[string]string{one: "size", two: "colour"} {
		w.must(t, kubeconfig, definition("widgets", "Widget", "example.com", "Namespaced", field), "create", "-f", "-")
		w.must(t, kubeconfig, definition("gauges", "Gauge", "example.com", "Cluster", field), "apply", "-f", "-")
		w.must(t, kubeconfig, "", "wait", "--for=condition=Established", "crd/widgets.example.com", "crd/gauges.example.com", "--timeout=180s")
		w.must(t, kubeconfig, fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"first"},"data":{"items":[1]},"spec":{%q:"x","replicas":1}}`, field), "create", "-f", "-")
		w.must(t, kubeconfig, fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Gauge","metadata":{"name":"first"},"spec":{%q:"y"}}`, field), "apply", "-f", "-")
	}
	t.Run("Definition", func(t *testing.T) {
		out := w.must(t, one, "", "get", "crd", "-o", "yaml")
		w.clean(t, out)
		for _, want := range []string{"name: widgets.example.com", "name: gauges.example.com", "group: example.com", "app: widgets"} {
			if !strings.Contains(out, want) {
				t.Errorf("the definitions lack %q:\n%s", want, out)
			}
		}
		if n := strings.Count(out, "kind: CustomResourceDefinition"); n != 2 {
			t.Errorf("%d definitions:\n%s", n, out)
		}
		out = w.must(t, one, "", "get", "crd", "-l", "app=widgets")
		w.clean(t, out)
		out = w.must(t, w.control, "", "get", "crd", "widgets.crda01-example.com", "-o", "jsonpath={.metadata.labels.vivarium\\.io/tenant} {.spec.group}")
		if out != "crda01 crda01-example.com" {
			t.Errorf("in the control cluster: %s", out)
		}
	})
	t.Run("Read", func(t *testing.T) {
		for _, args := range [][]string{
			{"get", "widgets"}, {"get", "widget", "first", "-o", "json"}, {"get", "wi", "-A"}, {"get", "widgets", "-o", "yaml"}, {"get", "gauges"},
			{"get", "gauges", "-o", "json"}, {"get", "gadgets"}, {"describe", "widget", "first"}, {"get", "gauge", "first", "-o", "yaml"},
			{"get", "widgets.v1beta1.example.com", "-A", "-o", "json"}, {"get", "widgets", "--field-selector", "spec.size=x"},
		} {
			out := w.must(t, one, "", args...)
			w.clean(t, out)
			if !strings.Contains(out, "first") {
				t.Errorf("%v lacks the object:\n%s", args, out)
			}
		}
		if out := w.must(t, one, "", "get", "widgets", "--field-selector", "spec.size=z"); strings.Contains(out, "first") {
			t.Errorf("selected: %s", out)
		}
		if out := w.must(t, one, "", "get", "widgets", "-A"); !strings.Contains(out, "default") || !strings.Contains(out, "WHERE") {
			t.Errorf("table: %s", out)
		}
		if out := w.must(t, two, "", "get", "widgets", "first", "-o", "jsonpath={.spec.colour}{.spec.size}{.apiVersion}"); out != "xexample.com/v1" {
			t.Errorf("two sees %q", out)
		}
	})
	config := client(t, one)
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	resource := objects.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"})
	ctx := t.Context()
	t.Run("Writes", func(t *testing.T) {
		w.must(t, one, "", "scale", "widget", "first", "--replicas=3")
		if out := w.must(t, one, "", "get", "widget", "first", "-o", "jsonpath={.spec.replicas}"); out != "3" {
			t.Errorf("scaled to %s", out)
		}
		w.must(t, one, "", "patch", "widget", "first", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Good"}}`)
		w.must(t, one, "", "patch", "widget", "first", "--type=json", "-p", `[{"op":"test","path":"/apiVersion","value":"example.com/v1"},{"op":"replace","path":"/spec/size","value":"z"}]`)
		if out := w.must(t, one, "", "get", "wi", "first", "-o", "jsonpath={.status.phase}{.spec.size}"); out != "Goodz" {
			t.Errorf("after patches: %s", out)
		}
		const applied = `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"applied"},"spec":{"size":"a"}}`
		w.must(t, one, applied, "apply", "--server-side", "-f", "-")
		w.must(t, one, applied, "apply", "--server-side", "--field-manager=other", "-f", "-")
		out := w.must(t, one, "", "get", "widget", "applied", "-o", "yaml", "--show-managed-fields")
		w.clean(t, out)
		if strings.Count(out, "apiVersion: example.com/v1") < 3 {
			t.Errorf("field managers: %s", out)
		}
		// A difference is an exit code of 1.
		if out := w.fails(t, one, strings.Replace(applied, `"a"`, `"b"`, 1), "diff", "--server-side", "--force-conflicts", "-f", "-"); !strings.Contains(out, "+  size: b") {
			t.Errorf("diff: %s", out)
		}
	})
	t.Run("Watch", func(t *testing.T) {
		all, err := resource.List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		events, err := resource.Watch(ctx, metav1.ListOptions{ResourceVersion: all.GetResourceVersion()})
		if err != nil {
			t.Fatal(err)
		}
		defer events.Stop()
		w.must(t, two, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"theirs"}}`, "create", "-f", "-")
		w.must(t, one, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"watched"}}`, "create", "-f", "-")
		select {
		case e := <-events.ResultChan():
			got, ok := e.Object.(*unstructured.Unstructured)
			if !ok || e.Type != watch.Added || got.GetName() != "watched" || got.GetAPIVersion() != "example.com/v1" || got.GetNamespace() != "default" {
				t.Errorf("%s %v", e.Type, e.Object)
			}
		case <-time.After(patience):
			t.Error("no event in a minute")
		}
	})
	t.Run("Owners", func(t *testing.T) {
		uid := w.must(t, one, "", "get", "gauge", "first", "-o", "jsonpath={.metadata.uid}")
		w.must(t, one, fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"owned","ownerReferences":[{"apiVersion":"example.com/v1","kind":"Gauge","name":"first","uid":%q}]}}`, uid), "create", "-f", "-")
		if out := w.must(t, one, "", "get", "cm", "owned", "-o", "jsonpath={.metadata.ownerReferences[0].apiVersion} {.metadata.ownerReferences[0].name}"); out != "example.com/v1 first" {
			t.Errorf("owner: %s", out)
		}
		w.must(t, one, "", "delete", "gauge", "first")
		eventually(t, "what a custom resource owned is collected", func() bool {
			_, err := w.run(one, "", "get", "cm", "owned")
			return err != nil
		})
	})
	t.Run("RBAC", func(t *testing.T) {
		for _, object := range []string{
			`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"reader"},"rules":[{"apiGroups":["example.com"],"resources":["widgets"],"verbs":["get","list"]},{"apiGroups":["example.com"],"resources":["gauges"],"resourceNames":["second"],"verbs":["get"]}]}`,
			`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"reader"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"reader"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"alice"}]}`,
			`{"apiVersion":"example.com/v1","kind":"Gauge","metadata":{"name":"second"}}`,
		} {
			w.must(t, one, object, "create", "-f", "-")
		}
		eventually(t, "alice may read", func() bool {
			_, err := w.run(one, "", "get", "widgets", "-A", "--as=alice")
			return err == nil
		})
		w.may(t, one, "get", "gauges.example.com/second", "--as=alice")
		w.must(t, one, "", "get", "gauge", "second", "--as=alice")
		out := w.fails(t, one, "", "delete", "widget", "first", "--as=alice")
		w.clean(t, out)
		if !strings.Contains(out, `cannot delete resource "widgets" in API group "example.com"`) {
			t.Errorf("refused with: %s", out)
		}
		w.clean(t, w.must(t, one, "", "get", "clusterrole", "reader", "-o", "yaml"))
	})
	t.Run("Discovery", func(t *testing.T) {
		if out := w.must(t, one, "", "explain", "widgets.spec"); !strings.Contains(out, "size") || strings.Contains(out, "colour") {
			t.Errorf("explain: %s", out)
		}
		if out := w.must(t, two, "", "explain", "widgets.spec.colour"); !strings.Contains(out, "What the Widget has") {
			t.Errorf("explain: %s", out)
		}
		resources := w.must(t, one, "", "api-resources", "--api-group=example.com", "-o", "wide")
		for _, want := range []string{"widgets", "wi", "example.com/v1", "Gauge", "gadgets"} {
			if !strings.Contains(resources, want) {
				t.Errorf("resources lack %q: %s", want, resources)
			}
		}
		for _, path := range []string{"/apis", "/apis/example.com", "/apis/example.com/v1", "/apis/example.com/v1beta1", "/openapi/v3", "/openapi/v3/apis/example.com/v1", "/openapi/v3/apis/example.com/v1beta1", "/openapi/v2"} {
			out := w.must(t, one, "", "get", "--raw", path)
			if path == "/apis/example.com/v1" && !strings.Contains(out, `"storageVersionHash":"`+apidiscovery.StorageVersionHash("example.com", "v1", "Widget")+`"`) {
				t.Errorf("%s lacks the hash of the storage version:\n%s", path, out)
			}
			w.clean(t, out)
			if !strings.Contains(out, "example.com") {
				t.Errorf("%s lacks the group", path)
			}
			if strings.Contains(out, "colour") {
				t.Errorf("%s shows another tenant's schema", path)
			}
		}
		out := w.must(t, one, "", "get", "--raw", "/openapi/v2")
		if !strings.Contains(out, `"com.example.v1.Widget"`) || !strings.Contains(out, `"/apis/example.com/v1/namespaces/{namespace}/widgets"`) {
			t.Error("OpenAPI v2 lacks the kind")
		}
	})
	t.Run("Finalizer", func(t *testing.T) {
		w.must(t, one, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"held","finalizers":["example.com/held"]}}`, "create", "-f", "-")
		w.must(t, one, "", "delete", "crd", "widgets.example.com", "--wait=false")
		if out := w.must(t, one, "", "get", "widget", "held", "-o", "jsonpath={.metadata.finalizers[0]}"); out != "example.com/held" {
			t.Errorf("held by %s", out)
		}
		eventually(t, "the object is let go", func() bool {
			_, err := w.run(one, "", "patch", "widget", "held", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
			return err == nil
		})
		w.must(t, one, "", "wait", "--for=delete", "crd/widgets.example.com", "--timeout=180s")
		eventually(t, "the kind is gone", func() bool {
			out, err := w.run(one, "", "get", "--raw", "/apis/example.com/v1/widgets")
			return err != nil && strings.Contains(out, "could not find the requested resource")
		})
		if out := w.must(t, two, "", "get", "widgets", "-A"); !strings.Contains(out, "theirs") {
			t.Errorf("two's objects: %s", out)
		}
	})
	t.Run("Collection", func(t *testing.T) {
		w.must(t, two, "", "delete", "crd", "-l", "app=widgets", "--wait=false")
		w.must(t, two, "", "delete", "crd", "--all", "--wait=true")
		if out := w.must(t, one, "", "get", "crd", "-o", "name"); !strings.Contains(out, "gauges.example.com") {
			t.Errorf("one has %s", out)
		}
	})
}

// clean checks that what a tenant sees shows no ID of a tenant.
func (w *world) clean(t *testing.T, out string) {
	t.Helper()
	for _, id := range []string{"crda01", "crdb02", "crdc03", "vivarium.io"} {
		if i := strings.Index(out, id); i >= 0 {
			t.Errorf("shows %q: ...%s", id, out[max(0, i-120):min(len(out), i+120)])
		}
	}
}
