package controller

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	informers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/ipam"
)

const (
	// objectWorkers, podWorkers and meshWorkers are how many are worked on at once; Services have as many as meshes. Pods of one
	// subnet share writes, so that many of them wait cheaply.
	objectWorkers, podWorkers, meshWorkers = 4, 256, 4
	// meshDelay lets the pods of a burst share one telling of the pools.
	meshDelay = 20 * time.Millisecond
	// usageDelay is how often a subnet's figures change at most.
	usageDelay = time.Second
)

// objectKind is what the queue of objects is about.
type objectKind string

const (
	aVPC    objectKind = "VPC"
	aSubnet objectKind = "Subnet"
	// aUsage is a Subnet of which only the figures have changed.
	aUsage objectKind = "Usage"
)

type objectKey struct {
	kind objectKind
	name string
}

// podKey is one life of a control pod.
type podKey struct {
	namespace, name string
	uid             types.UID
}

func keyOf(pod *corev1.Pod) podKey { return podKey{pod.Namespace, pod.Name, pod.UID} }

// fabric makes VPCs and subnets be in the pools, gives pods their places, and tells pools where pods are. It works for one
// term of leadership and keeps nothing that is not in the clusters.
type fabric struct {
	admin     client.WithWatch
	control   kubernetes.Interface
	registry  *pools.Registry
	drivers   DriverFn
	api       netip.AddrPort
	addresses *ipam.Allocator
	recorder  record.EventRecorder
	metrics   *metrics

	tenants, vpcs, subnets  cache.SharedIndexInformer
	namespaces, nodes, pods cache.SharedIndexInformer
	policies                cache.SharedIndexInformer
	services, slices        cache.SharedIndexInformer
	// needed is closed when the first VPC is seen: until then nobody's pods are watched.
	needed chan struct{}
	need   sync.Once

	objects workqueue.TypedRateLimitingInterface[objectKey]
	places  workqueue.TypedRateLimitingInterface[podKey]
	// meshes and leads are VPCs: whose pods are to be told of, and whose Services.
	meshes, leads workqueue.TypedRateLimitingInterface[types.UID]

	mu sync.Mutex // guards the rest
	// views are those of pools, the last one of a pool that is closed.
	views map[string]*view
	// waiting are the pods that have no place yet.
	waiting map[podKey]bool
	// states are those of pools when they were last looked at.
	states map[string]poolState
	// told is what pools were told of VPCs, until the VPC is looked at again.
	told map[toldKey][sha256.Size]byte
	// unenforced are the policies of which it was told that a pool does not hold pods to them, by generation.
	unenforced map[unenforcedKey]int64
	// known are the tenants with a VPC; only the handler of tenants uses it, one call at a time.
	known map[string]bool
}

func queue[T comparable]() workqueue.TypedRateLimitingInterface[T] {
	return workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[T](100*time.Millisecond, 15*time.Second))
}

const (
	byUID = "uid"
	byVPC = "vpc"
	// byTenant is by the tenant of the namespace.
	byTenant = "tenant"
)

func newFabric(c *Controller, registry *pools.Registry, recorder record.EventRecorder, m *metrics) (*fabric, error) {
	f := &fabric{
		admin: c.admin, control: c.control, registry: registry, drivers: c.drivers, api: c.options.gateway, recorder: recorder, metrics: m,
		addresses: ipam.New(ipam.Config{Store: ipam.NewStore(c.admin), Quarantine: c.timing.quarantine}),
		needed:    make(chan struct{}),
		objects:   queue[objectKey](), places: queue[podKey](), meshes: queue[types.UID](), leads: queue[types.UID](),
		views: map[string]*view{}, waiting: map[podKey]bool{}, states: map[string]poolState{}, known: map[string]bool{},
		told: map[toldKey][sha256.Size]byte{}, unenforced: map[unenforcedKey]int64{},
	}
	f.tenants = cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.TenantList](c.admin), &v1alpha1.Tenant{}, 0, cache.Indexers{})
	f.vpcs = cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.VPCList](c.admin), &v1alpha1.VPC{}, 0, cache.Indexers{byUID: uidIndex})
	f.subnets = cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.SubnetList](c.admin), &v1alpha1.Subnet{}, 0, cache.Indexers{byVPC: vpcIndex})
	f.namespaces = informers.NewFilteredNamespaceInformer(c.control, 0, cache.Indexers{}, tenants)
	f.nodes = informers.NewFilteredNodeInformer(c.control, 0, cache.Indexers{}, virtual)
	f.pods = informers.NewFilteredPodInformer(c.control, metav1.NamespaceAll, 0,
		cache.Indexers{byUID: uidIndex, cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, bound)
	f.policies = networkinginformers.NewNetworkPolicyInformer(c.control, metav1.NamespaceAll, 0, cache.Indexers{byTenant: tenantIndex})
	f.services = informers.NewServiceInformer(c.control, metav1.NamespaceAll, 0, cache.Indexers{byTenant: tenantIndex})
	f.slices = discoveryinformers.NewEndpointSliceInformer(c.control, metav1.NamespaceAll, 0, cache.Indexers{byTenant: tenantIndex})
	return f, errors.Join(
		f.policies.SetTransform(trimPolicy), f.tenants.SetTransform(trimTenant), f.nodes.SetTransform(trimNode), f.pods.SetTransform(trimPod),
		f.services.SetTransform(trimService), f.slices.SetTransform(trimSlice),
		on(f.tenants, f.tenantChanged), on(f.vpcs, f.vpcChanged), on(f.subnets, f.subnetChanged),
		on(f.namespaces, f.namespaceChanged), on(f.nodes, func(*corev1.Node) {}), on(f.pods, func(pod *corev1.Pod) { f.places.Add(keyOf(pod)) }),
		f.onFilters(), f.onServices(),
	)
}

