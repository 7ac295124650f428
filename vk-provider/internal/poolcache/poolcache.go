// Package poolcache keeps what the provider knows of one pool: our pods with their status, the nodes, and how much of
// each node strangers hold. Of strangers' pods it keeps what they reserve and nothing else.
//
// It must never write, and its objects are shared: whoever gets one must not change it. Start at [Cache].
package poolcache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
)

const byControlUID = "control-uid"

// Cache is a view of one pool, for as long as the pool is open. Safe for concurrent use.
type Cache struct {
	// Pool is the pool that it shows.
	Pool *pools.Pool

	component               string
	pods, nodes, namespaces cache.SharedIndexInformer
	// references are what pods need besides themselves, by kind, as metadata only; nil where there is nothing to read it
	// with.
	references map[string]cache.SharedIndexInformer
	// watching counts the open watches on pods: while there is none, what we know of pods may be old. closed is when the
	// last one ended, in Unix nanoseconds.
	watching atomic.Int32
	closed   atomic.Int64
}

// New makes a Cache of what component made in the pool; Run fills it.
func New(pool *pools.Pool, component string) (*Cache, error) {
	c := &Cache{Pool: pool, component: component}
	core := pool.Client.CoreV1()
	c.pods = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return core.Pods("").List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := core.Pods("").Watch(ctx, o)
			if err != nil {
				return nil, err
			}
			return c.counted(w), nil
		},
	}, pool.Client), &corev1.Pod{}, 0, cache.Indexers{byControlUID: controlUIDIndex})
	c.nodes = informers.NewNodeInformer(pool.Client, 0, cache.Indexers{})
	// Only what may be ours; pools.OwnsNamespace has the last word.
	c.namespaces = informers.NewFilteredNamespaceInformer(pool.Client, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.LabelSelector = names.LabelControl + "=" + string(pool.ControlUID)
	})
	if err := c.watchReferences(); err != nil {
		return nil, err
	}
	if err := c.pods.SetTransform(c.trimPod); err != nil {
		return nil, fmt.Errorf("watch pool %s: %w", pool.Name, err)
	}
	if err := c.nodes.SetTransform(trimNode); err != nil {
		return nil, fmt.Errorf("watch pool %s: %w", pool.Name, err)
	}
	return c, nil
}

// counted makes an open watch known for as long as it delivers.
func (c *Cache) counted(w watch.Interface) watch.Interface {
	c.watching.Add(1)
	var once sync.Once
	closed := func() {
		once.Do(func() {
			c.closed.Store(time.Now().UnixNano())
			c.watching.Add(-1)
		})
	}
	out := make(chan watch.Event)
	stopped := make(chan struct{})
	go func() {
		defer close(out)
		defer closed()
		for event := range w.ResultChan() {
			select {
			case out <- event:
			case <-stopped:
				return
			}
		}
	}()
	return &countedWatch{inner: w, out: out, stopped: stopped}
}

type countedWatch struct {
	inner   watch.Interface
	out     chan watch.Event
	once    sync.Once
	stopped chan struct{}
}

func (w *countedWatch) ResultChan() <-chan watch.Event { return w.out }

func (w *countedWatch) Stop() {
	w.once.Do(func() { close(w.stopped) })
	w.inner.Stop()
}

// trimPod keeps of our pods what status and updates need, and of strangers' what they reserve.
func (c *Cache) trimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	if c.Pool.Owns(c.component, pod) {
		pod.ManagedFields = nil
		pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName, EphemeralContainers: pod.Spec.EphemeralContainers}
		return pod, nil
	}
	stub := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion}}
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		stub.Spec.NodeName = pod.Spec.NodeName
		stub.Spec.Resources = &corev1.ResourceRequirements{Requests: capacity.Requests(pod)}
	}
	return stub, nil
}

func trimNode(object any) (any, error) {
	if node, ok := object.(*corev1.Node); ok {
		node.ManagedFields = nil
		node.Status.Images = nil
	}
	return object, nil
}

func controlUIDIndex(object any) ([]string, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok || pod.Labels[names.LabelControlUID] == "" {
		return nil, nil
	}
	return []string{pod.Labels[names.LabelControlUID]}, nil
}

// Run fills the cache until ctx is done.
func (c *Cache) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { c.pods.RunWithContext(ctx) })
	running.Go(func() { c.nodes.RunWithContext(ctx) })
	running.Go(func() { c.namespaces.RunWithContext(ctx) })
	for _, i := range c.references {
		running.Go(func() { i.RunWithContext(ctx) })
	}
	running.Wait()
}

// HasSynced reports whether everything that was there at the start is known.
func (c *Cache) HasSynced() bool {
	for _, i := range c.references {
		if !i.HasSynced() {
			return false
		}
	}
	return c.pods.HasSynced() && c.nodes.HasSynced() && c.namespaces.HasSynced()
}

// Wait blocks until HasSynced; false when ctx ends first.
func (c *Cache) Wait(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), c.HasSynced)
}

// rewatch is how long a watch may be down. An API server that is busy ends those of clients that it cannot serve in time,
// and clients come back after seconds; work would stop just when there is most of it.
const rewatch = 15 * time.Second

// Fresh reports whether changes to pods arrive, or did a moment ago. While they do not, nothing may be concluded from what
// is here.
func (c *Cache) Fresh() bool {
	return c.HasSynced() && (c.watching.Load() > 0 || time.Since(time.Unix(0, c.closed.Load())) < rewatch)
}

