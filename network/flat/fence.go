package flat

import (
	"context"
	"errors"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

const (
	// fenceName cannot collide with a tenant's NetworkPolicy: those do not come into a pool.
	fenceName = "vivarium-fence"
	// managedBy is LabelManagedBy on fences.
	managedBy = "network"
)

// metadataAddresses are where clouds serve credentials to whoever runs on a node.
var metadataAddresses = struct{ v4, v6 []string }{
	v4: []string{"169.254.169.254/32"},
	v6: []string{"fd00:ec2::254/128"},
}

// fence is the policy of one tenant namespace. Policies only allow, so what is not named is closed: other tenants'
// namespaces.
func fence(pool network.Pool, namespace network.Namespace) *networkingv1.NetworkPolicy {
	sameTenant := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{
		names.LabelTenant:  string(namespace.Tenant),
		names.LabelControl: string(pool.ControlUID),
	}}}
	noTenant := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: names.LabelTenant, Operator: metav1.LabelSelectorOpDoesNotExist},
	}}}
	outside := func(cidr string, except []string) networkingv1.NetworkPolicyPeer {
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Name:      fenceName,
			Namespace: string(namespace.Name),
			Labels: map[string]string{
				names.LabelTenant:    string(namespace.Tenant),
				names.LabelControl:   string(pool.ControlUID),
				names.LabelPool:      pool.Name,
				names.LabelManagedBy: managedBy,
			},
		},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{sameTenant}}},
			Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{
				sameTenant, noTenant,
				outside("0.0.0.0/0", metadataAddresses.v4),
				outside("::/0", metadataAddresses.v6),
			}}},
		},
	}
}

func owned(pool network.Pool, object metav1.Object) bool {
	labels := object.GetLabels()
	return pool.ControlUID != "" && labels[names.LabelControl] == string(pool.ControlUID) && labels[names.LabelManagedBy] == managedBy
}

func selector(pool network.Pool) string {
	return names.LabelControl + "=" + string(pool.ControlUID) + "," + names.LabelManagedBy + "=" + managedBy
}

// EnsureNamespace implements [network.Driver]: the namespace has its fence.
func (Driver) EnsureNamespace(ctx context.Context, pool network.Pool, namespace network.Namespace) error {
	if owner, _, ok := names.SplitNamespace(namespace.Name); !ok || owner != namespace.Tenant || pool.ControlUID == "" {
		return fmt.Errorf("%w: fence namespace %s for tenant %s", network.ErrInvalid, namespace.Name, namespace.Tenant)
	}
	policies := pool.Client.NetworkingV1().NetworkPolicies(string(namespace.Name))
	want := fence(pool, namespace)
	got, err := policies.Get(ctx, fenceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = policies.Create(ctx, want, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return wrap("create", pool, namespace, err)
		}
		got, err = policies.Get(ctx, fenceName, metav1.GetOptions{})
	}
	if err != nil {
		return wrap("read", pool, namespace, err)
	}
	if !owned(pool, got) {
		return wrap("write", pool, namespace, network.ErrForeign)
	}
	if equality.Semantic.DeepEqual(got.Spec, want.Spec) && equality.Semantic.DeepEqual(got.Labels, want.Labels) {
		return nil
	}
	got = got.DeepCopy()
	got.Spec, got.Labels = want.Spec, want.Labels
	_, err = policies.Update(ctx, got, metav1.UpdateOptions{})
	return wrap("update", pool, namespace, err)
}

func wrap(act string, pool network.Pool, namespace network.Namespace, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s NetworkPolicy %s/%s in pool %s: %w", act, namespace.Name, fenceName, pool.Name, err)
}

// Sweep implements [network.Driver]: fences in what is no tenant namespace of ours any more go.
func (Driver) Sweep(ctx context.Context, pool network.Pool, live network.LiveSet) error {
	if pool.ControlUID == "" {
		return fmt.Errorf("%w: sweep pool %s without an identity", network.ErrInvalid, pool.Name)
	}
	list, err := pool.Client.NetworkingV1().NetworkPolicies(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: selector(pool)})
	if err != nil {
		return fmt.Errorf("list NetworkPolicies in pool %s: %w", pool.Name, err)
	}
	var problems []error
	for i := range list.Items {
		policy := &list.Items[i]
		_, alive := live.Namespaces[names.ControlNamespace(policy.Namespace)]
		if alive || !owned(pool, policy) || !policy.CreationTimestamp.Time.Before(live.AsOf) {
			continue
		}
		err := pool.Client.NetworkingV1().NetworkPolicies(policy.Namespace).Delete(ctx, policy.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &policy.UID, ResourceVersion: &policy.ResourceVersion},
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			problems = append(problems, fmt.Errorf("delete NetworkPolicy %s/%s in pool %s: %w", policy.Namespace, policy.Name, pool.Name, err))
		}
	}
	return errors.Join(problems...)
}

// WatchNamespaces implements [network.Watcher]: it reports every fence that appears, changes or vanishes.
func (Driver) WatchNamespaces(ctx context.Context, pool network.Pool, changed func(names.ControlNamespace)) error {
	factory := informers.NewSharedInformerFactoryWithOptions(pool.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = selector(pool)
	}))
	informer := factory.Networking().V1().NetworkPolicies().Informer()
	notify := func(object any) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		if policy, ok := object.(*networkingv1.NetworkPolicy); ok {
			changed(names.ControlNamespace(policy.Namespace))
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			if b, ok := before.(*networkingv1.NetworkPolicy); ok {
				if a, ok := after.(*networkingv1.NetworkPolicy); ok && a.ResourceVersion == b.ResourceVersion {
					return
				}
			}
			notify(after)
		},
		DeleteFunc: notify,
	})
	if err != nil {
		return fmt.Errorf("watch NetworkPolicies in pool %s: %w", pool.Name, err)
	}
	informer.RunWithContext(ctx)
	return nil
}
