// Package cleanup removes what tenants leave behind in pools: the namespaces of a deleted tenant in every pool, a pool
// namespace whose control namespace is gone, and all that is ours in a pool that is given back.
//
// It must never delete a pool namespace that is not marked as ours for this control cluster and for the tenant that its
// name says, nor conclude that a namespace is gone from control from a cache alone. Start at [Tenants], [Pools] and
// [Namespaces], one for each of the three.
package cleanup

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

const (
	// callTimeout bounds the work on one item.
	callTimeout = 10 * time.Second
	// pollEvery is how often something is looked at again whose end no event tells.
	pollEvery = 2 * time.Second
	// Retries after errors.
	retryFirst, retryLast = 100 * time.Millisecond, 30 * time.Second
)

// poolNamespaces asks a pool for our namespaces, of one tenant or of all.
func poolNamespaces(ctx context.Context, pool *pools.Pool, tenant names.TenantID) ([]corev1.Namespace, error) {
	selector := names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelTenant
	if tenant != "" {
		selector += "=" + string(tenant)
	}
	list, err := pool.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list namespaces in pool %s: %w", pool.Name, err)
	}
	var owned []corev1.Namespace
	for i := range list.Items {
		if pools.OwnsNamespace(pool, &list.Items[i]) {
			owned = append(owned, list.Items[i])
		}
	}
	return owned, nil
}

// deleteNamespace deletes exactly the namespace that was looked at. That it is gone or going is no error.
func deleteNamespace(ctx context.Context, pool *pools.Pool, namespace *corev1.Namespace) error {
	if !pools.OwnsNamespace(pool, namespace) {
		return fmt.Errorf("delete namespace %s in pool %s: %w", namespace.Name, pool.Name, pools.ErrNotOurs)
	}
	if namespace.DeletionTimestamp != nil {
		return nil
	}
	err := pool.Client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &namespace.UID},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete namespace %s in pool %s: %w", namespace.Name, pool.Name, err)
	}
	return nil
}
