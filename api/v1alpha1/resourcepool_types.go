package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// FinalizerPool is on a ResourcePool from its creation; the vk-provider removes it when no pod of ours is left in the
// pool and its virtual Nodes are gone.
const FinalizerPool = "vivarium.io/pool"

// FinalizerPoolContent is on a ResourcePool while the syncer may have something in the pool. The syncer removes it when
// none of our namespaces is left there, after the vk-provider has let go of its own.
const FinalizerPoolContent = "vivarium.io/pool-content"

// Condition types of a ResourcePool, all set by the vk-provider.
const (
	// PoolReady is true when pods can be placed in the pool: the other conditions are true and it has a virtual node.
	PoolReady = "Ready"
	// PoolReachable is true when the pool's API server answers with our credentials.
	PoolReachable = "Reachable"
	// PoolAuthorized is true when the credentials may do everything that is needed; its message names what is missing.
	PoolAuthorized = "Authorized"
	// PoolIdentified is true when the cluster behind the credentials is the one that was registered, and no other pool's.
	PoolIdentified = "Identified"
	// PoolFenced is true when tenants in the pool cannot reach each other's pods, false when something that keeps them apart
	// is not in place, unknown when all of it is in place and nobody can tell whether the pool enforces it, or when the pool
	// cannot be asked. Set by the network controller alone.
	PoolFenced = "Fenced"
	// PoolDrained is there while the pool is drained: true when it is empty, false with what is left otherwise.
	PoolDrained = "Drained"
	// PoolOrphansKept is there, and true, while pods of the pool that have no pod in the control cluster are not deleted
	// because they are too many to believe that, or the control cluster is another one; its message says what to do.
	PoolOrphansKept = "OrphansKept"
)

// PoolRestored is there, and true, while the pool has been restored from a backup and nobody has confirmed that what it does
// not know any more does not run: its resourceVersions went back. Pods of ours that it has lost are kept, not ready, and no
// new ones come. See [AnnotationRestored].
const PoolRestored = "Restored"

// AnnotationRestored on a ResourcePool, with any value, is the operator's word that nothing of ours runs in the pool but what
// its API server knows: its kubelets have been restarted, or its machines. Pods that the pool lost with the restore are then
// ended and replaced. The platform removes it when that is known.
const AnnotationRestored = "vivarium.io/restored"

// AnnotationDeleteOrphans lets the orphans go that [PoolOrphansKept] is about. Its value is the code in the condition's
// message, which stands for exactly those.
const AnnotationDeleteOrphans = "vivarium.io/delete-orphans"

// ResourcePool is a backend cluster that runs tenants' pods. Its name becomes part of the names of its virtual Nodes.
//
// +genclient
// +genclient:nonNamespaced
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type ResourcePool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the operator wants.
	Spec ResourcePoolSpec `json:"spec,omitempty"`
	// status is what the platform reports.
	Status ResourcePoolStatus `json:"status,omitempty"`
}

