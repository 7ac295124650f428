// Package control keeps what the provider knows of the control cluster: the pods that are bound to nodes, the virtual
// Nodes, the addresses of Services, and which namespaces are tenants'. One watch each, however many pools and virtual Nodes there are.
//
// It must never write, and its objects are shared: whoever gets one must not change it. Start at [Cache].
package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
)

// Names of indexes.
const (
	byUID  = "uid"
	byNode = "node"
	byPool = "pool"
)

// Cache is a view of the control cluster. Safe for concurrent use.
type Cache struct {
	pods, nodes, namespaces, services cache.SharedIndexInformer
}

// New makes a Cache; Run fills it.
func New(client kubernetes.Interface) (*Cache, error) {
	c := &Cache{
		pods: informers.NewFilteredPodInformer(client, metav1.NamespaceAll, 0,
			cache.Indexers{byUID: uidIndex, byNode: nodeIndex, cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, bound),
		nodes:      informers.NewFilteredNodeInformer(client, 0, cache.Indexers{byPool: poolIndex}, labelled(names.LabelPool)),
		namespaces: informers.NewFilteredNamespaceInformer(client, 0, cache.Indexers{}, labelled(names.LabelTenant)),
		services:   informers.NewServiceInformer(client, metav1.NamespaceAll, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}),
	}
	for _, i := range c.all() {
		transform := withoutManagedFields
		if i == c.services {
			transform = onlyAddresses
		}
		if err := i.SetTransform(transform); err != nil {
			return nil, fmt.Errorf("watch the control cluster: %w", err)
		}
	}
	return c, nil
}

// bound leaves out pods that no scheduler has placed yet.
func bound(o *metav1.ListOptions) {
	o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
}

func labelled(key string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) { o.LabelSelector = key }
}

func withoutManagedFields(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}

// onlyAddresses keeps of a Service what pods are told.
func onlyAddresses(object any) (any, error) {
	if s, ok := object.(*corev1.Service); ok {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion},
			Spec:       corev1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: s.Spec.Ports},
		}, nil
	}
	return object, nil
}

func uidIndex(object any) ([]string, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return nil, nil
	}
	return []string{string(pod.UID)}, nil
}

func nodeIndex(object any) ([]string, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return nil, nil
	}
	return []string{pod.Spec.NodeName}, nil
}

func poolIndex(object any) ([]string, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return nil, nil
	}
	return []string{node.Labels[names.LabelPool]}, nil
}

func (c *Cache) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.namespaces, c.nodes, c.services, c.pods}
}

// Run fills the cache until ctx is done.
func (c *Cache) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, i := range c.all() {
		running.Go(func() { i.RunWithContext(ctx) })
	}
	running.Wait()
}

// HasSynced reports whether everything that was there at the start is known.
func (c *Cache) HasSynced() bool {
	for _, i := range c.all() {
		if !i.HasSynced() {
			return false
		}
	}
	return true
}

// Wait blocks until HasSynced; false when ctx ends first.
func (c *Cache) Wait(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), c.HasSynced)
}

// PodByUID gives a bound pod.
func (c *Cache) PodByUID(uid types.UID) (*corev1.Pod, bool) {
	return one[corev1.Pod](c.pods.GetIndexer().ByIndex(byUID, string(uid)))
}

// Pod gives a bound pod by name.
func (c *Cache) Pod(namespace, name string) (*corev1.Pod, bool) {
	object, ok, err := c.pods.GetIndexer().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	pod, ok := object.(*corev1.Pod)
	return pod, ok
}

// PodsOnNode gives the pods that are bound to a Node.
func (c *Cache) PodsOnNode(node string) []*corev1.Pod {
	return all[corev1.Pod](c.pods.GetIndexer().ByIndex(byNode, node))
}

// PodsInNamespace gives the bound pods of a namespace.
func (c *Cache) PodsInNamespace(namespace string) []*corev1.Pod {
	return all[corev1.Pod](c.pods.GetIndexer().ByIndex(cache.NamespaceIndex, namespace))
}

// ServicesInNamespace gives the Services of a namespace, their addresses and ports only.
func (c *Cache) ServicesInNamespace(namespace string) []*corev1.Service {
	return all[corev1.Service](c.services.GetIndexer().ByIndex(cache.NamespaceIndex, namespace))
}

// PodCount is how many bound pods there are.
func (c *Cache) PodCount() int { return len(c.pods.GetIndexer().ListKeys()) }

// Node gives a virtual Node.
func (c *Cache) Node(name string) (*corev1.Node, bool) {
	object, ok, err := c.nodes.GetIndexer().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	node, ok := object.(*corev1.Node)
	return node, ok
}

// NodesOfPool gives the virtual Nodes of a pool.
func (c *Cache) NodesOfPool(pool string) []*corev1.Node {
	return all[corev1.Node](c.nodes.GetIndexer().ByIndex(byPool, pool))
}

// Nodes gives every virtual Node.
func (c *Cache) Nodes() []*corev1.Node {
	var out []*corev1.Node
	for _, object := range c.nodes.GetStore().List() {
		if node, ok := object.(*corev1.Node); ok {
			out = append(out, node)
		}
	}
	return out
}

// ReasonHeld is the reason of the Ready condition of a virtual Node whose pool does not answer and whose pods are kept.
const ReasonHeld = "PoolHeld"

