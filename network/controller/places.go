package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/ipam"
)

// refusal is why a pod has no place, in words for its tenant.
type refusal struct {
	reason  network.Reason
	message string
}

func (r *refusal) Error() string { return string(r.reason) + ": " + r.message }

func refuse(reason network.Reason, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// visitPod gives one pod its place, or takes it back from one that is gone.
func (f *fabric) visitPod(ctx context.Context, key podKey) error {
	pod := find[corev1.Pod](f.pods, key.namespace+"/"+key.name)
	if pod == nil || pod.UID != key.uid {
		f.settled(key)
		return f.takeBack(ctx, key)
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		f.settled(key) // it keeps what it has until it is gone
		return nil
	}
	err := f.place(ctx, pod)
	var no *refusal
	switch {
	case err == nil:
		f.settled(key)
		return f.tell(ctx, pod, corev1.ConditionTrue, network.ReasonReady, "")
	case errors.As(err, &no):
		f.mu.Lock()
		f.waiting[key] = true
		f.mu.Unlock()
		return errors.Join(f.tell(ctx, pod, corev1.ConditionFalse, no.reason, no.message), err)
	default:
		return err
	}
}

func (f *fabric) settled(key podKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, key)
}

// place gives a pod of a tenant with a VPC its place. Other pods need none.
func (f *fabric) place(ctx context.Context, pod *corev1.Pod) error {
	id, _, ok := names.SplitNamespace(names.ControlNamespace(pod.Namespace))
	namespace := find[corev1.Namespace](f.namespaces, pod.Namespace)
	if !ok || namespace == nil || namespace.Labels[names.LabelTenant] != string(id) {
		return nil
	}
	tenant := find[v1alpha1.Tenant](f.tenants, string(id))
	if tenant == nil || tenant.Spec.Network.Mode != v1alpha1.NetworkVPC {
		return nil // the tenant's arrival wakes those that it concerns
	}
	if len(f.addresses.Find(pod.UID)) > 0 || pod.DeletionTimestamp != nil {
		return nil
	}
	for _, subnet := range f.subnetsOf(id.VPC(tenant.Spec.Network)) {
		if subnet.Status.VNI != 0 && !f.addresses.IsOpen(subnet.UID) {
			// It may have a place for the pod already. The pod is told nothing: it may well be running.
			return fmt.Errorf("%w: what subnet %s has given is not read yet", network.ErrNotReady, subnet.Name)
		}
	}
	node := find[corev1.Node](f.nodes, pod.Spec.NodeName)
	if node == nil {
		return fmt.Errorf("node %s is not known yet", pod.Spec.NodeName)
	}
	pool, _ := pools.NodePool(node)
	candidates, r, err := f.choose(tenant, namespace, pod, pool)
	if err != nil {
		return err
	}
	var full []string
	for _, c := range candidates {
		request := r
		request.Index = c.index
		_, err := f.addresses.Allocate(ctx, c.subnet.UID, request)
		label, _ := id.NameToTenant(c.subnet.Name)
		switch {
		case err == nil:
			f.objects.AddAfter(objectKey{aUsage, c.subnet.Name}, usageDelay)
			return nil
		case errors.Is(err, ipam.ErrExhausted):
			full = append(full, label)
		case errors.Is(err, ipam.ErrTaken), errors.Is(err, ipam.ErrNotInSubnet):
			return refuse(network.ReasonInvalidSelection, "subnet %s: %s", label, tenantWords(id, err))
		case errors.Is(err, ipam.ErrPredecessor):
			return refuse(network.ReasonIPExhausted, "the address that is kept for the pod is still its predecessor's")
		case errors.Is(err, network.ErrNotReady):
			return refuse(network.ReasonSubnetNotReady, "subnet %s is not ready yet", label)
		default:
			return err
		}
	}
	return refuse(network.ReasonIPExhausted, "no address is free in subnet %s", strings.Join(full, ", "))
}

// tenantWords takes the tenant's prefix off what an error says.
func tenantWords(id names.TenantID, err error) string {
	return strings.ReplaceAll(err.Error(), id.Prefix(), "")
}

// candidate is a subnet that a pod may have its place in; index is the wanted one.
type candidate struct {
	subnet *v1alpha1.Subnet
	index  *uint32
}

