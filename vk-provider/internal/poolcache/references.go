package poolcache

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podrefs"
)

// Kinds of references.
const (
	secrets    = "secrets"
	configMaps = "configmaps"
)

// watchReferences makes informers for the ConfigMaps and Secrets that the syncer brings. Only their metadata is read:
// what is in them is not the provider's business.
func (c *Cache) watchReferences() error {
	if c.Pool.Config == nil {
		return nil // between fakes
	}
	client, err := metadata.NewForConfig(c.Pool.Config)
	if err != nil {
		return fmt.Errorf("watch pool %s: %w", c.Pool.Name, err)
	}
	ours := func(o metav1.ListOptions) metav1.ListOptions {
		o.LabelSelector = names.LabelControl + "=" + string(c.Pool.ControlUID)
		return o
	}
	c.references = map[string]cache.SharedIndexInformer{}
	for _, kind := range []string{secrets, configMaps} {
		resource := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: kind})
		lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return resource.List(ctx, ours(o))
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return resource.Watch(ctx, ours(o))
			},
		}, client)
		i := cache.NewSharedIndexInformer(lw, &metav1.PartialObjectMetadata{}, 0, cache.Indexers{})
		if err := i.SetTransform(onlyName); err != nil {
			return fmt.Errorf("watch pool %s: %w", c.Pool.Name, err)
		}
		c.references[kind] = i
	}
	return nil
}

// onlyName forgets all but that the object is there.
func onlyName(object any) (any, error) {
	if o, ok := object.(*metav1.PartialObjectMetadata); ok {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion,
		}}, nil
	}
	return object, nil
}

func referenceKey(kind, namespace, name string) string { return kind + "/" + namespace + "/" + name }

// Missing gives the keys of what a pool pod needs to start and the pool does not have yet. certain is true when some of
// it is sure to come: tokens and the tenant's CA are made for the pod, while a tenant may name what does not exist.
func (c *Cache) Missing(poolPod *corev1.Pod) (missing []string, certain bool) {
	if c.references == nil {
		return nil, false
	}
	refs := podrefs.Of(&poolPod.Spec)
	for kind, list := range map[string][]podrefs.Ref{secrets: refs.Secrets, configMaps: refs.ConfigMaps} {
		for _, ref := range list {
			if ref.Optional {
				continue
			}
			if _, there, err := c.references[kind].GetStore().GetByKey(poolPod.Namespace + "/" + ref.Name); err != nil || !there {
				missing = append(missing, referenceKey(kind, poolPod.Namespace, ref.Name))
				_, token := names.TokenSecretOwner(ref.Name)
				certain = certain || kind == secrets && token || kind == configMaps && ref.Name == names.RootCAConfigMap
			}
		}
	}
	return missing, certain
}
