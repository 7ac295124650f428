// Package demand watches the control cluster and knows which pool needs what: the pods that are bound to virtual nodes,
// what they refer to, and which of that exists in which version. It answers from memory and tells its subscribers which
// key to look at again, in which pool.
//
// It must never keep the content of a Secret or ConfigMap, nor anything of the platform's own namespaces: it watches
// metadata, and leaves those namespaces out at the API server. Start at [Demand].
package demand

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// Config is what a [Demand] is made of; every field is required.
type Config struct {
	Control  kubernetes.Interface
	Metadata metadata.Interface
	// Audience is the gateway's, as in kind.TokenConfig.
	Audience string
	// RootCA gives the gateway's CA, as in kind.All.
	RootCA func() string
}

// Demand knows what pools need. Make one with [New], subscribe, then Run it. Safe for concurrent use.
type Demand struct {
	config     Config
	pods       cache.SharedIndexInformer
	nodes      cache.SharedIndexInformer
	namespaces cache.SharedIndexInformer
	configMaps cache.SharedIndexInformer
	secrets    cache.SharedIndexInformer

	mu          sync.RWMutex // guards subscribers
	subscribers map[int]Subscriber
	next        int
}

// Subscriber is told what to look at again. Its functions must not block.
type Subscriber struct {
	// Pool limits the subscription to one pool.
	Pool string
	// Changed is called with a key that pods of the pool refer to or referred to, or whose source changed.
	Changed func(kind.Key)
}

// New makes a Demand; nothing is dialled before Run.
func New(config Config) (*Demand, error) {
	if config.Control == nil || config.Metadata == nil || config.Audience == "" || config.RootCA == nil {
		return nil, errors.New("demand: Control, Metadata, Audience and RootCA are required")
	}
	d := &Demand{config: config, subscribers: map[int]Subscriber{}}
	d.pods = podInformer(config.Control)
	d.nodes = nodeInformer(config.Control)
	d.namespaces = namespaceInformer(config.Control)
	d.configMaps = metadataInformer(config.Metadata, corev1.SchemeGroupVersion.WithResource("configmaps"), fields.Everything())
	// A token Secret never crosses, and a tenant's own cluster is full of them where somebody keeps old habits.
	d.secrets = metadataInformer(config.Metadata, corev1.SchemeGroupVersion.WithResource("secrets"),
		fields.OneTermNotEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)))
	return d, nil
}

func metadataInformer(client metadata.Interface, resource schema.GroupVersionResource, also fields.Selector) cache.SharedIndexInformer {
	informer := metadatainformer.NewFilteredMetadataInformer(client, resource, metav1.NamespaceAll, 0, cache.Indexers{}, func(options *metav1.ListOptions) {
		options.FieldSelector = fields.AndSelectors(also,
			fields.OneTermNotEqualSelector("metadata.namespace", names.SystemNamespace),
			fields.OneTermNotEqualSelector("metadata.namespace", metav1.NamespaceSystem),
		).String()
	}).Informer()
	return transformed(informer, nameAndVersion)
}

// Run watches until ctx is done.
func (d *Demand) Run(ctx context.Context) error {
	if err := d.wire(); err != nil {
		return err
	}
	var group sync.WaitGroup
	for _, informer := range d.informers() {
		group.Go(func() { informer.RunWithContext(ctx) })
	}
	group.Wait()
	return nil
}

func (d *Demand) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{d.pods, d.nodes, d.namespaces, d.configMaps, d.secrets}
}

// HasSynced reports whether everything that existed at the start of Run is known. Before that nothing may be concluded
// from what is not known.
func (d *Demand) HasSynced() bool {
	for _, informer := range d.informers() {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

// Subscribe adds a subscriber until the returned function is called. It is not told what is known already: see [Demand.Keys].
func (d *Demand) Subscribe(s Subscriber) (cancel func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := d.next
	d.next++
	d.subscribers[id] = s
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.subscribers, id)
	}
}

// notify tells the subscribers of a pool, or of every pool.
func (d *Demand) notify(pool string, keys ...kind.Key) {
	if len(keys) == 0 {
		return
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, s := range d.subscribers {
		if pool != everyPool && s.Pool != pool {
			continue
		}
		for _, key := range keys {
			s.Changed(key)
		}
	}
}

const everyPool = ""

// Pods gives the pods in a pool that refer to the key. The caller must not change them.
func (d *Demand) Pods(pool string, key kind.Key) []*corev1.Pod {
	objects, err := d.pods.GetIndexer().ByIndex(byReference, key.String())
	if err != nil {
		return nil
	}
	var list []*corev1.Pod
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok && d.poolOf(pod) == pool {
			list = append(list, pod)
		}
	}
	return list
}

