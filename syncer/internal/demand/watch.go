package demand

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podrefs"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// Indexes.
const (
	byReference = "reference"
	byNode      = "node"
	byTenant    = "tenant"
)

// bound leaves out pods that no scheduler has placed yet.
func bound(o *metav1.ListOptions) {
	o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
}

// podInformer keeps what is needed of every pod that is bound to a node.
func podInformer(control kubernetes.Interface) cache.SharedIndexInformer {
	informer := informers.NewFilteredPodInformer(control, metav1.NamespaceAll, 0, cache.Indexers{
		byNode: func(object any) ([]string, error) {
			if pod, ok := object.(*corev1.Pod); ok {
				return []string{pod.Spec.NodeName}, nil
			}
			return nil, nil
		},
		byReference: func(object any) ([]string, error) {
			pod, ok := object.(*corev1.Pod)
			if !ok {
				return nil, nil
			}
			var keys []string
			for _, key := range kind.References(pod) {
				keys = append(keys, key.String())
			}
			return keys, nil
		},
	}, bound)
	return transformed(informer, func(object any) any {
		if pod, ok := object.(*corev1.Pod); ok {
			return slim(pod)
		}
		return object
	})
}

// slim keeps of a pod what kind.References and events need.
func slim(pod *corev1.Pod) *corev1.Pod {
	s := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, ServiceAccountName: pod.Spec.ServiceAccountName,
			Volumes: pod.Spec.Volumes, ImagePullSecrets: pod.Spec.ImagePullSecrets,
		},
		Status: corev1.PodStatus{Phase: pod.Status.Phase},
	}
	// One container that refers to all that any of them refers to reads the same.
	var all corev1.Container
	podrefs.EachContainer(&pod.Spec, func(c *corev1.Container) {
		all.EnvFrom = append(all.EnvFrom, c.EnvFrom...)
		for i := range c.Env {
			if c.Env[i].ValueFrom != nil {
				all.Env = append(all.Env, c.Env[i])
			}
		}
	})
	if len(all.EnvFrom)+len(all.Env) > 0 {
		s.Spec.Containers = []corev1.Container{all}
	}
	return s
}

func nodeInformer(control kubernetes.Interface) cache.SharedIndexInformer {
	informer := informers.NewFilteredNodeInformer(control, 0, cache.Indexers{}, func(o *metav1.ListOptions) { o.LabelSelector = names.LabelPool })
	return transformed(informer, func(object any) any {
		node, ok := object.(*corev1.Node)
		if !ok {
			return object
		}
		pool, _ := pools.NodePool(node)
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: map[string]string{names.LabelPool: pool},
		}}
	})
}

func namespaceInformer(control kubernetes.Interface) cache.SharedIndexInformer {
	informer := informers.NewFilteredNamespaceInformer(control, 0, cache.Indexers{
		byTenant: func(object any) ([]string, error) {
			if namespace, ok := object.(*corev1.Namespace); ok {
				return []string{namespace.Labels[names.LabelTenant]}, nil
			}
			return nil, nil
		},
	}, func(o *metav1.ListOptions) { o.LabelSelector = names.LabelTenant })
	return transformed(informer, func(object any) any {
		namespace, ok := object.(*corev1.Namespace)
		if !ok {
			return object
		}
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: namespace.Name, UID: namespace.UID, ResourceVersion: namespace.ResourceVersion, DeletionTimestamp: namespace.DeletionTimestamp,
			Labels: map[string]string{names.LabelTenant: namespace.Labels[names.LabelTenant]},
		}}
	})
}

// transformed keeps only what keep returns in an informer that has not started.
func transformed(informer cache.SharedIndexInformer, keep func(any) any) cache.SharedIndexInformer {
	// It fails only once the informer has started.
	_ = informer.SetTransform(func(object any) (any, error) { return keep(object), nil })
	return informer
}

// nameAndVersion keeps of metadata what sourceOf needs. Annotations above all do not stay: kubectl apply writes the whole
// Secret into one.
func nameAndVersion(object any) any {
	meta, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
	}}
}

