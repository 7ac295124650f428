package tenants_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"vivarium.io/vivarium/api/v1alpha1"
)

// TestScanFindsEveryKind puts one object of several kinds, and an API group, under a prefix.
func TestScanFindsEveryKind(t *testing.T) {
	w := newWorld(t)
	objects := map[string]map[string]any{
		"v1 Node":                                                        {},
		"v1 PersistentVolume":                                            {"spec": map[string]any{"capacity": map[string]any{"storage": "1Gi"}, "accessModes": []any{"ReadWriteOnce"}, "hostPath": map[string]any{"path": "/tmp"}}},
		"scheduling.k8s.io/v1 PriorityClass":                             {"value": int64(1)},
		"storage.k8s.io/v1 StorageClass":                                 {"provisioner": "vivarium.test/none"},
		"networking.k8s.io/v1 IngressClass":                              {"spec": map[string]any{"controller": "vivarium.test/none"}},
		"node.k8s.io/v1 RuntimeClass":                                    {"handler": "runc"},
		"rbac.authorization.k8s.io/v1 ClusterRole":                       {},
		"admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration": {},
	}
	resources := map[string]string{"IngressClass": "ingressclasses", "PriorityClass": "priorityclasses", "StorageClass": "storageclasses", "RuntimeClass": "runtimeclasses"}
	c := dynamicClient(t)
	for key, content := range objects {
		apiVersion, kind, _ := strings.Cut(key, " ")
		gv, err := schema.ParseGroupVersion(apiVersion)
		if err != nil {
			t.Fatal(err)
		}
		resource := resources[kind]
		if resource == "" {
			resource = strings.ToLower(kind) + "s"
		}
		for _, name := range []string{"scanf1-x", "scanf0-x", "scanf2-x", "scanf11-x"} {
			content["apiVersion"], content["kind"], content["metadata"] = apiVersion, kind, map[string]any{"name": name}
			objects := c.Resource(gv.WithResource(resource))
			if _, err := objects.Create(t.Context(), &unstructured.Unstructured{Object: content}, metav1.CreateOptions{}); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			defer func() { _ = objects.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}) }()
		}
	}
	defer w.crd("widgets", "scanf1-example.com", apiextensionsv1.NamespaceScoped)()
	want := []string{`API group "scanf1-example.com"`}
	for key := range objects {
		_, kind, _ := strings.Cut(key, " ")
		want = append(want, fmt.Sprintf("%s \"scanf1-x\"", strings.ToLower(kind)))
	}
	begin := time.Now()
	found := w.find("scanf1")
	t.Logf("found %d in %s", len(found), time.Since(begin))
	for _, x := range want {
		if !strings.Contains(strings.Join(found, "\n"), x) {
			t.Errorf("%s is missing in %q", x, found)
		}
	}
	if len(found) != len(want) {
		t.Errorf("found %q", found)
	}
	begin = time.Now()
	if found := w.find("scanf3"); len(found) > 0 {
		t.Errorf("nobody has %q", found)
	}
	t.Logf("found nothing in %s", time.Since(begin))
}

// TestScanFailsClosed shows that no tenant is made while a part of the control cluster cannot be searched.
func TestScanFailsClosed(t *testing.T) {
	w := newWorld(t)
	create := func() error {
		return w.admin.Create(t.Context(), &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "closd1"}})
	}
	t.Run("NoRights", func(t *testing.T) {
		defer w.crd("gadgets", "example.com", apiextensionsv1.ClusterScoped)()
		w.eventually("refused", func() error {
			err := create()
			if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "list gadgets.example.com of the control cluster") {
				return fmt.Errorf("%w", err)
			}
			return nil
		})
	})
	t.Run("ApiAway", func(t *testing.T) {
		services := dynamicClient(t).Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
		_, err := services.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1.away.example.com"},
			"spec": map[string]any{
				"group": "away.example.com", "version": "v1", "groupPriorityMinimum": int64(10), "versionPriority": int64(10),
				"insecureSkipTLSVerify": true, "service": map[string]any{"namespace": "default", "name": "nowhere"},
			},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = services.Delete(t.Context(), "v1.away.example.com", metav1.DeleteOptions{})
			w.eventually("it is forgotten", func() error {
				_, err := w.config.Scanner.Find(t.Context(), "closd1")
				return err
			})
		}()
		w.eventually("refused", func() error {
			err := create()
			if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "away.example.com") {
				return fmt.Errorf("%w", err)
			}
			return nil
		})
	})
	w.eventually("accepted again", create)
}

func dynamicClient(t *testing.T) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(shared.cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// crd defines a kind and gives what removes it again.
func (w *world) crd(plural, group string, scope apiextensionsv1.ResourceScope) (remove func()) {
	w.t.Helper()
	crds := dynamicClient(w.t).Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	name := plural + "." + group
	_, err := crds.Create(w.t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"group": group, "scope": string(scope),
			"names":    map[string]any{"plural": plural, "singular": strings.TrimSuffix(plural, "s"), "kind": strings.Title(strings.TrimSuffix(plural, "s"))}, //nolint:staticcheck // ASCII
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}}}},
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	discovered := func(want bool) func() error {
		return func() error {
			groups, err := w.control.Discovery().ServerGroups()
			if err != nil {
				return err
			}
			for _, g := range groups.Groups {
				if g.Name == group {
					if want {
						return nil
					}
					return fmt.Errorf("still served")
				}
			}
			if want {
				return fmt.Errorf("not served")
			}
			return nil
		}
	}
	w.eventually(name+" is served", discovered(true))
	return func() {
		_ = crds.Delete(w.t.Context(), name, metav1.DeleteOptions{})
		w.eventually(name+" is gone", discovered(false))
	}
}