// Keys gives everything that pods in a pool refer to.
func (d *Demand) Keys(pool string) []kind.Key {
	seen := map[kind.Key]bool{}
	var list []kind.Key
	for _, node := range d.nodesOf(pool) {
		for _, pod := range d.podsOn(node) {
			for _, key := range kind.References(pod) {
				if !seen[key] {
					seen[key] = true
					list = append(list, key)
				}
			}
		}
	}
	return list
}

// Source gives the source of a key; false when it has none.
func (d *Demand) Source(key kind.Key) (kind.Source, bool) {
	switch {
	case kind.IsRootCA(key):
		_, exists := d.Namespace(key.Namespace)
		return kind.RootCASource(d.config.RootCA()), exists
	case key.Kind == kind.ConfigMap:
		return sourceOf(d.configMaps, key.Namespace, names.ConfigMapToControl(key.Name))
	case key.Kind == kind.Secret:
		return sourceOf(d.secrets, key.Namespace, key.Name)
	case key.Kind == kind.Token:
		return d.tokenSource(key)
	default:
		return kind.Source{}, false
	}
}

func sourceOf(informer cache.SharedIndexInformer, namespace names.ControlNamespace, name string) (kind.Source, bool) {
	object, ok, err := informer.GetStore().GetByKey(string(namespace) + "/" + name)
	if err != nil || !ok {
		return kind.Source{}, false
	}
	control, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return kind.Source{}, false
	}
	return kind.SourceOf(control), true
}

// tokenSource finds the pod whose tokens they are, in any pool.
func (d *Demand) tokenSource(key kind.Key) (kind.Source, bool) {
	objects, err := d.pods.GetIndexer().ByIndex(byReference, key.String())
	if err != nil || len(objects) == 0 {
		return kind.Source{}, false
	}
	pod, ok := objects[0].(*corev1.Pod)
	if !ok {
		return kind.Source{}, false
	}
	return kind.TokenSource(pod, d.config.Audience), true
}

// Namespace gives a tenant's namespace in control; false when there is none.
func (d *Demand) Namespace(name names.ControlNamespace) (*corev1.Namespace, bool) {
	object, ok, err := d.namespaces.GetStore().GetByKey(string(name))
	if err != nil || !ok {
		return nil, false
	}
	namespace, ok := object.(*corev1.Namespace)
	return namespace, ok
}

// NamespacesOf counts a tenant's namespaces in control.
func (d *Demand) NamespacesOf(tenant names.TenantID) int {
	objects, err := d.namespaces.GetIndexer().ByIndex(byTenant, string(tenant))
	if err != nil {
		return 0
	}
	return len(objects)
}

// OnNamespace calls changed with every tenant namespace of control that appears, changes or vanishes. It must not block.
func (d *Demand) OnNamespace(changed func(names.ControlNamespace)) error {
	notify := func(object any) {
		if namespace, ok := unwrap[*corev1.Namespace](object); ok {
			changed(names.ControlNamespace(namespace.Name))
		}
	}
	_, err := d.namespaces.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: notify, UpdateFunc: func(_, object any) { notify(object) }, DeleteFunc: notify})
	if err != nil {
		return fmt.Errorf("watch namespaces: %w", err)
	}
	return nil
}

func (d *Demand) poolOf(pod *corev1.Pod) string {
	object, ok, err := d.nodes.GetStore().GetByKey(pod.Spec.NodeName)
	if err != nil || !ok {
		return everyPool
	}
	node, ok := object.(*corev1.Node)
	if !ok {
		return everyPool
	}
	pool, _ := pools.NodePool(node)
	return pool
}

func (d *Demand) nodesOf(pool string) []string {
	var list []string
	for _, object := range d.nodes.GetStore().List() {
		if node, ok := object.(*corev1.Node); ok {
			if p, _ := pools.NodePool(node); p == pool {
				list = append(list, node.Name)
			}
		}
	}
	return list
}

func (d *Demand) podsOn(node string) []*corev1.Pod {
	objects, err := d.pods.GetIndexer().ByIndex(byNode, node)
	if err != nil {
		return nil
	}
	var list []*corev1.Pod
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok {
			list = append(list, pod)
		}
	}
	return list
}
