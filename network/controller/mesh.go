package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/netpolicy"
)

// podMaker is who makes pods in pools.
const podMaker = "vk-provider"

// annotationTunnel is on a pool's node whose other nodes reach it under another address than its InternalIP; drivers' agents
// set it.
const annotationTunnel = netkeys.Domain + "/tunnel-address"

// view is where the pods of one pool are.
type view struct {
	pool        *pools.Pool
	pods, nodes cache.SharedIndexInformer
}

// attach looks at a pool from the first VPC on, until ctx is done.
func (f *fabric) attach(ctx context.Context, pool *pools.Pool) error {
	ours := func(o *metav1.ListOptions) { o.LabelSelector = pool.Selector(podMaker) }
	v := &view{
		pool:  pool,
		pods:  informers.NewFilteredPodInformer(pool.Client, metav1.NamespaceAll, 0, cache.Indexers{byUID: controlUIDIndex}, ours),
		nodes: informers.NewNodeInformer(pool.Client, 0, cache.Indexers{}),
	}
	addresses := map[string]netip.Addr{} // only the handler of nodes uses it, one call at a time
	err := errors.Join(
		v.pods.SetTransform(trimPoolPod), v.nodes.SetTransform(trimPoolNode),
		on(v.pods, func(pod *corev1.Pod) {
			if b, err := network.ParseBinding(pod.Annotations[network.BindingAnnotation]); err == nil && b.VPC != "" {
				f.meshes.AddAfter(b.VPC, meshDelay)
			}
		}),
		on(v.nodes, func(node *corev1.Node) {
			if now := tunnelAddress(node); addresses[node.Name] != now {
				addresses[node.Name] = now
				for _, object := range f.vpcs.GetStore().List() {
					if vpc, ok := object.(*v1alpha1.VPC); ok {
						f.meshes.AddAfter(vpc.UID, meshDelay)
					}
				}
			}
		}),
	)
	if err != nil {
		return fmt.Errorf("watch pool %s: %w", pool.Name, err)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-f.needed:
	}
	f.mu.Lock()
	f.views[pool.Name] = v
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		// What it told last counts until it can be asked again, or is gone for good.
		if _, exists := f.registry.Resource(pool.Name); !exists && f.views[pool.Name] == v {
			delete(f.views, pool.Name)
		}
	}()
	var group sync.WaitGroup
	group.Go(func() { v.pods.RunWithContext(ctx) })
	group.Go(func() { v.nodes.RunWithContext(ctx) })
	group.Wait()
	return nil
}

func controlUIDIndex(object any) ([]string, error) {
	if o, ok := object.(metav1.Object); ok && o.GetLabels()[names.LabelControlUID] != "" {
		return []string{o.GetLabels()[names.LabelControlUID]}, nil
	}
	return nil, nil
}

func trimPoolPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion, Labels: pod.Labels,
			Annotations: map[string]string{network.BindingAnnotation: pod.Annotations[network.BindingAnnotation]},
		},
		Spec:   corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status: corev1.PodStatus{Phase: pod.Status.Phase},
	}, nil
}

func trimPoolNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion,
			Annotations: map[string]string{annotationTunnel: node.Annotations[annotationTunnel]},
		},
		Status: corev1.NodeStatus{Addresses: node.Status.Addresses},
	}, nil
}

// tunnelAddress is where other nodes reach a node; the zero value when that is not known.
func tunnelAddress(node *corev1.Node) netip.Addr {
	if ip, err := netip.ParseAddr(node.Annotations[annotationTunnel]); err == nil {
		return ip
	}
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			return ip
		}
	}
	return netip.Addr{}
}