// wire connects the informers to the subscribers.
func (d *Demand) wire() error {
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		d.pods: cache.ResourceEventHandlerFuncs{
			AddFunc: func(object any) { d.podChanged(nil, object) },
			UpdateFunc: func(before, after any) {
				b, okBefore := before.(*corev1.Pod)
				a, okAfter := after.(*corev1.Pod)
				if okBefore && okAfter && a.UID != b.UID {
					// Another pod of the same name, maybe in another pool; the deletion in between was missed.
					d.podChanged(before, nil)
					d.podChanged(nil, after)
					return
				}
				d.podChanged(before, after)
			},
			DeleteFunc: func(object any) { d.podChanged(object, nil) },
		},
		d.nodes: cache.ResourceEventHandlerFuncs{
			AddFunc: d.nodeChanged,
			UpdateFunc: func(before, after any) {
				b, okBefore := before.(*corev1.Node)
				a, okAfter := after.(*corev1.Node)
				if okBefore && okAfter && a.Labels[names.LabelPool] != b.Labels[names.LabelPool] {
					d.nodeChanged(before)
					d.nodeChanged(after)
				}
			},
			DeleteFunc: d.nodeChanged,
		},
		d.configMaps: sourceHandler(func(namespace names.ControlNamespace, name string) {
			if key, ok := kind.ConfigMapKey(namespace, name); ok && !kind.IsRootCA(key) {
				d.notify(everyPool, key)
			}
		}),
		d.secrets: sourceHandler(func(namespace names.ControlNamespace, name string) {
			if key, ok := kind.SecretKey(namespace, name); ok {
				d.notify(everyPool, key)
			}
		}),
	}
	for informer, handler := range handlers {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watch the control cluster: %w", err)
		}
	}
	return nil
}

func sourceHandler(changed func(names.ControlNamespace, string)) cache.ResourceEventHandler {
	notify := func(object any) {
		if meta, ok := unwrap[*metav1.PartialObjectMetadata](object); ok {
			if _, _, ok := names.SplitNamespace(names.ControlNamespace(meta.Namespace)); ok {
				changed(names.ControlNamespace(meta.Namespace), meta.Name)
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: notify,
		UpdateFunc: func(before, after any) {
			b, okBefore := before.(*metav1.PartialObjectMetadata)
			a, okAfter := after.(*metav1.PartialObjectMetadata)
			if okBefore && okAfter && a.ResourceVersion == b.ResourceVersion {
				return
			}
			notify(after)
		},
		DeleteFunc: notify,
	}
}

// podChanged tells the pod's pool about everything that the pod began or ceased to refer to. Most changes of a pod are of
// its status and change nothing here.
func (d *Demand) podChanged(before, after any) {
	b, _ := unwrap[*corev1.Pod](before)
	a, _ := unwrap[*corev1.Pod](after)
	var old, now []kind.Key
	pool := everyPool
	for _, pod := range []*corev1.Pod{b, a} {
		if pod != nil {
			pool = d.poolOf(pod)
		}
	}
	if pool == everyPool {
		return
	}
	if b != nil {
		old = kind.References(b)
	}
	if a != nil {
		now = kind.References(a)
	}
	for _, key := range now {
		if !slices.Contains(old, key) {
			d.notify(pool, key)
		}
	}
	for _, key := range old {
		if !slices.Contains(now, key) {
			d.notify(pool, key)
		}
	}
}

// nodeChanged tells a pool about everything that the pods on one of its nodes refer to.
func (d *Demand) nodeChanged(object any) {
	node, ok := unwrap[*corev1.Node](object)
	if !ok {
		return
	}
	pool, ok := pools.NodePool(node)
	if !ok {
		return
	}
	for _, pod := range d.podsOn(node.Name) {
		d.notify(pool, kind.References(pod)...)
	}
}

func unwrap[T any](object any) (T, bool) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	t, ok := object.(T)
	return t, ok
}
