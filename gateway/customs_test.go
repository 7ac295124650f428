package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
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
		w.must(t, kubeconfig, "", "wait", "--for=condition=Established", "crd/widgets.example.com", "crd/gauges.example.com", "--timeout=30s")
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
	_ = []any{context.Background, time.Second, metav1.GetOptions{}, unstructured.Unstructured{}, schema.GroupVersionResource{}, types.ApplyPatchType, watch.Added, dynamic.NewForConfig}
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
