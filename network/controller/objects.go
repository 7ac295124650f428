package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/ipam"
)

// Reasons of conditions of VPCs and Subnets beside those of drivers.
const (
	reasonOverlap  = "Overlap"
	reasonInUse    = "InUse"
	reasonDeleting = "Deleting"
	reasonStarting = "Starting"
)

var errAgain = errors.New("is not ready everywhere")

// visitVPC makes a VPC be in every pool that one of its subnets serves.
func (f *fabric) visitVPC(ctx context.Context, name string) error {
	o := find[v1alpha1.VPC](f.vpcs, name)
	switch {
	case o == nil:
		return nil
	case o.DeletionTimestamp != nil:
		return f.deleteVPC(ctx, o)
	}
	v, err := network.VPCOf(o, f.api)
	if err != nil {
		return f.writeVPC(ctx, o, o.Status.Pools, notReady(network.ReasonInvalidSelection, err.Error()))
	}
	targets := f.targets(f.subnetsOf(o.Name)...)
	if intent, changed := planned(o.Status.Pools, targets); changed {
		// Written before anything is made, so that whoever takes over knows where to look.
		return f.writeVPC(ctx, o, intent, notReady(reasonStarting, "pools are being prepared"))
	}
	bindings, err := f.everywhere(ctx, targets, o.Status.Pools, func(ctx context.Context, pool network.Pool, driver network.Driver) (network.PoolBinding, error) {
		if missing := lacks(driver.Capabilities(), o); missing != "" {
			return refused(fmt.Errorf("%w: driver %s has no %s", network.ErrCapability, driver.Name(), missing))
		}
		return driver.EnsureVPC(ctx, pool, v)
	})
	f.forgetTold(o.UID)
	f.meshes.Add(o.UID)
	f.leads.Add(o.UID)
	return errors.Join(f.writeVPC(ctx, o, bindings, judgePools(bindings, targets)), err)
}

// lacks names what a VPC asks for and a driver cannot do.
func lacks(can network.Capabilities, o *v1alpha1.VPC) string {
	var four, six bool
	for _, text := range o.Spec.CIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			four, six = four || prefix.Addr().Is4(), six || prefix.Addr().Is6()
		}
	}
	switch {
	case four && six && !can.DualStack:
		return string(v1alpha1.CapabilityDualStack)
	case len(o.Spec.SecurityGroups) > 0 && !can.SecurityGroups:
		return string(v1alpha1.CapabilitySecurityGroups)
	}
	return ""
}

// visitSubnet makes a subnet be in every pool that it serves, after its VPC.
func (f *fabric) visitSubnet(ctx context.Context, name string) error {
	o := find[v1alpha1.Subnet](f.subnets, name)
	switch {
	case o == nil:
		return nil
	case o.DeletionTimestamp != nil:
		return f.deleteSubnet(ctx, o)
	}
	vpc := find[v1alpha1.VPC](f.vpcs, o.Spec.VPC)
	if vpc == nil {
		return f.writeSubnet(ctx, o, o.Status.Pools, notReady(network.ReasonVPCNotReady, "there is no VPC "+o.Spec.VPC))
	}
	if o.Status.VNI == 0 {
		return f.numberSubnet(ctx, o)
	}
	v, err := network.VPCOf(vpc, f.api)
	if err != nil {
		return f.writeSubnet(ctx, o, o.Status.Pools, notReady(network.ReasonInvalidSelection, err.Error()))
	}
	s, err := network.SubnetOf(o, vpc.UID)
	if err == nil {
		err = f.addresses.Open(ctx, &ipam.Subnet{Subnet: *s, Reserved: o.Spec.Reserved})
	}
	switch {
	case errors.Is(err, network.ErrInvalid):
		return f.writeSubnet(ctx, o, o.Status.Pools, notReady(network.ReasonInvalidSelection, err.Error()))
	case err != nil:
		return err
	}
	targets := f.targets(o)
	if intent, changed := planned(o.Status.Pools, targets); changed {
		return f.writeSubnet(ctx, o, intent, notReady(reasonStarting, "pools are being prepared"))
	}
	bindings, err := f.everywhere(ctx, targets, o.Status.Pools, func(ctx context.Context, pool network.Pool, driver network.Driver) (network.PoolBinding, error) {
		if at := bindingIn(vpc.Status.Pools, pool.Name); at == nil || !at.Ready {
			// The VPC's own visit wakes this one.
			return network.PoolBinding{Reason: network.ReasonVPCNotReady, Message: "VPC " + vpc.Name + " is not ready there"}, nil
		}
		return driver.EnsureSubnet(ctx, pool, v, s)
	})
	f.lookAtHoldersOf(o)
	return errors.Join(f.writeSubnet(ctx, o, bindings, judgePools(bindings, targets)), err)
}

