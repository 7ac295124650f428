package nodes

import (
	"context"
	"fmt"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
)

// evictionsAtOnce bounds what one pass evicts; the next pass comes with the next tick.
const evictionsAtOnce = 50

// drain empties a pool whose ResourcePool is being deleted: no new pods, the running ones evicted within their budgets,
// then the Nodes, then our hold on the ResourcePool.
func (c *Controller) drain(ctx context.Context, p *pass) error {
	for name, node := range p.nodes {
		if !node.Spec.Unschedulable {
			changed := node.DeepCopy()
			changed.Spec.Unschedulable = true
			patched, err := c.patch(ctx, node, changed)
			if err != nil {
				return err
			}
			node = patched
		}
		patched, err := c.patchStatus(ctx, node, status(node, nil, p.health, c.place(), c.now()))
		if err != nil {
			return err
		}
		p.nodes[name] = patched
	}
	left, err := c.evict(ctx, p)
	if err != nil || left > 0 {
		return err
	}
	// A pod leaves the control cluster only after it has left the pool, so what may remain in a pool that does not
	// answer is what was deleted by force.
	if p.cache != nil && p.health.ready && len(p.cache.Ours()) > 0 {
		return nil
	}
	for _, node := range p.nodes {
		if err := c.remove(ctx, p, node); err != nil {
			return err
		}
	}
	return c.release(ctx, p.resource)
}

// evict asks for the eviction of the pods on the pool's Nodes and gives the number of pods that are still there.
func (c *Controller) evict(ctx context.Context, p *pass) (left int, err error) {
	asked := 0
	for name := range p.nodes {
		for _, pod := range c.config.Cache.PodsOnNode(name) {
			left++
			if pod.DeletionTimestamp != nil || asked == evictionsAtOnce {
				continue
			}
			asked++
			call, cancel := context.WithTimeout(ctx, callTimeout)
			err := c.config.Control.PolicyV1().Evictions(pod.Namespace).Evict(call, &policyv1.Eviction{
				ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
				DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
			})
			cancel()
			// Too many requests is a budget that does not allow it now.
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsTooManyRequests(err) && !apierrors.IsConflict(err) {
				return left, fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
			}
		}
	}
	return left, nil
}

// release takes our finalizer from a ResourcePool.
func (c *Controller) release(ctx context.Context, resource *v1alpha1.ResourcePool) error {
	if !slices.Contains(resource.Finalizers, v1alpha1.FinalizerPool) {
		return nil
	}
	changed := resource.DeepCopy()
	changed.Finalizers = slices.DeleteFunc(changed.Finalizers, func(f string) bool { return f == v1alpha1.FinalizerPool })
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.config.Admin.Patch(call, changed, client.MergeFromWithOptions(resource, client.MergeFromWithOptimisticLock{}), client.FieldOwner(Component))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("let ResourcePool %s go: %w", resource.Name, err)
	}
	boot.Logger(ctx).Info("pool drained", "pool", resource.Name)
	return nil
}
