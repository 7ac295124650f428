// Package v1alpha1 holds the operator's API, group vivarium.io: Tenant, ResourcePool, VPC, Subnet, IPBlock and SharedAPI,
// all cluster-scoped. The gateway's admin listener serves it and keeps it in etcd; the other components are its clients.
//
// Each field says what it means, who sets it and its default. The package must import nothing of this module and nothing
// of Kubernetes but apimachinery and the core types its fields are made of. Start at [Tenant], [ResourcePool],
// [VPC] and [SharedAPI].
//
// +k8s:deepcopy-gen=package
// +k8s:defaulter-gen=TypeMeta
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=io.vivarium.v1alpha1
// +groupName=vivarium.io
package v1alpha1

//go:generate ../../hack/generate.sh
