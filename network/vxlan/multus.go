package vxlan

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// attachment is the NetworkAttachmentDefinition of our plugin, in [state.Namespace]: charts/vivarium-pool has it.
const attachment = "vivarium-vpc"

// keyDefault is the annotation by which Multus gives a pod another network than the pool's.
const keyDefault = "v1.multus-cni.io/default-network"

// Multus is the driver for pools whose network plugin is Multus: pods of a VPC are plugged in by the driver vxlan's plugin, as
// the network that Multus puts in the place of the pool's own. Pods of tenants without a VPC are in the pool's. Multus passes
// no annotations on, so what the plugin goes by is in what Multus is asked for.
type Multus struct{ Driver }

var (
	_ network.Driver   = Multus{}
	_ network.Watcher  = Multus{}
	_ network.Mesher   = Multus{}
	_ network.Filterer = Multus{}
	_ network.Servicer = Multus{}
)

// Name implements [network.Driver].
func (Multus) Name() string { return v1alpha1.DriverMultus }

// selection is what keyDefault holds one of.
type selection struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Args      map[string]string `json:"cni-args"`
}

// BindPod implements [network.Binder].
func (m Multus) BindPod(in network.PodBinding) (network.PodMutation, error) {
	mutation, err := m.Driver.BindPod(in)
	if err != nil {
		return network.PodMutation{}, err
	}
	binding := network.Binding{Tenant: in.Tenant, Driver: m.Name()}
	if in.VPC == nil {
		mutation.Annotations[network.BindingAnnotation] = binding.String()
		return mutation, nil
	}
	binding.VPC, binding.Subnet = in.VPC.UID, in.Subnet.UID
	mutation.Annotations[network.BindingAnnotation] = binding.String()
	asked, err := json.Marshal([]selection{{attachment, state.Namespace, map[string]string{
		network.BindingAnnotation: binding.String(), state.PlaceAnnotation: mutation.Annotations[state.PlaceAnnotation],
	}}})
	if err != nil {
		return network.PodMutation{}, fmt.Errorf("%w: %w", network.ErrInvalid, err)
	}
	mutation.Annotations[keyDefault] = string(asked)
	return mutation, nil
}

// ObservePod implements [network.Binder]. A pod that Multus put into the pool's network has no address of ours.
func (m Multus) ObservePod(poolPod *corev1.Pod) (network.PodNetworkStatus, error) {
	return observe(poolPod, m.Name())
}
