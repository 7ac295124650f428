package cleanup

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

func namespace(name, tenant string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u", Labels: map[string]string{
		names.LabelTenant: tenant, names.LabelControl: "control", names.LabelManagedBy: "vivarium",
	}}}
}

func newPool(objects ...runtime.Object) *pools.Pool {
	return pools.NewPool(&v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: "pool-a"}}, "control", nil, fake.NewClientset(objects...))
}

func has(t *testing.T, pool *pools.Pool, name string) bool {
	t.Helper()
	_, err := pool.Client.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

// TestEmpty: a pool that is given back keeps its namespaces while a pod of ours is in one, and what is not ours always.
func TestEmpty(t *testing.T) {
	foreign := namespace("abc123-x", "abc123")
	foreign.Labels[names.LabelControl] = "another"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "p", Labels: map[string]string{names.LabelControl: "control", names.LabelManagedBy: podsManagedBy}}}
	pool := newPool(namespace("abc123-web", "abc123"), namespace("zzz999-web", "zzz999"), foreign, namespace("forged-ns", "abc123"), pod)
	if left, err := empty(t.Context(), pool); err != nil || !left || !has(t, pool, "abc123-web") || !has(t, pool, "zzz999-web") {
		t.Fatalf("with a pod: left %t, %v", left, err)
	}
	if err := pool.Client.CoreV1().Pods("abc123-web").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if left, err := empty(t.Context(), pool); err != nil || !left {
		t.Errorf("namespaces that are being deleted are still there: left %t, %v", left, err)
	}
	if left, err := empty(t.Context(), pool); err != nil || left {
		t.Errorf("at the end: left %t, %v", left, err)
	}
	if has(t, pool, "abc123-web") || has(t, pool, "zzz999-web") || !has(t, pool, "abc123-x") || !has(t, pool, "forged-ns") {
		t.Error("deleted the wrong namespaces")
	}
}

// TestNamespaces: when a pool namespace goes, and above all when it does not.
func TestNamespaces(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cases := map[string]struct {
		reason string
		// others are namespaces besides the one in question, orphans too.
		others      int
		known, live bool
		terminating bool
		age         time.Duration
		deleted     bool
	}{
		"Alive":            {"control has it", 0, true, true, false, time.Hour, false},
		"CacheLags":        {"control has it, the cache does not know yet", 0, false, true, false, time.Hour, false},
		"JustGone":         {"it may be made anew", 0, false, false, false, orphanGrace - time.Second, false},
		"Gone":             {"nobody wants it", 0, false, false, false, orphanGrace, true},
		"TenantGoes":       {"no need to wait", 0, false, false, true, 0, true},
		"TenantGoesUnsure": {"control still has it", 0, false, true, true, 0, false},
		"ManyAtOnce":       {"rather control is broken", massLeast, false, false, false, orphanGrace, false},
		"ManyForLong":      {"nobody said stop", massLeast, false, false, false, massGrace, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			subject := namespace("abc123-web", "abc123")
			objects := []runtime.Object{subject}
			for i := range tc.others {
				objects = append(objects, namespace(fmt.Sprintf("abc123-other-%d", i), "abc123"))
			}
			pool := newPool(objects...)
			control := fake.NewClientset()
			if tc.live {
				control = fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "abc123-web"}})
			}
			informer := cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.Namespace{}, 0, cache.Indexers{})
			for _, object := range objects {
				if err := informer.GetStore().Add(object); err != nil {
					t.Fatal(err)
				}
			}
			n := NewNamespaces(NamespacesConfig{
				Pool: pool, Control: control, Informer: informer,
				Exists:      func(names.ControlNamespace) bool { return tc.known },
				Terminating: func(names.TenantID) bool { return tc.terminating },
				Gone:        func(names.TenantID) {},
			})
			n.now = func() time.Time { return now }
			n.since["abc123-web"] = now.Add(-tc.age)
			if _, err := n.work(t.Context(), "abc123-web"); err != nil {
				t.Fatal(err)
			}
			if got := !has(t, pool, "abc123-web"); got != tc.deleted {
				t.Errorf("%s: deleted %t", tc.reason, got)
			}
		})
	}
}
