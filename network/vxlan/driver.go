// Package vxlan is the driver for pools that have no network plugin which knows VPCs: the platform's own. What it is told
// it writes into ConfigMaps of the pool; an agent on every node of the pool makes it true there, and a network plugin of
// ours plugs pods in. README.md says what a pool needs for it.
//
// The driver must never write anything else in a pool than those ConfigMaps and the fence of package flat, and never bind
// a pod to a VPC without addresses that were chosen for it. Start at [Driver]; the nodes' half starts at package agent.
package vxlan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/flat"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// Name is the driver's name.
const Name = "vxlan"

// Driver is the vxlan driver. It has no state; the zero value is ready. Pods of tenants without a VPC are in the pool's flat
// network, fenced as [flat.Driver] does.
type Driver struct{ flat.Driver }

var (
	_ network.Driver   = Driver{}
	_ network.Watcher  = Driver{}
	_ network.Mesher   = Driver{}
	_ network.Filterer = Driver{}
	_ network.Servicer = Driver{}
)

// Name implements [network.Driver].
func (Driver) Name() string { return Name }

// Capabilities implements [network.Driver]. Enforced is false for the sake of the tenants without a VPC.
func (Driver) Capabilities() network.Capabilities {
	return network.Capabilities{
		VPC: true, OverlappingCIDRs: true, CrossPool: true, ExplicitIP: true, SecurityGroups: true, NetworkPolicies: true, Services: true,
		Bandwidth: true, DualStack: true, LeadsAPI: true, Probes: network.ProbesAll,
	}
}

// OwnedKeys implements [network.Binder].
func (Driver) OwnedKeys(key string) bool {
	return key == network.BindingAnnotation || strings.HasPrefix(key, state.Domain+"/") || netkeys.Forbidden(key)
}

// subnetLabel is on every pool pod that is in a VPC: the UID of its subnet.
const subnetLabel = state.Domain + "/subnet"

// BindPod implements [network.Binder]. The plugin on the node reads the annotations; nothing else tells it where a pod
// belongs.
func (Driver) BindPod(in network.PodBinding) (network.PodMutation, error) {
	if err := in.Validate(); err != nil {
		return network.PodMutation{}, err
	}
	binding := network.Binding{Tenant: in.Tenant, Driver: Name}
	if in.VPC == nil {
		if in.MAC != "" {
			return network.PodMutation{}, fmt.Errorf("%w: a hardware address without a subnet", network.ErrInvalid)
		}
		return network.PodMutation{Annotations: map[string]string{network.BindingAnnotation: binding.String()}}, nil
	}
	subnet := subnetState(in.Subnet)
	vpc := vpcState(in.VPC)
	vpc.Subnets = []state.Subnet{subnet}
	if err := vpc.Validate(); err != nil {
		return network.PodMutation{}, fmt.Errorf("%w: %w", network.ErrInvalid, err)
	}
	if err := subnet.Validate(in.IPs, in.MAC); err != nil {
		return network.PodMutation{}, fmt.Errorf("%w: %w", network.ErrInvalid, err)
	}
	place, err := json.Marshal(state.Place{Pod: in.Pod.UID, IPs: in.IPs, MAC: in.MAC, Groups: in.SecurityGroups, Rates: in.Bandwidth})
	if err != nil {
		return network.PodMutation{}, fmt.Errorf("%w: %w", network.ErrInvalid, err)
	}
	binding.VPC, binding.Subnet = in.VPC.UID, in.Subnet.UID
	return network.PodMutation{
		Annotations: map[string]string{network.BindingAnnotation: binding.String(), state.PlaceAnnotation: string(place)},
		Labels:      map[string]string{subnetLabel: string(in.Subnet.UID)},
	}, nil
}

// ObservePod implements [network.Binder]. A pod of a VPC has in its pool the address by which its node alone knows it:
// that it is one of those shows that our plugin, and no other, plugged it in.
func (Driver) ObservePod(poolPod *corev1.Pod) (network.PodNetworkStatus, error) {
	return observe(poolPod, Name)
}

func observe(poolPod *corev1.Pod, driver string) (network.PodNetworkStatus, error) {
	binding, err := network.BindingOf(poolPod, driver)
	if err != nil {
		return network.PodNetworkStatus{}, err
	}
	status, err := network.ObservePodIPs(poolPod)
	if err != nil {
		return network.PodNetworkStatus{}, err
	}
	for _, ip := range status.IPs {
		if state.IsInfra(ip) != (binding.VPC != "") {
			return network.PodNetworkStatus{}, fmt.Errorf("%w: it has address %s in its pool", network.ErrBindingMismatch, ip)
		}
	}
	if binding.VPC == "" {
		return status, nil
	}
	var place state.Place
	if err := json.Unmarshal([]byte(poolPod.Annotations[state.PlaceAnnotation]), &place); err != nil || len(place.IPs) == 0 {
		return network.PodNetworkStatus{}, fmt.Errorf("%w: annotation %s is %q", network.ErrBindingMismatch, state.PlaceAnnotation, poolPod.Annotations[state.PlaceAnnotation])
	}
	for _, ip := range place.IPs {
		if !ip.IsValid() {
			return network.PodNetworkStatus{}, fmt.Errorf("%w: annotation %s names no address", network.ErrBindingMismatch, state.PlaceAnnotation)
		}
	}
	if status.Ready {
		status.IPs = append([]netip.Addr(nil), place.IPs...)
	}
	return status, nil
}

func vpcState(vpc *network.VPC) state.VPC {
	return state.VPC{
		UID: vpc.UID, Name: vpc.Name, Tenant: vpc.Tenant, CIDRs: vpc.CIDRs, MTU: vpc.MTU,
		Egress: vpc.Egress != network.EgressNone, API: vpc.API, Groups: groupState(vpc.SecurityGroups),
	}
}

// groupState gives security groups as policies for the pods that are in them.
func groupState(groups []network.SecurityGroup) []network.Policy {
	var out []network.Policy
	for _, group := range groups {
		out = append(out, network.Policy{
			Pods: group.Name, Receive: true, Send: true, From: groupRules(group.Ingress), To: groupRules(group.Egress),
		})
	}
	return out
}

func groupRules(rules []network.SecurityRule) []network.PolicyRule {
	var out []network.PolicyRule
	for _, rule := range rules {
		r := network.PolicyRule{Anyone: len(rule.CIDRs)+len(rule.Groups) == 0, Sets: rule.Groups}
		for _, cidr := range rule.CIDRs {
			r.Blocks = append(r.Blocks, network.PolicyBlock{CIDR: cidr})
		}
		for _, ports := range rule.Ports {
			r.Ports = append(r.Ports, network.PolicyPort{Protocol: rule.Protocol, First: ports.First, Last: ports.Last})
		}
		if len(rule.Ports) == 0 && rule.Protocol != "" {
			r.Ports = []network.PolicyPort{{Protocol: rule.Protocol}}
		}
		out = append(out, r)
	}
	return out
}

func subnetState(subnet *network.Subnet) state.Subnet {
	return state.Subnet{UID: subnet.UID, Name: subnet.Name, VNI: subnet.VNI, CIDRs: subnet.CIDRs, Gateway: subnet.Gateway}
}