// on calls changed with every object that comes, changes or goes.
func on[T any](informer cache.SharedIndexInformer, changed func(*T)) error {
	notify := func(object any) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		if o, ok := object.(*T); ok {
			changed(o)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: notify, UpdateFunc: func(_, object any) { notify(object) }, DeleteFunc: notify,
	})
	return err
}

// run works until ctx is done.
func (f *fabric) run(ctx context.Context, t timing) {
	var group sync.WaitGroup
	defer group.Wait()
	own := []cache.SharedIndexInformer{f.tenants, f.vpcs, f.subnets}
	others := []cache.SharedIndexInformer{f.namespaces, f.nodes, f.pods, f.policies}
	leading := []cache.SharedIndexInformer{f.services, f.slices}
	for _, i := range own {
		group.Go(func() { i.RunWithContext(ctx) })
	}
	group.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-f.needed:
		}
		for _, i := range slices.Concat(others, leading) {
			group.Go(func() { i.RunWithContext(ctx) })
		}
	})
	defer f.objects.ShutDown()
	defer f.places.ShutDown()
	defer f.meshes.ShutDown()
	defer f.leads.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), synced(own)...) || !cache.WaitForCacheSync(ctx.Done(), f.registry.HasSynced) {
		return
	}
	workers(ctx, &group, f.objects, objectWorkers, f.visitObject)
	group.Go(func() {
		// Before every pod is known, a pod that is not known says nothing.
		if cache.WaitForCacheSync(ctx.Done(), synced(others)...) {
			workers(ctx, &group, f.places, podWorkers, f.visitPod)
			workers(ctx, &group, f.meshes, meshWorkers, f.visitMesh)
		}
	})
	group.Go(func() {
		// A Service that is not known yet would end in the pools.
		if cache.WaitForCacheSync(ctx.Done(), synced(leading)...) {
			workers(ctx, &group, f.leads, meshWorkers, f.visitServices)
		}
	})
	resync, look := time.NewTicker(t.resync), time.NewTicker(t.look)
	defer resync.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-resync.C:
			f.lookAtAll()
		case <-look.C:
			f.lookAtHolders()
		}
	}
}

func synced(informers []cache.SharedIndexInformer) []cache.InformerSynced {
	var list []cache.InformerSynced
	for _, i := range informers {
		list = append(list, i.HasSynced)
	}
	return list
}

func workers[T comparable](ctx context.Context, group *sync.WaitGroup, queue workqueue.TypedRateLimitingInterface[T], n int, visit func(context.Context, T) error) {
	for range n {
		group.Go(func() {
			for {
				item, shutdown := queue.Get()
				if shutdown {
					return
				}
				attempt, cancel := context.WithTimeout(ctx, 2*callTimeout)
				err := visit(attempt, item)
				cancel()
				if err == nil {
					queue.Forget(item)
				} else if ctx.Err() == nil {
					boot.Logger(ctx).Debug("tried again later", "item", fmt.Sprint(item), "error", err)
					queue.AddRateLimited(item)
				}
				queue.Done(item)
			}
		})
	}
}

func (f *fabric) visitObject(ctx context.Context, key objectKey) error {
	switch key.kind {
	case aVPC:
		return f.visitVPC(ctx, key.name)
	case aSubnet:
		return f.visitSubnet(ctx, key.name)
	default:
		return f.visitUsage(ctx, key.name)
	}
}

// lookAtAll queues every VPC and Subnet.
func (f *fabric) lookAtAll() {
	for _, name := range f.vpcs.GetStore().ListKeys() {
		f.objects.Add(objectKey{aVPC, name})
	}
	for _, object := range f.subnets.GetStore().List() {
		if subnet, ok := object.(*v1alpha1.Subnet); ok {
			f.objects.Add(objectKey{aSubnet, subnet.Name})
		}
	}
}

// lookAtHolders queues every pod that has an address and is not there any more: somebody has to have seen it go.
func (f *fabric) lookAtHolders() {
	for _, object := range f.subnets.GetStore().List() {
		if subnet, ok := object.(*v1alpha1.Subnet); ok {
			f.lookAtHoldersOf(subnet)
		}
	}
}

