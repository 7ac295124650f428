package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Subnet is a part of a VPC that pods are put in. Its name is the tenant's ID, a dash and a DNS label; the tenant sees the
// label alone.
//
// +genclient
// +genclient:nonNamespaced
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type Subnet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the operator wants.
	Spec SubnetSpec `json:"spec,omitempty"`
	// status is what the platform reports.
	Status SubnetStatus `json:"status,omitempty"`
}

// SubnetSpec is what the operator wants of a subnet.
type SubnetSpec struct {
	// vpc is the name of the VPC that the subnet is a part of. Required; immutable.
	VPC string `json:"vpc"`
	// cidrs has one prefix of IPv4, of IPv6 or of each, within the VPC's and apart from every other subnet's. Required;
	// immutable.
	// +listType=atomic
	CIDRs []string `json:"cidrs"`
	// pools are the ResourcePools whose pods may join. It may only grow. Default: every pool.
	// +listType=set
	Pools []string `json:"pools,omitempty"`
	// zone limits the subnet to the pools of one zone. Immutable. Default: every zone.
	Zone string `json:"zone,omitempty"`
	// gateway has the address of the router for each of cidrs. Immutable. Default: the first address of each.
	// +listType=atomic
	Gateway []string `json:"gateway,omitempty"`
	// reserved are addresses, ranges as in 10.0.0.10-10.0.0.19, or prefixes that no pod is given. Default: none. The first
	// address of a prefix, the gateway and the broadcast address are never given to pods.
	// +listType=atomic
	Reserved []string `json:"reserved,omitempty"`
	// providerID names the subnet at a provider of pools, as in vsw-0abc, where it was made already. Spelled as the VPC's. Pools
	// of drivers that map to a provider need it. It can be set once. Default: none.
	ProviderID string `json:"providerID,omitempty"`
}

// SubnetStatus is what the platform reports of a subnet.
type SubnetStatus struct {
	// observedGeneration is the generation of spec that the rest of status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// vni is the number of the subnet's segment, unique among all subnets of all tenants; 1 to 16777215.
	VNI uint32 `json:"vni,omitempty"`
	// total is how many pods the subnet has addresses for.
	Total int64 `json:"total,omitempty"`
	// used is how many of them are taken, those in quarantine included.
	Used int64 `json:"used,omitempty"`
	// conditions are Ready.
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
	// pools say how the subnet fares in each pool that it is meant for.
	// +listType=map
	// +listMapKey=pool
	Pools []PoolBinding `json:"pools,omitempty"`
}

// SubnetList is a list of Subnets.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type SubnetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the Subnets.
	Items []Subnet `json:"items"`
}

// Serves reports whether the subnet's pods may be in a pool.
func (s *Subnet) Serves(pool *ResourcePool) bool {
	return (len(s.Spec.Pools) == 0 || slices.Contains(s.Spec.Pools, pool.Name)) && (s.Spec.Zone == "" || s.Spec.Zone == pool.Spec.Location.Zone)
}