// Silent reports whether a virtual Node says that nothing is known of its pods.
func Silent(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status != corev1.ConditionTrue || c.Reason == ReasonHeld
		}
	}
	return true
}

// ErrNotTenants says that a namespace belongs to no tenant.
var ErrNotTenants = errors.New("is not a tenant's namespace")

// Tenant tells whose a namespace is. The name alone does not: it must carry the gateway's label as well, since an
// operator's namespace may look like a tenant's.
func (c *Cache) Tenant(namespace string) (names.TenantID, names.TenantNamespace, error) {
	id, inner, ok := names.SplitNamespace(names.ControlNamespace(namespace))
	object, there, err := c.namespaces.GetStore().GetByKey(namespace)
	if err != nil || !ok || !there {
		return "", "", fmt.Errorf("namespace %s: %w", namespace, ErrNotTenants)
	}
	if o, isObject := object.(metav1.Object); !isObject || o.GetLabels()[names.LabelTenant] != string(id) {
		return "", "", fmt.Errorf("namespace %s: %w", namespace, ErrNotTenants)
	}
	return id, inner, nil
}

// NamespaceAnnotations gives those of a namespace. The caller must not change them.
func (c *Cache) NamespaceAnnotations(namespace string) map[string]string {
	object, ok, err := c.namespaces.GetStore().GetByKey(namespace)
	if o, isObject := object.(metav1.Object); err == nil && ok && isObject {
		return o.GetAnnotations()
	}
	return nil
}

// PodHandler is told about bound pods.
type PodHandler struct {
	Changed func(pod *corev1.Pod)
	// Deleted is called with the last known state. seen is true when the deletion itself was observed, and false when
	// the pod was merely missing from a later list.
	Deleted func(pod *corev1.Pod, seen bool)
}

// OnPods calls the handler for every pod there is and will be, until ctx is done.
func (c *Cache) OnPods(ctx context.Context, h PodHandler) error {
	return watchWith(ctx, c.pods, podEvents(h))
}

func podEvents(h PodHandler) cache.ResourceEventHandlerFuncs {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { call(object, h.Changed) },
		UpdateFunc: func(before, object any) {
			// A list after a gap makes one change of a pod that went and its namesake that came.
			call(object, func(now *corev1.Pod) {
				call(before, func(was *corev1.Pod) {
					if was.UID != now.UID && h.Deleted != nil {
						h.Deleted(was, false)
					}
				})
			})
			call(object, h.Changed)
		},
		DeleteFunc: func(object any) {
			tombstone, missed := object.(cache.DeletedFinalStateUnknown)
			if missed {
				object = tombstone.Obj
			}
			call(object, func(pod *corev1.Pod) { h.Deleted(pod, !missed) })
		},
	}
}

// OnNodes calls changed for every virtual Node that appears, changes or goes, until ctx is done. matters says which changes
// are told; nil for all.
func (c *Cache) OnNodes(ctx context.Context, matters func(before, now *corev1.Node) bool, changed func(node *corev1.Node)) error {
	return watchWith(ctx, c.nodes, nodeEvents(matters, changed))
}

func nodeEvents(matters func(before, now *corev1.Node) bool, changed func(node *corev1.Node)) cache.ResourceEventHandlerFuncs {
	notify := func(object any) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		call(object, changed)
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: notify,
		UpdateFunc: func(before, object any) {
			call(before, func(was *corev1.Node) {
				call(object, func(now *corev1.Node) {
					if matters == nil || was.UID != now.UID || matters(was, now) {
						changed(now)
					}
				})
			})
		},
		DeleteFunc: notify,
	}
}

// MattersToPods reports whether a change of a virtual Node may be something to its pods. What it promises and when it was
// last heard of changes all the time, and a Node may have thousands.
func MattersToPods(before, now *corev1.Node) bool {
	return Silent(before) != Silent(now) ||
		!equality.Semantic.DeepEqual(before.Spec, now.Spec) || !equality.Semantic.DeepEqual(before.Status.Addresses, now.Status.Addresses) ||
		!maps.Equal(before.Labels, now.Labels) || !maps.Equal(before.Annotations, now.Annotations)
}

// OnNamespaces calls added for every tenant's namespace that appears, until ctx is done.
func (c *Cache) OnNamespaces(ctx context.Context, added func(namespace string)) error {
	return watchWith(ctx, c.namespaces, cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { call(object, func(ns *corev1.Namespace) { added(ns.Name) }) },
	})
}

func watchWith(ctx context.Context, informer cache.SharedIndexInformer, handler cache.ResourceEventHandler) error {
	registration, err := informer.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("watch the control cluster: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(registration) })
	return nil
}

func call[T any](object any, f func(*T)) {
	if o, ok := object.(*T); ok && f != nil {
		f(o)
	}
}

func one[T any](objects []any, err error) (*T, bool) {
	list := all[T](objects, err)
	if len(list) == 0 {
		return nil, false
	}
	return list[0], true
}

func all[T any](objects []any, err error) []*T {
	if err != nil {
		return nil // only for an index that does not exist
	}
	var out []*T
	for _, object := range objects {
		if o, ok := object.(*T); ok {
			out = append(out, o)
		}
	}
	return out
}