func (f *fabric) lookAtHoldersOf(subnet *v1alpha1.Subnet) {
	if !f.pods.HasSynced() {
		return
	}
	for _, a := range f.addresses.Held(subnet.UID) {
		if findUID[corev1.Pod](f.pods, a.PodUID) == nil {
			f.places.Add(podKey{a.Namespace, a.Name, a.PodUID})
		}
	}
}

// wake queues the pods that wait for something.
func (f *fabric) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.waiting {
		f.places.Add(key)
	}
}

func (f *fabric) tenantChanged(tenant *v1alpha1.Tenant) {
	if tenant.Spec.Network.Mode == v1alpha1.NetworkVPC {
		f.need.Do(func() { close(f.needed) })
		if !f.known[tenant.Name] {
			f.known[tenant.Name] = true
			// Its pods may have come before it.
			for _, object := range f.pods.GetStore().List() {
				if pod, ok := object.(*corev1.Pod); ok && names.TenantID(tenant.Name).Owns(pod.Namespace) {
					f.places.Add(keyOf(pod))
				}
			}
		}
	}
	f.wake()
}

func (f *fabric) vpcChanged(vpc *v1alpha1.VPC) {
	f.need.Do(func() { close(f.needed) })
	f.objects.Add(objectKey{aVPC, vpc.Name})
	for _, subnet := range f.subnetsOf(vpc.Name) {
		f.objects.Add(objectKey{aSubnet, subnet.Name})
	}
	f.wake()
}

func (f *fabric) subnetChanged(subnet *v1alpha1.Subnet) {
	f.objects.Add(objectKey{aSubnet, subnet.Name})
	f.objects.Add(objectKey{aVPC, subnet.Spec.VPC})
	for _, sibling := range f.subnetsOf(subnet.Spec.VPC) {
		if sibling.Status.VNI == 0 {
			f.objects.Add(objectKey{aSubnet, sibling.Name}) // this one may have been in its way
		}
	}
	f.wake()
}

func (f *fabric) namespaceChanged(namespace *corev1.Namespace) {
	objects, err := f.pods.GetIndexer().ByIndex(cache.NamespaceIndex, namespace.Name)
	if err != nil {
		return
	}
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok {
			f.places.Add(keyOf(pod))
		}
	}
}

// poolChanged is told that a pool came, went or changed. Most changes are of figures in its status, and no matter here.
func (f *fabric) poolChanged(name string) {
	var now poolState
	if resource, ok := f.registry.Resource(name); ok {
		now.generation = resource.Generation
	}
	_, now.open = f.registry.Pool(name)
	status, _ := f.registry.Status(name)
	now.answers = status.Reachable.Good()
	f.mu.Lock()
	changed := f.states[name] != now
	f.states[name] = now
	f.mu.Unlock()
	if changed {
		f.lookAtAll()
		f.wake()
	}
}

// poolState is what of a pool makes a difference to VPCs.
type poolState struct {
	generation    int64
	open, answers bool
}

func (f *fabric) subnetsOf(vpc string) []*v1alpha1.Subnet {
	objects, err := f.subnets.GetIndexer().ByIndex(byVPC, vpc)
	if err != nil {
		return nil
	}
	var list []*v1alpha1.Subnet
	for _, object := range objects {
		if subnet, ok := object.(*v1alpha1.Subnet); ok {
			list = append(list, subnet)
		}
	}
	return list
}

func find[T any](informer cache.SharedIndexInformer, key string) *T {
	object, ok, err := informer.GetStore().GetByKey(key)
	if err != nil || !ok {
		return nil
	}
	o, _ := object.(*T)
	return o
}

func findUID[T any](informer cache.SharedIndexInformer, uid types.UID) *T {
	objects, err := informer.GetIndexer().ByIndex(byUID, string(uid))
	if err != nil || len(objects) == 0 {
		return nil
	}
	o, _ := objects[0].(*T)
	return o
}

// live is every owner that a driver's objects may have, asked now.
func (f *fabric) live(ctx context.Context, set *network.LiveSet) error {
	set.VPCs, set.Subnets, set.Pods = map[types.UID]bool{}, map[types.UID]bool{}, map[types.UID]bool{}
	var vpcs v1alpha1.VPCList
	var subnets v1alpha1.SubnetList
	if err := errors.Join(f.admin.List(ctx, &vpcs), f.admin.List(ctx, &subnets)); err != nil {
		return fmt.Errorf("read VPCs and Subnets: %w", err)
	}
	for i := range vpcs.Items {
		set.VPCs[vpcs.Items[i].UID] = true
	}
	for i := range subnets.Items {
		set.Subnets[subnets.Items[i].UID] = true
	}
	if len(vpcs.Items) == 0 {
		return nil
	}
	options := metav1.ListOptions{Limit: 500}
	for {
		list, err := f.control.CoreV1().Pods("").List(ctx, options)
		if err != nil {
			return fmt.Errorf("read pods: %w", err)
		}
		for i := range list.Items {
			set.Pods[list.Items[i].UID] = true
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return nil
		}
	}
}
