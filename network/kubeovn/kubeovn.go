// Package kubeovn is the driver for pools whose network plugin is Kube-OVN: a VPC is one of its Vpcs, a subnet one of its
// Subnets, a security group one of its SecurityGroups, and a pod is bound by annotations that name them and the pod's
// address. README.md says what a pool needs and what the driver cannot do.
//
// The package must never touch an object that does not carry the platform's labels, nor leave a choice to Kube-OVN: what
// an annotation does not say, it decides by its namespace's or its default network. It knows Kube-OVN by its custom
// resources alone and imports nothing of it. Start at [Driver]; objects.go says what is written, pod.go binds.
package kubeovn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/flat"
	"vivarium.io/vivarium/network/internal/custom"
)

// Name is the driver's name.
const Name = v1alpha1.DriverKubeOVN

// Driver is the driver. It has no state; the zero value is ready.
type Driver struct{}

var (
	_ network.Driver  = Driver{}
	_ network.Watcher = Driver{}
)

// Name implements [network.Driver].
func (Driver) Name() string { return Name }

// Capabilities implements [network.Driver]. Kube-OVN joins clusters by their default VPC only, and a node reaches no pod
// whose address another pod on it may have.
func (Driver) Capabilities() network.Capabilities {
	return network.Capabilities{
		VPC: true, OverlappingCIDRs: true, ExplicitIP: true, SecurityGroups: true, DualStack: true,
		PodIPIsTenantIP: true, LeadsAPI: true, Probes: network.ProbesExecOnly,
	}
}

// EnsureNamespace implements [network.Driver]: tenants without a VPC live in the pool's default one, behind the flat
// driver's fence. Pods in a VPC have it as a second wall.
func (Driver) EnsureNamespace(ctx context.Context, pool network.Pool, namespace network.Namespace) error {
	return flat.Driver{}.EnsureNamespace(ctx, pool, namespace)
}

// WatchNamespaces implements [network.Watcher].
func (Driver) WatchNamespaces(ctx context.Context, pool network.Pool, changed func(names.ControlNamespace)) error {
	return flat.Driver{}.WatchNamespaces(ctx, pool, changed)
}

// EnsureVPC implements [network.Driver]: the Vpc and its SecurityGroups, then the way out, each when Kube-OVN has done the
// one before.
func (Driver) EnsureVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) (network.PoolBinding, error) {
	return custom.Bound(vpcs.Resource()+"/"+vpcName(vpc), network.ReasonVPCNotReady, ensureVPC(ctx, pool, vpc))
}

func ensureVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) error {
	if err := check(pool, vpc); err != nil {
		return err
	}
	external := ""
	if hasWayOut(vpc) {
		var err error
		if external, err = externalSubnet(ctx, pool); err != nil {
			return err
		}
	}
	var group []custom.Object
	for _, stage := range [][]custom.Object{append(securityGroups(vpc), router(vpc)), transit(vpc), wayOut(vpc, external)} {
		for _, want := range stage {
			if err := custom.Ensure(ctx, pool, want); err != nil {
				return err
			}
		}
		if err := custom.Settled(ctx, pool, stage); err != nil {
			return err
		}
		group = append(group, stage...)
	}
	return prune(ctx, pool, vpc, group)
}

// EnsureSubnet implements [network.Driver].
func (Driver) EnsureSubnet(ctx context.Context, pool network.Pool, vpc *network.VPC, s *network.Subnet) (network.PoolBinding, error) {
	return custom.Bound(subnets.Resource()+"/"+subnetName(s), network.ReasonSubnetNotReady, ensureSubnet(ctx, pool, vpc, s))
}

func ensureSubnet(ctx context.Context, pool network.Pool, vpc *network.VPC, s *network.Subnet) error {
	switch err := check(pool, vpc); {
	case err != nil:
		return err
	case s.VPC != vpc.UID:
		return fmt.Errorf("%w: subnet %s is not in VPC %s", network.ErrInvalid, s.Name, vpc.Name)
	case len(s.CIDRs) == 0 || len(s.Gateway) != len(s.CIDRs):
		return fmt.Errorf("%w: subnet %s has %d ranges and %d gateways", network.ErrInvalid, s.Name, len(s.CIDRs), len(s.Gateway))
	}
	got, err := vpcs.In(pool).Get(ctx, vpcName(vpc), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: VPC %s is not in pool %s yet", network.ErrNotReady, vpc.Name, pool.Name)
	case err != nil:
		return fmt.Errorf("read Vpc %s in pool %s: %w", vpcName(vpc), pool.Name, err)
	case !custom.Owned(pool, got, vpc.UID):
		return fmt.Errorf("Vpc %s in pool %s: %w", vpcName(vpc), pool.Name, network.ErrForeign)
	}
	want := subnet(vpc, s)
	if err := custom.Ensure(ctx, pool, want); err != nil {
		return err
	}
	return custom.Settled(ctx, pool, []custom.Object{want})
}

