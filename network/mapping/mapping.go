// Package mapping has the drivers for pools of clouds that read a pod's network from its annotations: an operator has made
// the network, its subnets and security groups at the provider already and says their IDs in spec.providerID; the driver
// puts them on pods and checks that a pod got an address of its subnet. One driver works for all, by a table for each
// provider. README.md says what each can do.
//
// The package must never make anything at a provider, nor claim what a provider alone knows. Start at [Drivers]; tables.go
// has the keys.
package mapping

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/flat"
)

// annotationPlan holds what addresses a pod may have, as prefixes.
const annotationPlan = netkeys.Domain + "/planned"

// Driver is the driver of one provider.
type Driver struct{ table table }

var (
	_ network.Driver  = Driver{}
	_ network.Watcher = Driver{}
)

// Drivers gives the driver of every provider.
func Drivers() []network.Driver {
	var all []network.Driver
	for _, t := range tables {
		all = append(all, Driver{t})
	}
	return all
}

// Name implements [network.Driver].
func (d Driver) Name() string { return d.table.name }

// Capabilities implements [network.Driver]. A provider's pods are where their cluster is: whether two VPCs may overlap,
// reach each other or span pools depends on what the operator made there, so none of it is claimed. Their probes are run
// beside them, by the provider.
func (d Driver) Capabilities() network.Capabilities {
	return network.Capabilities{
		VPC: true, ExplicitIP: d.table.address != "", SecurityGroups: d.table.groups != "",
		PodIPIsTenantIP: true, Probes: network.ProbesAll,
	}
}

// BindPod implements [network.Binder].
func (d Driver) BindPod(in network.PodBinding) (network.PodMutation, error) {
	if err := in.Validate(); err != nil {
		return network.PodMutation{}, err
	}
	binding := network.Binding{Tenant: in.Tenant, Driver: d.Name()}
	if in.VPC == nil {
		if in.MAC != "" {
			return network.PodMutation{}, fmt.Errorf("%w: flat networks have no chosen addresses", network.ErrCapability)
		}
		return network.PodMutation{Annotations: map[string]string{network.BindingAnnotation: binding.String()}}, nil
	}
	if err := d.check(in.VPC); err != nil {
		return network.PodMutation{}, err
	}
	if err := d.checkSubnet(in.Subnet); err != nil {
		return network.PodMutation{}, err
	}
	binding.VPC, binding.Subnet = in.VPC.UID, in.Subnet.UID
	planned := in.Subnet.CIDRs
	annotations := maps.Clone(d.table.annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	switch {
	case !in.Bandwidth.None():
		return network.PodMutation{}, fmt.Errorf("%w: bandwidth", network.ErrCapability)
	case d.table.address == "" && len(in.IPs) > 0:
		return network.PodMutation{}, fmt.Errorf("%w: %s gives pods their addresses itself", network.ErrCapability, d.Name())
	case d.table.address != "" && len(in.IPs) != len(in.Subnet.CIDRs):
		return network.PodMutation{}, fmt.Errorf("%w: pod %s/%s needs an address for each range of subnet %s", network.ErrInvalid, in.Pod.Namespace, in.Pod.Name, in.Subnet.Name)
	case d.table.address != "":
		annotations[d.table.address] = in.IPs[0].String()
		planned = []netip.Prefix{netip.PrefixFrom(in.IPs[0], in.IPs[0].BitLen())}
	}
	annotations[network.BindingAnnotation] = binding.String()
	annotations[annotationPlan] = spell(planned)
	annotations[d.table.subnet] = in.Subnet.ProviderID
	if len(in.SecurityGroups) > 0 {
		groups, err := d.groups(in)
		if err != nil {
			return network.PodMutation{}, err
		}
		annotations[d.table.groups] = groups
	}
	return network.PodMutation{Annotations: annotations, Labels: maps.Clone(d.table.labels)}, nil
}

// groups spells the provider's IDs of a pod's security groups.
func (d Driver) groups(in network.PodBinding) (string, error) {
	if d.table.groups == "" || len(in.SecurityGroups) > d.table.mostGroups {
		return "", fmt.Errorf("%w: a pod of %s is in %d security groups at most", network.ErrCapability, d.Name(), d.table.mostGroups)
	}
	var ids []string
	for _, name := range in.SecurityGroups {
		for _, group := range in.VPC.SecurityGroups {
			if group.Name == name {
				ids = append(ids, group.ProviderID)
			}
		}
	}
	return strings.Join(ids, ","), nil
}

// check refuses a VPC that does not exist at the provider, or asks for what only the provider's operator could give.
func (d Driver) check(vpc *network.VPC) error {
	switch {
	case vpc.ProviderID == "":
		return fmt.Errorf("%w: VPC %s has no spec.providerID, which says what network of %s it is", network.ErrInvalid, vpc.Name, d.Name())
	case vpc.Egress == network.EgressNone:
		return fmt.Errorf("%w: %s cannot keep pods of a VPC from what is outside: that is for whoever made the network there", network.ErrCapability, d.Name())
	}
	for _, group := range vpc.SecurityGroups {
		if group.ProviderID == "" || len(group.Ingress)+len(group.Egress) > 0 {
			return fmt.Errorf("%w: security group %s of VPC %s must name a group of %s by its providerID and have its rules there", network.ErrCapability, group.Name, vpc.Name, d.Name())
		}
	}
	return nil
}

func (d Driver) checkSubnet(s *network.Subnet) error {
	switch {
	case s.ProviderID == "":
		return fmt.Errorf("%w: subnet %s has no spec.providerID, which says what subnet of %s it is", network.ErrInvalid, s.Name, d.Name())
	case len(s.CIDRs) != 1 || !s.CIDRs[0].Addr().Is4():
		return fmt.Errorf("%w: subnets of %s have one range, of IPv4", network.ErrCapability, d.Name())
	}
	return nil
}

// spell writes prefixes as annotationPlan has them.
func spell(prefixes []netip.Prefix) string {
	var all []string
	for _, prefix := range prefixes {
		all = append(all, prefix.String())
	}
	return strings.Join(all, ",")
}

// ObservePod implements [network.Binder]: the pod has one address of each planned prefix, and no other.
func (d Driver) ObservePod(poolPod *corev1.Pod) (network.PodNetworkStatus, error) {
	binding, err := network.BindingOf(poolPod, d.Name())
	if err != nil {
		return network.PodNetworkStatus{}, err
	}
	status, err := network.ObservePodIPs(poolPod)
	if err != nil || binding.VPC == "" || !status.Ready {
		return status, err
	}
	var planned []netip.Prefix
	for text := range strings.SplitSeq(poolPod.Annotations[annotationPlan], ",") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return network.PodNetworkStatus{}, fmt.Errorf("%w: annotation %s is %q", network.ErrBindingMismatch, annotationPlan, poolPod.Annotations[annotationPlan])
		}
		planned = append(planned, prefix)
	}
	for _, prefix := range planned {
		if len(status.IPs) != len(planned) || !slices.ContainsFunc(status.IPs, prefix.Contains) {
			return network.PodNetworkStatus{}, fmt.Errorf("%w: the pod has %v, planned was %s", network.ErrBindingMismatch, status.IPs, spell(planned))
		}
	}
	return status, nil
}

