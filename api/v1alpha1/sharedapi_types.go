package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition types of a SharedAPI, and their reasons.
const (
	// SharedAPIReady is true when the chosen tenants can use the API; its message says what is missing otherwise.
	SharedAPIReady = "Ready"

	// SharedAPIReasonServed says that the API is served to the chosen tenants.
	SharedAPIReasonServed = "Served"
	// SharedAPIReasonMissing says that the control cluster has no such CustomResourceDefinition.
	SharedAPIReasonMissing = "DefinitionMissing"
	// SharedAPIReasonNotEstablished says that the CustomResourceDefinition is there and not served yet.
	SharedAPIReasonNotEstablished = "DefinitionNotEstablished"
	// SharedAPIReasonBuiltIn says that the group is one of Kubernetes.
	SharedAPIReasonBuiltIn = "GroupBuiltIn"
	// SharedAPIReasonTenants says that the CustomResourceDefinition is a tenant's own, which cannot be shared.
	SharedAPIReasonTenants = "DefinitionOfTenant"
	// SharedAPIReasonClash says that a chosen tenant has CustomResourceDefinitions of its own in the group and keeps those.
	SharedAPIReasonClash = "GroupInUse"
)

// SharedAPI offers an API of the operator's, a CustomResourceDefinition in the control cluster, to chosen tenants. They see
// its group under its own name, in discovery, OpenAPI and RBAC, and use its kind in their namespaces; one controller in the
// control cluster serves them all. To every other tenant the API does not exist.
//
// +genclient
// +genclient:nonNamespaced
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type SharedAPI struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the operator wants.
	Spec SharedAPISpec `json:"spec,omitempty"`
	// status is what the platform reports.
	Status SharedAPIStatus `json:"status,omitempty"`
}

// SharedAPISpec is what the operator wants to share, and with whom.
type SharedAPISpec struct {
	// group is the API group of the CustomResourceDefinition, as in "databases.example.com". Required. Immutable.
	Group string `json:"group"`
	// resource is the plural name of its resource, as in "postgresqls". Required. Immutable.
	Resource string `json:"resource"`
	// tenants says who may use the API. A tenant that is named or selected may.
	Tenants TenantChoice `json:"tenants,omitempty"`
}

// SharedAPIStatus is what the platform reports of a SharedAPI.
type SharedAPIStatus struct {
	// observedGeneration is the generation of spec that the rest of status is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// kind is the kind of the shared objects.
	Kind string `json:"kind,omitempty"`
	// tenants is how many tenants can use the API now.
	Tenants int32 `json:"tenants,omitempty"`
	// conditions are Ready.
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}

// SharedAPIList is a list of SharedAPIs.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type SharedAPIList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the SharedAPIs.
	Items []SharedAPI `json:"items"`
}
