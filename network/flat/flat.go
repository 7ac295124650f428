// Package flat is the driver for tenants that share the pool's own network: pods get the pool's addresses, and a
// NetworkPolicy per tenant namespace fences tenants from each other where the pool's network plugin enforces such
// policies. README.md says what that is worth.
//
// The package must never write anything but the fence. Start at [Driver].
package flat

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
)

// Name is the driver's name.
const Name = "flat"

// Driver is the flat driver. It has no state; the zero value is ready.
type Driver struct{}

var (
	_ network.Driver  = Driver{}
	_ network.Watcher = Driver{}
)

// Name implements [network.Driver].
func (Driver) Name() string { return Name }

// Capabilities implements [network.Driver].
func (Driver) Capabilities() network.Capabilities {
	return network.Capabilities{DualStack: true, PodIPIsTenantIP: true, Probes: network.ProbesAll}
}

// BindPod implements [network.Binder]: the pod is bound to the flat network, explicitly.
func (Driver) BindPod(in network.PodBinding) (network.PodMutation, error) {
	if err := in.Validate(); err != nil {
		return network.PodMutation{}, err
	}
	if in.VPC != nil || in.MAC != "" {
		return network.PodMutation{}, fmt.Errorf("%w: flat networks have no VPCs, subnets or chosen addresses", network.ErrCapability)
	}
	binding := network.Binding{Tenant: in.Tenant, Driver: Name}
	return network.PodMutation{Annotations: map[string]string{network.BindingAnnotation: binding.String()}}, nil
}

// ObservePod implements [network.Binder]: the tenant sees the pool's addresses.
func (Driver) ObservePod(poolPod *corev1.Pod) (network.PodNetworkStatus, error) {
	if _, err := network.BindingOf(poolPod, Name); err != nil {
		return network.PodNetworkStatus{}, err
	}
	return network.ObservePodIPs(poolPod)
}

// OwnedKeys implements [network.Binder].
func (Driver) OwnedKeys(key string) bool {
	return key == network.BindingAnnotation || netkeys.Forbidden(key)
}

// EnsureVPC implements [network.Driver]; there are none.
func (Driver) EnsureVPC(context.Context, network.Pool, *network.VPC) (network.PoolBinding, error) {
	return noVPC()
}

// EnsureSubnet implements [network.Driver]; there are none.
func (Driver) EnsureSubnet(context.Context, network.Pool, *network.VPC, *network.Subnet) (network.PoolBinding, error) {
	return noVPC()
}

func noVPC() (network.PoolBinding, error) {
	err := fmt.Errorf("%w: flat networks have no VPCs and subnets", network.ErrCapability)
	return network.PoolBinding{Reason: network.ReasonFor(err), Message: err.Error()}, err
}

// ReleasePod implements [network.Driver]: a pod holds nothing outside itself.
func (Driver) ReleasePod(context.Context, network.Pool, network.PodKey) error { return nil }

// DeleteSubnet implements [network.Driver]: it never was.
func (Driver) DeleteSubnet(context.Context, network.Pool, *network.Subnet) error { return nil }

// DeleteVPC implements [network.Driver]: it never was.
func (Driver) DeleteVPC(context.Context, network.Pool, *network.VPC) error { return nil }