// choose gives the subnets that a pod may be in, the most wanted first. What is asked for and cannot be had is a refusal:
// nothing else is taken instead.
func (f *fabric) choose(tenant *v1alpha1.Tenant, namespace *corev1.Namespace, pod *corev1.Pod, pool string) ([]candidate, ipam.Request, error) {
	id := names.TenantID(tenant.Name)
	request := ipam.Request{
		Pod:   network.PodKey{Namespace: names.ControlNamespace(pod.Namespace), Name: pod.Name, UID: pod.UID},
		Owner: statefulSet(pod), Pool: pool,
	}
	vpc := find[v1alpha1.VPC](f.vpcs, id.VPC(tenant.Spec.Network))
	if vpc == nil || vpc.DeletionTimestamp != nil || vpc.Spec.Tenant != tenant.Name {
		return nil, request, refuse(network.ReasonVPCNotReady, "the tenant's VPC does not exist yet")
	}
	wishes, err := network.SelectionOf(pod.Annotations, namespace.Annotations)
	if err != nil {
		return nil, request, refuse(network.ReasonInvalidSelection, "%s", err)
	}
	if err := f.able(vpc, wishes, pool); err != nil {
		return nil, request, err
	}
	subnets, err := f.wanted(tenant, vpc, wishes)
	if err != nil {
		return nil, request, err
	}
	resource, _ := f.registry.Resource(pool)
	var out []candidate
	for _, subnet := range subnets {
		if resource == nil || !subnet.Serves(resource) || subnet.DeletionTimestamp != nil {
			continue
		}
		c := candidate{subnet: subnet}
		if len(wishes.IPs) > 0 {
			if c.index, err = indexOf(subnet, wishes); err != nil {
				continue
			}
		}
		label, _ := id.NameToTenant(subnet.Name)
		if at := bindingIn(subnet.Status.Pools, pool); at == nil || !at.Ready {
			return nil, request, refuse(waitReason(at, network.ReasonSubnetNotReady), "subnet %s is not ready where the pod is", label)
		}
		out = append(out, c)
	}
	switch {
	case len(out) == 0 && len(wishes.IPs) > 0:
		return nil, request, refuse(network.ReasonInvalidSelection, "the address %s is in none of the subnets that the pod can be in", wishes.IPs[0])
	case len(out) == 0:
		return nil, request, refuse(network.ReasonInvalidSelection, "none of the subnets that the pod can be in serves node %s", pod.Spec.NodeName)
	}
	slices.SortStableFunc(out, func(a, b candidate) int {
		return cmp.Compare(rank(f.addresses.Remembers(a.subnet.UID, request)), rank(f.addresses.Remembers(b.subnet.UID, request)))
	})
	return out, request, nil
}

// rank puts the subnet first that keeps an address for the pod.
func rank(remembers bool) int {
	if remembers {
		return 0
	}
	return 1
}

// able says whether what a pod asks for can be had in a pool.
func (f *fabric) able(vpc *v1alpha1.VPC, wishes network.Selection, pool string) error {
	resource, ok := f.registry.Resource(pool)
	if !ok {
		return refuse(network.ReasonPoolUnreachable, "where the pod is bound to is not known")
	}
	driver, err := f.drivers(resource.Spec.Network.Driver)
	switch {
	case err != nil, !driver.Capabilities().VPC, !driver.Capabilities().ExplicitIP:
		// Without a place that was chosen here nobody could tell whether the pod is where it belongs.
		return refuse(network.ReasonCapabilityMissing, "no VPC can be had where the pod is")
	case !wishes.Bandwidth.None() && !driver.Capabilities().Bandwidth:
		return refuse(network.ReasonCapabilityMissing, "bandwidth cannot be had where the pod is")
	case len(wishes.SecurityGroups) > 0 && !driver.Capabilities().SecurityGroups:
		return refuse(network.ReasonCapabilityMissing, "security groups cannot be had where the pod is")
	}
	for _, group := range wishes.SecurityGroups {
		if !slices.ContainsFunc(vpc.Spec.SecurityGroups, func(g v1alpha1.SecurityGroup) bool { return g.Name == group }) {
			return refuse(network.ReasonInvalidSelection, "there is no security group %q", group)
		}
	}
	if status, known := f.registry.Status(pool); !known || !status.Reachable.Good() {
		// Nothing is given out for a pool of which nobody knows what it does.
		return refuse(network.ReasonPoolUnreachable, "where the pod is does not answer")
	}
	if at := bindingIn(vpc.Status.Pools, pool); at == nil || !at.Ready {
		return refuse(waitReason(at, network.ReasonVPCNotReady), "the VPC is not ready where the pod is")
	}
	return nil
}

// waitReason gives the reason of a binding where waiting does not help.
func waitReason(at *v1alpha1.PoolBinding, otherwise network.Reason) network.Reason {
	if at != nil && at.Reason == string(network.ReasonCapabilityMissing) {
		return network.ReasonCapabilityMissing
	}
	return otherwise
}

// wanted gives the subnets that a pod asks for, or its tenant's default.
func (f *fabric) wanted(tenant *v1alpha1.Tenant, vpc *v1alpha1.VPC, wishes network.Selection) ([]*v1alpha1.Subnet, error) {
	id := names.TenantID(tenant.Name)
	labels := wishes.Subnets
	if len(labels) == 0 {
		labels = tenant.Spec.Network.DefaultSubnets
	}
	if len(labels) == 0 {
		all := slices.Clone(f.subnetsOf(vpc.Name))
		slices.SortFunc(all, func(a, b *v1alpha1.Subnet) int { return cmp.Compare(a.Name, b.Name) })
		if len(all) == 0 {
			return nil, refuse(network.ReasonSubnetNotReady, "the VPC has no subnet yet")
		}
		return all, nil
	}
	var out []*v1alpha1.Subnet
	for _, label := range labels {
		subnet := find[v1alpha1.Subnet](f.subnets, id.NameToControl(label))
		if subnet == nil || subnet.Spec.VPC != vpc.Name {
			return nil, refuse(network.ReasonInvalidSelection, "there is no subnet %q", label)
		}
		out = append(out, subnet)
	}
	return out, nil
}

