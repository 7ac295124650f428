package pools

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
)

// Classes of errors of [EnsureNamespace], for errors.Is.
var (
	// ErrNotOurs says that a pool object of the wanted name exists and was not made by this control cluster. It is never
	// touched; only the pool's operator can resolve it.
	ErrNotOurs = errors.New("exists in the pool and is not ours")
	// ErrTerminating says that the pool namespace is on its way out: try again when it is gone.
	ErrTerminating = errors.New("is being deleted in the pool")
)

// managedByPlatform is LabelManagedBy of what no single component owns.
const managedByPlatform = "vivarium"

// podSecurityLevel is what a pool's own admission enforces in our namespaces, whatever the control cluster let pass.
const podSecurityLevel = "baseline"

// EnsureNamespace makes sure that the pool has the namespace of a tenant, and that it is ours. It is idempotent and safe
// to race with other components. It never adopts or relabels: a namespace that is there without our labels is
// [ErrNotOurs].
func EnsureNamespace(ctx context.Context, pool *Pool, namespace names.ControlNamespace) error {
	tenant, _, ok := names.SplitNamespace(namespace)
	if !ok {
		return fmt.Errorf("namespace %s: %w", namespace, names.ErrForeign)
	}
	got, err := pool.Client.CoreV1().Namespaces().Get(ctx, string(namespace), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		got, err = pool.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: string(namespace),
			Labels: driverLabels(pool, map[string]string{
				names.LabelTenant:                            string(tenant),
				names.LabelControl:                           string(pool.ControlUID),
				names.LabelManagedBy:                         managedByPlatform,
				"pod-security.kubernetes.io/enforce":         podSecurityLevel,
				"pod-security.kubernetes.io/enforce-version": "latest",
			}),
		}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			got, err = pool.Client.CoreV1().Namespaces().Get(ctx, string(namespace), metav1.GetOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("make namespace %s in pool %s: %w", namespace, pool.Name, err)
	}
	switch {
	case !OwnsNamespace(pool, got):
		return fmt.Errorf("namespace %s in pool %s: %w", namespace, pool.Name, ErrNotOurs)
	case got.DeletionTimestamp != nil:
		return fmt.Errorf("namespace %s in pool %s: %w", namespace, pool.Name, ErrTerminating)
	}
	return nil
}

// driverLabels adds what a namespace has to carry from its creation for the pool's network driver.
func driverLabels(pool *Pool, labels map[string]string) map[string]string {
	if resource := pool.resource.Load(); resource != nil && resource.Spec.Network.Driver == v1alpha1.DriverOVNUDN {
		labels[netkeys.UserDefinedNetwork] = ""
	}
	return labels
}

// OwnsNamespace reports whether a pool namespace was made by [EnsureNamespace] for this control cluster and the tenant
// that its name says. Whoever deletes one asks first.
func OwnsNamespace(pool *Pool, namespace *corev1.Namespace) bool {
	tenant, _, ok := names.SplitNamespace(names.ControlNamespace(namespace.Name))
	return ok && pool.ControlUID != "" &&
		namespace.Labels[names.LabelTenant] == string(tenant) &&
		namespace.Labels[names.LabelControl] == string(pool.ControlUID) &&
		namespace.Labels[names.LabelManagedBy] == managedByPlatform
}