// ResourcePoolSpec is what the operator wants of a pool.
type ResourcePoolSpec struct {
	// credentials say how the pool is reached.
	Credentials PoolCredentials `json:"credentials"`
	// clusterUID is the UID of the kube-system namespace of the pool. It pins the pool's identity: when the credentials
	// lead to another cluster, nothing is written there. Immutable; required.
	ClusterUID types.UID `json:"clusterUID"`
	// location becomes the topology labels of the virtual Nodes.
	Location PoolLocation `json:"location,omitempty"`
	// nodes say what virtual Nodes the pool gets.
	Nodes PoolNodes `json:"nodes,omitempty"`
	// limits bound what the pool gives to tenants in all: cpu, memory, pods or any resource that its nodes have. The virtual
	// Nodes offer no more than that together. Pods that run when a limit is lowered stay. Default: what the pool has.
	Limits corev1.ResourceList `json:"limits,omitempty"`
	// tenants say whose pods may come. The virtual Nodes carry a taint (vivarium.io/tenants, NoSchedule) that the pods of
	// the chosen tenants tolerate by themselves; a pod of another tenant that gets there all the same is given back. Pods
	// that run when their tenant is taken out stay. Default: everybody's.
	Tenants *TenantChoice `json:"tenants,omitempty"`
	// pods say what this pool asks of tenants' pods, and what the names of classes in them mean here.
	Pods PoolPods `json:"pods,omitempty"`
	// network says which driver connects pods in this pool.
	Network PoolNetwork `json:"network,omitempty"`
	// cordoned keeps new pods away while the running ones stay. Default false.
	Cordoned bool `json:"cordoned,omitempty"`
	// drain empties the pool: new pods are kept away as by cordoned, and the running ones are evicted within their
	// disruption budgets, however long that takes. Condition Drained tells how far it is. Taking the field away stops it.
	// Default: absent.
	Drain *PoolDrain `json:"drain,omitempty"`
	// bounce says when a pod that the pool has no place for is given back.
	Bounce PoolBounce `json:"bounce,omitempty"`
	// failure says what becomes of pods whose pool does not answer.
	Failure PoolFailure `json:"failure,omitempty"`
}

// PoolPods say what a pool asks of tenants' pods, and what the names of classes in them mean there.
type PoolPods struct {
	// securityLevel is the Pod Security level that pods must meet to run in this pool: baseline (the default), which is asked
	// of every tenant's pod everywhere, or restricted. A pod that does not meet restricted is given back with the reason; the
	// virtual Nodes carry a taint (vivarium.io/pod-security, PreferNoSchedule) so that pods come to other pools first.
	// There is no pool for privileged pods.
	SecurityLevel PodSecurityLevel `json:"securityLevel,omitempty"`
	// runtimeClasses maps the runtimeClassName of a pod to that of its pool pod, as in {sandboxed: kata}. A pod that asks
	// for another is refused with an event. Default: none.
	RuntimeClasses map[string]string `json:"runtimeClasses,omitempty"`
	// priorityClasses maps the priorityClassName of a pod to that of its pool pod, so that the pool's own scheduler and
	// kubelets prefer it as well. A pod with another has the pool's default there. Default: none.
	PriorityClasses map[string]string `json:"priorityClasses,omitempty"`
}

// PodSecurityLevel is a level of Kubernetes' Pod Security Standards that a pool may ask for.
//
// +enum
type PodSecurityLevel string

// The levels.
const (
	// SecurityBaseline forbids what is known to reach for the node.
	SecurityBaseline PodSecurityLevel = "baseline"
	// SecurityRestricted asks for a hardened pod: not root, no capabilities, a seccomp profile.
	SecurityRestricted PodSecurityLevel = "restricted"
)

// PodSecurityLevels gives all that a pool may ask for, the default first.
func PodSecurityLevels() []PodSecurityLevel {
	return []PodSecurityLevel{SecurityBaseline, SecurityRestricted}
}

// PoolDrain says how a pool is emptied.
type PoolDrain struct {
	// unmanaged evicts also pods that no controller makes anew; they are gone for good. Default false: such pods stay, and
	// the pool is not empty until their owners have deleted them.
	Unmanaged bool `json:"unmanaged,omitempty"`
}

// PoolBounce says when a pod that the pool has no place for is given back: the pool pod is removed before it ever ran, the
// pod fails with a DisruptionTarget condition, and its controller makes another one, which the control cluster's scheduler
// places again. A pod without a controller stays and waits.
type PoolBounce struct {
	// afterSeconds is how long the pool's own scheduler may look for a place, or the pool refuse the pod; 1 to 86400. A pool
	// that adds nodes when it is full needs more than that takes. It doubles each time that the replacements of one owner
	// come back to the pool. Default 30.
	// +k8s:validation:minimum=1
	// +k8s:validation:maximum=86400
	AfterSeconds int32 `json:"afterSeconds,omitempty"`
}

