package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FinalizerNetwork is on a VPC and on a Subnet from its creation. The network controller removes it when nothing uses the
// object any more and nothing of it is left in any pool.
const FinalizerNetwork = "vivarium.io/network"

// Condition types of a VPC and of a Subnet, set by the network controller.
const (
	// VPCReady is true when every pool that the VPC has been asked for in can have its pods.
	VPCReady = "Ready"
	// SubnetReady is true when pods can be put in the subnet in every pool that it is meant for.
	SubnetReady = "Ready"
	// SubnetExhausted is true while no address of the subnet is free.
	SubnetExhausted = "Exhausted"
)

// VPC is the private network of one tenant. Its pods reach each other in every pool and nobody else's, though addresses
// of different VPCs may be equal. Its name is the tenant's ID, a dash and a DNS label; the tenant sees the label alone.
//
// +genclient
// +genclient:nonNamespaced
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type VPC struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the operator wants.
	Spec VPCSpec `json:"spec,omitempty"`
	// status is what the platform reports.
	Status VPCStatus `json:"status,omitempty"`
}

// EgressMode says how pods of a VPC reach what is outside of it.
//
// +enum
type EgressMode string

// The egress modes.
const (
	// EgressSharedNAT lets pods open connections to the outside under an address of their node.
	EgressSharedNAT EgressMode = "SharedNAT"
	// EgressNone lets pods reach nothing but their VPC and the tenant's own API.
	EgressNone EgressMode = "None"
)

// EgressModes gives all there are, the default first.
func EgressModes() []EgressMode { return []EgressMode{EgressSharedNAT, EgressNone} }

// VPCSpec is what the operator wants of a VPC.
type VPCSpec struct {
	// tenant is the ID of the only tenant whose pods may join. Required; immutable.
	Tenant string `json:"tenant"`
	// cidrs hold every subnet's, 1 to 4 of IPv4 (/16 to /28) or IPv6 (/48 to /120), written with no bit set beyond the
	// prefix. More can be appended; what is there stays. Required.
	// +listType=atomic
	CIDRs []string `json:"cidrs"`
	// mtu is the largest packet of the pods' interfaces, 1280 to 9000. Default 0: the driver's own.
	MTU int32 `json:"mtu,omitempty"`
	// egress is SharedNAT (the default) or None.
	Egress EgressMode `json:"egress,omitempty"`
	// securityGroups are filters that pods of the VPC can ask for by name. A pod that is in none has no filter; what a pod
	// may receive or send is the sum of its groups' rules. Default: none. They need a driver that can filter.
	// +listType=map
	// +listMapKey=name
	SecurityGroups []SecurityGroup `json:"securityGroups,omitempty"`
	// providerID names the network that the VPC is at a provider of pools, as in vpc-0abc, where it was made already: 1 to 128
	// letters, digits, dots, dashes and underscores. Pools of drivers that map to a provider need it. It can be set once.
	// Default: none.
	ProviderID string `json:"providerID,omitempty"`
}

// SecurityGroup is a named filter. Answers to what is allowed are always allowed.
type SecurityGroup struct {
	// name is a DNS label, unique in the VPC.
	Name string `json:"name"`
	// providerID names the group at a provider of pools, where it was made already and has its rules: such a group has none
	// here. Spelled as the VPC's. Default: none.
	ProviderID string `json:"providerID,omitempty"`
	// ingress are the rules for what the group's pods may receive; without any they receive nothing.
	// +listType=atomic
	Ingress []SecurityRule `json:"ingress,omitempty"`
	// egress are the rules for what the group's pods may send; without any they send nothing.
	// +listType=atomic
	Egress []SecurityRule `json:"egress,omitempty"`
}

// Protocol is what a rule of a security group is about.
//
// +enum
type Protocol string

// The protocols.
const (
	ProtocolTCP  Protocol = "TCP"
	ProtocolUDP  Protocol = "UDP"
	ProtocolICMP Protocol = "ICMP"
)

// Protocols gives all there are.
func Protocols() []Protocol { return []Protocol{ProtocolTCP, ProtocolUDP, ProtocolICMP} }

// SecurityRule allows something.
type SecurityRule struct {
	// protocol is TCP, UDP or ICMP (which is ICMPv6 too). Default: everything.
	Protocol Protocol `json:"protocol,omitempty"`
	// ports are numbers or ranges, as in 443 or 8000-8099, of the receiver. Default: all. For TCP and UDP alone.
	// +listType=atomic
	Ports []string `json:"ports,omitempty"`
	// cidrs are the other ends that are meant, by address. Without cidrs and groups, all are.
	// +listType=atomic
	CIDRs []string `json:"cidrs,omitempty"`
	// groups are the other ends that are meant, as members of security groups of this VPC.
	// +listType=atomic
	Groups []string `json:"groups,omitempty"`
}

// PoolBinding says how a VPC or a Subnet fares in one pool.
type PoolBinding struct {
	// pool is the ResourcePool's name.
	Pool string `json:"pool"`
	// ready is true when pods can be put in it there.
	Ready bool `json:"ready"`
	// reason says in one word why not.
	Reason string `json:"reason,omitempty"`
	// message says why not.
	Message string `json:"message,omitempty"`
}

// VPCStatus is what the platform reports of a VPC.
type VPCStatus struct {
	// observedGeneration is the generation of spec that the rest of status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions are Ready.
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
	// pools say how the VPC fares in each pool that it was asked for in.
	// +listType=map
	// +listMapKey=pool
	Pools []PoolBinding `json:"pools,omitempty"`
}

// VPCList is a list of VPCs.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type VPCList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the VPCs.
	Items []VPC `json:"items"`
}
