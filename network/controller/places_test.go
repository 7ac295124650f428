package controller

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/ipam"
)

// TestPlaceKnowsFirst: a controller that has just started neither gives a pod a place nor tells it anything before it has
// read who has one, and before it has seen the pod's node.
func TestPlaceKnowsFirst(t *testing.T) {
	holding := func(indexers cache.Indexers, objects ...runtime.Object) cache.SharedIndexInformer {
		informer := cache.NewSharedIndexInformer(&cache.ListWatch{}, nil, 0, indexers)
		for _, o := range objects {
			if err := informer.GetStore().Add(o); err != nil {
				t.Fatal(err)
			}
		}
		return informer
	}
	named := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, UID: types.UID("uid of " + name)}
	}
	numbered := &v1alpha1.Subnet{ObjectMeta: named("red001-web"), Spec: v1alpha1.SubnetSpec{VPC: "red001-main"}, Status: v1alpha1.SubnetStatus{VNI: 7}}
	fresh := &v1alpha1.Subnet{ObjectMeta: named("red001-web"), Spec: v1alpha1.SubnetSpec{VPC: "red001-main"}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "red001-app", Name: "web", UID: "pod"}, Spec: corev1.PodSpec{NodeName: "pool-a-0"}}
	for name, tc := range map[string]struct {
		subnet *v1alpha1.Subnet
		want   string
	}{
		"what a subnet has given is not read": {numbered, "what subnet red001-web has given is not read yet"},
		"the node is not seen":                {fresh, "node pool-a-0 is not known yet"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fabric{
				addresses: ipam.New(ipam.Config{}),
				tenants: holding(cache.Indexers{}, &v1alpha1.Tenant{ObjectMeta: named("red001"), Spec: v1alpha1.TenantSpec{
					Network: v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, VPC: "red001-main"},
				}}),
				vpcs:       holding(cache.Indexers{}),
				subnets:    holding(cache.Indexers{byVPC: vpcIndex}, tc.subnet),
				nodes:      holding(cache.Indexers{}),
				namespaces: holding(cache.Indexers{}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "red001-app", Labels: map[string]string{names.LabelTenant: "red001"}}}),
			}
			err := f.place(t.Context(), pod)
			var told *refusal
			if err == nil || errors.As(err, &told) {
				t.Fatalf("got %v, want to be asked again, and the pod told nothing", err)
			}
			if got := err.Error(); got != tc.want && got != network.ErrNotReady.Error()+": "+tc.want {
				t.Errorf("got %q", got)
			}
		})
	}
}