// target is a pool in which something is to be. required is false where the driver knows no VPCs and nobody named the
// pool: such a pool is none of the subnet's business.
type target struct {
	resource *v1alpha1.ResourcePool
	required bool
}

// targets gives the pools that subnets serve, by name.
func (f *fabric) targets(subnets ...*v1alpha1.Subnet) map[string]target {
	out := map[string]target{}
	for _, subnet := range subnets {
		if subnet.DeletionTimestamp != nil {
			continue
		}
		for _, resource := range f.registry.Resources() {
			if !subnet.Serves(resource) {
				continue
			}
			driver, err := f.drivers(resource.Spec.Network.Driver)
			named := slices.Contains(subnet.Spec.Pools, resource.Name)
			if named || err == nil && driver.Capabilities().VPC {
				out[resource.Name] = target{resource, true}
			}
		}
	}
	return out
}

// planned adds the pools that are not in the list yet, not ready.
func planned(has []v1alpha1.PoolBinding, targets map[string]target) (list []v1alpha1.PoolBinding, changed bool) {
	list = slices.Clone(has)
	for name := range targets {
		if bindingIn(has, name) == nil {
			list = append(list, v1alpha1.PoolBinding{Pool: name, Reason: reasonStarting})
			changed = true
		}
	}
	slices.SortFunc(list, func(a, b v1alpha1.PoolBinding) int { return cmp.Compare(a.Pool, b.Pool) })
	return list, changed
}

func bindingIn(list []v1alpha1.PoolBinding, pool string) *v1alpha1.PoolBinding {
	for i := range list {
		if list[i].Pool == pool {
			return &list[i]
		}
	}
	return nil
}

func refused(err error) (network.PoolBinding, error) {
	return network.PoolBinding{Reason: network.ReasonFor(err), Message: err.Error()}, err
}

// everywhere does something in each pool at once and gives what came of it. A pool that is no target any more keeps its
// entry: something of ours may be there until it is swept.
func (f *fabric) everywhere(ctx context.Context, targets map[string]target, has []v1alpha1.PoolBinding,
	ensure func(context.Context, network.Pool, network.Driver) (network.PoolBinding, error),
) ([]v1alpha1.PoolBinding, error) {
	list := slices.DeleteFunc(slices.Clone(has), func(b v1alpha1.PoolBinding) bool {
		_, exists := f.registry.Resource(b.Pool)
		return !exists // it took everything along
	})
	again := make([]bool, len(list))
	var group sync.WaitGroup
	for i := range list {
		if _, ok := targets[list[i].Pool]; !ok {
			list[i].Ready, list[i].Reason, list[i].Message = false, string(network.ReasonInvalidSelection), "the pool is not one that it serves"
			continue
		}
		group.Go(func() {
			binding, err := f.inPool(ctx, list[i].Pool, ensure)
			list[i].Ready, list[i].Reason, list[i].Message = binding.Ready && err == nil, string(binding.Reason), binding.Message
			if list[i].Ready {
				list[i].Reason, list[i].Message = string(network.ReasonReady), ""
			}
			again[i] = err != nil && !errors.Is(err, network.ErrInvalid) && !errors.Is(err, network.ErrCapability)
		})
	}
	group.Wait()
	if slices.Contains(again, true) {
		return list, errAgain
	}
	return list, nil
}