// OwnedKeys implements [network.Binder].
func (Driver) OwnedKeys(key string) bool {
	return key == network.BindingAnnotation || netkeys.Forbidden(key)
}

// EnsureNamespace implements [network.Driver]: tenants without a VPC live in the pool's own network, behind the flat
// driver's fence.
func (Driver) EnsureNamespace(ctx context.Context, pool network.Pool, namespace network.Namespace) error {
	return flat.Driver{}.EnsureNamespace(ctx, pool, namespace)
}

// WatchNamespaces implements [network.Watcher].
func (Driver) WatchNamespaces(ctx context.Context, pool network.Pool, changed func(names.ControlNamespace)) error {
	return flat.Driver{}.WatchNamespaces(ctx, pool, changed)
}

// EnsureVPC implements [network.Driver]: the VPC says what it is at the provider, where it was made.
func (d Driver) EnsureVPC(_ context.Context, _ network.Pool, vpc *network.VPC) (network.PoolBinding, error) {
	return bound(vpc.ProviderID, d.check(vpc))
}

// EnsureSubnet implements [network.Driver].
func (d Driver) EnsureSubnet(_ context.Context, _ network.Pool, vpc *network.VPC, s *network.Subnet) (network.PoolBinding, error) {
	err := d.check(vpc)
	if err == nil && s.VPC != vpc.UID {
		err = fmt.Errorf("%w: subnet %s is not in VPC %s", network.ErrInvalid, s.Name, vpc.Name)
	}
	if err == nil {
		err = d.checkSubnet(s)
	}
	return bound(s.ProviderID, err)
}

func bound(ref string, err error) (network.PoolBinding, error) {
	if err != nil {
		return network.PoolBinding{Reason: network.ReasonFor(err), Message: err.Error()}, err
	}
	return network.PoolBinding{Ready: true, Reason: network.ReasonReady, Ref: ref}, nil
}

// ReleasePod implements [network.Driver]: the provider takes back what it gave.
func (Driver) ReleasePod(context.Context, network.Pool, network.PodKey) error { return nil }

// DeleteSubnet implements [network.Driver]: nothing of it is in the pool.
func (Driver) DeleteSubnet(context.Context, network.Pool, *network.Subnet) error { return nil }

// DeleteVPC implements [network.Driver]: nothing of it is in the pool.
func (Driver) DeleteVPC(context.Context, network.Pool, *network.VPC) error { return nil }

// Sweep implements [network.Driver].
func (Driver) Sweep(ctx context.Context, pool network.Pool, live network.LiveSet) error {
	return flat.Driver{}.Sweep(ctx, pool, live)
}
