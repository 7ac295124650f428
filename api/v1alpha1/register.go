package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of this API.
var GroupVersion = schema.GroupVersion{Group: "vivarium.io", Version: "v1alpha1"}

// SchemeBuilder collects what [AddToScheme] registers.
var (
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
	// AddToScheme registers the types of this package.
	AddToScheme = SchemeBuilder.AddToScheme
)

// Resource qualifies a resource name with the group.
func Resource(resource string) schema.GroupResource {
	return GroupVersion.WithResource(resource).GroupResource()
}

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&Tenant{}, &TenantList{},
		&ResourcePool{}, &ResourcePoolList{},
		&SharedAPI{}, &SharedAPIList{},
		&VPC{}, &VPCList{},
		&Subnet{}, &SubnetList{},
		&IPBlock{}, &IPBlockList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
