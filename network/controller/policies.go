package controller

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/netpolicy"
)

// What decides what pods of a VPC may send and receive: the tenant's NetworkPolicies, the labels that they select by, and
// the security groups that pods are in. Whatever changes of that, pools are told anew where the VPC's pods are.

// toldKey is something that a pool was told of a VPC.
type toldKey struct {
	vpc        types.UID
	pool, what string
}

// unenforcedKey is a policy in a pool.
type unenforcedKey struct {
	policy types.UID
	pool   string
}

// reasonNotEnforced is the reason of the event that tells a tenant so.
const reasonNotEnforced = "NotEnforced"

// onFilters watches what decides what may pass.
func (f *fabric) onFilters() error {
	same := func(before, after map[string]string) bool {
		return before[netkeys.SecurityGroups] == after[netkeys.SecurityGroups]
	}
	_, err := f.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			old, isPod := before.(*corev1.Pod)
			pod, ok := after.(*corev1.Pod)
			if isPod && ok && (!same(old.Annotations, pod.Annotations) || !maps.Equal(old.Labels, pod.Labels)) {
				f.filtersChanged(pod.Namespace)
			}
		},
	})
	if err != nil {
		return err
	}
	_, err = f.namespaces.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			old, isNamespace := before.(*corev1.Namespace)
			namespace, ok := after.(*corev1.Namespace)
			if isNamespace && ok && (!same(old.Annotations, namespace.Annotations) || !maps.Equal(old.Labels, namespace.Labels)) {
				f.filtersChanged(namespace.Name)
			}
		},
	})
	if err != nil {
		return err
	}
	return on(f.policies, func(policy *networkingv1.NetworkPolicy) {
		if find[networkingv1.NetworkPolicy](f.policies, policy.Namespace+"/"+policy.Name) == nil {
			f.mu.Lock()
			maps.DeleteFunc(f.unenforced, func(key unenforcedKey, _ int64) bool { return key.policy == policy.UID })
			f.mu.Unlock()
		}
		f.filtersChanged(policy.Namespace)
	})
}

// filtersChanged has pools told anew of the VPC of a namespace's tenant.
func (f *fabric) filtersChanged(namespace string) {
	if vpc := f.vpcOf(namespace); vpc != nil {
		f.meshes.AddAfter(vpc.UID, meshDelay)
	}
}

// vpcOf gives the VPC of a namespace's tenant, nil where it has none.
func (f *fabric) vpcOf(namespace string) *v1alpha1.VPC {
	id, _, ok := names.SplitNamespace(names.ControlNamespace(namespace))
	if !ok {
		return nil
	}
	tenant := find[v1alpha1.Tenant](f.tenants, string(id))
	if tenant == nil || tenant.Spec.Network.Mode != v1alpha1.NetworkVPC {
		return nil
	}
	return find[v1alpha1.VPC](f.vpcs, id.VPC(tenant.Spec.Network))
}

// ofTenant gives what is in a tenant's namespaces.
func ofTenant[T any](informer cache.SharedIndexInformer, tenant names.TenantID) []*T {
	var list []*T
	objects, _ := informer.GetIndexer().ByIndex(byTenant, string(tenant))
	for _, object := range objects {
		if o, ok := object.(*T); ok {
			list = append(list, o)
		}
	}
	return list
}

// policiesOf gives a tenant's policies, and what they amount to.
func (f *fabric) policiesOf(tenant names.TenantID) ([]*networkingv1.NetworkPolicy, *netpolicy.Compiled) {
	policies := ofTenant[networkingv1.NetworkPolicy](f.policies, tenant)
	return policies, netpolicy.Compile(policies)
}

// enforce has a pool hold a VPC's pods to policies, where its driver can and was not told of them already.
func (f *fabric) enforce(ctx context.Context, pool network.Pool, driver network.Driver, vpc *network.VPC, policies []network.Policy) error {
	filterer, ok := driver.(network.Filterer)
	if !ok {
		return nil
	}
	return f.once(toldKey{vpc.UID, pool.Name, "policies"}, policies, func() error {
		return filterer.EnsurePolicies(ctx, pool, vpc, policies)
	})
}

// once tells a pool something, unless that is what it was told last.
func (f *fabric) once(key toldKey, value any, tell func() error) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("compare the %s of VPC %s: %w", key.what, key.vpc, err)
	}
	sum := sha256.Sum256(raw)
	f.mu.Lock()
	told, known := f.told[key]
	f.mu.Unlock()
	if known && told == sum {
		return nil
	}
	if err := tell(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told[key] = sum
	return nil
}

// forgetTold has the pools of a VPC told again, in case somebody changed there what they were told.
func (f *fabric) forgetTold(vpc types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.told, func(key toldKey, _ [sha256.Size]byte) bool { return key.vpc == vpc })
}

// tellUnenforced tells tenants, once for each version of a policy, that a pool's driver does not hold pods to it.
func (f *fabric) tellUnenforced(pool string, policies []*networkingv1.NetworkPolicy) {
	var nodes []string
	for _, object := range f.nodes.GetStore().List() {
		if node, ok := object.(*corev1.Node); ok {
			if of, _ := pools.NodePool(node); of == pool {
				nodes = append(nodes, node.Name)
			}
		}
	}
	if len(nodes) == 0 {
		return // and no pods
	}
	slices.Sort(nodes)
	for _, policy := range policies {
		key := unenforcedKey{policy.UID, pool}
		f.mu.Lock()
		told := f.unenforced[key] == policy.Generation && policy.Generation != 0
		f.unenforced[key] = policy.Generation
		f.mu.Unlock()
		if !told {
			f.recorder.Eventf(policy, corev1.EventTypeWarning, reasonNotEnforced, "pods on %s are not held to network policies: their network cannot filter", few(nodes))
		}
	}
}
