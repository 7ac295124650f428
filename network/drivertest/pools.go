package drivertest

import (
	"fmt"
	"net"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

// FakePool is a pool in memory, which dates what is created and gives it a UID as an API server does. custom has the list
// kinds of the custom resources that it serves.
func FakePool(custom map[schema.GroupVersionResource]string) network.Pool {
	stamp := func(action clienttesting.Action) (bool, runtime.Object, error) {
		if create, ok := action.(clienttesting.CreateAction); ok {
			if o, ok := create.GetObject().(metav1.Object); ok {
				o.SetCreationTimestamp(metav1.Now())
				o.SetUID(types.UID(fmt.Sprintf("%s/%s", o.GetNamespace(), o.GetName())))
			}
		}
		return false, nil, nil
	}
	client, others := fake.NewClientset(), dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), custom)
	client.PrependReactor("create", "*", stamp)
	others.PrependReactor("create", "*", stamp)
	return network.Pool{Name: "pool-a", ControlUID: "control", Client: client, Dynamic: others}
}

// SilentPool is a pool whose API server accepts connections and never answers: a [Harness.Silent].
func SilentPool(t *testing.T) network.Pool {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	config := &rest.Config{Host: "http://" + listener.Addr().String()}
	return network.Pool{Name: "silent", ControlUID: "control", Client: kubernetes.NewForConfigOrDie(config), Dynamic: dynamic.NewForConfigOrDie(config)}
}

// ForeignFence is the [Harness.Obstruct] of drivers whose namespaces have the driver flat's fence. Forged labels are not
// enough to make it ours: the control identity is another's.
func ForeignFence(t *testing.T, pool network.Pool, namespace network.Namespace) {
	t.Helper()
	_, err := pool.Client.NetworkingV1().NetworkPolicies(string(namespace.Name)).Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "vivarium-fence", Labels: map[string]string{names.LabelManagedBy: "network", names.LabelControl: "another"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// Fences tells the fences in a pool, for a [Harness.Snapshot].
func Fences(t *testing.T, pool network.Pool) []networkingv1.NetworkPolicy {
	t.Helper()
	list, err := pool.Client.NetworkingV1().NetworkPolicies(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return append([]networkingv1.NetworkPolicy(nil), list.Items...)
}
