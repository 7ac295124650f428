// Package vpcs keeps what the provider knows of tenants' VPCs: what they are, and which place in one was given to which
// pod.
//
// It must never write, never take a tenant that it does not know for one without a VPC, and never give a pod a place that
// was not given to its UID. Start at [Cache.Plan].
package vpcs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

// ErrNoPlace says that a pod has no place in its VPC yet. Whoever gives places tells the tenant why.
var ErrNoPlace = errors.New("has no place in its VPC yet")

// ErrUnknown says that something that was read elsewhere has not arrived here: a pod's tenant, so that nobody can say what
// network it has, or the subnet of its place.
var ErrUnknown = errors.New("is not known yet")

// Cache is a view of tenants' networks. Safe for concurrent use; its objects are shared.
type Cache struct {
	mode                  ModeFn
	vpcs, subnets, blocks cache.SharedIndexInformer
}

// ModeFn gives the mode of a tenant's network; false for a tenant that is not known.
type ModeFn func(names.TenantID) (v1alpha1.NetworkMode, bool)

const (
	byUID = "uid"
	byPod = "pod"
)

// New makes a Cache; Run fills it.
func New(admin client.WithWatch, mode ModeFn) *Cache {
	return &Cache{
		mode:    mode,
		vpcs:    cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.VPCList](admin), &v1alpha1.VPC{}, 0, cache.Indexers{byUID: uidIndex}),
		subnets: cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.SubnetList](admin), &v1alpha1.Subnet{}, 0, cache.Indexers{byUID: uidIndex}),
		blocks:  cache.NewSharedIndexInformer(adminclient.ListWatch[v1alpha1.IPBlockList](admin), &v1alpha1.IPBlock{}, 0, cache.Indexers{byPod: podIndex}),
	}
}

func uidIndex(object any) ([]string, error) {
	if o, ok := object.(metav1.Object); ok {
		return []string{string(o.GetUID())}, nil
	}
	return nil, nil
}

func podIndex(object any) ([]string, error) {
	block, ok := object.(*v1alpha1.IPBlock)
	if !ok {
		return nil, nil
	}
	var pods []string
	for i := range block.Status.Allocations {
		if block.Status.Allocations[i].Released == nil {
			pods = append(pods, string(block.Status.Allocations[i].PodUID))
		}
	}
	return pods, nil
}

func (c *Cache) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.vpcs, c.subnets, c.blocks}
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

// Plan says what network a pod has: a VPC and a place in it, or neither for a tenant whose network is flat. It is
// [ErrUnknown] or [ErrNoPlace] while that is not decided.
func (c *Cache) Plan(pod *corev1.Pod, tenant names.TenantID, namespace map[string]string) (network.PodBinding, error) {
	plan := network.PodBinding{
		Tenant: tenant,
		Pod:    network.PodKey{Namespace: names.ControlNamespace(pod.Namespace), Name: pod.Name, UID: pod.UID},
	}
	switch mode, ok := c.mode(tenant); {
	case !ok:
		return plan, fmt.Errorf("tenant %s %w", tenant, ErrUnknown)
	case mode == v1alpha1.NetworkFlat:
		return plan, nil
	}
	objects, err := c.blocks.GetIndexer().ByIndex(byPod, string(pod.UID))
	if err != nil || len(objects) == 0 {
		return plan, fmt.Errorf("pod %s/%s %w", pod.Namespace, pod.Name, ErrNoPlace)
	}
	block, index := place(objects, pod.UID)
	if block == nil {
		return plan, fmt.Errorf("pod %s/%s %w", pod.Namespace, pod.Name, ErrNoPlace)
	}
	subnet, ok := byID[v1alpha1.Subnet](c.subnets, block.Spec.SubnetUID)
	if !ok {
		return plan, fmt.Errorf("pod %s/%s: subnet %s %w", pod.Namespace, pod.Name, block.Spec.Subnet, ErrUnknown)
	}
	vpc, ok := byID[v1alpha1.VPC](c.vpcs, block.Spec.VPCUID)
	if !ok || vpc.Name != subnet.Spec.VPC {
		return plan, fmt.Errorf("pod %s/%s: VPC %s %w", pod.Namespace, pod.Name, subnet.Spec.VPC, ErrUnknown)
	}
	// Where the gateway is concerns only what drivers make in a pool.
	if plan.VPC, err = network.VPCOf(vpc, netip.AddrPort{}); err != nil {
		return plan, err
	}
	if plan.Subnet, err = network.SubnetOf(subnet, vpc.UID); err != nil {
		return plan, err
	}
	wishes, err := network.SelectionOf(pod.Annotations, namespace)
	if err != nil {
		return plan, err
	}
	plan.IPs, plan.MAC, plan.SecurityGroups = plan.Subnet.At(index), network.MAC(index), wishes.SecurityGroups
	plan.Bandwidth = wishes.Bandwidth
	return plan, nil
}

// place gives the first of a pod's places. There is more than one only where two allocators were at work, and then both
// are the pod's until it is gone.
func place(objects []any, pod types.UID) (*v1alpha1.IPBlock, uint32) {
	var best *v1alpha1.IPBlock
	var at uint32
	for _, object := range objects {
		block, ok := object.(*v1alpha1.IPBlock)
		if !ok || best != nil && best.Name <= block.Name {
			continue
		}
		for i := range block.Status.Allocations {
			if a := &block.Status.Allocations[i]; a.PodUID == pod && a.Released == nil {
				best, at = block, a.Index
				break
			}
		}
	}
	return best, at
}

// OnPlaces calls changed with every pod that is given a place, until ctx is done.
func (c *Cache) OnPlaces(ctx context.Context, changed func(pod types.UID)) error {
	given := func(object any) map[types.UID]bool {
		pods := map[types.UID]bool{}
		if block, ok := object.(*v1alpha1.IPBlock); ok {
			for i := range block.Status.Allocations {
				if block.Status.Allocations[i].Released == nil {
					pods[block.Status.Allocations[i].PodUID] = true
				}
			}
		}
		return pods
	}
	registration, err := c.blocks.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			for pod := range given(object) {
				changed(pod)
			}
		},
		UpdateFunc: func(before, after any) {
			old := given(before)
			for pod := range given(after) {
				if !old[pod] {
					changed(pod)
				}
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = c.blocks.RemoveEventHandler(registration) })
	return nil
}

func byID[T any](informer cache.SharedIndexInformer, uid types.UID) (*T, bool) {
	objects, err := informer.GetIndexer().ByIndex(byUID, string(uid))
	if err != nil || len(objects) == 0 {
		return nil, false
	}
	o, ok := objects[0].(*T)
	return o, ok
}