// check refuses what cannot be written in any pool.
func check(pool network.Pool, vpc *network.VPC) error {
	switch {
	case pool.ControlUID == "" || pool.Dynamic == nil:
		return fmt.Errorf("%w: pool %s has no identity or no client", network.ErrInvalid, pool.Name)
	case vpc.UID == "" || vpc.Tenant == "" || len(vpc.CIDRs) == 0:
		return fmt.Errorf("%w: VPC %s has no UID, no tenant or no range", network.ErrInvalid, vpc.Name)
	}
	for _, prefix := range vpc.CIDRs {
		for _, ours := range []netip.Prefix{transit4, transit6, apiRange4, apiRange6} {
			if prefix.Overlaps(ours) {
				return fmt.Errorf("%w: range %s of VPC %s overlaps %s, which the platform uses in every VPC", network.ErrInvalid, prefix, vpc.Name, ours)
			}
		}
	}
	return nil
}

// ReleasePod implements [network.Driver]: Kube-OVN gives back what a pod held when the pod is gone.
func (Driver) ReleasePod(context.Context, network.Pool, network.PodKey) error { return nil }

// DeleteSubnet implements [network.Driver].
func (Driver) DeleteSubnet(ctx context.Context, pool network.Pool, s *network.Subnet) error {
	got, err := custom.Find(ctx, pool, subnets, subnetName(s), s.UID)
	if err != nil || got == nil {
		return err
	}
	if using(got) {
		return fmt.Errorf("%w: pods have addresses of Subnet %s in pool %s", network.ErrInUse, got.GetName(), pool.Name)
	}
	if err := custom.Remove(ctx, pool, subnets, got); err != nil {
		return err
	}
	return custom.Gone(ctx, pool, subnets, got)
}

// DeleteVPC implements [network.Driver]: the way out first, then the Vpc, then the SecurityGroups.
func (Driver) DeleteVPC(ctx context.Context, pool network.Pool, vpc *network.VPC) error {
	return deleteVPC(ctx, pool, vpc.UID, vpc.Name)
}

func deleteVPC(ctx context.Context, pool network.Pool, uid types.UID, name string) error {
	if pool.ControlUID == "" || pool.Dynamic == nil {
		return fmt.Errorf("%w: pool %s has no identity or no client", network.ErrInvalid, pool.Name)
	}
	list, err := custom.Ours(ctx, pool, subnets, uid)
	if err != nil {
		return err
	}
	for i := range list {
		if types.UID(list[i].GetLabels()[names.LabelControlUID]) != uid {
			return fmt.Errorf("%w: VPC %s has Subnet %s in pool %s", network.ErrInUse, name, list[i].GetName(), pool.Name)
		}
	}
	for _, k := range inOrder {
		list, err := custom.Ours(ctx, pool, k, uid)
		if err != nil {
			return err
		}
		for i := range list {
			if err := custom.Remove(ctx, pool, k, &list[i]); err != nil {
				return err
			}
		}
		for i := range list {
			if err := custom.Gone(ctx, pool, k, &list[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sweep implements [network.Driver].
func (Driver) Sweep(ctx context.Context, pool network.Pool, live network.LiveSet) error {
	if pool.ControlUID == "" || pool.Dynamic == nil {
		return fmt.Errorf("%w: sweep pool %s without an identity", network.ErrInvalid, pool.Name)
	}
	problems := []error{flat.Driver{}.Sweep(ctx, pool, live)}
	list, err := custom.Ours(ctx, pool, subnets, "")
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	for i := range list {
		s := &list[i]
		own, of := types.UID(s.GetLabels()[names.LabelControlUID]), types.UID(s.GetLabels()[custom.LabelVPC])
		if own == of || live.Subnets[own] || !s.GetCreationTimestamp().Time.Before(live.AsOf) {
			continue // the VPC's own, or not an orphan
		}
		if using(s) {
			problems = append(problems, fmt.Errorf("%w: pods have addresses of orphaned Subnet %s in pool %s", network.ErrInUse, s.GetName(), pool.Name))
			continue
		}
		err := custom.Remove(ctx, pool, subnets, s)
		if err == nil {
			err = custom.Gone(ctx, pool, subnets, s)
		}
		problems = append(problems, err)
	}
	// Whatever of a VPC is there tells that the VPC was: a sweep may have been cut short after the Vpc.
	orphans := map[types.UID]string{}
	young := map[types.UID]bool{}
	for _, k := range inOrder {
		list, err := custom.Ours(ctx, pool, k, "")
		if err != nil {
			return errors.Join(append(problems, err)...)
		}
		for i := range list {
			uid := types.UID(list[i].GetLabels()[custom.LabelVPC])
			if live.VPCs[uid] {
				continue
			}
			orphans[uid] = list[i].GetName()
			young[uid] = young[uid] || !list[i].GetCreationTimestamp().Time.Before(live.AsOf)
		}
	}
	for uid, name := range orphans {
		if !young[uid] {
			problems = append(problems, deleteVPC(ctx, pool, uid, name))
		}
	}
	return errors.Join(problems...)
}
