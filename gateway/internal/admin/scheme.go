package admin

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/flows"
)

// apiScheme is what the server knows of types.
type apiScheme struct {
	*runtime.Scheme
	codecs     serializer.CodecFactory
	parameters runtime.ParameterCodec
	// published holds the versioned types alone, for documents that must not mention the internal version.
	published *runtime.Scheme
}

// newScheme registers the versioned Go types as the internal version too: etcd holds the versioned object, and with one
// version a second set of types would only be a second place to forget a field. Conversion between the two is then a
// change of label that the machinery does by itself.
func newScheme() (apiScheme, error) {
	published := runtime.NewScheme()
	if err := addTypes(published); err != nil {
		return apiScheme{}, err
	}
	scheme := runtime.NewScheme()
	if err := addTypes(scheme); err != nil {
		return apiScheme{}, err
	}
	internal := schema.GroupVersion{Group: v1alpha1.GroupVersion.Group, Version: runtime.APIVersionInternal}
	scheme.AddKnownTypes(internal,
		&v1alpha1.Tenant{}, &v1alpha1.TenantList{},
		&v1alpha1.ResourcePool{}, &v1alpha1.ResourcePoolList{},
		&v1alpha1.SharedAPI{}, &v1alpha1.SharedAPIList{},
		&v1alpha1.VPC{}, &v1alpha1.VPCList{},
		&v1alpha1.Subnet{}, &v1alpha1.SubnetList{},
		&v1alpha1.IPBlock{}, &v1alpha1.IPBlockList{},
	)
	flows.AddInternal(scheme)
	if err := scheme.SetVersionPriority(v1alpha1.GroupVersion); err != nil {
		return apiScheme{}, err
	}
	scheme.AddTypeDefaultingFunc(&v1alpha1.Tenant{}, func(obj any) { v1alpha1.SetDefaultsTenant(obj.(*v1alpha1.Tenant)) })
	scheme.AddTypeDefaultingFunc(&v1alpha1.ResourcePool{}, func(obj any) { v1alpha1.SetDefaultsResourcePool(obj.(*v1alpha1.ResourcePool)) })
	scheme.AddTypeDefaultingFunc(&v1alpha1.VPC{}, func(obj any) { v1alpha1.SetDefaultsVPC(obj.(*v1alpha1.VPC)) })
	scheme.AddTypeDefaultingFunc(&v1alpha1.Subnet{}, func(obj any) { v1alpha1.SetDefaultsSubnet(obj.(*v1alpha1.Subnet)) })
	return apiScheme{
		Scheme:     scheme,
		codecs:     serializer.NewCodecFactory(scheme),
		parameters: runtime.NewParameterCodec(scheme),
		published:  published,
	}, nil
}

func addTypes(scheme *runtime.Scheme) error {
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	if err := flows.AddToScheme(scheme); err != nil {
		return err
	}
	// Options, Status and the discovery documents have no group of their own; the machinery looks for them in v1.
	unversioned := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, unversioned)
	scheme.AddUnversionedTypes(unversioned,
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return nil
}