// visitMesh tells every pool of a VPC where the VPC's pods are.
func (f *fabric) visitMesh(ctx context.Context, uid types.UID) error {
	vpc := findUID[v1alpha1.VPC](f.vpcs, uid)
	if vpc == nil || vpc.DeletionTimestamp != nil {
		return nil
	}
	v, err := network.VPCOf(vpc, f.api)
	if err != nil {
		return nil // its own visit tells
	}
	objects, compiled := f.policiesOf(v.Tenant)
	endpoints, complete := f.endpoints(vpc, compiled)
	if !complete {
		// Telling a pool of some pods only would cut off the others.
		return fmt.Errorf("%w: the pods of VPC %s are not all known yet", network.ErrNotReady, vpc.Name)
	}
	var failed []error
	for _, binding := range vpc.Status.Pools {
		if !binding.Ready {
			continue
		}
		_, err := f.inPool(ctx, binding.Pool, func(ctx context.Context, pool network.Pool, driver network.Driver) (network.PoolBinding, error) {
			// Policies first: a pod whose endpoint comes later is shut, and one that has no policy yet would be open.
			if err := f.enforce(ctx, pool, driver, v, compiled.Policies); err != nil {
				return network.PoolBinding{}, err
			}
			if len(objects) > 0 && !driver.Capabilities().NetworkPolicies {
				f.tellUnenforced(pool.Name, objects)
			}
			if mesher, ok := driver.(network.Mesher); ok {
				return network.PoolBinding{}, mesher.EnsureEndpoints(ctx, pool, v, endpoints)
			}
			return network.PoolBinding{}, nil
		})
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// endpoints gives where the pods of a VPC run: what they were given, and the nodes that their pools put them on. It is
// incomplete while a pool that answers has not told of all its pods; one that does not answer keeps what it told last.
func (f *fabric) endpoints(vpc *v1alpha1.VPC, compiled *netpolicy.Compiled) (list []network.Endpoint, complete bool) {
	f.mu.Lock()
	views := make(map[string]*view, len(f.views))
	for name, v := range f.views {
		views[name] = v
	}
	f.mu.Unlock()
	for _, o := range f.subnetsOf(vpc.Name) {
		s, err := network.SubnetOf(o, vpc.UID)
		if err != nil {
			continue
		}
		if o.Status.VNI != 0 && !f.addresses.IsOpen(o.UID) {
			return nil, false
		}
		for _, a := range f.addresses.Held(o.UID) {
			v := views[a.Pool]
			if v == nil {
				if _, exists := f.registry.Resource(a.Pool); exists {
					return nil, false
				}
				continue
			}
			if !v.pods.HasSynced() || !v.nodes.HasSynced() {
				return nil, false
			}
			if e, ok := f.endpoint(v, s, a, compiled); ok {
				list = append(list, e)
			}
		}
	}
	return list, true
}

func (f *fabric) endpoint(v *view, s *network.Subnet, a v1alpha1.IPAllocation, compiled *netpolicy.Compiled) (network.Endpoint, bool) {
	poolPod := findUID[corev1.Pod](v.pods, a.PodUID)
	if poolPod == nil || poolPod.Spec.NodeName == "" || poolPod.Status.Phase == corev1.PodSucceeded || poolPod.Status.Phase == corev1.PodFailed {
		return network.Endpoint{}, false
	}
	node := find[corev1.Node](v.nodes, poolPod.Spec.NodeName)
	if node == nil {
		return network.Endpoint{}, false
	}
	e := network.Endpoint{
		Subnet: s.UID, IPs: s.At(a.Index), MAC: network.MAC(a.Index), Node: tunnelAddress(node), Pool: a.Pool,
		Pod: network.PodKey{Namespace: names.ControlNamespace(a.Namespace), Name: a.Name, UID: a.PodUID},
	}
	// One whose filters nobody can tell is left out: its node then holds it to those that it was made with.
	pod, namespace := findUID[corev1.Pod](f.pods, a.PodUID), find[corev1.Namespace](f.namespaces, a.Namespace)
	if pod == nil || namespace == nil {
		return network.Endpoint{}, false
	}
	wishes, err := network.SelectionOf(pod.Annotations, namespace.Annotations)
	if err != nil {
		return network.Endpoint{}, false
	}
	e.SecurityGroups = wishes.SecurityGroups
	e.Sets, e.Ports = compiled.Of(pod, namespace.Labels)
	return e, e.Node.IsValid()
}