// inPool calls the driver of a pool, which must answer.
func (f *fabric) inPool(ctx context.Context, name string, call func(context.Context, network.Pool, network.Driver) (network.PoolBinding, error)) (network.PoolBinding, error) {
	pool, driver, err := f.reach(name)
	if err != nil {
		return network.PoolBinding{Reason: network.ReasonFor(err), Message: err.Error()}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	binding, err := call(ctx, pool, driver)
	if err != nil {
		f.metrics.failures.WithLabelValues(name, string(network.ReasonFor(err))).Inc()
		if binding.Reason == "" {
			binding.Reason, binding.Message = network.ReasonFor(err), err.Error()
		}
	}
	return binding, err
}

// reach gives a pool that answers, and its driver.
func (f *fabric) reach(name string) (network.Pool, network.Driver, error) {
	pool, open := f.registry.Pool(name)
	status, known := f.registry.Status(name)
	if !open || !known || !status.Reachable.Good() {
		return network.Pool{}, nil, fmt.Errorf("pool %s does not answer", name)
	}
	driver, err := f.drivers(pool.Spec().Network.Driver)
	switch {
	case err != nil:
		return network.Pool{}, nil, fmt.Errorf("%w: %w", network.ErrCapability, err)
	case !driver.Capabilities().VPC:
		return network.Pool{}, nil, fmt.Errorf("%w: driver %s knows no VPCs", network.ErrCapability, driver.Name())
	}
	return network.Pool{Name: pool.Name, ControlUID: pool.ControlUID, Client: pool.Client, Dynamic: pool.Dynamic}, driver, nil
}

func notReady[R ~string](reason R, message string) metav1.Condition {
	return metav1.Condition{Type: v1alpha1.VPCReady, Status: metav1.ConditionFalse, Reason: string(reason), Message: message}
}

// judgePools sums bindings up.
func judgePools(bindings []v1alpha1.PoolBinding, targets map[string]target) metav1.Condition {
	for _, b := range bindings {
		if t, ok := targets[b.Pool]; ok && t.required && !b.Ready {
			return notReady(cmp.Or(b.Reason, reasonStarting), "pool "+b.Pool+": "+cmp.Or(b.Message, "not ready yet"))
		}
	}
	return metav1.Condition{Type: v1alpha1.VPCReady, Status: metav1.ConditionTrue, Reason: string(network.ReasonReady)}
}

func (f *fabric) writeVPC(ctx context.Context, o *v1alpha1.VPC, bindings []v1alpha1.PoolBinding, ready metav1.Condition) error {
	after := o.DeepCopy()
	after.Status.Pools, after.Status.ObservedGeneration, ready.ObservedGeneration = bindings, o.Generation, o.Generation
	meta.SetStatusCondition(&after.Status.Conditions, ready)
	if equality.Semantic.DeepEqual(o.Status, after.Status) {
		return nil
	}
	if err := f.admin.Status().Update(ctx, after); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("report on VPC %s: %w", o.Name, err)
	}
	return nil
}

func (f *fabric) writeSubnet(ctx context.Context, o *v1alpha1.Subnet, bindings []v1alpha1.PoolBinding, ready metav1.Condition) error {
	after := o.DeepCopy()
	after.Status.Pools, after.Status.ObservedGeneration, ready.ObservedGeneration = bindings, o.Generation, o.Generation
	meta.SetStatusCondition(&after.Status.Conditions, ready)
	f.figures(after)
	if equality.Semantic.DeepEqual(o.Status, after.Status) {
		return nil
	}
	if err := f.admin.Status().Update(ctx, after); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("report on Subnet %s: %w", o.Name, err)
	}
	return nil
}

// figures says how full a subnet is.
func (f *fabric) figures(o *v1alpha1.Subnet) {
	total, used, resting := f.addresses.Usage(o.UID)
	if total == 0 {
		return // not open
	}
	o.Status.Total, o.Status.Used = total, used+resting
	full := metav1.Condition{Type: v1alpha1.SubnetExhausted, Status: metav1.ConditionFalse, Reason: "Room", ObservedGeneration: o.Generation}
	if used+resting >= total {
		full.Status, full.Reason = metav1.ConditionTrue, string(network.ReasonIPExhausted)
		full.Message = "every address is taken or rests after its last pod"
	}
	meta.SetStatusCondition(&o.Status.Conditions, full)
}

// visitUsage writes a subnet's figures.
func (f *fabric) visitUsage(ctx context.Context, name string) error {
	o := find[v1alpha1.Subnet](f.subnets, name)
	if o == nil || o.DeletionTimestamp != nil {
		return nil
	}
	after := o.DeepCopy()
	f.figures(after)
	if after.Status.Used > o.Status.Used || after.Status.Used > 0 {
		// What rests is free after a while, which nothing else tells.
		if _, _, resting := f.addresses.Usage(o.UID); resting > 0 {
			f.objects.AddAfter(objectKey{aUsage, name}, ipam.Quarantine/4)
		}
	}
	if equality.Semantic.DeepEqual(o.Status, after.Status) {
		return nil
	}
	if err := f.admin.Status().Update(ctx, after); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("report on Subnet %s: %w", o.Name, err)
	}
	return nil
}

