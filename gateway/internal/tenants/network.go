package tenants

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// A tenant in mode VPC refers to a VPC that an operator made, which is left alone, or has a template, from which VPC and
// subnets are made here and removed with the tenant, after its pods. What was made is told by its owner reference to this
// very Tenant. What is missing of a template comes back; what is there stays as it is, because an operator may have
// appended to it.

// Reasons of condition NetworkReady besides those of the VPC and its subnets.
const (
	reasonNetworkReady   = "Ready"
	reasonNetworkMissing = "Missing"
	reasonNetworkWaiting = "Waiting"
	reasonNetworkForeign = "Foreign"
	reasonNetworkRefused = "Refused"
)

// networks is the admin API's part of tenants' networks.
type networks struct {
	vpcs         *client[*v1alpha1.VPC, *v1alpha1.VPCList]
	subnets      *client[*v1alpha1.Subnet, *v1alpha1.SubnetList]
	knownVPCs    cache.SharedIndexInformer
	knownSubnets cache.SharedIndexInformer
}

func newNetworks(api api) *networks {
	n := &networks{vpcs: newClient[v1alpha1.VPC, v1alpha1.VPCList](api, "vpcs"), subnets: newClient[v1alpha1.Subnet, v1alpha1.SubnetList](api, "subnets")}
	n.knownVPCs, n.knownSubnets = newInformer(n.vpcs, &v1alpha1.VPC{}), newInformer(n.subnets, &v1alpha1.Subnet{})
	return n
}

// watch brings the tenant of a VPC or subnet that changed back to changed.
func (n *networks) watch(changed func(names.TenantID)) error {
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { tellOwner(obj, changed) },
		UpdateFunc: func(old, now any) {
			// Figures of use change with every pod.
			if told(old) != told(now) {
				tellOwner(now, changed)
			}
		},
		DeleteFunc: func(obj any) { tellOwner(obj, changed) },
	}
	for _, informer := range []cache.SharedIndexInformer{n.knownVPCs, n.knownSubnets} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watch networks: %w", err)
		}
	}
	return nil
}

// told is what the tenant's condition and this package's own work depend on.
func told(obj any) string {
	switch o := obj.(type) {
	case *v1alpha1.VPC:
		return fmt.Sprint(o.UID, o.DeletionTimestamp, o.OwnerReferences, notReady(o.Status.Conditions, v1alpha1.VPCReady))
	case *v1alpha1.Subnet:
		return fmt.Sprint(o.UID, o.DeletionTimestamp, o.OwnerReferences, notReady(o.Status.Conditions, v1alpha1.SubnetReady))
	default:
		return ""
	}
}

func tellOwner(obj any, changed func(names.TenantID)) {
	if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = tombstone.Obj
	}
	if o, ok := obj.(metav1.Object); ok {
		if id, _, ok := names.SplitNamespace(names.ControlNamespace(o.GetName())); ok {
			changed(id)
		}
	}
}

// provide makes what the tenant's template says and gives the condition that says how the network fares, nil for a tenant
// without one.
func (n *networks) provide(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant) (*metav1.Condition, error) {
	if t.Spec.Network.Mode != v1alpha1.NetworkVPC {
		return nil, nil
	}
	if t.Spec.Network.Template != nil {
		why, err := n.make(ctx, id, t)
		switch {
		case apierrors.IsInvalid(err):
			// What was right when the tenant was made is not any more: another VPC, a pool. It is for the operator to see, and
			// the tenant's API works without.
			return networkCondition(t, reasonNetworkRefused, err.Error()), nil
		case err != nil:
			return nil, err
		case why != "":
			return networkCondition(t, reasonNetworkForeign, why), nil
		}
	}
	reason, message := n.state(id.VPC(t.Spec.Network))
	return networkCondition(t, reason, message), nil
}

func networkCondition(t *v1alpha1.Tenant, reason, message string) *metav1.Condition {
	c := &metav1.Condition{Type: v1alpha1.TenantNetworkReady, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: t.Generation}
	if reason == reasonNetworkReady {
		c.Status = metav1.ConditionTrue
	}
	return c
}

// make creates what is missing of a template, and says what of it is somebody else's and in its way.
func (n *networks) make(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant) (inTheWay string, err error) {
	vpc, subnets := fromTemplate(id, t)
	have, known := n.vpc(vpc.Name)
	if !known {
		if have, err = createOrGet(ctx, n.vpcs, vpc); err != nil {
			return "", fmt.Errorf("create VPC %q: %w", vpc.Name, err)
		}
	}
	if !metav1.IsControlledBy(have, t) {
		return fmt.Sprintf("VPC %q was not made with this tenant and is in its way", vpc.Name), nil
	}
	for _, subnet := range subnets {
		obj, known, err := n.knownSubnets.GetStore().GetByKey(subnet.Name)
		if err != nil {
			return "", err
		}
		var have *v1alpha1.Subnet
		if known {
			have = obj.(*v1alpha1.Subnet)
		} else if have, err = createOrGet(ctx, n.subnets, subnet); err != nil {
			return "", fmt.Errorf("create subnet %q: %w", subnet.Name, err)
		}
		if have.Spec.VPC != vpc.Name {
			return fmt.Sprintf("subnet %q was not made with this tenant and is in its way", subnet.Name), nil
		}
	}
	return "", nil
}

// createOrGet makes an object, or gives the one that has its name already.
func createOrGet[P metav1.Object](ctx context.Context, w writer[P], want P) (P, error) {
	made, err := w.Create(ctx, want, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return w.Get(ctx, want.GetName(), metav1.GetOptions{})
	}
	return made, err
}

