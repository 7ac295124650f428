package v1alpha1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// IPBlock is the record of who has which address in a part of a subnet, and the lock on it: every write names the
// version that it read, so that of two writers one is refused. Its name is [IPBlockName]. The network controller alone
// writes it.
//
// An address is an index in its subnet: the address of each family is the first one of the family's prefix plus the
// index.
//
// +genclient
// +genclient:nonNamespaced
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type IPBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says which part of which subnet it is. Immutable.
	Spec IPBlockSpec `json:"spec,omitempty"`
	// status holds the allocations.
	Status IPBlockStatus `json:"status,omitempty"`
}

// IPBlockSpec says which part of which subnet a block is.
type IPBlockSpec struct {
	// subnet is the name of the Subnet.
	Subnet string `json:"subnet"`
	// subnetUID is the UID of the Subnet.
	SubnetUID types.UID `json:"subnetUID"`
	// vpcUID is the UID of the Subnet's VPC.
	VPCUID types.UID `json:"vpcUID"`
	// first is the block's first index.
	First uint32 `json:"first"`
	// size is how many indexes the block has, 1 to 256.
	Size uint32 `json:"size"`
}

// IPBlockStatus holds the allocations of a block.
type IPBlockStatus struct {
	// allocations are the indexes that are taken or in quarantine.
	// +listType=map
	// +listMapKey=index
	Allocations []IPAllocation `json:"allocations,omitempty"`
}

// IPAllocation says who has one index of a subnet.
type IPAllocation struct {
	// index is the address in the subnet, counted from the first of each prefix.
	Index uint32 `json:"index"`
	// podUID is the control pod's; nobody else's pod has the address.
	PodUID types.UID `json:"podUID"`
	// namespace is the control pod's.
	Namespace string `json:"namespace"`
	// name is the control pod's.
	Name string `json:"name"`
	// owner is the UID of the pod's StatefulSet, whose next pod of this name gets the same index; empty for other pods.
	Owner types.UID `json:"owner,omitempty"`
	// pool is where the pod is.
	Pool string `json:"pool"`
	// released is when the pod was seen to be gone; the index is in quarantine from then on.
	Released *metav1.Time `json:"released,omitempty"`
}

// IPBlockList is a list of IPBlocks.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type IPBlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the IPBlocks.
	Items []IPBlock `json:"items"`
}

// IPBlockName is the name of the block of a subnet that starts at an index: the UID, so that a new subnet never meets the
// records of an old one, and the index in eight hexadecimal digits.
func IPBlockName(subnet types.UID, first uint32) string { return fmt.Sprintf("%s-%08x", subnet, first) }
