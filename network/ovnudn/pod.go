package ovnudn

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
)

const (
	// keyAsk is the annotation by which a pod asks OVN-Kubernetes for addresses in its primary network.
	keyAsk = "v1.multus-cni.io/default-network"
	// keyGot is where OVN-Kubernetes writes what networks a pod is in.
	keyGot = "k8s.ovn.org/pod-networks"
	// annotationPlan holds what a pod was bound to: the network's name and the addresses, which nobody may change.
	annotationPlan = netkeys.Domain + "/planned"
)

// request is what keyAsk holds one of.
type request struct {
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	IPs       []string `json:"ips"`
}

// attachment is what keyGot holds for each network.
type attachment struct {
	Addresses []string `json:"ip_addresses"`
	Role      string   `json:"role"`
}

// BindPod implements [network.Binder]. The MAC is left to OVN-Kubernetes, which makes it of the address: ours are unique in a
// subnet, and here all subnets of a VPC are one segment.
func (Driver) BindPod(in network.PodBinding) (network.PodMutation, error) {
	if err := in.Validate(); err != nil {
		return network.PodMutation{}, err
	}
	switch {
	case in.VPC == nil:
		return network.PodMutation{}, fmt.Errorf("%w: a pool with network driver %s is for tenants with a VPC", network.ErrCapability, Name)
	case len(in.SecurityGroups) > 0:
		return network.PodMutation{}, fmt.Errorf("%w: security groups", network.ErrCapability)
	case !in.Bandwidth.None():
		return network.PodMutation{}, fmt.Errorf("%w: bandwidth", network.ErrCapability)
	case len(in.IPs) != len(in.VPC.CIDRs):
		return network.PodMutation{}, fmt.Errorf("%w: pod %s/%s needs an address for each range of VPC %s", network.ErrInvalid, in.Pod.Namespace, in.Pod.Name, in.VPC.Name)
	}
	asked := request{Name: defaultNetwork, Namespace: attachments.Namespace}
	for _, cidr := range sorted(in.VPC.CIDRs) {
		i := slices.IndexFunc(in.IPs, cidr.Contains)
		if i < 0 {
			return network.PodMutation{}, fmt.Errorf("%w: pod %s/%s has no address in %s", network.ErrInvalid, in.Pod.Namespace, in.Pod.Name, cidr)
		}
		asked.IPs = append(asked.IPs, netip.PrefixFrom(in.IPs[i], cidr.Bits()).String())
	}
	ask, err := json.Marshal([]request{asked})
	if err != nil {
		return network.PodMutation{}, fmt.Errorf("spell the addresses of pod %s/%s: %w", in.Pod.Namespace, in.Pod.Name, err)
	}
	binding := network.Binding{Tenant: in.Tenant, Driver: Name, VPC: in.VPC.UID, Subnet: in.Subnet.UID}
	return network.PodMutation{
		Annotations: map[string]string{
			network.BindingAnnotation: binding.String(),
			annotationPlan:            networkName(in.VPC) + ";" + strings.Join(words(in.IPs), ","),
			keyAsk:                    string(ask),
		},
		Labels: map[string]string{labelSubnet: string(in.Subnet.UID)},
	}, nil
}

// ObservePod implements [network.Binder]: the network of which OVN-Kubernetes says that it is the pod's primary one must be
// the planned one, with the planned addresses. Those in the pod's status are of the pool's default network.
func (Driver) ObservePod(poolPod *corev1.Pod) (network.PodNetworkStatus, error) {
	binding, err := network.BindingOf(poolPod, Name)
	if err != nil {
		return network.PodNetworkStatus{}, err
	}
	mismatch := func(format string, args ...any) (network.PodNetworkStatus, error) {
		return network.PodNetworkStatus{}, fmt.Errorf("%w: "+format, append([]any{network.ErrBindingMismatch}, args...)...)
	}
	if binding.VPC == "" {
		return mismatch("bound to no VPC")
	}
	planned := poolPod.Annotations[annotationPlan]
	name, texts, _ := strings.Cut(planned, ";")
	var ips []netip.Addr
	for text := range strings.SplitSeq(texts, ",") {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return mismatch("annotation %s is %q", annotationPlan, planned)
		}
		ips = append(ips, ip)
	}
	// Each network is written there when it is made, so one may be missing until the node reports addresses.
	there := false
	if got, ok := poolPod.Annotations[keyGot]; ok {
		var networks map[string]attachment
		if err := json.Unmarshal([]byte(got), &networks); err != nil {
			return mismatch("annotation %s is %q", keyGot, got)
		}
		for at, a := range networks {
			switch {
			case at == poolPod.Namespace+"/"+name && a.Role == "primary":
				if there = true; !same(a.Addresses, ips) {
					return mismatch("the pod has %v, planned was %s", a.Addresses, texts)
				}
			case a.Role != "infrastructure-locked":
				return mismatch("the pod is in network %s (%s)", at, a.Role)
			}
		}
	}
	status, err := network.ObservePodIPs(poolPod)
	switch {
	case err != nil || !status.Ready:
		return status, err
	case !there:
		return mismatch("the pod has an address of the pool and is not in network %s", name)
	}
	status.IPs = ips
	return status, nil
}

// same compares addresses with their prefixes' lengths against the plan, in any order.
func same(got []string, want []netip.Addr) bool {
	var ips []netip.Addr
	for _, text := range got {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return false
		}
		ips = append(ips, prefix.Addr())
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	return slices.Equal(ips, slices.SortedFunc(slices.Values(want), netip.Addr.Compare))
}

// OwnedKeys implements [network.Binder].
func (Driver) OwnedKeys(key string) bool {
	return key == network.BindingAnnotation || netkeys.Forbidden(key)
}