// fromTemplate gives the objects that a tenant's template stands for.
func fromTemplate(id names.TenantID, t *v1alpha1.Tenant) (*v1alpha1.VPC, []*v1alpha1.Subnet) {
	template := t.Spec.Network.Template
	owned := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(t, v1alpha1.GroupVersion.WithKind("Tenant"))}}
	}
	vpc := &v1alpha1.VPC{
		ObjectMeta: owned(id.VPC(t.Spec.Network)),
		Spec:       v1alpha1.VPCSpec{Tenant: string(id), CIDRs: template.CIDRs, MTU: template.MTU, Egress: template.Egress},
	}
	var subnets []*v1alpha1.Subnet
	for _, s := range template.Subnets {
		subnets = append(subnets, &v1alpha1.Subnet{
			ObjectMeta: owned(id.NameToControl(s.Name)),
			Spec:       v1alpha1.SubnetSpec{VPC: vpc.Name, CIDRs: s.CIDRs, Pools: s.Pools, Zone: s.Zone},
		})
	}
	return vpc, subnets
}

func (n *networks) vpc(name string) (*v1alpha1.VPC, bool) {
	obj, ok, err := n.knownVPCs.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return obj.(*v1alpha1.VPC), true
}

// state says how a VPC and its subnets fare.
func (n *networks) state(name string) (reason, message string) {
	vpc, ok := n.vpc(name)
	if !ok {
		return reasonNetworkMissing, fmt.Sprintf("there is no VPC %q", name)
	}
	if problem := notReady(vpc.Status.Conditions, v1alpha1.VPCReady); problem != "" {
		return reasonNetworkWaiting, fmt.Sprintf("VPC %q: %s", name, problem)
	}
	subnets := n.subnetsOf(name)
	if len(subnets) == 0 {
		return reasonNetworkMissing, fmt.Sprintf("VPC %q has no subnet", name)
	}
	for _, s := range subnets {
		if problem := notReady(s.Status.Conditions, v1alpha1.SubnetReady); problem != "" {
			return reasonNetworkWaiting, fmt.Sprintf("subnet %q: %s", s.Name, problem)
		}
	}
	return reasonNetworkReady, ""
}

// notReady is what a condition complains about; empty when it is true.
func notReady(conditions []metav1.Condition, kind string) string {
	c := meta.FindStatusCondition(conditions, kind)
	switch {
	case c == nil:
		return "nobody has looked at it yet"
	case c.Status == metav1.ConditionTrue:
		return ""
	case c.Message == "":
		return c.Reason
	default:
		return c.Message
	}
}

// subnetsOf gives a VPC's subnets by name.
func (n *networks) subnetsOf(vpc string) []*v1alpha1.Subnet {
	var out []*v1alpha1.Subnet
	for _, obj := range n.knownSubnets.GetStore().List() {
		if s := obj.(*v1alpha1.Subnet); s.Spec.VPC == vpc {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.Subnet) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// remove takes one step of removing the VPC that was made with a tenant, its subnets first, and says what is left. It reads
// what is stored: a cache that lags would let the Tenant go before its VPC.
func (n *networks) remove(ctx context.Context, id names.TenantID, t *v1alpha1.Tenant) (removal, error) {
	if t.Spec.Network.Mode != v1alpha1.NetworkVPC || t.Spec.Network.Template == nil {
		return removal{}, nil
	}
	name := id.VPC(t.Spec.Network)
	vpc, err := n.vpcs.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return removal{}, nil
	}
	if err != nil {
		return removal{}, fmt.Errorf("get VPC %q: %w", name, err)
	}
	if !metav1.IsControlledBy(vpc, t) {
		return removal{}, nil // Somebody else's, by the same name.
	}
	list, err := n.subnets.List(ctx, metav1.ListOptions{})
	if err != nil {
		return removal{}, fmt.Errorf("list subnets: %w", err)
	}
	var left []string
	for i := range list.Items {
		s := &list.Items[i]
		if s.Spec.VPC != name {
			continue
		}
		why, err := deleteOne(ctx, n.subnets, s)
		if err != nil {
			return removal{}, fmt.Errorf("delete subnet %q: %w", s.Name, err)
		}
		left = append(left, fmt.Sprintf("%q%s", s.Name, why))
	}
	if len(left) > 0 {
		return removal{left: "subnets " + enumerate(left)}, nil
	}
	why, err := deleteOne(ctx, n.vpcs, vpc)
	if err != nil {
		return removal{}, fmt.Errorf("delete VPC %q: %w", name, err)
	}
	return removal{left: fmt.Sprintf("VPC %q%s", name, why)}, nil
}

// deleteOne asks for the deletion of exactly this object and gives what the admin API or its condition says against it.
func deleteOne[P interface {
	metav1.Object
	*v1alpha1.VPC | *v1alpha1.Subnet
}](ctx context.Context, w interface {
	Delete(ctx context.Context, name string, options metav1.DeleteOptions) error
}, o P) (why string, err error) {
	if o.GetDeletionTimestamp() != nil {
		var conditions []metav1.Condition
		switch o := any(o).(type) {
		case *v1alpha1.VPC:
			conditions = o.Status.Conditions
		case *v1alpha1.Subnet:
			conditions = o.Status.Conditions
		}
		if problem := notReady(conditions, v1alpha1.SubnetReady); problem != "" {
			why = ": " + problem
		}
		return why, nil
	}
	uid := o.GetUID()
	err = w.Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	switch {
	case apierrors.IsConflict(err):
		return ": " + err.Error(), nil
	case apierrors.IsNotFound(err):
		return "", nil
	default:
		return "", err
	}
}
