package gateway

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// TestNamespaces writes what only a subresource of a namespace writes, as controllers of a cluster's owner do. The labels
// that the platform goes by stay, and content never loses its namespace.
func TestNamespaces(t *testing.T) {
	w := theWorld(t)
	tenant := clientset(t, client(t, w.tenant(t, "nsp00a"))).CoreV1()
	control := clientset(t, client(t, w.control)).CoreV1()
	ctx := t.Context()
	labels := func(name string) map[string]string {
		ns, err := control.Namespaces().Get(ctx, "nsp00a-"+name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return ns.Labels
	}
	marked := func(name string) {
		t.Helper()
		if have := labels(name); have["vivarium.io/tenant"] != "nsp00a" || have["pod-security.kubernetes.io/enforce"] != "baseline" {
			t.Errorf("the labels are %v", have)
		}
	}
	create := func(name string) *corev1.Namespace {
		ns, err := tenant.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}

	t.Run("Status", func(t *testing.T) {
		ns := create("web")
		ns.Labels = map[string]string{"a": "b"}
		ns.Status.Conditions = append(ns.Status.Conditions, corev1.NamespaceCondition{Type: "Seen", Status: corev1.ConditionTrue, Reason: "Test"})
		ns, err := tenant.Namespaces().UpdateStatus(ctx, ns, metav1.UpdateOptions{})
		if err != nil || len(ns.Status.Conditions) != 1 || ns.Labels["a"] != "b" || ns.Name != "web" {
			t.Fatalf("%v %v", ns, err)
		}
		marked("web")
		ns, err = tenant.Namespaces().Patch(ctx, "web", types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"c":"d"}},"status":{"conditions":[{"type":"Patched","status":"True"}]}}`), metav1.PatchOptions{}, "status")
		if err != nil || ns.Annotations["c"] != "d" || ns.Status.Conditions[0].Type != "Patched" {
			t.Fatalf("%v %v", ns, err)
		}
		marked("web")
		for patch, kind := range map[string]types.PatchType{
			`{"metadata":{"labels":null}}`:                                              types.MergePatchType,
			`{"metadata":{"labels":{"vivarium.io/tenant":"zzz999"}}}`:                   types.MergePatchType,
			`[{"op":"remove","path":"/metadata/labels"}]`:                               types.JSONPatchType,
			`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"nonsense"}}}`: types.MergePatchType,
		} {
			if _, err := tenant.Namespaces().Patch(ctx, "web", kind, []byte(patch), metav1.PatchOptions{}, "status"); err == nil {
				t.Errorf("%s: no error", patch)
			}
		}
		marked("web")
	})
	t.Run("Finalizers", func(t *testing.T) {
		const own = corev1.FinalizerName("example.com/own")
		ns := create("held")
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, own)
		ns, err := tenant.Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
		if err != nil || !slices.Contains(ns.Spec.Finalizers, own) {
			t.Fatalf("%v %v", ns, err)
		}
		marked("held")
		without := ns.DeepCopy()
		without.Spec.Finalizers = []corev1.FinalizerName{own}
		_, err = tenant.Namespaces().Finalize(ctx, without, metav1.UpdateOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `the finalizer "kubernetes" is the platform's`) {
			t.Errorf("without the finalizer of the platform: %v", err)
		}
		if err := tenant.Namespaces().Delete(ctx, "held", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		// Emptied, it waits for its owner.
		eventually(t, "the namespace is emptied", func() bool {
			ns, err = tenant.Namespaces().Get(ctx, "held", metav1.GetOptions{})
			return err == nil && slices.Equal(ns.Spec.Finalizers, []corev1.FinalizerName{own})
		})
		ns.Spec.Finalizers = nil
		if _, err := tenant.Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the namespace is gone", func() bool {
			_, err := tenant.Namespaces().Get(ctx, "held", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
	t.Run("SecondWall", func(t *testing.T) {
		// As the tenant's admin, without the gateway in between.
		config := client(t, w.control)
		config.Impersonate.UserName, config.Impersonate.Groups = "nsp00a-admin", []string{"nsp00a-system:masters", "nsp00a-system:authenticated"}
		direct, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		ns, err := control.Namespaces().Get(ctx, "nsp00a-web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		bare := ns.DeepCopy()
		delete(bare.Labels, "vivarium.io/tenant")
		if _, err := direct.CoreV1().Namespaces().UpdateStatus(ctx, bare, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("status without the label: %v", err)
		}
		if _, err := direct.CoreV1().Namespaces().Finalize(ctx, bare, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("finalize without the label: %v", err)
		}
	})
	t.Run("TenantGoes", func(t *testing.T) {
		ns := create("stays")
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, "example.com/nobody")
		if _, err := tenant.Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.must(t, w.operator, "", "delete", "tenant", "nsp00a", "--wait=false")
		eventually(t, "the namespace goes with its tenant", func() bool {
			_, err := control.Namespaces().Get(ctx, "nsp00a-stays", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
}