// indexOf gives the index that the wanted addresses have in a subnet: all of them one.
func indexOf(o *v1alpha1.Subnet, wishes network.Selection) (*uint32, error) {
	s, err := network.SubnetOf(o, "")
	if err != nil {
		return nil, err
	}
	var index uint32
	for i, ip := range wishes.IPs {
		at, ok := s.IndexOf(ip)
		if !ok || i > 0 && at != index {
			return nil, ipam.ErrNotInSubnet
		}
		index = at
	}
	return &index, nil
}

// statefulSet gives the UID of the StatefulSet that owns a pod.
func statefulSet(pod *corev1.Pod) types.UID {
	if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "StatefulSet" && strings.HasPrefix(owner.APIVersion, "apps/") {
		return owner.UID
	}
	return ""
}

// tell writes the condition of a pod, when it says something new. A pod that never had to wait has none.
func (f *fabric) tell(ctx context.Context, pod *corev1.Pod, status corev1.ConditionStatus, reason network.Reason, message string) error {
	condition := corev1.PodCondition{Type: network.PodReady, Status: status, Reason: string(reason), Message: message, LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second))}
	var was *corev1.PodCondition
	if len(pod.Status.Conditions) > 0 {
		was = &pod.Status.Conditions[0]
	}
	switch {
	case was == nil && status == corev1.ConditionTrue:
		return nil
	case was != nil && was.Status == status && was.Reason == condition.Reason && was.Message == message:
		return nil
	case was != nil && was.Status == status:
		condition.LastTransitionTime = was.LastTransitionTime
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   map[string]any{"conditions": []corev1.PodCondition{condition}},
	})
	if err != nil {
		return fmt.Errorf("write a condition of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	_, err = f.control.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: name}, "status")
	if err != nil {
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // another pod, or none: the cache will show it
		}
		return fmt.Errorf("write a condition of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if status == corev1.ConditionFalse {
		f.recorder.Event(pod, corev1.EventTypeWarning, string(reason), message)
	}
	return nil
}

// takeBack puts the addresses of a pod in quarantine that is gone: both clusters say so now, and the driver has given back
// what it held. While the pool does not answer, nothing is taken back.
func (f *fabric) takeBack(ctx context.Context, key podKey) error {
	places := f.addresses.Find(key.uid)
	if len(places) == 0 {
		return nil
	}
	switch there, err := f.control.CoreV1().Pods(key.namespace).Get(ctx, key.name, metav1.GetOptions{}); {
	case err == nil && there.UID == key.uid:
		return nil // the cache is late
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("read pod %s/%s: %w", key.namespace, key.name, err)
	}
	for _, p := range places {
		if err := f.proveGone(ctx, p.Pool, key); err != nil {
			return err
		}
		if err := f.addresses.Release(ctx, p.Subnet, key.uid); err != nil {
			return err
		}
		f.objects.AddAfter(objectKey{aUsage, p.SubnetName}, usageDelay)
		f.meshes.AddAfter(p.VPC, meshDelay)
	}
	if next := find[corev1.Pod](f.pods, key.namespace+"/"+key.name); next != nil {
		f.places.Add(keyOf(next)) // it may wait for the address
	}
	return nil
}

// proveGone returns nil when a pool has no pod of that life, and its driver holds nothing for it any more. A ResourcePool
// that is gone had none when it went.
func (f *fabric) proveGone(ctx context.Context, name string, key podKey) error {
	if _, exists := f.registry.Resource(name); !exists {
		return nil
	}
	pool, driver, err := f.reach(name)
	if errors.Is(err, network.ErrCapability) {
		driver = nil // changed since; the pool pod still counts
		open, ok := f.registry.Pool(name)
		if !ok {
			return err
		}
		pool = network.Pool{Name: name, ControlUID: open.ControlUID, Client: open.Client, Dynamic: open.Dynamic}
	} else if err != nil {
		return err
	}
	there, err := pool.Client.CoreV1().Pods(key.namespace).Get(ctx, key.name, metav1.GetOptions{})
	switch {
	case err == nil && there.Labels[names.LabelControlUID] == string(key.uid):
		return fmt.Errorf("pod %s/%s is still in pool %s", key.namespace, key.name, name)
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("read pod %s/%s in pool %s: %w", key.namespace, key.name, name, err)
	case driver == nil:
		return nil
	}
	return driver.ReleasePod(ctx, pool, network.PodKey{Namespace: names.ControlNamespace(key.namespace), Name: key.name, UID: key.uid})
}