// deleteSubnet takes a subnet out of every pool once no pod is in it, and lets it go.
func (f *fabric) deleteSubnet(ctx context.Context, o *v1alpha1.Subnet) error {
	if !controllerutil.ContainsFinalizer(o, v1alpha1.FinalizerNetwork) {
		return nil
	}
	vpc := find[v1alpha1.VPC](f.vpcs, o.Spec.VPC)
	if vpc != nil {
		if s, err := network.SubnetOf(o, vpc.UID); err == nil {
			if err := f.addresses.Open(ctx, &ipam.Subnet{Subnet: *s, Reserved: o.Spec.Reserved}); err != nil {
				return err
			}
		}
	}
	if _, used, _ := f.addresses.Usage(o.UID); used > 0 {
		f.lookAtHoldersOf(o)
		return errors.Join(f.writeSubnet(ctx, o, o.Status.Pools, notReady(reasonInUse, fmt.Sprintf("%d pods have addresses of it", used))), errAgain)
	}
	s := &network.Subnet{Name: o.Name, UID: o.UID, VNI: o.Status.VNI}
	if vpc != nil {
		if known, err := network.SubnetOf(o, vpc.UID); err == nil {
			s = known
		}
	}
	message, err := f.removeEverywhere(ctx, o.Status.Pools, func(ctx context.Context, pool network.Pool, driver network.Driver) error {
		return driver.DeleteSubnet(ctx, pool, s)
	})
	if err != nil {
		return errors.Join(f.writeSubnet(ctx, o, o.Status.Pools, notReady(reasonDeleting, message)), err)
	}
	if err := f.addresses.Destroy(ctx, o.UID); err != nil {
		return err
	}
	return f.letGo(ctx, o.DeepCopy())
}

// deleteVPC takes a VPC out of every pool once it has no subnets, and lets it go.
func (f *fabric) deleteVPC(ctx context.Context, o *v1alpha1.VPC) error {
	if !controllerutil.ContainsFinalizer(o, v1alpha1.FinalizerNetwork) {
		return nil
	}
	f.forgetTold(o.UID)
	var subnets v1alpha1.SubnetList
	if err := f.admin.List(ctx, &subnets); err != nil {
		return fmt.Errorf("read Subnets: %w", err)
	}
	for i := range subnets.Items {
		if subnets.Items[i].Spec.VPC == o.Name {
			// The subnet's end wakes this.
			return f.writeVPC(ctx, o, o.Status.Pools, notReady(reasonInUse, "Subnet "+subnets.Items[i].Name+" is a part of it"))
		}
	}
	v, err := network.VPCOf(o, f.api)
	if err != nil {
		v = &network.VPC{Name: o.Name, UID: o.UID}
	}
	message, err := f.removeEverywhere(ctx, o.Status.Pools, func(ctx context.Context, pool network.Pool, driver network.Driver) error {
		return driver.DeleteVPC(ctx, pool, v)
	})
	if err != nil {
		return errors.Join(f.writeVPC(ctx, o, o.Status.Pools, notReady(reasonDeleting, message)), err)
	}
	return f.letGo(ctx, o.DeepCopy())
}

// removeEverywhere takes something out of the pools that it may be in. A ResourcePool that is gone took it along.
func (f *fabric) removeEverywhere(ctx context.Context, bindings []v1alpha1.PoolBinding, remove func(context.Context, network.Pool, network.Driver) error) (message string, err error) {
	for _, binding := range bindings {
		if _, exists := f.registry.Resource(binding.Pool); !exists {
			continue
		}
		_, failed := f.inPool(ctx, binding.Pool, func(ctx context.Context, pool network.Pool, driver network.Driver) (network.PoolBinding, error) {
			return network.PoolBinding{}, remove(ctx, pool, driver)
		})
		if errors.Is(failed, network.ErrCapability) {
			continue // a driver that knows no VPCs has none
		}
		if failed != nil {
			message, err = "pool "+binding.Pool+": "+failed.Error(), errors.Join(err, failed)
		}
	}
	return message, err
}

// letGo removes our finalizer from an object, which the caller owns.
func (f *fabric) letGo(ctx context.Context, o client.Object) error {
	controllerutil.RemoveFinalizer(o, v1alpha1.FinalizerNetwork)
	if err := f.admin.Update(ctx, o); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("let %s go: %w", o.GetName(), err)
	}
	return nil
}
