package cleanup

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

const (
	// orphanGrace is how long a pool namespace may be without its control namespace.
	orphanGrace = 10 * time.Second
	// When more than massLeast namespaces of a pool, and more than half of all, are orphans at once, something is more
	// likely to be wrong with the control cluster than with them: it was restored from an old backup, say. Then there is
	// time for an operator to act.
	massGrace = 10 * time.Minute
	massLeast = 10
)

// NamespacesConfig is what [Namespaces] is made of; every field is required.
type NamespacesConfig struct {
	Pool    *pools.Pool
	Control kubernetes.Interface
	// Informer holds our namespaces in the pool; whoever made it runs it.
	Informer cache.SharedIndexInformer
	// Exists reports whether control is known to have the namespace.
	Exists func(names.ControlNamespace) bool
	// Terminating reports whether a tenant is being deleted.
	Terminating func(names.TenantID) bool
	// Gone is told the tenant of each namespace that vanished from the pool. It must not block.
	Gone func(names.TenantID)
	// Synced reports whether Exists and Terminating can be believed.
	Synced func() bool
}

// Namespaces removes, in one pool, the namespaces whose control namespace is gone. Make one with [NewNamespaces].
type Namespaces struct {
	config NamespacesConfig
	queue  workqueue.TypedRateLimitingInterface[names.ControlNamespace]
	now    func() time.Time

	mu    sync.Mutex // guards since
	since map[names.ControlNamespace]time.Time
}

// NewNamespaces makes a Namespaces; nothing is dialled before Run.
func NewNamespaces(config NamespacesConfig) *Namespaces {
	return &Namespaces{
		config: config, now: time.Now, since: map[names.ControlNamespace]time.Time{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[names.ControlNamespace](retryFirst, retryLast)),
	}
}

// Look queues a namespace; whoever sees it change in control calls it. It does not block.
func (n *Namespaces) Look(name names.ControlNamespace) { n.queue.Add(name) }

// Run works until ctx is done.
func (n *Namespaces) Run(ctx context.Context) error {
	add := func(object any) {
		if namespace, ok := object.(*corev1.Namespace); ok {
			n.queue.Add(names.ControlNamespace(namespace.Name))
		}
	}
	_, err := n.config.Informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    add,
		UpdateFunc: func(_, object any) { add(object) },
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			add(object)
			if namespace, ok := object.(*corev1.Namespace); ok {
				n.config.Gone(names.TenantID(namespace.Labels[names.LabelTenant]))
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch namespaces of pool %s: %w", n.config.Pool.Name, err)
	}
	var group sync.WaitGroup
	if cache.WaitForCacheSync(ctx.Done(), n.config.Informer.HasSynced, n.config.Synced) {
		for range 2 {
			group.Go(func() {
				for next(ctx, n.queue, n.work) {
				}
			})
		}
	}
	<-ctx.Done()
	n.queue.ShutDown()
	group.Wait()
	return nil
}

func (n *Namespaces) work(ctx context.Context, name names.ControlNamespace) (again bool, err error) {
	object, ok, err := n.config.Informer.GetStore().GetByKey(string(name))
	namespace, isNamespace := object.(*corev1.Namespace)
	if err != nil || !ok || !isNamespace || namespace.DeletionTimestamp != nil || !pools.OwnsNamespace(n.config.Pool, namespace) || n.config.Exists(name) {
		n.forget(name)
		return false, nil
	}
	tenant := names.TenantID(namespace.Labels[names.LabelTenant])
	if !n.config.Terminating(tenant) {
		if age := n.orphanFor(name); age < n.grace() {
			return true, nil
		}
	}
	_, err = n.config.Control.CoreV1().Namespaces().Get(ctx, string(name), metav1.GetOptions{})
	switch {
	case err == nil:
		n.forget(name)
		return true, nil
	case !apierrors.IsNotFound(err):
		return false, fmt.Errorf("read namespace %s: %w", name, err)
	}
	if err := deleteNamespace(ctx, n.config.Pool, namespace); err != nil {
		return false, err
	}
	boot.Logger(ctx).Info("deleted a pool namespace whose control namespace is gone", "pool", n.config.Pool.Name, "controlNamespace", string(name))
	n.forget(name)
	return false, nil
}

// orphanFor is how long a namespace has been seen without its control namespace.
func (n *Namespaces) orphanFor(name names.ControlNamespace) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	if _, ok := n.since[name]; !ok {
		n.since[name] = now
	}
	return now.Sub(n.since[name])
}

func (n *Namespaces) forget(name names.ControlNamespace) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.since, name)
}

// grace is how long orphans are left alone at the moment.
func (n *Namespaces) grace() time.Duration {
	all := n.config.Informer.GetStore().List()
	orphans := 0
	for _, object := range all {
		namespace, ok := object.(*corev1.Namespace)
		if ok && namespace.DeletionTimestamp == nil && !n.config.Exists(names.ControlNamespace(namespace.Name)) &&
			!n.config.Terminating(names.TenantID(namespace.Labels[names.LabelTenant])) {
			orphans++
		}
	}
	if orphans > massLeast && orphans*2 > len(all) {
		return massGrace
	}
	return orphanGrace
}
