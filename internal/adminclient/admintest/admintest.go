// Package admintest stands in for the gateway's admin API in tests of its clients: custom resources of the same group in
// a real kube-apiserver, with status subresources, watches and finalizers. It knows neither validation nor defaults;
// those are the gateway's own tests' business. Only tests and benchmarks import it.
package admintest

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/adminclient"
)

// Install makes the kinds in a cluster and waits until they are served.
func Install(ctx context.Context, config *rest.Config) (client.WithWatch, error) {
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	definitions := dyn.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for kind, plural := range map[string]string{
		"Tenant": "tenants", "ResourcePool": "resourcepools", "VPC": "vpcs", "Subnet": "subnets", "IPBlock": "ipblocks",
	} {
		if _, err := definitions.Create(ctx, definition(kind, plural), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	admin, err := adminclient.New(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, list := range []client.ObjectList{
		&v1alpha1.TenantList{}, &v1alpha1.ResourcePoolList{}, &v1alpha1.VPCList{}, &v1alpha1.SubnetList{}, &v1alpha1.IPBlockList{},
	} {
		for {
			err := admin.List(ctx, list)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("the kinds are not served: %w", err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return admin, nil
}

func definition(kind, plural string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": plural + "." + v1alpha1.GroupVersion.Group},
		"spec": map[string]any{
			"group": v1alpha1.GroupVersion.Group, "scope": "Cluster",
			"names": map[string]any{"kind": kind, "plural": plural, "listKind": kind + "List"},
			"versions": []any{map[string]any{
				"name": v1alpha1.GroupVersion.Version, "served": true, "storage": true,
				"subresources": map[string]any{"status": map[string]any{}},
				"schema":       map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	}}
}