// FailurePolicy says what becomes of pods whose pool does not answer.
//
// +enum
type FailurePolicy string

// The failure policies. Under each of them nothing is evicted while no other pool answers either, while it is our own
// credentials that fail, or while the credentials lead to another cluster.
const (
	// FailureEvict does what Kubernetes does with a node that is lost: pods are deleted when the time that they tolerate it
	// has passed, 5 minutes unless they say otherwise, and controllers that may run two of a kind replace them elsewhere at
	// once. A StatefulSet waits until the pool is back or fenced.
	FailureEvict FailurePolicy = "Evict"
	// FailureHold keeps the pods where they are, not ready, until the pool is back.
	FailureHold FailurePolicy = "Hold"
	// FailureFence keeps the pods like Hold until the operator confirms that none of them can be running any more
	// (annotation vivarium.io/fenced). Then they are ended at once, those of StatefulSets too.
	FailureFence FailurePolicy = "Fence"
)

// FailurePolicies gives all there are, the default first.
func FailurePolicies() []FailurePolicy {
	return []FailurePolicy{FailureEvict, FailureHold, FailureFence}
}

// AnnotationFenced on a ResourcePool, with any value, is the operator's word that nothing runs in the pool any more: its
// machines are off, or cut off from everything that their pods could do harm to. While the pool does not answer, its pods are then
// ended at once and replaced elsewhere, whatever the failure policy. The platform removes it when the pool is back.
const AnnotationFenced = "vivarium.io/fenced"

// PoolFailure says what becomes of pods whose pool does not answer.
type PoolFailure struct {
	// policy is Evict (the default), Hold or Fence.
	Policy FailurePolicy `json:"policy,omitempty"`
}

// PoolCredentials say how a pool is reached.
type PoolCredentials struct {
	// kubeconfigSecret names a Secret in the control cluster's vivarium-system namespace whose key "kubeconfig" holds a
	// kubeconfig with a token or a client certificate in it. Exec plugins, auth providers and references to files are
	// refused. A change of the Secret is picked up while running. Required.
	KubeconfigSecret string `json:"kubeconfigSecret"`
}

// PoolLocation says where a pool is.
type PoolLocation struct {
	// region becomes topology.kubernetes.io/region. Default: none.
	Region string `json:"region,omitempty"`
	// zone becomes topology.kubernetes.io/zone; one zone per failure domain. Default: the pool's name.
	Zone string `json:"zone,omitempty"`
}

// NodeMode says how a pool's capacity is cut into virtual Nodes.
//
// +enum
type NodeMode string

// The node modes.
const (
	// NodesShaped publishes as many virtual Nodes of one size as really fit on the pool's nodes.
	NodesShaped NodeMode = "Shaped"
	// NodesMirrored publishes one virtual Node for each node of the pool.
	NodesMirrored NodeMode = "Mirrored"
	// NodesAggregate publishes one virtual Node for the whole pool.
	NodesAggregate NodeMode = "Aggregate"
)

// NodeModes gives all there are, the default first.
func NodeModes() []NodeMode { return []NodeMode{NodesShaped, NodesMirrored, NodesAggregate} }

// PoolNodes say what virtual Nodes a pool gets.
type PoolNodes struct {
	// mode is Shaped (the default), Mirrored or Aggregate.
	Mode NodeMode `json:"mode,omitempty"`
	// selector limits the pool to the nodes with these labels. Default: all nodes.
	Selector map[string]string `json:"selector,omitempty"`
	// shape is the size of one virtual Node in mode Shaped. Default: the allocatable size that most of the pool's nodes
	// have.
	Shape corev1.ResourceList `json:"shape,omitempty"`
	// max bounds the number of virtual Nodes; 1 to 1000. Default 200.
	// +k8s:validation:minimum=1
	// +k8s:validation:maximum=1000
	Max int32 `json:"max,omitempty"`
	// labels are put on the virtual Nodes besides the standard ones, which cannot be replaced.
	Labels map[string]string `json:"labels,omitempty"`
}

