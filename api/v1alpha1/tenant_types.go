package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations on a Tenant.
const (
	// AnnotationKubeconfig carries the tenant admin's kubeconfig, base64; set by the gateway, readable by operators only.
	AnnotationKubeconfig = "vivarium.io/tenant.kubeconfig"
	// AnnotationMaxInFlight overrides spec.limits.maxInFlight; a positive integer. Honoured because existing tools set it.
	AnnotationMaxInFlight = "tce.kubezoo/max-requests-inflight"
)

// Finalizers on a Tenant, set when it is created.
const (
	// FinalizerControl is removed by the gateway when nothing of the tenant is left in the control cluster.
	FinalizerControl = "vivarium.io/control"
	// FinalizerPools is removed by the syncer when nothing of the tenant is left in any pool.
	FinalizerPools = "vivarium.io/pools"
)

// Condition types of a Tenant.
const (
	// TenantReady is true when the tenant's namespaces, RBAC and credentials exist and its API answers.
	TenantReady = "Ready"
	// TenantCleaned is false while a deleted tenant still has something in control or in a pool; its message says what.
	TenantCleaned = "Cleaned"
	// TenantCleanedPools is false while a pool still has something of a tenant that is being deleted; the message says which
	// pool and why. Set by the syncer alone.
	TenantCleanedPools = "CleanedPools"
	// TenantNetworkReady is there in mode VPC: true when the tenant's VPC and all subnets are ready; the message says what is
	// not.
	TenantNetworkReady = "NetworkReady"
)

// Tenant is one tenant. Its name is the tenant ID: exactly six characters of a-z and 0-9. Its UID is the security
// principal: credentials carry it, so those of a deleted tenant never work for a new one of the same name.
//
// +genclient
// +genclient:nonNamespaced
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type Tenant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the operator wants.
	Spec TenantSpec `json:"spec,omitempty"`
	// status is what the platform reports.
	Status TenantStatus `json:"status,omitempty"`
}

// TenantSpec is what the operator wants of a tenant.
type TenantSpec struct {
	// weight is the tenant's share of the control cluster's request capacity, relative to other tenants; 1 to 100.
	// Default 10.
	// +k8s:validation:minimum=1
	// +k8s:validation:maximum=100
	Weight int32 `json:"weight,omitempty"`
	// limits bound what the tenant may ask of each gateway replica.
	Limits TenantLimits `json:"limits,omitempty"`
	// suspended refuses every request of the tenant while its pods keep running. Default false.
	Suspended bool `json:"suspended,omitempty"`
	// credentialsNotBefore refuses client certificates issued before it: set it to now to revoke every one of them, and
	// the platform issues a new kubeconfig. It may not lie in the future nor move back. Unset means that all unexpired ones
	// are good.
	CredentialsNotBefore *metav1.Time `json:"credentialsNotBefore,omitempty"`
	// network is the tenant's network. Immutable but for its defaultSubnets.
	Network TenantNetwork `json:"network,omitempty"`
}

