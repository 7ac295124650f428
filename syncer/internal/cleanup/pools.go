package cleanup

import (
	"context"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

// podsManagedBy is LabelManagedBy of the pods in a pool.
const podsManagedBy = "vk-provider"

// Pools takes everything of ours out of a pool that is given back. Make one with [NewPools].
type Pools struct {
	admin    client.WithWatch
	registry PoolRegistry
	queue    workqueue.TypedRateLimitingInterface[string]
}

// PoolRegistry is what [Pools] asks about pools; pools.Registry answers it.
type PoolRegistry interface {
	Registry
	Resource(name string) (*v1alpha1.ResourcePool, bool)
}

// NewPools makes a Pools; nothing is dialled before Run.
func NewPools(admin client.WithWatch, registry PoolRegistry) *Pools {
	return &Pools{
		admin: admin, registry: registry,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryLast)),
	}
}

// Look queues a ResourcePool. It does not block.
func (p *Pools) Look(name string) { p.queue.Add(name) }

// Run works until ctx is done.
func (p *Pools) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for next(ctx, p.queue, p.work) {
			}
		})
	}
	<-ctx.Done()
	p.queue.ShutDown()
	group.Wait()
	return nil
}

func (p *Pools) work(ctx context.Context, name string) (again bool, err error) {
	resource, ok := p.registry.Resource(name)
	if !ok {
		return false, nil
	}
	ours := slices.Contains(resource.Finalizers, v1alpha1.FinalizerPoolContent)
	switch {
	case resource.DeletionTimestamp == nil && !ours:
		return false, p.patch(ctx, resource, func(finalizers []string) []string { return append(finalizers, v1alpha1.FinalizerPoolContent) })
	case resource.DeletionTimestamp == nil || !ours:
		return false, nil
	case slices.Contains(resource.Finalizers, v1alpha1.FinalizerPool):
		// The pods are still being taken out.
		return true, nil
	}
	pool, open := p.registry.Pool(name)
	if !open {
		boot.Logger(ctx).Log(ctx, -1, "pool is to be given back and cannot be reached", "pool", name)
		return true, nil
	}
	left, err := empty(ctx, pool)
	if err != nil || left {
		return left, err
	}
	if err := p.patch(ctx, resource, func(finalizers []string) []string {
		return slices.DeleteFunc(finalizers, func(f string) bool { return f == v1alpha1.FinalizerPoolContent })
	}); err != nil {
		return false, err
	}
	boot.Logger(ctx).Info("nothing of ours is left in the pool", "pool", name)
	return false, nil
}

// empty deletes our namespaces in a pool once they have no pods, and reports whether anything is left.
func empty(ctx context.Context, pool *pools.Pool) (left bool, err error) {
	pods, err := pool.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		LabelSelector: names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelManagedBy + "=" + podsManagedBy, Limit: 1,
	})
	if err != nil {
		return false, fmt.Errorf("list pods in pool %s: %w", pool.Name, err)
	}
	if len(pods.Items) > 0 {
		return true, nil
	}
	namespaces, err := poolNamespaces(ctx, pool, "")
	if err != nil {
		return false, err
	}
	for i := range namespaces {
		if err := deleteNamespace(ctx, pool, &namespaces[i]); err != nil {
			return false, err
		}
	}
	return len(namespaces) > 0, nil
}

func (p *Pools) patch(ctx context.Context, resource *v1alpha1.ResourcePool, change func([]string) []string) error {
	before, after := resource.DeepCopy(), resource.DeepCopy()
	after.Finalizers = change(after.Finalizers)
	err := p.admin.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("change the finalizers of ResourcePool %s: %w", resource.Name, err)
	}
	return nil
}
