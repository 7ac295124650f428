package carrier

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/engine"
	"vivarium.io/vivarium/syncer/internal/kind"
)

func configMapsOf(pool *pools.Pool) *cache.ListWatch {
	client := pool.Client.CoreV1().ConfigMaps(metav1.NamespaceAll)
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, ours(pool, options))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, ours(pool, options))
		},
	}
}

func secretsOf(pool *pools.Pool) *cache.ListWatch {
	client := pool.Client.CoreV1().Secrets(metav1.NamespaceAll)
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, ours(pool, options))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, ours(pool, options))
		},
	}
}

func ours(pool *pools.Pool, options metav1.ListOptions) metav1.ListOptions {
	options.LabelSelector = pool.Selector(engine.ManagedBy)
	return options
}

// copyInformer remembers our objects of a resource without their content.
func copyInformer(pool *pools.Pool, resource kind.Resource, source *cache.ListWatch, example runtime.Object) cache.SharedIndexInformer {
	informer := cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(source, pool.Client), example, 0, cache.Indexers{})
	// It fails only once the informer has started.
	_ = informer.SetTransform(func(object any) (any, error) {
		if copied, ok := engine.CopyOf(resource, object); ok {
			return copied, nil
		}
		return object, nil
	})
	return informer
}

// NamespaceInformer watches our namespaces in a pool.
func NamespaceInformer(pool *pools.Pool) cache.SharedIndexInformer {
	return informers.NewFilteredNamespaceInformer(pool.Client, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.LabelSelector = NamespaceSelector(pool)
	})
}

// NamespaceSelector selects the tenants' namespaces of our control cluster in a pool; pools.OwnsNamespace says which of
// them are ours.
func NamespaceSelector(pool *pools.Pool) string {
	return names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelTenant
}

// cached gives our object of a key in the pool, nil for none.
func (c *Carrier) cached(key kind.Key) *engine.Copy {
	informer := c.secrets
	if key.Kind == kind.ConfigMap {
		informer = c.configMaps
	}
	object, ok, err := informer.GetStore().GetByKey(string(key.Namespace) + "/" + key.Name)
	if err != nil || !ok {
		return nil
	}
	copied, _ := object.(*engine.Copy)
	return copied
}

// keyOf is the inverse of cached.
func (c *Carrier) keyOf(informer cache.SharedIndexInformer, object any) (kind.Key, bool) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	copied, ok := object.(*engine.Copy)
	if !ok {
		return kind.Key{}, false
	}
	key := kind.Key{Kind: kind.Secret, Namespace: names.ControlNamespace(copied.Namespace), Name: copied.Name}
	if informer == c.configMaps {
		key.Kind = kind.ConfigMap
	} else if _, token := names.TokenSecretOwner(copied.Name); token {
		key.Kind = kind.Token
	}
	return key, true
}

// follow queues a key whenever our object in the pool changes, by whomever.
func (c *Carrier) follow(informer cache.SharedIndexInformer) error {
	queue := func(object any) {
		if key, ok := c.keyOf(informer, object); ok {
			c.queue.Add(key)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    queue,
		UpdateFunc: func(_, object any) { queue(object) },
		DeleteFunc: func(object any) {
			if key, ok := c.keyOf(informer, object); ok && c.memories.has(key) {
				c.memories.with(key, func(m *memory) { m.last = nil })
			}
			queue(object)
		},
	})
	if err != nil {
		return fmt.Errorf("watch pool %s: %w", c.config.Pool.Name, err)
	}
	return nil
}