// TenantLimits bound one tenant at one gateway replica. Beyond a limit the answer is 429 with Retry-After.
type TenantLimits struct {
	// requestsPerSecond is the sustained rate of requests. Default 200.
	// +k8s:validation:minimum=1
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`
	// burst is how many requests may come at once above the rate. Default twice requestsPerSecond.
	// +k8s:validation:minimum=1
	Burst int32 `json:"burst,omitempty"`
	// maxInFlight is how many requests may be under way, watches and streams not counted. Default 100. The annotation
	// tce.kubezoo/max-requests-inflight overrides it.
	// +k8s:validation:minimum=1
	MaxInFlight int32 `json:"maxInFlight,omitempty"`
	// maxWatches is how many watches may be open. Default 1000.
	// +k8s:validation:minimum=1
	MaxWatches int32 `json:"maxWatches,omitempty"`
	// maxStreams is how many exec, attach, port-forward, proxy and log streams may be open. Default 100.
	// +k8s:validation:minimum=1
	MaxStreams int32 `json:"maxStreams,omitempty"`
	// customResourceDefinitions is how many CustomResourceDefinitions the tenant may have; beyond that the answer is 403.
	// Default 100.
	// +k8s:validation:minimum=1
	CustomResourceDefinitions int32 `json:"customResourceDefinitions,omitempty"`
}

// NetworkMode says how a tenant's pods are connected.
//
// +enum
type NetworkMode string

// The network modes.
const (
	// NetworkFlat puts the tenant's pods in the pool's own network, fenced from other tenants where the pool enforces
	// NetworkPolicy.
	NetworkFlat NetworkMode = "Flat"
	// NetworkVPC puts the tenant's pods in a VPC of their own.
	NetworkVPC NetworkMode = "VPC"
)

// NetworkModes gives all there are, the default first.
func NetworkModes() []NetworkMode { return []NetworkMode{NetworkFlat, NetworkVPC} }

// TenantNetwork is the network that a tenant's pods get.
type TenantNetwork struct {
	// mode is Flat (the default) or VPC. Immutable.
	Mode NetworkMode `json:"mode,omitempty"`
	// vpc is the name of a VPC that exists and is the tenant's, in mode VPC; without it, template is required. Immutable.
	VPC string `json:"vpc,omitempty"`
	// template makes a VPC, named <tenant>-main, and its subnets with the tenant, in mode VPC, and removes them with it.
	// Immutable.
	Template *VPCTemplate `json:"template,omitempty"`
	// defaultSubnets are the labels of the tenant's subnets, as the tenant sees them, that pods are put in who ask for none:
	// the first that serves the pod's pool and has room. Default: all subnets of the VPC, by name.
	// +listType=atomic
	DefaultSubnets []string `json:"defaultSubnets,omitempty"`
}

// VPCTemplate is a VPC that is made with its tenant.
type VPCTemplate struct {
	// cidrs are those of the VPC.
	// +listType=atomic
	CIDRs []string `json:"cidrs"`
	// mtu is that of the VPC.
	MTU int32 `json:"mtu,omitempty"`
	// egress is that of the VPC.
	Egress EgressMode `json:"egress,omitempty"`
	// subnets are made with the VPC. At least one.
	// +listType=map
	// +listMapKey=name
	Subnets []SubnetTemplate `json:"subnets"`
}

// SubnetTemplate is a Subnet that is made with its tenant.
type SubnetTemplate struct {
	// name is the subnet's label as the tenant sees it.
	Name string `json:"name"`
	// cidrs are those of the subnet.
	// +listType=atomic
	CIDRs []string `json:"cidrs"`
	// pools are those of the subnet. Default: every pool.
	// +listType=set
	Pools []string `json:"pools,omitempty"`
	// zone is that of the subnet. Default: every zone.
	Zone string `json:"zone,omitempty"`
}

// TenantPhase sums a Tenant up in one word.
//
// +enum
type TenantPhase string

// The phases of a Tenant.
const (
	// TenantPending means that something the tenant needs is still being made.
	TenantPending TenantPhase = "Pending"
	// TenantActive means that the tenant can be used.
	TenantActive TenantPhase = "Ready"
	// TenantSuspended means that the operator refuses the tenant's requests, for now.
	TenantSuspended TenantPhase = "Suspended"
	// TenantTerminating means that the tenant is being removed and its credentials are refused for good.
	TenantTerminating TenantPhase = "Terminating"
)

// TenantStatus is what the platform reports of a tenant.
type TenantStatus struct {
	// phase sums the conditions up.
	Phase TenantPhase `json:"phase,omitempty"`
	// observedGeneration is the generation of spec that the rest of status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// server is the URL at which the tenant reaches its API.
	Server string `json:"server,omitempty"`
	// certificateExpiry is when the issued kubeconfig stops working.
	CertificateExpiry *metav1.Time `json:"certificateExpiry,omitempty"`
	// beginning is where the tenant's history begins: what an older resource version shows is an earlier tenant's of the same
	// name, and is refused as expired. Set once, before the tenant can be used; tenants of releases that did not know of it
	// have none, and no bound.
	Beginning *TenantBeginning `json:"beginning,omitempty"`
	// conditions are Ready, NetworkReady in mode VPC and, while the tenant is being deleted, Cleaned.
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}

// TenantBeginning is a moment at which nothing was left of any earlier tenant of the same name, and nothing there yet of this
// one, as resource versions: one for each storage that counts by itself.
type TenantBeginning struct {
	// control is the control cluster's.
	Control int64 `json:"control"`
	// events is the control cluster's of Events, which large clusters store apart.
	Events int64 `json:"events"`
	// admin is this API's.
	Admin int64 `json:"admin"`
}

// TenantList is a list of Tenants.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type TenantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the Tenants.
	Items []Tenant `json:"items"`
}