// PoolNetwork says how pods are connected in a pool.
type PoolNetwork struct {
	// driver is the network driver. Default "flat".
	Driver string `json:"driver,omitempty"`
	// reserved are the prefixes that the pool itself uses: its nodes', pods' and Services'. No VPC may have addresses of
	// them, for its pods could not tell the pool's from their own. Default: none.
	// +listType=set
	Reserved []string `json:"reserved,omitempty"`
}

// PoolNetworkStatus is what the network controller reports of a pool's driver.
type PoolNetworkStatus struct {
	// driver is the driver that the rest is about.
	Driver string `json:"driver,omitempty"`
	// capabilities are what the driver can do for VPCs; empty where it knows none.
	// +listType=set
	Capabilities []NetworkCapability `json:"capabilities,omitempty"`
}

// NetworkCapability is something that a VPC can ask of a pool's driver.
type NetworkCapability string

// The capabilities.
const (
	// CapabilityVPC is VPCs at all.
	CapabilityVPC NetworkCapability = "VPC"
	// CapabilityDualStack is an IPv4 and an IPv6 address for a pod.
	CapabilityDualStack NetworkCapability = "DualStack"
	// CapabilitySecurityGroups is filters between pods of one VPC.
	CapabilitySecurityGroups NetworkCapability = "SecurityGroups"
	// CapabilityNetworkPolicies is NetworkPolicies of tenants that hold in their VPCs.
	CapabilityNetworkPolicies NetworkCapability = "NetworkPolicies"
	// CapabilityServices is Services of tenants, and names, in their VPCs.
	CapabilityServices NetworkCapability = "Services"
	// CapabilityBandwidth is bounds on a pod's traffic.
	CapabilityBandwidth NetworkCapability = "Bandwidth"
	// CapabilityCrossPool is a VPC whose pods are in several pools.
	CapabilityCrossPool NetworkCapability = "CrossPool"
)

// ResourcePoolStatus is what the platform reports of a pool.
type ResourcePoolStatus struct {
	// observedGeneration is the generation of spec that the rest of status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// revision is a resourceVersion at which the pool was seen lately. A pool that is behind it was restored from a backup.
	Revision string `json:"revision,omitempty"`
	// kubernetesVersion is what the pool's API server reports.
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// nodes is how many nodes of the pool are ready and in use.
	Nodes int32 `json:"nodes,omitempty"`
	// virtualNodes is how many virtual Nodes stand for the pool.
	VirtualNodes int32 `json:"virtualNodes,omitempty"`
	// pods is how many pods of tenants are in the pool.
	Pods int32 `json:"pods,omitempty"`
	// simulated is true when the pool's nodes run no containers (KWOK).
	Simulated bool `json:"simulated,omitempty"`
	// capacity is what the pool's nodes in use have for pods, those of strangers included.
	Capacity corev1.ResourceList `json:"capacity,omitempty"`
	// allocatable is what the virtual Nodes offer together.
	Allocatable corev1.ResourceList `json:"allocatable,omitempty"`
	// largestFree is the room on the virtual Node that has the most processor time left: about the largest pod that can come
	// now.
	LargestFree corev1.ResourceList `json:"largestFree,omitempty"`
	// network is what the pool's network driver can do. Set by the network controller alone.
	Network *PoolNetworkStatus `json:"network,omitempty"`
	// kubeletVersions are those of the nodes in use, the oldest first.
	// +listType=atomic
	KubeletVersions []string `json:"kubeletVersions,omitempty"`
	// conditions are Ready, Reachable, Authorized, Identified, Fenced, Drained, OrphansKept and Restored.
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}

// ResourcePoolList is a list of ResourcePools.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type ResourcePoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the ResourcePools.
	Items []ResourcePool `json:"items"`
}