// PodFor gives our pool pod of a control pod. A pod under another name or in another namespace than the control pod's is
// not it, whatever it is labelled.
func (c *Cache) PodFor(uid types.UID, namespace, name string) (*corev1.Pod, bool) {
	objects, err := c.pods.GetIndexer().ByIndex(byControlUID, string(uid))
	if err != nil {
		return nil, false
	}
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok && pod.Namespace == namespace && pod.Name == name {
			return pod, true
		}
	}
	return nil, false
}

// Pod gives our pool pod of that name.
func (c *Cache) Pod(namespace, name string) (*corev1.Pod, bool) {
	object, ok, err := c.pods.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	pod, ok := object.(*corev1.Pod)
	return pod, ok && c.Pool.Owns(c.component, pod)
}

// Find gives our pool pod that carries a control pod's UID, wherever it is.
func (c *Cache) Find(uid types.UID) (*corev1.Pod, bool) {
	objects, err := c.pods.GetIndexer().ByIndex(byControlUID, string(uid))
	if err != nil || len(objects) == 0 {
		return nil, false
	}
	pod, ok := objects[0].(*corev1.Pod)
	return pod, ok
}

// HasNamespace reports whether the pool has the namespace, and it is ours and will stay.
func (c *Cache) HasNamespace(name string) bool {
	object, ok, err := c.namespaces.GetStore().GetByKey(name)
	if err != nil || !ok {
		return false
	}
	namespace, ok := object.(*corev1.Namespace)
	return ok && namespace.DeletionTimestamp == nil && pools.OwnsNamespace(c.Pool, namespace)
}

// Ours gives all our pods in the pool.
func (c *Cache) Ours() []*corev1.Pod {
	var out []*corev1.Pod
	for _, object := range c.pods.GetStore().List() {
		if pod, ok := object.(*corev1.Pod); ok && c.Pool.Owns(c.component, pod) {
			out = append(out, pod)
		}
	}
	return out
}

// Nodes gives the pool's nodes with what strangers hold on them, counted anew.
func (c *Cache) Nodes() []capacity.PoolNode {
	foreign := map[string]corev1.ResourceList{}
	for _, object := range c.pods.GetStore().List() {
		pod, ok := object.(*corev1.Pod)
		if !ok || pod.Spec.NodeName == "" || pod.Spec.Resources == nil || c.Pool.Owns(c.component, pod) {
			continue
		}
		sum := foreign[pod.Spec.NodeName]
		if sum == nil {
			sum = corev1.ResourceList{}
			foreign[pod.Spec.NodeName] = sum
		}
		capacity.Add(sum, pod.Spec.Resources.Requests)
	}
	var out []capacity.PoolNode
	for _, object := range c.nodes.GetStore().List() {
		if node, ok := object.(*corev1.Node); ok {
			out = append(out, capacity.FromNode(node, foreign[node.Name]))
		}
	}
	return out
}

// Handler is told about changes. Its functions must not block.
type Handler struct {
	// Pod is called for each of our pods that appears or changes.
	Pod func(pod *corev1.Pod)
	// Gone is called when one of our pods is gone. seen is true when the deletion itself was observed, and false when
	// the pod was merely missing from a later list.
	Gone func(pod *corev1.Pod, seen bool)
	// Reference is called with the key of each reference that appears; see [Cache.Missing].
	Reference func(key string)
	// Capacity is called when a node or a stranger's pod has changed.
	Capacity func()
}

// Watch calls the handler for everything there is and will be, until the cache's own end.
func (c *Cache) Watch(h Handler) error {
	if _, err := c.pods.AddEventHandler(c.podEvents(h)); err != nil {
		return fmt.Errorf("watch pool %s: %w", c.Pool.Name, err)
	}
	if h.Reference != nil {
		for kind, i := range c.references {
			if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
				if o, ok := object.(metav1.Object); ok {
					h.Reference(referenceKey(kind, o.GetNamespace(), o.GetName()))
				}
			}}); err != nil {
				return fmt.Errorf("watch pool %s: %w", c.Pool.Name, err)
			}
		}
	}
	changed := func(any) { h.Capacity() }
	if _, err := c.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed, UpdateFunc: func(_, _ any) { h.Capacity() }, DeleteFunc: changed,
	}); err != nil {
		return fmt.Errorf("watch pool %s: %w", c.Pool.Name, err)
	}
	return nil
}

// podEvents tells the handler about our pods and about the room that strangers' take.
func (c *Cache) podEvents(h Handler) cache.ResourceEventHandlerFuncs {
	pod := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok {
			if c.Pool.Owns(c.component, pod) {
				h.Pod(pod)
			} else {
				h.Capacity()
			}
		}
	}
	gone := func(object any, seen bool) {
		if pod, ok := object.(*corev1.Pod); ok && c.Pool.Owns(c.component, pod) {
			h.Gone(pod, seen)
			return
		}
		h.Capacity()
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: pod,
		UpdateFunc: func(before, object any) {
			was, _ := before.(*corev1.Pod)
			// A list after a gap makes one change of a pod that went and its namesake that came.
			if now, ok := object.(*corev1.Pod); ok && was != nil && was.UID != now.UID {
				gone(was, false)
			}
			pod(object)
		},
		DeleteFunc: func(object any) {
			if tombstone, missed := object.(cache.DeletedFinalStateUnknown); missed {
				gone(tombstone.Obj, false)
				return
			}
			gone(object, true)
		},
	}
}
