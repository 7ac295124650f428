package kubeovn

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
)

// Annotations of pods that Kube-OVN reads, and writes back once it has acted on them.
const (
	keyDomain       = "ovn.kubernetes.io/"
	keySwitch       = keyDomain + "logical_switch"
	keyAddress      = keyDomain + "ip_address"
	keyMAC          = keyDomain + "mac_address"
	keyGroups       = keyDomain + "security_groups"
	keyPortSecurity = keyDomain + "port_security"
	keyAllocated    = keyDomain + "allocated"
	keyRouter       = keyDomain + "logical_router"
	annotationPlan  = netkeys.Domain + "/planned"
)

// plan is what a pod was bound to, in an annotation of its own: Kube-OVN overwrites those that it reads with what it did.
// Its fields are the values of Kube-OVN's annotations, but that the addresses are in the order in which they were chosen.
type plan struct{ router, logicalSwitch, addresses, mac string }

func (p plan) String() string {
	return strings.Join([]string{p.router, p.logicalSwitch, p.addresses, p.mac}, ";")
}

// parsePlan is the inverse of [plan.String].
func parsePlan(s string) (plan, bool) {
	fields := strings.Split(s, ";")
	if len(fields) != 4 || slices.Contains(fields, "") {
		return plan{}, false
	}
	return plan{fields[0], fields[1], fields[2], fields[3]}, true
}

// BindPod implements [network.Binder].
func (Driver) BindPod(in network.PodBinding) (network.PodMutation, error) {
	if err := in.Validate(); err != nil {
		return network.PodMutation{}, err
	}
	binding := network.Binding{Tenant: in.Tenant, Driver: Name}
	if in.VPC == nil {
		if in.MAC != "" {
			return network.PodMutation{}, fmt.Errorf("%w: flat networks have no chosen addresses", network.ErrCapability)
		}
		return network.PodMutation{Annotations: map[string]string{network.BindingAnnotation: binding.String()}}, nil
	}
	if len(in.IPs) != len(in.Subnet.CIDRs) || in.MAC == "" {
		return network.PodMutation{}, fmt.Errorf("%w: pod %s/%s needs an address for each range of subnet %s and a MAC", network.ErrInvalid, in.Pod.Namespace, in.Pod.Name, in.Subnet.Name)
	}
	for _, cidr := range in.Subnet.CIDRs {
		if !slices.ContainsFunc(in.IPs, cidr.Contains) {
			return network.PodMutation{}, fmt.Errorf("%w: pod %s/%s has no address in %s", network.ErrInvalid, in.Pod.Namespace, in.Pod.Name, cidr)
		}
	}
	if !in.Bandwidth.None() {
		return network.PodMutation{}, fmt.Errorf("%w: bandwidth", network.ErrCapability)
	}
	binding.VPC, binding.Subnet = in.VPC.UID, in.Subnet.UID
	planned := plan{vpcName(in.VPC), subnetName(in.Subnet), strings.Join(words(in.IPs), ","), in.MAC}
	annotations := map[string]string{
		network.BindingAnnotation: binding.String(),
		annotationPlan:            planned.String(),
		keySwitch:                 planned.logicalSwitch,
		keyAddress:                sorted(in.IPs), // Kube-OVN wants IPv4 first
		keyMAC:                    planned.mac,
		// The port takes and sends nothing but under these addresses.
		keyPortSecurity: "true",
	}
	if len(in.SecurityGroups) > 0 {
		var names []string
		for _, group := range in.SecurityGroups {
			names = append(names, groupName(in.VPC, group))
		}
		annotations[keyGroups] = strings.Join(names, ",")
	}
	return network.PodMutation{Annotations: annotations}, nil
}

// ObservePod implements [network.Binder]: what Kube-OVN wrote back and what the node reports must both be the plan.
func (Driver) ObservePod(poolPod *corev1.Pod) (network.PodNetworkStatus, error) {
	binding, err := network.BindingOf(poolPod, Name)
	if err != nil {
		return network.PodNetworkStatus{}, err
	}
	status, err := network.ObservePodIPs(poolPod)
	if err != nil || binding.VPC == "" {
		return status, err
	}
	planned, ok := parsePlan(poolPod.Annotations[annotationPlan])
	if !ok {
		return network.PodNetworkStatus{}, fmt.Errorf("%w: annotation %s is %q", network.ErrBindingMismatch, annotationPlan, poolPod.Annotations[annotationPlan])
	}
	var ips []netip.Addr
	for text := range strings.SplitSeq(planned.addresses, ",") {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return network.PodNetworkStatus{}, fmt.Errorf("%w: annotation %s has address %q", network.ErrBindingMismatch, annotationPlan, text)
		}
		ips = append(ips, ip)
	}
	allocated := poolPod.Annotations[keyAllocated] == "true"
	done := map[string]string{keySwitch: planned.logicalSwitch, keyAddress: sorted(ips), keyMAC: planned.mac}
	if allocated {
		done[keyRouter] = planned.router
	}
	for _, key := range slices.Sorted(maps.Keys(done)) {
		if got := poolPod.Annotations[key]; got != done[key] {
			return network.PodNetworkStatus{}, fmt.Errorf("%w: annotation %s is %q, planned was %q", network.ErrBindingMismatch, key, got, done[key])
		}
	}
	if !status.Ready {
		return status, nil
	}
	if !allocated {
		return network.PodNetworkStatus{}, fmt.Errorf("%w: the pod has addresses that Kube-OVN did not give it", network.ErrBindingMismatch)
	}
	if got := sorted(status.IPs); got != sorted(ips) {
		return network.PodNetworkStatus{}, fmt.Errorf("%w: the pod has %s, planned was %s", network.ErrBindingMismatch, got, planned.addresses)
	}
	// The tenant sees them in its subnet's order, whichever family the pool puts first.
	status.IPs = ips
	return status, nil
}

// sorted spells addresses as Kube-OVN does.
func sorted(ips []netip.Addr) string {
	return strings.Join(words(slices.SortedFunc(slices.Values(ips), netip.Addr.Compare)), ",")
}

// OwnedKeys implements [network.Binder].
func (Driver) OwnedKeys(key string) bool {
	return key == network.BindingAnnotation || netkeys.Forbidden(key)
}
